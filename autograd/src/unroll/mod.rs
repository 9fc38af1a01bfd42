//! Gradients through training: T steps of an optimiser, a loss of the trained learner, and the gradient of
//! that loss with respect to everything that shaped the training.
//!
//! A step and its derivative are planned once and replayed. What is kept between the two sweeps is a
//! [`Schedule`]; the derivative of one step is taken in a [`Mode`].

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
mod plans;
mod prelude;
mod records;
mod schedule;
mod script;
mod stash;
mod step;
mod timing;
mod values;

pub use diagnostics::{CotangentNorms, Trouble};
pub use forecast::{Forecast, Phase, Planned};
pub use horizon::Horizon;
pub use records::Records;
pub use schedule::Schedule;
pub use step::{LossAndBuffers, Mode, Row, Scope, Training};
pub use timing::TimedRun;
pub use values::Values;

use crate::error::{Error, Result};
use away::Away;
use drive::At;
use kernels::{Buffer, Device};
use records::record_bytes;
use script::Action;
use stash::{Stash, stash_words};
use std::cell::RefCell;

/// The arrays that one meta-gradient is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// One record: θ before the first step (as [`Training::start_ports`]: state and buffers too).
    pub start: &'a Records,
    /// One record: the shared arrays.
    pub shared: &'a Records,
    /// The rows: a record per inner step, or those that the steps take in turn.
    pub rows: &'a Records,
    /// The optimiser's hyper-parameters: a record per inner step.
    pub hyper: &'a Records,
    /// A record per outer loss.
    pub outer_rows: &'a Records,
}

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

/// An unrolled training, planned: computes meta-gradients.
///
/// A learner of one weight θ predicts θ·x, and should say 1; a generator of one weight φ makes x = φ·z. Two
/// steps of gradient descent at rate 0.1, from θ = 0, on z = 2 and then 1: by hand, as in
/// `docs/how-it-works.md`, φ = 1 has the meta-gradient −0.1728, and the rates have −1.296 and −0.576.
///
/// ```
/// use autograd::{Horizon, Port, Row, Training, Unroll, Values, optim::Optimizer};
/// use kernels::Device;
/// use tensor::{Array, DType};
///
/// fn half_square_from_one(x: autograd::Var<'_>) -> autograd::Result<autograd::Var<'_>> {
///     let number = |value| x.tape().constant(value, DType::F64, []);
///     (x - number(1.0))?.powi(2)? * number(0.5)
/// }
/// let scalar = |name: &str| Port { name: name.into(), dtype: DType::F64, shape: [].into() };
/// let training = Training {
///     theta: vec![scalar("θ")],
///     buffers: vec![],
///     shared: vec![scalar("φ")],
///     rows: vec![Row { port: scalar("z"), learned: false }],
///     outer_rows: vec![],
///     optimizer: Optimizer::Sgd,
///     precondition: None,
///     prepare: Box::new(|_, shared| Ok(shared.to_vec())),
///     loss: Box::new(|scope| {
///         let x = (scope.shared[0] * scope.rows[0])?;
///         Ok((half_square_from_one((scope.theta[0] * x)?)?, vec![]))
///     }),
///     outer: Box::new(|scope| half_square_from_one(scope.theta[0])),
/// };
/// let device = Device::cpu(None)?;
/// let horizon = Horizon::new(2);
/// let values = Values::new(&device, &training, &horizon)?; // zeros, θ among them
/// let set = |records: &autograd::Records, record, value| {
///     records.set(record, 0, &Array::scalar(value, DType::F64))
/// };
/// set(&values.shared, 0, 1.0)?;
/// for (step, z) in [2.0, 1.0].into_iter().enumerate() {
///     set(&values.rows, step, z)?;
///     set(&values.hyper, step, 0.1)?;
/// }
///
/// let mut unroll = Unroll::new(&device, &training, &horizon)?;
/// println!("{}", unroll.forecast());
/// let losses = unroll.gradient(values.given())?;
/// assert!((losses.total() - 0.2592).abs() < 1e-12);
/// let phi = unroll.shared_gradient().get(0, 0)?.to_f64_vec()[0];
/// assert!((phi + 0.1728).abs() < 1e-12);
/// let rates = unroll.hyper_gradient().column(0)?;
/// assert!((rates[0].to_f64_vec()[0] + 1.296).abs() < 1e-12);
/// assert!((rates[1].to_f64_vec()[0] + 0.576).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Unroll {
    device: Device,
    planned: Planned,
    states: Records,
    /// Snapshots that do not lie on the device.
    away: Away,
    cotangents: Records,
    kept: Records,
    /// What preludes made.
    preludes: Records,
    /// For steps that are undone.
    stash: Option<Stash>,
    prepared: Records,
    prepared_gradient: Records,
    losses: Records,
    arena: Buffer,
    /// Gradients with respect to the shared arrays: one record.
    shared_gradient: Records,
    /// Gradients with respect to the rows: a record for each; zeros where it is not learned.
    row_gradient: Records,
    /// Gradients with respect to the hyper-parameters: a record per inner step.
    hyper_gradient: Records,
    /// How many arrays of a state are θ.
    theta: usize,
    /// Filled where [`Unroll::watch_cotangents`] asked for it.
    norms: Option<CotangentNorms>,
    /// Filled while [`Unroll::timed_gradient`] runs.
    timed: RefCell<Option<Vec<TimedRun>>>,
}

