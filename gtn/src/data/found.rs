//! Turns what a reader found into a data set: converts the images, checks them, splits them, and computes
//! statistics.

use super::dataset::mean_and_std;
use super::{Card, Dataset, DatasetChoice, Problem, Split, Want};
use crate::device::{lack_of_memory, size};
use crate::error::{Error, Result};
use crate::seeds::{Draw, rng};
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The most classes of a data set.
const MOST_CLASSES: usize = 1000;

/// What a reader found.
#[derive(Debug)]
pub(super) struct Found {
    /// A short name, for tables and folder names.
    pub(super) name: String,
    /// The file or folder that it was read from.
    pub(super) place: PathBuf,
    /// Rows, columns and channels of the images.
    pub(super) image: [usize; 3],
    /// The name of the class of each label.
    pub(super) class_names: Vec<String>,
    /// Images to train on.
    pub(super) train: Split,
    /// Validation images; without them some training images are held out.
    pub(super) validation: Option<Split>,
    /// Test images; without them some training images are held out.
    pub(super) test: Option<Split>,
    /// Published mean and standard deviation of the images before any conversion.
    pub(super) statistics: Option<(Vec<f32>, Vec<f32>)>,
    /// How validation images are held out of the training images.
    pub(super) held_out: HeldOut,
}

/// How images are held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldOut {
    /// The last 1/N of the images, for this N.
    Last(usize),
    /// A random 1/N of every class, for this N, drawn by the seed.
    Drawn(usize),
}

impl Found {
    /// Makes a data set of it; `why` says why this one, for the data set's `origin`.
    ///
    /// # Errors
    /// If its images cannot be used; the error says where they are.
    pub(super) fn dataset(
        self,
        choice: DatasetChoice,
        want: Want,
        seed: u64,
        why: &str,
    ) -> Result<Dataset> {
        let place = self.place.clone();
        let built = self.build(choice, want, seed, why);
        built.map_err(|error| error.at(place.display()))
    }

    fn build(self, choice: DatasetChoice, want: Want, seed: u64, why: &str) -> Result<Dataset> {
        check_count(self.class_names.len())?;
        let image = want.shape(self.image);
        let parts = [
            Some(&self.train),
            self.validation.as_ref(),
            self.test.as_ref(),
        ];
        let count = parts.into_iter().flatten().map(Split::len).sum();
        want.check(count, self.image)?;
        let convert = |split| want.split(split, self.image);
        let drawn = match self.test {
            Some(_) => "",
            None => {
                "; it has no test images: a sixth of each class, drawn by the seed, is kept for the test"
            }
        };
        let (train, test) = given_or_drawn(
            convert(self.train),
            self.test.map(convert),
            HeldOut::Drawn(6),
            (seed, Draw::TestSplit),
        )?;
        let (train, validation) = given_or_drawn(
            train,
            self.validation.map(convert),
            self.held_out,
            (seed, Draw::ValidationSplit),
        )?;
        let published = self.statistics.filter(|_| image == self.image);
        let own = || -> Result<_> {
            let (mean, std) = mean_and_std(&train.images, image[2]);
            Ok((mean, divisors(std)?))
        };
        let (mean, std) = published.map_or_else(own, Ok)?;
        let title = match &choice {
            DatasetChoice::Named(set) => set.title(),
            _ => &self.name,
        };
        let place = self.place.display();
        let origin = format!("{title} from {place}, because {why}{drawn}");
        let absolute = std::path::absolute(&self.place);
        Ok(Dataset {
            choice,
            card: Card {
                name: self.name,
                place: Some(absolute.unwrap_or(self.place)),
                problem: Problem {
                    image,
                    classes: self.class_names.len(),
                },
                class_names: self.class_names,
                images: Some([&train, &validation, &test].map(Split::len)),
                mean,
                std,
            },
            train,
            validation,
            test,
            origin,
        })
    }
}

/// What each channel is divided by: its standard deviation, or 1 for a channel that never changes. After the
/// mean is subtracted, such a channel is 0 everywhere.
fn divisors(std: Vec<f32>) -> Result<Vec<f32>> {
    if std.iter().all(|&spread| spread == 0.0) {
        return Err(Error::data("all training images have one colour"));
    }
    let or_one = |spread| if spread == 0.0 { 1.0 } else { spread };
    Ok(std.into_iter().map(or_one).collect())
}

/// The training images that are left, and the images of another part: those given, or else some held out of
/// the training images.
fn given_or_drawn(
    train: Split,
    given: Option<Split>,
    held: HeldOut,
    draw: (u64, Draw),
) -> Result<(Split, Split)> {
    match given {
        Some(part) if part.is_empty() => Err(Error::data("a part for validation or test is empty")),
        Some(part) => Ok((train, part)),
        None => hold_out(train, held, draw),
    }
}

