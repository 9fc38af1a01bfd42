//! Settings of `gtn search`.

use super::work::WorkArgs;
use crate::nn::Space;
use crate::outer::order::RankBy;
use crate::run::values::{above_zero, count, count_or_none, natural};
use crate::search::{Estimator, Strategy};
use clap::Args;
use std::path::PathBuf;

/// Settings of the search.
#[derive(Debug, Args)]
pub(super) struct FindArgs {
    /// The folder of a run, which teaches [default: one is trained first, on networks of the space]
    #[arg(value_name = "RUN")]
    pub(super) run: Option<PathBuf>,
    /// Without a run: the data set, as for `gtn train`
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "run")]
    pub(super) dataset: Option<String>,
    /// Without a run: make all images N×N pixels
    #[arg(long, value_name = "N", conflicts_with = "run")]
    pub(super) resize: Option<usize>,
    /// Without a run: a TOML file with other settings of the training that makes the teacher
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    pub(super) config: Option<PathBuf>,
    /// Without a run: accuracies of networks of the space, whose order the teacher learns, too, by the preset `search`: see
    /// `gtn train --rank-by`. They need not be on these images
    #[arg(long, value_name = "FILE[,COLUMN]", conflicts_with = "run")]
    pub(super) rank_by: Option<RankBy>,
    /// Without a run: outer steps of that training [default: those of the file; with --rank-by of the preset; else 150]
    #[arg(long, value_name = "N", value_parser = natural(1), conflicts_with = "run")]
    pub(super) teacher_steps: Option<u64>,
    /// The space [default: the run's, or nasbench201,channels=8,cells=1]
    #[arg(long, value_name = "SPACE")]
    pub(super) space: Option<Space>,
    /// How networks are proposed
    #[arg(long, value_enum, default_value_t)]
    pub(super) strategy: Strategy,
    /// Networks to try
    #[arg(long, value_name = "N", default_value = "100", value_parser = count())]
    pub(super) networks: usize,
    /// End after so many minutes, if that is earlier; without a run at most half of them are its teacher's
    #[arg(long, value_name = "X", value_parser = above_zero)]
    pub(super) minutes: Option<f64>,
    /// End after so many inner steps of learners in all, if that is earlier
    #[arg(long, value_name = "N", value_parser = natural(1))]
    pub(super) inner_steps: Option<u64>,
    /// What to rank by, as for `gtn search correlate`
    #[arg(
        long,
        value_name = "NAME",
        default_value = "gtn+structure",
        allow_hyphen_values = true
    )]
    pub(super) estimator: Estimator,
    /// At the end train the best N on all training images; then the most accurate on the validation images is the best [0: none]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = count_or_none())]
    pub(super) fit: usize,
    /// Times that these see every training image
    #[arg(long, value_name = "N", default_value = "3", value_parser = natural(1))]
    pub(super) fit_epochs: u64,
    /// Seed of what is proposed
    #[arg(long, value_name = "N", default_value = "1", value_parser = natural(0))]
    pub(super) seed: u64,
    /// Networks to show
    #[arg(long, value_name = "N", default_value = "10", value_parser = count())]
    pub(super) top: usize,
    /// Folder for the results, and to go on with those that are there [default: search in the run's folder, or ./search]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) work: WorkArgs,
}
