//! One inner step as a stretch of tape: forward, and backward in either mode.

use crate::error::{Result, refuse};
use crate::optim::Optimizer;
use crate::plan::Port;
use crate::tape::{Tape, Var};
use std::fmt;
use tensor::{DType, Shape};

/// An array that enters every inner step with a value of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name, type and shape of one step's array.
    pub port: Port,
    /// Whether the meta-gradient with respect to it is wanted.
    pub learned: bool,
}

/// What a loss is recorded from. Each list is in the order of its declaration.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a, 't> {
    /// The tape.
    pub tape: &'t Tape,
    /// θ, the learner's weights.
    pub theta: &'a [Var<'t>],
    /// The learner's buffers, such as running means.
    pub buffers: &'a [Var<'t>],
    /// What every step shares, such as (prepared) generator weights.
    pub shared: &'a [Var<'t>],
    /// This step's rows (for the outer loss: its data).
    pub rows: &'a [Var<'t>],
}

/// The loss of an inner step (a scalar), and the new values of the buffers.
pub type LossAndBuffers<'t> = (Var<'t>, Vec<Var<'t>>);

type LossFn<'f> = dyn for<'a, 't> Fn(Scope<'a, 't>) -> Result<LossAndBuffers<'t>> + 'f;
type OuterFn<'f> = dyn for<'a, 't> Fn(Scope<'a, 't>) -> Result<Var<'t>> + 'f;
type PreconditionFn<'f> = dyn for<'a, 't> Fn(usize, Var<'t>, &'a [Var<'t>]) -> Result<Var<'t>> + 'f;
type PrepareFn<'f> = dyn for<'a, 't> Fn(&'t Tape, &'a [Var<'t>]) -> Result<Vec<Var<'t>>> + 'f;

/// A training loop whose gradient is wanted: the arrays, the losses, the optimiser. [`Unroll`](crate::Unroll)
/// has an example.
pub struct Training<'f> {
    /// θ: float arrays that the optimiser moves.
    pub theta: Vec<Port>,
    /// Arrays that every step replaces by new values (momentum-0 running statistics).
    pub buffers: Vec<Port>,
    /// Arrays that all steps share; the meta-gradient with respect to them is computed.
    pub shared: Vec<Port>,
    /// Arrays with a value for every step, beside the optimiser's hyper-parameters.
    pub rows: Vec<Row>,
    /// The data of one outer loss.
    pub outer_rows: Vec<Port>,
    /// What moves θ. Its hyper-parameters are learned, a scalar of each name for every step.
    pub optimizer: Optimizer,
    /// What the optimiser is given in place of the gradient of the i-th array of θ, from the (prepared) shared
    /// arrays: a learned rate for every parameter, say, as in Meta-SGD (Li et al. 2017, arXiv 1707.09835). As a
    /// shared array a rate costs its own size and that of its gradient, whatever T is.
    pub precondition: Option<Box<PreconditionFn<'f>>>,
    /// What of the shared arrays can be computed once for all steps.
    pub prepare: Box<PrepareFn<'f>>,
    /// The inner loss: the only place that is differentiated twice.
    pub loss: Box<LossFn<'f>>,
    /// The outer loss (a scalar) of a trained learner; `shared` is empty in its scope.
    pub outer: Box<OuterFn<'f>>,
}

impl fmt::Debug for Training<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (theta, shared, rows) = (self.theta.len(), self.shared.len(), self.rows.len());
        write!(
            f,
            "Training({theta} weights, {shared} shared, {rows} rows, {})",
            self.optimizer.name()
        )
    }
}

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
pub(super) struct StatePorts {
    pub(super) ports: Vec<Port>,
    pub(super) theta: usize,
    pub(super) optimizer: usize,
}

impl StatePorts {
    /// How many arrays the optimiser keeps for a weight.
    fn per_theta(&self) -> usize {
        self.optimizer / self.theta.max(1)
    }

    /// The arrays of a state's cotangent: integers have none, so theirs are empty.
    pub(super) fn cotangents(&self) -> Vec<Port> {
        let cotangent = |port: &Port| {
            let mut port = port.clone();
            if !port.dtype.is_float() {
                port.shape = [0].into();
            }
            port
        };
        self.ports.iter().map(cotangent).collect()
    }
}

