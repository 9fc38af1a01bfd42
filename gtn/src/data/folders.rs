//! Folders of images, one for each class: PNG, JPEG or WebP.

use super::found::{Found, HeldOut, check_memory, name_of};
use super::{Split, Want, idx};
use crate::error::{Error, Result};
use image::ImageReader;
use std::path::{Path, PathBuf};

/// Pixels of an image for which it is asked whether there is memory. Asking takes as long as to read a small image.
const LARGE: f64 = 1e6;

const ENDS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// The images of `path/train` and `path/test`, each with a folder for each class; or of the classes in `path` itself.
pub(super) fn read(path: &Path, want: Want) -> Option<Result<Found>> {
    let part = |names: &[&str]| names.iter().find_map(|name| part(path, name));
    let train = part(&["train", "training"]);
    let (test, validation) = match train {
        Some(_) => (
            part(&["test", "testing"]),
            part(&["val", "valid", "validation"]),
        ),
        None => (None, None),
    };
    let train = train.unwrap_or_else(|| path.to_owned());
    let classes = subfolders(&train);
    if classes.iter().all(|class| images_in(class).is_empty()) {
        return None;
    }
    let found = || {
        let mut reader = Reader {
            want,
            first: None,
            class_names: classes
                .iter()
                .map(|class| class_name(class))
                .collect::<Result<_>>()?,
        };
        let train = reader.split(&train)?;
        let validation = validation.map(|folder| reader.split(&folder)).transpose()?;
        let test = test.map(|folder| reader.split(&folder)).transpose()?;
        let Some((_, image)) = reader.first else {
            return Err(Error::data("no images"));
        };
        Ok(Found {
            name: name_of(path),
            place: path.to_owned(),
            image,
            class_names: reader.class_names,
            train,
            validation,
            test,
            statistics: None,
            held_out: HeldOut::Drawn(6),
        })
    };
    Some(found())
}

/// The subfolder of that name. Case does not matter, but the folder with exactly that name comes first.
fn part(path: &Path, wanted: &str) -> Option<PathBuf> {
    let mut folders = subfolders(path);
    folders.retain(|folder| name(folder).eq_ignore_ascii_case(wanted));
    folders
        .into_iter()
        .min_by_key(|folder| name(folder) != wanted)
}

/// The name of a class: that of its folder. Two names that are no UTF-8 would be shown as one.
fn class_name(folder: &Path) -> Result<String> {
    let name = folder.file_name().unwrap_or_default().to_str();
    let odd = || {
        let error = Error::data("the name of this folder is not UTF-8, and it is to name a class");
        error.hint("rename the folder").at(folder.display())
    };
    name.map(str::to_owned).ok_or_else(odd)
}

/// Subfolders that are not hidden.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let mut folders = idx::entries(folder);
    folders.retain(|entry| entry.is_dir() && !name(entry).starts_with('.'));
    folders
}

fn images_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = idx::entries(folder);
    files.retain(|file| {
        let end = file
            .extension()
            .map(|end| end.to_string_lossy().to_lowercase());
        end.is_some_and(|end| ENDS.contains(&&*end))
            && !name(file).starts_with('.')
            && file.is_file()
    });
    files
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

struct Reader {
    want: Want,
    /// The first image, and its rows, columns and channels after conversion: all others must have the same.
    first: Option<(PathBuf, [usize; 3])>,
    class_names: Vec<String>,
}

impl Reader {
    /// The images in the folders of a part, one class after another.
    fn split(&mut self, part: &Path) -> Result<Split> {
        let mut files = Vec::new();
        for folder in subfolders(part) {
            let name = class_name(&folder)?;
            let class = self.class_names.iter().position(|class| *class == name);
            let unknown = || Error::data("no class of the training images").at(folder.display());
            let class = class.ok_or_else(unknown)?;
            idx::listed(&folder)?;
            let images = images_in(&folder);
            if images.is_empty() {
                let problem = format!("class {name} has no images: no PNG, JPEG or WebP files");
                return Err(Error::data(problem).at(folder.display()));
            }
            files.extend(images.into_iter().map(|image| (image, class as u16)));
        }
        let mut split = Split::default();
        for (i, (file, label)) in files.iter().enumerate() {
            let bytes = self.image(file).map_err(|e| e.at(file.display()))?;
            if i == 0 {
                check_memory(files.len() as f64 * bytes.len() as f64)
                    .map_err(|e| e.at(part.display()))?;
                split.images.reserve_exact(files.len() * bytes.len());
            }
            split.images.extend(bytes);
            split.labels.push(*label);
        }
        Ok(split)
    }

    /// Reads an image, and converts its size and channels as asked.
    fn image(&mut self, file: &Path) -> Result<Vec<u8>> {
        let unreadable = |e: &dyn std::fmt::Display| Error::data(format!("unreadable image: {e}"));
        let open = || ImageReader::open(file).and_then(ImageReader::with_guessed_format);
        let size = open().map_err(|e| unreadable(&e))?.into_dimensions();
        let (columns, rows) = size.map_err(|e| unreadable(&e))?;
        let pixels = f64::from(columns) * f64::from(rows);
        if pixels > LARGE {
            // Decoded, in 8 bits, and converted; in colour with an alpha channel at most.
            check_memory(3.0 * 4.0 * pixels)?;
        }
        let image = open().map_err(|e| unreadable(&e))?.decode();
        let image = image.map_err(|e| unreadable(&e))?;
        let (channels, bytes) = if image.color().has_color() {
            (3, image.into_rgb8().into_raw())
        } else {
            (1, image.into_luma8().into_raw())
        };
        let from = [rows as usize, columns as usize, channels];
        let shape = self.want.shape(from);
        let (first, wanted) = self.first.get_or_insert_with(|| (file.to_owned(), shape));
        if *wanted == shape {
            return Ok(self.want.image(&bytes, from));
        }
        let words = |[rows, columns, channels]: [usize; 3]| {
            let colour = if channels == 1 { "grey" } else { "in colour" };
            format!("{rows}×{columns} {colour}")
        };
        let (this, that, first) = (words(shape), words(*wanted), first.display());
        let error = Error::data(format!("{this}, and {first} is {that}"));
        Err(error.hint("--resize N and --channels grey or colour make images alike"))
    }
}
