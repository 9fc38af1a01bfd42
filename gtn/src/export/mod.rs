//! Export to other frameworks: the synthetic batches of a run, and programs in PyTorch and JAX that train on
//! them.

pub mod fitted;
pub mod onnx;
pub mod python;

use crate::data::Dataset;
use crate::draw::picture::ImageGrid;
use crate::error::{Error, Result};
use crate::eval::training_data::TrainingData;
use crate::run::run_folder::write_atomically;
use python::{Framework, Program};
use serde::Serialize;
use std::collections::HashSet;
use std::path::Path;
use tensor::{Array, Arrays, Metadata, write_npz, write_safetensors};

/// The form of what is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// data.npz, for NumPy, with the programs that read it
    #[default]
    Npz,
    /// data.safetensors
    Safetensors,
    /// A PNG file for every image, in a folder for each class
    Images,
    /// What computes, as ONNX: generator.onnx of a run, network.onnx of what `gtn fit` made
    Onnx,
    /// A network that `gtn fit` made, for PyTorch: network.py with network.npz
    Torch,
}

/// What is exported.
#[derive(Debug)]
pub struct Export<'a> {
    /// The batches that a run teaches.
    pub lesson: &'a TrainingData,
    /// The data set, whose test images are exported, too.
    pub data: &'a Dataset,
    /// What the programs are written for.
    pub program: Program<'a>,
    /// Images of a batch.
    pub batch: usize,
    /// The generator as ONNX, where one makes the images.
    pub generator: Option<Vec<u8>>,
}

impl Export<'_> {
    /// Refuses a format that this export cannot have.
    ///
    /// # Errors
    /// The same as of [`Export::write`], but before a folder is made.
    pub fn check(&self, format: Format) -> Result<()> {
        match format {
            Format::Onnx if self.generator.is_none() => Err(Error::run("the run has no generator")),
            Format::Torch => {
                let error = Error::usage("this is for networks that `gtn fit` made");
                Err(error.hint("--format npz writes a run's images with a program for PyTorch"))
            }
            _ => Ok(()),
        }
    }

    /// Writes it into an existing folder.
    ///
    /// # Errors
    /// If it does not have that format, or a file cannot be written.
    pub fn write(&self, folder: &Path, format: Format) -> Result<()> {
        let arrays = || -> Result<Arrays> {
            let mut arrays = self.lesson.arrays(self.program.rule.optimizer)?;
            arrays.extend(test_images(self.data)?);
            Ok(arrays)
        };
        match format {
            Format::Npz => {
                let mut arrays = arrays()?;
                arrays.extend(self.lesson.noise()?.map(|z| ("z".to_owned(), z)));
                write_npz(folder.join("data.npz"), &arrays).map_err(Error::run)?;
                self.write_generator(folder)?;
                self.write_programs(folder)
            }
            Format::Safetensors => {
                let about = Metadata::from([
                    ("origin".to_owned(), self.program.origin.clone()),
                    (
                        "optimizer".to_owned(),
                        self.program.rule.optimizer.name().to_owned(),
                    ),
                    ("network".to_owned(), self.program.network.to_string()),
                ]);
                let path = folder.join("data.safetensors");
                write_safetensors(path, &arrays()?, &about).map_err(Error::run)
            }
            Format::Images => self.write_images(folder),
            Format::Onnx | Format::Torch => {
                self.check(format)?;
                self.write_generator(folder)
            }
        }
    }

    fn write_generator(&self, folder: &Path) -> Result<()> {
        let Some(generator) = &self.generator else {
            return Ok(());
        };
        write_atomically(&folder.join("generator.onnx"), |file| {
            file.write_all(generator)
        })
    }

    fn write_programs(&self, folder: &Path) -> Result<()> {
        for (name, framework) in [
            ("train_jax.py", Framework::Jax),
            ("train_torch.py", Framework::Torch),
        ] {
            let text = self.program.text(framework);
            write_atomically(&folder.join(name), |file| file.write_all(text.as_bytes()))?;
        }
        Ok(())
    }

    /// A file for every image: its class, the step that takes it, and its place in the batch.
    fn write_images(&self, folder: &Path) -> Result<()> {
        let images = self.lesson.images()?;
        let size = self.data.problem().image;
        let labels = &self.lesson.labels;
        let names = folder_names(&self.data.card.class_names);
        let grid = ImageGrid::new(&images, labels, self.batch, size)?;
        for (i, &label) in labels.iter().enumerate() {
            let folder = folder.join(&names[usize::from(label)]);
            std::fs::create_dir_all(&folder).map_err(|e| Error::file("make", &folder, &e))?;
            let [step, place] = [i / self.batch, i % self.batch];
            let path = folder.join(format!("step-{step:03}-{place:03}.png"));
            grid.single(i).write(&path)?;
        }
        Ok(())
    }
}

