//! The training as it is recorded: a generator makes one batch, a policy takes one step on it, and an
//! actor-critic loss judges the result.

use autograd::prelude::*;
use autograd::{Declared, Task};
use gtn::nn::{Learner, Network, ParamSpec, Statistics, init};
use rand::Rng;

/// The numbers of a state.
pub(crate) const STATE: usize = 4;
/// Left and right.
pub(crate) const ACTIONS: usize = 2;
/// Weight of the entropy bonus, in units of a normalised advantage: more keeps policies random for longer.
const ENTROPY: f64 = 0.01;
/// Weight of the critic's squared error.
const VALUE: f64 = 0.5;

/// Layers of the generator. Biases start at 0 and weights large enough (He et al. 2015) that rows differ: a batch of nearly
/// equal targets would teach policies to push to one side, and from there no return shows the way back.
const GENERATOR: &str = "weight_norm off | dense 64 | tanh | dense 64 | tanh | dense";
/// Layers of the critic, which start as PyTorch's do: so values start near 0.
const CRITIC: &str = "init pytorch | weight_norm off | dense 64 | tanh | dense 64 | tanh | dense";

/// The three networks, how many rows the synthetic batch has, and numbers of noise for each row.
#[derive(Debug)]
pub(crate) struct Lesson {
    pub(crate) batch: usize,
    pub(crate) noise: usize,
    pub(crate) generator: Learner,
    pub(crate) policy: Learner,
    pub(crate) critic: Learner,
}

/// The arrays that a forward pass reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Weight(usize),
    States,
    Results,
}

impl Lesson {
    /// For policies of these layers.
    ///
    /// # Errors
    /// If the layers do not fit, or norm over batches: an episode has no batch.
    pub(crate) fn new([batch, noise]: [usize; 2], policy: &Network) -> Result<Self> {
        let network = |layers: &str| layers.parse::<Network>().map_err(Error::Setting);
        let policy = policy.learner([1, 1, STATE], ACTIONS)?;
        if policy.norms_over_batches() {
            let reason =
                "a policy cannot norm over batches: use `layer` or `group 4` in place of `batch`";
            return Err(Error::Setting(reason.into()));
        }
        Ok(Self {
            batch,
            noise,
            generator: network(GENERATOR)?.learner([1, 1, noise], STATE + ACTIONS)?,
            policy,
            critic: network(CRITIC)?.learner([1, 1, STATE], 1)?,
        })
    }

