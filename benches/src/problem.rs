//! The fixed set-ups as trainings: their starting values and gradients under the names that files give them.

use crate::Setup;
use autograd::optim::Optimizer;
use autograd::{ArraySpec, Training, Unroll, Values, Var};
use gtn::error::{Error, Result};
use gtn::nn::{Learner, ParamSpec, Statistics, init, stack};
use gtn::outer::training::{mean_of_losses, sum_of_losses};
use kernels::Device;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tensor::{Array, Arrays, DType};

/// What the inner steps train on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DataKind {
    /// Images that the generator makes; its weights and inputs are learned.
    #[default]
    Gen,
    /// Free images that are learned themselves.
    Direct,
}

impl DataKind {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gen => "gen",
            Self::Direct => "direct",
        }
    }
}

const CLASSES: usize = 10;

/// Images of the outer loss whose activations are alive at once: about as many as in an inner batch.
const OUTER_PIECE: usize = 128;

/// A set-up with its sizes, ready to be trained.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Networks and names.
    pub setup: Setup,
    /// Inner steps T.
    pub steps: usize,
    /// Batches: T, or fewer that the inner steps take in turn.
    pub rows: usize,
    /// B
    pub batch: usize,
    /// Generator, or free images.
    pub data: DataKind,
    /// How many learners train at once on the same batches.
    pub learners: usize,
    /// Element type of everything.
    pub dtype: DType,
    /// What moves the learner: momentum, exactly reversible or not.
    pub optimizer: Optimizer,
}

impl Problem {
    /// The name of the array that the steps train on.
    fn input(&self) -> &'static str {
        if self.data == DataKind::Gen { "z" } else { "x" }
    }

    /// The benchmarks' training loop: momentum SGD on synthetic data, with one outer loss at the end, which
    /// is the mean over learners. The outer loss normalises by its own batch, so statistics of inner steps
    /// are not needed and there are no buffers.
    pub fn training(&self) -> Training<'_> {
        let (dtype, batch, rows, steps) = (self.dtype, self.batch, self.rows, self.steps);
        let array = |name: &str, shape: &[usize]| ArraySpec::new(name, dtype, shape);
        let Setup {
            learner,
            generator,
            outer_batch,
            ..
        } = &self.setup;
        let outer = *outer_batch;
        let stacked = |param: &ParamSpec| {
            let all = [&[self.learners], &param.shape[..]].concat();
            array(
                &param.name,
                if self.learners > 1 {
                    &all
                } else {
                    &param.shape
                },
            )
        };
        let mut training =
            Training::new(self.optimizer).weights(learner.params().iter().map(stacked));
        training = match self.data {
            DataKind::Gen => training
                .learned_list("gen", self.generator_specs())
                .learned([array("z", &[rows, batch, generator.config().noise])])
                .prepare_list("gen", |s| generator.prepare(s.list("gen"))),
            DataKind::Direct => training.learned([array("x", &[rows, batch, 28, 28, 1])]),
        };
        training
            .learned([array("lr", &[steps]), array("momentum", &[steps])])
            .given([array("y", &[rows, batch, CLASSES])])
            .given([
                array("xo", &[outer, 28, 28, 1]),
                array("yo", &[outer, CLASSES]),
            ])
            .per_step([self.input(), "y", "lr", "momentum"])
            .loss(move |s| {
                let images = match self.data {
                    DataKind::Gen => generator.images(s.list("gen"), s["z"], s["y"])?,
                    DataKind::Direct => s["x"],
                };
                sum_of_losses(logits(learner, s.weights(), images)?, s["y"])
            })
            .outer(move |s| {
                let loss =
                    |images, labels| mean_of_losses(logits(learner, s.weights(), images)?, labels);
                let whole = learner.norms_over_batches();
                let piece = if whole { outer } else { OUTER_PIECE };
                mean_over_pieces(s["xo"], s["yo"], piece, loss)
            })
    }

    fn generator_specs(&self) -> Vec<ArraySpec> {
        let params = self.setup.generator.params().iter();
        let spec = |param: &ParamSpec| {
            ArraySpec::new(
                format!("gen.{}", param.name),
                self.dtype,
                param.shape.clone(),
            )
        };
        params.map(spec).collect()
    }

    /// Starting values made here, named as files name them.
    pub fn fresh(&self, seed: u64) -> Result<Arrays> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut arrays = Arrays::new();
        let mut add = |prefix: &str, specs: &[ParamSpec], rng: &mut ChaCha8Rng| -> Result<()> {
            for (spec, array) in specs.iter().zip(init(specs, self.dtype, rng)?) {
                let name = format!("{prefix}.{}", spec.name);
                arrays.insert(name.clone(), self.setup.to_file(&name, &array)?);
            }
            Ok(())
        };
        add("theta0", self.setup.learner.params(), &mut rng)?;
        let (rows, batch, outer) = (self.rows, self.batch, self.setup.outer_batch);
        let normal = |shape: &[usize], scale: f64, rng: &mut ChaCha8Rng| {
            let count = shape.iter().product();
            let draw = |_| scale * Distribution::<f64>::sample(&StandardNormal, rng);
            Array::new(shape, (0..count).map(draw).collect::<Vec<f64>>())
                .map(|a| a.cast(self.dtype))
        };
        let (input, outer_images);
        match self.data {
            DataKind::Gen => {
                add("meta.gen", self.setup.generator.params(), &mut rng)?;
                let noise = self.setup.generator.config().noise;
                input = ("meta.z", normal(&[rows, batch, noise], 1.0, &mut rng)?);
            }
            DataKind::Direct => {
                input = ("meta.x", normal(&[rows, batch, 1, 28, 28], 0.5, &mut rng)?);
            }
        }
        outer_images = normal(&[outer, 1, 28, 28], 1.0, &mut rng)?;
        arrays.insert(input.0.into(), input.1);
        arrays.insert("xo".into(), outer_images);
        let classes = |n: usize| (0..n).map(|i| (i % CLASSES) as i32).collect::<Vec<_>>();
        let per_step = |value| Array::full(self.dtype, [self.steps], value);
        arrays.insert("meta.lr".into(), per_step(0.02));
        arrays.insert("meta.mom".into(), per_step(0.5));
        arrays.insert(
            "y".into(),
            Array::new([rows, batch], classes(batch).repeat(rows))?,
        );
        arrays.insert("yo".into(), Array::new([outer], classes(outer))?);
        Ok(arrays)
    }

    /// Puts starting values on a device. The given weights are for the first learner; those of others are
    /// drawn.
    pub fn load(&self, device: &Device, arrays: &Arrays) -> Result<Values> {
        let training = self.training();
        let find = |name: &str| -> Result<Array> {
            let array = arrays.get(name).ok_or_else(|| missing(name))?;
            Ok(self.setup.from_file(name, array)?.cast(self.dtype))
        };
        let params = self.setup.learner.params();
        let first = params.iter().map(|p| find(&format!("theta0.{}", p.name)));
        let mut learners = vec![first.collect::<Result<Vec<_>>>()?];
        for seed in 1..self.learners as u64 {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            learners.push(init(params, self.dtype, rng)?);
        }
        let mut values = Values::zeros(device, &[])?;
        for (spec, array) in training.weight_specs().iter().zip(stack(&learners)?) {
            values.set(&spec.name, &array)?;
        }
        for spec in training.learned_specs().chain(training.given_specs()) {
            let array = match spec.name.as_str() {
                "momentum" => find("meta.mom")?,
                "y" => self.one_hot(arrays, "y", self.rows * self.batch)?,
                "xo" => find("xo")?,
                "yo" => self.one_hot(arrays, "yo", self.setup.outer_batch)?,
                name => find(&format!("meta.{name}"))?,
            };
            values.set(&spec.name, &fitted(spec, &array)?)?;
        }
        Ok(values)
    }

    fn one_hot(&self, arrays: &Arrays, name: &str, count: usize) -> Result<Array> {
        let labels = arrays.get(name).ok_or_else(|| missing(name))?;
        let labels = labels.to_f64_vec();
        if labels.len() != count || labels.iter().any(|&l| !(0.0..CLASSES as f64).contains(&l)) {
            let found = labels.len();
            let wanted = format!("{count} labels below {CLASSES} are wanted, there are {found}");
            return Err(Error::data(format!("array `{name}`: {wanted}")));
        }
        let mut hot = vec![0.0; count * CLASSES];
        labels
            .iter()
            .enumerate()
            .for_each(|(i, &l)| hot[i * CLASSES + l as usize] = 1.0);
        Ok(Array::new([count, CLASSES], hot)?.cast(self.dtype))
    }

    /// The meta-gradient under the names and in the layouts of files.
    pub fn gradient(&self, unroll: &Unroll) -> Result<Arrays> {
        let mut arrays = Arrays::new();
        for (name, array) in unroll.gradients().to_arrays()? {
            let name = if name == "momentum" {
                "mom".to_owned()
            } else {
                name
            };
            arrays.insert(name.clone(), self.setup.to_file(&name, &array)?);
        }
        Ok(arrays)
    }
}

