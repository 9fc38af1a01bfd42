//! What all plans of a training have in common, and those beside a step's: outer loss and clipping.

use super::prepared::Prepared;
use super::source::{Slice, Source};
use super::step::Backward;
use super::training::{Scope, Training};
use crate::error::Result;
use crate::plan::Bound;
use crate::tape::{Tape, Var};
use crate::transform::{add, is_zero};
use tensor::DType;

/// Variables with the keys of their numbers.
pub(super) fn numbered<'t>(vars: &[Var<'t>], key: fn(usize) -> Source) -> Vec<(Var<'t>, Source)> {
    let to = |(i, var): (usize, &Var<'t>)| (*var, key(i));
    vars.iter().enumerate().map(to).collect()
}

impl Prepared {
    /// The keys of the arrays that a step or an outer loss sees.
    pub(super) fn keys<'t>(&self, vars: &[Option<Var<'t>>]) -> Vec<(Var<'t>, Source)> {
        let seen = self.seen.iter().zip(vars);
        seen.filter_map(|(seen, var)| Some(((*var)?, seen.array())))
            .collect()
    }

    /// Where gradients go. Each is added to what is accumulated there already, or just written there if
    /// nothing else contributes (`alone`). Inputs for the sums are added to `given`.
    pub(super) fn gradients<'t>(
        &self,
        tape: &'t Tape,
        gradients: &[Option<Var<'t>>],
        alone: impl Fn(usize) -> bool,
        given: &mut Vec<(Var<'t>, Source)>,
    ) -> Result<Vec<(Var<'t>, Source)>> {
        let mut wanted = Vec::new();
        for (i, gradient) in gradients.iter().enumerate() {
            let Some(mut gradient) = gradient.filter(|var| !is_zero(*var)) else {
                continue;
            };
            let seen = &self.seen[i];
            if !alone(i) {
                let sum = tape.input(&seen.spec.name, gradient.dtype(), gradient.shape())?;
                given.push((sum, seen.gradient()));
                gradient = (sum + gradient)?;
            }
            wanted.push((gradient, seen.gradient()));
        }
        Ok(wanted)
    }

    /// The results of a step's backward pass, and where they go. A row of a gradient is summed up if several steps take
    /// it in turn; otherwise its one step writes it.
    pub(super) fn reversed<'t>(
        &self,
        tape: &'t Tape,
        backward: &Backward<'t>,
        steps: usize,
        given: &mut Vec<(Var<'t>, Source)>,
    ) -> Result<Vec<(Var<'t>, Source)>> {
        let mut wanted = Vec::new();
        for (i, var) in backward.state.iter().enumerate() {
            wanted.extend(var.map(|var| (var, Source::Cotangent(i))));
        }
        let alone = |i: usize| {
            let seen = &self.seen[i];
            seen.slice == Slice::Step && seen.rows >= steps
        };
        wanted.extend(self.gradients(tape, &backward.seen, alone, given)?);
        Ok(wanted)
    }
}

/// The outer loss. Its gradient is added to the cotangents of θ and of the buffers, and to the gradients of
/// what is learned. `within` says into how many segments the plan may be cut, and up to how many bytes it
/// need not be.
pub(super) fn plan_outer(
    training: &Training<'_>,
    prepared: &Prepared,
    within: (usize, usize),
) -> Result<Bound<Source>> {
    let tape = Tape::new();
    let layout = training.state_specs();
    let state = tape.inputs(&layout.specs)?;
    let cotangents = tape.inputs(&layout.cotangents())?;
    let seen = prepared.inputs(&tape, Slice::Step)?;
    let mut scope = Scope::new(&tape);
    prepared.show(&mut scope, &seen);
    let (theta, rest) = state.split_at(layout.weights);
    scope.add_learner(training, theta, &rest[layout.optimizer..]);
    let loss = training.record_outer(&scope)?;
    let loss = training.optimizer.checked(loss, theta)?;

    let learner: Vec<usize> = (0..state.len())
        .filter(|i| !(layout.weights..layout.weights + layout.optimizer).contains(i))
        .collect();
    let learned: Vec<usize> = (0..seen.len())
        .filter(|&i| prepared.seen[i].learned && seen[i].is_some())
        .collect();
    let mut wrt: Vec<Var<'_>> = learner.iter().map(|&i| state[i]).collect();
    wrt.extend(learned.iter().filter_map(|&i| seen[i]));
    let gradients = tape.grad(loss, &wrt)?;

    let mut given = numbered(&state, Source::State);
    given.extend(numbered(&cotangents, Source::Cotangent));
    given.extend(prepared.keys(&seen));
    let mut wanted = vec![(loss, Source::OuterLoss)];
    for (&i, gradient) in learner.iter().zip(&gradients) {
        wanted.push((add(cotangents[i], *gradient)?, Source::Cotangent(i)));
    }
    let mut of_seen = vec![None; seen.len()];
    for (&i, gradient) in learned.iter().zip(&gradients[learner.len()..]) {
        of_seen[i] = Some(*gradient);
    }
    wanted.extend(prepared.gradients(&tape, &of_seen, |_| false, &mut given)?);
    Bound::within(&given, &wanted, within)
}

/// Scales the cotangent of the state down to a norm.
pub(super) fn plan_clip(training: &Training<'_>, norm: f64) -> Result<Bound<Source>> {
    let tape = Tape::new();
    let cotangents = tape.inputs(&training.state_specs().cotangents())?;
    // A state may have arrays of integers, which have no cotangents, and floats of both types.
    let floats = || {
        cotangents
            .iter()
            .enumerate()
            .filter(|(_, array)| array.dtype().is_float())
    };
    let widest = if floats().any(|(_, array)| array.dtype() == DType::F64) {
        DType::F64
    } else {
        DType::F32
    };
    let wide: Vec<Var<'_>> = floats().map(|(_, array)| array.cast(widest)).collect();
    let length = tape.norm_of(&wide)?;
    // At most 1. Exactly 1 where the norm is not above the limit, so such a cotangent keeps its bits.
    let limit = length.constant_like(norm);
    let factor = (limit / length.max(limit)?)?;
    let mut wanted = Vec::new();
    for (i, &cotangent) in floats() {
        wanted.push((
            (cotangent * factor.cast(cotangent.dtype()))?,
            Source::Cotangent(i),
        ));
    }
    Bound::new(&numbered(&cotangents, Source::Cotangent), &wanted)
}
