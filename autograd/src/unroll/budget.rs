//! The schedule that computes the fewest steps again within a number of bytes.
//!
//! Two families hold a best one for every amount of memory: binomial schedules, which for their number of
//! snapshots are optimal, and binomial schedules over stretches that are reversed with their activations
//! kept. Per-step and store-all are their ends.

use super::binomial;
use super::schedule::Schedule;
use crate::error::{Error, Result};

/// What things take, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    /// Everything but states and activations: without activations kept, and with them.
    pub(super) plain: usize,
    pub(super) keeping: usize,
    /// A record of state, and one of activations.
    pub(super) state: usize,
    pub(super) kept: usize,
}

/// A schedule with what it takes: evaluations of inner steps, then bytes.
type Candidate = (u64, usize, Schedule);

impl Costs {
    /// The bytes of a binomial schedule with `c` snapshots.
    fn bytes(&self, steps: usize, c: usize, kept: usize) -> usize {
        let fixed = if kept == 0 { self.plain } else { self.keeping };
        let states = binomial::states(steps, c, kept);
        let snapshots = states.saturating_mul(self.state);
        fixed.saturating_add(snapshots.saturating_add(kept.saturating_mul(self.kept)))
    }

    /// The best with stretches of `kept` steps that fits.
    fn best(&self, steps: usize, kept: usize, budget: usize) -> Option<Candidate> {
        let spare = budget.checked_sub(self.bytes(steps, 1, kept))?;
        // More snapshots than stretches are of no use.
        let stretches = steps.div_ceil(kept.max(1));
        let most = stretches.max(2) - 1;
        let c = (1 + spare / self.state).min(most);
        // With more snapshots one state less may be held beside them.
        let wider = (c + 1).min(most);
        let c = if self.bytes(steps, wider, kept) <= budget {
            wider
        } else {
            c
        };
        let schedule = match kept {
            0 if c + 1 >= steps => Schedule::PerStep,
            0 => Schedule::Binomial(c),
            _ if kept == steps => Schedule::StoreAll,
            _ => Schedule::BinomialKept(c, kept),
        };
        let work = binomial::evaluations(steps, c, kept);
        Some((work, self.bytes(steps, c, kept), schedule))
    }
}

/// The schedule for `steps` inner steps that fits into `budget` bytes with the fewest evaluations of a
/// step; of two alike, that with fewer bytes. An error says the least budget that would do.
pub(super) fn choose(costs: Costs, steps: usize, budget: usize) -> Result<Schedule> {
    let fitting = (0..=steps).filter_map(|kept| costs.best(steps, kept, budget));
    let best = fitting.min_by_key(|&(work, bytes, _)| (work, bytes));
    best.map(|(_, _, schedule)| schedule).ok_or_else(|| {
        let least = (0..=steps).map(|kept| costs.bytes(steps, 1, kept)).min();
        Error::Setting(format!(
            "a budget of {budget} bytes is too small for {steps} inner steps: the least is {} bytes",
            least.unwrap_or(0)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs {
        plain: 1000,
        keeping: 900,
        state: 64,
        kept: 192,
    };

    fn work(schedule: Schedule, steps: usize) -> (u64, usize) {
        let count = schedule.script(steps).expect("chosen").count();
        let fixed = if count.kept == 0 {
            COSTS.plain
        } else {
            COSTS.keeping
        };
        let bytes = fixed + count.states * COSTS.state + count.kept * COSTS.kept;
        (count.evaluations, bytes)
    }

    /// Every schedule that fits is no better than the one chosen; more memory never costs more work.
    #[test]
    fn the_choice_is_the_best_of_all_that_fit() {
        for steps in [1, 2, 3, 10, 29] {
            let mut all = vec![
                work(Schedule::StoreAll, steps),
                work(Schedule::PerStep, steps),
            ];
            for a in 1..=steps {
                all.push(work(Schedule::EveryK(a), steps));
                all.push(work(Schedule::Binomial(a), steps));
                all.extend((1..=steps).map(|q| work(Schedule::BinomialKept(a, q), steps)));
            }
            let least = all.iter().map(|(_, bytes)| *bytes).min().expect("some");
            let most = all[0].1.max(all[1].1);
            let refused = choose(COSTS, steps, least - 1).expect_err("too little");
            assert!(refused.to_string().contains(&format!("least is {least} ")));
            let mut before = u64::MAX;
            for budget in least..=most {
                let chosen = choose(COSTS, steps, budget).expect("it fits");
                let (evaluations, bytes) = work(chosen, steps);
                assert!(bytes <= budget, "{chosen} takes {bytes} of {budget}");
                let fitting = all.iter().filter(|(_, bytes)| *bytes <= budget);
                let best = fitting.map(|(work, _)| *work).min();
                assert_eq!(Some(evaluations), best, "{chosen} of {steps} in {budget}");
                assert!(evaluations <= before);
                before = evaluations;
            }
            assert_eq!(choose(COSTS, steps, most).ok(), Some(Schedule::StoreAll));
        }
    }

    #[test]
    fn ten_thousand_steps_are_chosen_for_at_once() {
        let chosen = choose(COSTS, 10_000, 1000 + 64 * 34).expect("it fits");
        assert!(matches!(
            chosen,
            Schedule::Binomial(_) | Schedule::BinomialKept(..)
        ));
    }
}
