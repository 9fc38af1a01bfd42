//! Trains one network on all real images, for use.
//!
//! Each step takes the gradient on a batch and applies an optimiser. Images are augmented, and reshuffled in
//! every epoch. At the end the statistics of batch norms are replaced by means over many batches, with the
//! trained weights.

use crate::data::{Dataset, Problem, Split};
use crate::error::{Error, ErrorKind, Result};
use crate::eval::evaluate::{Evaluator, Mark, TestSet};
use crate::eval::tuning::{Cycle, Recipe};
use crate::nn::{Learner, Network, Statistics, init};
use crate::outer::hyper::OptimizerChoice;
use crate::outer::training::{DROPPED, Sizes, real_batches};
use crate::run::config::Config;
use crate::seeds::{Draw, dropout_keys, rng};
use autograd::Task;
use autograd::prelude::*;
use kernels::View;
use rand::seq::SliceRandom;
use tensor::Arrays;

/// Batches whose statistics are averaged at the end.
const AVERAGED: u64 = 50;
/// Gradients are clipped to this global norm, as in DARTS (Liu, Simonyan and Yang 2019, arXiv 1806.09055).
const CLIP: f64 = 5.0;

/// The arrays that a step reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Weight(usize),
    Buffer(usize),
    Gradient(usize),
    Images,
    Classes,
    /// Dropout keys of the network (0) and of its auxiliary head (1).
    Dropped(usize),
    Loss,
}

/// An auxiliary classifier on the output of a layer inside the network. Its loss counts in training only, and
/// gives the layers before it a shorter path for gradients (Szegedy et al. 2015, arXiv 1409.4842).
#[derive(Clone, Debug)]
pub struct Auxiliary {
    /// The layers of the head.
    head: Learner,
    /// Place of the network's layer that it reads.
    layer: usize,
    /// The weight of its loss.
    weight: f64,
}

impl Auxiliary {
    /// A head with these layers, which reads what comes out of the [last reduction](Learner::last_reduction) of a network.
    ///
    /// # Errors
    /// If all of the network's images have one size, or the head does not fit the images there.
    pub fn new(learner: &Learner, head: &Network, problem: Problem, weight: f64) -> Result<Self> {
        let Problem { image, classes } = problem;
        let layer = learner.last_reduction(image).ok_or_else(|| {
            let message =
                "an auxiliary head stands where images become smaller, and here they never do";
            Error::usage(message).hint("without --auxiliary")
        })?;
        let [h, w, c] = learner.layers()[layer].shape[..] else {
            unreachable!("a reduction gives images");
        };
        let head = head.learner([h, w, c], classes).map_err(|error| {
            Error::usage(error)
                .at(format!("--auxiliary-head on images of {h}×{w}×{c}"))
                .hint("'relu | mean | dense' suits all sizes")
        })?;
        Ok(Self {
            head,
            layer,
            weight,
        })
    }

    /// Its part of the loss.
    fn loss<'t>(
        &self,
        params: &[Var<'t>],
        [images, classes]: [Var<'t>; 2],
        mode: Statistics<'_, 't>,
    ) -> autograd::Result<Var<'t>> {
        let (logits, _) = self.head.logits(params, images, mode)?;
        logits.cross_entropy(classes)? * self.weight
    }
}

/// Images in a batch, unless another number is asked for.
pub const BATCH: usize = 128;

/// The default recipe.
pub const RECIPE: Recipe = Recipe {
    optimizer: Optimizer::AdamW,
    lr: OptimizerChoice(Optimizer::AdamW).usual_lr(),
    momentum: 0.9,
    cycle: Cycle::OneCycle,
};

/// A network in training.
#[derive(Debug)]
pub struct Fit<'a> {
    config: &'a Config,
    data: &'a Dataset,
    recipe: Recipe,
    epochs: u64,
    /// Names of weights, those of an auxiliary head after the network's own, and of buffers.
    names: [Vec<String>; 2],
    /// How many weights belong to the network itself.
    own: usize,
    weights: Values,
    gradients: Values,
    /// Images `x` and classes `y`, the loss, and by their names the buffers.
    batch: Values,
    gradient: Task<Key>,
    descent: Descent,
    evaluator: Evaluator,
    /// Steps done.
    step: u64,
}