impl Unroll {
    /// Plans the training as far as the horizon, and takes all memory that it will need.
    pub fn new(device: &Device, training: &Training<'_>, horizon: &Horizon) -> Result<Self> {
        let planned = Planned::new(training, horizon)?;
        let horizon = &planned.horizon;
        let losses = horizon.steps + horizon.outer_steps.len();
        let records = |ports: &[_], count| Records::new(device, ports.to_vec(), count);
        let stash = planned.step.undo.as_ref().map(|_| {
            let words = stash_words(horizon.schedule, horizon.steps);
            Stash::new(device, planned.stash_ports.clone(), words)
        });
        let prelude_ports = (planned.step.prelude.as_ref()).map_or(&[][..], |plans| &plans.ports);
        Ok(Self {
            states: records(&planned.state_ports, planned.count.states)?,
            away: Away::new(
                &horizon.away,
                planned.count.away,
                record_bytes(&planned.state_ports),
            )?,
            stash: stash.transpose()?,
            kept: records(&planned.step.kept_ports, planned.count.kept)?,
            preludes: records(prelude_ports, planned.count.preludes)?,
            cotangents: records(&planned.cotangent_ports, 1)?,
            prepared: records(&planned.shared.own, 1)?,
            prepared_gradient: records(&planned.shared.own, 1)?,
            shared_gradient: records(&planned.shared_ports, 1)?,
            row_gradient: records(&planned.row_ports, horizon.rows)?,
            hyper_gradient: records(&planned.hyper_ports, horizon.steps)?,
            losses: records(&planned.loss_ports, losses)?,
            arena: device.alloc(planned.forecast.arena_bytes)?,
            device: device.clone(),
            theta: training.theta.len(),
            norms: None,
            timed: RefCell::default(),
            planned,
        })
    }

    /// What a meta-gradient takes.
    pub fn forecast(&self) -> Forecast {
        self.planned.forecast()
    }

    /// What is kept between the sweeps; for a budget, what was chosen for it.
    pub fn schedule(&self) -> Schedule {
        self.planned.schedule()
    }

    /// Into how many segments a step's gradient and its tangent may be cut; for a budget, what was chosen for it.
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

    /// Gradients with respect to the shared arrays: one record.
    pub fn shared_gradient(&self) -> &Records {
        &self.shared_gradient
    }

    /// Gradients with respect to the rows: a record for each; zeros where it is not learned.
    pub fn row_gradient(&self) -> &Records {
        &self.row_gradient
    }

    /// Gradients with respect to the hyper-parameters: a record per inner step.
    pub fn hyper_gradient(&self) -> &Records {
        &self.hyper_gradient
    }

    /// Gradients with respect to the state before the first step, and their record. Zeros where the gradient
    /// is truncated.
    pub fn start_gradient(&self) -> (&Records, usize) {
        (&self.cotangents, 0)
    }

    /// From now on [`Unroll::gradient`] also measures the cotangent of θ at every step, or no longer. It
    /// costs a look at the cotangent per step: for finding out where a gradient explodes or vanishes.
    pub fn watch_cotangents(&mut self, watch: bool) {
        self.norms = watch.then(CotangentNorms::default);
    }

    /// The cotangent of θ along the last meta-gradient, if it was watched.
    pub fn cotangent_norms(&self) -> Option<&CotangentNorms> {
        self.norms.as_ref()
    }

    /// Trains and differentiates: afterwards the gradients are in [`Unroll::shared_gradient`],
    /// [`Unroll::row_gradient`], [`Unroll::hyper_gradient`] and [`Unroll::start_gradient`]. An inner or outer
    /// loss that is not finite is an error that names the step.
    pub fn gradient(&mut self, given: Given<'_>) -> Result<Losses> {
        self.queue_gradient(given)?;
        self.losses()
    }

