//! The mean of several meta-gradients.

use autograd::Task;
use autograd::prelude::*;

/// The mean of the meta-gradients of learners of several structures, added one after another.
#[derive(Debug)]
pub(super) struct Mean {
    names: Vec<String>,
    /// Two tasks: the first gradient times its share; and the sum so far plus another gradient times its
    /// share.
    tasks: [Task<Key>; 2],
    share: Values,
    /// The sum so far, and room for the next.
    sums: [Values; 2],
    /// Gradients whose shares are not known yet.
    kept: Vec<Values>,
}

/// The arrays that these tasks read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Share,
    Gradient(usize),
    Before(usize),
    After(usize),
}

impl Mean {
    /// The mean of gradients with respect to these arrays.
    pub(super) fn new(device: &Device, learned: &[ArraySpec]) -> Result<Self> {
        let task = |more: bool| {
            let tape = Tape::new();
            let share = tape.input("share", F32, [])?;
            let (mut given, mut wanted) = (vec![(share, Key::Share)], Vec::new());
            for (i, spec) in learned.iter().enumerate() {
                let input =
                    |role| tape.input(&format!("{role} {i}"), spec.dtype, spec.shape.clone());
                let gradient = input("gradient")?;
                given.push((gradient, Key::Gradient(i)));
                let mut sum = (gradient * share)?;
                if more {
                    let before = input("before")?;
                    given.push((before, Key::Before(i)));
                    sum = (before + sum)?;
                }
                wanted.push((sum, Key::After(i)));
            }
            Task::new(device, &given, &wanted)
        };
        let share = [ArraySpec::new("share", F32, [])];
        Ok(Self {
            names: learned.iter().map(|spec| spec.name.clone()).collect(),
            tasks: [task(false)?, task(true)?],
            share: Values::zeros(device, &share)?,
            sums: [
                Values::zeros(device, learned)?,
                Values::zeros(device, learned)?,
            ],
            kept: Vec::new(),
        })
    }

    /// Adds a gradient times its share of the learners. The `first` one starts a new sum.
    pub(super) fn add(&mut self, gradients: &Values, share: f64, first: bool) -> Result<()> {
        let [before, after] = &self.sums;
        self.run(gradients, share, (!first).then_some(before), after)?;
        self.sums.swap(0, 1);
        Ok(())
    }

    /// Keeps a gradient by its number in a lot, until its share is known.
    pub(super) fn keep(&mut self, number: usize, gradients: &Values) -> Result<()> {
        if number == self.kept.len() {
            let specs: Vec<ArraySpec> = self.sums[0].specs().cloned().collect();
            self.kept.push(Values::zeros(gradients.device(), &specs)?);
        }
        self.run(gradients, 1.0, None, &self.kept[number])
    }

    /// Sums the gradients that were kept, times their shares.
    pub(super) fn add_kept(&mut self, shares: &[f64]) -> Result<()> {
        let kept = std::mem::take(&mut self.kept);
        for (i, (gradients, &share)) in kept.iter().zip(shares).enumerate() {
            self.add(gradients, share, i == 0)?;
        }
        self.kept = kept;
        Ok(())
    }

    /// Writes a gradient times its share, plus what was `before`, to `after`.
    fn run(
        &self,
        gradients: &Values,
        share: f64,
        before: Option<&Values>,
        after: &Values,
    ) -> Result<()> {
        self.share.write("share", &Array::scalar(share, F32))?;
        let names = &self.names;
        self.tasks[usize::from(before.is_some())].run(|key| match key {
            Key::Share => self.share.view("share"),
            Key::Gradient(i) => gradients.view(&names[i]),
            Key::Before(i) => before.expect("only a sum has it").view(&names[i]),
            Key::After(i) => after.view(&names[i]),
        })
    }

    /// The mean, when all were added.
    pub(super) fn gradients(&self) -> &Values {
        &self.sums[0]
    }

    /// All numbers of the mean, array after array.
    pub(super) fn numbers(&self) -> Result<Vec<f32>> {
        let mut numbers = Vec::new();
        for name in &self.names {
            let array = self.sums[0].get(name)?;
            numbers.extend(array.as_f32().expect("what is learned is f32"));
        }
        Ok(numbers)
    }

    /// Replaces all numbers of the mean.
    pub(super) fn set_numbers(&self, mut numbers: &[f32]) -> Result<()> {
        for spec in self.sums[0].specs() {
            let (own, others) = numbers.split_at(spec.shape.count());
            let array = Array::new(spec.shape.clone(), own.to_vec())?;
            self.sums[0].write(&spec.name, &array)?;
            numbers = others;
        }
        Ok(())
    }
}
