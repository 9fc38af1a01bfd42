//! What a run records about its data set, in its folder: path, name, sizes and statistics.

use super::run_folder::{DATA, RunFolder};
use crate::data::{Card, Dataset, Problem};
use crate::error::{Error, Result};
use crc::{CRC_32_ISCSI, Crc, Table};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

/// The file: a card, and what tells whether the images are still the same.
#[derive(Serialize, Deserialize)]
struct Record<C> {
    /// The [`fingerprint`]; older runs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contents: Option<String>,
    #[serde(flatten)]
    card: C,
}

/// A checksum of all images and their classes, in their order.
pub fn fingerprint(data: &Dataset) -> String {
    let crc = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
    let mut digest = crc.digest();
    for split in [&data.train, &data.validation, &data.test] {
        digest.update(&split.images);
        for label in &split.labels {
            digest.update(&label.to_le_bytes());
        }
    }
    format!("{:08x}", digest.finalize())
}

/// The fingerprint of the data set that a run was made with, if it is known.
///
/// # Errors
/// As [`read`].
pub fn contents(run: &Path) -> Result<Option<String>> {
    Ok(record(run)?.and_then(|record| record.contents))
}

/// Writes it to the run's folder, with the fingerprint of its data set.
///
/// # Errors
/// If it cannot be written.
pub fn write(folder: &RunFolder, card: &Card, contents: Option<String>) -> Result<()> {
    let text = toml::to_string(&Record { contents, card }).map_err(Error::run)?;
    folder.write(DATA, |file| file.write_all(text.as_bytes()))
}

/// Reads it. Folders of version 0.1.0 have none, because that version read only images of MNIST's size.
///
/// # Errors
/// If it cannot be read, or is something else.
pub fn read(run: &Path) -> Result<Option<Card>> {
    Ok(record(run)?.map(|record| record.card))
}

fn record(run: &Path) -> Result<Option<Record<Card>>> {
    let path = run.join(DATA);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| Error::file("read", &path, &error))?,
    };
    let record: Record<Card> =
        toml::from_str(&text).map_err(|error| Error::run(error.message()).at(path.display()))?;
    check(&record.card).map_err(|error| error.at(path.display()))?;
    Ok(Some(record))
}

/// Refuses what would make all numbers of a run nonsense.
fn check(card: &Card) -> Result<()> {
    let Problem { image, classes } = card.problem;
    let channels = image[2];
    if [card.mean.len(), card.std.len()] != [channels; 2] {
        let problem = format!("mean and std are needed for each of {channels} channels");
        return Err(Error::run(problem));
    }
    let sound = |(mean, std): (&f32, &f32)| mean.is_finite() && std.is_finite() && *std > 0.0;
    if !card.mean.iter().zip(&card.std).all(sound) {
        let problem = "mean and std must be finite, and std above 0";
        return Err(Error::run(problem));
    }
    let names = card.class_names.len();
    if names != classes {
        let problem = format!("there are {classes} classes, and class_names has {names}");
        return Err(Error::run(problem));
    }
    Ok(())
}

/// The task of a run.
///
/// # Errors
/// As [`read`].
pub fn problem(run: &Path) -> Result<Problem> {
    Ok(read(run)?.map_or(Problem::MNIST, |card| card.problem))
}

/// Normalises a data set as the run had it. Gives a warning if the run had other images: another folder of
/// images is split in another way.
///
/// # Errors
/// If its images are of another size than the run's, or its classes are others.
pub fn adopt(run: &Path, data: &mut Dataset) -> Result<Option<String>> {
    let (ours, theirs) = (problem(run)?, data.problem());
    if ours != theirs {
        let problem = format!("the data set has {theirs}, and this run was made for {ours}");
        return Err(Error::data(problem).at(run.display()));
    }
    let Some(Record { contents, card }) = record(run)? else {
        return Ok(None);
    };
    same_classes(&card.class_names, &data.card.class_names).map_err(|e| e.at(run.display()))?;
    data.card.mean = card.mean;
    data.card.std = card.std;
    let (Some(before), Some(now)) = (card.images, data.card.images) else {
        return Ok(None);
    };
    // Also written by a run that goes on, so that the next command warns, too.
    data.card.images = Some(before);
    let words = |[train, validation, test]: [usize; 3]| {
        format!("{train} training, {validation} validation and {test} test images")
    };
    let other = if before != now {
        let (before, now) = (words(before), words(now));
        format!("had {before}, and the data set has {now} now")
    } else if contents.is_some_and(|contents| contents != fingerprint(data)) {
        "had other images, or other classes of them, than the data set has now".to_owned()
    } else {
        return Ok(None);
    };
    let run = run.display();
    let why = "test images may be among those that it was trained on";
    Ok(Some(format!("{run} {other}: {why}")))
}

