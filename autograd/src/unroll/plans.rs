//! What plans are bound to, and the plans of an unrolled training but those of its steps.

use super::step::{Backward, Scope, Training, inputs};
use crate::error::Result;
use crate::plan::{Plan, Port};
use crate::tape::{Tape, Var};

/// Where the array of a plan's input or output lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An array of the state that a step starts from, or of the one that it makes.
    State(usize),
    NewState(usize),
    /// The cotangent of the state: after the step, or before it.
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
    /// What the step's prelude made.
    Prelude(usize),
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
    /// is written over it. What is `given` under a name is not computed.
    pub(super) fn new(
        outs: &[(Var<'_>, Source)],
        given: &[(Var<'_>, String)],
        segments: usize,
        source: impl Fn(&str, usize) -> Source,
    ) -> Result<Self> {
        let vars: Vec<Var<'_>> = outs.iter().map(|(var, _)| *var).collect();
        let parse = |name: &str| {
            let (kind, number) = name
                .rsplit_once(' ')
                .expect("inputs are named by kind and number");
            source(kind, number.parse().expect("a number"))
        };
        let names = Plan::inputs_of(&vars, given)?;
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
        let plan = Plan::build(&vars, &over, given, segments)?;
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
    pub(super) fn within(
        outs: &[(Var<'_>, Source)],
        given: &[(Var<'_>, String)],
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

/// Results that a plan is given, named by what they are and their number.
pub(super) fn named<'t>(kind: &str, vars: &[Var<'t>]) -> Vec<(Var<'t>, String)> {
    let name = |(i, var): (usize, &Var<'t>)| (*var, format!("{kind} {i}"));
    vars.iter().enumerate().map(name).collect()
}

pub(super) fn port_of(var: Var<'_>) -> Port {
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
    pub(super) ports: Vec<Port>,
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

impl Prepared {
    /// Where an input of a step's tape lies.
    pub(super) fn source(&self, kind: &str, i: usize) -> Source {
        match kind {
            "state" | "after" => Source::State(i),
            "shared" => self.places[i].0,
            "row" => Source::Row(i),
            "hyper" => Source::Hyper(i),
            "cotangent" => Source::Cotangent(i),
            "new state" => Source::NewState(i),
            "sum" => self.places[i].1,
            "row sum" => Source::RowGradient(i),
            "prelude" => Source::Prelude(i),
            _ => Source::Kept(i),
        }
    }

    /// The results of a backward pass, and where they go. Inputs that only it has are added to `late`.
    pub(super) fn reversed<'t>(
        &self,
        tape: &'t Tape,
        backward: &Backward<'t>,
        turns: bool,
        late: &mut Vec<Var<'t>>,
    ) -> Result<Vec<(Var<'t>, Source)>> {
        let mut reversed: Vec<(Var<'t>, Source)> = Vec::new();
        for (i, var) in backward.state.iter().enumerate() {
            reversed.extend(var.map(|var| (var, Source::Cotangent(i))));
        }
        for (i, var) in backward.shared.iter().enumerate() {
            if !var.dtype().is_float() {
                continue;
            }
            let sum = tape.input(&format!("sum {i}"), var.dtype(), var.shape())?;
            late.push(sum);
            reversed.push(((sum + *var)?, self.places[i].1));
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
        Ok(reversed)
    }
}

/// The outer loss; its gradient is added to the cotangents of θ and of the buffers. In up to so many segments, if
/// it takes more than so many bytes.
pub(super) fn plan_outer(training: &Training<'_>, within: (usize, usize)) -> Result<Bound> {
    let tape = Tape::new();
    let layout = training.state_ports();
    let state = inputs(&tape, "state", &layout.ports)?;
    let rows = inputs(&tape, "row", &training.outer_rows)?;
    let cotangents = inputs(&tape, "cotangent", &layout.cotangents())?;
    let (theta, rest) = state.split_at(layout.theta);
    let buffers = &rest[layout.optimizer..];
    let loss = (training.outer)(Scope {
        tape: &tape,
        theta,
        buffers,
        shared: &[],
        rows: &rows,
    })?;
    let loss = training.optimizer.checked(loss, theta)?;
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

/// Shortens the cotangent of the state to a norm.
pub(super) fn plan_clip(training: &Training<'_>, norm: f64) -> Result<Bound> {
    let tape = Tape::new();
    let cotangents = inputs(&tape, "cotangent", &training.state_ports().cotangents())?;
    let mut squares = Vec::new();
    for &cotangent in &cotangents {
        squares.push((cotangent * cotangent)?.sum_all()?);
    }
    let length = tape.sum_of(&squares)?.sqrt()?;
    // Never longer; and as it was where it is not too long, bit for bit.
    let limit = length.constant_like(norm);
    let factor = (limit / length.max(limit)?)?;
    let mut outs = Vec::new();
    for (i, &cotangent) in cotangents.iter().enumerate() {
        outs.push(((cotangent * factor)?, Source::Cotangent(i)));
    }
    Bound::new(&outs, &[], 1, |_, i| Source::Cotangent(i))
}
