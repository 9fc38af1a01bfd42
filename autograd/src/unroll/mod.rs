//! Gradients through training: T steps of an optimiser, a loss of the trained learner, and the gradient of
//! that loss with respect to everything that shaped the training.
//!
//! A step and its derivative are planned once and replayed. What is kept between the two sweeps is a
//! [`Schedule`]; the derivative of one step is taken in a [`Mode`].

mod keep;
mod records;
mod schedule;
mod step;

pub use records::Records;
pub use schedule::Schedule;
pub use step::{LossAndBuffers, Mode, Row, Scope, Training};

use crate::error::{Error, Result};
use crate::plan::{Plan, Port};
use crate::tape::{Tape, Var};
use kernels::{Buffer, Device, View};
use schedule::{Action, Script};
use std::fmt;
use step::inputs;

/// Where the array of a plan's input or output lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// An array of the state that a step starts from, or of the one that it makes.
    State(usize),
    NewState(usize),
    /// A cotangent of the state after the step, or before it.
    Cotangent(usize),
    NewCotangent(usize),
    /// A shared array as the caller gave it, or as it was prepared.
    Shared(usize),
    Prepared(usize),
    /// The sum of cotangents of a shared array, or of a prepared one.
    SharedGradient(usize),
    PreparedGradient(usize),
    Row(usize),
    RowGradient(usize),
    OuterRow(usize),
    Loss,
    OuterLoss,
    Kept(usize),
}

/// A plan and where its arrays lie.
#[derive(Debug)]
struct Bound {
    plan: Plan,
    inputs: Vec<Source>,
    outputs: Vec<Source>,
}

/// What a meta-gradient will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Bytes of all buffers that the driver holds, its arena included; the caller's arrays are not.
    pub bytes: usize,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Bytes of the states and activations kept between the sweeps.
    pub snapshot_bytes: usize,
    /// Floating-point operations.
    pub flops: u64,
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} MiB (arena {:.1}, snapshots {:.1}), {:.2} GFLOP",
            mib(self.bytes),
            mib(self.arena_bytes),
            mib(self.snapshot_bytes),
            self.flops as f64 / 1e9
        )
    }
}

/// The arrays that one meta-gradient is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// One record: θ before the first step (as [`Training::start_ports`]: state and buffers too).
    pub start: &'a Records,
    /// One record: the shared arrays.
    pub shared: &'a Records,
    /// A record per inner step: the rows, hyper-parameters last.
    pub rows: &'a Records,
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
#[derive(Debug)]
pub struct Unroll {
    device: Device,
    script: Script,
    /// The steps after which the outer loss is looked at, counted from 1.
    outer_steps: Vec<usize>,
    prepare: Option<Bound>,
    unprepare: Option<Bound>,
    advance: Bound,
    advance_kept: Option<Bound>,
    reverse: Bound,
    outer: Bound,
    forecast: Forecast,
    states: Records,
    cotangents: Records,
    kept: Records,
    prepared: Records,
    prepared_gradient: Records,
    losses: Records,
    arena: Buffer,
    /// Gradients with respect to the shared arrays: one record.
    shared_gradient: Records,
    /// Gradients with respect to the rows: a record per inner step; zeros where a row is not learned.
    row_gradient: Records,
}

