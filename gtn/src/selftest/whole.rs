//! A meta-gradient and outer steps of a small GTN.

use super::primitives::array;
use super::{Check, compare, same_bits, tolerance};
use crate::data::{Dataset, Problem};
use crate::device::PrecisionChoice;
use crate::error::{Error, Result};
use crate::nn::{Family, Generator, GeneratorConfig, Learner, Norm, init, stack};
use crate::outer::curriculum::{Noise, one_hot};
use crate::outer::inner::Inner;
use crate::outer::meta::MetaTrainer;
use crate::outer::training::{Lesson, Sizes, by_lesson, with_real_loss};
use crate::run::config::{Config, Preset};
use autograd::prelude::*;
use kernels::Cuda;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// Inner steps of the meta-gradient.
const STEPS: usize = 6;

/// Images of an inner step, and of the outer loss.
const BATCH: usize = 10;
const OUTER_BATCH: usize = 16;

/// Bytes of programs, beside buffers, at most.
const PROGRAMS: usize = 32 << 20;

pub(super) fn run(
    device: &Device,
    precision: PrecisionChoice,
    note: &mut impl FnMut(Check),
) -> Result<()> {
    meta_gradient(device, precision, note)?;
    outer_steps(device, precision, note)
}

/// The learner, which has to be smooth. Where a rectifier or a maximum compares numbers that differ by
/// rounding only, its gradient jumps, and after six steps no tolerance fits: with `base_fc`, products in tf32
/// changed a meta-gradient by 8 times its largest number. Of this learner tf32 changes it by 1.5e-2, bf16 by
/// 0.13 and fp32 by 4e-6; a gradient of weights that is 1 % too large changes it by 4e-3. Maxima and
/// rectifiers are tested among the single operations, and in the learners of the outer steps.
const LEARNER: &str = "lenet";

/// A small GTN with batch norm, in any element type, that trains several learners at once.
struct Small {
    generator: Generator,
    learner: Learner,
    dtype: DType,
    learners: usize,
}

impl Small {
    fn new(dtype: DType, learners: usize) -> Result<Self> {
        let Problem { image, classes } = Problem::MNIST;
        let family = Family::named(LEARNER).expect("it is built in");
        Ok(Self {
            generator: Generator::new(GeneratorConfig {
                hidden: 8,
                channels: [4, 3],
                ..GeneratorConfig::default()
            })?,
            learner: family.learner(image, classes, &[3, 4, 8, 6], Norm::Batch)?,
            dtype,
            learners,
        })
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            problem: Problem::MNIST,
            steps: STEPS,
            batch: BATCH,
            examples: STEPS * BATCH,
            learners: self.learners,
            dtype: self.dtype,
        }
    }

    fn training(&self) -> Training<'_> {
        let sizes = self.sizes();
        let inner = Inner::momentum(0.02, 0.5);
        let lesson = Lesson {
            generator: Some(&self.generator),
            noise: Noise::Learned,
            soft_labels: false,
        };
        let alone = by_lesson(lesson, &self.learner, sizes, &inner);
        let real = sizes.batches(["x_real", "y_real"], 1, OUTER_BATCH);
        with_real_loss(alone.given(real), &self.learner)
    }

    /// The same numbers in every element type, up to rounding.
    fn values(&self, device: &Device, training: &Training<'_>) -> Result<Values> {
        let draw = |network, seed| {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            init(network, self.dtype, rng)
        };
        let learners = (0..self.learners as u64).map(|seed| draw(self.learner.params(), seed));
        let theta = stack(&learners.collect::<autograd::Result<Vec<_>>>()?)?;
        let generator = draw(self.generator.params(), 100)?;
        let mut values = Values::zeros(device, &[])?;
        for (seed, spec) in training
            .given_specs()
            .chain(training.learned_specs())
            .enumerate()
        {
            let numbers = match spec.name.as_str() {
                "y" | "y_real" => {
                    let classes = Problem::MNIST.classes;
                    let count = spec.shape.count() / classes;
                    let labels: Vec<u16> = (0..count).map(|i| (i % classes) as u16).collect();
                    Array::new(spec.shape.clone(), one_hot(&labels, classes))?.cast(self.dtype)
                }
                "order" => {
                    let order: Vec<i32> = (0..spec.shape.count() as i32).rev().collect();
                    Array::new(spec.shape.clone(), order)?
                }
                "log_lr" => Array::full(self.dtype, spec.shape.clone(), 0.02f64.ln()),
                "log_momentum" => Array::full(self.dtype, spec.shape.clone(), 0.5f64.ln()),
                _ => array(spec, seed),
            };
            values.set(&spec.name, &numbers)?;
        }
        let weights = training.weight_specs().iter().zip(&theta);
        let sizes = self.sizes().generator(&self.generator);
        for (spec, array) in weights.chain(sizes.iter().zip(&generator)) {
            values.set(&spec.name, array)?;
        }
        Ok(values)
    }
}

