use super::*;
use std::collections::BTreeSet;

/// Walks a script with preludes kept and without: nothing else is different.
fn checked(script: Script) -> Count {
    let count = walked(script);
    let with = walked(Script {
        prelude: true,
        ..script
    });
    let without = Count {
        given: 0,
        preludes: 0,
        ..with
    };
    assert_eq!(without, count, "{script:?}");
    count
}

/// Walks a script, tracking which state, which activations and which prelude every record holds.
fn walked(script: Script) -> Count {
    let mut count = Count::default();
    let expected = script.count();
    let mut held = vec![usize::MAX; expected.states];
    let mut kept_steps = vec![usize::MAX; expected.kept];
    let mut prelude_steps = vec![usize::MAX; expected.preludes];
    held[0] = 0;
    let mut away = vec![usize::MAX; expected.away];
    let mut announced = None;
    let (mut swept, mut reversed, mut cotangent) = (0, script.steps, None);
    let mut outer_losses = 0;
    let mut used = BTreeSet::new();
    let done: Result<(), Infallible> = script.walk(
        |_| true,
        |action| {
            match action {
                Action::Advance {
                    step,
                    from,
                    to,
                    how,
                } => {
                    assert_eq!(held[from], step, "{script:?}");
                    assert!(from != to && step <= swept && step < reversed);
                    held[to] = step + 1;
                    count.advances += 1;
                    count.evaluations += 1;
                    count.states = count.states.max(1 + from.max(to));
                    let first = step == swept;
                    swept = swept.max(step + 1);
                    match how {
                        Advance::Plain => assert!(first || !script.prelude, "{script:?}"),
                        Advance::Keep(record) => {
                            kept_steps[record] = step;
                            count.kept = count.kept.max(record + 1);
                        }
                        Advance::KeepPrelude(record) => {
                            assert!(first && script.prelude);
                            assert_eq!(prelude_steps[record], usize::MAX, "{script:?}");
                            prelude_steps[record] = step;
                            count.preludes += 1;
                        }
                        Advance::GivenPrelude(record) => {
                            assert_eq!(prelude_steps[record], step, "{script:?}");
                            used.insert(step);
                            count.given += 1;
                        }
                    }
                }
                Action::Outer { step, state } => {
                    assert_eq!(held[state], step, "{script:?}");
                    let lead_in = step <= script.begin && swept == step;
                    assert!(lead_in || reversed == step, "{script:?}");
                    assert_ne!(cotangent.replace(step), Some(step), "once only");
                    outer_losses += 1;
                }
                Action::Reverse {
                    step,
                    from,
                    to,
                    kept,
                } => {
                    assert_eq!(swept, script.steps, "the sweep is over");
                    assert_eq!(cotangent, Some(step + 1), "its outer loss is in");
                    assert_eq!((held[from], held[to]), (step, step + 1), "{script:?}");
                    assert!(kept.is_none_or(|record| kept_steps[record] == step));
                    assert_eq!(step + 1, reversed);
                    reversed -= 1;
                    count.reversals += 1;
                    count.evaluations += u64::from(kept.is_none());
                }
                Action::PutAway { place, state } => {
                    away[place] = held[state];
                    count.away = count.away.max(place + 1);
                }
                Action::Announce { place } => announced = Some(place),
                Action::Fetch { place, state } => {
                    assert_eq!(announced.take(), Some(place), "{script:?}");
                    held[state] = away[place];
                    count.states = count.states.max(1 + state);
                }
                Action::Undo {
                    step,
                    from,
                    to,
                    kept,
                } => {
                    assert_eq!(cotangent, Some(step + 1), "its outer loss is in");
                    assert_eq!((held[from], step + 1), (step + 1, reversed));
                    assert_eq!(kept_steps[kept], step);
                    assert_ne!(from, to);
                    held[to] = step;
                    reversed -= 1;
                    count.reversals += 1;
                    count.evaluations += 1;
                }
                Action::Restart { state } => held[state] = 0,
            }
            Ok(())
        },
    );
    assert!(done.is_ok());
    assert_eq!(reversed, script.begin);
    assert_eq!(outer_losses, script.steps);
    assert_eq!(used.len(), count.preludes, "none is kept for nothing");
    let spare = expected.states - count.states;
    assert!(spare <= 1, "{script:?} {count:?}");
    count.states = expected.states;
    assert_eq!(count, expected, "{script:?}");
    count
}

fn script(steps: usize, begin: usize, snapshots: Snapshots, kept: usize) -> Script {
    Script {
        steps,
        begin,
        snapshots,
        kept,
        prelude: false,
        away: 0,
    }
}

#[test]
fn every_record_holds_what_is_read() {
    for steps in 1..=40 {
        for k in 1..=steps + 1 {
            let count = checked(script(steps, 0, Snapshots::Every(k), 0));
            let again = count.advances - steps as u64;
            assert!(again <= (steps - steps.div_ceil(k)) as u64, "{steps} {k}");
        }
        checked(script(steps, 0, Snapshots::Never { hundredths: 100 }, 0));
        for begin in 0..steps {
            let count = checked(script(steps, begin, Snapshots::Every(1), 0));
            assert_eq!(count.advances, steps as u64);
            assert!(count.states <= steps - begin + 2);
        }
    }
}

#[test]
fn memory_is_bounded_by_snapshots_and_the_stretch() {
    for steps in 1..=40 {
        for c in 1..=steps {
            for kept in 0..=steps {
                let count = checked(script(steps, 0, Snapshots::Binomial(c), kept));
                let beside = if kept == 0 { 3 } else { 1 + kept };
                assert!(count.states <= c + beside && count.kept == kept);
            }
        }
    }
}

/// Stretches longer than the way from one snapshot to the next, and shorter ones.
#[test]
fn stretches_need_not_fit_between_snapshots() {
    for steps in 1..=24 {
        for k in 1..=steps + 1 {
            for kept in 1..=steps {
                let count = checked(script(steps, 0, Snapshots::Every(k), kept));
                assert!(count.kept <= kept && count.evaluations == count.advances);
                checked(script(steps, steps / 3, Snapshots::Every(k), kept));
            }
        }
    }
}

#[test]
fn snapshots_that_lie_away_come_back_in_time() {
    for steps in 1..=30 {
        for away in 1..=steps + 1 {
            for (snapshots, kept) in [
                (Snapshots::Every(1), 0),
                (Snapshots::Every(4), 0),
                (Snapshots::Binomial(5.min(steps)), 0),
                (Snapshots::Binomial(steps), 0),
                (Snapshots::Binomial(6.min(steps)), 3.min(steps)),
            ] {
                let near = script(steps, 0, snapshots, kept);
                let count = checked(Script { away, ..near });
                let all = near.count();
                assert_eq!(count.evaluations, all.evaluations);
                let saved = count.away.saturating_sub(2);
                assert!(
                    count.states + saved <= all.states,
                    "{steps} {away} {count:?}"
                );
            }
        }
    }
    let streamed = script(1000, 0, Snapshots::Every(1), 0);
    let count = checked(Script {
        away: 1000,
        ..streamed
    });
    assert_eq!((count.states, count.away), (2, 999));
}
