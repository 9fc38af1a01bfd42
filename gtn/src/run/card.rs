//! What a run records about its data set, in its folder: path, name, sizes and statistics.

use super::run_folder::{DATA, RunFolder};
use crate::data::{Card, Dataset, Problem};
use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;

/// Writes it to the run's folder.
///
/// # Errors
/// If it cannot be written.
pub fn write(folder: &RunFolder, card: &Card) -> Result<()> {
    let text = toml::to_string(card).map_err(Error::run)?;
    folder.write(DATA, |file| file.write_all(text.as_bytes()))
}

/// Reads it. Folders of version 0.1.0 have none, because that version read only images of MNIST's size.
///
/// # Errors
/// If it cannot be read, or is something else.
pub fn read(run: &Path) -> Result<Option<Card>> {
    let path = run.join(DATA);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| Error::file("read", &path, &error))?,
    };
    let card: Card =
        toml::from_str(&text).map_err(|error| Error::run(error.message()).at(path.display()))?;
    let channels = card.problem.image[2];
    if [card.mean.len(), card.std.len()] != [channels; 2] {
        let problem = format!("mean and std are needed for each of {channels} channels");
        return Err(Error::run(problem).at(path.display()));
    }
    Ok(Some(card))
}

/// The task of a run.
///
/// # Errors
/// As [`read`].
pub fn problem(run: &Path) -> Result<Problem> {
    Ok(read(run)?.map_or(Problem::MNIST, |card| card.problem))
}

/// Normalises a data set as the run had it. Gives a warning if the run had other numbers of images: another
/// folder of images is split in another way.
///
/// # Errors
/// If its images are of another size than the run's, or its classes of another number.
pub fn adopt(run: &Path, data: &mut Dataset) -> Result<Option<String>> {
    let (ours, theirs) = (problem(run)?, data.problem());
    if ours != theirs {
        let problem = format!("the data set has {theirs}, and this run was made for {ours}");
        return Err(Error::data(problem).at(run.display()));
    }
    let Some(card) = read(run)? else {
        return Ok(None);
    };
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
    Ok((before != now).then(|| {
        let (run, now, before) = (run.display(), words(now), words(before));
        format!(
            "{run} had {before}, and the data set has {now} now: test images may be among those that it was trained on"
        )
    }))
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
        let card = Card {
            mean: vec![0.1],
            std: vec![1.0 / 3.0],
            place: Some("some where".into()),
            ..before
        };
        write(&folder, &card).unwrap();
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
            write(&folder, &data.card).unwrap();
        }
        let images = None;
        write(&folder, &Card { images, ..card }).unwrap();
        assert_eq!(adopt(&run, &mut data).unwrap(), None, "as older runs");
        std::fs::write(run.join(DATA), "name = 3").unwrap();
        assert!(read(&run).is_err());
    }
}