    /// As [`Unroll::gradient`], but nobody waits for a GPU: more work can be queued before
    /// [`Unroll::losses`] are read. Before it starts, [`Schedule::Reversible`] reads the momenta.
    pub fn queue_gradient(&mut self, given: Given<'_>) -> Result<()> {
        self.begin(given)?;
        let steps = self.steps();
        if let Some(stash) = &mut self.stash {
            stash.plan(given, steps)?;
        }
        self.shared_gradient.zero(0)?;
        self.prepared_gradient.zero(0)?;
        self.cotangents.zero(0)?;
        for gradient in [&self.row_gradient, &self.hyper_gradient] {
            (0..gradient.count()).try_for_each(|record| gradient.zero(record))?;
        }
        let script = self.planned.script;
        let watched = self.norms.is_some();
        let mut norms = vec![0.0; if watched { script.steps + 1 } else { 0 }];
        let mut now = At::default();
        // The driver only reads itself as it walks, but for the snapshots that it puts away.
        let mut away = std::mem::take(&mut self.away);
        let outer = |step| {
            self.planned
                .horizon
                .outer_steps
                .binary_search(&step)
                .is_ok()
        };
        let walked = script.walk(outer, |action| {
            now = self.act(action, given, now, &mut away)?;
            if let Action::Reverse { step, .. }
            | Action::Undo { step, .. }
            | Action::Outer { step, .. } = action
                && watched
            {
                norms[step] = diagnostics::norm(&self.cotangents, 0, self.theta)?;
            }
            Ok::<(), Error>(())
        });
        self.away = away;
        walked?;
        if let Some(bound) = &self.planned.shared.unprepare {
            self.run(bound, given, now)?;
        }
        if script.begin > 0 {
            self.cotangents.zero(0)?;
        }
        if watched {
            self.norms = Some(CotangentNorms::new(norms));
        }
        Ok(())
    }

    /// The losses of the last meta-gradient, when everything is done. The first that is not finite is an
    /// error.
    pub fn losses(&self) -> Result<Losses> {
        let losses = self.losses.column(0)?;
        let mut inner: Vec<f64> = losses.iter().map(|loss| loss.to_f64_vec()[0]).collect();
        let outer = inner.split_off(self.steps());
        for (step, loss) in inner.iter().enumerate() {
            finite(*loss, "the inner loss", step)?;
            if let Ok(at) = self.planned.horizon.outer_steps.binary_search(&(step + 1)) {
                finite(outer[at], "the outer loss", step + 1)?;
            }
        }
        Ok(Losses { inner, outer })
    }

    /// Trains only. After every step `observe` gets the number of steps done, the states, and the record of
    /// the current one (its first arrays are θ). Nobody else waits for a GPU before the last step; an inner
    /// loss that was not finite is an error then.
    pub fn train(
        &mut self,
        given: Given<'_>,
        mut observe: impl FnMut(usize, &Records, usize) -> Result<()>,
    ) -> Result<()> {
        self.begin(given)?;
        for step in 0..self.steps() {
            let (from, to) = (step % 2, (step + 1) % 2);
            let at = At {
                step,
                from,
                to,
                ..At::default()
            };
            self.run(&self.planned.step.advance, given, at)?;
            observe(step + 1, &self.states, to)?;
        }
        let losses = self.losses.column(0)?;
        for (step, loss) in losses[..self.steps()].iter().enumerate() {
            finite(loss.to_f64_vec()[0], "the inner loss", step)?;
        }
        Ok(())
    }

    fn begin(&mut self, given: Given<'_>) -> Result<()> {
        let horizon = &self.planned.horizon;
        for (what, records, needed) in [
            ("rows", given.rows, horizon.rows),
            ("records of hyper-parameters", given.hyper, horizon.steps),
            ("outer rows", given.outer_rows, horizon.outer_steps.len()),
        ] {
            let count = records.count();
            if count < needed {
                return Err(Error::Plan(format!("{count} {what} of {needed}")));
            }
        }
        self.states.copy(0, given.start, 0)?;
        if let Some(bound) = &self.planned.shared.prepare {
            self.run(bound, given, At::default())?;
        }
        Ok(())
    }
}

fn finite(loss: f64, what: &'static str, step: usize) -> Result<()> {
    if loss.is_finite() {
        Ok(())
    } else {
        Err(Error::NotFinite { what, step })
    }
}
