//! What `benches plan` and `benches profile` look at: a set-up of the benchmark, or what `gtn train` would do.

use crate::Problem;
use crate::meta_grad::SetupArgs;
use autograd::{Horizon, Mode, Records, Schedule, Training, Values};
use clap::Args;
use gtn::cli::Machine;
use gtn::error::Error;
use gtn::nn::{Generator, Learner};
use gtn::outer::training::training;
use gtn::run::config::{Config, Engine, Preset};
use gtn::run::settings::{Overrides, Settings};
use kernels::Device;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tensor::{Array, Shape};

#[derive(Debug, Args)]
pub(super) struct SubjectArgs {
    #[command(flatten)]
    setup: Option<SetupArgs>,
    /// Inner steps T of the set-up; 0 takes its own
    #[arg(long, value_name = "T")]
    steps: Option<usize>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    pub(super) machine: Machine,
}

/// Networks and sizes of a training, and how far it is unrolled.
pub(super) struct Subject {
    what: What,
    mode: Mode,
    pub(super) horizon: Horizon,
}

enum What {
    Setup(Box<Problem>),
    Run(Box<(Config, Generator, Learner)>),
}

impl SubjectArgs {
    pub(super) fn subject(&self) -> anyhow::Result<Subject> {
        match &self.setup {
            Some(setup) => self.of_setup(setup),
            None => self.of_run(),
        }
    }

    /// Of the settings of a training, those of the engine are for a set-up as well.
    fn of_setup(&self, setup: &SetupArgs) -> anyhow::Result<Subject> {
        let Settings {
            preset,
            config,
            flags,
        } = &self.settings;
        if config.is_some() || *preset != Preset::default() {
            let error = Error::usage("--config and --preset are for a training, not for a set-up");
            return Err(error.into());
        }
        let mut given = Overrides::default().with("schedule", Some(Schedule::default()));
        given.change(flags.clone());
        let engine: Engine = given.parse().map_err(|e| e.at("of a set-up"))?;
        let problem = setup.problem(self.steps.unwrap_or(0))?;
        let mode = engine.mode.into();
        let horizon = problem
            .horizon()
            .schedule(engine.schedule)
            .segments(engine.segments)
            .mode(mode);
        Ok(Subject {
            mode,
            horizon,
            what: What::Setup(Box::new(problem)),
        })
    }

    /// With the widest learner that may be drawn.
    fn of_run(&self) -> anyhow::Result<Subject> {
        if self.steps.is_some() {
            let error = Error::usage("--steps is for a set-up (--setup NAME)");
            return Err(error.hint("of a training they are --inner-steps").into());
        }
        let config = self.settings.resolve()?;
        let generator = config.generator()?;
        let learner = config.learner(&config.widths.widest())?;
        Ok(Subject {
            mode: config.engine.mode.into(),
            horizon: config.horizon(),
            what: What::Run(Box::new((config, generator, learner))),
        })
    }
}

impl Subject {
    pub(super) fn training(&self) -> Training<'_> {
        match &self.what {
            What::Setup(problem) => problem.training(),
            What::Run(run) => training(&run.0, &run.1, &run.2),
        }
    }

    /// The same training, no further than so many steps, with one outer loss.
    pub(super) fn short(&self, steps: usize) -> Horizon {
        let short = Horizon::new(steps.min(self.horizon.steps())).mode(self.mode);
        match &self.what {
            What::Setup(problem) if problem.rows < problem.steps => short.rows(1),
            _ => short,
        }
    }

    /// For a headline.
    pub(super) fn name(&self) -> String {
        match &self.what {
            What::Setup(problem) => {
                let (name, data) = (problem.setup.name, problem.data.name());
                format!(
                    "set-up {name}, {data}, T = {}, B = {}",
                    problem.steps, problem.batch
                )
            }
            What::Run(run) => {
                let config = &run.0;
                let (learner, widths) = (config.learner_name(), config.widths.widest());
                let (steps, batch) = (config.inner_steps, config.inner_batch);
                format!("training of {learner}, widths {widths:?}, T = {steps}, B = {batch}")
            }
        }
    }
}

/// Numbers to train on: the time does not depend on which, as long as nothing runs away.
pub(super) fn any_values(
    device: &Device,
    training: &Training<'_>,
    horizon: &Horizon,
) -> autograd::Result<Values> {
    let values = Values::new(device, training, horizon)?;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for records in [
        &values.start,
        &values.shared,
        &values.rows,
        &values.outer_rows,
    ] {
        fill(records, |name, shape| match name {
            "y" => one_hot(shape),
            _ => (0..shape.count())
                .map(|_| 0.1 * Distribution::<f64>::sample(&StandardNormal, &mut rng))
                .collect(),
        })?;
    }
    let usual = training.optimizer.hyper();
    fill(&values.hyper, |name, shape| {
        let value = usual.iter().find(|(known, _)| *known == name);
        vec![value.map_or(0.0, |(_, value)| *value); shape.count()]
    })?;
    Ok(values)
}

fn fill(
    records: &Records,
    mut values: impl FnMut(&str, &Shape) -> Vec<f64>,
) -> autograd::Result<()> {
    for record in 0..records.count() {
        for (field, port) in records.ports().iter().enumerate() {
            let array = Array::new(port.shape.clone(), values(&port.name, &port.shape));
            let array = array.expect("as many numbers as the shape has");
            records.set(record, field, &array.cast(port.dtype))?;
        }
    }
    Ok(())
}

/// Rows of one class after another.
fn one_hot(shape: &Shape) -> Vec<f64> {
    let classes = shape.last().copied().unwrap_or(1);
    let hot = |i: usize| f64::from(u8::from(i % classes == i / classes % classes));
    (0..shape.count()).map(hot).collect()
}
