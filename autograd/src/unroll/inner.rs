//! The plans of an inner step.

use super::plans::numbered;
use super::prepared::Prepared;
use super::source::Source;
use super::step::{Forward, Mode, Origin};
use super::training::Training;
use super::{keep, prelude};
use crate::error::Result;
use crate::plan::{Bound, Simplified, simplify, spec_of};
use crate::spec::ArraySpec;
use crate::tape::{Tape, Var};

/// How the plans of an inner step are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// T
    pub(super) steps: usize,
    /// The most segments of the backward plan. The other plans are cut only as far as they would take more
    /// memory than that one.
    pub(super) segments: usize,
    pub(super) mode: Mode,
    pub(super) keep: Keep,
    /// Whether results of the prelude may be stored, too.
    pub(super) prelude: bool,
}

/// What an advance stores of a step for its reversal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    /// The activations of the step's gradient: of every step, or only of some.
    Activations {
        always: bool,
    },
    /// The buffers that it starts from: undoing the step recovers weights and optimiser state, but not
    /// these.
    Buffers,
}

/// The plans of one inner step.
#[derive(Debug)]
pub(super) struct PlannedStep {
    /// The advance that stores nothing, if some step has one.
    pub(super) advance: Option<Bound<Source>>,
    pub(super) kept: Option<Bound<Source>>,
    pub(super) kept_specs: Vec<ArraySpec>,
    pub(super) prelude: Option<PlannedPrelude>,
    pub(super) reverse: Bound<Source>,
    /// The backward plan that undoes the step, given the state after it.
    pub(super) undo: Option<Bound<Source>>,
}

/// Plans of a step that is advanced more than once: the results of its prelude are stored, and given later on.
#[derive(Debug)]
pub(super) struct PlannedPrelude {
    pub(super) keeping: Bound<Source>,
    pub(super) given: Bound<Source>,
    pub(super) specs: Vec<ArraySpec>,
}

/// A step's plan without a backward pass.
pub(super) fn plan_advance(training: &Training<'_>, prepared: &Prepared) -> Result<Bound<Source>> {
    let tape = Tape::new();
    // Reverse mode records the plainest forward pass.
    let forward = training.record_forward(&tape, prepared, Mode::Reverse, Origin::Given)?;
    let (given, wanted) = (inputs(prepared, &forward), advanced(&forward));
    Bound::new(&given, &wanted)
}

