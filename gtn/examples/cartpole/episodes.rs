//! Episodes: several at once are played by a policy, and a critic says how much better than expected every action was.

use crate::environment::{LIMIT, State, failed, moved, observed, start};
use crate::lesson::{ACTIONS, Key, Lesson, STATE, names};
use autograd::Task;
use autograd::prelude::*;
use kernels::View;
use rand::{Rng, RngExt};

/// How much a reward a step later counts.
const DISCOUNT: f64 = 0.99;
/// λ of the generalised advantage estimate (Schulman et al. 2015, arXiv 1506.02438): 1 waits for all rewards, 0 trusts the
/// critic after one.
const LAMBDA: f64 = 0.95;
/// The reward of a step. With this discount, the value of a pole that never falls is 1.
const REWARD: f64 = 1.0 - DISCOUNT;
/// Advantages are divided by their deviation, but by no less than this: where no pole falls they are noise, which
/// should not grow to the size of a lesson.
const LEAST_SCALE: f64 = 0.1;

/// A played episode: the states, the last one too, and whether each push was to the right.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Episode {
    pub(crate) states: Vec<State>,
    pub(crate) rights: Vec<bool>,
}

impl Episode {
    /// Its return: a reward of 1 for every step.
    pub(crate) fn length(&self) -> usize {
        self.rights.len()
    }

    fn last(&self) -> State {
        self.states[self.states.len() - 1]
    }

    fn is_over(&self) -> bool {
        failed(self.last()) || self.length() == LIMIT
    }
}

/// Lets policies play, several episodes at once.
#[derive(Debug)]
pub(crate) struct Stage {
    acting: Task<Key>,
    arrays: Values,
    episodes: usize,
}

impl Stage {
    pub(crate) fn new(device: &Device, lesson: &Lesson, episodes: usize) -> Result<Self> {
        let of = |name, columns| ArraySpec::new(name, F32, [episodes, columns]);
        Ok(Self {
            acting: lesson.acting(device, episodes)?,
            arrays: Values::zeros(device, &[of("states", STATE), of("results", ACTIONS)])?,
            episodes,
        })
    }

