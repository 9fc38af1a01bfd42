//! CIFAR-10 and CIFAR-100 as published: an archive or its folder, the binary version or Python's.
//! <https://www.cs.toronto.edu/~kriz/cifar.html>

use super::found::{Found, HeldOut, check_memory};
use super::{Named, Split, Want, pickle};
use crate::error::{Error, Result};
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// The files of one published version.
#[derive(Debug)]
struct Layout {
    set: Named,
    /// The folder that its archive unpacks to, and the archive.
    folder: &'static str,
    archive: &'static str,
    pickled: bool,
    train: &'static [&'static str],
    test: &'static str,
    /// Class names.
    names: &'static str,
    classes: usize,
    /// What Python's version calls labels and class names.
    keys: [&'static str; 2],
}

const LAYOUTS: [Layout; 4] = [
    Layout {
        set: Named::Cifar10,
        folder: "cifar-10-batches-bin",
        archive: "cifar-10-binary.tar.gz",
        pickled: false,
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: "test_batch.bin",
        names: "batches.meta.txt",
        classes: 10,
        keys: ["labels", "label_names"],
    },
    Layout {
        set: Named::Cifar10,
        folder: "cifar-10-batches-py",
        archive: "cifar-10-python.tar.gz",
        pickled: true,
        train: &[
            "data_batch_1",
            "data_batch_2",
            "data_batch_3",
            "data_batch_4",
            "data_batch_5",
        ],
        test: "test_batch",
        names: "batches.meta",
        classes: 10,
        keys: ["labels", "label_names"],
    },
    Layout {
        set: Named::Cifar100,
        folder: "cifar-100-binary",
        archive: "cifar-100-binary.tar.gz",
        pickled: false,
        train: &["train.bin"],
        test: "test.bin",
        names: "fine_label_names.txt",
        classes: 100,
        keys: ["fine_labels", "fine_label_names"],
    },
    Layout {
        set: Named::Cifar100,
        folder: "cifar-100-python",
        archive: "cifar-100-python.tar.gz",
        pickled: true,
        train: &["train"],
        test: "test",
        names: "meta",
        classes: 100,
        keys: ["fine_labels", "fine_label_names"],
    },
];

/// Class names, where the file of names is not there.
const CIFAR_10: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// Rows, columns and channels.
const IMAGE: [usize; 3] = [32, 32, 3];
/// Bytes of an image: its red ones, its green ones, its blue ones.
const BYTES: usize = 3 * 1024;
/// The largest file, of CIFAR-100, has 155 MB; an archive that announces more is none of these.
const LARGEST: u64 = 256 << 20;

/// The files of an archive or folder, by name.
type Parts = BTreeMap<String, Vec<u8>>;

/// Reads an archive or its unpacked folder, or a folder that contains either under its published name.
pub(super) fn read(path: &Path, _: Want) -> Option<Result<Found>> {
    LAYOUTS.iter().find_map(|layout| layout.read(path))
}

/// The named data set, if one of these folders holds it.
pub(super) fn read_named(set: Named, folders: &[PathBuf]) -> Option<Result<Found>> {
    let layouts = || LAYOUTS.iter().filter(|layout| layout.set == set);
    let mut folders = folders.iter();
    folders.find_map(|folder| layouts().find_map(|layout| layout.read(folder)))
}

/// The file name that an error gives where a named data set is missing.
pub(super) fn file_of(set: Named) -> &'static str {
    let layout = LAYOUTS.iter().find(|layout| layout.set == set);
    layout.map_or("", |layout| layout.archive)
}

impl Layout {
    fn read(&self, path: &Path) -> Option<Result<Found>> {
        let has_files = |folder: &PathBuf| {
            // `train` and `test` alone are names of many things.
            [self.train[0], self.test]
                .iter()
                .all(|name| folder.join(name).is_file())
        };
        let folders = [path.to_owned(), path.join(self.folder)];
        if let Some(folder) = folders.into_iter().find(has_files) {
            return Some(
                self.folder(&folder)
                    .and_then(|parts| self.found(parts, folder)),
            );
        }
        let archives = [path.to_owned(), path.join(self.archive)];
        let is = |file: &PathBuf| file.is_file() && file.ends_with(self.archive);
        let archive = archives.into_iter().find(is)?;
        let parts = self.unpack(&archive).map_err(|e| e.at(archive.display()));
        Some(parts.and_then(|parts| self.found(parts, archive)))
    }

