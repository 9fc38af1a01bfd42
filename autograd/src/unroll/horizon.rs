//! How far a training is unrolled, and how it is differentiated.

use super::away::Places;
use super::schedule::Schedule;
use super::step::Mode;
use crate::error::{Error, Result};
use std::path::PathBuf;

/// Everything about an unrolled training but the training: how many steps, where the outer loss is looked at,
/// what is kept, how a step is differentiated.
///
/// ```
/// use autograd::{Horizon, Schedule};
/// // A hundred steps on ten batches in turn, with an outer loss after every twentieth step.
/// let horizon = Horizon::new(100)
///     .rows(10)
///     .outer_at(|step| step % 20 == 0)
///     .schedule(Schedule::Budget(64 << 20));
/// assert_eq!(horizon.outer_steps(), [20, 40, 60, 80, 100]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Horizon {
    pub(super) steps: usize,
    pub(super) rows: usize,
    pub(super) outer_steps: Vec<usize>,
    pub(super) schedule: Schedule,
    pub(super) segments: usize,
    pub(super) mode: Mode,
    pub(super) away: Places,
    pub(super) clip: Option<f64>,
}

impl Horizon {
    /// That many inner steps, each with a row of its own, and one outer loss after the last; with the default
    /// schedule and mode.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            rows: steps,
            outer_steps: vec![steps],
            schedule: Schedule::default(),
            segments: 1,
            mode: Mode::default(),
            away: Places::default(),
            clip: None,
        }
    }

    /// Fewer rows than steps: step t works on row t mod `rows`, and a row's gradient is the sum over all steps
    /// that took it. Hyper-parameters stay each step's own.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    /// An outer loss after each step for which `at` says so; steps are counted from 1.
    #[must_use]
    pub fn outer_at(self, at: impl Fn(usize) -> bool) -> Self {
        let outer_steps = (1..=self.steps).filter(|&step| at(step)).collect();
        Self {
            outer_steps,
            ..self
        }
    }

    /// What is kept between the sweeps.
    #[must_use]
    pub fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Up to that many segments of a step's gradient and its tangent are told apart, as by
    /// [`Plan::in_segments`](crate::Plan::in_segments): a deep learner takes less memory, and up to 3 F more work
    /// for every step that is reversed. The plans of the step itself and of the outer loss are cut as far as
    /// they must be to need no more than that. 1, the default, computes nothing again; a
    /// [`Schedule::Budget`] may take more.
    #[must_use]
    pub fn segments(self, segments: usize) -> Self {
        Self { segments, ..self }
    }

    /// How a step is differentiated.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// So many of the schedule's snapshots, those that are needed last, lie in a file in `folder`. They are
    /// written and read while steps are computed. The meta-gradient is the same, bit for bit.
    ///
    /// With `per-step` and as many as there are steps, the device holds two states, whatever T is.
    #[must_use]
    pub fn on_disk(mut self, snapshots: usize, folder: impl Into<PathBuf>) -> Self {
        self.away.on_disk = snapshots;
        self.away.folder = folder.into();
        self
    }

    /// So many of the schedule's snapshots, those that are needed last but for the ones on disk, lie in the
    /// host's memory: of use where the device is a GPU.
    #[must_use]
    pub fn in_host(mut self, snapshots: usize) -> Self {
        self.away.in_host = snapshots;
        self
    }

    /// The cotangent of the state is shortened to this norm wherever it is longer on its way back through the
    /// steps: not the exact meta-gradient, but one that does not explode. Often used with a window.
    #[must_use]
    pub fn clip(self, norm: f64) -> Self {
        Self {
            clip: Some(norm),
            ..self
        }
    }

    /// How many inner steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The steps after which the outer loss is looked at, ascending.
    pub fn outer_steps(&self) -> &[usize] {
        &self.outer_steps
    }

    /// Whether there is anything to do; no more rows than steps.
    pub(super) fn checked(&self) -> Result<Self> {
        let (steps, rows, outer) = (self.steps, self.rows, self.outer_steps.len());
        if steps == 0 || rows == 0 || outer == 0 {
            return Err(Error::Setting(format!(
                "{steps} inner steps on {rows} rows with {outer} outer losses: at least one of each is needed"
            )));
        }
        if let Some(norm) = self.clip.filter(|norm| !norm.is_finite() || *norm <= 0.0) {
            let reason = "a cotangent can be shortened to a norm above 0";
            return Err(Error::Setting(format!("clip is {norm}: {reason}")));
        }
        let rows = rows.min(steps);
        Ok(Self {
            rows,
            ..self.clone()
        })
    }
}