    /// The training for `transitions` rows of played episodes: what is learned is the noise, the generator, the logarithm
    /// of the rate, and the critic.
    pub(crate) fn training(&self, transitions: usize, dtype: DType) -> Training<'_> {
        let of = |name: &str, shape: &[usize]| ArraySpec::new(name, dtype, shape);
        Training::new(Optimizer::Sgd)
            .weights(specs("", &self.policy, dtype))
            .learned([of("noise", &[self.batch, self.noise]), of("log_lr", &[])])
            .learned_list("generator", specs("generator.", &self.generator, dtype))
            .learned_list("critic", specs("critic.", &self.critic, dtype))
            .given([
                of("states", &[transitions, STATE]),
                of("actions", &[transitions, ACTIONS]),
                of("advantages", &[transitions, 1]),
                of("returns", &[transitions, 1]),
                of("shares", &[transitions, 1]),
            ])
            .prepare("lr", |s| s["log_lr"].exp())
            .prepare("batch", |s| {
                forward(&self.generator, s.list("generator"), s["noise"])
            })
            .loss(|s| {
                let states = s["batch"].slice(&[0, 0], &[self.batch, STATE])?;
                let targets = s["batch"].slice(&[0, STATE], &[self.batch, ACTIONS])?;
                forward(&self.policy, s.weights(), states)?.mean_squared_error(targets)
            })
            .outer(|s| self.actor_critic(s))
    }

    /// −A·ln π(a|s) − β·H(π(·|s)) + c·(V(s) − R)², as the mean over transitions: `shares` are 1/n, and 0 in rows that no
    /// episode fills. Advantages A and returns R are given, so nothing flows back through them (Mnih et al. 2016).
    fn actor_critic<'t>(&self, s: &Scope<'t>) -> Result<Var<'t>> {
        let log_p = forward(&self.policy, s.weights(), s["states"])?.log_softmax()?;
        let chosen = (log_p * s["actions"])?.sum_keep(&[1])?;
        let negative_entropy = (log_p.exp()? * log_p)?.sum_keep(&[1])?;
        let error = (forward(&self.critic, s.list("critic"), s["states"])? - s["returns"])?;
        let actor = ((negative_entropy * ENTROPY)? - (chosen * s["advantages"])?)?;
        ((actor + (error.powi(2)? * VALUE)?)? * s["shares"])?.sum_all()
    }

    /// Plans a pass of the policy for so many states: the probabilities of its actions.
    pub(crate) fn acting(&self, device: &Device, states: usize) -> Result<Task<Key>> {
        pass(device, &self.policy, states, |weights, states| {
            forward(&self.policy, weights, states)?.softmax()
        })
    }

    /// Plans a pass of the critic for so many states.
    pub(crate) fn judging(&self, device: &Device, states: usize) -> Result<Task<Key>> {
        pass(device, &self.critic, states, |weights, states| {
            forward(&self.critic, weights, states)
        })
    }

    /// Draws how everything that is learned starts, with a rate.
    pub(crate) fn start(
        &self,
        rate: f64,
        dtype: DType,
        rng: &mut impl Rng,
    ) -> Result<Vec<(String, Array)>> {
        let noise = Array::normal(F64, [self.batch, self.noise], 1.0, rng.next_u64());
        let mut start = vec![
            ("noise".to_owned(), noise.cast(dtype)),
            ("log_lr".to_owned(), Array::scalar(rate.ln(), dtype)),
        ];
        for (prefix, network) in [("generator.", &self.generator), ("critic.", &self.critic)] {
            start.extend(drawn(prefix, network, dtype, rng)?);
        }
        Ok(start)
    }

    /// Draws a new policy.
    pub(crate) fn fresh(&self, dtype: DType, rng: &mut impl Rng) -> Result<Vec<(String, Array)>> {
        drawn("", &self.policy, dtype, rng)
    }
}

/// The name of each parameter of a network, with a prefix.
pub(crate) fn names(prefix: &str, network: &Learner) -> Vec<String> {
    let name = |param: &ParamSpec| format!("{prefix}{}", param.name);
    network.params().iter().map(name).collect()
}

fn specs(prefix: &str, network: &Learner, dtype: DType) -> Vec<Declared<'static>> {
    let named = names(prefix, network).into_iter().zip(network.params());
    named
        .map(|(name, param)| ArraySpec::new(name, dtype, param.shape.clone()).into())
        .collect()
}

fn drawn(
    prefix: &str,
    network: &Learner,
    dtype: DType,
    rng: &mut impl Rng,
) -> Result<Vec<(String, Array)>> {
    let arrays = init(network.params(), dtype, rng)?;
    Ok(names(prefix, network).into_iter().zip(arrays).collect())
}

/// A network's results \[n, outputs\] for rows \[n, inputs\].
fn forward<'t>(network: &Learner, weights: &[Var<'t>], rows: Var<'t>) -> Result<Var<'t>> {
    let &[n, inputs] = &rows.shape()[..] else {
        return Err(Error::Setting(format!(
            "{rows:?}: a row for each state is needed"
        )));
    };
    let images = rows.reshape([n, 1, 1, inputs])?;
    Ok(network.logits(weights, images, Statistics::Batch)?.0)
}

