//! Exports a network that `gtn fit` trained, in formats for other programs.

use super::Format;
use super::onnx::Trained;
use super::python::Program;
use crate::data::Card;
use crate::error::{Error, Result};
use crate::nn::{Learner, Network, ParamSpec};
use crate::run::run_folder::write_atomically;
use crate::search::tune;
use autograd::optim::Optimizer;
use serde_json::Value;
use std::path::Path;
use tensor::{Array, Arrays, Metadata, read_safetensors, safetensors_bytes, write_npz};

/// The file with the network and its settings.
pub const NETWORK: &str = "network.safetensors";
const SETTINGS: &str = "settings";

/// A trained network.
#[derive(Debug)]
pub struct Fitted {
    learner: Learner,
    card: Card,
    optimizer: Optimizer,
    settings: String,
    /// Its parameters, and the statistics of its norms over batches, in the order in which it takes them.
    arrays: [Vec<Array>; 2],
}

impl Fitted {
    /// Builds the network from the settings of a fit and its arrays by name.
    ///
    /// # Errors
    /// If they are not those of a fit.
    pub fn new(settings: &Value, arrays: &Arrays) -> Result<Self> {
        let lacks = |what: &str| Error::run(format!("its settings have no {what}"));
        let network = settings["network"]
            .as_str()
            .ok_or_else(|| lacks("network"))?;
        let network: Network = network.parse().map_err(Error::run)?;
        let card: Card =
            serde_json::from_value(settings["data"].clone()).map_err(|_| lacks("data"))?;
        let learner = network.learner(card.problem.image, card.problem.classes);
        let learner = learner.map_err(Error::run)?;
        let named = |specs: &[ParamSpec]| -> Result<Vec<Array>> {
            let array = |spec: &ParamSpec| {
                let name = &spec.name;
                let missing = || Error::run(format!("array {name} is missing"));
                let array = arrays.get(name).ok_or_else(missing)?;
                check(spec, array).map_err(|error| error.at(format!("array {name}")))?;
                Ok(array.clone())
            };
            specs.iter().map(array).collect()
        };
        Ok(Self {
            optimizer: tune::from_json(&settings["recipe"])?.optimizer,
            settings: settings.to_string(),
            arrays: [named(learner.params())?, named(learner.buffers())?],
            card,
            learner,
        })
    }

