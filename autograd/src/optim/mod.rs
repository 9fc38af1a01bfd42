//! Optimisers that can be differentiated: updates of one parameter each, recorded like everything else.

mod descent;
mod muon;

pub use descent::Descent;

use crate::error::{Error, Result, refuse};
use crate::ops::reversible;
use crate::spec::ArraySpec;
use crate::tape::Var;
use tensor::{DType, Shape};

/// How a gradient moves a parameter: θ′ = θ − lr·d, with d by
///
/// | | d | state |
/// | --- | --- | --- |
/// | `Sgd` | g | |
/// | `Momentum` | u′ = momentum·u + g | u |
/// | `ReversibleMomentum` | the same, in fixed point | u, all in fixed point |
/// | `Nesterov` | g + momentum·u′ | u |
/// | `RmsProp` | g / (√v′ + eps), v′ = decay·v + (1 − decay)·g² | v |
/// | `Adam` | m̂ / (√v̂ + eps) (Kingma and Ba 2015) | m, v, their weights |
/// | `AdamW` | that + `weight_decay`·θ (Loshchilov and Hutter 2019) | as Adam |
/// | `Lion` | sign(beta1·m + (1 − beta1)·g) + `weight_decay`·θ, m′ = beta2·m + (1 − beta2)·g (Chen et al. 2023) | m |
/// | `Muon` | that of `Nesterov`, of matrices made orthogonal (Jordan 2024) | u |
///
/// Every hyper-parameter is a variable, so it can be learned, and differ from step to step. Derivatives are
/// finite at a zero gradient, even where the second moment is zero, because a tape takes √′(0) as 0. In
/// that case d is 0, even without eps.
///
/// The derivative of a sign is 0. So through a step of `Lion` a meta-gradient reaches θ, the rate and the
/// weight decay; the gradient, what it was computed from, beta1 and beta2 get none.
///
/// Squares are computed in the parameter's type, as the formulas have them. In f32, gradients below 1e-22
/// add nothing to v, and those above 1.8e19 make it infinite; then d is 0.
///
/// ```
/// use autograd::{Tape, optim::Optimizer};
/// use tensor::DType;
/// let tape = Tape::new();
/// let theta = tape.input("theta", DType::F32, [3])?;
/// let lr = tape.input("lr", DType::F32, [])?;
/// let gradient = tape.grad((theta * theta)?.sum_all()?, &[theta])?[0];
/// let (moved, _) = Optimizer::Sgd.update(theta, gradient, &[], &[lr])?;
/// let outer_loss = moved.powi(4)?.sum_all()?;
/// let of_the_rate = tape.grad(outer_loss, &[lr])?[0];
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd,
    /// Heavy ball (Polyak 1964).
    Momentum,
    /// Heavy ball in fixed point, of which every step can be undone exactly (Maclaurin et al. 2015): with
    /// [`Schedule::reversible`](crate::Schedule::reversible) a training keeps no states. Weights,
    /// velocities and gradients are multiples of 2⁻⁴⁶ below 2¹⁵, and the momentum is a multiple of 2⁻²⁴ in
    /// [0, 1]; what is outside becomes NaN. Derivatives are those of `Momentum` at the same points. The
    /// rate and the momentum are one number each for all elements of a weight.
    ReversibleMomentum,
    /// Momentum that looks ahead (Nesterov 1983, as Sutskever et al. 2013 write it).
    Nesterov,
    /// Steps divided by the root of a moving mean of squares (Hinton 2012).
    RmsProp,
    /// Moving means of the gradient and of its square, both corrected for their start at zero.
    Adam,
    /// Adam with a weight decay that does not pass through the means.
    AdamW,
    /// The sign of a mean gradient: every element moves by the rate.
    Lion,
    /// Momentum that looks ahead, with all singular values made about 1. It takes weights \[units, …\] as
    /// matrices \[units, inputs\], runs five Newton–Schulz iterations, which the meta-gradient passes
    /// through, and multiplies by √(units / inputs) where there are more units than inputs. Vectors and
    /// scalars move as by `Nesterov`; as published, Adam moves them. It is for one learner at a time: it
    /// would make one matrix of the weights of several learners in one array.
    Muon,
}

