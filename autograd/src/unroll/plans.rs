//! The plans of an unrolled training, and where their arrays lie.

use super::keep;
use super::step::{Mode, Scope, Training, inputs};
use crate::error::Result;
use crate::plan::{Plan, Port};
use crate::tape::{Tape, Var};

/// Where the array of a plan's input or output lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An array of the state that a step starts from, or of the one that it makes.
    State(usize),
    NewState(usize),
    /// A cotangent of the state after the step, then of that before it.
    Cotangent(usize),
    /// A shared array as the caller gave it, or as it was prepared.
    Shared(usize),
    Prepared(usize),
    /// The sum of cotangents of a shared array, or of a prepared one.
    SharedGradient(usize),
    PreparedGradient(usize),
    Row(usize),
    RowGradient(usize),
    /// A hyper-parameter of the step, and its gradient.
    Hyper(usize),
    HyperGradient(usize),
    OuterRow(usize),
    Loss,
    OuterLoss,
    Kept(usize),
}

/// A plan and where its arrays lie.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) plan: Plan,
    pub(super) inputs: Vec<Source>,
    pub(super) outputs: Vec<Source>,
}

impl Bound {
    /// Plans `outs`, given with where they go, in up to so many segments. An output that goes where an input lies
    /// is written over it.
    fn new(
        outs: &[(Var<'_>, Source)],
        given: &[Var<'_>],
        segments: usize,
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
                .rsplit_once(' ')
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
        let plan = Plan::build(&vars, &over, &named, segments)?;
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

    /// As [`Bound::new`], in as few segments as keep the arena within `bytes`; in all of them if none do.
    fn within(
        outs: &[(Var<'_>, Source)],
        given: &[Var<'_>],
        (segments, bytes): (usize, usize),
        source: impl Fn(&str, usize) -> Source,
    ) -> Result<Self> {
        let mut fewer = 1;
        while fewer < segments {
            let bound = Self::new(outs, given, fewer, &source)?;
            if bound.plan.arena_bytes() <= bytes {
                return Ok(bound);
            }
            fewer *= 2;
        }
        Self::new(outs, given, segments, source)
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
#[derive(Debug)]
pub(super) struct Prepared {
    /// Every prepared array: its port, where it lies, and where its cotangents are summed.
    ports: Vec<Port>,
    places: Vec<(Source, Source)>,
    /// Those that are not just a shared array passed through.
    pub(super) own: Vec<Port>,
    pub(super) prepare: Option<Bound>,
    pub(super) unprepare: Option<Bound>,
}

impl Prepared {
    pub(super) fn record(training: &Training<'_>) -> Result<Self> {
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
            prepare = Some(Bound::new(&made, &[], 1, |_, i| Source::Shared(i))?);
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
            unprepare = Some(Bound::new(&outs, &[], 1, |kind, i| match kind {
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
#[derive(Debug)]
pub(super) struct PlannedStep {
    pub(super) advance: Bound,
    pub(super) kept: Option<Bound>,
    pub(super) kept_ports: Vec<Port>,
    pub(super) reverse: Bound,
}

impl PlannedStep {
    /// With `keep`, the backward plan takes activations that the forward one keeps; with `turns`, it adds to
    /// the gradients of rows. The backward plan is cut into segments, the others as far as they take more.
    pub(super) fn new(
        training: &Training<'_>,
        shared: &Prepared,
        keep: bool,
        turns: bool,
        segments: usize,
        mode: Mode,
    ) -> Result<Self> {
        let tape = Tape::new();
        let forward = training.record_forward(&tape, &shared.ports, mode)?;
        let source = |kind: &str, i: usize| match kind {
            "state" => Source::State(i),
            "shared" => shared.places[i].0,
            "row" => Source::Row(i),
            "hyper" => Source::Hyper(i),
            "cotangent" => Source::Cotangent(i),
            "sum" => shared.places[i].1,
            "row sum" => Source::RowGradient(i),
            _ => Source::Kept(i),
        };
        let mut advanced: Vec<(Var<'_>, Source)> = forward
            .new_state
            .iter()
            .enumerate()
            .map(|(i, var)| (*var, Source::NewState(i)))
            .collect();
        advanced.push((forward.loss, Source::Loss));

        let cotangents = inputs(&tape, "cotangent", &training.state_ports().ports)?;
        let backward = training.record_backward(&tape, &forward, &cotangents, mode)?;
        let mut reversed: Vec<(Var<'_>, Source)> = Vec::new();
        for (i, var) in backward.state.iter().enumerate() {
            reversed.push((*var, Source::Cotangent(i)));
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
            let Some(mut gradient) = *var else { continue };
            if turns {
                let sum =
                    tape.input(&format!("row sum {i}"), gradient.dtype(), gradient.shape())?;
                late.push(sum);
                gradient = (sum + gradient)?;
            }
            reversed.push((gradient, Source::RowGradient(i)));
        }
        for (i, gradient) in backward.hyper.iter().enumerate() {
            reversed.push((*gradient, Source::HyperGradient(i)));
        }
        if !keep {
            let reverse = Bound::new(&reversed, &[], segments, source)?;
            let within = (segments, reverse.plan.arena_bytes());
            return Ok(Self {
                advance: Bound::within(&advanced, &[], within, source)?,
                kept: None,
                kept_ports: Vec::new(),
                reverse,
            });
        }
        let outs: Vec<Var<'_>> = reversed.iter().map(|(var, _)| *var).collect();
        let activations = keep::activations(&tape, &outs, &late);
        let reverse = Bound::new(&reversed, &activations, segments, source)?;
        let within = (segments, reverse.plan.arena_bytes());
        let advance = Bound::within(&advanced, &[], within, source)?;
        advanced.extend(
            activations
                .iter()
                .enumerate()
                .map(|(i, var)| (*var, Source::Kept(i))),
        );
        Ok(Self {
            advance,
            kept: Some(Bound::within(&advanced, &[], within, source)?),
            kept_ports: activations.iter().map(|var| port_of(*var)).collect(),
            reverse,
        })
    }
}

/// The outer loss; its gradient is added to the cotangents of θ and of the buffers. In up to so many segments, if
/// it takes more than so many bytes.
pub(super) fn plan_outer(training: &Training<'_>, within: (usize, usize)) -> Result<Bound> {
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
    Bound::within(&outs, &[], within, |kind, i| match kind {
        "state" => Source::State(i),
        "row" => Source::OuterRow(i),
        _ => Source::Cotangent(i),
    })
}
