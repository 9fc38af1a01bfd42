//! A meta-gradient and outer steps of a small GTN.

use super::{Check, compare, same_bits, tolerance};
use crate::bench::{DataKind, Problem};
use crate::config::{Config, Preset};
use crate::data::{Dataset, strokes};
use crate::device::PrecisionChoice;
use crate::images::Images;
use crate::meta::MetaTrainer;
use crate::nn::Setup;
use anyhow::{Error, Result};
use autograd::optim::Optimizer;
use autograd::{Horizon, Schedule, Unroll};
use kernels::Device;
use tensor::{Array, DType};

/// Inner steps of the meta-gradient.
const STEPS: usize = 6;

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

fn problem(dtype: DType, learners: usize) -> Result<Problem> {
    Ok(Problem {
        setup: Setup::parse("tiny", true)?,
        steps: STEPS,
        rows: STEPS,
        batch: 5,
        data: DataKind::Gen,
        learners,
        dtype,
        optimizer: Optimizer::Momentum,
    })
}

/// The loss, then every array of the meta-gradient; and the bytes of the forecast.
fn gradient(device: &Device, dtype: DType, schedule: Schedule) -> Result<(Vec<Array>, usize)> {
    gradient_of(&problem(dtype, 1)?, device, schedule)
}

fn gradient_of(
    problem: &Problem,
    device: &Device,
    schedule: Schedule,
) -> Result<(Vec<Array>, usize)> {
    let loaded = problem.load(device, &problem.fresh(0)?)?;
    let training = problem.training();
    let horizon = Horizon::new(STEPS).schedule(schedule);
    let mut unroll = Unroll::new(device, &training, &horizon)?;
    let loss = unroll.gradient(loaded.given())?.total();
    let mut arrays = vec![Array::scalar(loss, problem.dtype)];
    arrays.extend(problem.gradient(&unroll)?.into_values());
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
    let (found, forecast) = gradient(device, DType::F32, Schedule::PerStep)?;
    for (dtype, name) in [(DType::F32, "f32"), (DType::F64, "f64")] {
        let (expected, _) = gradient(&cpu, dtype, Schedule::PerStep)?;
        note(compare(
            format!("meta-gradient, {name}"),
            &found,
            &expected,
            most,
        ));
    }
    let learners = problem(DType::F32, 3)?;
    let [together, expected] =
        [device, &cpu].map(|on| gradient_of(&learners, on, Schedule::PerStep));
    note(compare(
        "meta-gradient of three learners",
        &together?.0,
        &expected?.0,
        most,
    ));
    let (again, _) = gradient(device, DType::F32, Schedule::PerStep)?;
    note(same_bits("meta-gradient, again", &again, &found));
    for schedule in [
        Schedule::StoreAll,
        Schedule::EveryK(2),
        Schedule::BinomialPrelude(1),
    ] {
        let (other, _) = gradient(device, DType::F32, schedule)?;
        note(same_bits(
            format!("meta-gradient, {schedule}"),
            &other,
            &found,
        ));
    }
    if device.cuda_facts().is_some() {
        let plain = Device::cuda_without_graphs(0, precision.into())?;
        let (launched, _) = gradient(&plain, DType::F32, Schedule::PerStep)?;
        note(same_bits(
            "meta-gradient, launches instead of graphs",
            &launched,
            &found,
        ));
    }
    note(memory(device, device.peak_bytes() - held, forecast)?);
    Ok(())
}

/// What the device says it gave, against what was forecast.
fn memory(device: &Device, peak: usize, forecast: usize) -> Result<Check> {
    let free = || -> Result<Option<usize>> {
        Ok(device
            .cuda_facts()
            .transpose()?
            .map(|facts| facts.free_bytes))
    };
    let before = free()?;
    let problem = problem(DType::F32, 1)?;
    let loaded = problem.load(device, &problem.fresh(0)?)?;
    let own = device.held_bytes();
    let training = problem.training();
    let mut unroll = Unroll::new(device, &training, &Horizon::new(STEPS))?;
    unroll.gradient(loaded.given())?;
    let held = device.held_bytes() - own;
    let taken = match (before, free()?) {
        (Some(before), Some(after)) => before.saturating_sub(after),
        _ => held + own,
    };
    // The device rounds what it gives, and has the programs to keep.
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
        widths: "4,6,8".parse().map_err(Error::msg)?,
        noise: 8,
        generator_hidden: 16,
        generator_channels: [6, 4],
        // Small steps: with large ones a last bit becomes a tenth of the loss within ten outer steps.
        inner_lr: 0.02,
        outer_lr: 0.001,
        ..Config::preset(Preset::Quick)
    };
    let data = Dataset {
        name: "embedded",
        train: strokes::draw(1, 0, 200),
        validation: strokes::draw(1, 1, 50),
        test: strokes::draw(1, 2, 50),
        mean: 0.13,
        std: 0.31,
        origin: String::new(),
    };
    let losses = |device: &Device| -> Result<Vec<Array>> {
        let mut trainer = MetaTrainer::new(device, &config)?;
        let images = Images::new(device, &config, &data)?;
        let step = |_| Ok(Array::scalar(trainer.step(&images)?.meta_loss, DType::F64));
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
