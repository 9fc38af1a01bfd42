//! `gtn fit`

use super::progress::Progress;
use super::{Files, Machine, Outcome, say, show, stop};
use crate::data::{Augment, DatasetChoice, Want};
use crate::error::{Error, Result};
use crate::eval::tuning::{Cycle, Recipe};
use crate::export::Format;
use crate::export::fitted::Fitted;
use crate::fit::{Auxiliary, BATCH, Fit, RECIPE};
use crate::nn::{Learners, Network};
use crate::outer::hyper::OptimizerChoice;
use crate::run::config::{Config, Preset};
use crate::run::run_folder::{hold, is_empty, make_folder, write_atomically};
use crate::run::values::{above_zero, count, natural, not_negative};
use crate::search::tune;
use crate::text::differences;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tensor::{Metadata, read_safetensors, safetensors_bytes};

const CHECKPOINT: &str = "fit.safetensors";
/// Held by the process that writes to the folder. The checkpoint cannot be: every epoch has a new file.
const LOCK: &str = "fit.lock";

/// The setting that checkpoints of older versions lack.
const IMAGES: &str = "data.images";

/// The auxiliary head of Liu, Simonyan and Yang (2019, arXiv 1806.09055), for 8×8 images.
const HEAD: &str = "weight_norm off | init pytorch | relu | avg 5 stride 3 pad 0 | conv 128 1x1 no_bias | batch | relu | \
                    conv 768 2x2 pad 0 no_bias | batch | relu | dense";

/// Settings of `gtn fit`.
#[derive(Debug, Args)]
pub(super) struct FitArgs {
    /// The network: one of a space (nasbench201:334131), a family, or a text like 'conv 16 | relu | dense'
    #[arg(value_name = "NETWORK")]
    network: Learners,
    /// Data set, as for `gtn train`
    #[arg(long, value_name = "NAME|PATH", default_value = "auto", value_parser = DatasetChoice::from_str)]
    dataset: DatasetChoice,
    #[command(flatten)]
    want: Want,
    #[command(flatten)]
    augment: Augment,
    /// Times that every training image is seen
    #[arg(long, value_name = "N", default_value = "20", value_parser = natural(1))]
    epochs: u64,
    /// Images in a batch
    #[arg(long, value_name = "N", default_value_t = BATCH, value_parser = count())]
    batch: usize,
    /// What moves the weights
    #[arg(long, value_enum, default_value_t = OptimizerChoice(RECIPE.optimizer))]
    optimizer: OptimizerChoice,
    /// The highest learning rate [default: 0.2, of Adam and its like 0.005, of Lion 0.001, of Muon 0.05]
    #[arg(long, value_name = "X", value_parser = above_zero)]
    lr: Option<f64>,
    /// How the rate goes over the steps
    #[arg(long, value_enum, default_value_t = RECIPE.cycle)]
    cycle: Cycle,
    /// What the loss of an auxiliary head is multiplied with, which reads what the last layer gives that makes images smaller (0.4 in the
    /// paper); 0 for none
    #[arg(long, value_name = "X", default_value = "0", hide_default_value = true, value_parser = not_negative)]
    auxiliary: f64,
    /// The layers of that head: by default the published ones, for images of 8×8 and more there
    #[arg(long, value_name = "TEXT", default_value = HEAD, hide_default_value = true, value_parser = Network::from_str)]
    auxiliary_head: Network,
    /// Train on the validation images, too, where nothing is left to choose
    #[arg(long)]
    with_validation: bool,
    /// Seed of all random numbers
    #[arg(long, value_name = "N", default_value = "1", value_parser = natural(0))]
    seed: u64,
    /// Folder for the network; where a training was stopped there, it goes on
    #[arg(long, value_name = "DIR", default_value = "fit")]
    out: PathBuf,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    files: Files,
}

/// The results of an epoch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Passage {
    epoch: u64,
    loss: f64,
    /// None where validation images are trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_accuracy: Option<f64>,
}

impl Passage {
    fn line(&self) -> String {
        let accuracy = self
            .validation_accuracy
            .map_or_else(String::new, |accuracy| {
                format!(", accuracy {:.2} %", 100.0 * accuracy)
            });
        format!("loss {:.3}{accuracy}", self.loss)
    }
}