fn missing(name: &str) -> Error {
    Error::data(format!("the starting values have no array `{name}`"))
}

/// The same numbers in the shape that a training declares.
fn fitted(spec: &ArraySpec, array: &Array) -> Result<Array> {
    if array.shape().count() != spec.shape.count() {
        let (name, found, wanted) = (&spec.name, array.shape(), &spec.shape);
        let problem = format!("the starting values of `{name}` have shape {found}, not {wanted}");
        return Err(Error::data(problem));
    }
    Ok(Array::from_bytes(
        array.dtype(),
        spec.shape.clone(),
        array.bytes(),
    )?)
}

fn logits<'t>(learner: &Learner, theta: &[Var<'t>], images: Var<'t>) -> autograd::Result<Var<'t>> {
    Ok(learner.logits(theta, images, Statistics::Batch)?.0)
}

/// The mean loss over all images, computed for at most `piece` of them at a time, so that activations take
/// memory for no more. The loss of an image must not depend on other images, as it does under batch norm.
fn mean_over_pieces<'t>(
    images: Var<'t>,
    classes: Var<'t>,
    piece: usize,
    loss: impl Fn(Var<'t>, Var<'t>) -> autograd::Result<Var<'t>>,
) -> autograd::Result<Var<'t>> {
    let count = images.shape()[0];
    if count <= piece {
        return loss(images, classes);
    }
    let rows = |var: Var<'t>, first: usize, extent: usize| {
        let (mut start, mut extents) = (vec![0; var.shape().len()], var.shape().to_vec());
        (start[0], extents[0]) = (first, extent);
        var.slice(&start, &extents)
    };
    let mut terms = Vec::new();
    for first in (0..count).step_by(piece) {
        let extent = piece.min(count - first);
        let mean = loss(rows(images, first, extent)?, rows(classes, first, extent)?)?;
        let share = extent as f64 / count as f64;
        terms.push((mean * images.tape().constant(share, mean.dtype(), mean.shape()))?);
    }
    images.tape().sum_of(&terms)
}
