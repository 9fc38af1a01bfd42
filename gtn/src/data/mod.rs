//! Data sets: those of the user, in any of the usual formats, some that are known by name, and one that the program
//! draws itself.
//!
//! Each is images of one size, as bytes, in three splits. Where there are no validation images, a share of the training images
//! becomes them; the test images are left for the final report.

mod arrays;
mod augment;
mod choice;
mod cifar;
mod convert;
pub mod coreset;
mod dataset;
mod folders;
mod found;
pub mod idx;
mod mnist;
mod pickle;
mod place;
pub mod strokes;
mod survey;
mod table;
#[cfg(test)]
mod tests;

pub use augment::Augment;
pub use choice::{Channels, DatasetChoice, Named, Want};
pub use dataset::{Card, Dataset, Problem, Split};
pub use place::Place;
pub use survey::Survey;

use crate::error::{Error, Result};
use dataset::mean_and_std;
use found::Found;
use mnist::{DIGITS, FASHION_MNIST, MNIST};
use place::seen;
use std::path::Path;

/// Reads a data set at a path if it is of the reader's format; otherwise gives `None`.
type Reader = fn(&Path, Want) -> Option<Result<Found>>;

const READERS: [Reader; 5] = [
    mnist::read,
    cifar::read,
    folders::read,
    arrays::read,
    table::read,
];

/// Loads the chosen data set.
///
/// The files of one with a name are looked for in a place: directly, in a subfolder of the set's name, and in
/// a subfolder `raw` of these, as torchvision has it. `seed` decides the embedded set's images, and which
/// images are held out of a set without published splits. A folder that holds some of the files and not all
/// is an error.
///
/// # Errors
/// If the set is nowhere, or a file of it is missing, damaged or of another kind, or its images are of no use.
pub fn load(choice: &DatasetChoice, want: Want, place: &Place, seed: u64) -> Result<Dataset> {
    match choice {
        DatasetChoice::Auto => match named(Named::Mnist, want, place, seed) {
            Some(found) => found,
            None if place.by.is_some() => Err(nothing(Named::Mnist, place)),
            None => {
                let why = "no MNIST was found: GTN_DATA_DIR is not set, none in ./data";
                embedded(want, seed, why)
            }
        },
        DatasetChoice::Named(set) => {
            let found = named(*set, want, place, seed);
            found.unwrap_or_else(|| Err(nothing(*set, place)))
        }
        DatasetChoice::Embedded => embedded(want, seed, "it was asked for"),
        DatasetChoice::At(path) => at(path, want, seed),
    }
}

fn named(set: Named, want: Want, place: &Place, seed: u64) -> Option<Result<Dataset>> {
    let folders = place.folders(set);
    let found = match set {
        Named::Mnist => mnist::read_named(&MNIST, &folders),
        Named::FashionMnist => mnist::read_named(&FASHION_MNIST, &folders),
        Named::Cifar10 | Named::Cifar100 => cifar::read_named(set, &folders),
    }?;
    let choice = DatasetChoice::Named(set);
    Some(found.and_then(|found| found.dataset(choice, want, seed, &place.why())))
}

fn nothing(set: Named, place: &Place) -> Error {
    place.nothing(
        set,
        match set {
            Named::Mnist | Named::FashionMnist => "train-images-idx3-ubyte, with or without .gz",
            Named::Cifar10 | Named::Cifar100 => cifar::file_of(set),
        },
    )
}

/// Whatever a file or folder holds.
fn at(path: &Path, want: Want, seed: u64) -> Result<Dataset> {
    if !path.exists() {
        let names = Named::ALL.map(Named::name).join(", ");
        let problem = format!(
            "no data set `{}`: there is no such file or folder",
            path.display()
        );
        let error = Error::usage(problem);
        let hint = "--data-dir says where the data of a run has moved to";
        return Err(error.hint(format!("names are auto, {names} and embedded; {hint}")));
    }
    let found = READERS.iter().find_map(|read| read(path, want));
    let unknown = || {
        let error = Error::data("no data set that gtn can read").and(seen(path));
        Err(error
            .at(path.display())
            .hint("docs/data.md lists the formats"))
    };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let choice = DatasetChoice::At(absolute);
    found
        .unwrap_or_else(unknown)?
        .dataset(choice, want, seed, "it was asked for")
}

/// The data set that needs no files, in its usual sizes.
fn embedded(want: Want, seed: u64, why: &str) -> Result<Dataset> {
    let mut data = Dataset::drawn(seed, [20_000, 2_000, 5_000]);
    data.origin = format!("digits drawn by the program itself, because {why}");
    data.converted(want)
}

impl Dataset {
    /// Digits that the program draws itself: so many images to train on, to validate with, to test with.
    pub fn drawn(seed: u64, counts: [usize; 3]) -> Self {
        let [train, validation, test] =
            [0, 1, 2].map(|i| strokes::draw(seed, i, counts[i as usize]));
        let (mean, std) = mean_and_std(&train.images, 1);
        Self {
            choice: DatasetChoice::Embedded,
            card: Card {
                name: "embedded".to_owned(),
                place: None,
                problem: Problem::MNIST,
                class_names: DIGITS.map(str::to_owned).to_vec(),
                images: Some(counts),
                mean,
                std,
            },
            train,
            validation,
            test,
            origin: "digits drawn by the program itself".to_owned(),
        }
    }

    /// Converts all images as asked, and computes their statistics anew.
    fn converted(mut self, want: Want) -> Result<Self> {
        let from = self.card.problem.image;
        let counts = [&self.train, &self.validation, &self.test].map(Split::len);
        want.check(counts.iter().sum(), from)?;
        if want.shape(from) != from {
            for split in [&mut self.train, &mut self.validation, &mut self.test] {
                *split = want.split(std::mem::take(split), from);
            }
            self.card.problem.image = want.shape(from);
            let channels = self.card.problem.image[2];
            (self.card.mean, self.card.std) = mean_and_std(&self.train.images, channels);
        }
        Ok(self)
    }
}