impl PlannedStep {
    pub(super) fn new(
        training: &Training<'_>,
        prepared: &Prepared,
        manner: Manner,
    ) -> Result<Self> {
        let tape = Tape::new();
        let step = Recorded::new(training, prepared, &tape, manner, Origin::Given)?;
        // The step's results are at hand as it is reversed, and its gradient need not be computed again.
        let mut at_hand = numbered(&step.forward.new_state, Source::NewState);
        at_hand.retain(|(var, _)| !step.forward.vars.state.contains(var));
        let kept = match manner.keep {
            Keep::Nothing => Vec::new(),
            Keep::Activations { .. } => {
                let (outs, late) = (vars(&step.reversed), vars(&step.late));
                keep::activations(&tape, &outs, &late, &vars(&at_hand))
            }
            Keep::Buffers => {
                let state = training.state_specs();
                step.forward.vars.state[state.weights + state.optimizer..].to_vec()
            }
        };
        let activations = matches!(manner.keep, Keep::Activations { .. });
        if activations {
            at_hand.extend(numbered(&kept, Source::Kept));
        }
        let given = [&step.given[..], &step.late, &at_hand].concat();
        let reverse = Bound::in_segments(&given, &step.reversed, manner.segments)?;
        let within = (manner.segments, reverse.plan().arena_bytes());
        let advance = |stored: &[(Var<'_>, Source)]| {
            let wanted = [&step.advanced[..], stored].concat();
            Bound::within(&step.given, &wanted, within)
        };
        let undo = || {
            let tape = Tape::new();
            let step = Recorded::new(training, prepared, &tape, manner, Origin::Undone)?;
            let given = [&step.given[..], &step.late].concat();
            let before = numbered(&step.forward.vars.state, Source::NewState);
            let wanted = [&step.reversed[..], &before].concat();
            Bound::in_segments(&given, &wanted, manner.segments)
        };
        let keeps = activations || !kept.is_empty();
        let plain = manner.keep != Keep::Activations { always: true };
        let undoes = manner.keep == Keep::Buffers;
        let prelude = manner.prelude.then(|| PlannedPrelude::new(&step, within));
        Ok(Self {
            advance: plain.then(|| advance(&[])).transpose()?,
            kept: keeps
                .then(|| advance(&numbered(&kept, Source::Kept)))
                .transpose()?,
            kept_specs: kept.iter().map(|var| spec_of(*var)).collect(),
            prelude: prelude.transpose()?.flatten(),
            reverse,
            undo: undoes.then(undo).transpose()?,
        })
    }
}

impl PlannedPrelude {
    /// None if nothing is worth storing.
    fn new(step: &Recorded<'_>, within: (usize, usize)) -> Result<Option<Self>> {
        // Products with perturbations, which no plan computes, must not count as contractions.
        let Simplified { tape, outs, inputs } = simplify(&vars(&step.advanced), &[])?;
        let key = |source| step.given.iter().find(|(var, _)| var.id == source);
        let mut given: Vec<(Var<'_>, Source)> = Vec::new();
        for &(id, source) in &inputs {
            given.extend(key(source).map(|(_, key)| (tape.var(id), *key)));
        }
        let outs: Vec<Var<'_>> = outs.iter().map(|&id| tape.var(id)).collect();
        let state = given
            .iter()
            .filter(|(_, key)| matches!(key, Source::State(_)));
        let state: Vec<Var<'_>> = state.map(|(var, _)| *var).collect();
        let made = prelude::results(&tape, &outs, &state);
        if made.is_empty() {
            return Ok(None);
        }
        let to = step.advanced.iter().map(|(_, to)| *to);
        let advanced: Vec<(Var<'_>, Source)> = outs.iter().copied().zip(to).collect();
        let stored = numbered(&made, Source::Prelude);
        let keeping = [&advanced[..], &stored].concat();
        let at_hand = [&given[..], &stored].concat();
        Ok(Some(Self {
            keeping: Bound::within(&given, &keeping, within)?,
            given: Bound::within(&at_hand, &advanced, within)?,
            specs: made.iter().map(|var| spec_of(*var)).collect(),
        }))
    }
}

/// A recorded step, forward and backward, and where its arrays lie.
struct Recorded<'t> {
    forward: Forward<'t>,
    /// Inputs of the forward pass.
    given: Vec<(Var<'t>, Source)>,
    /// Inputs that are known only in the backward sweep.
    late: Vec<(Var<'t>, Source)>,
    advanced: Vec<(Var<'t>, Source)>,
    reversed: Vec<(Var<'t>, Source)>,
}

impl<'t> Recorded<'t> {
    fn new(
        training: &Training<'_>,
        prepared: &Prepared,
        tape: &'t Tape,
        manner: Manner,
        origin: Origin,
    ) -> Result<Self> {
        let forward = training.record_forward(tape, prepared, manner.mode, origin)?;
        let cotangents = tape.inputs(&training.state_specs().cotangents())?;
        let mode = manner.mode;
        let backward = training.record_backward(tape, prepared, &forward, &cotangents, mode)?;
        let mut late = numbered(&cotangents, Source::Cotangent);
        let reversed = prepared.reversed(tape, &backward, manner.steps, &mut late)?;
        Ok(Self {
            given: inputs(prepared, &forward),
            advanced: advanced(&forward),
            forward,
            late,
            reversed,
        })
    }
}

/// The inputs of a forward pass, and where they lie.
fn inputs<'t>(prepared: &Prepared, forward: &Forward<'t>) -> Vec<(Var<'t>, Source)> {
    let mut given = prepared.keys(&forward.vars.seen);
    if forward.after.is_empty() {
        given.extend(numbered(&forward.vars.state, Source::State));
    } else {
        given.extend(numbered(&forward.after, Source::State));
        given.extend(numbered(&forward.stored, Source::Kept));
    }
    given
}

/// The results of a forward pass, and where they go.
fn advanced<'t>(forward: &Forward<'t>) -> Vec<(Var<'t>, Source)> {
    let mut wanted = numbered(&forward.new_state, Source::NewState);
    wanted.push((forward.loss, Source::Loss));
    wanted
}

fn vars<'t>(keyed: &[(Var<'t>, Source)]) -> Vec<Var<'t>> {
    keyed.iter().map(|(var, _)| *var).collect()
}
