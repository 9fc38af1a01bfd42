//! The safetensors format: a length, a JSON header, the bytes of the arrays one after the other.

use super::{Arrays, Fault, FileError, Metadata, Stored, write_atomically};
use crate::DType;
use ::safetensors::{Dtype as Kind, SafeTensorError, SafeTensors};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::Path;

const FORMAT: &str = "safetensors";
const METADATA: &str = "__metadata__";

/// Reads all arrays of a safetensors file and its metadata (empty if there is none). 64-bit
/// integers become [`DType::I32`], booleans [`DType::U8`].
///
/// # Errors
/// [`FileError`] if the file is missing, cut short, damaged, of another kind, has an element type
/// that [`DType`] lacks, or a 64-bit integer out of range.
pub fn read_safetensors(path: impl AsRef<Path>) -> Result<(Arrays, Metadata), FileError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|e| Fault::Read(e).at(path))?;
    safetensors_from_bytes(&bytes).map_err(|fault| fault.at(path))
}

/// Writes arrays and metadata as a safetensors file; an interrupted write leaves the old file.
/// Equal input gives equal bytes.
///
/// ```
/// use tensor::{Array, Arrays, Metadata, read_safetensors, write_safetensors};
/// let arrays = Arrays::from([("w".to_string(), Array::new([2], vec![1.0_f32, 2.0])?)]);
/// let about = Metadata::from([("step".to_string(), "7".to_string())]);
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
/// write_safetensors(&path, &arrays, &about)?;
/// assert_eq!(read_safetensors(&path)?, (arrays, about));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`FileError`] if the system refuses, or an array has the reserved name `__metadata__`.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    arrays: &Arrays,
    metadata: &Metadata,
) -> Result<(), FileError> {
    let path = path.as_ref();
    let bytes = safetensors_bytes(arrays, metadata).map_err(|fault| fault.at(path))?;
    write_atomically(path, |file| file.write_all(&bytes)).map_err(|e| Fault::Write(e).at(path))
}

/// The bytes of a safetensors file. Equal input gives equal bytes. The `safetensors` crate's own writer
/// does not promise that: it puts metadata in the order of a hash map.
///
/// # Errors
/// [`Fault::Name`] if an array has the reserved name `__metadata__`.
pub fn safetensors_bytes(arrays: &Arrays, metadata: &Metadata) -> Result<Vec<u8>, Fault> {
    if arrays.contains_key(METADATA) {
        return Err(Fault::Name(METADATA.to_owned()));
    }
    // Wide elements first, so that every array is aligned to its elements.
    let mut order: Vec<_> = arrays.iter().collect();
    order.sort_by_key(|(_, array)| Reverse(array.dtype().size()));

    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.to_owned(), json!(metadata));
    }
    let mut end = 0;
    for (name, array) in &order {
        let start = end;
        end += array.bytes().len();
        let kind = array.dtype().to_string().to_uppercase();
        let entry =
            json!({"dtype": kind, "shape": array.shape()[..], "data_offsets": [start, end]});
        header.insert((*name).clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }

    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    for (_, array) in order {
        bytes.extend(array.bytes());
    }
    Ok(bytes)
}

/// Reads the bytes of a safetensors file, such as [`safetensors_bytes`] makes; see [`read_safetensors`].
///
/// # Errors
/// [`Fault`], as for a file.
pub fn safetensors_from_bytes(bytes: &[u8]) -> Result<(Arrays, Metadata), Fault> {
    if let Some(name) = twice(bytes) {
        let why = format!("array {name:?} is in it twice");
        return Err(Fault::format(FORMAT, &why));
    }
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(|e| explain(e, bytes))?;
    let numbers = &bytes[8 + length..];
    let mut arrays = Arrays::new();
    for (name, info) in header.tensors() {
        let Some(stored) = stored(info.dtype) else {
            return Err(Fault::DType {
                name,
                dtype: info.dtype.to_string(),
            });
        };
        let (start, end) = info.data_offsets;
        let array = stored.decode(FORMAT, &name, &info.shape, &numbers[start..end])?;
        arrays.insert(name, array);
    }
    let metadata = header
        .metadata()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    Ok((arrays, metadata))
}

fn stored(kind: Kind) -> Option<Stored> {
    Some(match kind {
        Kind::F32 => Stored::As(DType::F32),
        Kind::F64 => Stored::As(DType::F64),
        Kind::BF16 => Stored::As(DType::BF16),
        Kind::F16 => Stored::As(DType::F16),
        Kind::U8 | Kind::BOOL => Stored::As(DType::U8),
        Kind::I32 => Stored::As(DType::I32),
        Kind::U32 => Stored::As(DType::U32),
        Kind::I8 => Stored::I8,
        Kind::I16 => Stored::I16,
        Kind::U16 => Stored::U16,
        Kind::I64 => Stored::I64,
        _ => return None,
    })
}

/// The bytes of the header, if they are there.
fn header(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// A name that the header contains twice. The `safetensors` crate would silently keep one of the two.
fn twice(bytes: &[u8]) -> Option<String> {
    let Names(names) = serde_json::from_slice(header(bytes)?).ok()?;
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(name.clone()))
}

/// The names of an object in JSON, in order.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        from.deserialize_map(Entries)
    }
}

/// The crate's errors, with the usual cause named.
fn explain(error: SafeTensorError, bytes: &[u8]) -> Fault {
    use SafeTensorError as E;
    let why = match error {
        E::HeaderTooLarge if header(bytes).is_some() => {
            "its header is larger than the 100 MB that the format allows".to_owned()
        }
        E::HeaderTooSmall | E::HeaderTooLarge | E::InvalidHeaderLength => {
            "its header does not fit in it (cut short, or another kind of file?)".to_owned()
        }
        E::MetadataIncompleteBuffer => {
            "it has more or fewer bytes than its header says (cut short?)".to_owned()
        }
        other => other.to_string(),
    };
    Fault::format(FORMAT, &why)
}
