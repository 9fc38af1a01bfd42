//! Which steps of a program must wait for which: those that touch the same memory, one of them writing.

use crate::bound::{Array, Bound};

/// What a step reads and writes, the scratch memory of the device included.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) reads: Vec<Array>,
    pub(super) writes: Vec<Array>,
}

impl Touched {
    pub(super) fn new(bound: &Bound, scratch: impl IntoIterator<Item = Array>) -> Self {
        Self {
            reads: bound.inputs.clone(),
            writes: bound.outputs.iter().copied().chain(scratch).collect(),
        }
    }

    fn clashes(&self, other: &Self) -> bool {
        let meet = |some: &[Array], others: &[Array]| {
            some.iter()
                .any(|array| others.iter().any(|other| array.overlaps(other)))
        };
        meet(&self.writes, &other.writes)
            || meet(&self.writes, &other.reads)
            || meet(&self.reads, &other.writes)
    }
}

/// For each step, the earlier steps that it waits for, without those that one of the others waits for anyway.
///
/// O(n²) comparisons of steps, most of which only look at one bit.
pub(super) fn dependencies(steps: &[Touched]) -> Vec<Vec<usize>> {
    let words = steps.len().div_ceil(64);
    // Bit j of row i: step j is done before step i begins.
    let mut before: Vec<Vec<u64>> = Vec::with_capacity(steps.len());
    let mut all = Vec::with_capacity(steps.len());
    for (i, step) in steps.iter().enumerate() {
        let mut done = vec![0_u64; words];
        let mut direct = Vec::new();
        for j in (0..i).rev() {
            if done[j / 64] >> (j % 64) & 1 == 0 && step.clashes(&steps[j]) {
                direct.push(j);
                done[j / 64] |= 1 << (j % 64);
                let own = done.iter_mut().zip(&before[j]);
                own.for_each(|(done, earlier)| *done |= earlier);
            }
        }
        before.push(done);
        all.push(direct);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(slot: usize, offset: usize) -> Array {
        Array {
            slot,
            offset,
            bytes: 8,
            alignment: 8,
        }
    }

    fn step(reads: &[Array], writes: &[Array]) -> Touched {
        Touched {
            reads: reads.to_vec(),
            writes: writes.to_vec(),
        }
    }

    #[test]
    fn steps_wait_for_what_they_read_and_for_whom_they_overwrite() {
        let [a, b, c, d] = [0, 8, 16, 24].map(|offset| array(0, offset));
        let steps = [
            step(&[a], &[b]),
            step(&[a], &[c]),
            // Reads both.
            step(&[b, c], &[d]),
            // Writes over what the first two read: they are done when the third is.
            step(&[d], &[a]),
            // Another slot.
            step(&[], &[array(1, 0)]),
            // Half of b, half of c.
            step(&[], &[array(0, 12)]),
        ];
        let expected: [&[usize]; 6] = [&[], &[], &[1, 0], &[2], &[], &[2]];
        assert_eq!(dependencies(&steps), expected);
    }
}