    /// Plays with these weights. Actions are drawn by their probabilities.
    ///
    /// # Errors
    /// If a probability is not a number, or the device fails.
    pub(crate) fn play(&self, weights: &[View<'_>], rng: &mut impl Rng) -> Result<Vec<Episode>> {
        let begun = |_| Episode {
            states: vec![start(rng)],
            rights: Vec::new(),
        };
        let mut episodes: Vec<Episode> = (0..self.episodes).map(begun).collect();
        while !episodes.iter().all(Episode::is_over) {
            let rights = self.probabilities_of_right(weights, &episodes)?;
            for (episode, p) in episodes.iter_mut().zip(rights) {
                if episode.is_over() {
                    continue;
                }
                if !p.is_finite() {
                    let reason = "a policy's probability of an action is not a number";
                    return Err(Error::Setting(reason.into()));
                }
                let right = rng.random::<f32>() < p;
                episode.states.push(moved(episode.last(), right));
                episode.rights.push(right);
            }
        }
        Ok(episodes)
    }

    fn probabilities_of_right(
        &self,
        weights: &[View<'_>],
        episodes: &[Episode],
    ) -> Result<Vec<f32>> {
        let seen: Vec<f32> = episodes.iter().flat_map(|e| observed(e.last())).collect();
        self.arrays
            .write("states", &Array::new([self.episodes, STATE], seen)?)?;
        self.acting.run(|key| match key {
            Key::Weight(i) => weights[i],
            Key::States => self.arrays.view("states"),
            Key::Results => self.arrays.view("results"),
        })?;
        let found = self.arrays.get("results")?;
        let rows = found.as_f32().unwrap_or_default().chunks(ACTIONS);
        Ok(rows.map(|row| row[1]).collect())
    }
}

/// Turns episodes into the rows that the outer loss reads.
#[derive(Debug)]
pub(crate) struct Judge {
    judging: Task<Key>,
    arrays: Values,
    critic: Vec<String>,
    episodes: usize,
}

impl Judge {
    pub(crate) fn new(device: &Device, lesson: &Lesson, episodes: usize) -> Result<Self> {
        let n = rows(episodes);
        let of = |name, columns| ArraySpec::new(name, F32, [n, columns]);
        Ok(Self {
            judging: lesson.judging(device, n)?,
            arrays: Values::zeros(device, &[of("states", STATE), of("results", 1)])?,
            critic: names("critic.", &lesson.critic),
            episodes,
        })
    }

    /// Gives what the outer loss reads: states, actions, advantages, returns, shares. The critic is among the values.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn judge(
        &self,
        values: &Values,
        episodes: &[Episode],
    ) -> Result<[(&'static str, Array); 5]> {
        let n = rows(self.episodes);
        let [states, actions, shares] = record(episodes, n);
        let states = Array::new([n, STATE], states)?;
        let judged = self.values(values, &states)?;
        let [advantages, returns] = credit(episodes, &judged);
        Ok([
            ("states", states),
            ("actions", Array::new([n, ACTIONS], actions)?),
            ("advantages", Array::new([n, 1], advantages)?),
            ("returns", Array::new([n, 1], returns)?),
            ("shares", Array::new([n, 1], shares)?),
        ])
    }

    /// The critic's value of every state.
    fn values(&self, values: &Values, states: &Array) -> Result<Vec<f64>> {
        self.arrays.write("states", states)?;
        self.judging.run(|key| match key {
            Key::Weight(i) => values.view(&self.critic[i]),
            Key::States => self.arrays.view("states"),
            Key::Results => self.arrays.view("results"),
        })?;
        Ok(self.arrays.get("results")?.to_f64_vec())
    }
}

/// Rows for so many episodes: each has room for its last state, too.
pub(crate) fn rows(episodes: usize) -> usize {
    episodes * (LIMIT + 1)
}

/// Each episode with the number of its first row.
fn placed(episodes: &[Episode]) -> impl Iterator<Item = (&Episode, usize)> {
    episodes.iter().zip((0..).step_by(LIMIT + 1))
}

/// States, one-hot actions, and the share of every row in the mean over all steps; rows without a step have none.
fn record(episodes: &[Episode], n: usize) -> [Vec<f32>; 3] {
    let [mut states, mut actions, mut shares] = [STATE, ACTIONS, 1].map(|of| vec![0.0; n * of]);
    let share = 1.0 / steps(episodes);
    for (episode, first) in placed(episodes) {
        for (state, row) in episode.states.iter().zip(first..) {
            states[row * STATE..][..STATE].copy_from_slice(&observed(*state));
        }
        for (right, row) in episode.rights.iter().zip(first..) {
            actions[row * ACTIONS + usize::from(*right)] = 1.0;
            shares[row] = share as f32;
        }
    }
    [states, actions, shares]
}

/// Advantages, scaled, and returns of all rows by the critic's values.
fn credit(episodes: &[Episode], values: &[f64]) -> [Vec<f32>; 2] {
    let (mut at, mut estimated) = (Vec::new(), Vec::new());
    for (episode, first) in placed(episodes) {
        let steps = episode.length();
        estimated.extend(estimates(
            &values[first..=first + steps],
            failed(episode.last()),
        ));
        at.extend(first..first + steps);
    }
    let [mut advantages, mut returns] = [(); 2].map(|()| vec![0.0; values.len()]);
    for (&row, advantage) in at.iter().zip(&estimated) {
        returns[row] = (advantage + values[row]) as f32;
    }
    scale(&mut estimated);
    for (&row, advantage) in at.iter().zip(&estimated) {
        advantages[row] = *advantage as f32;
    }
    [advantages, returns]
}

fn steps(episodes: &[Episode]) -> f64 {
    episodes.iter().map(Episode::length).sum::<usize>() as f64
}

/// The generalised advantage of each step of an episode by the values of its states. After the fall there is nothing more;
/// an episode that was cut would have gone on, so its last value stands for the rest.
fn estimates(values: &[f64], fell: bool) -> Vec<f64> {
    let steps = values.len() - 1;
    let mut advantages = vec![0.0; steps];
    let mut later = 0.0;
    for t in (0..steps).rev() {
        let next = if fell && t + 1 == steps {
            0.0
        } else {
            values[t + 1]
        };
        let surprise = REWARD + DISCOUNT * next - values[t];
        later = surprise + DISCOUNT * LAMBDA * later;
        advantages[t] = later;
    }
    advantages
}

/// Normalises advantages to mean 0 and standard deviation 1, or less than 1 if the deviation is below
/// [`LEAST_SCALE`]. Without this, a critic that knows nothing yet would praise all actions, and policies
/// would soon push to one side only.
fn scale(advantages: &mut [f64]) {
    let n = advantages.len() as f64;
    let mean = advantages.iter().sum::<f64>() / n;
    let variance = advantages.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n;
    let scale = variance.sqrt().max(LEAST_SCALE);
    advantages.iter_mut().for_each(|a| *a = (*a - mean) / scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, for values 0.5, 0.4 and 0.3: the surprises are 0.01 + 0.99·0.4 − 0.5 = −0.094, and after it 0.01 − 0.4 =
    /// −0.39 for a fall, 0.01 + 0.99·0.3 − 0.4 = −0.093 for a cut; the later one counts 0.99·0.95 as much.
    #[test]
    fn a_fall_ends_all_rewards_and_a_cut_does_not() {
        for (fell, last) in [(true, -0.39), (false, -0.093)] {
            let found = estimates(&[0.5, 0.4, 0.3], fell);
            let expected = [-0.094 + 0.99 * 0.95 * last, last];
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{found} {expected}");
            }
            assert_eq!(found.len(), 2);
        }
    }

    #[test]
    fn small_advantages_stay_small() {
        let (mut small, mut large) = ([0.03, 0.01], [7.0, -1.0]);
        scale(&mut small);
        scale(&mut large);
        assert!((small[0] - 0.1).abs() < 1e-12 && (small[1] + 0.1).abs() < 1e-12);
        assert_eq!(large, [1.0, -1.0]);
    }
}
