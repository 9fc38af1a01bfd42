//! Which data set is asked for, and what its images are made into.

use super::Problem;
use clap::ValueEnum;
use clap::builder::{RangedU64ValueParser, TypedValueParser};
use serde::{Serialize, Serializer};
use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Which data set to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DatasetChoice {
    /// MNIST where its files are found, otherwise the embedded one.
    #[default]
    Auto,
    /// One that is known by its name, from its files.
    Named(Named),
    /// Digits that the program draws itself; needs no files.
    Embedded,
    /// Whatever this file or folder holds.
    At(PathBuf),
}

/// The data sets that are known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Handwritten digits.
    Mnist,
    /// Pictures of clothes.
    FashionMnist,
    /// Small photographs, ten classes.
    Cifar10,
    /// Small photographs, a hundred classes.
    Cifar100,
}

impl Named {
    pub(super) const ALL: [Self; 4] = [
        Self::Mnist,
        Self::FashionMnist,
        Self::Cifar10,
        Self::Cifar100,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar-10",
            Self::Cifar100 => "cifar-100",
        }
    }

    /// The task that it sets, as it is published.
    fn problem(self) -> Problem {
        let photographs = |classes| Problem {
            image: [32, 32, 3],
            classes,
        };
        match self {
            Self::Mnist | Self::FashionMnist => Problem::MNIST,
            Self::Cifar10 => photographs(10),
            Self::Cifar100 => photographs(100),
        }
    }

    /// Its proper name, for people to read.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Mnist => "MNIST",
            Self::FashionMnist => "Fashion-MNIST",
            Self::Cifar10 => "CIFAR-10",
            Self::Cifar100 => "CIFAR-100",
        }
    }
}

impl DatasetChoice {
    /// The task that it sets, with its images as wanted; `None` of a file or folder, which has to be read for that.
    pub fn problem(&self, want: Want) -> Option<Problem> {
        let Problem { image, classes } = match self {
            Self::Auto | Self::Embedded => Problem::MNIST,
            Self::Named(named) => named.problem(),
            Self::At(_) => return None,
        };
        let image = want.shape(image);
        Some(Problem { image, classes })
    }
}

impl FromStr for DatasetChoice {
    type Err = Infallible;

    /// A name, or else a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let named = Named::ALL.into_iter().find(|named| named.name() == text);
        Ok(match (text, named) {
            ("auto", _) => Self::Auto,
            ("embedded", _) => Self::Embedded,
            (_, Some(named)) => Self::Named(named),
            (path, None) => Self::At(path.into()),
        })
    }
}

impl fmt::Display for DatasetChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Embedded => f.write_str("embedded"),
            Self::Named(named) => f.write_str(named.name()),
            Self::At(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for DatasetChoice {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// What images are made into as they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args, Serialize)]
#[command(next_help_heading = "Data")]
pub struct Want {
    /// Make all images N×N pixels; 0 leaves them as they are
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = side())]
    pub resize: usize,
    /// Make all images grey, or all coloured
    #[arg(long, value_enum, default_value_t)]
    pub channels: Channels,
}

/// A megapixel is more than enough.
fn side() -> impl TypedValueParser<Value = usize> {
    let range = RangedU64ValueParser::<u64>::new().range(0..=1024);
    range.map(|side| side as usize)
}

/// Grey or coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Channels {
    /// As the images are
    #[default]
    AsIs,
    /// One channel: 0.299 red + 0.587 green + 0.114 blue
    Grey,
    /// Three channels: red, green, blue
    Colour,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_a_known_set_needs_no_files() {
        let problem = |name: &str, resize, channels| {
            let choice: DatasetChoice = name.parse().unwrap();
            choice.problem(Want { resize, channels })
        };
        let as_is = |name| problem(name, 0, Channels::AsIs);
        for name in ["auto", "embedded", "mnist", "fashion-mnist"] {
            assert_eq!(as_is(name), Some(Problem::MNIST), "{name}");
        }
        let small = problem("cifar-10", 16, Channels::Grey).unwrap();
        assert_eq!((small.image, small.classes), ([16, 16, 1], 10));
        assert_eq!(as_is("cifar-100").unwrap().classes, 100);
        assert_eq!(as_is("some/folder"), None);
    }
}
