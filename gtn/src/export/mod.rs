//! Out to where people work: the synthetic batches of a run, and programs in PyTorch and JAX that train on them.

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
    /// The data set, whose test images go along.
    pub data: &'a Dataset,
    /// What the programs are written for.
    pub program: Program<'a>,
    /// Images of a batch.
    pub batch: usize,
    /// The generator as ONNX, where one makes the images.
    pub generator: Option<Vec<u8>>,
}

impl Export<'_> {
    /// Writes it into a folder that is there.
    ///
    /// # Errors
    /// If a file cannot be written.
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
            Format::Onnx if self.generator.is_some() => self.write_generator(folder),
            Format::Onnx => Err(Error::run("the run has no generator")),
            Format::Torch => {
                let error = Error::usage("this is for networks that `gtn fit` made");
                Err(error.hint("--format npz writes a run's images with a program for PyTorch"))
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
        for (i, image) in images.chunks_exact(size.iter().product()).enumerate() {
            let class = &self.data.card.class_names[usize::from(labels[i])];
            let folder = folder.join(class);
            std::fs::create_dir_all(&folder).map_err(|e| Error::file("make", &folder, &e))?;
            let picture = ImageGrid::new(image, &labels[i..=i], 1, size)?.every_image();
            let [step, place] = [i / self.batch, i % self.batch];
            picture.write(&folder.join(format!("step-{step:03}-{place:03}.png")))?;
        }
        Ok(())
    }
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
