//! The plans of an inner step.

use super::plans::{Bound, Prepared, Source, named, port_of};
use super::step::{Forward, Mode, Origin, Training, inputs};
use super::{keep, prelude};
use crate::error::Result;
use crate::plan::{Port, simplify};
use crate::tape::{Tape, Var};

/// How the plans of an inner step are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Whether rows are taken in turn: then the backward plan adds to their gradients.
    pub(super) turns: bool,
    /// Into how many segments the backward plan may be cut; the others are as far as they take more.
    pub(super) segments: usize,
    pub(super) mode: Mode,
    pub(super) keep: Keep,
    /// Whether what the prelude makes may be kept, too.
    pub(super) prelude: bool,
}

/// What an advance keeps of a step for its reversal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    /// The activations of the step's gradient.
    Activations,
    /// The buffers that it starts from, for the step is undone, and its optimiser cannot tell these.
    Buffers,
}

/// The plans of one inner step.
#[derive(Debug)]
pub(super) struct PlannedStep {
    pub(super) advance: Bound,
    pub(super) kept: Option<Bound>,
    pub(super) kept_ports: Vec<Port>,
    pub(super) prelude: Option<PlannedPrelude>,
    pub(super) reverse: Bound,
    /// The backward plan that undoes the step, given the state after it.
    pub(super) undo: Option<Bound>,
}

/// Plans of a step that is advanced more than once: what its prelude makes is kept, and given later on.
#[derive(Debug)]
pub(super) struct PlannedPrelude {
    pub(super) keeping: Bound,
    pub(super) given: Bound,
    pub(super) ports: Vec<Port>,
}

impl PlannedStep {
    pub(super) fn new(training: &Training<'_>, shared: &Prepared, manner: Manner) -> Result<Self> {
        let source = |kind: &str, i: usize| shared.source(kind, i);
        let tape = Tape::new();
        let step = Recorded::new(training, shared, &tape, manner, Origin::Given)?;
        // What the step made is at hand as it is reversed, and its gradient need not be computed again.
        let mut given = named("new state", &step.forward.new_state);
        given.retain(|(var, _)| !step.forward.vars.state.contains(var));
        let kept = match manner.keep {
            Keep::Nothing => Vec::new(),
            Keep::Activations => {
                let outs = vars(&step.reversed);
                let at_hand: Vec<Var<'_>> = given.iter().map(|(var, _)| *var).collect();
                let activations = keep::activations(&tape, &outs, &step.late, &at_hand);
                given.extend(named("kept", &activations));
                activations
            }
            Keep::Buffers => {
                let state = training.state_ports();
                step.forward.vars.state[state.theta + state.optimizer..].to_vec()
            }
        };
        let reverse = Bound::new(&step.reversed, &given, manner.segments, source)?;
        let within = (manner.segments, reverse.plan.arena_bytes());
        let keeping = |kept: &[Var<'_>]| {
            let kept = places(kept, Source::Kept);
            Bound::within(&[&step.advanced[..], &kept].concat(), &[], within, source)
        };
        let undo = || {
            let tape = Tape::new();
            let mut step = Recorded::new(training, shared, &tape, manner, Origin::Undone)?;
            let before = places(&step.forward.vars.state, Source::NewState);
            step.reversed.extend(before);
            Bound::new(&step.reversed, &[], manner.segments, source)
        };
        let keeps = manner.keep == Keep::Activations || !kept.is_empty();
        let undoes = manner.keep == Keep::Buffers;
        let prelude = manner
            .prelude
            .then(|| PlannedPrelude::new(&step.advanced, within, source));
        Ok(Self {
            advance: Bound::within(&step.advanced, &[], within, source)?,
            kept: keeps.then(|| keeping(&kept)).transpose()?,
            kept_ports: kept.iter().map(|var| port_of(*var)).collect(),
            prelude: prelude.transpose()?.flatten(),
            reverse,
            undo: undoes.then(undo).transpose()?,
        })
    }
}

impl PlannedPrelude {
    /// `None` if nothing is worth to be kept.
    fn new(
        advanced: &[(Var<'_>, Source)],
        within: (usize, usize),
        source: impl Fn(&str, usize) -> Source,
    ) -> Result<Option<Self>> {
        // Where perturbations are recorded there may be products that no plan has.
        let (tape, ids) = simplify(&vars(advanced), &[])?;
        let outs: Vec<Var<'_>> = ids.iter().map(|&id| tape.var(id)).collect();
        let made = prelude::results(&tape, &outs, |name| name.starts_with("state "));
        if made.is_empty() {
            return Ok(None);
        }
        let to = advanced.iter().map(|(_, to)| *to);
        let advanced: Vec<(Var<'_>, Source)> = outs.iter().copied().zip(to).collect();
        let kept = places(&made, Source::Prelude);
        Ok(Some(Self {
            keeping: Bound::within(&[&advanced[..], &kept].concat(), &[], within, &source)?,
            given: Bound::within(&advanced, &named("prelude", &made), within, &source)?,
            ports: made.iter().map(|var| port_of(*var)).collect(),
        }))
    }
}

/// A recorded step, forward and backward, and where its results go.
struct Recorded<'t> {
    forward: Forward<'t>,
    advanced: Vec<(Var<'t>, Source)>,
    reversed: Vec<(Var<'t>, Source)>,
    /// Inputs that are known only in the backward sweep.
    late: Vec<Var<'t>>,
}

impl<'t> Recorded<'t> {
    fn new(
        training: &Training<'_>,
        shared: &Prepared,
        tape: &'t Tape,
        manner: Manner,
        origin: Origin,
    ) -> Result<Self> {
        let forward = training.record_forward(tape, &shared.ports, manner.mode, origin)?;
        let mut advanced = places(&forward.new_state, Source::NewState);
        advanced.push((forward.loss, Source::Loss));
        let mut late = inputs(tape, "cotangent", &training.state_ports().cotangents())?;
        let backward = training.record_backward(tape, &forward, &late, manner.mode)?;
        let reversed = shared.reversed(tape, &backward, manner.turns, &mut late)?;
        Ok(Self {
            forward,
            advanced,
            reversed,
            late,
        })
    }
}

/// Results, each with the place of its number.
fn places<'t>(vars: &[Var<'t>], place: fn(usize) -> Source) -> Vec<(Var<'t>, Source)> {
    let to = |(i, var): (usize, &Var<'t>)| (*var, place(i));
    vars.iter().enumerate().map(to).collect()
}

fn vars<'t>(outs: &[(Var<'t>, Source)]) -> Vec<Var<'t>> {
    outs.iter().map(|(var, _)| *var).collect()
}
