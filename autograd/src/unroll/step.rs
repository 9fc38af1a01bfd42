//! One inner step as a stretch of tape: forward, and backward in either mode.

use super::prepared::Prepared;
use super::source::Slice;
use super::training::{Scope, Training};
use crate::error::{Error, Result, refuse};
use crate::ops::shape::broadcast_shapes;
use crate::spec::ArraySpec;
use crate::tape::{Tape, Var};
use crate::transform::add;

/// How the derivative of a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// A forward tangent of the gradient in the direction of its cotangent: by the symmetry of second
    /// derivatives it gives the Hessian part and every mixed part at once (as MixFlow-MG, arXiv 2505.00793).
    #[default]
    Mixed,
    /// Reverse over reverse, as a textbook has it: the reference.
    Reverse,
}

/// The arrays of the learner's state, in the order of a record: θ, the optimiser's state, buffers.
pub(super) struct StateSpecs {
    pub(super) specs: Vec<ArraySpec>,
    pub(super) weights: usize,
    pub(super) optimizer: usize,
}

impl StateSpecs {
    /// How many arrays the optimiser keeps for a weight.
    fn per_weight(&self) -> usize {
        self.optimizer / self.weights.max(1)
    }

    /// The arrays of a state's cotangent: integers have none, so theirs are empty.
    pub(super) fn cotangents(&self) -> Vec<ArraySpec> {
        let cotangent = |spec: &ArraySpec| {
            let mut spec = spec.clone();
            if !spec.dtype.is_float() {
                spec.shape = [0].into();
            }
            spec
        };
        self.specs.iter().map(cotangent).collect()
    }
}

/// Inputs of a step's tape, by what they are.
pub(super) struct StepVars<'t> {
    pub(super) state: Vec<Var<'t>>,
    /// The arrays that a step sees; none for rows of outer losses.
    pub(super) seen: Vec<Option<Var<'t>>>,
}

/// A recorded step.
pub(super) struct Forward<'t> {
    pub(super) vars: StepVars<'t>,
    /// Inputs for the state after the step, if the step is undone to find the state before it; else none.
    pub(super) after: Vec<Var<'t>>,
    /// Inputs for the buffers before the step, which are stored if the step is undone; else none.
    pub(super) stored: Vec<Var<'t>>,
    pub(super) loss: Var<'t>,
    pub(super) new_state: Vec<Var<'t>>,
    /// What the backward pass continues from.
    link: Link<'t>,
}

/// Between the gradient and the optimiser.
struct Link<'t> {
    /// Everything that the loss may depend on.
    arguments: Vec<Var<'t>>,
    /// ∇ of the loss (and of the new buffers along `seeds`) with respect to the arguments.
    gradients: Vec<Var<'t>>,
    /// Perturbations that stand for the cotangents of the new buffers.
    seeds: Vec<Var<'t>>,
    /// Perturbations added to the gradients of θ on their way to the optimiser. Their cotangents are those
    /// of the gradients.
    bumps: Vec<Var<'t>>,
}

/// Where a step gets the state that it starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is given.
    Given,
    /// It is recomputed from the state after the step, which is given: the step is undone.
    Undone,
}

/// Cotangents of a step's inputs, in the order of its variables.
pub(super) struct Backward<'t> {
    /// None for integers.
    pub(super) state: Vec<Option<Var<'t>>>,
    /// None where the meta-gradient does not flow.
    pub(super) seen: Vec<Option<Var<'t>>>,
}