/// The name of a data set that is read from `path`: that of the file or folder, without a file extension.
pub(super) fn name_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let stem = if absolute.is_dir() {
        absolute.file_name()
    } else {
        absolute.file_stem()
    };
    let name = stem.map(|stem| stem.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "images".to_owned())
}

fn check_count(classes: usize) -> Result<()> {
    let problem = match classes {
        2..=MOST_CLASSES => return Ok(()),
        0 | 1 => "all images are of one class, and learners need two or more to tell apart".into(),
        _ => format!("{classes} classes, and {MOST_CLASSES} are the most"),
    };
    Err(Error::data(problem))
}

/// Splits in two: what is left, and what is held out.
fn hold_out(split: Split, held: HeldOut, (seed, draw): (u64, Draw)) -> Result<(Split, Split)> {
    let count = split.len();
    match held {
        HeldOut::Last(parts) if count < parts => {
            let least = format!("no fewer than {parts} can be split");
            Err(Error::data(format!("{count} training images, and {least}")))
        }
        HeldOut::Last(parts) => Ok(split.split_at(count - count / parts)),
        HeldOut::Drawn(parts) => {
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut rng(seed, draw, 0, 0));
            order.sort_by_key(|&i| split.labels[i]);
            let mut held = vec![false; count];
            for class in order.chunk_by(|&i, &j| split.labels[i] == split.labels[j]) {
                for &i in &class[..class.len() / parts] {
                    held[i] = true;
                }
            }
            if !held.contains(&true) {
                let problem =
                    format!("no class has {parts} training images, of which one could be held out");
                return Err(Error::data(problem));
            }
            Ok([false, true]
                .map(|wanted| split.part(|i| held[i] == wanted))
                .into())
        }
    }
}

/// Images, and their labels as a file has them.
#[derive(Debug)]
pub(super) struct Labelled<L> {
    pub(super) images: Vec<u8>,
    pub(super) labels: Vec<L>,
}

impl<L: Ord + Display> Labelled<L> {
    /// Replaces labels by class numbers: the places of labels in sorted order.
    fn numbered(self, classes: &BTreeMap<&L, u16>) -> Result<Split> {
        let number = |(i, label)| {
            classes.get(label).copied().ok_or_else(|| {
                let problem = "as no training image has";
                Error::data(format!("test image {i} has the label {label}, {problem}"))
            })
        };
        let labels = self.labels.iter().enumerate().map(number);
        Ok(Split {
            labels: labels.collect::<Result<_>>()?,
            images: self.images,
        })
    }
}

impl Found {
    /// Images of that size. Their classes are the labels of the training images, sorted.
    ///
    /// # Errors
    /// If a test image has a label that no training image has.
    pub(super) fn of_labels<L: Ord + Display + Clone>(
        path: &Path,
        image: [usize; 3],
        train: Labelled<L>,
        test: Option<Labelled<L>>,
    ) -> Result<Self> {
        let labels: BTreeSet<L> = train.labels.iter().cloned().collect();
        check_count(labels.len())?;
        let classes = labels.iter().zip(0..).collect();
        Ok(Self {
            name: name_of(path),
            place: path.to_owned(),
            image,
            class_names: labels.iter().map(ToString::to_string).collect(),
            train: train.numbered(&classes)?,
            validation: None,
            test: test.map(|test| test.numbered(&classes)).transpose()?,
            statistics: None,
            held_out: HeldOut::Drawn(6),
        })
    }
}

/// Refuses images that do not fit into memory.
pub(super) fn check_memory(bytes: f64) -> Result<()> {
    let Some(why) = lack_of_memory(bytes) else {
        return Ok(());
    };
    let problem = format!("images of {}, and {why}", size(bytes));
    Err(Error::data(problem).hint("smaller images (--resize N) or fewer take less"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_grow_beyond_all_memory_are_refused_before_they_are_made() {
        // 16 million images of a pixel that shall be of 3 MiB each.
        let count = 1 << 24;
        let train = Labelled {
            images: vec![0; count],
            labels: (0..count).map(|i| i % 2).collect(),
        };
        let found = Found::of_labels(Path::new("large"), [1, 1, 1], train, None).unwrap();
        let want = Want {
            resize: 1024,
            channels: super::super::Channels::Colour,
        };
        let made = found.dataset(DatasetChoice::Embedded, want, 1, "it is a test");
        let error = made.unwrap_err().to_string();
        assert!(
            error.starts_with("large: images of 49152.0 GiB, and "),
            "{error}"
        );
    }

    #[test]
    fn a_channel_that_never_changes_is_divided_by_one() {
        assert_eq!(divisors(vec![0.25, 0.5, 0.0]).unwrap(), [0.25, 0.5, 1.0]);
        for std in [vec![0.0], vec![0.0; 3]] {
            let error = divisors(std).unwrap_err().to_string();
            assert_eq!(error, "all training images have one colour");
        }
    }
}
