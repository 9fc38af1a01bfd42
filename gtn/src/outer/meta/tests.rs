//! Outer steps of small learners: replay, resume, lots, mistakes.

use super::*;
use crate::data::Augment;
use crate::nn::{Learners, Norm};
use crate::outer::curriculum::{Curriculum, ImagesChoice, LabelsChoice, StartImages};
use crate::outer::hyper::OptimizerChoice;
use crate::outer::rule::{Rates, is_reached};
use crate::run::config::{Config, Preset};
use clap::ValueEnum;

mod limits;
mod replay;
mod several;
mod taught;

fn config(curriculum: Curriculum) -> Config {
    Config {
        curriculum,
        outer_steps: 4,
        inner_steps: 3,
        inner_batch: 10,
        outer_batch: 20,
        outer_every: 2,
        widths: "2-3,3-4,4".parse().unwrap(),
        noise: 4,
        generator_hidden: 8,
        generator_channels: [3, 2],
        norm: Norm::MeanOnly,
        inner_lr: 0.02,
        ..Config::preset(Preset::Quick)
    }
}

fn data() -> Dataset {
    Dataset::drawn(1, [100, 50, 50])
}

fn trainer(config: &Config, threads: usize) -> MetaTrainer {
    let device = Device::cpu(Some(threads)).unwrap();
    MetaTrainer::new(&device, config, Problem::MNIST).unwrap()
}
