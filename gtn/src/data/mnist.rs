//! MNIST, Fashion-MNIST, and whatever else comes as four IDX files.

use super::found::{Found, HeldOut, Labelled};
use super::{Named, Split, Want, idx};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Images and labels to train on, then those to test with.
pub(super) const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// 28×28 grey images of ten classes.
const SIZE: [u32; 2] = [28, 28];

pub(super) const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// A data set that is known by name.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) set: Named,
    class_names: [&'static str; 10],
    pub(super) mean: f32,
    pub(super) std: f32,
    /// Its first training labels. The two sets share file names and sizes, so only these tell them apart.
    pub(super) first_labels: [u8; 10],
}

pub(super) const MNIST: Published = Published {
    set: Named::Mnist,
    class_names: DIGITS,
    mean: 0.1307,
    std: 0.3081,
    first_labels: [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
};

pub(super) const FASHION_MNIST: Published = Published {
    set: Named::FashionMnist,
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

impl Published {
    pub(super) fn begins(&self, labels: &[u16]) -> bool {
        labels.starts_with(&self.first_labels.map(u16::from))
    }

    fn found(&self, place: PathBuf, train: Split, test: Split) -> Found {
        Found {
            name: self.set.name().to_owned(),
            place,
            image: [SIZE[0] as usize, SIZE[1] as usize, 1],
            class_names: self.class_names.map(str::to_owned).to_vec(),
            train,
            validation: None,
            test: Some(test),
            statistics: Some((vec![self.mean], vec![self.std])),
            // 50,000 of MNIST to train on, 10,000 to validate with.
            held_out: HeldOut::Last(6),
        }
    }
}

/// The folder with the files: one of these, or a subfolder `raw`, as torchvision has it.
fn folder_of(folders: &[PathBuf]) -> Option<PathBuf> {
    let raw = folders.iter().map(|folder| folder.join("raw"));
    let has_some = |dir: &PathBuf| FILES.iter().any(|file| idx::find(&dir.join(file)).is_ok());
    folders.iter().cloned().chain(raw).find(has_some)
}

/// The named data set, if any of its files is in one of these folders.
pub(super) fn read_named(set: &Published, folders: &[PathBuf]) -> Option<Result<Found>> {
    let folder = folder_of(folders)?;
    Some(read_files(&folder, true).and_then(|(train, test, _)| {
        let other = [&MNIST, &FASHION_MNIST].into_iter();
        let other = other.filter(|other| other.set != set.set);
        if let Some(other) = other.into_iter().find(|other| other.begins(&train.labels)) {
            let [wanted, found] = [set, other].map(|set| set.set.title());
            let problem = format!("these are the files of {found}, not of {wanted}");
            let error = Error::data(problem).at(folder.display());
            return Err(error.hint(format!("--dataset {}", other.set.name())));
        }
        Ok(set.found(folder, train, test))
    }))
}

/// Whatever data set comes in a folder as four such files.
pub(super) fn read(path: &Path, _: Want) -> Option<Result<Found>> {
    let folder = folder_of(&[path.to_owned()])?;
    Some(
        read_files(&folder, false).and_then(|(train, test, [rows, columns])| {
            let of_size = [rows, columns] == SIZE.map(|side| side as usize);
            if of_size && has_digits(&train) && has_digits(&test) {
                let mut known = [MNIST, FASHION_MNIST].into_iter();
                if let Some(set) = known.find(|set| set.begins(&train.labels)) {
                    return Ok(set.found(folder, train, test));
                }
            }
            let labelled = |Split { images, labels }| Labelled { images, labels };
            let image = [rows, columns, 1];
            Found::of_labels(path, image, labelled(train), Some(labelled(test)))
        }),
    )
}

/// Whether all labels are those of ten classes. Another data set may begin as MNIST does.
fn has_digits(split: &Split) -> bool {
    let classes = DIGITS.len();
    split
        .labels
        .iter()
        .all(|&label| usize::from(label) < classes)
}

fn read_files(folder: &Path, known: bool) -> Result<(Split, Split, [usize; 2])> {
    let known = known.then_some((SIZE, 10));
    let read = |images: &str, labels: &str, known| {
        idx::read_labelled(&folder.join(images), &folder.join(labels), known)
    };
    let (test, size) = read(FILES[2], FILES[3], known)?;
    if test.is_empty() {
        return Err(Error::data("no test images").at(folder.join(FILES[2]).display()));
    }
    let known = known.unwrap_or((size.map(|side| side as u32), idx::ANY_BYTE));
    let (train, _) = read(FILES[0], FILES[1], Some(known))?;
    Ok((train, test, size))
}
