//! CSV files of pixels: a row for each image, its label first.

use super::arrays::only;
use super::found::{Found, Labelled, check_memory};
use super::{Want, idx};
use crate::error::{Error, Result};
use csv::{ReaderBuilder, StringRecord};
use std::path::{Path, PathBuf};

/// A file; or of a folder the only one, or two of whose names one has `train` in it and the other `test`.
pub(super) fn read(path: &Path, _: Want) -> Option<Result<Found>> {
    let files = match only(path, "csv") {
        Some(file) => (file, None),
        None => pair(path)?,
    };
    Some(found(path, files))
}

fn pair(folder: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
    let named = |word: &str| {
        let mut files = idx::entries(folder);
        files.retain(|file| {
            let name = file
                .file_name()
                .map(|name| name.to_string_lossy().to_lowercase());
            name.is_some_and(|name| name.contains(word) && name.ends_with(".csv"))
        });
        (files.len() == 1).then(|| files.remove(0))
    };
    Some((named("train")?, Some(named("test")?)))
}

fn found(path: &Path, (train, test): (PathBuf, Option<PathBuf>)) -> Result<Found> {
    let read = |file: &Path| rows(file).map_err(|error| error.at(file.display()));
    let (train_rows, pixels) = read(&train)?;
    let image = size(pixels).map_err(|error| error.at(train.display()))?;
    let mut test_rows = None;
    if let Some(test) = test {
        let (rows, found) = read(&test)?;
        if found != pixels {
            let train = train.display();
            let problem = format!("{found} pixels in a row, and {pixels} in {train}");
            return Err(Error::data(problem).at(test.display()));
        }
        test_rows = Some(rows);
    }
    // Labels that are all numbers are in the order of numbers, others in that of words.
    let all = train_rows
        .labels
        .iter()
        .chain(test_rows.iter().flat_map(|rows| &rows.labels));
    if all
        .map(|label| label.parse::<i64>())
        .any(|number| number.is_err())
    {
        return Found::of_labels(path, image, train_rows, test_rows);
    }
    Found::of_labels(path, image, numbers(train_rows), test_rows.map(numbers))
}

/// With labels that are numbers.
fn numbers(rows: Labelled<String>) -> Labelled<i64> {
    let number = |label: &String| label.parse().unwrap_or_default();
    Labelled {
        labels: rows.labels.iter().map(number).collect(),
        images: rows.images,
    }
}

/// Images, and how many pixels each has. A first row whose second field is no number is a headline.
fn rows(file: &Path) -> Result<(Labelled<String>, usize)> {
    // A pixel takes two bytes of text or more.
    check_memory(file.metadata().map_or(0.0, |file| file.len() as f64 / 2.0))?;
    let reader = ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_path(file);
    let damaged = |error: csv::Error| Error::data(error);
    let (mut images, mut labels, mut pixels) = (Vec::new(), Vec::new(), 0);
    for (row, record) in reader.map_err(damaged)?.into_records().enumerate() {
        let record = record.map_err(damaged)?;
        if row == 0
            && record
                .get(1)
                .is_some_and(|field| field.parse::<f64>().is_err())
        {
            continue;
        }
        pixels = record.len() - 1;
        images.extend(image(&record).map_err(|e| e.at(format!("row {}", row + 1)))?);
        labels.push(record[0].to_owned());
    }
    if labels.is_empty() {
        return Err(Error::data("no images"));
    }
    Ok((Labelled { images, labels }, pixels))
}

fn image(record: &StringRecord) -> Result<Vec<u8>> {
    let pixel = |(i, field): (usize, &str)| {
        let wrong = |_| {
            let problem = format!(
                "field {} is `{field}`, and pixels are bytes from 0 to 255",
                i + 2
            );
            Error::data(problem)
        };
        field.parse::<u8>().map_err(wrong)
    };
    record.iter().skip(1).enumerate().map(pixel).collect()
}

/// Rows, columns and channels of a square image of that many pixels: grey, or red, green and blue of each pixel.
fn size(pixels: usize) -> Result<[usize; 3]> {
    for channels in [1, 3] {
        let side = (pixels / channels).isqrt();
        if side > 0 && channels * side * side == pixels {
            return Ok([side, side, channels]);
        }
    }
    let problem =
        format!("{pixels} pixels in a row are no square image, n×n grey or n×n×3 coloured");
    Err(Error::data(problem))
}
