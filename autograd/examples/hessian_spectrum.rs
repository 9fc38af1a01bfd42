//! The ends of a Hessian's spectrum by Hessian-vector products and Lanczos' method, without ever forming the
//! Hessian: the largest curvature of a network's loss bounds the learning rate that gradient descent bears.
//!
//! `cargo run -p autograd --release --example hessian_spectrum`

mod support;

use autograd::{Plan, Port, Result, Tape, Var};
use kernels::Device;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use support::{array, normal, port};
use tensor::Array;

const EXAMPLES: usize = 64;
const INPUTS: usize = 8;
const UNITS: usize = 16;

/// A loss at a point, and products of its Hessian there.
struct Curvature {
    device: Device,
    plan: Plan,
    /// The weights, then the data.
    point: Vec<(String, Array)>,
    ports: Vec<Port>,
}

impl Curvature {
    fn new(rng: &mut ChaCha8Rng) -> Result<Self> {
        let ports = vec![
            port("w1", &[INPUTS, UNITS]),
            port("b1", &[1, UNITS]),
            port("w2", &[UNITS, 1]),
        ];
        let tape = Tape::new();
        let input = |port: &Port, prefix: &str| {
            let name = format!("{prefix}{}", port.name);
            tape.input(&name, port.dtype, port.shape.clone())
        };
        let theta: Vec<Var<'_>> = ports.iter().map(|p| input(p, "")).collect::<Result<_>>()?;
        let direction: Vec<Var<'_>> = ports
            .iter()
            .map(|p| input(p, "along "))
            .collect::<Result<_>>()?;
        let data = [port("x", &[EXAMPLES, INPUTS]), port("y", &[EXAMPLES, 1])];
        let (x, y) = (input(&data[0], "")?, input(&data[1], "")?);
        let hidden = (x.matmul(theta[0])? + theta[1])?.tanh()?;
        let loss = (hidden.matmul(theta[2])? - y)?.powi(2)?.mean_all()?;
        // Planned once: forward, backward and the tangent of both. Every product replays it.
        let plan = Plan::new(&tape.hvp(loss, &theta, &direction)?)?;
        let mut filled = |port: &Port, scale: f64| {
            let numbers = normal(port.shape.count(), scale, rng);
            (port.name.clone(), array(&port.shape, &numbers))
        };
        let mut point: Vec<_> = ports.iter().map(|p| filled(p, 0.3)).collect();
        point.extend(data.iter().map(|p| filled(p, 1.0)));
        Ok(Self {
            device: Device::cpu(Some(1))?,
            plan,
            point,
            ports,
        })
    }

    fn weights(&self) -> usize {
        self.ports.iter().map(|port| port.shape.count()).sum()
    }

    /// H·v
    fn product(&self, v: &[f64]) -> Result<Vec<f64>> {
        let mut rest = v;
        let mut arrays = self.point.clone();
        for port in &self.ports {
            let (own, others) = rest.split_at(port.shape.count());
            arrays.push((format!("along {}", port.name), array(&port.shape, own)));
            rest = others;
        }
        let named: Vec<(&str, &Array)> = arrays.iter().map(|(n, a)| (&n[..], a)).collect();
        let products = self.plan.run(&self.device, &named)?;
        Ok(products.iter().flat_map(Array::to_f64_vec).collect())
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The diagonals of the tridiagonal matrix that Lanczos' method makes of H in `steps` products, with full
/// reorthogonalisation.
fn lanczos(h: &Curvature, steps: usize, rng: &mut ChaCha8Rng) -> Result<[Vec<f64>; 2]> {
    let mut basis: Vec<Vec<f64>> = vec![];
    let (mut diagonal, mut beside) = (vec![], vec![]);
    let mut next = normal(h.weights(), 1.0, rng);
    for _ in 0..steps {
        let length = dot(&next, &next).sqrt();
        if !basis.is_empty() {
            beside.push(length);
        }
        next.iter_mut().for_each(|x| *x /= length);
        let mut product = h.product(&next)?;
        diagonal.push(dot(&product, &next));
        basis.push(next);
        for _ in 0..2 {
            for q in &basis {
                let along = dot(&product, q);
                product.iter_mut().zip(q).for_each(|(p, q)| *p -= along * q);
            }
        }
        next = product;
    }
    Ok([diagonal, beside])
}

/// How many eigenvalues of a tridiagonal matrix are below x (Sturm's sequence).
fn below([diagonal, beside]: &[Vec<f64>; 2], x: f64) -> usize {
    let mut pivot = 1.0;
    let negative = (0..diagonal.len()).filter(|&i| {
        let coupling = if i == 0 {
            0.0
        } else {
            beside[i - 1] * beside[i - 1]
        };
        pivot = diagonal[i] - x - coupling / pivot;
        pivot < 0.0
    });
    negative.count()
}

/// Eigenvalue number `index` of a tridiagonal matrix, from below, by bisection.
fn eigenvalue(matrix: &[Vec<f64>; 2], index: usize) -> f64 {
    let bound = matrix.iter().flatten().map(|x| x.abs()).fold(0.0, f64::max) * 3.0;
    let (mut low, mut high) = (-bound, bound);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if below(matrix, middle) > index {
            high = middle;
        } else {
            low = middle;
        }
    }
    low
}

fn main() -> Result<()> {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let curvature = Curvature::new(rng)?;
    for steps in [5, 10, 20, 40] {
        let matrix = lanczos(&curvature, steps, rng)?;
        let (least, greatest) = (eigenvalue(&matrix, 0), eigenvalue(&matrix, steps - 1));
        println!("{steps:2} products: curvatures from {least:.5} to {greatest:.5}");
    }
    println!("of {} weights", curvature.weights());
    Ok(())
}

#[test]
fn the_greatest_curvature_is_that_of_power_iteration() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let curvature = Curvature::new(rng).expect("a plan");
    let matrix = lanczos(&curvature, 30, rng).expect("products");
    let mut v = normal(curvature.weights(), 1.0, rng);
    let mut greatest = 0.0;
    for _ in 0..300 {
        let product = curvature.product(&v).expect("a product");
        greatest = dot(&product, &product).sqrt();
        v = product.iter().map(|x| x / greatest).collect();
    }
    let found = eigenvalue(&matrix, 29);
    assert!((found / greatest - 1.0).abs() < 1e-3, "{found} {greatest}");
}
