//! The teacher: everything that the outer loop learns, and what it gives a learner at every inner step.

use crate::nn::{Generator, init};
use crate::outer::curriculum::{noise, one_hot};
use crate::outer::routine::{Pick, Routine};
use crate::outer::training::{port, ports, put, take};
use crate::run::config::Config;
use crate::seeds::{Draw, rng};
use autograd::{Port, Records, Result, Tape};
use kernels::{Device, View};
use tensor::{DType, Shape};

/// The meta-parameters: all that is learned in the outer loop.
#[derive(Debug)]
pub struct Teacher {
    /// The network that makes the images, of no use where real images teach.
    pub generator: Generator,
    /// The generator's parameters, where it is of use: one record.
    pub weights: Records,
    /// One record: `log_lr` \[T\], `log_momentum` \[T\], and `z` \[T·B, noise\] where noise is learned.
    /// Rates are learned as logarithms, so that they stay positive and move by factors.
    pub learned: Records,
    /// From logarithms to a rate per inner step: those of learning first, then the momenta.
    exp: Routine,
    /// A batch of learned noise.
    pick: Option<Pick>,
}

// Fields of `Teacher::learned`.
pub(crate) const LOG_LR: usize = 0;
pub(crate) const LOG_MOMENTUM: usize = 1;
pub(crate) const NOISE: usize = 2;

// Fields of the rows of an inner step.
pub(crate) const INPUT: usize = 0;
pub(crate) const CLASS: usize = 1;

// Fields of the hyper-parameters of an inner step.
pub(crate) const LR: usize = 0;
pub(crate) const MOMENTUM: usize = 1;

impl Teacher {
    /// Meta-parameters before the first outer step.
    ///
    /// # Errors
    /// If there is no such generator, or not enough memory.
    pub fn new(device: &Device, config: &Config) -> Result<Self> {
        let generator = config.generator()?;
        let generates = config.curriculum.generates();
        let params = if generates { generator.params() } else { &[] };
        let weights = Records::new(device, ports(params), 1)?;
        let rng = &mut rng(config.seed, Draw::Generator, 0, 0);
        for (field, array) in init(params, DType::F32, rng)?.iter().enumerate() {
            weights.set(0, field, array)?;
        }
        let learned = Records::new(device, learned_ports(config), 1)?;
        for (field, start) in [
            (LOG_LR, config.inner_lr),
            (LOG_MOMENTUM, config.inner_momentum),
        ] {
            put(
                &learned,
                0,
                field,
                vec![start.ln() as f32; config.inner_steps],
            )?;
        }
        if config.curriculum.learns_noise() {
            let count = learned.ports()[NOISE].shape.count();
            put(&learned, 0, NOISE, noise(count, config.seed, 0))?;
        }
        let z = learned.ports().get(NOISE..).filter(|z| !z.is_empty());
        let pick = z.map(|z| Pick::new(device, z, config.inner_batch));
        Ok(Self {
            generator,
            weights,
            learned,
            exp: exp(device, config.inner_steps)?,
            pick: pick.transpose()?,
        })
    }

    /// The parameters in the order of the outer optimiser.
    pub(crate) fn views(&self) -> Vec<View<'_>> {
        [&self.weights, &self.learned]
            .into_iter()
            .flat_map(views)
            .collect()
    }

    /// Learning rate and momentum of every inner step.
    pub fn rates(&self) -> Result<[Vec<f32>; 2]> {
        let rates = |field| -> Result<Vec<f32>> {
            let logs = take(&self.learned, 0, field)?;
            Ok(logs.into_iter().map(f32::exp).collect())
        };
        Ok([rates(LOG_LR)?, rates(LOG_MOMENTUM)?])
    }

    /// Fills the rows of the training number `number`, a record per inner step: noise and classes. Gives the
    /// labels, T·B.
    pub(crate) fn fill_noise(
        &self,
        config: &Config,
        rows: &Records,
        number: u64,
    ) -> Result<Vec<u8>> {
        let [steps, batch] = [config.inner_steps, config.inner_batch];
        let (curriculum, size) = (config.curriculum, batch * config.noise);
        let labels = curriculum.labels(steps * batch, config.seed, number);
        let order = curriculum.order([steps, batch], config.seed, number);
        let labels: Vec<u8> = order.iter().map(|&i| labels[i]).collect();
        for (step, classes) in labels.chunks(batch).enumerate() {
            put(rows, step, CLASS, one_hot(classes))?;
        }
        if let Some(pick) = &self.pick {
            let z = [self.learned.view(0, NOISE)];
            for (step, chosen) in order.chunks(batch).enumerate() {
                pick.put(&z, chosen, &[rows.view(step, INPUT)])?;
            }
        } else {
            // Number 0 is the start of learned noise; evaluation may come with any number.
            let z = noise(steps * size, config.seed, number);
            for (step, z) in z.chunks(size).enumerate() {
                put(rows, step, INPUT, z.to_vec())?;
            }
        }
        Ok(labels)
    }

    /// Fills the hyper-parameters of every inner step: learning rate, momentum.
    pub(crate) fn fill_rates(&self, to: &Records) -> Result<()> {
        let input = |name: &str| {
            self.learned
                .view(0, self.learned.field(name).expect("a field"))
        };
        let of_steps = |field| (0..to.count()).map(move |step| to.view(step, field));
        let rates: Vec<View<'_>> = of_steps(LR).chain(of_steps(MOMENTUM)).collect();
        self.exp.run(input, &rates)
    }
}

/// The arrays of the first record.
pub(crate) fn views(records: &Records) -> impl Iterator<Item = View<'_>> {
    (0..records.ports().len()).map(|field| records.view(0, field))
}

fn exp(device: &Device, steps: usize) -> Result<Routine> {
    let tape = Tape::new();
    let mut rates = Vec::new();
    for name in ["log_lr", "log_momentum"] {
        let rate = tape.input(name, DType::F32, [steps])?.exp()?;
        for step in 0..steps {
            rates.push(rate.slice(&[step], &[1])?.reshape(Shape::scalar())?);
        }
    }
    Routine::new(device, &rates)
}

fn learned_ports(config: &Config) -> Vec<Port> {
    let (steps, examples) = (config.inner_steps, config.inner_steps * config.inner_batch);
    let mut ports = vec![port("log_lr", [steps]), port("log_momentum", [steps])];
    if config.curriculum.learns_noise() {
        ports.push(port("z", [examples, config.noise]));
    }
    ports
}
