//! The outer optimiser: Adam over all meta-parameters, as plans that run where the arrays are.

use autograd::optim::Optimizer;
use autograd::{Plan, Port, Records, Result, Tape};
use kernels::{Device, View};
use tensor::{Array, DType, Shape};

/// Adam (Kingma and Ba 2015) over arrays that belong to somebody else.
#[derive(Debug)]
pub(crate) struct Adam {
    update: Plan,
    squares: Plan,
    /// What Adam keeps: `m`, `v` and their weights, for each parameter in turn.
    state: Records,
    /// Learning rate, β₁, β₂, eps, and the factor on all gradients.
    hyper: Records,
    square: Records,
    arena: kernels::Buffer,
}

const OPTIMIZER: Optimizer = Optimizer::Adam;
const HYPER: [&str; 5] = ["lr", "beta1", "beta2", "eps", "factor"];

impl Adam {
    /// For parameters of these names and shapes, in f32.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn new(device: &Device, parameters: &[Port]) -> Result<Self> {
        let (update, squares) = (plan_update(parameters)?, plan_squares(parameters)?);
        let kept = parameters.iter().flat_map(|port| {
            let state = OPTIMIZER.state(&port.shape, DType::F32).into_iter();
            state.map(|slot| scalar_or(format!("{}.{}", slot.name, port.name), slot.shape))
        });
        let hyper = HYPER.map(|name| scalar_or(name.to_owned(), Shape::scalar()));
        let square = scalar_or("square".to_owned(), Shape::scalar());
        Ok(Self {
            state: Records::new(device, kept.collect(), 1)?,
            hyper: Records::new(device, hyper.to_vec(), 1)?,
            square: Records::new(device, vec![square], 1)?,
            arena: device.alloc(update.arena_bytes().max(squares.arena_bytes()))?,
            update,
            squares,
        })
    }

    /// What it keeps between steps: one record.
    pub(crate) fn state(&self) -> &Records {
        &self.state
    }

    /// Computes the norm of the gradient over all arrays. Nobody waits.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn measure(&self, device: &Device, gradients: &[View<'_>]) -> Result<()> {
        let views: Vec<View<'_>> = self
            .squares
            .inputs()
            .iter()
            .map(|port| gradients[numbered(&port.name).1])
            .collect();
        let arena = self.arena.view(0, self.squares.arena_bytes());
        self.squares
            .execute(device, arena, &views, &[self.square.view(0, 0)])
    }

    /// The norm that was measured, when that is done.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn norm(&self) -> Result<f64> {
        Ok(self.square.get(0, 0)?.to_f64_vec()[0].sqrt())
    }

    /// Moves the parameters along `factor` times the gradients; `hyper` is the learning rate, β₁, β₂ and
    /// eps.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn step(
        &self,
        device: &Device,
        parameters: &[View<'_>],
        gradients: &[View<'_>],
        hyper: [f64; 4],
        factor: f64,
    ) -> Result<()> {
        for (field, &value) in hyper.iter().chain([&factor]).enumerate() {
            self.hyper
                .set(0, field, &Array::scalar(value, DType::F32))?;
        }
        let per_parameter = self.state.ports().len() / parameters.len();
        let view = |port: &Port| match numbered(&port.name) {
            ("parameter", i) => parameters[i],
            ("gradient", i) => gradients[i],
            ("hyper", i) => self.hyper.view(0, i),
            (slot, i) => {
                let slot: usize = slot.parse().expect("slots are named by their number");
                self.state.view(0, i * per_parameter + slot)
            }
        };
        let views: Vec<View<'_>> = self.update.inputs().iter().map(view).collect();
        let arena = self.arena.view(0, self.update.arena_bytes());
        self.update.execute(device, arena, &views, &[])
    }
}

fn scalar_or(name: String, shape: Shape) -> Port {
    let dtype = DType::F32;
    Port { name, dtype, shape }
}

/// `kind number`, as the plans' inputs are named.
fn numbered(name: &str) -> (&str, usize) {
    let (kind, number) = name
        .split_once(' ')
        .expect("inputs have a kind and a number");
    (kind, number.parse().expect("a number"))
}

