//! The schedule with the least work within a number of bytes, or with a balance of work and bytes.
//!
//! Two families hold a best one for every amount of memory: binomial schedules, which for their number of
//! snapshots are optimal, and binomial schedules over stretches that are reversed with their activations
//! kept. Per-step and store-all are their ends. Both are there once more with preludes kept.

use super::schedule::Schedule;
use super::script::Count;

/// Schedules that are run by the same plans, and what they take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// Whether activations are kept, and whether what preludes make is.
    pub(super) keep: bool,
    pub(super) prelude: bool,
    pub(super) cost: Cost,
}

/// What things take: bytes, and work in floating-point operations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Bytes of everything but what is kept between the sweeps.
    pub(super) bytes: usize,
    /// Bytes of a record of state.
    pub(super) state: usize,
    /// Bytes of a record of activations.
    pub(super) kept: usize,
    /// Bytes of a record of results of a prelude.
    pub(super) prelude: usize,
    /// Work of advancing a step.
    pub(super) advance: u64,
    /// Work of advancing a step and keeping the results of its prelude.
    pub(super) keeping: u64,
    /// Work of advancing a step that is given the results of its prelude.
    pub(super) given: u64,
    /// Work of reversing a step. If activations are kept, it includes the advance that keeps them.
    pub(super) reverse: u64,
    /// Work of all outer losses.
    pub(super) outer: u64,
}

impl Cost {
    /// The bytes of what a script keeps.
    pub(super) fn between_sweeps(&self, count: &Count) -> usize {
        [
            (count.states, self.state),
            (count.kept, self.kept),
            (count.preludes, self.prelude),
        ]
        .iter()
        .map(|(records, bytes)| records.saturating_mul(*bytes))
        .fold(0, usize::saturating_add)
    }

    /// The work of a script that undoes nothing.
    pub(super) fn work(&self, count: &Count) -> u64 {
        let keeping = if count.kept > 0 { count.reversals } else { 0 };
        let preludes = count.preludes as u64;
        // For long trainings, some schedules take more work than a `u64` holds.
        [
            (
                count.advances - keeping - preludes - count.given,
                self.advance,
            ),
            (preludes, self.keeping),
            (count.given, self.given),
            (count.reversals, self.reverse),
            (1, self.outer),
        ]
        .iter()
        .map(|(runs, work)| runs.saturating_mul(*work))
        .fold(0, u64::saturating_add)
    }
}

/// A schedule with what it takes: work, then bytes.
pub(super) type Candidate = (u64, usize, Schedule);

impl Family {
    /// The lengths of stretches that it has: 0 if no activations are kept.
    fn stretches(&self, steps: usize) -> impl Iterator<Item = usize> + use<> {
        if self.keep { 1..=steps } else { 0..=0 }
    }

    /// What storing everything takes, where activations are kept.
    pub(super) fn store_all(&self, steps: usize) -> Candidate {
        self.candidate(steps, 1, steps)
    }

    /// What `c` snapshots take, with stretches of `kept` steps.
    fn candidate(&self, steps: usize, c: usize, kept: usize) -> Candidate {
        let schedule = match kept {
            0 if c + 1 >= steps => Schedule::per_step(),
            0 => Schedule::binomial(c),
            _ if kept == steps => Schedule::store_all(),
            _ => Schedule::binomial(c).with_activations(kept),
        };
        let schedule = if self.prelude {
            schedule.with_prelude()
        } else {
            schedule
        };
        let count = schedule.script(steps, steps).count();
        let bytes = self.cost.between_sweeps(&count);
        let bytes = self.cost.bytes.saturating_add(bytes);
        (self.cost.work(&count), bytes, schedule)
    }

    /// The best with stretches of `kept` steps that fits: that with the most snapshots, for each of them spares
    /// work.
    fn best(&self, steps: usize, kept: usize, budget: usize) -> Option<Candidate> {
        let spare = budget.checked_sub(self.cost.bytes)?;
        let most = most_snapshots(steps, kept).min(spare / self.cost.state.max(1));
        let mut all = (1..=most).rev().map(|c| self.candidate(steps, c, kept));
        all.find(|&(_, bytes, _)| bytes <= budget)
    }
}

