//! Evaluation: fresh learners trained on what the generator makes, and beside them on real images.

use crate::data::{Dataset, Problem, Split};
use crate::eval::training_data::TrainingData;
use crate::nn::layers::count_correct;
use crate::nn::{Learner, Statistics, init};
use crate::outer::rule::Rule;
use crate::outer::training::{DROPPED, Sizes, by_images};
use crate::run::config::Config;
use crate::seeds::{Draw, dropout_keys, rng};
use autograd::prelude::*;
use autograd::{State, Task};
use kernels::View;

/// Batch size of the plan that counts.
const BATCH: usize = 500;

/// Labelled images on the device, for counting.
#[derive(Debug)]
pub struct TestSet {
    /// In batches: images `x` and `labels`; and for the last learner how many were right, `correct`, for how
    /// many it gave NaN, `broken`, and the sum of its cross-entropies divided by [`BATCH`], `loss`.
    batches: Values,
    count: usize,
}

impl TestSet {
    /// `count` images of a split (all, if it has fewer), spread evenly over it, because a split may be sorted
    /// by class.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(device: &Device, data: &Dataset, split: &Split, count: usize) -> Result<Self> {
        let spread = split.spread(count);
        let count = spread.len();
        let n = count.div_ceil(BATCH);
        let [h, w, c] = data.problem().image;
        let batches = Values::zeros(
            device,
            &[
                ArraySpec::new("x", F32, [n, BATCH, h, w, c]),
                ArraySpec::new("labels", I32, [n, BATCH]),
                ArraySpec::new("correct", F32, [n]),
                ArraySpec::new("broken", F32, [n]),
                ArraySpec::new("loss", F32, [n]),
            ],
        )?;
        for (batch, first) in (0..count).step_by(BATCH).enumerate() {
            let chosen = &spread[first..count.min(first + BATCH)];
            let mut images = data.normalised(split, chosen);
            images.resize(BATCH * h * w * c, 0.0);
            let mut labels: Vec<i32> = chosen.iter().map(|&i| i32::from(split.labels[i])).collect();
            // Padding has no class and is never counted.
            labels.resize(BATCH, -1);
            batches.set_row("x", batch, &Array::new([BATCH, h, w, c], images)?)?;
            batches.set_row("labels", batch, &Array::new([BATCH], labels)?)?;
        }
        Ok(Self { batches, count })
    }
}

/// The arrays that the plan reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Weight(usize),
    Buffer(usize),
    Images,
    Labels,
    Correct,
    Broken,
    Loss,
}

/// Counts how many images learners of one structure classify correctly, and sums their losses.
#[derive(Debug)]
pub(crate) struct Evaluator(Task<Key>);

impl Evaluator {
    pub(crate) fn new(device: &Device, problem: Problem, learner: &Learner) -> Result<Self> {
        let tape = Tape::new();
        let mut given = Vec::new();
        let mut inputs = |params: &[_], key: fn(usize) -> Key| -> Result<Vec<_>> {
            let mut vars = Vec::new();
            for param in params {
                let param: &crate::nn::ParamSpec = param;
                let var = tape.input(&param.name, F32, param.shape.clone())?;
                given.push((var, key(vars.len())));
                vars.push(var);
            }
            Ok(vars)
        };
        let weights = inputs(learner.params(), Key::Weight)?;
        let buffers = inputs(learner.buffers(), Key::Buffer)?;
        let [h, w, c] = problem.image;
        let x = tape.input("x", F32, [BATCH, h, w, c])?;
        let labels = tape.input("labels", I32, [BATCH])?;
        given.extend([(x, Key::Images), (labels, Key::Labels)]);
        let (logits, _) = learner.logits(&weights, x, Statistics::Stored(&buffers))?;
        let [correct, broken] = count_correct(logits, labels)?;
        // The label of padding becomes a row of zeros, whose loss is 0.
        let loss = logits.cross_entropy(labels.one_hot(problem.classes, F32)?)?;
        let found = [
            (correct, Key::Correct),
            (broken, Key::Broken),
            (loss, Key::Loss),
        ];
        Ok(Self(Task::new(device, &given, &found)?))
    }

    /// A learner's accuracy on the test set after a step, as a fraction.
    ///
    /// # Errors
    /// As [`Evaluator::of_state`].
    fn accuracy(&self, learner: State<'_>, test: &TestSet, step: usize) -> Result<f64> {
        Ok(self.of_state(learner, test, step)?.accuracy)
    }

    /// How a learner does on a test set after a step.
    ///
    /// # Errors
    /// If it gives NaN for any image: its training ran away.
    fn of_state(&self, learner: State<'_>, test: &TestSet, step: usize) -> Result<Mark> {
        self.judge(&learner.weights(), &learner.buffers(), test, step)
    }

