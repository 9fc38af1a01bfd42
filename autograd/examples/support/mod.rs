//! What the examples share: ports, random numbers, and Adam for the outer loop.
#![allow(
    dead_code,
    reason = "every example is a program of its own and takes what it needs"
)]

use autograd::{Port, Result};
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tensor::{Array, DType};

/// An f32 array of a name and shape.
pub(crate) fn port(name: &str, shape: &[usize]) -> Port {
    Port {
        name: name.into(),
        dtype: DType::F32,
        shape: shape.into(),
    }
}

/// An f32 array of given numbers.
pub(crate) fn array(shape: &[usize], numbers: &[f64]) -> Array {
    let numbers: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
    Array::new(shape, numbers).expect("as many numbers as the shape has")
}

/// Normal numbers.
pub(crate) fn normal(count: usize, scale: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let draw = |_| scale * Distribution::<f64>::sample(&StandardNormal, rng);
    (0..count).map(draw).collect()
}

/// Adam (Kingma and Ba 2015) over plain vectors.
pub(crate) struct Adam {
    rate: f64,
    moments: Vec<[f64; 2]>,
    steps: i32,
}

impl Adam {
    pub(crate) fn new(rate: f64, count: usize) -> Self {
        let moments = vec![[0.0; 2]; count];
        Self {
            rate,
            moments,
            steps: 0,
        }
    }

    /// Moves `x` against `gradient`.
    pub(crate) fn step(&mut self, x: &mut [f64], gradient: &[f64]) {
        self.steps += 1;
        let [first, second] = [0.9f64, 0.999].map(|beta| 1.0 - beta.powi(self.steps));
        for ((x, g), [m, v]) in x.iter_mut().zip(gradient).zip(&mut self.moments) {
            *m += 0.1 * (g - *m);
            *v += 0.001 * (g * g - *v);
            *x -= self.rate * (*m / first) / ((*v / second).sqrt() + 1e-8);
        }
    }
}

/// The numbers of one record, array after array.
pub(crate) fn numbers(records: &autograd::Records, record: usize) -> Result<Vec<f64>> {
    let fields = 0..records.ports().len();
    let arrays = fields.map(|field| Ok(records.get(record, field)?.to_f64_vec()));
    Ok(arrays.collect::<Result<Vec<_>>>()?.concat())
}

/// Puts numbers into one record, array after array.
pub(crate) fn put(records: &autograd::Records, record: usize, numbers: &[f64]) -> Result<()> {
    let mut rest = numbers;
    for (field, port) in records.ports().iter().enumerate() {
        let (own, others) = rest.split_at(port.shape.count().min(rest.len()));
        records.set(record, field, &array(&port.shape, own))?;
        rest = others;
    }
    Ok(())
}