impl Training<'_> {
    pub(super) fn state_ports(&self) -> StatePorts {
        let mut ports = self.theta.clone();
        for port in &self.theta {
            for slot in self.optimizer.state(&port.shape, port.dtype) {
                ports.push(Port {
                    name: format!("{}.{}", port.name, slot.name),
                    ..slot
                });
            }
        }
        let optimizer = ports.len() - self.theta.len();
        ports.extend(self.buffers.iter().cloned());
        StatePorts {
            ports,
            theta: self.theta.len(),
            optimizer,
        }
    }

    /// What [`Given::start`](crate::Given::start) holds.
    pub fn start_ports(&self) -> Vec<Port> {
        self.state_ports().ports
    }

    /// What a record of [`Given::rows`](crate::Given::rows) holds.
    pub fn row_ports(&self) -> Vec<Port> {
        self.rows.iter().map(|row| row.port.clone()).collect()
    }

    /// What a record of [`Given::hyper`](crate::Given::hyper) holds: a scalar per hyper-parameter.
    pub fn hyper_ports(&self) -> Vec<Port> {
        let dtype = self.theta.first().map_or(DType::F32, |port| port.dtype);
        let port = |(name, _): &(&str, f64)| Port {
            name: (*name).into(),
            dtype,
            shape: Shape::scalar(),
        };
        self.optimizer.hyper().iter().map(port).collect()
    }
}

/// Inputs of a step's tape, by what they are.
pub(super) struct StepVars<'t> {
    pub(super) state: Vec<Var<'t>>,
    pub(super) shared: Vec<Var<'t>>,
    pub(super) rows: Vec<Var<'t>>,
    pub(super) hyper: Vec<Var<'t>>,
}

/// Declares one input per port, named by what it is and its number.
pub(super) fn inputs<'t>(tape: &'t Tape, kind: &str, ports: &[Port]) -> Result<Vec<Var<'t>>> {
    ports
        .iter()
        .enumerate()
        .map(|(i, port)| tape.input(&format!("{kind} {i}"), port.dtype, port.shape.clone()))
        .collect()
}

/// A recorded step.
pub(super) struct Forward<'t> {
    pub(super) vars: StepVars<'t>,
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
    /// Zeros in place of the cotangents of the new buffers.
    seeds: Vec<Var<'t>>,
    /// Zeros added to the gradients of θ on their way to the optimiser.
    bumps: Vec<Var<'t>>,
}

/// How a step knows the state that it starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is given.
    Given,
    /// It is found again from the state after the step, which is given: the step is undone.
    Undone,
}

/// Cotangents of a step's inputs, in the order of its variables.
pub(super) struct Backward<'t> {
    /// `None` for integers.
    pub(super) state: Vec<Option<Var<'t>>>,
    pub(super) shared: Vec<Var<'t>>,
    /// `None` for rows that are not learned.
    pub(super) rows: Vec<Option<Var<'t>>>,
    pub(super) hyper: Vec<Var<'t>>,
}

