//! The fixed set-ups as trainings: their starting values and gradients under the names that files give them.

use crate::Setup;
use anyhow::{Context, Result, bail};
use autograd::optim::Optimizer;
use autograd::{Given, Horizon, Port, Records, Row, Scope, Training, Unroll};
use gtn::nn::{Learner, ParamSpec, Statistics, init, stack};
use gtn::outer::training::{mean_of_losses, mean_over_pieces, sum_of_losses, together};
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

/// Images of the outer loss whose activations are alive at once: what an inner step has, or some more.
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

/// The arrays of a problem on a device.
#[derive(Debug)]
pub struct Loaded {
    start: Records,
    shared: Records,
    rows: Records,
    hyper: Records,
    outer_rows: Records,
}

impl Loaded {
    /// As the driver takes them.
    pub fn given(&self) -> Given<'_> {
        Given {
            start: &self.start,
            shared: &self.shared,
            rows: &self.rows,
            hyper: &self.hyper,
            outer_rows: &self.outer_rows,
        }
    }
}

fn ports(specs: &[ParamSpec], dtype: DType) -> Vec<Port> {
    specs
        .iter()
        .map(|spec| Port {
            name: spec.name.clone(),
            dtype,
            shape: spec.shape.clone(),
        })
        .collect()
}

impl Problem {
    /// How far it is unrolled: with one outer loss, after the last step.
    pub fn horizon(&self) -> Horizon {
        Horizon::new(self.steps).rows(self.rows)
    }

    /// The training loop of `benchmarks`: momentum SGD on synthetic data, one outer loss at the end; of
    /// several learners their mean.
    pub fn training(&self) -> Training<'_> {
        let (dtype, batch) = (self.dtype, self.batch);
        let port = |name: &str, shape: Vec<usize>| Port {
            name: name.into(),
            dtype,
            shape: shape.into(),
        };
        let input = match self.data {
            DataKind::Gen => port("z", vec![batch, self.setup.generator.config().noise]),
            DataKind::Direct => port("x", vec![batch, 28, 28, 1]),
        };
        let labels = |n: usize| port("y", vec![n, CLASSES]);
        let outer = self.setup.outer_batch;
        let alone = Training {
            theta: ports(self.setup.learner.params(), dtype),
            // The outer loss takes statistics of its own batch: nothing reads what a step leaves.
            buffers: Vec::new(),
            shared: match self.data {
                DataKind::Gen => ports(self.setup.generator.params(), dtype),
                DataKind::Direct => Vec::new(),
            },
            rows: vec![
                Row {
                    port: input,
                    learned: true,
                },
                Row {
                    port: labels(batch),
                    learned: false,
                },
            ],
            outer_rows: vec![port("x", vec![outer, 28, 28, 1]), labels(outer)],
            optimizer: self.optimizer,
            precondition: None,
            prepare: Box::new(|_, shared| match self.data {
                DataKind::Gen => self.setup.generator.prepare(shared),
                DataKind::Direct => Ok(Vec::new()),
            }),
            loss: Box::new(|scope: Scope<'_, '_>| {
                let [input, labels] = [scope.rows[0], scope.rows[1]];
                let images = match self.data {
                    DataKind::Gen => self.setup.generator.images(scope.shared, input, labels)?,
                    DataKind::Direct => input,
                };
                let logits = logits(&self.setup.learner, scope.theta, images)?;
                Ok((sum_of_losses(logits, labels)?, Vec::new()))
            }),
            outer: Box::new(move |scope: Scope<'_, '_>| {
                let loss = |images, labels| {
                    mean_of_losses(logits(&self.setup.learner, scope.theta, images)?, labels)
                };
                let [images, labels] = [scope.rows[0], scope.rows[1]];
                let whole = self.setup.learner.norms_over_batches();
                let piece = if whole { outer } else { OUTER_PIECE };
                mean_over_pieces(images, labels, piece, loss)
            }),
        };
        together(alone, self.learners)
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