/// The loss, then every array of the meta-gradient; and the bytes of the forecast.
fn gradient(device: &Device, dtype: DType, schedule: Schedule) -> Result<(Vec<Array>, usize)> {
    gradient_of(&Small::new(dtype, 1)?, device, schedule)
}

fn gradient_of(small: &Small, device: &Device, schedule: Schedule) -> Result<(Vec<Array>, usize)> {
    let training = small.training();
    let values = small.values(device, &training)?;
    let horizon = Horizon::new(STEPS).schedule(schedule);
    let mut unroll = Unroll::new(device, &training, &horizon)?;
    let loss = unroll.gradient(&values)?.total();
    let mut arrays = vec![Array::scalar(loss, small.dtype)];
    arrays.extend(unroll.gradients().to_arrays()?.into_values());
    Ok((arrays, unroll.forecast().bytes))
}

fn meta_gradient(
    device: &Device,
    precision: PrecisionChoice,
    note: &mut impl FnMut(Check),
) -> Result<()> {
    let cpu = Device::cpu(None)?;
    let most = 10.0 * tolerance(precision);
    device.reset_peak();
    let held = device.held_bytes();
    let (found, forecast) = gradient(device, F32, Schedule::per_step())?;
    for (dtype, name) in [(F32, "f32"), (F64, "f64")] {
        let (expected, _) = gradient(&cpu, dtype, Schedule::per_step())?;
        note(compare(
            format!("meta-gradient, {name}"),
            &found,
            &expected,
            most,
        ));
    }
    let learners = Small::new(F32, 3)?;
    let [together, expected] =
        [device, &cpu].map(|on| gradient_of(&learners, on, Schedule::per_step()));
    note(compare(
        "meta-gradient of three learners",
        &together?.0,
        &expected?.0,
        most,
    ));
    let (again, _) = gradient(device, F32, Schedule::per_step())?;
    note(same_bits("meta-gradient, again", &again, &found));
    for schedule in [
        Schedule::store_all(),
        Schedule::every(2),
        Schedule::binomial(1).with_prelude(),
    ] {
        let (other, _) = gradient(device, F32, schedule)?;
        note(same_bits(
            format!("meta-gradient, {schedule}"),
            &other,
            &found,
        ));
    }
    if device.as_cuda().is_some() {
        let plain = Cuda::open(0, precision.into())?.without_graphs().into();
        let (launched, _) = gradient(&plain, F32, Schedule::per_step())?;
        note(same_bits(
            "meta-gradient, launches instead of graphs",
            &launched,
            &found,
        ));
    }
    note(memory(device, device.peak_bytes() - held, forecast)?);
    Ok(())
}

/// Compares the memory that the device says it gave with the forecast.
fn memory(device: &Device, peak: usize, forecast: usize) -> Result<Check> {
    let free = || -> Result<Option<usize>> {
        Ok(device
            .as_cuda()
            .map(Cuda::facts)
            .transpose()?
            .map(|facts| facts.free_bytes))
    };
    let before = free()?;
    let small = Small::new(F32, 1)?;
    let training = small.training();
    let values = small.values(device, &training)?;
    let own = device.held_bytes();
    let mut unroll = Unroll::new(device, &training, &Horizon::new(STEPS))?;
    unroll.gradient(&values)?;
    let held = device.held_bytes() - own;
    let taken = match (before, free()?) {
        (Some(before), Some(after)) => before.saturating_sub(after),
        _ => held + own,
    };
    // The device may round allocations up, and it also keeps the programs.
    let sound = held == forecast && peak >= forecast && taken <= held + own + PROGRAMS;
    Ok(Check {
        name: "memory".into(),
        passed: sound,
        found: format!(
            "{forecast} bytes forecast, {held} held, {taken} taken with arrays and programs"
        ),
    })
}

fn outer_steps(
    device: &Device,
    precision: PrecisionChoice,
    note: &mut impl FnMut(Check),
) -> Result<()> {
    let config = Config {
        outer_steps: 10,
        inner_steps: 3,
        inner_batch: 10,
        outer_batch: 20,
        widths: "4,6,8".parse().map_err(Error::usage)?,
        noise: 8,
        generator_hidden: 16,
        generator_channels: [6, 4],
        // Small steps: with large ones a last bit becomes a tenth of the loss within ten outer steps.
        inner_lr: 0.02,
        outer_lr: 0.001,
        ..Config::preset(Preset::Quick)
    };
    let data = Dataset::drawn(1, [200, 50, 50]);
    let losses = |device: &Device| -> Result<Vec<Array>> {
        let mut trainer = MetaTrainer::new(device, &config, data.problem())?;
        let step = |_| Ok(Array::scalar(trainer.step(&data)?.meta_loss, F64));
        (0..config.outer_steps).map(step).collect()
    };
    let (found, expected) = (losses(device)?, losses(&Device::cpu(None)?)?);
    let most = 10.0 * tolerance(precision);
    note(compare(
        "losses of ten outer steps",
        &found,
        &expected,
        most,
    ));
    note(same_bits(
        "ten outer steps, again",
        &losses(device)?,
        &found,
    ));
    Ok(())
}