impl Training<'_> {
    /// The rows whose gradient is wanted.
    fn learned_rows<'t>(&self, vars: &StepVars<'t>) -> impl Iterator<Item = Var<'t>> {
        let rows = vars.rows.iter().zip(&self.rows);
        rows.filter(|(_, row)| row.learned).map(|(var, _)| *var)
    }

    /// Inputs for the state before a step. Where that is undone, the optimiser's arrays are as they are after
    /// it, for the gradient must be known to undo them.
    fn record_state<'t>(
        &self,
        tape: &'t Tape,
        hyper: &[Var<'t>],
        origin: Origin,
    ) -> Result<Vec<Var<'t>>> {
        let layout = self.state_ports();
        if origin == Origin::Given {
            return inputs(tape, "state", &layout.ports);
        }
        let mut state = inputs(tape, "after", &layout.ports)?;
        let per_theta = layout.per_theta();
        for (i, port) in self.theta.iter().enumerate() {
            let own = layout.theta + i * per_theta..layout.theta + (i + 1) * per_theta;
            state[i] = (self.optimizer).weight_before(&port.shape, &state[own], hyper)?;
        }
        state.truncate(layout.theta + layout.optimizer);
        state.extend(inputs(tape, "kept", &self.buffers)?);
        Ok(state)
    }

    /// Records loss, gradient and update.
    pub(super) fn record_forward<'t>(
        &self,
        tape: &'t Tape,
        prepared: &[Port],
        mode: Mode,
        origin: Origin,
    ) -> Result<Forward<'t>> {
        let layout = self.state_ports();
        let hyper = inputs(tape, "hyper", &self.hyper_ports())?;
        let mut vars = StepVars {
            state: self.record_state(tape, &hyper, origin)?,
            shared: inputs(tape, "shared", prepared)?,
            rows: inputs(tape, "row", &self.row_ports())?,
            hyper,
        };
        let (theta, rest) = vars.state.split_at(layout.theta);
        let (slots, buffers) = rest.split_at(layout.optimizer);
        let mut slots = slots.to_vec();
        let scope = Scope {
            tape,
            theta,
            buffers,
            shared: &vars.shared,
            rows: &vars.rows,
        };
        let (loss, new_buffers) = (self.loss)(scope)?;
        if loss.shape().count() != 1 || new_buffers.len() != buffers.len() {
            return refuse(
                "inner loss",
                format!(
                    "{loss:?} with {} new buffers of {}",
                    new_buffers.len(),
                    buffers.len()
                ),
            );
        }

        let learned = self.learned_rows(&vars);
        let floats = vars.shared.iter().copied().filter(|v| v.dtype().is_float());
        let arguments: Vec<Var<'t>> = theta
            .iter()
            .chain(buffers)
            .copied()
            .chain(floats)
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

        let mut new_state = vec![loss; 0];
        let mut new_slots = Vec::new();
        let mut bumps = Vec::new();
        let per_theta = layout.per_theta();
        for (i, &weight) in theta.iter().enumerate() {
            let mut gradient = gradients[i];
            if mode == Mode::Mixed {
                // The optimiser's derivative stops here; the bump catches the cotangent of the gradient.
                bumps.push(tape.perturbation(gradient.dtype(), gradient.shape()));
                gradient = (gradient.stop_gradient() + bumps[i])?;
            }
            if let Some(precondition) = &self.precondition {
                gradient = precondition(i, gradient, &vars.shared)?;
            }
            let own = &mut slots[i * per_theta..(i + 1) * per_theta];
            if origin == Origin::Undone {
                let known = gradient.stop_gradient();
                let before = self.optimizer.undo(known, own, &vars.hyper)?;
                own.copy_from_slice(&before);
            }
            let (moved, state) = self.optimizer.update(weight, gradient, own, &vars.hyper)?;
            new_state.push(moved);
            new_slots.extend(state);
        }
        new_state.extend(new_slots);
        new_state.extend(new_buffers);
        vars.state[layout.theta..][..layout.optimizer].copy_from_slice(&slots);
        Ok(Forward {
            loss,
            new_state,
            link: Link {
                arguments,
                gradients,
                seeds: zeros,
                bumps,
            },
            vars,
        })
    }

    /// Records the cotangents of the step's inputs, given those of its new state.
    pub(super) fn record_backward<'t>(
        &self,
        tape: &'t Tape,
        forward: &Forward<'t>,
        cotangents: &[Var<'t>],
        mode: Mode,
    ) -> Result<Backward<'t>> {
        let vars = &forward.vars;
        let learned: Vec<Var<'t>> = self.learned_rows(vars).collect();
        let state = vars.state.iter().copied();
        let state: Vec<Var<'t>> = state.filter(|var| var.dtype().is_float()).collect();
        let wrt = [&state[..], &vars.shared, &vars.hyper, &learned].concat();
        let mut result = match mode {
            Mode::Reverse => tape.vjp(&seeds(&forward.new_state, cotangents), &wrt)?,
            Mode::Mixed => self.mixed(tape, forward, cotangents, &wrt)?,
        }
        .into_iter();
        let mut cotangent = |var: &Var<'t>| {
            let float = var.dtype().is_float();
            float.then(|| result.next().expect("one for every float"))
        };
        let state = vars.state.iter().map(&mut cotangent).collect();
        let shared = result.by_ref().take(vars.shared.len()).collect();
        let hyper = result.by_ref().take(vars.hyper.len()).collect();
        let rows = self
            .rows
            .iter()
            .map(|row| if row.learned { result.next() } else { None })
            .collect();
        Ok(Backward {
            state,
            shared,
            rows,
            hyper,
        })
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

        let theta = &forward.vars.state[..self.theta.len()];
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
            .map(|(var, &d)| through(var).map_or(Ok(d), |m| d + m))
            .collect()
    }
}

/// Results with their cotangents; integers have none.
fn seeds<'t>(results: &[Var<'t>], cotangents: &[Var<'t>]) -> Vec<(Var<'t>, Var<'t>)> {
    let pairs = results.iter().copied().zip(cotangents.iter().copied());
    pairs.filter(|(var, _)| var.dtype().is_float()).collect()
}