    /// Puts starting values on a device. They are those of the first learner; others are drawn.
    pub fn load(&self, device: &Device, arrays: &Arrays) -> Result<Loaded> {
        let training = self.training();
        let find = |name: &str| -> Result<Array> {
            let array = arrays
                .get(name)
                .with_context(|| format!("the starting values have no array `{name}`"))?;
            Ok(self.setup.from_file(name, array)?.cast(self.dtype))
        };
        let start = Records::new(device, training.start_ports(), 1)?;
        let params = self.setup.learner.params();
        let first = params.iter().map(|p| find(&format!("theta0.{}", p.name)));
        let mut learners = vec![first.collect::<Result<Vec<_>>>()?];
        for seed in 1..self.learners as u64 {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            learners.push(init(params, self.dtype, rng)?);
        }
        for (i, array) in stack(&learners)?.iter().enumerate() {
            start.set(0, i, array)?;
        }
        let shared = Records::new(device, training.shared.clone(), 1)?;
        for (i, port) in training.shared.iter().enumerate() {
            shared.set(0, i, &find(&format!("meta.gen.{}", port.name))?)?;
        }
        let rows = Records::new(device, training.row_ports(), self.rows)?;
        let input = find(match self.data {
            DataKind::Gen => "meta.z",
            DataKind::Direct => "meta.x",
        })?;
        let labels = self.one_hot(arrays, "y", self.rows * self.batch)?;
        fill(&rows, &[input, labels])?;
        let hyper = Records::new(device, training.hyper_ports(), self.steps)?;
        fill(&hyper, &[find("meta.lr")?, find("meta.mom")?])?;
        let outer_rows = Records::new(device, training.outer_rows.clone(), 1)?;
        outer_rows.set(0, 0, &find("xo")?)?;
        outer_rows.set(0, 1, &self.one_hot(arrays, "yo", self.setup.outer_batch)?)?;
        Ok(Loaded {
            start,
            shared,
            rows,
            hyper,
            outer_rows,
        })
    }

    fn one_hot(&self, arrays: &Arrays, name: &str, count: usize) -> Result<Array> {
        let labels = arrays
            .get(name)
            .with_context(|| format!("the starting values have no array `{name}`"))?;
        let labels = labels.to_f64_vec();
        if labels.len() != count || labels.iter().any(|&l| !(0.0..CLASSES as f64).contains(&l)) {
            bail!(
                "array `{name}`: {count} labels below {CLASSES} are wanted, there are {}",
                labels.len()
            );
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
        let shared = unroll.shared_gradient();
        for (i, port) in shared.ports().iter().enumerate() {
            let name = format!("gen.{}", port.name);
            arrays.insert(name.clone(), self.setup.to_file(&name, &shared.get(0, i)?)?);
        }
        let (rows, rates) = (unroll.row_gradient(), unroll.hyper_gradient());
        let input = if self.data == DataKind::Gen { "z" } else { "x" };
        for (records, field, name) in [(rows, 0, input), (rates, 0, "lr"), (rates, 1, "mom")] {
            let mut all = Vec::new();
            for record in 0..records.count() {
                all.extend(records.get(record, field)?.bytes());
            }
            let shape = [&[records.count()], &records.ports()[field].shape[..]].concat();
            let array = Array::from_bytes(self.dtype, shape, &all)?;
            arrays.insert(name.into(), self.setup.to_file(name, &array)?);
        }
        Ok(arrays)
    }
}

/// Fills all records, each with its part of an array per field.
fn fill(records: &Records, arrays: &[Array]) -> Result<()> {
    let count = records.count();
    for (field, (array, port)) in arrays.iter().zip(records.ports()).enumerate() {
        if array.bytes().len() != count * port.bytes() {
            bail!(
                "the starting values of `{}` have shape {}, not that of {count} steps",
                port.name,
                array.shape()
            );
        }
        let parts = array.bytes().chunks_exact(port.bytes());
        for (record, part) in parts.enumerate() {
            let part = Array::from_bytes(port.dtype, port.shape.clone(), part)?;
            records.set(record, field, &part)?;
        }
    }
    Ok(())
}

fn logits<'t>(
    learner: &Learner,
    theta: &[autograd::Var<'t>],
    images: autograd::Var<'t>,
) -> autograd::Result<autograd::Var<'t>> {
    Ok(learner.logits(theta, images, Statistics::Batch)?.0)
}
