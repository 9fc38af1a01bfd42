//! Damaged files: a reader says in one line what is wrong, or reads arrays that are whole. It does not panic, and takes
//! neither time nor memory that the file does not have.

use crate::draw::Draw;
use flate2::Compression;
use flate2::write::GzEncoder;
use gtn::data::{Problem, idx};
use gtn::outer::meta::MetaTrainer;
use gtn::run::checkpoint;
use gtn::run::config::{Config, Preset};
use gtn::run::run_folder::RunFolder;
use gtn::run::settings::Overrides;
use kernels::Device;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tensor::{
    Array, Arrays, DType, Metadata, read_npz, read_safetensors, safetensors_bytes,
    safetensors_from_bytes, write_npz,
};

/// Who reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Images,
    Labels,
    Npz,
    Safetensors,
    Settings,
    Metrics,
    Checkpoint,
}

/// Sound files, and a folder for damaged ones.
pub(crate) struct Readers {
    folder: TempDir,
    files: Vec<(Kind, &'static str, Vec<u8>)>,
    config: Config,
    device: Device,
}

const SETTINGS: &str = "inner_steps = 2\ninner_batch = 10\nouter_batch = 20\nwidths = '2,3,4'\nnoise = 4\n\
                        generator_hidden = 8\ngenerator_channels = [3, 2]\n";
/// The outer step of the checkpoint: metrics of later steps are dropped.
const STEP: u64 = 3;

impl Readers {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let device = Device::cpu(Some(1)).expect("a processor");
        let config = Config::from_toml("settings", SETTINGS).expect("sound settings");
        let pixels: Vec<u8> = (0..5 * 28 * 28).map(|i| (i % 251) as u8).collect();
        let images = [
            &[0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 28, 0, 0, 0, 28],
            &pixels[..],
        ]
        .concat();
        let labels = [0, 0, 8, 1, 0, 0, 0, 5, 0, 1, 2, 3, 4].to_vec();
        let arrays = arrays();
        let about = Metadata::from([("about".to_owned(), "a test".to_owned())]);
        let npz = folder.path().join("whole.npz");
        write_npz(&npz, &arrays).expect("room on disk");
        let line = |step| format!("{{\"outer_step\":{step},\"loss\":0.5,\"name\":\"x\"}}\n");
        let metrics: String = (1..=5).map(line).collect();
        let files = vec![
            (Kind::Images, "images", images.clone()),
            (Kind::Images, "images.gz", packed(&images)),
            (Kind::Labels, "labels", labels.clone()),
            (Kind::Labels, "labels.gz", packed(&labels)),
            (
                Kind::Npz,
                "arrays.npz",
                fs::read(npz).expect("just written"),
            ),
            (
                Kind::Safetensors,
                "arrays.safetensors",
                safetensors_bytes(&arrays, &about).expect("sound arrays"),
            ),
            (
                Kind::Settings,
                "settings.toml",
                Config::preset(Preset::Quick).to_toml().into_bytes(),
            ),
            (Kind::Metrics, "run/metrics.jsonl", metrics.into_bytes()),
            (
                Kind::Checkpoint,
                "run/checkpoint.safetensors",
                saved(folder.path(), &device, &config),
            ),
        ];
        Self {
            folder,
            files,
            config,
            device,
        }
    }

    /// Damages a file and reads it.
    pub(crate) fn attempt(&self, draw: &mut Draw) -> Result<(), String> {
        let (kind, name, mut bytes) = draw.of(&self.files);
        let other = draw.of(&self.files).2;
        for _ in 0..draw.between(1, 4) {
            damage(draw, &mut bytes, &other);
        }
        let path = self.folder.path().join(name);
        let found = match kind {
            Kind::Metrics => return self.metrics(&path, &bytes),
            kind => {
                fs::write(&path, &bytes).map_err(|e| e.to_string())?;
                self.read(kind, &path, &bytes)
            }
        };
        if kind == Kind::Checkpoint {
            let whole = &self.files.last().expect("files").2;
            fs::write(&path, whole).map_err(|e| e.to_string())?;
        }
        match found {
            Err(message) => one_line(&message),
            Ok(arrays) => whole(&arrays),
        }
    }

    fn read(&self, kind: Kind, path: &Path, bytes: &[u8]) -> Result<Arrays, String> {
        fn none<T, E: ToString>(found: Result<T, E>) -> Result<Arrays, String> {
            found.map(|_| Arrays::new()).map_err(|e| e.to_string())
        }
        match kind {
            Kind::Images => none(idx::read_images(path, Some([28, 28]))),
            Kind::Labels => none(idx::read_labels(path, Some(10))),
            Kind::Npz => read_npz(path).map_err(|e| e.to_string()),
            Kind::Safetensors => {
                let of_bytes = safetensors_from_bytes(bytes);
                let of_file = read_safetensors(path);
                if of_bytes.is_ok() != of_file.is_ok() {
                    return Err("a file and its bytes\nare not read alike".into());
                }
                of_file.map(|(arrays, _)| arrays).map_err(|e| e.to_string())
            }
            Kind::Settings => none(Overrides::read(path)),
            Kind::Checkpoint => none(checkpoint::load(
                path,
                &self.device,
                &self.config,
                Problem::MNIST,
            )),
            Kind::Metrics => unreachable!("read by `metrics`"),
        }
    }

