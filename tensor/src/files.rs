//! Arrays in files: safetensors and npz, read with every byte checked and written all or nothing.

mod npz;
mod safetensors;

pub use npz::{read_npz, write_npz};
pub use safetensors::{
    read_safetensors, safetensors_bytes, safetensors_from_bytes, write_safetensors,
};

use crate::{Array, DType, Data, Shape};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// What a safetensors file says about itself: free text by key.
pub type Metadata = BTreeMap<String, String>;

// Both formats are little-endian, and arrays go in and out as their bytes are in memory.
const _: () = assert!(cfg!(target_endian = "little"));

/// A file of arrays could not be read or written: one line with its path and what is wrong.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file of arrays.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system could not read the file.
    #[error("cannot be read: {}", reason(.0))]
    Read(io::Error),
    /// The operating system could not write the file.
    #[error("cannot be written: {}", reason(.0))]
    Write(io::Error),
    /// Cut short, damaged, or another kind of file.
    #[error("is not a sound {format} file: {why}")]
    Format {
        /// The format it was read as.
        format: &'static str,
        /// What does not fit.
        why: String,
    },
    /// An element type that [`DType`] does not have.
    #[error(
        "array {name:?} has elements of type {}; \
         only f64, f32, f16, bf16, i64, i32, i16, i8, u32, u16, u8 and bool can be read{}",
        dtype.escape_debug(),
        if dtype.starts_with('>') { ", and these are big-endian" } else { "" }
    )]
    DType {
        /// The array.
        name: String,
        /// Its element type, as the file spells it.
        dtype: String,
    },
    /// 64-bit integers are kept as [`DType::I32`], and this one does not fit.
    #[error("array {name:?} holds {value}, which is out of the range of i32")]
    Range {
        /// The array.
        name: String,
        /// The number in it.
        value: i64,
    },
    /// The format reserves this name.
    #[error("cannot be written: no array may be named {0:?}")]
    Name(String),
}

/// The operating system's message up to the error number. After the number, `tempfile` names the unfinished
/// temporary file, which would only confuse.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

impl Fault {
    fn at(self, path: &Path) -> FileError {
        FileError {
            path: path.to_owned(),
            fault: self,
        }
    }

    /// A format fault whose message is sure to be one line.
    fn format(format: &'static str, why: &impl ToString) -> Self {
        Fault::Format {
            format,
            why: why.to_string().replace(char::is_control, " "),
        }
    }
}

/// How a file stores the elements of an array: as one of our element types, or as integers that become
/// [`DType::I32`].
#[derive(Clone, Copy)]
enum Stored {
    As(DType),
    I8,
    I16,
    U16,
    I64,
}

impl Stored {
    fn size(self) -> usize {
        match self {
            Stored::As(dtype) => dtype.size(),
            Stored::I8 => 1,
            Stored::I16 | Stored::U16 => 2,
            Stored::I64 => 8,
        }
    }

    /// Refuses a shape whose elements do not take exactly `held` bytes.
    fn check(
        self,
        format: &'static str,
        name: &str,
        shape: &[usize],
        held: u64,
    ) -> Result<(), Fault> {
        let shape = Shape::from(shape);
        // No overflow: a shape that passes has at most `Shape::MOST` elements.
        if shape.check().is_err() || (shape.count() * self.size()) as u64 != held {
            let why = format!("array {name:?} of shape {shape} cannot have {held} bytes");
            return Err(Fault::format(format, &why));
        }
        Ok(())
    }

    /// The array of these little-endian bytes.
    fn decode(self, format: &'static str, name: &str, shape: &[usize], bytes: &[u8]) -> Decoded {
        self.check(format, name, shape, bytes.len() as u64)?;
        let shape = Shape::from(shape);
        let array = match self {
            Stored::As(dtype) => Array::from_bytes(dtype, shape, bytes),
            Stored::I8 => Array::new(
                shape,
                narrow(name, bytes, |[x]| i8::from_le_bytes([x]).into())?,
            ),
            Stored::I16 => Array::new(
                shape,
                narrow(name, bytes, |x| i16::from_le_bytes(x).into())?,
            ),
            Stored::U16 => Array::new(
                shape,
                narrow(name, bytes, |x| u16::from_le_bytes(x).into())?,
            ),
            Stored::I64 => Array::new(shape, narrow(name, bytes, i64::from_le_bytes)?),
        };
        Ok(array.expect("the bytes were counted above"))
    }
}

type Decoded = Result<Array, Fault>;

/// Reads integers of N bytes as [`DType::I32`], the only signed integer type. Labels come from numpy in
/// other widths.
fn narrow<const N: usize>(
    name: &str,
    bytes: &[u8],
    read: fn([u8; N]) -> i64,
) -> Result<Data, Fault> {
    let numbers = bytes.as_chunks::<N>().0.iter().copied().map(read);
    let fits = |value| {
        i32::try_from(value).map_err(|_| Fault::Range {
            name: name.to_owned(),
            value,
        })
    };
    Ok(Data::I32(numbers.map(fits).collect::<Result<_, _>>()?))
}

/// Writes a file so that its path holds either the old bytes or all of the new ones, even after a crash.
/// The bytes go to a temporary file beside it, which is flushed to the disk and then renamed.
fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Permissions follow the umask, as for any other file. Temporary files are private by default.
        builder.permissions(PermissionsExt::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests;