/// A folder name for each class. Class names of a data set could lead out of the export's folder, so unsafe
/// characters are replaced. Safe names stay as they are. A changed name that collides with another gets a
/// number.
fn folder_names(classes: &[String]) -> Vec<String> {
    let safe: Vec<String> = classes.iter().map(|class| folder_name(class)).collect();
    let both = || classes.iter().zip(&safe);
    let kept = both().filter(|(class, name)| class == name);
    let mut taken: HashSet<String> = kept.map(|(class, _)| class.clone()).collect();
    let own = |(class, name): (&String, &String)| {
        if class == name {
            name.clone()
        } else {
            free(name, &mut taken)
        }
    };
    both().map(own).collect()
}

/// The name without characters that lead to another folder or hide the folder.
fn folder_name(class: &str) -> String {
    let visible = class.trim_start_matches('.');
    let dots = class.len() - visible.len();
    let is_odd = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    let name = "_".repeat(dots) + &visible.replace(is_odd, "_");
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

/// The name, or the name with the first number that makes it unique.
fn free(name: &str, taken: &mut HashSet<String>) -> String {
    let (mut free, mut number) = (name.to_owned(), 1);
    while !taken.insert(free.clone()) {
        number += 1;
        free = format!("{name}-{number}");
    }
    free
}

/// The test images as bytes, and their classes.
fn test_images(data: &Dataset) -> Result<Arrays> {
    let [h, w, c] = data.problem().image;
    let labels: Vec<i32> = data
        .test
        .labels
        .iter()
        .map(|&label| i32::from(label))
        .collect();
    let images = Array::new([labels.len(), h, w, c], data.test.images.clone());
    let labels = Array::new([labels.len()], labels);
    Ok(Arrays::from([
        ("x_test".to_owned(), images.map_err(Error::run)?),
        ("y_test".to_owned(), labels.map_err(Error::run)?),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(classes: &[&str]) -> Vec<String> {
        let classes: Vec<String> = classes.iter().map(|&class| class.to_owned()).collect();
        folder_names(&classes)
    }

    #[test]
    fn classes_are_folders_below_the_one_that_was_asked_for() {
        let odd = ["../escaped", "/tmp/abs", "", "..", "a\\b", "C:", "x\n\0y"];
        let safe = [
            "___escaped",
            "_tmp_abs",
            "unnamed",
            "__",
            "a_b",
            "C_",
            "x__y",
        ];
        assert_eq!(names(&odd), safe);
        let usual = ["7", "T-shirt", "maple tree", "Ahorn.A", "é"];
        assert_eq!(names(&usual), usual);
    }

    #[test]
    fn every_class_has_a_folder_of_its_own() {
        let found = names(&["a/b", "a:b", "a_b", "a_b-2", "", "unnamed"]);
        assert_eq!(
            found,
            ["a_b-3", "a_b-4", "a_b", "a_b-2", "unnamed-2", "unnamed"]
        );
    }
}
