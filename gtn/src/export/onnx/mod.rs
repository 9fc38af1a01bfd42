//! Networks and generators as ONNX (opset 17): files that run without gtn.
//!
//! Images are \[n, channels, rows, columns\] there, as ONNX has them, and n is any number.

mod generator;
mod graph;
mod network;
mod proto;
#[cfg(test)]
mod tests;

pub use generator::generator;
pub use network::Trained;

use crate::error::{Error, Result};
use tensor::Array;

/// Weight norm written out: s·v/‖v‖ for each unit, with directions \[units, …\] and gains \[units\].
fn weight_normed(v: &Array, s: &Array) -> Result<Array> {
    let (gains, numbers) = (s.to_f64_vec(), v.to_f64_vec());
    let inputs = numbers.len() / gains.len().max(1);
    let unit = |(row, gain): (&[f64], &f64)| -> Vec<f32> {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { gain / norm } else { 0.0 };
        row.iter().map(|x| (scale * x) as f32).collect()
    };
    let rows = numbers.chunks_exact(inputs.max(1)).zip(&gains);
    let weights: Vec<f32> = rows.flat_map(unit).collect();
    Array::new(v.shape().clone(), weights).map_err(Error::engine)
}

/// Hands out arrays in the order in which a pass takes them.
struct Feed<'a>(std::slice::Iter<'a, Array>);

impl<'a> Feed<'a> {
    fn of(arrays: &'a [Array]) -> Self {
        Self(arrays.iter())
    }

    fn next(&mut self) -> Result<&'a Array> {
        let missing = || Error::run("there are too few arrays for the network");
        self.0.next().ok_or_else(missing)
    }

    /// The next array, if there is to be a bias.
    fn bias(&mut self, has: bool) -> Result<Option<&'a Array>> {
        has.then(|| self.next()).transpose()
    }

    fn weights(&mut self, normed: bool) -> Result<Array> {
        let first = self.next()?;
        if normed {
            weight_normed(first, self.next()?)
        } else {
            Ok(first.clone())
        }
    }
}
