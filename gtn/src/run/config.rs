//! Settings. Each is one field of [`Config`] with its flag, range, default (the preset `quick`), section and help;
//! from there come the command line, TOML files, presets and the man page (`settings.rs`).

use super::values::{
    above_zero, below_one, between, count, count_or_none, few, fraction, natural, not_negative,
    two_counts,
};
use crate::data::{Augment, DatasetChoice, Want};
use crate::nn::widths::Widths;
use crate::nn::{Learners, Norm};
use crate::outer::curriculum::{Curriculum, ImagesChoice, LabelsChoice, StartImages};
use crate::outer::growth::Growth;
use crate::outer::hyper::{LearnedNames, OptimizerChoice};
use crate::outer::order::RankBy;
use crate::outer::rule::Rates;
use autograd::optim::Optimizer;
use autograd::{Mode, Policy};
use clap::ValueEnum;
use serde::{Serialize, Serializer};
use std::fmt::Display;
use std::str::FromStr;
use toml::Table;

/// A complete set of settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Small learners, about five minutes on two cores
    #[default]
    Quick,
    /// Wider learners and larger batches, an hour on two cores
    Strong,
    /// Learners of many architectures, an hour on two cores
    Any,
    /// Networks of a search space, whose order `--rank-by` teaches
    Search,
    /// The published setting for MNIST, hours on a CPU
    Mnist,
    /// The published setting for CIFAR-10, for a GPU
    #[value(name = "cifar10")]
    Cifar10,
    /// CIFAR-10 at 16×16 with small learners, for two cores
    #[value(name = "cifar10-small")]
    Cifar10Small,
}

/// How derivatives of inner steps are taken; see [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ModeName {
    /// Forward tangent of the gradient: less memory
    Mixed,
    /// Reverse over reverse: the reference
    Reverse,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Mixed => Self::Mixed,
            ModeName::Reverse => Self::Reverse,
        }
    }
}

/// What a run may change when it is resumed: nothing that decides a shape, a start value or which images are drawn.
const CHANGEABLE: [&str; 20] = [
    "checkpoint_every",
    "clip",
    "grow_steps",
    "learners",
    "learners_at_once",
    "leave_out",
    "mode",
    "outer_beta1",
    "outer_beta2",
    "outer_eps",
    "outer_lr",
    "outer_lr_end",
    "outer_steps",
    "outer_weight_decay",
    "patience",
    "rank_weight",
    "schedule",
    "segments",
    "validate_every",
    "validate_learners",
];

/// Settings that bring others of their own, which the user may not have given.
const LEADING: [&str; 2] = ["inner_optimizer", "learner"];

const RUN: &str = "Run";
const DATA: &str = "Data";
const SIZES: &str = "Sizes";
const NETWORKS: &str = "Networks";
const OPTIMISERS: &str = "Optimisers";

