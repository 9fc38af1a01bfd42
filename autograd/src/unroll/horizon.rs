//! How far a training is unrolled, and how it is differentiated.

use super::away::Places;
use super::schedule::Policy;
use super::step::Mode;
use crate::error::{Error, Result};
use kernels::Device;
use std::path::PathBuf;

/// The most inner steps: 2³² of them take years. For fewer, no count of work or memory overflows.
const LONGEST: usize = 1 << 32;

/// How a training is unrolled: the number of steps, where the outer loss is evaluated, the schedule, the mode, and whether
/// cotangents are clipped.
///
/// ```
/// use autograd::{Horizon, Policy};
/// // A hundred steps, with an outer loss after every twentieth.
/// let horizon = Horizon::new(100)
///     .outer_at(|step| step % 20 == 0)
///     .schedule(Policy::Budget(64 << 20));
/// assert_eq!(horizon.outer_steps(), [20, 40, 60, 80, 100]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Horizon {
    pub(super) steps: usize,
    pub(super) outer_steps: Vec<usize>,
    pub(super) policy: Policy,
    pub(super) free_bytes: Option<usize>,
    pub(super) segments: usize,
    pub(super) mode: Mode,
    pub(super) away: Places,
    pub(super) clip: Option<f64>,
}

impl Horizon {
    /// That many inner steps, and one outer loss after the last; with the default schedule and mode.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            outer_steps: vec![steps],
            policy: Policy::default(),
            free_bytes: None,
            segments: 1,
            mode: Mode::default(),
            away: Places::default(),
            clip: None,
        }
    }

    /// An outer loss after each step for which `at` says so; steps are counted from 1.
    #[must_use]
    pub fn outer_at(self, at: impl Fn(usize) -> bool) -> Self {
        let looked_at = 1..=self.steps.min(LONGEST);
        let outer_steps = looked_at.filter(|&step| at(step)).collect();
        Self {
            outer_steps,
            ..self
        }
    }

    /// The schedule, or who picks it: what is stored between the sweeps.
    #[must_use]
    pub fn schedule(self, policy: impl Into<Policy>) -> Self {
        Self {
            policy: policy.into(),
            ..self
        }
    }

    /// How many bytes of memory are free where it will run; `None`, the default, if that is unknown.
    /// [`Policy::Auto`] takes at most half of them. [`Unroll::new`](crate::Unroll::new) asks its device if
    /// this is `None`. It decides about time and memory only: all schedules give the same meta-gradient,
    /// bit for bit.
    #[must_use]
    pub fn free_bytes(self, bytes: impl Into<Option<usize>>) -> Self {
        Self {
            free_bytes: bytes.into(),
            ..self
        }
    }

    /// The same horizon, to run on that device: `auto` takes its free memory into account, unless the
    /// caller has said how much is free.
    pub(super) fn on(&self, device: &Device) -> Self {
        let free_bytes = match self.policy {
            Policy::Auto => self.free_bytes.or_else(|| device.free_bytes()),
            _ => self.free_bytes,
        };
        self.clone().free_bytes(free_bytes)
    }

    /// Cuts a step's gradient and its tangent into at most that many segments, as
    /// [`Plan::in_segments`](crate::Plan::in_segments) does. A deep learner then takes less memory, and up
    /// to 3 F more work for every step that is reversed (F is the work of one forward pass). The plans of
    /// the step itself and of the outer loss are cut only as far as they would take more memory than that.
    /// 1, the default, recomputes nothing; a [`Policy::Budget`] and [`Policy::Auto`] may take more.
    #[must_use]
    pub fn segments(self, segments: usize) -> Self {
        Self { segments, ..self }
    }

    /// How a step is differentiated.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Keeps that many of the schedule's snapshots, those that are needed last, in a file in `folder`. They
    /// are written and read while steps are computed. The meta-gradient is the same, bit for bit.
    ///
    /// With `per-step` and as many as there are steps, the device holds two states, whatever T is.
    #[must_use]
    pub fn on_disk(mut self, snapshots: usize, folder: impl Into<PathBuf>) -> Self {
        self.away.on_disk = snapshots;
        self.away.folder = folder.into();
        self
    }

    /// Keeps that many of the schedule's snapshots in the host's memory: of those that are not on disk the
    /// ones that are needed last. Of use where the device is a GPU.
    #[must_use]
    pub fn in_host(mut self, snapshots: usize) -> Self {
        self.away.in_host = snapshots;
        self
    }

    /// Scales the cotangent of the state down to this norm, wherever it is longer on its way back through
    /// the steps. That is not the exact meta-gradient, but one that does not explode. Often used with a
    /// window.
    #[must_use]
    pub fn clip(self, norm: f64) -> Self {
        Self {
            clip: Some(norm),
            ..self
        }
    }

    /// Who picks the schedule.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// How many inner steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The steps after which the outer loss is looked at, ascending.
    pub fn outer_steps(&self) -> &[usize] {
        &self.outer_steps
    }

    /// Refuses a horizon with nothing to do.
    pub(super) fn check(&self) -> Result<()> {
        let (steps, outer) = (self.steps, self.outer_steps.len());
        if steps == 0 || outer == 0 {
            return Err(Error::Setting(format!(
                "{steps} inner steps with {outer} outer losses: at least one of each is needed"
            )));
        }
        if steps > LONGEST {
            return Err(Error::Setting(format!(
                "{steps} inner steps: at most {LONGEST}"
            )));
        }
        if let Some(norm) = self.clip.filter(|norm| !norm.is_finite() || *norm <= 0.0) {
            let reason = "a cotangent can be shortened to a norm above 0";
            return Err(Error::Setting(format!("clip is {norm}: {reason}")));
        }
        Ok(())
    }
}
