//! The data sets: MNIST and Fashion-MNIST from their files, and one that the program makes itself.
//!
//! All three hold 28 x 28 grey images of ten classes in three splits. Neither published set has a
//! validation split, so the last sixth of its training images (10,000 of 60,000) becomes one, and
//! the test images are left for the final report.

mod dataset;
pub mod idx;
pub mod strokes;
#[cfg(test)]
mod tests;

pub use dataset::{Card, Dataset, Problem, Split};

use crate::error::{Error, Result};
use clap::ValueEnum;
use dataset::mean_and_std;
use serde::Serialize;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Which data set to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetChoice {
    /// MNIST where its files are found, otherwise the embedded one
    #[default]
    Auto,
    /// MNIST, handwritten digits, from its files
    Mnist,
    /// Fashion-MNIST, pictures of clothes, from its files
    FashionMnist,
    /// Digits that the program draws itself; needs no files
    Embedded,
}

/// A data set that comes as four files.
#[derive(Debug)]
struct Published {
    choice: DatasetChoice,
    name: &'static str,
    title: &'static str,
    class_names: [&'static str; 10],
    mean: f32,
    std: f32,
    /// How its training labels begin: the two sets share file names and sizes, not these.
    first_labels: [u8; 10],
}

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

const MNIST: Published = Published {
    choice: DatasetChoice::Mnist,
    name: "mnist",
    title: "MNIST",
    class_names: DIGITS,
    mean: 0.1307,
    std: 0.3081,
    first_labels: [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
};

const FASHION_MNIST: Published = Published {
    choice: DatasetChoice::FashionMnist,
    name: "fashion-mnist",
    title: "Fashion-MNIST",
    class_names: [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    mean: 0.2860,
    std: 0.3530,
    first_labels: [9, 0, 0, 3, 0, 2, 7, 2, 5, 5],
};

/// Loads the chosen data set.
///
/// Files are looked for in `data_dir` (the flag `--data-dir`) and nowhere else where it is given, otherwise in the
/// folder that the environment's `GTN_DATA_DIR` names, and only without both in `./data`: directly, in a subfolder of the
/// set's name, and in a subfolder `raw` of these, as torchvision has it. `seed` decides the embedded set's images and
/// nothing else. A folder that holds some of the four files and not all is an error.
///
/// # Errors
/// If the set is nowhere, or a file of it is missing, damaged or of another kind.
pub fn load(choice: DatasetChoice, data_dir: Option<&Path>, seed: u64) -> Result<Dataset> {
    let env = std::env::var_os("GTN_DATA_DIR")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let place = Place::new(data_dir, env);
    let found = |set| place.find(set).unwrap_or_else(|| Err(place.nothing(set)));
    match choice {
        DatasetChoice::Auto if place.by.is_none() => place.find(&MNIST).unwrap_or_else(|| {
            let why = "no MNIST was found: GTN_DATA_DIR is not set, none in ./data";
            Ok(embedded(seed, why))
        }),
        DatasetChoice::Auto | DatasetChoice::Mnist => found(&MNIST),
        DatasetChoice::FashionMnist => found(&FASHION_MNIST),
        DatasetChoice::Embedded => Ok(embedded(seed, "it was asked for")),
    }
}

/// Where files are looked for.
struct Place {
    folder: PathBuf,
    /// What names it, if the user did.
    by: Option<&'static str>,
}

/// The names that a message lists; a folder may hold thousands.
const LISTED: usize = 12;

impl Place {
    fn new(flag: Option<&Path>, env: Option<PathBuf>) -> Self {
        let flag = flag.map(|folder| (folder.to_owned(), "--data-dir"));
        match flag.or(env.map(|folder| (folder, "GTN_DATA_DIR"))) {
            Some((folder, by)) => Self {
                folder,
                by: Some(by),
            },
            None => Self {
                folder: "data".into(),
                by: None,
            },
        }
    }

    /// The data set, if any of its files is there.
    fn find(&self, set: &Published) -> Option<Result<Dataset>> {
        let why = self.by.map(|by| format!("{by} names it"));
        read_in(set, &self.folder, why.as_deref().unwrap_or("it is there"))
    }

    /// The error that a data set is not there, with what is there.
    fn nothing(&self, set: &Published) -> Error {
        let (title, subfolder, file) = (set.title, set.name, FILES[0]);
        let Some(by) = self.by else {
            let where_ = "GTN_DATA_DIR is not set, none in ./data";
            let error = Error::data(format!("no {title} found ({where_})"));
            return error.hint("name its folder with --data-dir");
        };
        let places = format!("no {title} there or in its folder {subfolder}");
        Error::data(format!("{places}: no {file}, with or without .gz"))
            .and(self.seen())
            .at(format!("{by} {}", self.folder.display()))
    }

    fn seen(&self) -> String {
        if !self.folder.is_dir() {
            let file = self.folder.exists();
            return if file {
                "it is a file"
            } else {
                "there is no such folder"
            }
            .to_owned();
        }
        let entries = idx::entries(&self.folder);
        let names = entries.iter().filter_map(|entry| entry.file_name());
        let names: Vec<_> = names.take(LISTED).map(OsStr::to_string_lossy).collect();
        match entries.len() {
            0 => "it is empty".to_owned(),
            count if count > LISTED => {
                format!("seen: {}, and {} more", names.join(", "), count - LISTED)
            }
            _ => format!("seen: {}", names.join(", ")),
        }
    }
}

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// The data set in `folder` or one of its subfolders, if any of its files is there.
fn read_in(set: &Published, folder: &Path, why: &str) -> Option<Result<Dataset>> {
    let squeezed = |name: &str| name.replace('-', "");
    let entries = idx::entries(folder);
    let named = |wanted: &str| {
        let is = |path: &PathBuf| {
            let name = path.file_name().map(idx::plain);
            name.is_some_and(|name| squeezed(&name) == squeezed(wanted))
        };
        entries.iter().filter(|path| is(path)).cloned().collect()
    };
    let mut places: Vec<PathBuf> = named(set.name);
    places.push(folder.to_owned());
    let raw = places.clone().into_iter().map(|place| place.join("raw"));
    let places: Vec<PathBuf> = places.iter().cloned().chain(raw).collect();
    let has_some = |dir: &PathBuf| FILES.iter().any(|file| idx::find(&dir.join(file)).is_ok());
    let dir = places.into_iter().find(has_some)?;
    Some(read_published(set, &dir, why))
}

fn read_published(set: &Published, folder: &Path, why: &str) -> Result<Dataset> {
    let read = |images, labels| {
        let [rows, columns, _] = Problem::MNIST.image;
        let size = [rows as u32, columns as u32];
        let classes = Problem::MNIST.classes as u8;
        idx::read_labelled(&folder.join(images), &folder.join(labels), size, classes)
    };
    let test = read(FILES[2], FILES[3])?;
    if test.is_empty() {
        return Err(Error::data("no test images").at(folder.join(FILES[2]).display()));
    }
    let all = read(FILES[0], FILES[1])?;
    let other = [&MNIST, &FASHION_MNIST]
        .into_iter()
        .find(|other| other.name != set.name);
    if let Some(other) = other.filter(|other| starts_as(&all.labels, other)) {
        let (wanted, found, name) = (set.title, other.title, other.name);
        let problem = format!("these are the files of {found}, not of {wanted}");
        let error = Error::data(problem).at(folder.display());
        return Err(error.hint(format!("--dataset {name}")));
    }
    if all.len() < 6 {
        let problem = format!(
            "{} training images, and no fewer than 6 can be split",
            all.len()
        );
        return Err(Error::data(problem).at(folder.display()));
    }
    let count = all.len();
    let (train, validation) = all.split_at(count - count / 6);
    let origin = format!("{} from {}, because {why}", set.title, folder.display());
    Ok(Dataset {
        choice: set.choice,
        card: Card {
            name: set.name.to_owned(),
            place: Some(std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())),
            problem: Problem::MNIST,
            class_names: set.class_names.map(str::to_owned).to_vec(),
            mean: vec![set.mean],
            std: vec![set.std],
        },
        train,
        validation,
        test,
        origin,
    })
}

fn starts_as(labels: &[u16], set: &Published) -> bool {
    labels.starts_with(&set.first_labels.map(u16::from))
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
                mean,
                std,
            },
            train,
            validation,
            test,
            origin: "digits drawn by the program itself".to_owned(),
        }
    }
}

/// The data set that needs no files, in its usual sizes.
fn embedded(seed: u64, why: &str) -> Dataset {
    Dataset {
        origin: format!("digits drawn by the program itself, because {why}"),
        ..Dataset::drawn(seed, [20_000, 2_000, 5_000])
    }
}