    /// The same of weights and buffers, in the learner's order.
    ///
    /// # Errors
    /// As [`Evaluator::of_state`].
    pub(crate) fn judge(
        &self,
        weights: &[View<'_>],
        buffers: &[View<'_>],
        test: &TestSet,
        step: usize,
    ) -> Result<Mark> {
        let batches = &test.batches;
        for batch in 0..test.count.div_ceil(BATCH) {
            self.0.run(|key| match key {
                Key::Weight(i) => weights[i],
                Key::Buffer(i) => buffers[i],
                Key::Images => batches.row("x", batch),
                Key::Labels => batches.row("labels", batch),
                Key::Correct => batches.row("correct", batch),
                Key::Broken => batches.row("broken", batch),
                Key::Loss => batches.row("loss", batch),
            })?;
        }
        let sum = |name| -> Result<f64> { Ok(batches.get(name)?.to_f64_vec().iter().sum()) };
        if sum("broken")? > 0.0 {
            let (what, step) = ("trained learner's output", step.saturating_sub(1));
            return Err(Error::NotFinite { what, step });
        }
        let count = test.count as f64;
        Ok(Mark {
            step,
            accuracy: sum("correct")? / count,
            loss: sum("loss")? * BATCH as f64 / count,
        })
    }
}

/// How a learner does on a test set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Inner steps done.
    pub step: usize,
    /// The fraction of images that it classifies correctly.
    pub accuracy: f64,
    /// The mean cross-entropy.
    pub loss: f64,
}

/// The record of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// The inner loss at every step.
    pub losses: Vec<f64>,
    /// How the learner did on the test set, after each step that was asked for.
    pub marks: Vec<Mark>,
}

/// A learner with its optimiser, planned, that can be trained again and again from one start.
#[derive(Debug)]
pub struct Trainee {
    trainer: Trainer,
    /// The learner's weights before the first step, and its dropout keys.
    start: Vec<(String, Array)>,
    evaluator: Evaluator,
}

impl Trainee {
    /// Plans the training, and draws the start of the training number `number`.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(
        device: &Device,
        config: &Config,
        problem: Problem,
        learner: &Learner,
        rule: Rule,
        number: u64,
    ) -> Result<Self> {
        let sizes = Sizes {
            learners: 1,
            ..Sizes::of(config, problem)
        };
        let steps = config.inner_steps;
        let names = rule.optimizer.hyper().iter().map(|(name, _)| *name);
        let hyper = |name| ArraySpec::new(name, F32, [&[steps], rule.shape(name)].concat());
        let training = by_images(learner, sizes, rule)
            .given(sizes.taught())
            .given(names.clone().map(hyper))
            .per_step(names);
        Ok(Self {
            trainer: Trainer::new(device, &training, steps)?,
            start: start(learner, (config.seed, number), steps)?,
            evaluator: Evaluator::new(device, problem, learner)?,
        })
    }

    /// From now on trains from the start of the training number `number`.
    ///
    /// # Errors
    /// None for the learner that it was made of.
    pub fn begin(&mut self, learner: &Learner, seed: u64, number: u64) -> Result<()> {
        self.start = start(learner, (seed, number), self.trainer.steps())?;
        Ok(())
    }

    /// Trains from the start, and evaluates the learner after some steps.
    ///
    /// # Errors
    /// If the training runs away, or the device fails.
    pub fn follow(
        &mut self,
        data: &mut TrainingData,
        test: &TestSet,
        at: &[usize],
    ) -> Result<Course> {
        for (name, array) in &self.start {
            data.values.set(name, array)?;
        }
        let mut marks = Vec::new();
        let losses = self.trainer.train(&data.values, |step, learner| {
            if at.contains(&step) {
                marks.push(self.evaluator.of_state(learner, test, step)?);
            }
            Ok(())
        })?;
        Ok(Course { losses, marks })
    }

    /// Trains from the same start every time. Gives the accuracy on the test set after the last step. If
    /// `along` is given, also gives accuracies on it along the way: at up to 33 evenly spaced points.
    ///
    /// # Errors
    /// If the training runs away, or the device fails.
    pub fn train(
        &mut self,
        data: &mut TrainingData,
        test: &TestSet,
        along: Option<&TestSet>,
    ) -> Result<(f64, Vec<f64>)> {
        for (name, array) in &self.start {
            data.values.set(name, array)?;
        }
        let (mut accuracy, mut curve, last) = (0.0, Vec::new(), self.trainer.steps());
        let looks = looks(last);
        self.trainer.train(&data.values, |step, learner| {
            if let Some(test) = along.filter(|_| looks.contains(&step)) {
                curve.push(self.evaluator.accuracy(learner, test, step)?);
            }
            if step == last {
                accuracy = self.evaluator.accuracy(learner, test, step)?;
            }
            Ok(())
        })?;
        Ok((accuracy, curve))
    }
}

/// The steps after which an evaluation measures a learner for its curve: the last, and at most 32 before it,
/// evenly spaced from 0. They are few because a measurement passes 1,000 images through the learner, which is
/// more work than a small step.
pub(crate) fn looks(steps: usize) -> Vec<usize> {
    let every = steps.div_ceil(32).max(1);
    let before = (0..steps).step_by(every);
    before.chain([steps]).collect()
}

/// A learner's weights before its training, by name, and its dropout keys.
fn start(
    learner: &Learner,
    (seed, number): (u64, u64),
    steps: usize,
) -> Result<Vec<(String, Array)>> {
    let rng = &mut rng(seed, Draw::Learner, number, 0);
    let drawn = init(learner.params(), F32, rng)?;
    let names = learner.params().iter().map(|param| param.name.clone());
    let keys = dropout_keys(seed, number, steps);
    let keys = learner.drops().then_some((DROPPED.to_owned(), keys));
    Ok(names.zip(drawn).chain(keys).collect())
}

#[cfg(test)]
mod tests {
    use super::looks;

    #[test]
    fn looks_are_few() {
        assert_eq!(looks(0), [0]);
        assert_eq!(looks(3), [0, 1, 2, 3]);
        assert_eq!(looks(32).len(), 33);
        assert_eq!(looks(33)[..3], [0, 2, 4]);
        assert_eq!(looks(128).len(), 33);
        assert_eq!(looks(1000).last(), Some(&1000));
    }
}
