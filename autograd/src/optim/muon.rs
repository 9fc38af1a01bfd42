//! Muon: momentum whose singular values are all made about 1.

use crate::error::Result;
use crate::tape::Var;

/// Coefficients of x·(a + b·x² + c·x⁴) (Jordan 2024). Five iterations take numbers from about 0.002 to 1
/// into about 0.7 to 1.2, and make smaller ones a⁵ = 485 times as large. A larger a would lift those
/// sooner, but then the iteration would not settle.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
const TURNS: usize = 5;

/// The direction of a weight, given its momentum \[units, …\]: as a matrix \[units, inputs\], with singular values of about
/// 1, times √(units / inputs) where there are more units. A vector keeps its momentum.
pub(super) fn direction(momentum: Var<'_>) -> Result<Var<'_>> {
    let shape = momentum.shape();
    if shape.len() < 2 {
        return Ok(momentum);
    }
    let units = shape[0];
    let inputs: usize = shape[1..].iter().product();
    let matrix = momentum.reshape([units, inputs])?;
    let factor = (units as f64 / inputs as f64).sqrt().max(1.0);
    (orthogonal(matrix)? * factor)?.reshape(shape)
}

/// A matrix with the same singular vectors, and singular values of about 1, by Newton–Schulz iteration. It
/// is recorded iteration by iteration, so its derivative is exact for what it gives.
fn orthogonal(matrix: Var<'_>) -> Result<Var<'_>> {
    let [a, b, c] = COEFFICIENTS;
    let tall = matrix.shape()[0] > matrix.shape()[1];
    let [unit, rest] = matrix.inverse_norm_keep(&[0, 1])?;
    let mut x = ((matrix * unit)? * rest)?;
    for _ in 0..TURNS {
        // The smaller of the two products: X·Xᵀ, or Xᵀ·X.
        let square = x.matmul_with(x, tall, !tall)?;
        let polynomial = ((square * b)? + (square.matmul(square)? * c)?)?;
        let turned = if tall {
            x.matmul(polynomial)?
        } else {
            polynomial.matmul(x)?
        };
        x = ((x * a)? + turned)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tape, reference};
    use tensor::{Array, DType};

    fn of(shape: &[usize], numbers: Vec<f64>) -> Array {
        let tape = Tape::new();
        let input = tape.input("momentum", DType::F64, shape).unwrap();
        let array = Array::new(shape, numbers).unwrap();
        let found = reference::run(&[direction(input).unwrap()], &[(input, &array)]);
        found.unwrap().remove(0)
    }

    /// Rows at right angles have their lengths as singular values.
    #[test]
    fn singular_values_come_to_about_one_and_their_vectors_stay() {
        for scale in [1e-200, 1.0, 1e200] {
            let lengths = [3.0, 0.5, 0.2];
            let row = |i: usize| (0..4).map(move |j| if i == j { scale * lengths[i] } else { 0.0 });
            let found = of(&[3, 4], (0..3).flat_map(row).collect()).to_f64_vec();
            for (place, x) in found.iter().enumerate() {
                let wanted = if place % 5 == 0 {
                    0.65..1.25
                } else {
                    0.0..1e-300
                };
                assert!(
                    wanted.contains(x) || *x == 0.0 && place % 5 > 0,
                    "{place}: {x}"
                );
            }
        }
    }

    #[test]
    fn a_tall_matrix_is_a_wide_one_turned_and_stretched() {
        let numbers = |i: usize| ((7 * i + 3) % 11) as f64 - 5.0;
        let tall = of(&[6, 2], (0..12).map(numbers).collect()).to_f64_vec();
        let turned = |i: usize| numbers(i % 6 * 2 + i / 6);
        let wide = of(&[2, 6], (0..12).map(turned).collect()).to_f64_vec();
        for (i, x) in wide.iter().enumerate() {
            let other = tall[i % 6 * 2 + i / 6] / 3.0_f64.sqrt();
            assert!((x - other).abs() < 1e-13, "{x} and {other}");
        }
    }

    #[test]
    fn kernels_are_matrices_of_their_filters_and_vectors_stay() {
        let numbers: Vec<f64> = (0..24).map(|i| f64::from(i * i % 13) - 6.0).collect();
        let kernel = of(&[4, 3, 2, 1], numbers.clone());
        assert_eq!(kernel.shape()[..], [4, 3, 2, 1]);
        assert_eq!(
            kernel.to_f64_vec(),
            of(&[4, 6], numbers.clone()).to_f64_vec()
        );
        assert_eq!(of(&[24], numbers.clone()).to_f64_vec(), numbers);
        assert_eq!(of(&[2, 3], vec![0.0; 6]).to_f64_vec(), [0.0; 6]);
    }
}
