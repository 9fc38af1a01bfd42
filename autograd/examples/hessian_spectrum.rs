//! The ends of a Hessian's spectrum by Hessian-vector products and Lanczos' method, without ever forming the
//! Hessian: the largest curvature of a network's loss bounds the learning rate that gradient descent bears.
//!
//! `cargo run -p gtn-autograd --release --example hessian_spectrum`

use autograd::prelude::*;

const EXAMPLES: usize = 64;
const INPUTS: usize = 8;
const UNITS: usize = 16;

/// The weights' shapes.
const SHAPES: [[usize; 2]; 3] = [[INPUTS, UNITS], [1, UNITS], [UNITS, 1]];

/// A loss at a point, and products of its Hessian there.
struct Curvature<'t> {
    device: Device,
    plan: Plan,
    /// Weights and data, and their numbers.
    point: Vec<(Var<'t>, Array)>,
    direction: Vec<Var<'t>>,
}

impl<'t> Curvature<'t> {
    fn new(tape: &'t Tape) -> Result<Self> {
        let weights = |name| -> Result<Vec<Var<'t>>> {
            SHAPES
                .iter()
                .map(|&shape| tape.input(name, F32, shape))
                .collect()
        };
        let (theta, direction) = (weights("weight")?, weights("along")?);
        let x = tape.input("x", F32, [EXAMPLES, INPUTS])?;
        let y = tape.input("y", F32, [EXAMPLES, 1])?;
        let hidden = (x.matmul(theta[0])? + theta[1])?.tanh()?;
        let loss = (hidden.matmul(theta[2])? - y)?.powi(2)?.mean_all()?;
        // Planned once: forward, backward and the tangent of both. Every product replays it.
        let plan = Plan::new(&tape.hvp(loss, &theta, &direction)?)?;
        let filled = |(seed, var): (usize, &Var<'t>)| {
            let scale = if seed < SHAPES.len() { 0.3 } else { 1.0 };
            (*var, Array::normal(F32, var.shape(), scale, seed as u64))
        };
        Ok(Self {
            device: Device::cpu(Some(1))?,
            plan,
            point: theta
                .iter()
                .chain([&x, &y])
                .enumerate()
                .map(filled)
                .collect(),
            direction,
        })
    }

    fn weights() -> usize {
        SHAPES.iter().map(|[rows, columns]| rows * columns).sum()
    }

    /// H·v
    fn product(&self, v: &[f64]) -> Result<Vec<f64>> {
        let mut rest = v;
        let mut arrays = self.point.clone();
        for &var in &self.direction {
            let (own, others) = rest.split_at(var.shape().count());
            arrays.push((var, Array::new(var.shape(), own.to_vec())?.cast(F32)));
            rest = others;
        }
        let given: Vec<(Var<'_>, &Array)> = arrays.iter().map(|(var, a)| (*var, a)).collect();
        let products = self.plan.run(&self.device, &given)?;
        Ok(products.iter().flat_map(Array::to_f64_vec).collect())
    }
}

/// Any vector to begin with.
fn any(count: usize, seed: u64) -> Vec<f64> {
    Array::normal(F64, [count], 1.0, seed).to_f64_vec()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The diagonals of the tridiagonal matrix that Lanczos' method makes of H in `steps` products, with full
/// reorthogonalisation.
fn lanczos(h: &Curvature<'_>, steps: usize) -> Result<[Vec<f64>; 2]> {
    let mut basis: Vec<Vec<f64>> = vec![];
    let (mut diagonal, mut beside) = (vec![], vec![]);
    let mut next = any(Curvature::weights(), 9);
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
    let tape = Tape::new();
    let curvature = Curvature::new(&tape)?;
    for steps in [5, 10, 20, 40] {
        let matrix = lanczos(&curvature, steps)?;
        let (least, greatest) = (eigenvalue(&matrix, 0), eigenvalue(&matrix, steps - 1));
        println!("{steps:2} products: curvatures from {least:.5} to {greatest:.5}");
    }
    println!("of {} weights", Curvature::weights());
    Ok(())
}

#[test]
fn the_greatest_curvature_is_that_of_power_iteration() {
    let tape = Tape::new();
    let curvature = Curvature::new(&tape).expect("a plan");
    let matrix = lanczos(&curvature, 30).expect("products");
    let mut v = any(Curvature::weights(), 8);
    let mut greatest = 0.0;
    for _ in 0..300 {
        let product = curvature.product(&v).expect("a product");
        greatest = dot(&product, &product).sqrt();
        v = product.iter().map(|x| x / greatest).collect();
    }
    let found = eigenvalue(&matrix, 29);
    assert!((found / greatest - 1.0).abs() < 1e-3, "{found} {greatest}");
}
