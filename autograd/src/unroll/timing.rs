//! Where the time of a meta-gradient goes.

use super::memory::{At, Given};
use super::source::Source;
use super::{Losses, Unroll, Values};
use crate::error::Result;
use crate::plan::Bound;
use kernels::Lap;
use std::time::{Duration, Instant};

/// One run of a plan within a meta-gradient, timed launch by launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedRun {
    /// The phase that the plan is for: see [`Phase::name`](super::Phase::name).
    pub phase: &'static str,
    /// The inner step that the driver was at.
    pub step: usize,
    /// When the run began.
    pub begin: Instant,
    /// From there to its end.
    pub time: Duration,
    /// A lap for every launch of the plan.
    pub laps: Vec<Lap>,
}

impl Unroll {
    /// As [`Unroll::gradient`], with every launch timed: the runs of plans, in their order. The numbers are
    /// the same. On a GPU the total time is not, because kernels are launched one by one.
    pub fn timed_gradient(&mut self, values: &Values) -> Result<(Losses, Vec<TimedRun>)> {
        *self.timed.get_mut() = Some(Vec::new());
        let losses = self.gradient(values);
        let runs = self.timed.take().unwrap_or_default();
        Ok((losses?, runs))
    }

    /// Runs a plan with its launches timed.
    pub(super) fn time(
        &self,
        bound: &Bound<Source>,
        given: &Given<'_>,
        at: At,
    ) -> Result<TimedRun> {
        let (memory, plan) = (&self.memory, bound.plan());
        let mut phases = self.planned.phases().into_iter();
        let phase = phases.find(|phase| std::ptr::eq(phase.plan, plan));
        let [inputs, outputs] = bound.views(|source| memory.view(source, given, at));
        let begin = Instant::now();
        let laps = plan.time(&memory.device, memory.arena(bound), &inputs, &outputs)?;
        Ok(TimedRun {
            phase: phase.expect("every plan is of a phase").name,
            step: at.step,
            begin,
            time: begin.elapsed(),
            laps,
        })
    }
}
