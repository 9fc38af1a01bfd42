//! `gtn data`: what is in a data set.

use super::{Files, Outcome, pictures, print, say, show};
use crate::data::{DatasetChoice, Place, Survey, Want, load};
use crate::error::Result;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::str::FromStr;

/// Settings of `gtn data`.
#[derive(Debug, Args)]
pub(super) struct DataArgs {
    /// A data set: mnist, fashion-mnist, cifar-10, cifar-100, embedded, or a file or folder
    #[arg(value_name = "NAME|PATH", value_parser = DatasetChoice::from_str)]
    dataset: DatasetChoice,
    #[command(flatten)]
    want: Want,
    /// Seed that draws validation images, and test images where a data set has none
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Draw some training images to a PNG file, a row for each class
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
    /// End with one JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// The object that the command ends with.
#[derive(Serialize)]
struct Surveyed {
    command: &'static str,
    #[serde(flatten)]
    survey: Survey,
}

pub(super) fn run(args: &DataArgs) -> Result<Outcome> {
    let place = Place::new(args.files.data_dir.as_deref(), None);
    let data = load(&args.dataset, args.want, &place, args.seed)?;
    say(&format!("Data: {}", data.origin));
    if let Some(path) = &args.picture {
        pictures::samples_of(&data)?.write(path)?;
        say(&format!("Wrote {}", path.display()));
    }
    let survey = Survey::of(&data);
    show(&survey.text())?;
    if args.json {
        let command = "data";
        print(&Surveyed { command, survey })?;
    }
    Ok(Outcome::Done)
}