    fn files(&self) -> impl Iterator<Item = &'static str> {
        self.train.iter().copied().chain([self.test, self.names])
    }

    fn folder(&self, folder: &Path) -> Result<Parts> {
        let mut parts = Parts::new();
        for name in self.files() {
            let path = folder.join(name);
            if !path.exists() {
                continue;
            }
            let size = path.metadata().map_or(0, |file| file.len());
            check_size(size).map_err(|e| e.at(path.display()))?;
            let bytes = std::fs::read(&path);
            let bytes = bytes
                .map_err(|e| Error::data(format!("cannot be read: {e}")).at(path.display()))?;
            parts.insert(name.to_owned(), bytes);
        }
        Ok(parts)
    }

    fn unpack(&self, archive: &Path) -> Result<Parts> {
        let damaged = |e: std::io::Error| {
            let error = Error::data(format!("the archive is damaged or cut off ({e})"));
            error.hint("fetch the file again")
        };
        let file = BufReader::new(File::open(archive).map_err(damaged)?);
        // None of these archives unpacks to more. A larger one is cut off here, and the reader below reports
        // it as damaged.
        let bytes = GzDecoder::new(file).take(4 * LARGEST);
        let mut parts = Parts::new();
        for entry in tar::Archive::new(bytes).entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let path = entry.path().map_err(damaged)?.into_owned();
            let Some(name) = self.files().find(|name| path.ends_with(name)) else {
                continue;
            };
            let size = entry.size();
            check_size(size).map_err(|e| e.at(path.display()))?;
            let mut part = Vec::new();
            entry.read_to_end(&mut part).map_err(damaged)?;
            if part.len() as u64 != size {
                let problem = format!("{size} bytes announced, {} found", part.len());
                return Err(Error::data(problem).at(path.display()));
            }
            parts.insert(name.to_owned(), part);
        }
        Ok(parts)
    }

    fn found(&self, mut parts: Parts, place: PathBuf) -> Result<Found> {
        let mut split = |names: &[&str]| -> Result<Split> {
            let mut split = Split::default();
            for &name in names {
                let missing = || Error::data(format!("{name} is missing")).at(place.display());
                let part = parts.remove(name).ok_or_else(missing)?;
                let read = self.batch(&part, &mut split);
                read.map_err(|e| e.at(place.join(name).display()))?;
            }
            Ok(split)
        };
        let train = split(self.train)?;
        let test = split(&[self.test])?;
        let class_names = match parts.remove(self.names) {
            Some(names) => self
                .class_names(&names)
                .map_err(|e| e.at(place.join(self.names).display()))?,
            None if self.set == Named::Cifar10 => CIFAR_10.map(str::to_owned).to_vec(),
            None => (0..self.classes).map(|class| class.to_string()).collect(),
        };
        Ok(Found {
            name: self.set.name().to_owned(),
            place,
            image: IMAGE,
            class_names,
            train,
            validation: None,
            test: Some(test),
            statistics: None,
            // 45,000 images to train on, 5,000 to validate with.
            held_out: HeldOut::Drawn(10),
        })
    }

    /// Adds the images of a file.
    fn batch(&self, part: &[u8], to: &mut Split) -> Result<()> {
        let (labels, planes) = if self.pickled {
            pickle::batch(part, self.keys[0], BYTES)?
        } else {
            self.records(part)?
        };
        let fits = |label: &i64| (0..self.classes as i64).contains(label);
        if let Some(index) = labels.iter().position(|label| !fits(label)) {
            let (label, last) = (labels[index], self.classes - 1);
            let problem = format!("label {index} is {label}; the classes are 0 to {last}");
            return Err(Error::data(problem));
        }
        to.labels.extend(labels.iter().map(|&label| label as u16));
        for image in planes.chunks_exact(BYTES) {
            let pixel = |i| [image[i], image[1024 + i], image[2048 + i]];
            to.images.extend((0..1024).flat_map(pixel));
        }
        Ok(())
    }

    /// Labels and images of the binary version.
    fn records(&self, part: &[u8]) -> Result<(Vec<i64>, Vec<u8>)> {
        // CIFAR-100 has a coarse label before the fine one.
        let record = BYTES + if self.classes == 10 { 1 } else { 2 };
        if part.is_empty() || !part.len().is_multiple_of(record) {
            let problem = format!("{} bytes are no records of {record} bytes", part.len());
            return Err(Error::data(problem));
        }
        let records = part
            .chunks_exact(record)
            .map(|record| record.split_at(record.len() - BYTES));
        let labels = records
            .clone()
            .map(|(labels, _)| labels[labels.len() - 1].into());
        let images = records.flat_map(|(_, image)| image).copied();
        Ok((labels.collect(), images.collect()))
    }

    fn class_names(&self, part: &[u8]) -> Result<Vec<String>> {
        let names = if self.pickled {
            pickle::names(part, self.keys[1])?
        } else {
            let text = String::from_utf8_lossy(part);
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.map(str::to_owned).collect()
        };
        let (found, wanted) = (names.len(), self.classes);
        if found != wanted {
            let problem = format!("{found} class names for {wanted} classes");
            return Err(Error::data(problem));
        }
        Ok(names)
    }
}

fn check_size(bytes: u64) -> Result<()> {
    if bytes > LARGEST {
        let problem =
            format!("announces {bytes} bytes, and parts of CIFAR have no more than {LARGEST}");
        return Err(Error::data(problem));
    }
    check_memory(bytes as f64)
}
