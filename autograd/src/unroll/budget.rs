//! The schedule with the least work within a number of bytes, or with a balance of both.
//!
//! Two families hold a best one for every amount of memory: binomial schedules, which for their number of
//! snapshots are optimal, and binomial schedules over stretches that are reversed with their activations
//! kept. Per-step and store-all are their ends.

use super::binomial;
use super::schedule::Schedule;

/// What things take: bytes, and floating-point operations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    /// Without activations kept, and with them.
    pub(super) plain: Cost,
    pub(super) keeping: Cost,
    /// The bytes of a record of state, and of one of activations.
    pub(super) state: usize,
    pub(super) kept: usize,
}

/// What a way to reverse a step takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Everything but states and activations.
    pub(super) bytes: usize,
    /// Work of a step advanced, and of one reversed: with the advance that keeps activations for it, if they are
    /// kept.
    pub(super) advance: u64,
    pub(super) reverse: u64,
    /// Work of all outer losses.
    pub(super) outer: u64,
}

/// A schedule with what it takes: work, then bytes.
pub(super) type Candidate = (u64, usize, Schedule);

impl Costs {
    fn cost(&self, kept: usize) -> &Cost {
        if kept == 0 {
            &self.plain
        } else {
            &self.keeping
        }
    }

    /// The bytes of a binomial schedule with `c` snapshots.
    fn bytes(&self, steps: usize, c: usize, kept: usize) -> usize {
        let states = binomial::states(steps, c, kept);
        let snapshots = states.saturating_mul(self.state);
        let fixed = self.cost(kept).bytes;
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
        Some(self.candidate(steps, c, kept))
    }

    /// What so many snapshots take, with stretches of `kept` steps.
    fn candidate(&self, steps: usize, c: usize, kept: usize) -> Candidate {
        let schedule = match kept {
            0 if c + 1 >= steps => Schedule::PerStep,
            0 => Schedule::Binomial(c),
            _ if kept == steps => Schedule::StoreAll,
            _ => Schedule::BinomialKept(c, kept),
        };
        let (cost, reversals) = (self.cost(kept), steps as u64);
        let advances = binomial::evaluations(steps, c, kept) - reversals;
        let work = advances * cost.advance + reversals * cost.reverse + cost.outer;
        (work, self.bytes(steps, c, kept), schedule)
    }

    /// The schedule for which work² times bytes is least: half the memory is worth 1.4 times the work. Of long
    /// trainings not all numbers of snapshots and lengths of stretches are tried, but some in every octave.
    pub(super) fn balance(&self, steps: usize) -> Candidate {
        let snapshots = |kept: usize| {
            let most = steps.div_ceil(kept.max(1)).max(2) - 1;
            spread(most).map(move |c| (c, kept))
        };
        let all = std::iter::once(0).chain(spread(steps)).flat_map(snapshots);
        let all = all.map(|(c, kept)| self.candidate(steps, c, kept));
        all.min_by(|a, b| price(a).total_cmp(&price(b)))
            .expect("one step at least")
    }

    /// The schedule for `steps` inner steps that fits into `budget` bytes with the least work; of two alike,
    /// that with fewer bytes.
    pub(super) fn choose(&self, steps: usize, budget: usize) -> Option<Candidate> {
        let fitting = (0..=steps).filter_map(|kept| self.best(steps, kept, budget));
        fitting.min_by_key(|&(work, bytes, _)| (work, bytes))
    }

    /// The least budget that would do.
    pub(super) fn least(&self, steps: usize) -> usize {
        let least = (0..=steps).map(|kept| self.bytes(steps, 1, kept)).min();
        least.unwrap_or(0)
    }
}

/// What [`Costs::balance`] makes least.
fn price(&(work, bytes, _): &Candidate) -> f64 {
    (work as f64).powi(2) * bytes as f64
}

/// Numbers from 1 to `most`: all to 32, then sixteen in every octave, and the last.
fn spread(most: usize) -> impl Iterator<Item = usize> {
    let step = |at: usize| (at.next_power_of_two() / 32).max(1);
    std::iter::successors(Some(1), move |&at| {
        (at < most).then(|| most.min(at + step(at)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs {
        plain: Cost {
            bytes: 1000,
            advance: 3,
            reverse: 9,
            outer: 3,
        },
        keeping: Cost {
            bytes: 900,
            advance: 3,
            reverse: 9,
            outer: 3,
        },
        state: 64,
        kept: 192,
    };

    fn work(schedule: Schedule, steps: usize) -> (u64, usize) {
        let count = schedule.script(steps).expect("chosen").count();
        let bytes =
            COSTS.cost(count.kept).bytes + count.states * COSTS.state + count.kept * COSTS.kept;
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
            assert_eq!(COSTS.choose(steps, least - 1), None);
            assert_eq!(COSTS.least(steps), least);
            let mut before = u64::MAX;
            for budget in least..=most {
                let (flops, told, chosen) = COSTS.choose(steps, budget).expect("it fits");
                let (evaluations, bytes) = work(chosen, steps);
                assert_eq!(flops, 3 * evaluations + 6 * steps as u64 + 3, "3 F and 6 F");
                assert!(bytes <= budget && bytes == told, "{chosen} takes {bytes}");
                let fitting = all.iter().filter(|(_, bytes)| *bytes <= budget);
                let best = fitting.map(|(work, _)| *work).min();
                assert_eq!(Some(evaluations), best, "{chosen} of {steps} in {budget}");
                assert!(evaluations <= before);
                before = evaluations;
            }
            let roomy = COSTS.choose(steps, most).map(|(_, _, schedule)| schedule);
            assert_eq!(roomy, Some(Schedule::StoreAll));
        }
    }

    #[test]
    fn ten_thousand_steps_are_chosen_for_at_once() {
        let (_, _, chosen) = COSTS.choose(10_000, 1000 + 64 * 34).expect("it fits");
        assert!(matches!(
            chosen,
            Schedule::Binomial(_) | Schedule::BinomialKept(..)
        ));
    }

    /// No schedule of the two families is better where all are tried.
    #[test]
    fn the_balance_has_the_least_price() {
        for steps in [1, 2, 7, 32] {
            let chosen = COSTS.balance(steps);
            for kept in 0..=steps {
                for c in 1..=steps {
                    let other = COSTS.candidate(steps, c, kept);
                    assert!(price(&chosen) <= price(&other), "{chosen:?} {other:?}");
                }
            }
        }
        assert_eq!(spread(5).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(spread(10_000).last(), Some(10_000));
        assert!(spread(10_000).count() < 200);
    }
}
