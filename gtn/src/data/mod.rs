//! The data sets: MNIST and Fashion-MNIST from their files, and one that the program makes itself.
//!
//! All three hold 28 x 28 grey images of ten classes in three splits. Neither published set has a
//! validation split, so the last sixth of its training images (10,000 of 60,000) becomes one, and
//! the test images are left for the final report.

pub mod idx;
pub mod strokes;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Rows, and columns, of an image.
pub const SIDE: usize = 28;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;
/// Classes of every data set.
pub const CLASSES: usize = 10;

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

/// Labelled images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// [`PIXELS`] bytes per image, row by row, 0 for the background.
    pub images: Vec<u8>,
    /// One class per image, below [`CLASSES`].
    pub labels: Vec<u8>,
}

impl Split {
    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of image `i`.
    pub fn image(&self, i: usize) -> &[u8] {
        &self.images[i * PIXELS..][..PIXELS]
    }

    /// The first `count` images, and the others.
    fn split_at(mut self, count: usize) -> (Split, Split) {
        let images = self.images.split_off(count * PIXELS);
        let labels = self.labels.split_off(count);
        (self, Split { images, labels })
    }
}

/// A data set, read or made, and how to normalise its pixels.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Which it is; never `Auto`.
    pub choice: DatasetChoice,
    /// What learners of real data train on.
    pub train: Split,
    /// What the meta-loss and every choice made during a run look at.
    pub validation: Split,
    /// What only the final report looks at.
    pub test: Split,
    /// Mean of the training pixels divided by 255.
    pub mean: f32,
    /// Standard deviation of the training pixels divided by 255.
    pub std: f32,
    /// One sentence for the user: which data set this is, and why this one.
    pub origin: String,
}

impl Dataset {
    /// Digits that the program draws itself: so many images to train on, to validate with, to test with.
    pub fn drawn(seed: u64, counts: [usize; 3]) -> Self {
        let [train, validation, test] =
            [0, 1, 2].map(|i| strokes::draw(seed, i, counts[i as usize]));
        let (mean, std) = mean_and_std(&train.images);
        Self {
            choice: DatasetChoice::Embedded,
            train,
            validation,
            test,
            mean,
            std,
            origin: "digits drawn by the program itself".to_owned(),
        }
    }

    /// The chosen images of one of the splits as a learner takes them: `(p / 255 - mean) / std`,
    /// of shape `[indices.len(), 28, 28, 1]`.
    ///
    /// ```
    /// use gtn::data::{DatasetChoice, PIXELS, load};
    ///
    /// let data = load(DatasetChoice::Embedded, None, 1)?;
    /// let batch = data.normalised(&data.validation, &[3, 1, 4]);
    /// assert_eq!(batch.len(), 3 * PIXELS);
    /// # Ok::<(), gtn::error::Error>(())
    /// ```
    pub fn normalised(&self, split: &Split, indices: &[usize]) -> Vec<f32> {
        let value = |p| (f32::from(p) / 255.0 - self.mean) / self.std;
        // 256 divisions instead of one per pixel.
        let table: [f32; 256] = std::array::from_fn(|p| value(p as u8));
        let bytes = indices.iter().flat_map(|&i| split.image(i));
        bytes.map(|&p| table[usize::from(p)]).collect()
    }
}

/// A data set that comes as four files.
#[derive(Debug)]
struct Published {
    choice: DatasetChoice,
    name: &'static str,
    title: &'static str,
    mean: f32,
    std: f32,
    /// How its training labels begin: the two sets share file names and sizes, not these.
    first_labels: [u8; 10],
}

const MNIST: Published = Published {
    choice: DatasetChoice::Mnist,
    name: "mnist",
    title: "MNIST",
    mean: 0.1307,
    std: 0.3081,
    first_labels: [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
};

const FASHION_MNIST: Published = Published {
    choice: DatasetChoice::FashionMnist,
    name: "fashion-mnist",
    title: "Fashion-MNIST",
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
        let size = [SIDE as u32; 2];
        idx::read_labelled(
            &folder.join(images),
            &folder.join(labels),
            size,
            CLASSES as u8,
        )
        .map(|(images, labels)| Split { images, labels })
    };
    let test = read(FILES[2], FILES[3])?;
    if test.is_empty() {
        return Err(Error::data("no test images").at(folder.join(FILES[2]).display()));
    }
    let all = read(FILES[0], FILES[1])?;
    let other = [&MNIST, &FASHION_MNIST]
        .into_iter()
        .find(|other| other.name != set.name);
    if let Some(other) = other.filter(|other| all.labels.starts_with(&other.first_labels)) {
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
    let Published {
        choice, mean, std, ..
    } = *set;
    Ok(Dataset {
        choice,
        train,
        validation,
        test,
        mean,
        std,
        origin,
    })
}

/// The data set that needs no files, in its usual sizes.
fn embedded(seed: u64, why: &str) -> Dataset {
    Dataset {
        origin: format!("digits drawn by the program itself, because {why}"),
        ..Dataset::drawn(seed, [20_000, 2_000, 5_000])
    }
}

/// Mean and standard deviation of the pixels divided by 255; exact sums, so the same everywhere.
fn mean_and_std(pixels: &[u8]) -> (f32, f32) {
    let (sum, squares) = pixels.iter().fold((0u64, 0u64), |(sum, squares), &p| {
        let p = u64::from(p);
        (sum + p, squares + p * p)
    });
    let n = pixels.len() as f64;
    let mean = sum as f64 / n;
    let variance = squares as f64 / n - mean * mean;
    ((mean / 255.0) as f32, (variance.sqrt() / 255.0) as f32)
}
