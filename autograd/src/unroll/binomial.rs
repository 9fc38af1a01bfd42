//! The binomial schedule (Revolve; Griewank and Walther 2000, ACM Algorithm 799), over stretches of q steps
//! in place of single ones.
//!
//! With c snapshots, each step advanced at most r times before its stretch is reversed, q·β(c, r) steps can
//! be reversed, β(c, r) = (c + r choose c); no choice of snapshots reaches further.

/// q·β(c, r − 1), q·β(c − 1, r − 1) and r, the least r with q·β(c, r) ≥ `length`, for `length` > q.
fn reach(length: usize, c: usize, q: usize) -> (u128, u128, u128) {
    let (length, c) = (length as u128, c as u128);
    // (q·β(c, r − 1), q·β(c − 1, r − 1)) at r = 1.
    let (mut before, mut narrower, mut r) = (q as u128, q as u128, 1);
    while before * (c + r) / r < length {
        (before, narrower) = (before * (c + r) / r, narrower * (c - 1 + r) / r);
        r += 1;
    }
    (before, narrower, r)
}

/// How far ahead of a snapshot the next is taken, with `c` of them for `length` steps, this one among them.
/// Both sides then can be reversed in the r and r − 1 repetitions that `length` needs.
pub(super) fn ahead(length: usize, c: usize, q: usize) -> usize {
    if c == 1 {
        return length - q;
    }
    let (before, narrower, _) = reach(length, c, q);
    let ahead = before.min(length as u128 - narrower);
    usize::try_from(ahead).expect("less than the length")
}

/// The evaluations of an inner step that reversing `steps` of them takes: advances, and steps that are
/// computed again as they are reversed (all, if `kept` is 0).
///
/// Before the stretches are reversed, r·T − q·β(c + 1, r − 1) steps are advanced: the optimum. To this come
/// one evaluation per step as its stretch is reversed, and, where no activations are kept, one more of the
/// last step: its result is what the last outer loss looks at.
pub(super) fn evaluations(steps: usize, c: usize, kept: usize) -> u64 {
    let q = kept.max(1);
    let stretches = steps as u64 + u64::from(kept == 0);
    if steps <= q {
        return stretches;
    }
    let (before, _, r) = reach(steps, c, q);
    // β(c + 1, r − 1) = β(c, r − 1)·(c + r)/(c + 1)
    let saved = before * (c as u128 + r) / (c as u128 + 1);
    let advances = r * steps as u128 - saved;
    stretches + u64::try_from(advances).expect("fewer than could ever be run")
}

/// Records of state that it takes: the snapshots, and beside them the way to the last stretch and the
/// states in it. Without activations kept (`kept` is 0), the state after the step to be reversed is held as
/// well, while the state before it is reached again in more than one step; that happens mostly from the
/// third repetition on.
pub(super) fn states(steps: usize, c: usize, kept: usize) -> usize {
    let q = kept.max(1);
    if steps <= q {
        return steps + 1;
    }
    let held = usize::from(kept == 0 && reach(steps, c, q).2 > 2);
    c.min(steps.div_ceil(q) - 1) + 1 + q + held
}

/// How many steps are advanced again before their stretch is reversed, if one sweep is not enough: all but
/// the last stretch, and the stretch right before each snapshot of the first sweep.
pub(super) fn repeated(steps: usize, c: usize, kept: usize) -> usize {
    steps.saturating_sub(kept.max(1).saturating_mul(c + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least number of advances, by trying every place for the next snapshot.
    fn optimum(longest: usize, most: usize, q: usize) -> Vec<Vec<u64>> {
        let mut table = vec![vec![0; longest + 1]; most + 1];
        for c in 1..=most {
            for length in q + 1..=longest {
                let at = |ahead: usize| {
                    let rest = if c > 1 {
                        table[c - 1][length - ahead]
                    } else if length - ahead <= q {
                        0
                    } else {
                        return u64::MAX;
                    };
                    (ahead as u64 + table[c][ahead]).saturating_add(rest)
                };
                table[c][length] = (1..length).map(at).min().expect("a place");
            }
        }
        table
    }

    #[test]
    fn the_work_is_the_least_possible() {
        for q in [1, 2, 3, 7] {
            let table = optimum(90, 12, q);
            for (c, advances) in table.iter().enumerate().skip(1) {
                for (steps, advances) in advances.iter().enumerate().skip(1) {
                    let least = advances + steps as u64;
                    assert_eq!(evaluations(steps, c, q), least, "{steps} {c} {q}");
                }
            }
        }
    }

    /// Step evaluations per step as published: 128 steps with 4, 8 and 16 snapshots, and longer ones.
    #[test]
    fn known_values() {
        let rows = [(128, 4, 4.03), (128, 8, 2.57), (128, 16, 1.86)];
        let more = [(1000, 8, 4.29), (1000, 100, 1.90), (10_000, 32, 3.29)];
        for (steps, c, known) in rows.into_iter().chain(more) {
            let advances = evaluations(steps, c, 0) - steps as u64 - 1;
            assert!((advances as f64 / steps as f64 - known).abs() < 0.0051);
        }
        assert!(evaluations(usize::MAX >> 20, 1 << 30, 0) > 0, "no overflow");
    }
}