impl Optimizer {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Sgd,
        Self::Momentum,
        Self::ReversibleMomentum,
        Self::Nesterov,
        Self::RmsProp,
        Self::Adam,
        Self::AdamW,
        Self::Lion,
        Self::Muon,
    ];

    /// Its name in messages and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Momentum => "momentum",
            Self::ReversibleMomentum => "reversible-momentum",
            Self::Nesterov => "nesterov",
            Self::RmsProp => "rmsprop",
            Self::Adam => "adam",
            Self::AdamW => "adamw",
            Self::Lion => "lion",
            Self::Muon => "muon",
        }
    }

    /// Names of the hyper-parameters in the order that [`Optimizer::update`] takes them, with customary values.
    pub fn hyper(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Sgd => &[("lr", 0.01)],
            Self::Momentum | Self::ReversibleMomentum | Self::Nesterov => {
                &[("lr", 0.01), ("momentum", 0.9)]
            }
            Self::RmsProp => &[("lr", 0.01), ("decay", 0.99), ("eps", 1e-8)],
            Self::Adam => &[
                ("lr", 1e-3),
                ("beta1", 0.9),
                ("beta2", 0.999),
                ("eps", 1e-8),
            ],
            Self::AdamW => &[
                ("lr", 1e-3),
                ("beta1", 0.9),
                ("beta2", 0.999),
                ("eps", 1e-8),
                ("weight_decay", 0.01),
            ],
            Self::Lion => &[
                ("lr", 1e-4),
                ("beta1", 0.9),
                ("beta2", 0.99),
                ("weight_decay", 0.01),
            ],
            Self::Muon => &[("lr", 0.02), ("momentum", 0.95)],
        }
    }

    /// The arrays of the state that goes with a parameter. They start at zero.
    ///
    /// Adam keeps, beside the means `m` and `v`, the sum of the weights in each of them (scalars): with
    /// one β that is 1 − βᵗ, the usual bias correction, without the cancellation; it stays right when β
    /// changes from step to step, and has a derivative at β = 0.
    pub fn state(self, theta: &Shape, dtype: DType) -> Vec<ArraySpec> {
        let array = |name: &str, dtype, shape: Shape| ArraySpec::new(name, dtype, shape);
        let float = |name| array(name, dtype, theta.clone());
        let scalar = |name| array(name, dtype, Shape::scalar());
        match self {
            Self::Sgd => vec![],
            Self::Momentum | Self::Nesterov | Self::Muon => vec![float("u")],
            Self::ReversibleMomentum => {
                let fixed = reversible::state_shape(theta);
                vec![float("u"), array("fixed", DType::U32, fixed)]
            }
            Self::RmsProp => vec![float("v")],
            Self::Lion => vec![float("m")],
            Self::Adam | Self::AdamW => vec![
                float("m"),
                float("v"),
                scalar("m_weight"),
                scalar("v_weight"),
            ],
        }
    }

    /// Records one update of one parameter: gives θ′ and the new state.
    ///
    /// `state` as [`Optimizer::state`] lists it, `hyper` as [`Optimizer::hyper`] does. A hyper-parameter is
    /// a scalar; it may be an array that broadcasts to θ (a rate per element) if it only meets arrays of
    /// that shape.
    pub fn update<'t>(
        self,
        theta: Var<'t>,
        gradient: Var<'t>,
        state: &[Var<'t>],
        hyper: &[Var<'t>],
    ) -> Result<(Var<'t>, Vec<Var<'t>>)> {
        self.check(theta, gradient, state, hyper)?;
        let g = gradient;
        let (direction, next) = match self {
            Self::Sgd => (g, vec![]),
            Self::Momentum | Self::ReversibleMomentum => {
                let u = ((hyper[1] * state[0])? + g)?;
                (u, vec![u])
            }
            Self::Nesterov => nesterov(g, state, hyper)?,
            Self::Muon => {
                let (ahead, next) = nesterov(g, state, hyper)?;
                (muon::direction(ahead)?, next)
            }
            Self::RmsProp => {
                let v = moving_mean(hyper[1], state[0], (g * g)?)?;
                (quotient(g, (v.sqrt()? + hyper[2])?)?, vec![v])
            }
            Self::Adam => adam(g, state, hyper)?,
            Self::AdamW => {
                let (direction, next) = adam(g, state, hyper)?;
                ((direction + (hyper[4] * theta)?)?, next)
            }
            Self::Lion => {
                let sign = moving_mean(hyper[1], state[0], g)?.sign()?;
                let m = moving_mean(hyper[2], state[0], g)?;
                ((sign + (hyper[3] * theta)?)?, vec![m])
            }
        };
        let moved = (theta - (hyper[0] * direction)?)?;
        let kept = next
            .iter()
            .zip(state)
            .all(|(new, old)| new.shape() == old.shape());
        if !kept || moved.shape() != theta.shape() {
            let shapes: Vec<_> = hyper.iter().map(|h| h.shape().to_string()).collect();
            return refuse(
                self.name(),
                format!(
                    "hyper-parameters of shapes {} do not stretch to {} and its state",
                    shapes.join(", "),
                    theta.shape()
                ),
            );
        }
        if self == Self::ReversibleMomentum {
            let fixed = reversible::advance(state[1], [theta, state[0], g], hyper)?;
            let moved = reversible::weight(fixed, theta)?.with_derivative_of(moved)?;
            let u = reversible::velocity(fixed, theta)?.with_derivative_of(next[0])?;
            return Ok((moved, vec![u, fixed]));
        }
        Ok((moved, next))
    }

    /// θ before the step that led to a state, where a step can be undone.
    pub(crate) fn weight_before<'t>(
        self,
        theta: &Shape,
        state: &[Var<'t>],
        hyper: &[Var<'t>],
    ) -> Result<Var<'t>> {
        self.expect_reversible()?;
        reversible::weight_before(state[1], hyper[0], theta)
    }

    /// The state before that step, given the gradient at the θ before it.
    pub(crate) fn undo<'t>(
        self,
        gradient: Var<'t>,
        state: &[Var<'t>],
        hyper: &[Var<'t>],
    ) -> Result<Vec<Var<'t>>> {
        self.expect_reversible()?;
        let fixed = reversible::undo(state[1], gradient, hyper)?;
        Ok(vec![reversible::velocity(fixed, gradient)?, fixed])
    }

    /// The loss of trained weights, or NaN if an update went out of range. Such an update makes a weight
    /// NaN, but the loss alone might not show it, for example behind a `ReLU`.
    pub(crate) fn checked<'t>(self, mut loss: Var<'t>, theta: &[Var<'t>]) -> Result<Var<'t>> {
        if self == Self::ReversibleMomentum {
            for &weight in theta {
                let number = weight.equal(weight)?;
                let lost = (number.constant_like(1.0) - number)?.sum_all()?;
                loss = lost.select(loss.constant_like(f64::NAN), loss)?;
            }
        }
        Ok(loss)
    }

    fn expect_reversible(self) -> Result<()> {
        if self == Self::ReversibleMomentum {
            return Ok(());
        }
        let (name, other) = (self.name(), Self::ReversibleMomentum.name());
        Err(Error::Setting(format!(
            "steps of the optimiser {name} cannot be undone: the schedule `reversible` is for {other}"
        )))
    }

    fn check(
        self,
        theta: Var<'_>,
        gradient: Var<'_>,
        state: &[Var<'_>],
        hyper: &[Var<'_>],
    ) -> Result<()> {
        let shape = theta.shape();
        if gradient.shape() != shape {
            return refuse(
                self.name(),
                format!("a gradient {} for a parameter {shape}", gradient.shape()),
            );
        }
        let wanted = self.state(&shape, theta.dtype());
        let fits = wanted.len() == state.len()
            && wanted
                .iter()
                .zip(state)
                .all(|(spec, s)| spec.shape == s.shape());
        if !fits {
            let names: Vec<_> = wanted
                .iter()
                .map(|spec| format!("{} {}", spec.name, spec.shape))
                .collect();
            let given: Vec<_> = state.iter().map(|s| s.shape().to_string()).collect();
            return refuse(
                self.name(),
                format!(
                    "the state is ({}), but ({}) was given",
                    names.join(", "),
                    given.join(", ")
                ),
            );
        }
        if hyper.len() != self.hyper().len() {
            let names: Vec<_> = self.hyper().iter().map(|(name, _)| *name).collect();
            return refuse(
                self.name(),
                format!(
                    "the hyper-parameters are {}, but {} were given",
                    names.join(", "),
                    hyper.len()
                ),
            );
        }
        Ok(())
    }
}

/// The direction of momentum that looks ahead, and its new state.
fn nesterov<'t>(
    g: Var<'t>,
    state: &[Var<'t>],
    hyper: &[Var<'t>],
) -> Result<(Var<'t>, Vec<Var<'t>>)> {
    let u = ((hyper[1] * state[0])? + g)?;
    Ok(((g + (hyper[1] * u)?)?, vec![u]))
}

/// The direction of Adam and its new state.
fn adam<'t>(g: Var<'t>, state: &[Var<'t>], hyper: &[Var<'t>]) -> Result<(Var<'t>, Vec<Var<'t>>)> {
    let (beta1, beta2, eps) = (hyper[1], hyper[2], hyper[3]);
    let m = moving_mean(beta1, state[0], g)?;
    let v = moving_mean(beta2, state[1], (g * g)?)?;
    let m_weight = moving_mean(beta1, state[2], state[2].constant_like(1.0))?;
    let v_weight = moving_mean(beta2, state[3], state[3].constant_like(1.0))?;
    let spread = (v / v_weight)?.sqrt()?;
    let direction = quotient((m / m_weight)?, (spread + eps)?)?;
    Ok((direction, vec![m, v, m_weight, v_weight]))
}

/// x/y, and 0 where both are 0: so without eps, a parameter without a gradient stays where it is.
fn quotient<'t>(x: Var<'t>, y: Var<'t>) -> Result<Var<'t>> {
    let zero = y.constant_like(0.0);
    let both = x.abs()?.max(y)?.equal(zero)?;
    both.select(zero, (x / y)?)
}

/// decay·old + (1 − decay)·new
fn moving_mean<'t>(decay: Var<'t>, old: Var<'t>, new: Var<'t>) -> Result<Var<'t>> {
    let rest = (decay.constant_like(1.0) - decay)?;
    (decay * old)? + (rest * new)?
}

#[cfg(test)]
mod tests;