pub(super) fn run(args: &FitArgs) -> Result<Outcome> {
    stop::listen()?;
    let Learners::Family(family) = &args.network else {
        let error = Error::usage(format!("{} is more than one network", args.network.name()));
        return Err(error.hint("a network of a space is written nasbench201:334131"));
    };
    check_folder(&args.out)?;
    let config = Config {
        seed: args.seed,
        dataset: args.dataset.clone(),
        want: args.want,
        augment: args.augment,
        inner_batch: args.batch,
        ..Config::preset(Preset::Quick)
    };
    let device = args.machine.device()?;
    let mut data = args.files.data(&config, None)?;
    if args.with_validation {
        data.train.images.extend(&data.validation.images);
        data.train.labels.extend(&data.validation.labels);
    }
    let problem = data.problem();
    let learner = family
        .network(&family.usual, family.norms[0])?
        .learner(problem.image, problem.classes);
    let learner = learner.map_err(|error| Error::usage(error).at(&family.name))?;
    let recipe = Recipe {
        optimizer: args.optimizer.0,
        lr: args.lr.unwrap_or_else(|| args.optimizer.usual_lr()),
        momentum: RECIPE.momentum,
        cycle: args.cycle,
    };
    let auxiliary = (args.auxiliary > 0.0)
        .then(|| Auxiliary::new(&learner, &args.auxiliary_head, problem, args.auxiliary))
        .transpose()?;
    let networks = (&learner, auxiliary.as_ref());
    let mut fit = Fit::new(&device, &config, &data, networks, recipe, args.epochs)?;
    let _lock = lock(&args.out)?;
    let settings = json!({
        "network": learner.network().to_string(), "data": data.card, "seed": args.seed, "batch": args.batch, "epochs": args.epochs,
        "augment": args.augment, "recipe": tune::to_json(&recipe), "with_validation": args.with_validation,
        "auxiliary": auxiliary.is_some().then(|| json!([args.auxiliary, args.auxiliary_head.to_string()])),
    });
    let mut epochs = resume(args, &mut fit, &settings.to_string())?;
    let steps = fit.steps_of_epoch();
    let mut progress = Progress::new("Step", steps * args.epochs, steps * fit.epoch());
    let mut done = steps * fit.epoch();
    while fit.epoch() < args.epochs {
        let line = epochs.last().map_or_else(String::new, Passage::line);
        let mut watch = || {
            done += 1;
            progress.at(done, &line);
            !stop::asked()
        };
        let Some(loss) = fit.train(&mut watch)? else {
            say(&format!(
                "Stopped. The same command goes on after epoch {} of {}",
                epochs.len(),
                args.epochs
            ));
            return Ok(Outcome::Interrupted);
        };
        if fit.epoch() == args.epochs {
            fit.average_statistics()?;
        }
        let judged = (!args.with_validation).then(|| fit.judge(&device, &data.validation));
        epochs.push(Passage {
            epoch: fit.epoch(),
            loss,
            validation_accuracy: judged.transpose()?.map(|mark| mark.accuracy),
        });
        let about = Metadata::from([
            ("settings".to_owned(), settings.to_string()),
            (
                "epochs".to_owned(),
                serde_json::to_string(&epochs).map_err(Error::run)?,
            ),
        ]);
        let bytes = safetensors_bytes(&fit.arrays()?, &about).map_err(Error::run)?;
        write_atomically(&args.out.join(CHECKPOINT), |file| file.write_all(&bytes))?;
    }
    drop(progress);
    let test = fit.judge(&device, &data.test)?;
    let fitted = Fitted::new(&settings, &fit.network()?)?;
    fitted.write(&args.out, Some(Format::Safetensors))?;
    fitted.write(&args.out, None)?;
    let last = epochs.last().and_then(|last| last.validation_accuracy);
    let validated = last.map_or_else(String::new, |accuracy| {
        let count = data.validation.len();
        format!(", {:.2} % of {count} validation images", 100.0 * accuracy)
    });
    show(&format!(
        "{}: {:.2} % of {} test images{validated}, {} parameters",
        family.name,
        100.0 * test.accuracy,
        data.test.len(),
        learner.parameter_count()
    ))?;
    say(&format!(
        "The network is in {}: network.safetensors, network.onnx, and network.py with network.npz for PyTorch",
        args.out.display()
    ));
    args.machine.print(&json!({
        "command": "fit", "network": family.name, "out": args.out.to_string_lossy(), "test_accuracy": test.accuracy, "test_loss": test.loss,
        "validation_accuracy": last, "parameters": learner.parameter_count(), "epochs": epochs,
    }))?;
    Ok(Outcome::Done)
}

/// Refuses a folder that holds something else. If it held a run, `gtn export` would find the fit's network
/// there and export that.
fn check_folder(folder: &Path) -> Result<()> {
    let begun = [CHECKPOINT, LOCK]
        .iter()
        .any(|file| folder.join(file).is_file());
    if !folder.is_dir() || begun || is_empty(folder)? {
        return Ok(());
    }
    let problem = format!("the folder is not empty, and has no {CHECKPOINT} to go on from");
    let error = Error::usage(problem).at(folder.display());
    Err(error.hint("--out names another folder"))
}

