//! Parameters of networks, and how they start.

use super::network::{Scheme, Start};
use autograd::{Error, Result};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};
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
    /// Weights \[units, …inputs\].
    Weights(Start),
    /// Uniform between the number and its negative.
    Uniform(f64),
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
    pub(super) fn weight(layer: &str, shape: impl Into<Shape>, start: Start) -> [Self; 2] {
        let v = Self::new(format!("{layer}.v"), shape, Init::Weights(start));
        let gain = Init::NormOf(v.name.clone());
        let s = Self::new(format!("{layer}.s"), [v.shape[0]], gain);
        [v, s]
    }

    pub(super) fn bias(layer: &str, units: usize) -> Self {
        Self::new(format!("{layer}.b"), [units], Init::Zeros)
    }

    /// The affine map `gamma`·x + `beta` of a normalisation.
    pub(super) fn affine(layer: &str, units: usize) -> [Self; 2] {
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
/// use gtn::nn::{Network, init};
/// use rand::{SeedableRng, rngs::StdRng};
/// use tensor::DType;
/// let network: Network = "dense 16 | batch | relu | dense".parse().unwrap();
/// let learner = network.learner([8, 8, 1], 10)?;
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
        let numbers = match &spec.init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Weights(start) => weights(&spec.shape, *start, rng),
            Init::Uniform(bound) => uniform(count, *bound, rng),
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

/// A layer's first weights, \[units, …inputs\].
fn weights<R: Rng + ?Sized>(shape: &Shape, start: Start, rng: &mut R) -> Vec<f64> {
    let (count, units) = (shape.count(), shape[0]);
    let fan_in = count / units;
    // For fan-out: every input goes to all units, through as many weights each as a window has pixels.
    let pixels: usize = shape[1..]
        .split_last()
        .map_or(1, |(_, window)| window.iter().product());
    let [fan_in, both] = [fan_in, fan_in + units * pixels].map(|fan| fan as f64);
    let scale = start.scale;
    match start.scheme {
        Scheme::KaimingNormal => normal(count, (2.0 / fan_in).sqrt() * scale, rng),
        Scheme::KaimingUniform => uniform(count, (6.0 / fan_in).sqrt() * scale, rng),
        Scheme::XavierNormal => normal(count, (2.0 / both).sqrt() * scale, rng),
        Scheme::XavierUniform => uniform(count, (6.0 / both).sqrt() * scale, rng),
        Scheme::Pytorch => uniform(count, fan_in.sqrt().recip() * scale, rng),
        Scheme::Orthogonal => orthogonal([units, count / units], scale, rng),
    }
}

fn uniform<R: Rng + ?Sized>(count: usize, bound: f64, rng: &mut R) -> Vec<f64> {
    let between = Uniform::new_inclusive(-bound, bound).expect("bounds are finite");
    (0..count).map(|_| between.sample(rng)).collect()
}

/// Orthogonal rows, or orthogonal columns if there are more rows than columns, all of that length.
fn orthogonal<R: Rng + ?Sized>([rows, columns]: [usize; 2], length: f64, rng: &mut R) -> Vec<f64> {
    let (few, many) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(few);
    for _ in 0..few {
        let mut vector = normal(many, 1.0, rng);
        // Gram-Schmidt. Two passes are enough for full precision (Giraud et al. 2005).
        for other in vectors.iter().chain(&vectors) {
            let along: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
            vector
                .iter_mut()
                .zip(other)
                .for_each(|(x, o)| *x -= along * o);
        }
        let norm = row_norms(&vector, 1)[0];
        vector.iter_mut().for_each(|x| *x /= norm);
        vectors.push(vector);
    }
    let at = |row: usize, column: usize| {
        if rows <= columns {
            vectors[row][column]
        } else {
            vectors[column][row]
        }
    };
    (0..rows * columns)
        .map(|i| length * at(i / columns, i % columns))
        .collect()
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