/// More snapshots than stretches are of no use.
fn most_snapshots(steps: usize, kept: usize) -> usize {
    steps.div_ceil(kept.max(1)).max(2) - 1
}

/// The schedule with the least work among those whose price, work² times bytes, is at most 3 % above the
/// least. So half the memory is worth 1.4 times the work. Of schedules that are nearly as good the quicker
/// is taken, because FLOPs are not all work. For long trainings, not every number of snapshots and length
/// of stretches is tried, but some in every octave.
pub(super) fn balance(families: &[Family], steps: usize) -> Candidate {
    let of_length = |family: &Family, kept: usize| {
        let family = *family;
        let snapshots = spread(most_snapshots(steps, kept));
        snapshots.map(move |c| family.candidate(steps, c, kept))
    };
    let all = || {
        families.iter().flat_map(move |family| {
            let lengths = spread(steps).filter(|_| family.keep);
            let lengths = lengths.chain((!family.keep).then_some(0));
            lengths.flat_map(move |kept| of_length(family, kept))
        })
    };
    let least = all().map(|one| price(&one)).fold(f64::INFINITY, f64::min);
    let nearly = all().filter(|one| price(one) <= NEARLY * least);
    nearly
        .min_by_key(|&(work, bytes, _)| (work, bytes))
        .expect("one step at least")
}

/// The schedule for `steps` inner steps that fits into `budget` bytes with the least work; of two alike, that with
/// fewer bytes.
pub(super) fn choose(families: &[Family], steps: usize, budget: usize) -> Option<Candidate> {
    let fitting = families.iter().flat_map(|family| {
        let lengths = family.stretches(steps);
        lengths.filter_map(move |kept| family.best(steps, kept, budget))
    });
    fitting.min_by_key(|&(work, bytes, _)| (work, bytes))
}

/// The least budget that would do.
pub(super) fn least(families: &[Family], steps: usize) -> usize {
    let least = families.iter().flat_map(|family| {
        let lengths = family.stretches(steps);
        lengths.map(move |kept| family.candidate(steps, 1, kept).1)
    });
    least.min().unwrap_or(0)
}

/// A little more than the least bytes: those of schedules that are nearly the leanest.
pub(super) fn nearly(least: usize) -> usize {
    (NEARLY * least as f64) as usize
}

/// A factor: up to this many times the least price, or the least bytes, is nearly as good.
const NEARLY: f64 = 1.03;