impl<'a> Fit<'a> {
    /// A training before its first step. Of the settings it uses the seed, the augmentation, and
    /// `inner_batch` as the batch size.
    ///
    /// # Errors
    /// If there is not enough memory, or fewer images than in a batch.
    pub fn new(
        device: &Device,
        config: &'a Config,
        data: &'a Dataset,
        (learner, auxiliary): (&Learner, Option<&Auxiliary>),
        recipe: Recipe,
        epochs: u64,
    ) -> Result<Self> {
        if data.train.len() < config.inner_batch {
            let message = format!(
                "{} training images, and a batch has {}",
                data.train.len(),
                config.inner_batch
            );
            return Err(Error::usage(message).hint("a smaller --batch"));
        }
        let problem = data.problem();
        let [x, y] = Sizes::of(config, problem).batches(["x", "y"], 1, config.inner_batch);
        let specs = |params: &[crate::nn::ParamSpec]| -> Vec<ArraySpec> {
            params
                .iter()
                .map(|param| ArraySpec::new(&*param.name, F32, param.shape.clone()))
                .collect()
        };
        let (mut weights, buffers) = (specs(learner.params()), specs(learner.buffers()));
        let own = weights.len();
        for spec in auxiliary.map_or_else(Vec::new, |auxiliary| specs(auxiliary.head.params())) {
            let name = format!("auxiliary.{}", spec.name);
            weights.push(ArraySpec { name, ..spec });
        }
        let tape = Tape::new();
        let input = |spec: &ArraySpec| tape.input(&spec.name, F32, spec.shape.clone());
        let theta: Vec<_> = weights.iter().map(input).collect::<autograd::Result<_>>()?;
        let images = tape.input("x", F32, &x.shape[1..])?;
        let classes = tape.input("y", F32, &y.shape[1..])?;
        let dropped = tape.input(DROPPED, U32, [4])?;
        let dropped_by_head = tape.input("auxiliary.dropped", U32, [4])?;
        let mode = Statistics::Training(dropped);
        let head_drops = auxiliary.is_some_and(|auxiliary| auxiliary.head.drops());
        let keys = [
            (learner.drops(), dropped, Key::Dropped(0)),
            (head_drops, dropped_by_head, Key::Dropped(1)),
        ];
        let (loss, statistics) = if let Some(auxiliary) = auxiliary {
            let layer = auxiliary.layer;
            let (logits, half_way, statistics) =
                learner.logits_and_layer(&theta[..own], images, mode, layer)?;
            let of_head = Statistics::Training(dropped_by_head);
            let more = auxiliary.loss(&theta[own..], [half_way, classes], of_head)?;
            ((logits.cross_entropy(classes)? + more)?, statistics)
        } else {
            let (logits, statistics) = learner.logits(&theta, images, mode)?;
            (logits.cross_entropy(classes)?, statistics)
        };
        let gradients = tape.grad(loss, &theta)?;
        let trained = theta
            .iter()
            .enumerate()
            .map(|(i, &var)| (var, Key::Weight(i)));
        let given: Vec<_> = trained
            .chain([(images, Key::Images), (classes, Key::Classes)])
            .chain(
                keys.into_iter()
                    .filter_map(|(drops, var, key)| drops.then_some((var, key))),
            )
            .collect();
        let found = gradients
            .into_iter()
            .enumerate()
            .map(|(i, var)| (var, Key::Gradient(i)));
        let statistics = statistics
            .into_iter()
            .enumerate()
            .map(|(i, var)| (var, Key::Buffer(i)));
        let found: Vec<_> = found.chain(statistics).chain([(loss, Key::Loss)]).collect();
        let gradient = Task::new(device, &given, &found)?;

        let start = |params, what| init(params, F32, &mut rng(config.seed, what, 0, 0));
        let mut drawn = start(learner.params(), Draw::Learner)?;
        if let Some(auxiliary) = auxiliary {
            drawn.extend(start(auxiliary.head.params(), Draw::Auxiliary)?);
        }
        let named = weights.iter().map(|spec| &*spec.name).zip(&drawn);
        let gradients = Values::zeros(device, &weights)?;
        let hyper: Vec<(&str, f64)> = match recipe
            .optimizer
            .hyper()
            .iter()
            .find(|(name, _)| ["momentum", "beta1"].contains(name))
        {
            Some((name, _)) => vec![(name, recipe.momentum)],
            None => Vec::new(),
        };
        let batch = [
            x,
            y,
            ArraySpec::new("loss", F32, []),
            ArraySpec::new(DROPPED, U32, [2, 4]),
        ];
        let names =
            [&weights, &buffers].map(|specs| specs.iter().map(|spec| spec.name.clone()).collect());
        Ok(Self {
            weights: Values::new(device, named)?,
            descent: Descent::new(&gradients, recipe.optimizer, &hyper)?,
            gradients,
            batch: Values::zeros(device, &[&batch[..], &buffers].concat())?,
            gradient,
            evaluator: Evaluator::new(device, problem, learner)?,
            config,
            data,
            recipe,
            epochs,
            names,
            own,
            step: 0,
        })
    }