/// Everything that decides what a run computes.
#[derive(Clone, Debug, PartialEq, clap::Args, Serialize)]
pub struct Config {
    /// Seed of all random numbers
    #[arg(long, value_name = "N", default_value = "1", value_parser = natural(0), help_heading = RUN)]
    pub seed: u64,
    /// Data set: auto, mnist, fashion-mnist, cifar-10, cifar-100, embedded, or a file or folder of any usual format
    #[arg(long, value_name = "NAME|PATH", default_value = "auto", value_parser = DatasetChoice::from_str, help_heading = DATA)]
    pub dataset: DatasetChoice,
    /// What images are made into
    #[command(flatten)]
    #[serde(flatten)]
    pub want: Want,
    /// How real images are changed at random
    #[command(flatten)]
    #[serde(flatten)]
    pub augment: Augment,
    /// Outer steps: updates of the generator
    #[arg(long, value_name = "N", default_value = "1000", value_parser = natural(1), help_heading = SIZES)]
    pub outer_steps: u64,
    /// Inner steps T: updates of a learner, on one synthetic batch each
    #[arg(long, value_name = "T", default_value = "32", value_parser = count(), help_heading = SIZES)]
    pub inner_steps: usize,
    /// Begin with FROM inner steps, which grow evenly to all T in N outer steps; evaluations take all T [none: T from the start]
    #[arg(long, value_name = "FROM:N", default_value_t, hide_default_value = true, help_heading = SIZES)]
    pub grow_steps: Growth,
    /// Images in a synthetic batch
    #[arg(long, value_name = "B", default_value = "32", value_parser = count(), help_heading = SIZES)]
    pub inner_batch: usize,
    /// Synthetic examples that are learned, which a training goes through again and again [0: one for every place in it, T·B]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = count_or_none(), help_heading = SIZES)]
    pub examples: usize,
    /// Real images in each term of the meta-loss
    #[arg(long, value_name = "N", default_value = "128", value_parser = count(), help_heading = SIZES)]
    pub outer_batch: usize,
    /// The meta-loss sums the real-data loss after every K-th inner step and after the last
    #[arg(long, value_name = "K", default_value = "8", value_parser = count(), help_heading = SIZES)]
    pub outer_every: usize,
    /// Learners that an outer step trains on the same synthetic batches; the meta-loss is their mean
    #[arg(long, value_name = "K", default_value = "1", value_parser = count(), help_heading = SIZES)]
    pub learners_per_step: usize,
    /// How many of them share their kernels, a generator's work and a rank, if not all: results differ in rounding, and with --rank-by
    /// pairs are of those only [0: all]
    #[arg(long, value_name = "K", default_value = "0", hide_default_value = true, value_parser = count_or_none(), help_heading = SIZES)]
    pub learners_at_once: usize,
    /// Teach the order of a search space's networks, too: a file of known accuracies, as `gtn search correlate --truth` reads it, and if need be
    /// its column after a comma. Estimates by such a run are supervised [none: only what learners lose on real data]
    #[arg(long, value_name = "FILE[,COLUMN]", default_value_t, hide_default_value = true, help_heading = SIZES)]
    pub rank_by: RankBy,
    /// The part of the loss of pairs of learners, which is large where they stand in a wrong order by their meta-losses; the rest is the
    /// learners' mean
    #[arg(long, value_name = "X", default_value = "0.5", value_parser = fraction, help_heading = SIZES)]
    pub rank_weight: f64,
    /// Curriculum: which noise and labels each inner step uses
    #[arg(long, value_enum, default_value_t, help_heading = NETWORKS)]
    pub curriculum: Curriculum,
    /// Training images whose classes are known in a semi-supervised run, for the meta-loss; those that teach are the others
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count(), help_heading = NETWORKS)]
    pub labelled: usize,
    /// Where the synthetic images come from
    #[arg(long, value_enum, default_value_t, help_heading = NETWORKS)]
    pub images: ImagesChoice,
    /// What they are before the first outer step
    #[arg(long, value_enum, default_value_t, help_heading = NETWORKS)]
    pub start_images: StartImages,
    /// What the classes of synthetic images are
    #[arg(long, value_enum, default_value_t, help_heading = NETWORKS)]
    pub labels: LabelsChoice,
    /// Learners: a family, a text like 'conv 16 | relu | dense', a population (mixed), a search space (nasbench201)
    /// or a network of one (nasbench201:334131), or a TOML file. Another one comes with its own widths and norm
    #[arg(long, value_name = "NAME|TEXT|FILE", default_value_t, help_heading = NETWORKS)]
    pub learner: Learners,
    /// Normalisation, where a family or text has a place for it: none, `mean_only`, batch, instance, group N or layer
    #[arg(long, value_name = "NORM", default_value_t, help_heading = NETWORKS)]
    pub norm: Norm,
    /// Widths for the places that a family or text has: a number each, or a range to draw from, in steps or not (48-80/8)
    #[arg(long, value_name = "N-N,…", default_value = "16,32,48-80", help_heading = NETWORKS)]
    pub widths: Widths,
    /// Length of a noise vector
    #[arg(long, value_name = "N", default_value = "64", value_parser = count(), help_heading = NETWORKS)]
    pub noise: usize,
    /// Width of the generator's first layer
    #[arg(long, value_name = "N", default_value = "128", value_parser = count(), help_heading = NETWORKS)]
    pub generator_hidden: usize,
    /// Channels of the generator's small images (7×7, then 14×14; of larger images the first are more)
    #[arg(long, value_name = "N,N", default_value = "16,8", value_parser = two_counts, help_heading = NETWORKS)]
    pub generator_channels: [usize; 2],
    /// Optimiser of the inner steps; another one comes with another --inner-lr
    #[arg(long, value_enum, default_value_t, help_heading = OPTIMISERS)]
    pub inner_optimizer: OptimizerChoice,
    /// Hyper-parameters that are learned, as far as the optimiser has them: NAME (a number for each inner step) or
    /// NAME:shared (one for all); `none` for none
    #[arg(long, value_name = "NAME,…", default_value = "lr,momentum,beta1", help_heading = OPTIMISERS)]
    pub learn: LearnedNames,
    /// Whether all weights have one inner learning rate
    #[arg(long, value_enum, default_value_t, help_heading = OPTIMISERS)]
    pub inner_rates: Rates,
    /// Initial inner learning rate
    #[arg(long, value_name = "X", default_value = "0.2", value_parser = above_zero, help_heading = OPTIMISERS)]
    pub inner_lr: f64,
    /// Initial inner momentum
    #[arg(long, value_name = "X", default_value = "0.6", value_parser = between, help_heading = OPTIMISERS)]
    pub inner_momentum: f64,
    /// Initial decay of the mean gradient of the inner Adam or Lion
    #[arg(long, value_name = "X", default_value = "0.5", value_parser = below_one, help_heading = OPTIMISERS)]
    pub inner_beta1: f64,
    /// Initial decay of the inner optimiser's mean square
    #[arg(long, value_name = "X", default_value = "0.99", value_parser = below_one, help_heading = OPTIMISERS)]
    pub inner_beta2: f64,
    /// Initial epsilon, added to the root of that mean square
    #[arg(long, value_name = "X", default_value = "1e-4", value_parser = above_zero, help_heading = OPTIMISERS)]
    pub inner_eps: f64,
    /// Initial weight decay of the inner optimiser, of `AdamW` or Lion
    #[arg(long, value_name = "X", default_value = "0.01", value_parser = not_negative, help_heading = OPTIMISERS)]
    pub inner_weight_decay: f64,
    /// Optimiser of the outer steps
    #[arg(long, value_enum, default_value_t = OptimizerChoice(Optimizer::Adam), help_heading = OPTIMISERS)]
    pub outer_optimizer: OptimizerChoice,
    /// Learning rate in the outer loop; the default is for Adam
    #[arg(long, value_name = "X", default_value = "0.03", value_parser = above_zero, help_heading = OPTIMISERS)]
    pub outer_lr: f64,
    /// Final outer learning rate, as a fraction of --outer-lr (cosine decay)
    #[arg(long, value_name = "X", default_value = "0.1", value_parser = fraction, help_heading = OPTIMISERS)]
    pub outer_lr_end: f64,
    /// Decay of the outer optimiser's mean gradient, or its momentum
    #[arg(long, value_name = "X", default_value = "0.9", value_parser = below_one, help_heading = OPTIMISERS)]
    pub outer_beta1: f64,
    /// Decay of the outer optimiser's mean square, or Lion's of its mean gradient
    #[arg(long, value_name = "X", default_value = "0.99", value_parser = below_one, help_heading = OPTIMISERS)]
    pub outer_beta2: f64,
    /// The outer optimiser's epsilon, added to the root of the mean square
    #[arg(long, value_name = "X", default_value = "1e-8", value_parser = above_zero, help_heading = OPTIMISERS)]
    pub outer_eps: f64,
    /// Weight decay of the outer optimiser, of `AdamW` or Lion
    #[arg(long, value_name = "X", default_value = "0", value_parser = not_negative, help_heading = OPTIMISERS)]
    pub outer_weight_decay: f64,
    /// Clip the meta-gradient to this global norm; 0 disables clipping
    #[arg(long, value_name = "X", default_value = "0", value_parser = not_negative, help_heading = OPTIMISERS)]
    pub clip: f64,
    /// Leave out meta-gradients of a greater global norm, those of trainings that went wild or ran away (ten of which in a row end the run); 0 leaves
    /// out none
    #[arg(long, value_name = "X", default_value = "0", value_parser = not_negative, help_heading = OPTIMISERS)]
    pub leave_out: f64,
    /// How a meta-gradient is computed
    #[command(flatten)]
    #[serde(flatten)]
    pub engine: Engine,
    /// Validate a fresh learner every N outer steps
    #[arg(long, value_name = "N", default_value = "50", value_parser = natural(1), help_heading = RUN)]
    pub validate_every: u64,
    /// Fresh learners of a validation; the mean of their accuracies decides which checkpoint is the best, and of one it is noise
    #[arg(long, value_name = "N", default_value = "1", value_parser = few(), help_heading = RUN)]
    pub validate_learners: usize,
    /// End the training after N validations in a row without a better one [0: never]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = natural(0), help_heading = RUN)]
    pub patience: u64,
    /// Save a checkpoint every N outer steps
    #[arg(long, value_name = "N", default_value = "100", value_parser = natural(1), help_heading = RUN)]
    pub checkpoint_every: u64,
    /// Fresh learners to train in the evaluation, in each way
    #[arg(long, value_name = "N", default_value = "8", value_parser = count(), help_heading = RUN)]
    pub learners: usize,
}

