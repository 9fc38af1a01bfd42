//! Gradients through training: T steps of an optimiser, a loss of the trained learner, and the gradient of
//! that loss with respect to everything that shaped the training.
//!
//! A step and its derivative are planned once and replayed. What is stored between the forward and the backward sweep
//! is a [`Schedule`]; the derivative of one step is taken in a [`Mode`].

mod away;
mod binomial;
mod budget;
mod choice;
mod diagnostics;
mod drive;
mod forecast;
mod horizon;
mod inner;
mod keep;
mod memory;
mod plans;
mod prelude;
mod prepared;
mod records;
mod schedule;
mod script;
mod source;
mod stash;
mod step;
mod timing;
mod trainer;
mod training;
mod values;

pub use diagnostics::{CotangentNorms, Trouble};
pub use forecast::{Forecast, Phase, Planned};
pub use horizon::Horizon;
pub use schedule::{Policy, Schedule};
pub use step::Mode;
pub use timing::TimedRun;
pub use trainer::{State, Trainer};
pub use training::{Declared, Scope, Training};
pub use values::Values;

use crate::error::{Error, Result};
use away::Away;
use kernels::{Buffer, Device};
use memory::{At, Memory, Sizes};
use records::record_bytes;
use script::Action;
use stash::{Stash, stash_words};
use std::cell::RefCell;

/// The losses of a training, as it went.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// The inner loss at every step.
    pub inner: Vec<f64>,
    /// The outer losses, in the order of steps.
    pub outer: Vec<f64>,
}

impl Losses {
    /// The meta-loss: the sum of all outer losses.
    pub fn total(&self) -> f64 {
        self.outer.iter().sum()
    }
}

/// An unrolled training, planned, with its memory: computes meta-gradients.
///
/// A learner of one weight θ predicts θ·x, and should say 1; a generator of one weight φ makes x = φ·z. Two
/// steps of gradient descent at rate 0.1, from θ = 0, on z = 2 and then 1: by hand, as in
/// `docs/how-it-works.md`, φ = 1 has the meta-gradient −0.1728, and the rates have −1.296 and −0.576.
///
/// ```
/// use autograd::prelude::*;
/// fn half_square_from_one(x: Var<'_>) -> Result<Var<'_>> {
///     (x - 1.0)?.powi(2)? * 0.5
/// }
/// let one = |number| Array::scalar(number, F64);
/// let learned = [("φ", &one(1.0)), ("lr", &Array::full(F64, [2], 0.1))];
/// let given = [("z", &Array::new([2], vec![2.0, 1.0])?)];
/// let start = [("θ", &one(0.0))];
/// let training = Training::new(Optimizer::Sgd)
///     .weights(start)
///     .learned(learned)
///     .given(given)
///     .per_step(["z"])
///     .loss(|s| half_square_from_one((s["θ"] * (s["φ"] * s["z"])?)?))
///     .outer(|s| half_square_from_one(s["θ"]));
///
/// let device = Device::cpu(None)?;
/// let mut unroll = Unroll::new(&device, &training, &Horizon::new(2))?;
/// println!("{}", unroll.forecast());
/// let values = unroll.values(&training)?;
/// let losses = unroll.gradient(&values)?;
/// assert!((losses.total() - 0.2592).abs() < 1e-12);
/// let phi = unroll.gradients().get("φ")?.to_f64_vec()[0];
/// assert!((phi + 0.1728).abs() < 1e-12);
/// let rates = unroll.gradients().get("lr")?.to_f64_vec();
/// assert!((rates[0] + 1.296).abs() < 1e-12 && (rates[1] + 0.576).abs() < 1e-12);
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Debug)]
pub struct Unroll {
    planned: Planned,
    memory: Memory,
    /// Snapshots that do not lie on the device.
    away: Away,
    /// For steps that are undone.
    stash: Option<Stash>,
    /// Filled where [`Unroll::watch_cotangents`] asked for it.
    norms: Option<CotangentNorms>,
    /// Filled while [`Unroll::timed_gradient`] runs.
    timed: RefCell<Option<Vec<TimedRun>>>,
}

impl Unroll {
    /// Plans the training as far as the horizon, makes the plans ready, and takes all memory that it will need.
    ///
    /// # Errors
    /// If the training cannot be recorded, or there is too little memory.
    pub fn new(device: &Device, training: &Training<'_>, horizon: &Horizon) -> Result<Self> {
        Self::of(device, Planned::new(training, &horizon.on(device))?)
    }

    /// Makes the plans of a training ready, and takes all memory that it will need.
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn of(device: &Device, planned: Planned) -> Result<Self> {
        Self::placed(device, planned, Vec::new())
    }

    /// Switches to another planned training, in the memory of this one as far as that is enough, and gives
    /// back the plans of this one. So learners of many structures need the memory of the largest, and it is
    /// not allocated anew for each.
    ///
    /// ```
    /// # use autograd::prelude::*; use autograd::Planned;
    /// # fn go_on(unroll: Unroll, wider: &Training<'_>) -> Result<()> {
    /// let planned = Planned::new(wider, &Horizon::new(unroll.steps()))?;
    /// let (unroll, before) = unroll.turn_to(planned)?;
    /// let (unroll, _) = unroll.turn_to(before)?; // the first again, without planning it
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn turn_to(self, planned: Planned) -> Result<(Self, Planned)> {
        let device = self.memory.device.clone();
        let used = self.memory.into_buffers();
        Ok((Self::placed(&device, planned, used)?, self.planned))
    }