fn pass(
    device: &Device,
    network: &Learner,
    states: usize,
    record: impl for<'t> Fn(&[Var<'t>], Var<'t>) -> Result<Var<'t>>,
) -> Result<Task<Key>> {
    let tape = Tape::new();
    let x = tape.input("states", F32, [states, STATE])?;
    let mut given = vec![(x, Key::States)];
    let mut weights = Vec::new();
    for param in network.params() {
        let weight = tape.input(&param.name, F32, param.shape.clone())?;
        given.push((weight, Key::Weight(weights.len())));
        weights.push(weight);
    }
    let results = record(&weights, x)?;
    Task::new(device, &given, &[(results, Key::Results)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    const TRANSITIONS: usize = 6;
    /// Step of central differences.
    const STEP: f64 = 1e-5;

    /// Numbers of all arrays of a small lesson, in f64.
    fn numbers(lesson: &Lesson) -> Vec<(String, Array)> {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let mut numbers = lesson.start(0.7, F64, rng).expect("drawn");
        numbers.extend(lesson.fresh(F64, rng).expect("drawn"));
        for (seed, (name, columns)) in [("states", STATE), ("advantages", 1), ("returns", 1)]
            .into_iter()
            .enumerate()
        {
            let array = Array::normal(F64, [TRANSITIONS, columns], 1.0, seed as u64);
            numbers.push((name.into(), array));
        }
        let right = |i: usize| [0.0, 1.0, 1.0, 0.0][i % 4];
        let actions: Vec<f64> = (0..2 * TRANSITIONS).map(right).collect();
        // The last row is empty.
        let shares: Vec<f64> = (0..TRANSITIONS).map(|i| [0.2, 0.0][i / 5]).collect();
        for (name, columns, own) in [("actions", ACTIONS, actions), ("shares", 1, shares)] {
            let array = Array::new([TRANSITIONS, columns], own).expect("as many");
            numbers.push((name.into(), array));
        }
        numbers
    }

    /// Numbers of every learned array, up to 64 or so, moved each by itself, in f64: noise, rate, generator and critic.
    #[test]
    fn the_meta_gradient_is_that_of_central_differences() {
        let policy = "weight_norm off | dense 5 | tanh | dense"
            .parse()
            .expect("layers");
        let lesson = Lesson::new([3, 2], &policy).expect("sizes");
        let training = lesson.training(TRANSITIONS, F64);
        let device = Device::cpu(Some(1)).expect("a processor");
        let mut unroll = Unroll::new(&device, &training, &Horizon::new(1)).expect("a plan");
        let numbers = numbers(&lesson);
        let named = numbers.iter().map(|(name, array)| (name.as_str(), array));
        let mut values = Values::new(&device, named).expect("memory");
        unroll.gradient(&values).expect("finite");
        let gradients = unroll.gradients().to_arrays().expect("read");
        for spec in training.learned_specs() {
            let own = values.get(&spec.name).expect("it is learned");
            let found = gradients[&spec.name].to_f64_vec();
            let greatest = found.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
            assert!(greatest > 1e-4, "{}: {greatest}", spec.name);
            for (i, found) in found.iter().enumerate().step_by(1 + found.len() / 64) {
                let mut at = |by: f64| {
                    let mut moved = own.to_f64_vec();
                    moved[i] += by;
                    let moved = Array::new(spec.shape.clone(), moved).expect("its shape");
                    values.set(&spec.name, &moved).expect("memory");
                    unroll.gradient(&values).expect("finite").total()
                };
                let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let error = (found - slope).abs() / greatest;
                assert!(error < 1e-6, "{} {i}: {found} {slope}", spec.name);
            }
            values.set(&spec.name, &own).expect("memory");
        }
    }

    #[test]
    fn a_policy_that_norms_over_batches_is_refused() {
        let policy = "dense 5 | batch | tanh | dense".parse().expect("layers");
        let refused = Lesson::new([3, 2], &policy).expect_err("no batch");
        assert!(refused.to_string().contains("cannot norm over batches"));
    }
}
