//! What `benches plan` and `benches profile` analyse: a set-up of the benchmark, or a run of `gtn train`.

use crate::Problem;
use crate::meta_grad::SetupArgs;
use autograd::{ArraySpec, Horizon, Mode, Policy, Training, Values};
use clap::Args;
use gtn::cli::Machine;
use gtn::data;
use gtn::error::{Error, Result};
use gtn::nn::Learner;
use gtn::outer::makers::Makers;
use gtn::outer::training::training;
use gtn::run::config::{Config, Engine, Preset};
use gtn::run::memory::check_values;
use gtn::run::settings::{Overrides, Settings};
use gtn::run::values::count;
use kernels::Device;
use tensor::{Array, Shape};

#[derive(Debug, Args)]
pub(super) struct SubjectArgs {
    #[command(flatten)]
    setup: Option<SetupArgs>,
    /// Inner steps T of the set-up [default: its own]
    #[arg(long, value_name = "T", value_parser = count())]
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
    Run(Box<(Config, data::Problem, Makers, Learner)>),
}

impl SubjectArgs {
    pub(super) fn subject(&self) -> Result<Subject> {
        match &self.setup {
            Some(setup) => self.of_setup(setup),
            None => self.of_run(),
        }
    }

    /// A fixed set-up. Of the settings of a training, it takes only those of the engine.
    fn of_setup(&self, setup: &SetupArgs) -> Result<Subject> {
        let Settings {
            preset,
            config,
            flags,
        } = &self.settings;
        if config.is_some() || *preset != Preset::default() {
            let error = Error::usage("--config and --preset are for a training, not for a set-up");
            return Err(error);
        }
        let mut given = Overrides::default().with("schedule", Some(Policy::default()));
        given.change(flags.clone());
        let engine: Engine = given.parse().map_err(|e| e.at("of a set-up"))?;
        let problem = setup.problem(self.steps.unwrap_or(0))?;
        let mode = engine.mode.into();
        let horizon = Horizon::new(problem.steps)
            .schedule(engine.schedule)
            .segments(engine.segments)
            .mode(mode);
        Ok(Subject {
            mode,
            horizon,
            what: What::Setup(Box::new(problem)),
        })
    }

    /// A training with the widest learner that may be drawn.
    fn of_run(&self) -> Result<Subject> {
        if self.steps.is_some() {
            let error = Error::usage("--steps is for a set-up (--setup NAME)");
            return Err(error.hint("of a training they are --inner-steps"));
        }
        let config = self.settings.resolve()?;
        let problem = problem_of(&config)?;
        let makers = Makers::of(&config, problem)?;
        // The learner that takes the most work, among the widest of each family.
        let widest = config.widest(problem)?.into_iter();
        let learner = widest.max_by_key(Learner::multiply_adds);
        let learner = learner.ok_or_else(|| Error::usage("a population without learners"))?;
        Ok(Subject {
            mode: config.engine.mode.into(),
            horizon: config.horizon(),
            what: What::Run(Box::new((config, problem, makers, learner))),
        })
    }
}

impl Subject {
    pub(super) fn training(&self) -> Training<'_> {
        match &self.what {
            What::Setup(problem) => problem.training(),
            What::Run(run) => training(&run.0, run.1, &run.2, &run.3),
        }
    }

    /// The same training, no further than so many steps, with one outer loss.
    pub(super) fn short(&self, steps: usize) -> Horizon {
        Horizon::new(steps.min(self.horizon.steps())).mode(self.mode)
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
                let (config, problem) = (&run.0, run.1);
                let (learner, widths) = (config.learner.name(), config.widths.widest());
                let (steps, batch) = (config.inner_steps, config.inner_batch);
                format!(
                    "training of {learner}, widths {widths:?}, {problem}, T = {steps}, B = {batch}"
                )
            }
        }
    }
}

/// The sizes of the images that a run would train on, and its number of classes: no images are read here.
pub(super) fn problem_of(config: &Config) -> Result<data::Problem> {
    config.dataset.problem(config.want).ok_or_else(|| {
        let dataset = &config.dataset;
        Error::usage(format!("the images of {dataset} are not looked at here"))
            .at("--dataset")
            .hint("a data set that is known by name has known sizes: mnist, cifar-10")
    })
}

/// Numbers to train on: the time does not depend on which, as long as nothing runs away.
pub(super) fn any_values(device: &Device, training: &Training<'_>) -> Result<Values> {
    check_values(device, training)?;
    let declared = training.learned_specs().chain(training.given_specs());
    let mut values = Values::zeros(device, &[])?;
    for (seed, spec) in declared.chain(training.weight_specs()).enumerate() {
        values.set(&spec.name, &any(spec, seed as u64))?;
    }
    Ok(values)
}

fn any(spec: &ArraySpec, seed: u64) -> Array {
    let (dtype, shape) = (spec.dtype, spec.shape.clone());
    match spec.name.as_str() {
        "y" | "yo" | "y_real" => one_hot(&shape).cast(dtype),
        "lr" => Array::full(dtype, shape, 0.02),
        "momentum" => Array::full(dtype, shape, 0.5),
        "log_lr" | "log_momentum" => Array::full(dtype, shape, -4.0),
        // Integers are row numbers of other arrays. Every array has row 0.
        _ if !dtype.is_float() => Array::zeros(dtype, shape),
        _ => Array::normal(dtype, shape, 0.1, seed),
    }
}

/// One-hot rows that go through the classes in turn.
fn one_hot(shape: &Shape) -> Array {
    let classes = shape.last().copied().unwrap_or(1);
    let hot = |i: usize| f64::from(u8::from(i % classes == i / classes % classes));
    let numbers: Vec<f64> = (0..shape.count()).map(hot).collect();
    Array::new(shape.clone(), numbers).expect("as many numbers as the shape has")
}
