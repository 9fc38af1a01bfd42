//! Networks: what parameters they have, and functions that record their forward pass.
//!
//! [`Generator`] makes the training data, [`Learner`] trains on it. Neither owns numbers: parameters are
//! described by [`ParamSpec`]s, made by [`init`], and given to the recording functions as variables.

mod families;
mod generator;
pub mod layers;
mod learner;
mod together;
pub mod widths;

pub use families::LearnerKind;
pub use generator::{Generator, GeneratorConfig, Variant};
pub use learner::{Layer, Learner, Norm, Statistics};
pub use together::stack;

use autograd::{Error, Result, Var};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use tensor::{Array, DType, Shape};

/// One parameter of a network: its name, its shape, and how it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Layer and role, as in `c1.v`.
    pub name: String,
    /// Weights are \[units, …inputs\].
    pub shape: Shape,
    /// Starting values.
    pub init: Init,
}

/// How a parameter starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Normal with variance 2 / fan-in, which keeps the size of activations through rectifiers
    /// (He et al. 2015). The fan-in is the number of inputs of one unit: all axes but the first.
    KaimingNormal,
    /// The norm of each unit's weights in an earlier parameter: the gain with which weight norm leaves
    /// the function as it was (Salimans and Kingma 2016).
    NormOf(String),
}

impl ParamSpec {
    pub(crate) fn new(name: impl Into<String>, shape: impl Into<Shape>, init: Init) -> Self {
        Self {
            name: name.into(),
            shape: shape.into(),
            init,
        }
    }

    /// Direction `v` and gain `s` of a weight-normed layer.
    fn weight(layer: &str, shape: impl Into<Shape>) -> [Self; 2] {
        let v = Self::new(format!("{layer}.v"), shape, Init::KaimingNormal);
        let gain = Init::NormOf(v.name.clone());
        let s = Self::new(format!("{layer}.s"), [v.shape[0]], gain);
        [v, s]
    }

    fn bias(layer: &str, units: usize) -> Self {
        Self::new(format!("{layer}.b"), [units], Init::Zeros)
    }

    /// The affine map `gamma`·x + `beta` of a batch norm.
    fn affine(layer: &str, units: usize) -> [Self; 2] {
        [
            Self::new(format!("{layer}.gamma"), [units], Init::Ones),
            Self::new(format!("{layer}.beta"), [units], Init::Zeros),
        ]
    }
}

/// Starting values for some parameters, in order. They are drawn in f64 and then rounded, so a seed means
/// the same numbers in every precision.
///
/// ```
/// use gtn::nn::{LearnerKind, Norm, init};
/// use rand::{SeedableRng, rngs::StdRng};
/// use tensor::DType;
/// let learner = LearnerKind::Linear.learner([8, 8, 1], 10, &[16, 12], Norm::MeanOnly)?;
/// let draw = |dtype| init(learner.params(), dtype, &mut StdRng::seed_from_u64(0));
/// let (theta, wide) = (draw(DType::F32)?, draw(DType::F64)?);
/// assert_eq!(theta[0].shape()[..], [16, 64]);
/// assert_eq!(theta[0], wide[0].cast(DType::F32));
/// # Ok::<(), autograd::Error>(())
/// ```
///
/// # Errors
/// If a gain is asked for of a parameter that does not come before it, or in another shape.
pub fn init<R: Rng + ?Sized>(specs: &[ParamSpec], dtype: DType, rng: &mut R) -> Result<Vec<Array>> {
    let mut drawn: Vec<Vec<f64>> = Vec::with_capacity(specs.len());
    for spec in specs {
        let count = spec.shape.count();
        let fan_in: usize = spec.shape.iter().skip(1).product();
        let numbers = match &spec.init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::KaimingNormal => normal(count, (2.0 / fan_in as f64).sqrt(), rng),
            Init::NormOf(name) => {
                let of = specs[..drawn.len()]
                    .iter()
                    .position(|s| s.name == *name && s.shape.first() == Some(&count));
                let Some(of) = of else {
                    return Err(Error::Setting(format!(
                        "{}: no earlier parameter `{name}` with as many units",
                        spec.name
                    )));
                };
                row_norms(&drawn[of], count)
            }
        };
        drawn.push(numbers);
    }
    let array = |(numbers, spec): (_, &ParamSpec)| {
        Array::new(spec.shape.clone(), numbers)
            .expect("as many numbers as the shape holds were made above")
            .cast(dtype)
    };
    Ok(drawn.into_iter().zip(specs).map(array).collect())
}

fn normal<R: Rng + ?Sized>(count: usize, std: f64, rng: &mut R) -> Vec<f64> {
    (0..count)
        .map(|_| {
            let unit: f64 = StandardNormal.sample(rng);
            unit * std
        })
        .collect()
}

fn row_norms(rows: &[f64], count: usize) -> Vec<f64> {
    let inputs = rows.len() / count.max(1);
    let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    (0..count)
        .map(|unit| norm(&rows[unit * inputs..][..inputs]))
        .collect()
}

/// Hands out variables in the order of their specs.
struct Feed<'a, 't> {
    of: &'static str,
    rest: &'a [Var<'t>],
}

impl<'a, 't> Feed<'a, 't> {
    /// As many variables as there should be, or an error that says so.
    fn new(of: &'static str, vars: &'a [Var<'t>], wanted: usize) -> Result<Self> {
        if vars.len() == wanted {
            return Ok(Self { of, rest: vars });
        }
        Err(Error::Setting(format!(
            "{of}: {wanted} variables wanted, {} given",
            vars.len()
        )))
    }

    fn take<const N: usize>(&mut self) -> Result<[Var<'t>; N]> {
        let Some((first, rest)) = self.rest.split_first_chunk() else {
            return Err(Error::Setting(format!("{}: too few variables", self.of)));
        };
        self.rest = rest;
        Ok(*first)
    }
}

#[cfg(test)]
mod tests;