    /// Steps of an epoch. Images that do not fill a last batch are left out; which they are changes from
    /// epoch to epoch.
    pub fn steps_of_epoch(&self) -> u64 {
        (self.data.train.len() / self.config.inner_batch) as u64
    }

    /// Epochs done.
    pub fn epoch(&self) -> u64 {
        self.step / self.steps_of_epoch()
    }

    /// Trains for an epoch and gives the mean loss. `watch` may stop it by returning `false`: then the result
    /// is `None`, and the epoch is lost.
    ///
    /// # Errors
    /// If the loss or the gradient is not finite.
    pub fn train(&mut self, watch: &mut impl FnMut() -> bool) -> Result<Option<f64>> {
        let (steps, epoch) = (self.steps_of_epoch(), self.epoch());
        let order = self.order(epoch);
        let mut sum = 0.0;
        for chosen in order.chunks_exact(self.config.inner_batch) {
            self.forward_and_back(chosen, self.step)?;
            let loss = self.batch.get("loss")?.to_f64_vec()[0];
            let norm = self.descent.norm(&self.gradients)?;
            for (what, number) in [("loss", loss), ("gradient", norm)] {
                if !number.is_finite() {
                    let message = format!("step {}: the {what} is not finite", self.step + 1);
                    return Err(Error::new(ErrorKind::NotFinite, message).hint("a smaller --lr"));
                }
            }
            sum += loss;
            self.descent.set("scale", (CLIP / norm).min(1.0))?;
            let share = self
                .recipe
                .cycle
                .share(self.step as usize, (steps * self.epochs) as usize);
            self.descent.set("lr", self.recipe.lr * share)?;
            self.descent.step(&self.weights, &self.gradients)?;
            self.step += 1;
            if !watch() {
                return Ok(None);
            }
        }
        Ok(Some(sum / steps as f64))
    }

