//! CSV files of pixels: a row for each image, its label first.

use super::arrays::only;
use super::found::{Found, Labelled, check_memory};
use super::{Want, idx};
use crate::error::{Error, Result};
use csv::{ReaderBuilder, StringRecord};
use std::path::{Path, PathBuf};

/// Reads a CSV file, the only one in a folder, or two in a folder: one with `train` in its name, the other
/// with `test`.
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
    let placed = |found: Result<Found>| found.map_err(|error| error.at(path.display()));
    // If all labels are numbers, classes are in numeric order, otherwise in alphabetical order.
    let all = train_rows
        .labels
        .iter()
        .chain(test_rows.iter().flat_map(|rows| &rows.labels));
    if all
        .map(|label| label.parse::<i64>())
        .any(|number| number.is_err())
    {
        return placed(Found::of_labels(path, image, train_rows, test_rows));
    }
    let test_rows = test_rows.map(numbers);
    placed(Found::of_labels(
        path,
        image,
        numbers(train_rows),
        test_rows,
    ))
}

/// With labels that are numbers.
fn numbers(rows: Labelled<String>) -> Labelled<i64> {
    let number = |label: &String| label.parse().unwrap_or_default();
    Labelled {
        labels: rows.labels.iter().map(number).collect(),
        images: rows.images,
    }
}

/// Images, and how many pixels each has. A header in the first row is skipped.
fn rows(file: &Path) -> Result<(Labelled<String>, usize)> {
    // A pixel takes two bytes of text or more.
    check_memory(file.metadata().map_or(0.0, |file| file.len() as f64 / 2.0))?;
    let reader = ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_path(file);
    let damaged = |error: csv::Error| Error::data(error);
    let mut records = reader.map_err(damaged)?.into_records();
    let Some(first) = records.next() else {
        return Err(Error::data("no images"));
    };
    let first = first.map_err(damaged)?;
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for (row, record) in records.enumerate() {
        let record = record.map_err(damaged)?;
        images.extend(image(&record).map_err(|e| e.at(format!("row {}", row + 2)))?);
        labels.push(record[0].to_owned());
    }
    // Only a comparison with the other rows shows whether the first is a header.
    if !is_headline(&first, &labels) {
        images.splice(0..0, image(&first).map_err(|e| e.at("row 1"))?);
        labels.insert(0, first[0].to_owned());
    }
    if labels.is_empty() {
        return Err(Error::data("no images"));
    }
    Ok((Labelled { images, labels }, first.len() - 1))
}

/// Whether the first row is a header. It is if most fields after its first are words. It is also one if its first field
/// is a word and the others count from 0 or 1, which is how pandas names columns, or if its first field is a
/// word and all labels below are numbers.
fn is_headline(first: &StringRecord, other_labels: &[String]) -> bool {
    let is_number = |field: &str| field.parse::<f64>().is_ok();
    let pixels = first.iter().skip(1);
    let words = pixels.filter(|field| !is_number(field)).count();
    if 2 * words >= first.len() {
        return true;
    }
    let counts_from = |least: usize| {
        let mut pixels = first.iter().skip(1).zip(least..);
        pixels.all(|(field, number)| field.parse() == Ok(number))
    };
    let others_are_numbers =
        || !other_labels.is_empty() && other_labels.iter().all(|label| is_number(label));
    !is_number(&first[0]) && (counts_from(0) || counts_from(1) || others_are_numbers())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// The labels of a file of that text, and its pixels.
    fn read(text: &str) -> Result<(Vec<String>, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("some.csv");
        std::fs::write(&file, text).unwrap();
        let (rows, pixels) = rows(&file)?;
        assert_eq!(rows.images.len(), pixels * rows.labels.len());
        Ok((rows.labels, rows.images))
    }

    #[test]
    fn numbers_of_columns_are_a_headline() {
        let rows = "3,9,8,7,6\n5,1,2,3,4\n";
        let own = (
            vec!["3".to_owned(), "5".to_owned()],
            vec![9, 8, 7, 6, 1, 2, 3, 4],
        );
        for headline in [
            "",
            "label,0,1,2,3\n",
            "label,1,2,3,4\n",
            "label,p1,p2,p3,p4\n",
            "\"\",0,1,2,3\n",
            "label,7,7,9,1000\n",
        ] {
            assert_eq!(
                read(&format!("{headline}{rows}")).unwrap(),
                own,
                "{headline}"
            );
        }
        let (labels, images) = read("label,0,1,2,3\noak,9,8,7,6\nelm,1,2,3,4\n").unwrap();
        assert_eq!(
            (&labels[..], images),
            (&["oak", "elm"].map(str::to_owned)[..], own.1)
        );
    }

    #[test]
    fn more_columns_than_bytes_are_numbered() {
        let mut text = "label".to_owned();
        for column in 0..784 {
            write!(text, ",{column}").unwrap();
        }
        let row = format!("\n7{}", ",5".repeat(784));
        let (labels, images) = read(&(text + &row)).unwrap();
        assert_eq!((labels, images), (vec!["7".to_owned()], vec![5; 784]));
    }

    #[test]
    fn a_first_image_is_no_headline() {
        for (text, labels) in [
            ("oak,4,3,2,1\nelm,1,2,3,4\n", ["oak", "elm"]),
            ("0,1,2,3,4\n1,1,2,3,4\n", ["0", "1"]),
            ("0,0,1,2,3\noak,1,2,3,4\n", ["0", "oak"]),
        ] {
            assert_eq!(read(text).unwrap().0, labels, "{text}");
        }
        assert_eq!(read("oak,4,3,2,1\n").unwrap().0, ["oak"]);
        let error = read("1,,9,9,9\n2,1,2,3,4\n").unwrap_err().to_string();
        assert!(error.starts_with("row 1: field 2 is ``"), "{error}");
        let error = read("0,1,2,3,256\n1,1,2,3,4\n").unwrap_err().to_string();
        assert!(error.starts_with("row 1: field 5 is `256`"), "{error}");
    }
}