/// The price by which [`balance`] chooses.
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
    use super::super::script::Snapshots;
    use super::*;

    /// A learner of 3 F a step with a prelude of 4, which is most of a step that is advanced.
    const COST: Cost = Cost {
        bytes: 1000,
        state: 64,
        kept: 192,
        prelude: 16,
        advance: 7,
        keeping: 7,
        given: 3,
        reverse: 13,
        outer: 3,
    };

    fn families(prelude: usize) -> Vec<Family> {
        let all = [(false, false), (true, false), (false, true), (true, true)];
        let family = |(keep, with)| {
            let bytes = if keep { 900 } else { COST.bytes };
            let cost = Cost {
                bytes: bytes + usize::from(with),
                prelude,
                ..COST
            };
            Family {
                keep,
                prelude: with,
                cost,
            }
        };
        all.map(family).into()
    }

    /// What any schedule takes.
    fn taken(families: &[Family], schedule: Schedule, steps: usize) -> (u64, usize) {
        let script = schedule.script(steps, steps);
        let (keep, count) = (script.kept > 0, script.count());
        let of = |family: &&Family| (family.keep, family.prelude) == (keep, script.prelude);
        let cost = families.iter().find(of).expect("all are there").cost;
        let advances = count.evaluations - if keep { 0 } else { steps as u64 };
        let alone = advances - if keep { steps as u64 } else { 0 };
        let work = 7 * alone - 4 * count.given + 13 * steps as u64 + 3;
        let records = count.states * 64 + count.kept * 192 + count.preludes * cost.prelude;
        (work, cost.bytes + records)
    }

    /// Every schedule that fits is no better than the one chosen; more memory never costs more work.
    #[test]
    fn the_choice_is_the_best_of_all_that_fit() {
        for (prelude, steps) in [
            (16, 1),
            (16, 2),
            (16, 3),
            (16, 10),
            (16, 29),
            (1, 29),
            (80, 23),
        ] {
            let families = families(prelude);
            let mut schedules = vec![Schedule::store_all(), Schedule::per_step()];
            for a in 1..=steps {
                schedules.extend([Schedule::every(a), Schedule::binomial(a)]);
                let of_length = |q| Schedule::binomial(a).with_activations(q);
                schedules.extend((1..=steps).map(of_length));
            }
            let with: Vec<Schedule> = schedules.iter().map(|s| s.with_prelude()).collect();
            schedules.extend(with);
            let all: Vec<(u64, usize)> = schedules
                .iter()
                .map(|&schedule| taken(&families, schedule, steps))
                .collect();
            let least_bytes = all.iter().map(|(_, bytes)| *bytes).min().expect("some");
            let most = all[0].1.max(all[1].1);
            assert_eq!(choose(&families, steps, least_bytes - 1), None);
            assert_eq!(least(&families, steps), least_bytes);
            let mut before = u64::MAX;
            let mut kept = 0;
            for budget in least_bytes..=most {
                let (work, bytes, chosen) = choose(&families, steps, budget).expect("it fits");
                assert_eq!(taken(&families, chosen, steps), (work, bytes), "{chosen}");
                assert!(bytes <= budget, "{chosen} takes {bytes}");
                let fitting = all.iter().filter(|(_, bytes)| *bytes <= budget);
                let best = fitting.map(|(work, _)| *work).min();
                assert_eq!(Some(work), best, "{chosen} of {steps} in {budget}");
                assert!(work <= before);
                before = work;
                kept += usize::from(chosen.prelude);
            }
            assert_eq!(kept > 0, steps > 2 && prelude < 64, "{prelude} {steps}");
            let roomy = choose(&families, steps, most).map(|(_, _, schedule)| schedule);
            assert_eq!(roomy, Some(Schedule::store_all()));
        }
    }

    #[test]
    fn ten_thousand_steps_are_chosen_for_at_once() {
        let (_, _, chosen) = choose(&families(16), 10_000, 1000 + 64 * 34).expect("it fits");
        assert!(matches!(chosen.snapshots, Snapshots::Binomial(_)));
        let mut families = families(16);
        let keeping = families.iter_mut().filter(|family| family.keep);
        keeping.for_each(|family| family.cost.kept = 64_000);
        let (_, _, chosen) = choose(&families, 10_000, 1000 + 32 * 10_000).expect("it fits");
        assert!(chosen.prelude, "{chosen}");
    }

    /// Where all are tried, no schedule of the families is much better, nor is one that is as good less work.
    #[test]
    fn the_balance_has_nearly_the_least_price() {
        for steps in [1, 2, 7, 32] {
            let families = families(16);
            let chosen = balance(&families, steps);
            let mut all = Vec::new();
            for family in &families {
                for kept in family.stretches(steps) {
                    all.extend((1..=steps).map(|c| family.candidate(steps, c, kept)));
                }
            }
            let least = all.iter().map(price).fold(f64::INFINITY, f64::min);
            assert!(price(&chosen) <= NEARLY * least, "{chosen:?}");
            for other in all {
                assert!(
                    other.0 >= chosen.0 || price(&other) > NEARLY * least,
                    "{other:?}"
                );
            }
        }
        assert_eq!(spread(5).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(spread(10_000).last(), Some(10_000));
        assert!(spread(10_000).count() < 200);
    }
}