impl Unroll {
    /// Plans the training for `steps` inner steps, with an outer loss after each step for which `outer_at`
    /// says so (steps are counted from 1), and takes all memory that it will need.
    pub fn new(
        device: &Device,
        training: &Training<'_>,
        steps: usize,
        outer_at: impl Fn(usize) -> bool,
        schedule: Schedule,
        mode: Mode,
    ) -> Result<Self> {
        let outer_steps: Vec<usize> = (1..=steps).filter(|&step| outer_at(step)).collect();
        if steps == 0 || outer_steps.is_empty() {
            return Err(Error::Setting(format!(
                "{steps} inner steps with {} outer losses: at least one of each is needed",
                outer_steps.len()
            )));
        }
        let script = schedule.script(steps, &outer_at);
        let shared = Prepared::record(training)?;
        let step = PlannedStep::new(training, &shared, schedule, mode)?;
        let outer = plan_outer(training)?;

        let state_ports = training.state_ports().ports;
        let rows: Vec<Port> = training
            .all_rows()
            .into_iter()
            .map(|row| row.port)
            .collect();
        let loss_port = Port {
            name: "loss".into(),
            dtype: training.theta[0].dtype,
            shape: [0usize; 0].into(),
        };
        let plans = [&shared.prepare, &shared.unprepare, &step.kept]
            .into_iter()
            .flatten();
        let plans: Vec<&Bound> = plans
            .chain([&step.advance, &step.reverse, &outer])
            .collect();
        let arena_bytes = plans
            .iter()
            .map(|bound| bound.plan.arena_bytes())
            .max()
            .unwrap_or(0);

        let count = |wanted: fn(&Action) -> bool| {
            script.actions.iter().filter(|a| wanted(a)).count() as u64
        };
        let fixed: u64 = [&shared.prepare, &shared.unprepare]
            .into_iter()
            .flatten()
            .map(|b| b.plan.flops())
            .sum();
        let flops = fixed
            + count(|a| matches!(a, Action::Advance { .. })) * step.advance.plan.flops()
            + count(|a| matches!(a, Action::Reverse { .. })) * step.reverse.plan.flops()
            + count(|a| matches!(a, Action::Outer { .. })) * outer.plan.flops();

        let held = device.held_bytes();
        let losses = Records::new(device, vec![loss_port], steps + outer_steps.len())?;
        let mut unroll = Self {
            states: Records::new(device, state_ports.clone(), script.states)?,
            kept: Records::new(device, step.kept_ports, script.kept)?,
            cotangents: Records::new(device, state_ports, 2)?,
            prepared: Records::new(device, shared.own.clone(), 1)?,
            prepared_gradient: Records::new(device, shared.own, 1)?,
            shared_gradient: Records::new(device, training.shared.clone(), 1)?,
            row_gradient: Records::new(device, rows, steps)?,
            arena: device.alloc(arena_bytes)?,
            losses,
            device: device.clone(),
            script,
            outer_steps,
            prepare: shared.prepare,
            unprepare: shared.unprepare,
            advance: step.advance,
            advance_kept: step.kept,
            reverse: step.reverse,
            outer,
            forecast: Forecast {
                bytes: 0,
                arena_bytes,
                snapshot_bytes: 0,
                flops,
            },
        };
        unroll.forecast.bytes = device.held_bytes() - held;
        unroll.forecast.snapshot_bytes = unroll.states.bytes() + unroll.kept.bytes();
        Ok(unroll)
    }

    /// What a meta-gradient takes.
    pub fn forecast(&self) -> Forecast {
        self.forecast
    }

    /// The plans, with what each is for.
    pub fn plans(&self) -> Vec<(&'static str, &Plan)> {
        let named = [
            ("prepare", self.prepare.as_ref()),
            ("inner step", Some(&self.advance)),
            ("inner step, kept", self.advance_kept.as_ref()),
            ("backward", Some(&self.reverse)),
            ("outer loss", Some(&self.outer)),
            ("unprepare", self.unprepare.as_ref()),
        ];
        named
            .into_iter()
            .filter_map(|(name, bound)| bound.map(|b| (name, &b.plan)))
            .collect()
    }

    /// How many inner steps.
    pub fn steps(&self) -> usize {
        self.row_gradient.count()
    }

    /// Gradients with respect to the shared arrays: one record.
    pub fn shared_gradient(&self) -> &Records {
        &self.shared_gradient
    }

    /// Gradients with respect to the rows: a record per inner step; zeros where a row is not learned.
    pub fn row_gradient(&self) -> &Records {
        &self.row_gradient
    }

    /// Gradients with respect to the state before the first step, and their record.
    pub fn start_gradient(&self) -> (&Records, usize) {
        (&self.cotangents, self.steps() % 2)
    }

    /// Trains and differentiates: afterwards the gradients are in [`Unroll::shared_gradient`],
    /// [`Unroll::row_gradient`] and [`Unroll::start_gradient`]. An inner or outer loss that is not finite is
    /// an error that names the step.
    pub fn gradient(&mut self, given: Given<'_>) -> Result<Losses> {
        self.begin(given)?;
        self.shared_gradient.zero(0)?;
        self.prepared_gradient.zero(0)?;
        self.cotangents.zero(0)?;
        let mut now = At {
            cotangent: 0,
            ..At::default()
        };
        for index in 0..self.script.actions.len() {
            match self.script.actions[index] {
                Action::Advance {
                    step,
                    from,
                    to,
                    keep,
                    ..
                } => {
                    now = At {
                        step,
                        from,
                        to,
                        ..now
                    };
                    let bound = if keep.is_some() {
                        self.advance_kept.as_ref()
                    } else {
                        None
                    };
                    self.run(bound.unwrap_or(&self.advance), given, now)?;
                }
                Action::Outer { step, state } => {
                    now.from = state;
                    now.outer = self.outer_steps.partition_point(|&s| s < step);
                    self.run(&self.outer, given, now)?;
                }
                Action::Reverse { step, from, .. } => {
                    now = At { step, from, ..now };
                    self.run(&self.reverse, given, now)?;
                    now.cotangent = 1 - now.cotangent;
                }
            }
        }
        if let Some(bound) = &self.unprepare {
            self.run(bound, given, now)?;
        }
        self.read_losses()
    }

