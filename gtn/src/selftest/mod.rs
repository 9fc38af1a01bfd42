//! Checks whether a device computes what the processor does: single operations with their derivatives, a
//! whole meta-gradient, and outer steps. Also compares graphs with single launches, runs with their
//! repetition, and memory with its forecast.

mod primitives;
mod whole;

use crate::device::PrecisionChoice;
use crate::error::Result;
use kernels::Device;
use tensor::Array;

/// The result of one check.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// The measured numbers.
    pub found: String,
}

/// Runs all checks; `report` gets each as it is done.
///
/// # Errors
/// If a device fails. A wrong result is not an error here, but a check that did not pass.
pub fn run(
    device: &Device,
    precision: PrecisionChoice,
    mut report: impl FnMut(&Check),
) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let mut note = |check: Check| {
        report(&check);
        checks.push(check);
    };
    primitives::run(device, precision, &mut note)?;
    whole::run(device, precision, &mut note)?;
    Ok(checks)
}

/// The largest absolute value expected, and the largest difference.
fn differences(found: &Array, expected: &Array) -> [f64; 2] {
    let (x, y) = (found.to_f64_vec(), expected.to_f64_vec());
    let most = |numbers: &mut dyn Iterator<Item = f64>| {
        // NaN counts as the largest.
        numbers.fold(0.0, |most: f64, x| {
            if x.is_nan() {
                f64::INFINITY
            } else {
                most.max(x)
            }
        })
    };
    let size = most(&mut y.iter().map(|y| y.abs()));
    [
        size,
        most(&mut x.iter().zip(&y).map(|(x, y)| (x - y).abs())),
    ]
}

/// The check that two lists of arrays differ by at most `most`, as a share of the largest number of each. Where
/// an array is zero but for rounding (the scale before a batch norm has no gradient), a thousandth of the
/// largest of all counts instead.
fn compare(name: impl Into<String>, found: &[Array], expected: &[Array], most: f64) -> Check {
    let all: Vec<[f64; 2]> = found
        .iter()
        .zip(expected)
        .map(|(x, y)| differences(x, y))
        .collect();
    let largest = all
        .iter()
        .fold(1e-6_f64, |largest, [size, _]| largest.max(*size));
    let share = |&[size, off]: &[f64; 2]| off / size.max(1e-3 * largest);
    let worst = all.iter().map(share).fold(0.0, f64::max);
    Check {
        name: name.into(),
        passed: worst <= most && found.len() == expected.len(),
        found: format!("off by {worst:.1e} of at most {most:.1e}"),
    }
}

/// The check that two lists of arrays have the same bits.
fn same_bits(name: impl Into<String>, found: &[Array], expected: &[Array]) -> Check {
    let passed = found == expected;
    let found = if passed {
        "the same bits"
    } else {
        "the bits differ"
    };
    Check {
        name: name.into(),
        passed,
        found: found.into(),
    }
}

/// How far products of rounded operands may be off, as a share of the largest.
fn tolerance(precision: PrecisionChoice) -> f64 {
    match precision {
        PrecisionChoice::Fp32 => 1e-4,
        PrecisionChoice::Tf32 => 1e-2,
        PrecisionChoice::Bf16 => 1e-1,
    }
}