/// Makes the folder, and keeps other processes from writing to it until the file is closed.
fn lock(folder: &Path) -> Result<File> {
    make_folder(folder)?;
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(|error| Error::file("write", &path, &error))?;
    hold(&file, folder, "folder")?;
    Ok(file)
}

/// Resumes from the checkpoint in the folder, if there is one with these settings. Gives the epochs that are
/// done.
fn resume(args: &FitArgs, fit: &mut Fit<'_>, settings: &str) -> Result<Vec<Passage>> {
    let path = args.out.join(CHECKPOINT);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let place = || path.display().to_string();
    let (arrays, about) = read_safetensors(&path).map_err(Error::run)?;
    let there = about.get("settings").map(String::as_str);
    let changes = changes(settings, there.unwrap_or_default());
    let changes = changes.map_err(|error| Error::run(error).at(place()))?;
    if !changes.is_empty() {
        let message = format!("a training with other settings: {}", changes.join(", "));
        let error = Error::usage(message).at(place());
        return Err(error.hint("--out names another folder"));
    }
    let epochs = about.get("epochs").map(String::as_str).unwrap_or_default();
    let epochs: Vec<Passage> =
        serde_json::from_str(epochs).map_err(|error| Error::run(error).at(place()))?;
    fit.restore(&arrays, epochs.len() as u64)
        .map_err(|error| error.at(place()))?;
    say(&format!(
        "Going on after epoch {} of {}",
        epochs.len(),
        args.epochs
    ));
    Ok(epochs)
}

/// The settings that differ, in words.
fn changes(here: &str, there: &str) -> serde_json::Result<Vec<String>> {
    let (mut here, there) = (by_name(here)?, by_name(there)?);
    if !there.contains_key(IMAGES) {
        // A checkpoint of an older version.
        here.remove(IMAGES);
    }
    Ok(differences(&here, &there))
}

/// Settings by name, such as `recipe.lr`, without the place of the data set: it may have been moved.
fn by_name(settings: &str) -> serde_json::Result<Map<String, Value>> {
    let mut named = Map::new();
    for (name, value) in serde_json::from_str::<Map<String, Value>>(settings)? {
        match value {
            Value::Object(inner) => {
                let inner = inner.into_iter();
                named.extend(inner.map(|(part, value)| (format!("{name}.{part}"), value)));
            }
            value => {
                named.insert(name, value);
            }
        }
    }
    named.remove("data.place");
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_writes_to_a_folder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("fit");
        let held = lock(&folder).unwrap();
        let error = lock(&folder).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(
            error
                .to_string()
                .contains("fit: another process is writing")
        );
        drop(held);
        lock(&folder).unwrap();
        check_folder(&folder).unwrap();
    }

    #[test]
    fn settings_that_differ_are_named_and_the_place_of_the_data_is_none() {
        let settings = |place: &str, epochs: u64, lr: f64| {
            let data = json!({ "name": "mnist", "place": place, "images": [5, 1, 1] });
            json!({ "epochs": epochs, "data": data, "recipe": { "lr": lr } }).to_string()
        };
        let here = settings("/a", 2, 0.5);
        assert!(changes(&here, &settings("/b", 2, 0.5)).unwrap().is_empty());
        let found = changes(&here, &settings("/a", 1, 0.25)).unwrap();
        let words = [
            "epochs is 2 here and 1 there",
            "recipe.lr is 0.5 here and 0.25 there",
        ];
        assert_eq!(found, words);
        let older = here.replace(",\"images\":[5,1,1]", "");
        let older = older.replace("\"images\":[5,1,1],", "");
        assert_ne!(older, here);
        assert!(changes(&here, &older).unwrap().is_empty());
        assert!(changes(&here, "").is_err());
    }

    #[test]
    fn a_fit_writes_into_no_folder_of_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        check_folder(&folder.join("none")).unwrap();
        check_folder(folder).unwrap();
        // What a fit leaves behind that was killed before its first checkpoint.
        std::fs::write(folder.join(".unfinished-x"), "half").unwrap();
        check_folder(folder).unwrap();
        std::fs::write(folder.join("config.toml"), "seed = 1").unwrap();
        let error = check_folder(folder).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.lines().ends_with("hint: --out names another folder"));
        std::fs::write(folder.join(CHECKPOINT), "").unwrap();
        check_folder(folder).unwrap();
    }
}
