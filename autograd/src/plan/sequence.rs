//! A sequence of launches with insertion at any place (order maintenance, Dietz and Sleator 1987). Each
//! launch has a number. The numbers grow along the sequence, with gaps for what is inserted.

use std::collections::BTreeMap;

/// The gap between launches that are put at the end.
const GAP: u64 = 1 << 32;

#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// For each launch its number.
    numbers: Vec<u64>,
    /// The launches by their numbers.
    launches: BTreeMap<u64, usize>,
}

impl Sequence {
    /// Appends the next launch: 0, then 1, and so on.
    pub(super) fn push(&mut self) {
        let end = self.launches.last_key_value();
        let number = end.map_or(0, |(last, _)| last + GAP);
        self.launches.insert(number, self.numbers.len());
        self.numbers.push(number);
    }

    /// Where a launch is, to be compared.
    pub(super) fn place(&self, launch: usize) -> u64 {
        self.numbers[launch]
    }

    /// Moves the launches `moved`, in the order of the sequence, to right before `next`.
    pub(super) fn move_before(&mut self, next: usize, moved: &[usize]) {
        for &launch in moved {
            self.remove(launch);
        }
        let parts = moved.len() as u64 + 1;
        let (mut before, mut step) = self.gap(next, parts);
        if step == 0 {
            self.spread();
            (before, step) = self.gap(next, parts);
        }
        for (&launch, part) in moved.iter().zip(1..) {
            self.numbers[launch] = before + part * step;
            self.launches.insert(self.numbers[launch], launch);
        }
    }

    /// Swaps the places of two launches.
    pub(super) fn swap(&mut self, a: usize, b: usize) {
        self.numbers.swap(a, b);
        for launch in [a, b] {
            self.launches.insert(self.numbers[launch], launch);
        }
    }

    pub(super) fn remove(&mut self, launch: usize) {
        self.launches.remove(&self.numbers[launch]);
    }

    /// The number of the launch before `next`, and the step that divides the gap between the two into
    /// `parts`; 0 if the gap is too small.
    fn gap(&self, next: usize, parts: u64) -> (u64, u64) {
        let number = self.numbers[next];
        let before = self.launches.range(..number).next_back();
        let before = before.map_or(0, |(&before, _)| before);
        (before, (number - before) / parts)
    }

    /// Numbers all launches anew, with even gaps.
    fn spread(&mut self) {
        let launches = std::mem::take(&mut self.launches);
        self.launches = (1..).map(|i| i * GAP).zip(launches.into_values()).collect();
        for (&number, &launch) in &self.launches {
            self.numbers[launch] = number;
        }
    }

    /// All launches in their order.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> {
        self.launches.values().copied()
    }
}