impl Training<'_> {
    pub(super) fn state_specs(&self) -> StateSpecs {
        let mut specs = self.weights.clone();
        for spec in &self.weights {
            for slot in self.optimizer.state(&spec.shape, spec.dtype) {
                let name = format!("{}.{}", spec.name, slot.name);
                specs.push(slot.named(name));
            }
        }
        let optimizer = specs.len() - self.weights.len();
        specs.extend(self.buffers.iter().cloned());
        StateSpecs {
            specs,
            weights: self.weights.len(),
            optimizer,
        }
    }

    /// Records the inner loss and the new buffers.
    pub(super) fn record_loss<'t>(&self, scope: &Scope<'t>) -> Result<(Var<'t>, Vec<Var<'t>>)> {
        let Some(loss) = &self.loss else {
            return Err(Error::Setting(
                "training: it has no inner loss: call `loss`".into(),
            ));
        };
        let (loss, buffers) = scope.checked("inner loss", loss(scope))?;
        self.check_loss("inner loss", loss)?;
        let described = |buffer: &Var<'t>| format!("{} {}", buffer.dtype(), buffer.shape());
        let [new, old] = [&buffers[..], scope.buffers()].map(|buffers| {
            let buffers: Vec<String> = buffers.iter().map(described).collect();
            buffers.join(", ")
        });
        if new != old {
            let reason = format!("it gives ({new}) as new values of buffers ({old})");
            return refuse("inner loss", reason);
        }
        Ok((loss, buffers))
    }

    /// Records the outer loss.
    pub(super) fn record_outer<'t>(&self, scope: &Scope<'t>) -> Result<Var<'t>> {
        let Some(outer) = &self.outer else {
            return Err(Error::Setting(
                "training: it has no outer loss: call `outer`".into(),
            ));
        };
        let loss = scope.checked("outer loss", outer(scope))?;
        self.check_loss("outer loss", loss)?;
        Ok(loss)
    }

    /// Refuses a loss that is not one number of the first weight's type: that is how losses are kept.
    fn check_loss(&self, name: &'static str, loss: Var<'_>) -> Result<()> {
        let ArraySpec {
            name: weight,
            dtype,
            ..
        } = &self.weights[0];
        if loss.shape().count() != 1 {
            return refuse(name, format!("{loss:?} is not one number"));
        }
        if loss.dtype() != *dtype {
            return refuse(
                name,
                format!("{loss:?} is not {dtype} as the weight `{weight}` is: cast it"),
            );
        }
        Ok(())
    }

    /// The optimiser's hyper-parameters for every weight, in the order in which it takes them. Where nothing has the name
    /// of one, it has the customary value.
    pub(super) fn record_hyper<'t>(&self, scope: &Scope<'t>) -> Result<Vec<Vec<Var<'t>>>> {
        let of_weight = |weight: usize| {
            let hyper = self.optimizer.hyper().iter();
            let one = |&(name, customary): &(&'static str, f64)| {
                let given = self.hyper.iter().find(|(known, _)| known == name);
                let hyper = match given {
                    Some((_, hyper)) => hyper(scope, weight),
                    None if scope.has(name) => Ok(scope[name]),
                    None => {
                        let dtype = self.weights[weight].dtype;
                        return Ok(scope.tape().constant(customary, dtype, []));
                    }
                };
                let hyper = scope.checked(&format!("hyper-parameter `{name}`"), hyper)?;
                self.check_hyper(name, hyper, weight)?;
                Ok(hyper)
            };
            hyper.map(one).collect()
        };
        (0..self.weights.len()).map(of_weight).collect()
    }

    /// Refuses a hyper-parameter that does not stretch to a weight.
    fn check_hyper(&self, name: &str, hyper: Var<'_>, weight: usize) -> Result<()> {
        let weight = &self.weights[weight];
        let (dtype, shape) = (hyper.dtype(), hyper.shape());
        let both = broadcast_shapes("hyper-parameter", &[shape.clone(), weight.shape.clone()]);
        if dtype == weight.dtype && both.is_ok_and(|both| both == weight.shape) {
            return Ok(());
        }
        Err(Error::Setting(format!(
            "hyper-parameter `{name}`: {dtype} {shape} does not stretch to the weight `{}`, which is {} {}",
            weight.name, weight.dtype, weight.shape
        )))
    }

    /// Records loss, gradient and update.
    pub(super) fn record_forward<'t>(
        &self,
        tape: &'t Tape,
        prepared: &Prepared,
        mode: Mode,
        origin: Origin,
    ) -> Result<Forward<'t>> {
        let layout = self.state_specs();
        let seen = prepared.inputs(tape, Slice::Outer)?;
        let mut scope = Scope::new(tape);
        prepared.show(&mut scope, &seen);
        // Hyper-parameters come before the weights: a step that is undone needs them to find those.
        let hyper = self.record_hyper(&scope)?;
        let (mut state, mut after, mut stored) = (tape.inputs(&layout.specs)?, vec![], vec![]);
        if origin == Origin::Undone {
            after.clone_from(&state);
            stored = tape.inputs(&self.buffers)?;
            for (i, spec) in self.weights.iter().enumerate() {
                let own = slots_of(&layout, i);
                let before = self
                    .optimizer
                    .weight_before(&spec.shape, &after[own], &hyper[i])?;
                state[i] = before;
            }
            state.truncate(layout.weights + layout.optimizer);
            state.extend(&stored);
        }
        let (theta, rest) = state.split_at(layout.weights);
        let (slots, buffers) = rest.split_at(layout.optimizer);
        let (theta, mut slots) = (theta.to_vec(), slots.to_vec());
        scope.add_learner(self, &theta, buffers);
        let (loss, new_buffers) = self.record_loss(&scope)?;

        let learned = learned(prepared, &seen).map(|(_, var)| var);
        let arguments: Vec<Var<'t>> = theta
            .iter()
            .chain(buffers)
            .copied()
            .chain(learned)
            .collect();
        let zeros: Vec<Var<'t>> = new_buffers
            .iter()
            .map(|b| tape.perturbation(b.dtype(), b.shape()))
            .collect();
        let mut seeds = vec![(loss, loss.constant_like(1.0))];
        if mode == Mode::Mixed {
            seeds.extend(new_buffers.iter().copied().zip(zeros.iter().copied()));
        }
        let gradients = tape.vjp(&seeds, &arguments)?;

        let mut new_state = Vec::new();
        let mut new_slots = Vec::new();
        let mut bumps = Vec::new();
        let per_weight = layout.per_weight();
        for (i, &weight) in theta.iter().enumerate() {
            let mut gradient = gradients[i];
            if mode == Mode::Mixed {
                // The optimiser's derivative stops here; the bump catches the cotangent of the gradient.
                bumps.push(tape.perturbation(gradient.dtype(), gradient.shape()));
                gradient = (gradient.stop_gradient() + bumps[i])?;
            }
            let own = &mut slots[i * per_weight..(i + 1) * per_weight];
            if origin == Origin::Undone {
                let known = gradient.stop_gradient();
                let before = self.optimizer.undo(known, own, &hyper[i])?;
                own.copy_from_slice(&before);
            }
            let (moved, slots) = self.optimizer.update(weight, gradient, own, &hyper[i])?;
            new_state.push(moved);
            new_slots.extend(slots);
        }
        new_state.extend(new_slots);
        new_state.extend(new_buffers);
        state[layout.weights..][..layout.optimizer].copy_from_slice(&slots);
        Ok(Forward {
            loss,
            new_state,
            after,
            stored,
            link: Link {
                arguments,
                gradients,
                seeds: zeros,
                bumps,
            },
            vars: StepVars { state, seen },
        })
    }

    /// Records the cotangents of the step's inputs, given those of its new state.
    pub(super) fn record_backward<'t>(
        &self,
        tape: &'t Tape,
        prepared: &Prepared,
        forward: &Forward<'t>,
        cotangents: &[Var<'t>],
        mode: Mode,
    ) -> Result<Backward<'t>> {
        let vars = &forward.vars;
        let state = vars.state.iter().copied();
        let mut wrt: Vec<Var<'t>> = state.filter(|var| var.dtype().is_float()).collect();
        wrt.extend(learned(prepared, &vars.seen).map(|(_, var)| var));
        let mut result = match mode {
            Mode::Reverse => tape.vjp(&seeds(&forward.new_state, cotangents), &wrt)?,
            Mode::Mixed => self.mixed(tape, forward, cotangents, &wrt)?,
        }
        .into_iter();
        let cotangent = |var: &Var<'t>| {
            let float = var.dtype().is_float();
            float.then(|| result.next().expect("one for every float"))
        };
        let state = vars.state.iter().map(cotangent).collect();
        let mut seen = vec![None; vars.seen.len()];
        for ((i, _), gradient) in learned(prepared, &vars.seen).zip(result) {
            seen[i] = Some(gradient);
        }
        Ok(Backward { state, seen })
    }

    /// Reverse through the optimiser, then one forward tangent of the gradient in the direction that this
    /// gives: ∂/∂η ⟨∇θL(θ, η), ḡ⟩ = d/dε ∇ηL(θ + εḡ, η) for every argument η, θ among them.
    fn mixed<'t>(
        &self,
        tape: &'t Tape,
        forward: &Forward<'t>,
        cotangents: &[Var<'t>],
        wrt: &[Var<'t>],
    ) -> Result<Vec<Var<'t>>> {
        let link = &forward.link;
        let buffers = forward.new_state.len() - link.seeds.len();
        let (moved, buffer_cotangents) = cotangents.split_at(buffers);
        let seeds = seeds(&forward.new_state, moved);
        let direct = tape.vjp(&seeds, &[wrt, &link.bumps].concat())?;
        let (direct, directions) = direct.split_at(wrt.len());

        let theta = &forward.vars.state[..self.weights.len()];
        let mut tangents: Vec<_> = theta
            .iter()
            .copied()
            .zip(directions.iter().copied())
            .collect();
        tangents.extend(
            link.seeds
                .iter()
                .copied()
                .zip(buffer_cotangents.iter().copied()),
        );
        let mixed = tape.jvp(&link.gradients, &tangents)?;
        let through = |var: &Var<'t>| {
            link.arguments
                .iter()
                .position(|a| a == var)
                .map(|i| mixed[i])
        };
        wrt.iter()
            .zip(direct)
            .map(|(var, &d)| through(var).map_or(Ok(d), |m| add(d, m)))
            .collect()
    }
}

/// The positions in a state of the arrays that the optimiser keeps for a weight.
fn slots_of(layout: &StateSpecs, weight: usize) -> std::ops::Range<usize> {
    let per_weight = layout.per_weight();
    let first = layout.weights + weight * per_weight;
    first..first + per_weight
}

/// What the meta-gradient flows through, of the arrays that a step sees.
fn learned<'a, 't>(
    prepared: &'a Prepared,
    vars: &'a [Option<Var<'t>>],
) -> impl Iterator<Item = (usize, Var<'t>)> + 'a {
    let seen = prepared.seen.iter().zip(vars).enumerate();
    seen.filter_map(|(i, (seen, var))| Some((i, (*var)?)).filter(|_| seen.learned))
}

/// Results with their cotangents; integers have none.
fn seeds<'t>(results: &[Var<'t>], cotangents: &[Var<'t>]) -> Vec<(Var<'t>, Var<'t>)> {
    let pairs = results.iter().copied().zip(cotangents.iter().copied());
    pairs.filter(|(var, _)| var.dtype().is_float()).collect()
}