    /// All losses, read when everything is done: nothing waits in between. The first that is not finite is
    /// an error.
    fn read_losses(&self) -> Result<Losses> {
        let loss = |record: usize| Ok(self.losses.get(record, 0)?.to_f64_vec()[0]);
        let mut inner = (0..self.losses.count())
            .map(loss)
            .collect::<Result<Vec<_>>>()?;
        let outer = inner.split_off(self.steps());
        for (step, loss) in inner.iter().enumerate() {
            finite(*loss, "the inner loss", step)?;
            if let Ok(at) = self.outer_steps.binary_search(&(step + 1)) {
                finite(outer[at], "the outer loss", step + 1)?;
            }
        }
        Ok(Losses { inner, outer })
    }

    /// Trains only. After every step `observe` gets the number of steps done, the states, and the record of
    /// the current one (its first arrays are θ).
    pub fn train(
        &mut self,
        given: Given<'_>,
        mut observe: impl FnMut(usize, &Records, usize) -> Result<()>,
    ) -> Result<()> {
        self.begin(given)?;
        for index in 0..self.script.actions.len() {
            if let Action::Advance {
                step,
                from,
                to,
                first: true,
                ..
            } = self.script.actions[index]
            {
                self.run(
                    &self.advance,
                    given,
                    At {
                        step,
                        from,
                        to,
                        ..At::default()
                    },
                )?;
                let loss = self.losses.get(step, 0)?.to_f64_vec()[0];
                finite(loss, "the inner loss", step)?;
                observe(step + 1, &self.states, to)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, given: Given<'_>) -> Result<()> {
        if given.rows.count() < self.steps() || given.outer_rows.count() < self.outer_steps.len() {
            let (rows, outer) = (given.rows.count(), given.outer_rows.count());
            return Err(Error::Plan(format!(
                "{rows} rows and {outer} outer rows are too few"
            )));
        }
        self.states.copy(0, given.start, 0)?;
        if let Some(bound) = &self.prepare {
            self.run(bound, given, At::default())?;
        }
        Ok(())
    }

    fn run(&self, bound: &Bound, given: Given<'_>, at: At) -> Result<()> {
        let view = |source: &Source| self.view(*source, given, at);
        let inputs: Vec<View<'_>> = bound.inputs.iter().map(view).collect();
        let outputs: Vec<View<'_>> = bound.outputs.iter().map(view).collect();
        let arena = self.arena.view(0, bound.plan.arena_bytes());
        bound.plan.execute(&self.device, arena, &inputs, &outputs)
    }

    fn view<'a>(&'a self, source: Source, given: Given<'a>, at: At) -> View<'a> {
        match source {
            Source::State(i) => self.states.view(at.from, i),
            Source::NewState(i) => self.states.view(at.to, i),
            Source::Cotangent(i) => self.cotangents.view(at.cotangent, i),
            Source::NewCotangent(i) => self.cotangents.view(1 - at.cotangent, i),
            Source::Shared(i) => given.shared.view(0, i),
            Source::Prepared(i) => self.prepared.view(0, i),
            Source::SharedGradient(i) => self.shared_gradient.view(0, i),
            Source::PreparedGradient(i) => self.prepared_gradient.view(0, i),
            Source::Row(i) => given.rows.view(at.step, i),
            Source::RowGradient(i) => self.row_gradient.view(at.step, i),
            Source::OuterRow(i) => given.outer_rows.view(at.outer, i),
            Source::Loss => self.losses.view(at.step, 0),
            Source::OuterLoss => self.losses.view(self.steps() + at.outer, 0),
            Source::Kept(i) => self.kept.view(at.step, i),
        }
    }
}

fn finite(loss: f64, what: &'static str, step: usize) -> Result<()> {
    if loss.is_finite() {
        Ok(())
    } else {
        Err(Error::NotFinite { what, step })
    }
}

/// Where the driver stands: the step, and the records in use.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    step: usize,
    from: usize,
    to: usize,
    cotangent: usize,
    outer: usize,
}

impl Bound {
    /// Plans `outs`, given with where they go. An output that goes where an input lies is written over it.
    fn new(
        outs: &[(Var<'_>, Source)],
        given: &[Var<'_>],
        source: impl Fn(&str, usize) -> Source,
    ) -> Result<Self> {
        let vars: Vec<Var<'_>> = outs.iter().map(|(var, _)| *var).collect();
        let named: Vec<(Var<'_>, String)> = given
            .iter()
            .enumerate()
            .map(|(i, var)| (*var, format!("kept {i}")))
            .collect();
        let parse = |name: &str| {
            let (kind, number) = name
                .split_once(' ')
                .expect("inputs are named by kind and number");
            source(kind, number.parse().expect("a number"))
        };
        let names = Plan::inputs_of(&vars, &named)?;
        let over: Vec<(usize, &str)> = outs
            .iter()
            .enumerate()
            .filter_map(|(i, (_, to))| {
                names
                    .iter()
                    .find(|name| parse(name) == *to)
                    .map(|name| (i, name.as_str()))
            })
            .collect();
        let plan = Plan::build(&vars, &over, &named)?;
        let inputs = plan.inputs().iter().map(|port| parse(&port.name)).collect();
        let taken: Vec<usize> = over.iter().map(|(i, _)| *i).collect();
        let outputs = outs
            .iter()
            .enumerate()
            .filter(|(i, _)| !taken.contains(i))
            .map(|(_, (_, to))| *to)
            .collect();
        Ok(Self {
            plan,
            inputs,
            outputs,
        })
    }
}

fn port_of(var: Var<'_>) -> Port {
    Port {
        name: format!("{}", var.id),
        dtype: var.dtype(),
        shape: var.shape(),
    }
}

/// What of the shared arrays is computed once per meta-gradient.
struct Prepared {
    /// Every prepared array: its port, where it lies, and where its cotangents are summed.
    ports: Vec<Port>,
    places: Vec<(Source, Source)>,
    /// Those that are not just a shared array passed through.
    own: Vec<Port>,
    prepare: Option<Bound>,
    unprepare: Option<Bound>,
}

impl Prepared {
    fn record(training: &Training<'_>) -> Result<Self> {
        let tape = Tape::new();
        let shared = inputs(&tape, "shared", &training.shared)?;
        let prepared = (training.prepare)(&tape, &shared)?;
        let mut own = Vec::new();
        let mut places = Vec::new();
        let mut made = Vec::new();
        for var in &prepared {
            if let Some(i) = shared.iter().position(|s| s == var) {
                places.push((Source::Shared(i), Source::SharedGradient(i)));
            } else {
                places.push((
                    Source::Prepared(own.len()),
                    Source::PreparedGradient(own.len()),
                ));
                made.push((*var, Source::Prepared(own.len())));
                own.push(port_of(*var));
            }
        }
        let ports: Vec<Port> = prepared.iter().map(|var| port_of(*var)).collect();
        let (mut prepare, mut unprepare) = (None, None);
        if !made.is_empty() {
            prepare = Some(Bound::new(&made, &[], |_, i| Source::Shared(i))?);
            let floats: Vec<usize> = (0..prepared.len())
                .filter(|&j| prepared[j].dtype().is_float())
                .collect();
            let mut seeds = Vec::new();
            for &j in &floats {
                let cotangent = tape.input(
                    &format!("cotangent {j}"),
                    ports[j].dtype,
                    ports[j].shape.clone(),
                )?;
                seeds.push((prepared[j], cotangent));
            }
            let wrt: Vec<usize> = (0..shared.len())
                .filter(|&i| shared[i].dtype().is_float())
                .collect();
            let gradients =
                tape.vjp(&seeds, &wrt.iter().map(|&i| shared[i]).collect::<Vec<_>>())?;
            let outs: Vec<_> = gradients
                .into_iter()
                .zip(wrt.iter().map(|&i| Source::SharedGradient(i)))
                .collect();
            unprepare = Some(Bound::new(&outs, &[], |kind, i| match kind {
                "shared" => Source::Shared(i),
                _ => places[i].1,
            })?);
        }
        Ok(Self {
            ports,
            places,
            own,
            prepare,
            unprepare,
        })
    }
}

/// The plans of one inner step.
struct PlannedStep {
    advance: Bound,
    kept: Option<Bound>,
    kept_ports: Vec<Port>,
    reverse: Bound,
}

impl PlannedStep {
    fn new(
        training: &Training<'_>,
        shared: &Prepared,
        schedule: Schedule,
        mode: Mode,
    ) -> Result<Self> {
        let tape = Tape::new();
        let forward = training.record_forward(&tape, &shared.ports, mode)?;
        let source = |kind: &str, i: usize| match kind {
            "state" => Source::State(i),
            "shared" => shared.places[i].0,
            "row" => Source::Row(i),
            "cotangent" => Source::Cotangent(i),
            "sum" => shared.places[i].1,
            _ => Source::Kept(i),
        };
        let mut advanced: Vec<(Var<'_>, Source)> = forward
            .new_state
            .iter()
            .enumerate()
            .map(|(i, var)| (*var, Source::NewState(i)))
            .collect();
        advanced.push((forward.loss, Source::Loss));
        let advance = Bound::new(&advanced, &[], source)?;

        let cotangents = inputs(&tape, "cotangent", &training.state_ports().ports)?;
        let backward = training.record_backward(&tape, &forward, &cotangents, mode)?;
        let mut reversed: Vec<(Var<'_>, Source)> = Vec::new();
        for (i, var) in backward.state.iter().enumerate() {
            reversed.push((*var, Source::NewCotangent(i)));
        }
        let mut late = cotangents;
        for (i, var) in backward.shared.iter().enumerate() {
            if !var.dtype().is_float() {
                continue;
            }
            let sum = tape.input(&format!("sum {i}"), var.dtype(), var.shape())?;
            late.push(sum);
            reversed.push(((sum + *var)?, shared.places[i].1));
        }
        for (i, var) in backward.rows.iter().enumerate() {
            if let Some(var) = var {
                reversed.push((*var, Source::RowGradient(i)));
            }
        }
        if schedule != Schedule::StoreAll {
            let reverse = Bound::new(&reversed, &[], source)?;
            return Ok(Self {
                advance,
                kept: None,
                kept_ports: Vec::new(),
                reverse,
            });
        }
        let outs: Vec<Var<'_>> = reversed.iter().map(|(var, _)| *var).collect();
        let activations = keep::activations(&tape, &outs, &late);
        advanced.extend(
            activations
                .iter()
                .enumerate()
                .map(|(i, var)| (*var, Source::Kept(i))),
        );
        Ok(Self {
            advance,
            kept: Some(Bound::new(&advanced, &[], source)?),
            kept_ports: activations.iter().map(|var| port_of(*var)).collect(),
            reverse: Bound::new(&reversed, &activations, source)?,
        })
    }
}

/// The outer loss; its gradient is added to the cotangents of θ and of the buffers.
fn plan_outer(training: &Training<'_>) -> Result<Bound> {
    let tape = Tape::new();
    let layout = training.state_ports();
    let state = inputs(&tape, "state", &layout.ports)?;
    let rows = inputs(&tape, "row", &training.outer_rows)?;
    let cotangents = inputs(&tape, "cotangent", &layout.ports)?;
    let (theta, rest) = state.split_at(layout.theta);
    let buffers = &rest[layout.optimizer..];
    let loss = (training.outer)(Scope {
        tape: &tape,
        theta,
        buffers,
        shared: &[],
        rows: &rows,
    })?;
    let wrt = [theta, buffers].concat();
    let gradients = tape.grad(loss, &wrt)?;
    let mut outs = vec![(loss, Source::OuterLoss)];
    for (var, gradient) in wrt.iter().zip(gradients) {
        let i = state
            .iter()
            .position(|s| s == var)
            .expect("a part of the state");
        outs.push(((cotangents[i] + gradient)?, Source::Cotangent(i)));
    }
    Bound::new(&outs, &[], |kind, i| match kind {
        "state" => Source::State(i),
        "row" => Source::OuterRow(i),
        _ => Source::Cotangent(i),
    })
}

/// The arrays of a learner's state: θ, the optimiser's state, buffers.
impl Training<'_> {
    /// What [`Given::start`] holds.
    pub fn start_ports(&self) -> Vec<Port> {
        self.state_ports().ports
    }

    /// What a record of [`Given::rows`] holds: the rows of the loss, then the hyper-parameters.
    pub fn row_ports(&self) -> Vec<Port> {
        self.all_rows().into_iter().map(|row| row.port).collect()
    }
}