fn plan_update(parameters: &[Port]) -> Result<Plan> {
    let tape = Tape::new();
    let input = |name: String, shape: &Shape| tape.input(&name, DType::F32, shape.clone());
    let hyper = (0..HYPER.len())
        .map(|i| input(format!("hyper {i}"), &Shape::scalar()))
        .collect::<Result<Vec<_>>>()?;
    let (mut outs, mut over) = (Vec::new(), Vec::new());
    for (i, port) in parameters.iter().enumerate() {
        let parameter = input(format!("parameter {i}"), &port.shape)?;
        let gradient = (input(format!("gradient {i}"), &port.shape)? * hyper[4])?;
        let state = OPTIMIZER
            .state(&port.shape, DType::F32)
            .iter()
            .enumerate()
            .map(|(slot, state)| input(format!("{slot} {i}"), &state.shape))
            .collect::<Result<Vec<_>>>()?;
        let (moved, kept) = OPTIMIZER.update(parameter, gradient, &state, &hyper[..4])?;
        over.push((outs.len(), format!("parameter {i}")));
        outs.push(moved);
        for (slot, var) in kept.into_iter().enumerate() {
            over.push((outs.len(), format!("{slot} {i}")));
            outs.push(var);
        }
    }
    let over: Vec<(usize, &str)> = over.iter().map(|(out, name)| (*out, &name[..])).collect();
    Plan::in_place(&outs, &over)
}

fn plan_squares(parameters: &[Port]) -> Result<Plan> {
    let tape = Tape::new();
    let mut squares = Vec::new();
    for (i, port) in parameters.iter().enumerate() {
        let gradient = tape.input(&format!("gradient {i}"), DType::F32, port.shape.clone())?;
        squares.push((gradient * gradient)?.sum_all()?);
    }
    Plan::new(&[tape.sum_of(&squares)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_are_the_textbook_ones() {
        let device = Device::cpu(Some(1)).unwrap();
        let ports = vec![
            scalar_or("a".into(), [2].into()),
            scalar_or("b".into(), Shape::scalar()),
        ];
        let adam = Adam::new(&device, &ports).unwrap();
        let values = Records::new(&device, ports.clone(), 1).unwrap();
        let gradients = Records::new(&device, ports, 1).unwrap();
        let views = |records: &'static Records| [records.view(0, 0), records.view(0, 1)];
        let (values, gradients): (&'static _, &'static _) =
            (Box::leak(Box::new(values)), Box::leak(Box::new(gradients)));
        let mut expected = [[0.0f64; 3]; 3];
        for (t, g) in [(1, [0.3, -4.0, 12.0]), (2, [-0.1, 1.0, 3.0])] {
            gradients
                .set(
                    0,
                    0,
                    &Array::new([2], vec![g[0] as f32, g[1] as f32]).unwrap(),
                )
                .unwrap();
            gradients
                .set(0, 1, &Array::scalar(g[2], DType::F32))
                .unwrap();
            adam.measure(&device, &views(gradients)).unwrap();
            let norm = adam.norm().unwrap();
            let length = g.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!((norm / length - 1.0).abs() < 1e-6);
            let hyper = [0.1, 0.9, 0.99, 1e-8];
            adam.step(&device, &views(values), &views(gradients), hyper, 0.5)
                .unwrap();
            for (e, g) in expected.iter_mut().zip(g) {
                let g = 0.5 * g;
                e[1] = 0.9 * e[1] + 0.1 * g;
                e[2] = 0.99 * e[2] + 0.01 * g * g;
                let (m, v) = (
                    e[1] / (1.0 - 0.9f64.powi(t)),
                    e[2] / (1.0 - 0.99f64.powi(t)),
                );
                e[0] -= 0.1 * m / (v.sqrt() + 1e-8);
            }
        }
        let found = [
            values.get(0, 0).unwrap().to_f64_vec(),
            values.get(0, 1).unwrap().to_f64_vec(),
        ]
        .concat();
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected[0]).abs() < 1e-6, "{found} {expected:?}");
        }
    }
}
