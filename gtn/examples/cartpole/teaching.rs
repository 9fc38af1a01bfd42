//! The outer loop: a new policy learns and plays, and the meta-gradient moves what taught it.

use crate::episodes::{Episode, Judge, Stage, rows};
use crate::lesson::Lesson;
use autograd::prelude::*;
use gtn::seeds::{Draw, rng};

/// Episodes that every policy plays.
const EPISODES: usize = 8;
/// The rate of SGD before it is learned. From 3 on, training was unstable.
const RATE: f64 = 0.5;
/// Adam's rate at the first outer step; it falls evenly to a twentieth.
const OUTER_RATE: f64 = 3e-3;
/// The meta-gradient is clipped to this norm.
const LONGEST: f64 = 1.0;
/// Examined policies are counted from here, so that no outer step has seen them.
const UNSEEN: u64 = 1 << 32;
/// Steps after which `CartPole-v0` is cut.
const OLD_LIMIT: usize = 200;

/// What the outer loop works with.
#[derive(Debug)]
pub(crate) struct Teaching<'a> {
    class: Class<'a>,
    outer_steps: u64,
    unroll: Unroll,
    values: Values,
    adam: Descent,
    judge: Judge,
}

/// How new policies play, in mean returns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Examined {
    pub(crate) untrained: f64,
    pub(crate) trained: f64,
    /// The mean return of the worst policy, after its step.
    pub(crate) worst: f64,
    /// Trained, if episodes are cut after [`OLD_LIMIT`] steps.
    pub(crate) cut: f64,
}

impl<'a> Teaching<'a> {
    pub(crate) fn new(
        device: &Device,
        lesson: &'a Lesson,
        seed: u64,
        outer_steps: u64,
    ) -> Result<Self> {
        let training = lesson.training(rows(EPISODES), F32);
        let start = lesson.start(RATE, F32, &mut rng(seed, Draw::Generator, 0, 0))?;
        let mut values = Values::new(device, named(&start))?;
        // The trainer asks for all that is given, though its one step reads none of it.
        for spec in training.given_specs() {
            values.reserve(spec.clone())?;
        }
        let unroll = Unroll::new(device, &training, &Horizon::new(1))?;
        Ok(Self {
            class: Class::new(device, lesson, seed)?,
            outer_steps,
            values,
            adam: Descent::new(unroll.gradients(), Optimizer::Adam, &[])?,
            unroll,
            judge: Judge::new(device, lesson, EPISODES)?,
        })
    }

    pub(crate) fn seed(&self) -> u64 {
        self.class.seed
    }

    /// The rate of SGD as learned so far.
    pub(crate) fn rate(&self) -> Result<f64> {
        Ok(self.values.get("log_lr")?.to_f64_vec()[0].exp())
    }

    /// One outer step, with the new policy of that number. Gives the mean return of its episodes.
    ///
    /// # Errors
    /// If a loss or a probability is not finite, or the device fails.
    pub(crate) fn step(&mut self, number: u64) -> Result<f64> {
        let [_, played] = self.class.play(&mut self.values, number, false)?;
        let judged = self.judge.judge(&self.values, &played)?;
        let judged = judged.iter().map(|(name, array)| (*name, array));
        self.values.set_all(judged)?;
        self.unroll.gradient(&self.values)?;
        let norm = self.adam.norm(self.unroll.gradients())?;
        self.adam.set("scale", (LONGEST / norm).min(1.0))?;
        let left = 1.0 - number as f64 / self.outer_steps as f64;
        self.adam.set("lr", OUTER_RATE * left.max(0.05))?;
        self.adam.step(&self.values, self.unroll.gradients())?;
        Ok(mean(&lengths(&played)))
    }

    /// Lets so many policies that no outer step has seen play before and after their step of SGD. They have the layers of
    /// that lesson, which may be others than those that the batch was learned with.
    ///
    /// # Errors
    /// As [`Teaching::step`].
    pub(crate) fn examine(&mut self, lesson: &Lesson, policies: u64) -> Result<Examined> {
        let device = self.values.device().clone();
        let mut class = Class::new(&device, lesson, self.seed())?;
        let (mut untrained, mut trained, mut cut) = (vec![], vec![], vec![]);
        for number in UNSEEN..UNSEEN + policies {
            let played = class.play(&mut self.values, number, true)?;
            let [before, after] = played.map(|played| lengths(&played));
            untrained.push(mean(&before));
            trained.push(mean(&after));
            cut.extend(after.into_iter().map(|length| length.min(OLD_LIMIT as f64)));
        }
        Ok(Examined {
            untrained: mean(&untrained),
            trained: mean(&trained),
            worst: trained.iter().copied().fold(f64::INFINITY, f64::min),
            cut: mean(&cut),
        })
    }
}