    /// Makes plans ready and takes memory for them, the used memory first.
    fn placed(device: &Device, planned: Planned, used: Vec<Buffer>) -> Result<Self> {
        planned.prepare(device)?;
        let horizon = &planned.horizon;
        let stash = planned.step.undo.as_ref().map(|_| {
            let words = stash_words(planned.schedule, horizon.steps);
            Stash::new(device, planned.stash_specs.clone(), words)
        });
        let prelude = planned.step.prelude.as_ref();
        let prelude = prelude.map_or(&[][..], |plans| &plans.specs);
        let state = record_bytes(&planned.state_specs);
        let memory = Memory::new(
            device,
            used,
            &planned.prepared,
            &Sizes {
                steps: horizon.steps,
                outer: horizon.outer_steps.len(),
                state: &planned.state_specs,
                states: planned.count.states,
                cotangents: &planned.cotangent_specs,
                kept: (&planned.step.kept_specs, planned.count.kept),
                preludes: (prelude, planned.count.preludes),
                learned: &planned.prepared.learned,
                own_gradients: &planned.prepared.own_gradients,
                arena: planned.forecast.arena_bytes,
            },
        )?;
        Ok(Self {
            memory,
            away: Away::new(&horizon.away, planned.count.away, state)?,
            stash: stash.transpose()?,
            norms: None,
            timed: RefCell::default(),
            planned,
        })
    }

    /// What a meta-gradient takes.
    pub fn forecast(&self) -> Forecast {
        self.planned.forecast()
    }

    /// The schedule; for a budget, `auto` or `lean`, the one that was chosen.
    pub fn schedule(&self) -> Schedule {
        self.planned.schedule()
    }

    /// The most segments of a step's gradient and its tangent; for a budget or `auto`, what was chosen for
    /// it.
    pub fn segments(&self) -> usize {
        self.planned.horizon.segments
    }

    /// The plans, with what each is for and how often it runs.
    pub fn phases(&self) -> Vec<Phase<'_>> {
        self.planned.phases()
    }

    /// How many inner steps.
    pub fn steps(&self) -> usize {
        self.planned.script.steps
    }

    /// Copies the arrays that a training was declared with to this device.
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn values(&self, training: &Training<'_>) -> Result<Values> {
        let numbers = training.numbers.iter();
        let named = numbers.map(|(name, array)| (name.as_str(), *array));
        Values::new(&self.memory.device, named)
    }

    /// The meta-gradient of the last [`Unroll::gradient`]: an array for each that is learned, of its name, type and shape.
    pub fn gradients(&self) -> &Values {
        &self.memory.gradients
    }

    /// Whether [`Unroll::gradient`] also measures the cotangent of θ at every step from now on. That reads
    /// the cotangent back to the host at every step. It is for finding out where a gradient explodes or
    /// vanishes.
    pub fn watch_cotangents(&mut self, watch: bool) {
        self.norms = watch.then(CotangentNorms::default);
    }

    /// The cotangent of θ along the last meta-gradient, if it was watched.
    pub fn cotangent_norms(&self) -> Option<&CotangentNorms> {
        self.norms.as_ref()
    }

    /// Trains and differentiates: afterwards the meta-gradient is in [`Unroll::gradients`]. `values` needs
    /// every array that the training declares, and the initial values of weights that do not start from
    /// anything learned or prepared.
    ///
    /// # Errors
    /// If a value is missing or has another type or shape. If an inner or outer loss is not finite: it names the step.
    pub fn gradient(&mut self, values: &Values) -> Result<Losses> {
        self.queue_gradient(values)?;
        self.losses()
    }

    /// As [`Unroll::gradient`], but the host does not wait for a GPU: more work can be queued before
    /// [`Unroll::losses`] are read. Only [`Schedule::reversible`] waits, before it starts, to read the
    /// momenta.
    ///
    /// # Errors
    /// As [`Unroll::gradient`], but for losses.
    pub fn queue_gradient(&mut self, values: &Values) -> Result<()> {
        let given = &self.memory.given(values)?;
        self.memory
            .begin(given, |bound| self.run(bound, given, At::default()))?;
        let steps = self.steps();
        if let (Some(stash), Some(momentum)) = (&mut self.stash, self.planned.momentum) {
            let momenta = self.memory.per_step(momentum, given)?;
            stash.plan(&self.memory.states, &momenta[..steps])?;
        }
        self.memory.clear_gradients()?;
        let script = self.planned.script;
        let watched = self.norms.is_some();
        let mut norms = vec![0.0; if watched { script.steps + 1 } else { 0 }];
        let mut now = At::default();
        // The walk borrows `self`, and also changes the snapshots that lie away: so these are taken out.
        let mut away = std::mem::take(&mut self.away);
        let outer_steps = &self.planned.horizon.outer_steps;
        let outer = |step| outer_steps.binary_search(&step).is_ok();
        let walked = script.walk(outer, |action| {
            now = self.act(action, given, now, &mut away)?;
            if let Action::Reverse { step, .. }
            | Action::Undo { step, .. }
            | Action::Outer { step, .. } = action
                && watched
            {
                let weights = self.memory.prepared.weights;
                norms[step] = diagnostics::norm(&self.memory.cotangents, 0, weights)?;
            }
            Ok::<(), Error>(())
        });
        self.away = away;
        walked?;
        if script.begin > 0 {
            self.memory.cotangents.zero(0)?;
        }
        if let Some(bound) = &self.memory.prepared.unprepare {
            self.run(bound, given, now)?;
        }
        if watched {
            self.norms = Some(CotangentNorms::new(norms));
        }
        Ok(())
    }

    /// The losses of the last meta-gradient. Waits until everything is done. The first loss that is not
    /// finite is an error.
    ///
    /// # Errors
    /// If a loss is not finite, or the device failed.
    pub fn losses(&self) -> Result<Losses> {
        self.memory.losses(&self.planned.horizon.outer_steps)
    }
}