    /// Goes on with a run whose metrics are damaged: lines that are whole, and not of later steps, stay.
    fn metrics(&self, path: &Path, bytes: &[u8]) -> Result<(), String> {
        fs::write(path, bytes).map_err(|e| e.to_string())?;
        let run = path.parent().expect("a run folder");
        match RunFolder::resume(run, STEP) {
            Err(error) => return one_line(&error.to_string()),
            Ok(folder) => folder.odd().iter().try_for_each(|odd| one_line(odd))?,
        }
        let left = fs::read(path).map_err(|e| e.to_string())?;
        let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let ended = bytes.split_inclusive(|&b| b == b'\n');
            let ended = ended.filter(|line| line.ends_with(b"\n"));
            ended.map(<[u8]>::to_vec).collect()
        };
        let sound = &self.files.iter().find(|file| file.0 == Kind::Metrics);
        let sound = lines(&sound.expect("metrics").2);
        let kept = lines(&left);
        let due = &sound[..STEP as usize];
        match lines(bytes)
            .iter()
            .find(|line| due.contains(line) && !kept.contains(line))
        {
            Some(line) => Err(format!(
                "a sound line is lost: {:?}",
                String::from_utf8_lossy(line)
            )),
            None => Ok(()),
        }
    }
}

fn arrays() -> Arrays {
    let all = [
        ("f32", DType::F32, vec![2, 3]),
        ("f64", DType::F64, vec![]),
        ("u8", DType::U8, vec![7]),
        ("i32", DType::I32, vec![1, 2, 1]),
        ("bf16", DType::F16, vec![0, 3]),
    ];
    let array = |(name, dtype, shape): (&str, DType, Vec<usize>)| {
        (name.to_owned(), Array::full(dtype, shape, 3.0))
    };
    all.into_iter().map(array).collect()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).expect("memory");
    packed.finish().expect("memory")
}

/// The checkpoint of a run in the folder `run`.
fn saved(folder: &Path, device: &Device, config: &Config) -> Vec<u8> {
    let run: PathBuf = folder.join("run");
    let trainer = MetaTrainer::new(device, config, Problem::MNIST).expect("sound settings");
    let mut folder = RunFolder::create(&run).expect("an empty folder");
    let arrays = trainer.finite_arrays().expect("numbers of a start");
    folder
        .write_config(&config.to_toml())
        .expect("room on disk");
    checkpoint::save(&mut folder, &trainer, &arrays, None).expect("room on disk");
    fs::read(run.join("checkpoint.safetensors")).expect("just written")
}

/// Changes some bytes.
fn damage(draw: &mut Draw, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = draw.below(bytes.len() + 1);
    let end = (at + draw.between(1, 16)).min(bytes.len());
    match draw.below(9) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        3 => {
            let from = draw.below(other.len());
            let part = other[from..(from + draw.between(1, 64)).min(other.len())].to_vec();
            bytes.splice(at..end, part);
        }
        4 => {
            let text = [
                "9",
                "-",
                "18446744073709551615",
                "1e999",
                "\"",
                "{",
                "\n",
                "nan",
                "\u{1b}[",
            ];
            bytes.splice(at..end, draw.of(&text).bytes());
        }
        5 => {
            let number = draw.of(&[0, 1, u64::MAX, 1 << 63, 1 << 31, (1 << 32) - 1]);
            let number = if draw.once_in(2) {
                number
            } else {
                number.swap_bytes()
            };
            let width = draw.of(&[2, 4, 8]).min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        _ if at < bytes.len() => bytes[at] ^= 1 << draw.below(8),
        _ => {}
    }
}

/// A message for a terminal.
fn one_line(message: &str) -> Result<(), String> {
    if message.is_empty() || message.chars().any(char::is_control) {
        return Err(format!("no message of one line: {message:?}"));
    }
    Ok(())
}

/// What was read has as many numbers as its shapes say, and is read again when it is written.
fn whole(arrays: &Arrays) -> Result<(), String> {
    for (name, array) in arrays {
        if array.shape().count() != array.data().count() {
            return Err(format!("{name:?} has {} numbers", array.data().count()));
        }
    }
    let bytes = safetensors_bytes(arrays, &Metadata::new()).map_err(|e| e.to_string())?;
    let (again, _) = safetensors_from_bytes(&bytes).map_err(|e| e.to_string())?;
    let bits =
        |all: &Arrays| -> Vec<Vec<u8>> { all.values().map(|a| a.bytes().to_vec()).collect() };
    if bits(&again) != bits(arrays) {
        return Err("arrays are not the same when they are read again".into());
    }
    Ok(())
}