    /// The training images in the order of an epoch.
    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.data.train.len()).collect();
        order.shuffle(&mut rng(self.config.seed, Draw::Order, epoch, 0));
        order
    }

    /// Gradients, statistics and loss of a batch.
    fn forward_and_back(&self, chosen: &[usize], number: u64) -> Result<()> {
        let specs =
            Sizes::of(self.config, self.data.problem()).batches(["x", "y"], 1, chosen.len());
        let [x, y] = real_batches(
            self.config,
            self.data,
            chosen,
            &specs,
            (Draw::Augment, number),
        )?;
        self.batch.write("x", &x)?;
        self.batch.write("y", &y)?;
        let keys = dropout_keys(self.config.seed, number, 2);
        self.batch.write(DROPPED, &keys)?;
        self.gradient.run(|key| match key {
            Key::Weight(i) => self.weights.view(&self.names[0][i]),
            Key::Buffer(i) => self.batch.view(&self.names[1][i]),
            Key::Gradient(i) => self.gradients.view(&self.names[0][i]),
            Key::Images => self.batch.row("x", 0),
            Key::Classes => self.batch.row("y", 0),
            Key::Dropped(who) => self.batch.row(DROPPED, who),
            Key::Loss => self.batch.view("loss"),
        })?;
        Ok(())
    }

    /// Replaces the statistics of the last batch by their means over many, with the weights as they are.
    ///
    /// # Errors
    /// If the device fails.
    pub fn average_statistics(&self) -> Result<()> {
        if self.names[1].is_empty() {
            return Ok(());
        }
        let batches = AVERAGED.min(self.steps_of_epoch());
        let mut sums: Vec<Vec<f64>> = vec![Vec::new(); self.names[1].len()];
        let order = self.order(self.epochs);
        for (number, chosen) in (0..batches).zip(order.chunks_exact(self.config.inner_batch)) {
            self.forward_and_back(chosen, self.steps_of_epoch() * self.epochs + number)?;
            for (sum, name) in sums.iter_mut().zip(&self.names[1]) {
                let own = self.batch.get(name)?.to_f64_vec();
                sum.resize(own.len(), 0.0);
                sum.iter_mut()
                    .zip(own)
                    .for_each(|(sum, own)| *sum += own / batches as f64);
            }
        }
        for (sum, name) in sums.into_iter().zip(&self.names[1]) {
            let count = sum.len();
            self.batch
                .write(name, &Array::new([count], sum)?.cast(F32))?;
        }
        Ok(())
    }

    /// Evaluates the network on all images of a split, with the batch statistics as they are: of the last
    /// batch, or averaged.
    ///
    /// # Errors
    /// If it gives NaN for any.
    pub fn judge(&self, device: &Device, split: &Split) -> Result<Mark> {
        let images = TestSet::new(device, self.data, split, usize::MAX)?;
        let (weights, buffers) = (
            views(&self.weights, self.own_weights()),
            views(&self.batch, &self.names[1]),
        );
        Ok(self
            .evaluator
            .judge(&weights, &buffers, &images, self.step as usize)?)
    }

    /// The names of the network's weights, without those of an auxiliary head.
    fn own_weights(&self) -> &[String] {
        &self.names[0][..self.own]
    }

    /// Weights and statistics by name.
    ///
    /// # Errors
    /// If the device fails.
    pub fn network(&self) -> Result<Arrays> {
        let weights = self
            .own_weights()
            .iter()
            .map(|name| Ok((name.clone(), self.weights.get(name)?)));
        let buffers = self.names[1]
            .iter()
            .map(|name| Ok((name.clone(), self.batch.get(name)?)));
        weights.chain(buffers).collect()
    }

    /// The arrays of [`Fit::network`] in the order in which the network takes them: weights, and statistics.
    ///
    /// # Errors
    /// If the device fails.
    pub fn in_order(&self) -> Result<[Vec<Array>; 2]> {
        let weights = self
            .own_weights()
            .iter()
            .map(|name| self.weights.get(name))
            .collect::<autograd::Result<_>>()?;
        let buffers = self.names[1]
            .iter()
            .map(|name| self.batch.get(name))
            .collect::<autograd::Result<_>>()?;
        Ok([weights, buffers])
    }

    /// Everything that is needed to resume, by name.
    ///
    /// # Errors
    /// If the device fails.
    pub fn arrays(&self) -> Result<Arrays> {
        let mut arrays = self.network()?;
        for name in &self.names[0][self.own..] {
            arrays.insert(name.clone(), self.weights.get(name)?);
        }
        for spec in self.descent.state().specs() {
            arrays.insert(
                format!("optimizer.{}", spec.name),
                self.descent.state().get(&spec.name)?,
            );
        }
        Ok(arrays)
    }

    /// Resumes from where [`Fit::arrays`] were taken.
    ///
    /// # Errors
    /// With the name of an array that is missing or has another shape.
    pub fn restore(&mut self, arrays: &Arrays, epoch: u64) -> Result<()> {
        let write = |values: &Values, name: &str, key: &str| {
            let array = arrays
                .get(key)
                .ok_or_else(|| Error::run(format!("array {key} is missing")))?;
            values
                .write(name, array)
                .map_err(|error| Error::run(error).at(format!("array {key}")))
        };
        self.names[0]
            .iter()
            .try_for_each(|name| write(&self.weights, name, name))?;
        self.names[1]
            .iter()
            .try_for_each(|name| write(&self.batch, name, name))?;
        let state = self.descent.state();
        state
            .specs()
            .try_for_each(|spec| write(state, &spec.name, &format!("optimizer.{}", spec.name)))?;
        self.step = epoch * self.steps_of_epoch();
        Ok(())
    }
}

/// Views of arrays by name.
fn views<'v>(values: &'v Values, names: &[String]) -> Vec<View<'v>> {
    names.iter().map(|name| values.view(name)).collect()
}