/// New policies of one structure, which learn and play.
#[derive(Debug)]
struct Class<'a> {
    lesson: &'a Lesson,
    seed: u64,
    trainer: Trainer,
    stage: Stage,
}

impl<'a> Class<'a> {
    fn new(device: &Device, lesson: &'a Lesson, seed: u64) -> Result<Self> {
        let training = lesson.training(rows(EPISODES), F32);
        Ok(Self {
            lesson,
            seed,
            trainer: Trainer::new(device, &training, 1)?,
            stage: Stage::new(device, lesson, EPISODES)?,
        })
    }

    /// The episodes of a new policy before its step of SGD, if they are wanted, and after it. Its first weights stay among
    /// the values.
    fn play(
        &mut self,
        values: &mut Values,
        number: u64,
        before: bool,
    ) -> Result<[Vec<Episode>; 2]> {
        let weights = &mut rng(self.seed, Draw::Learner, number, 0);
        values.set_all(named(&self.lesson.fresh(F32, weights)?))?;
        let mut played = [vec![], vec![]];
        let (stage, seed) = (&self.stage, self.seed);
        self.trainer.train(values, |step, policy| {
            if step == 1 || before {
                let rng = &mut rng(seed, Draw::OuterBatch, number, step as u64);
                played[step] = stage.play(&policy.weights(), rng)?;
            }
            Ok(())
        })?;
        Ok(played)
    }
}

fn named(arrays: &[(String, Array)]) -> impl Iterator<Item = (&str, &Array)> {
    arrays.iter().map(|(name, array)| (name.as_str(), array))
}

/// The returns of episodes: a reward of 1 for every step.
fn lengths(episodes: &[Episode]) -> Vec<f64> {
    episodes.iter().map(|e| e.length() as f64).collect()
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::Arrays;

    fn lesson() -> Lesson {
        let policy = "init pytorch | weight_norm off | dense 128 | tanh | dense";
        Lesson::new([64, 8], &policy.parse().expect("layers")).expect("sizes")
    }

    fn taught(lesson: &Lesson, threads: usize, steps: u64) -> (Vec<f64>, Teaching<'_>) {
        let device = Device::cpu(Some(threads)).expect("a processor");
        let mut teaching = Teaching::new(&device, lesson, 7, steps).expect("a plan");
        let returns = (0..steps).map(|step| teaching.step(step).expect("finite"));
        (returns.collect(), teaching)
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_with_any_threads() {
        let lesson = lesson();
        let run = |threads| -> (Vec<f64>, Arrays) {
            let (returns, teaching) = taught(&lesson, threads, 4);
            (returns, teaching.values.to_arrays().expect("read"))
        };
        let first = run(1);
        assert_eq!(first, run(1));
        assert_eq!(first, run(2));
    }

    #[test]
    fn a_rate_that_is_not_finite_is_an_error() {
        let lesson = lesson();
        let (_, mut teaching) = taught(&lesson, 1, 0);
        let endless = Array::scalar(f64::INFINITY, F32);
        teaching.values.set("log_lr", &endless).expect("memory");
        let error = teaching.step(0).expect_err("no policy has such weights");
        assert!(error.to_string().contains("not a number"), "{error}");
    }

    #[test]
    fn one_step_on_the_batch_teaches_policies_that_no_outer_step_has_seen() {
        let lesson = lesson();
        let (_, mut teaching) = taught(&lesson, 1, 40);
        let examined = teaching.examine(&lesson, 8).expect("finite");
        assert!(examined.untrained < 40.0, "{examined:?}");
        assert!(examined.trained > 2.0 * examined.untrained, "{examined:?}");
        assert!(examined.worst <= examined.trained && examined.cut <= 200.0);
    }
}
