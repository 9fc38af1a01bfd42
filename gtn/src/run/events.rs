//! Metrics as event files of `TensorBoard`, beside `metrics.jsonl`: records of `TensorFlow` with a message of `event.proto` each.

use crate::error::{Error, Result};
use crc::{CRC_32_ISCSI, Crc};
use prost::{Message, Oneof};
use serde::Serialize;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The part of `event.proto` that is written, by its field numbers.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// A session begins: `TensorBoard` drops what earlier files have of this step and later ones.
const START: i32 = 1;

/// An event file of a run.
#[derive(Debug)]
pub(crate) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a file in a run's folder, after `outer_step` outer steps.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn begin(folder: &Path, outer_step: u64) -> Result<Self> {
        // Names come in the order of time; sessions may begin within a second.
        let name = |number| format!("events.out.tfevents.{:010}.{number}.gtn", now() as u64);
        let (path, file) = (0..)
            .map(|number: u32| folder.join(name(number)))
            .map(|path| {
                (
                    OpenOptions::new().create_new(true).append(true).open(&path),
                    path,
                )
            })
            .find_map(|(file, path)| match file {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
                file => Some((path, file)),
            })
            .expect("some number is free");
        let file = file.map_err(|error| Error::file("write", &path, &error))?;
        let mut events = Self { path, file };
        events.write(0, What::FileVersion("brain.Event:2".to_owned()))?;
        events.write(
            outer_step + 1,
            What::SessionLog(SessionLog { status: START }),
        )?;
        Ok(events)
    }

    /// Adds every number of `metrics`, a struct or a map, under its name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn append(&mut self, outer_step: u64, metrics: &impl Serialize) -> Result<()> {
        let metrics = serde_json::to_value(metrics).map_err(Error::run)?;
        let numbers = metrics.as_object().into_iter().flatten();
        let scalar = |(name, value): (&String, &Value)| {
            Some(Scalar {
                tag: name.clone(),
                simple_value: value.as_f64()? as f32,
            })
        };
        let value = numbers.filter_map(scalar).collect();
        self.write(outer_step, What::Summary(Summary { value }))
    }

    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let event = Event {
            wall_time: now(),
            step: step as i64,
            what: Some(what),
        };
        // One call for the whole record, so that a reader never sees half of one.
        let written = self.file.write_all(&record(&event.encode_to_vec()));
        written.map_err(|error| Error::file("write", &self.path, &error))
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Bytes as a record of `TensorFlow`: their length and its checksum, then the bytes and theirs.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] = [&length, &checksum(&length), bytes, &checksum(bytes)];
    parts.concat()
}

/// The masked CRC-32C of such records. It is rotated and offset, because a CRC over data that holds CRCs is
/// weak.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(bytes);
    sum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Reads records, whose checksums must be right.
    fn events(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let bytes = &after[4..][..u64::from_le_bytes(*length) as usize];
            assert_eq!(rest[..16 + bytes.len()], record(bytes));
            events.push(Event::decode(bytes).unwrap());
            rest = &rest[16 + bytes.len()..];
        }
        assert!(rest.is_empty());
        events
    }

    #[test]
    fn numbers_come_back_under_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = Events::begin(folder.path(), 6).unwrap();
        let metrics =
            json!({ "meta_loss": 2.5, "widths": [3, 4], "nothing": null, "inner_steps": 8 });
        file.append(7, &metrics).unwrap();
        let found = events(&file.path);
        assert_eq!(
            found[0].what,
            Some(What::FileVersion("brain.Event:2".into()))
        );
        let start = SessionLog { status: START };
        assert_eq!(
            (found[1].step, &found[1].what),
            (7, &Some(What::SessionLog(start)))
        );
        let scalar = |(tag, simple_value): (&str, f32)| Scalar {
            tag: tag.to_owned(),
            simple_value,
        };
        let value = [("inner_steps", 8.0), ("meta_loss", 2.5)]
            .map(scalar)
            .to_vec();
        let summary = What::Summary(Summary { value });
        assert_eq!((found[2].step, &found[2].what), (7, &Some(summary)));
        assert!(found[2].wall_time > 1.7e9);

        let second = Events::begin(folder.path(), 7).unwrap();
        assert_ne!(second.path, file.path);
        assert_eq!(events(&file.path).len(), 3);
    }

    /// The check value of CRC-32C is e3069283 (RFC 3720); its mask is `TensorFlow`'s.
    #[test]
    fn checksums_are_those_of_tensorflow() {
        let masked = 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(checksum(b"123456789"), masked.to_le_bytes());
        assert_eq!(record(b"")[..8], [0; 8]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Events::begin(Path::new("/none"), 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/none/events.out.tfevents."), "{error}");
    }
}
