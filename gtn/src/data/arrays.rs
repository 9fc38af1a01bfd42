//! Arrays in an npz or safetensors file: `x_train`, `y_train`, `x_test`, `y_test`.

use super::found::{Found, Labelled, check_memory};
use super::{Want, idx};
use crate::device::size;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use tensor::{Array, Arrays, read_npz, read_safetensors};
use zip::ZipArchive;

/// Reads such a file, or the only one in a folder.
pub(super) fn read(path: &Path, _: Want) -> Option<Result<Found>> {
    let npz = only(path, "npz");
    let file = npz.clone().or_else(|| only(path, "safetensors"))?;
    let found = || {
        check_memory(file.metadata().map_or(0.0, |file| file.len() as f64))?;
        if npz.is_some() {
            check_unpacked(&file)?;
        }
        let arrays = match npz {
            Some(_) => read_npz(&file),
            None => read_safetensors(&file).map(|(arrays, _)| arrays),
        };
        found(&arrays.map_err(|e| Error::data(e.fault))?, &file)
    };
    Some(found().map_err(|error| error.at(file.display())))
}

/// Refuses an archive whose arrays do not fit into memory. Their images are copied once. What is no archive, the
/// reader refuses.
fn check_unpacked(npz: &Path) -> Result<()> {
    let archive = File::open(npz)
        .ok()
        .map(BufReader::new)
        .map(ZipArchive::new);
    let Some(Ok(archive)) = archive else {
        return Ok(());
    };
    let bytes = archive.decompressed_size().unwrap_or_default() as f64;
    check_memory(2.0 * bytes).map_err(|error| {
        error.at(format!(
            "it unpacks to {}, of which a copy is made",
            size(bytes)
        ))
    })
}

/// The file, if its name ends so; or the only such file in a folder.
pub(super) fn only(path: &Path, end: &str) -> Option<PathBuf> {
    let ends = |path: &PathBuf| {
        let found = path.extension();
        path.is_file() && found.is_some_and(|found| found.eq_ignore_ascii_case(end))
    };
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = idx::entries(path);
    }
    files.retain(ends);
    (files.len() == 1).then(|| files.remove(0))
}

fn found(arrays: &Arrays, file: &Path) -> Result<Found> {
    let (image, train) = labelled(arrays, ["x_train", "y_train"])?;
    let mut test = None;
    if arrays.contains_key("x_test") {
        let (size, labelled) = labelled(arrays, ["x_test", "y_test"])?;
        if size != image {
            let problem = format!("images of {size:?}, and those of x_train are {image:?}");
            return Err(Error::data(problem).at("x_test"));
        }
        test = Some(labelled);
    }
    Found::of_labels(file, image, train, test)
}

fn labelled(arrays: &Arrays, [x, y]: [&str; 2]) -> Result<([usize; 3], Labelled<i32>)> {
    let get = |name: &str| {
        let missing = || Error::data(format!("no array {name} in it"));
        arrays.get(name).ok_or_else(missing)
    };
    let (image, images) = images(get(x)?).map_err(|e| e.at(x))?;
    let labels = labels(get(y)?).map_err(|e| e.at(y))?;
    let count = images.len() / image.iter().product::<usize>();
    if labels.len() != count {
        let problem = format!("{} labels for {count} images", labels.len());
        return Err(Error::data(problem).at(y));
    }
    Ok((image, Labelled { images, labels }))
}

/// Images \[n, rows, columns\], \[n, rows, columns, channels\] or, as Torch has them, \[n, channels, rows, columns\]: their
/// size, and their bytes with channels last.
fn images(array: &Array) -> Result<([usize; 3], Vec<u8>)> {
    let shape = &array.shape()[..];
    let bytes = bytes(array)?;
    if shape.contains(&0) {
        return Err(Error::data(format!("no images: shape {shape:?}")));
    }
    match *shape {
        [_, h, w] => Ok(([h, w, 1], bytes)),
        [_, h, w, c @ (1 | 3)] => Ok(([h, w, c], bytes)),
        [_, c @ (1 | 3), h, w] => {
            let last = |image: &[u8]| -> Vec<u8> {
                let pixels = (0..h * w).flat_map(|i| (0..c).map(move |c| image[c * h * w + i]));
                pixels.collect()
            };
            let images = bytes.chunks_exact(c * h * w).flat_map(last);
            Ok(([h, w, c], images.collect()))
        }
        _ => {
            let wanted = "[n, rows, columns] or [n, rows, columns, 1 or 3]";
            Err(Error::data(format!(
                "shape {shape:?}, and images are {wanted}"
            )))
        }
    }
}

fn bytes(array: &Array) -> Result<Vec<u8>> {
    if let Some(bytes) = array.as_u8() {
        return Ok(bytes.to_vec());
    }
    let numbers = array.as_i32().unwrap_or_default();
    let bytes: std::result::Result<Vec<u8>, _> = numbers.iter().map(|&n| u8::try_from(n)).collect();
    match bytes {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => {
            let problem = format!(
                "elements of type {}, and pixels are bytes from 0 to 255",
                array.dtype()
            );
            Err(Error::data(problem).hint("save them as uint8, not normalised"))
        }
    }
}

/// Whole numbers.
fn labels(array: &Array) -> Result<Vec<i32>> {
    match (array.as_i32(), array.as_u8()) {
        (Some(labels), _) => Ok(labels.to_vec()),
        (_, Some(labels)) => Ok(labels.iter().map(|&label| label.into()).collect()),
        _ => {
            let dtype = array.dtype();
            let problem = format!("elements of type {dtype}, and labels are whole numbers");
            Err(Error::data(problem))
        }
    }
}