    /// Reads it from the folder of a fit.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NETWORK);
        let (arrays, about) = read_safetensors(&path).map_err(Error::run)?;
        let settings = about.get(SETTINGS).map(String::as_str).unwrap_or_default();
        let settings: Value =
            serde_json::from_str(settings).map_err(|error| Error::run(error).at(path.display()))?;
        Self::new(&settings, &arrays).map_err(|error| error.at(path.display()))
    }

    /// Its layers as a line of text.
    pub fn network(&self) -> String {
        self.learner.network().to_string()
    }

    /// Refuses a format that a trained network does not have.
    ///
    /// # Errors
    /// Of usage, if the format is one of images.
    pub fn check(format: Option<Format>) -> Result<()> {
        match format {
            Some(Format::Npz | Format::Images) => {
                let error = Error::usage("a trained network has no images");
                Err(error.hint("--format torch, onnx or safetensors"))
            }
            _ => Ok(()),
        }
    }

    /// Writes it into an existing folder. Without a format it writes two: for PyTorch, and ONNX.
    ///
    /// # Errors
    /// If the format is one of images, or a file cannot be written.
    pub fn write(&self, to: &Path, format: Option<Format>) -> Result<()> {
        match format {
            None => {
                self.write_torch(to)?;
                self.write_onnx(to)
            }
            Some(Format::Torch) => self.write_torch(to),
            Some(Format::Onnx) => self.write_onnx(to),
            Some(Format::Safetensors) => self.write_safetensors(to),
            Some(Format::Npz | Format::Images) => Self::check(format),
        }
    }

    fn write_onnx(&self, to: &Path) -> Result<()> {
        let trained = Trained {
            network: self.learner.network(),
            image: self.card.problem.image,
            arrays: [&self.arrays[0], &self.arrays[1]],
            normalisation: [&self.card.mean, &self.card.std],
        };
        let classes = self.card.class_names.join(", ");
        let about = format!("{}. Images from 0 to 1; classes: {classes}", self.origin());
        let bytes = trained.onnx(about)?;
        write_atomically(&to.join("network.onnx"), |file| file.write_all(&bytes))
    }

    fn write_torch(&self, to: &Path) -> Result<()> {
        let kinds = ["weight", "statistic"].iter().zip(&self.arrays);
        let named = kinds.flat_map(|(kind, arrays)| {
            let numbered = arrays.iter().enumerate();
            numbered.map(move |(i, array)| (format!("{kind}{i}"), array.clone()))
        });
        write_npz(to.join("network.npz"), &named.collect()).map_err(Error::run)?;
        let program = Program {
            network: self.learner.network(),
            rule: self.optimizer.into(),
            rate_groups: &[],
            statistics: [&self.card.mean, &self.card.std],
            origin: self.origin(),
        };
        let text = program.module();
        write_atomically(&to.join("network.py"), |file| {
            file.write_all(text.as_bytes())
        })
    }

    fn write_safetensors(&self, to: &Path) -> Result<()> {
        let specs = self.learner.params().iter().chain(self.learner.buffers());
        let arrays = self.arrays.iter().flatten().cloned();
        let arrays: Arrays = specs.map(|spec| spec.name.clone()).zip(arrays).collect();
        let about = Metadata::from([(SETTINGS.to_owned(), self.settings.clone())]);
        let bytes = safetensors_bytes(&arrays, &about).map_err(Error::run)?;
        write_atomically(&to.join(NETWORK), |file| file.write_all(&bytes))
    }

    fn origin(&self) -> String {
        format!("gtn fit, {}: {}", self.card.name, self.network())
    }
}

/// Refuses an array that cannot be what the network takes.
fn check(spec: &ParamSpec, array: &Array) -> Result<()> {
    if *array.shape() != spec.shape {
        let [wanted, found] = [&spec.shape, array.shape()].map(|shape| format!("{:?}", &shape[..]));
        return Err(Error::run(format!(
            "its shape is {found}, and the network needs {wanted}"
        )));
    }
    match array.as_f32() {
        None => Err(Error::run(format!(
            "its elements are {}, not f32",
            array.dtype()
        ))),
        Some(numbers) if numbers.iter().any(|number| !number.is_finite()) => {
            Err(Error::run("a number in it is not finite"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use serde_json::json;

    #[test]
    fn arrays_of_another_network_are_refused() {
        let card = Dataset::drawn(1, [10, 5, 5]).card;
        let recipe =
            json!({ "optimizer": "adam", "lr": 0.1, "momentum": 0.9, "cycle": "constant" });
        let settings =
            json!({ "network": "conv 4 | mean | dense", "data": card, "recipe": recipe });
        let network: Network = "conv 4 | mean | dense".parse().unwrap();
        let learner = network.learner([28, 28, 1], 10).unwrap();
        let zeros = |spec: &ParamSpec| {
            let array = Array::zeros(tensor::DType::F32, spec.shape.clone());
            (spec.name.clone(), array)
        };
        let sound: Arrays = learner.params().iter().map(zeros).collect();
        assert!(Fitted::new(&settings, &sound).is_ok());
        let said = |array: Array| {
            let mut arrays = sound.clone();
            arrays.insert("c1.b".to_owned(), array);
            Fitted::new(&settings, &arrays).unwrap_err().to_string()
        };
        let f32s = |numbers: Vec<f32>| Array::new([numbers.len()], numbers).unwrap();
        assert_eq!(
            said(f32s(vec![0.0; 8])),
            "array c1.b: its shape is [8], and the network needs [4]"
        );
        assert_eq!(
            said(f32s(vec![f32::NAN; 4])),
            "array c1.b: a number in it is not finite"
        );
        let whole = Array::new([4], vec![1i32; 4]).unwrap();
        assert_eq!(said(whole), "array c1.b: its elements are i32, not f32");
    }
}