/// How the engine computes a meta-gradient. Schedules and segments give the same bits, except windows, which truncate it.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args, Serialize)]
#[command(next_help_heading = "Engine")]
pub struct Engine {
    /// What to store for the backward pass: store-all, per-step, every-K, binomial-C (or binomial-C-prelude, with
    /// images), auto (the fastest in half of the free memory), lean (a balance of work and memory),
    /// budget-SIZE (as 64MiB), reversible-B or, truncated, window-W
    #[arg(long, value_name = "NAME", default_value = "store-all")]
    #[serde(serialize_with = "as_text")]
    pub schedule: Policy,
    /// Segments that a step's gradient is cut into: less memory for a deep learner, and more work
    #[arg(long, value_name = "N", default_value = "1", value_parser = count())]
    pub segments: usize,
    /// How derivatives of inner steps are taken
    #[arg(long, value_enum, default_value = "mixed")]
    pub mode: ModeName,
}

fn as_text<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

impl Config {
    /// All settings as TOML.
    pub fn to_toml(&self) -> String {
        self.table().to_string()
    }

    fn table(&self) -> Table {
        Table::try_from(self).expect("settings are plain values")
    }

    /// A setting that differs and that a run may not change: its name and both values. One that brings others comes
    /// before them.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let (ours, theirs) = (self.table(), other.table());
        // `--rank-by` forms pairs within a lot only, so there the size of lots changes results.
        let lots_count = self.rank_by.path().is_some();
        let changeable =
            |key: &str| CHANGEABLE.contains(&key) && !(lots_count && key == "learners_at_once");
        let (key, value) = ours
            .iter()
            .filter(|(key, value)| theirs.get(*key) != Some(value) && !changeable(key))
            .min_by_key(|(key, _)| !LEADING.contains(&key.as_str()))?;
        Some(format!("{key} is {value} here and {} there", theirs[key]))
    }

    /// The settings that differ from an earlier set: their names, each with the old and the new value.
    pub fn changes(&self, before: &Self) -> Table {
        let before = before.table();
        let ours = self.table().into_iter();
        ours.filter(|(key, value)| before.get(key) != Some(value))
            .map(|(key, value)| (key.clone(), vec![before[&key].clone(), value].into()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Problem;
    use crate::run::settings::Overrides;

    #[test]
    fn presets_are_sound_and_come_back_from_toml() {
        for &preset in Preset::value_variants() {
            let config = Config::preset(preset);
            assert_eq!(
                Config::from_toml("again", &config.to_toml()).unwrap(),
                config
            );
            config.generator(Problem::MNIST).unwrap();
            config.widest(Problem::MNIST).unwrap();
        }
    }

    #[test]
    fn settings_of_older_runs_are_understood() {
        let mut old = Config::preset(Preset::Quick).to_toml();
        // As the present version writes them; earlier versions lacked some of these settings.
        assert_eq!(old.lines().count(), 55);
        for line in [
            "generator_channels = [16, 8]",
            "learner = \"base_fc\"",
            "outer_eps = 0.00000001",
            "schedule = \"store-all\"",
            "widths = \"16,32,48-80\"",
        ] {
            assert!(old.lines().any(|found| found == line), "{line} in {old}");
        }
        let new = |line: &str| {
            let kept = ["inner_lr", "inner_momentum", "inner_steps", "inner_batch"];
            let name = line.split(' ').next().unwrap_or_default();
            let mut new = vec![
                "segments",
                "learners_per_step",
                "learn",
                "images",
                "start_images",
                "labels",
                "examples",
            ];
            new.extend([
                "resize",
                "channels",
                "crop",
                "flip",
                "cutout",
                "learners_at_once",
                "leave_out",
                "grow_steps",
                "labelled",
                "outer_optimizer",
                "outer_weight_decay",
                "patience",
                "rank_by",
                "rank_weight",
                "validate_learners",
            ]);
            new.contains(&name) || name.starts_with("inner_") && !kept.contains(&name)
        };
        let lines = old.lines().filter(|line| !new(line));
        old = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(old.lines().count(), 27);
        let config = Config::from_toml("old", &old).unwrap();
        assert_eq!((config.engine.segments, config.learners_per_step), (1, 1));
        let other = old.replace("seed = ", "seeds = ");
        assert!(Config::from_toml("old", &other).is_err());
    }

    #[test]
    fn a_difference_is_named() {
        let config = Config::preset(Preset::Quick);
        assert_eq!(config.difference(&config), None);
        let other = Config {
            inner_steps: 17,
            ..config.clone()
        };
        assert_eq!(
            config.difference(&other).unwrap(),
            "inner_steps is 32 here and 17 there"
        );
        let given = Overrides::default().with("inner_optimizer", Some("adam"));
        let adam = config.with(&given).unwrap();
        let named = "inner_optimizer is \"adam\" here and \"momentum\" there";
        assert_ne!(adam.inner_lr, config.inner_lr);
        assert_eq!(adam.difference(&config).unwrap(), named);
    }
}