/// Refuses other classes. A run knows classes by their numbers, which follow from the names.
fn same_classes(before: &[String], now: &[String]) -> Result<()> {
    let mut pairs = before.iter().zip(now).enumerate();
    let Some((number, (before, now))) = pairs.find(|(_, (before, now))| before != now) else {
        return Ok(());
    };
    let problem =
        format!("class {number} is `{now}` in the data set, and was `{before}` in this run's");
    Err(Error::data(problem).hint(
        "classes need their names of then, which number them; or train a new run on this data set",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_comes_back_and_decides_how_images_are_normalised() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let folder = RunFolder::create(&run).unwrap();
        assert_eq!(problem(&run).unwrap(), Problem::MNIST);
        let mut data = Dataset::drawn(1, [10, 2, 2]);
        let before = data.card.clone();
        assert_eq!(adopt(&run, &mut data).unwrap(), None);
        assert_eq!(data.card, before);
        let contents = Some(fingerprint(&data));
        let card = Card {
            mean: vec![0.1],
            std: vec![1.0 / 3.0],
            place: Some("some where".into()),
            ..before
        };
        write(&folder, &card, contents.clone()).unwrap();
        assert_eq!(super::contents(&run).unwrap(), contents);
        assert_eq!(read(&run).unwrap().unwrap(), card);
        assert_eq!(adopt(&run, &mut data).unwrap(), None);
        assert_eq!((&data.card.mean, &data.card.std), (&card.mean, &card.std));
        data.card.problem.image = [32, 32, 3];
        let error = adopt(&run, &mut data).unwrap_err().to_string();
        let words = "the data set has 10 classes of 32×32 colour images, and this run was made for 10 classes of \
                     28×28 grey images";
        assert!(error.ends_with(words), "{error}");
        data.card.problem = card.problem;
        for _ in 0..2 {
            data.card.images = Some([9, 3, 2]);
            let warning = adopt(&run, &mut data).unwrap().unwrap();
            let words = "had 10 training, 2 validation and 2 test images, and the data set has 9 training, 3 ";
            assert!(warning.contains(words), "{warning}");
            write(&folder, &data.card, None).unwrap();
        }
        let images = None;
        write(&folder, &Card { images, ..card }, None).unwrap();
        assert_eq!(adopt(&run, &mut data).unwrap(), None, "as older runs");
        std::fs::write(run.join(DATA), "name = 3").unwrap();
        assert!(read(&run).is_err());
    }

    #[test]
    fn other_classes_are_refused_and_other_images_are_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(dir.path()).unwrap();
        let mut data = Dataset::drawn(1, [10, 2, 2]);
        write(&folder, &data.card, Some(fingerprint(&data))).unwrap();
        assert_eq!(adopt(dir.path(), &mut data).unwrap(), None);
        data.test.labels.swap(0, 1);
        let warning = adopt(dir.path(), &mut data).unwrap().unwrap();
        assert!(warning.contains("had other images, or other"), "{warning}");
        write(&folder, &data.card, None).unwrap();
        assert_eq!(adopt(dir.path(), &mut data).unwrap(), None, "an older run");
        data.card.class_names.swap(3, 4);
        let error = adopt(dir.path(), &mut data).unwrap_err();
        let words = "class 3 is `4` in the data set, and was `3` in this run's";
        assert!(error.to_string().ends_with(words), "{error}");
        assert!(error.lines().contains("\nhint: "));
    }

    #[test]
    fn statistics_and_names_that_make_no_sense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(dir.path()).unwrap();
        let card = Dataset::drawn(1, [10, 2, 2]).card;
        for (mean, std) in [
            (0.0, f32::NAN),
            (0.0, 0.0),
            (0.0, -1.0),
            (f32::INFINITY, 1.0),
        ] {
            let (mean, std) = (vec![mean], vec![std]);
            let card = Card {
                mean,
                std,
                ..card.clone()
            };
            write(&folder, &card, None).unwrap();
            let line = read(dir.path()).unwrap_err().to_string();
            assert!(line.ends_with("must be finite, and std above 0"), "{line}");
        }
        let class_names = vec!["one".to_owned()];
        write(
            &folder,
            &Card {
                class_names,
                ..card
            },
            None,
        )
        .unwrap();
        let line = read(dir.path()).unwrap_err().to_string();
        assert!(
            line.ends_with("there are 10 classes, and class_names has 1"),
            "{line}"
        );
    }
}
