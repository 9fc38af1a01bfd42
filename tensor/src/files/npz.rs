//! numpy's npz format: a zip archive of `.npy` files, each a header (a Python dictionary) and bytes.
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use super::{Arrays, Decoded, Fault, FileError, Stored, write_atomically};
use crate::{Array, DType};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

const FORMAT: &str = "npz";
const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest `.npy` header that is read, in bytes. numpy itself refuses more than 10,000.
const LONGEST_HEADER: u64 = 1 << 16;

/// Reads all arrays of an npz file, compressed or not. Integers of 8 (signed), 16 and 64 bits become [`DType::I32`],
/// booleans [`DType::U8`], and two opaque bytes (`V2`, as JAX's bfloat16 is saved)
/// [`DType::BF16`].
///
/// # Errors
/// [`FileError`] if the file is missing, cut short, damaged, of another kind, has an element type
/// that [`DType`] lacks, or a 64-bit integer out of range.
pub fn read_npz(path: impl AsRef<Path>) -> Result<Arrays, FileError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|e| Fault::Read(e).at(path))?;
    let mut file = BufReader::new(file);
    let bare = file.fill_buf().is_ok_and(|bytes| bytes.starts_with(MAGIC));
    if bare {
        let why = "it is a bare .npy array; np.savez makes an npz file of it";
        return Err(Fault::format(FORMAT, &why).at(path));
    }
    read(file).map_err(|fault| fault.at(path))
}

/// Writes arrays as an npz file that numpy's `load` reads; an interrupted write leaves the old
/// file. Equal input gives equal bytes.
///
/// ```
/// use tensor::{Array, Arrays, read_npz, write_npz};
/// let arrays = Arrays::from([("x".to_string(), Array::new([1, 2], vec![1, 2])?)]);
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("x.npz");
/// write_npz(&path, &arrays)?;
/// assert_eq!(read_npz(&path)?, arrays);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`FileError`] if the system refuses.
pub fn write_npz(path: impl AsRef<Path>, arrays: &Arrays) -> Result<(), FileError> {
    let path = path.as_ref();
    write_atomically(path, |file| write(file, arrays)).map_err(|e| Fault::Write(e).at(path))
}

pub(super) fn write(to: impl Write + Seek, arrays: &Arrays) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::new(Latch { to, error: None }));
    for (name, array) in arrays {
        // No compression: floats hardly compress. No timestamp: equal input gives equal bytes.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(array.bytes().len() >= 1 << 31);
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&header(array))?;
        zip.write_all(array.bytes())?;
    }
    let mut buffer = zip.finish()?;
    buffer.flush()?;
    buffer.get_mut().error.take().map_or(Ok(()), Err)
}

/// Keeps the first error, and from then on takes everything. A [`ZipWriter`] that was given an error would try to end the
/// archive when it is dropped, and print that it cannot.
struct Latch<W> {
    to: W,
    error: Option<io::Error>,
}

impl<W: Write> Write for Latch<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_none() {
            match self.to.write_all(bytes) {
                Ok(()) => {}
                Err(error) => self.error = Some(error),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.error.is_none() {
            self.error = self.to.flush().err();
        }
        Ok(())
    }
}

impl<W: Seek> Seek for Latch<W> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.to.seek(to)
    }
}

pub(super) fn read(file: impl Read + Seek) -> Result<Arrays, Fault> {
    let mut zip = ZipArchive::new(file).map_err(explain)?;
    if zip.has_duplicate_names() {
        return Err(Fault::format(FORMAT, &"an array is in it twice"));
    }
    if zip.has_overlapping_files().map_err(explain)? {
        return Err(Fault::format(FORMAT, &"arrays in it overlap"));
    }
    let mut arrays = Arrays::new();
    for index in 0..zip.len() {
        let entry = zip.by_index(index).map_err(explain)?;
        let file_name = entry.name().map_err(explain)?.into_owned();
        let Some(name) = file_name.strip_suffix(".npy") else {
            return Err(Fault::format(
                FORMAT,
                &format!("its part {file_name:?} is not an array"),
            ));
        };
        let bytes = entry.size();
        arrays.insert(name.to_owned(), decode(name, entry, bytes)?);
    }
    Ok(arrays)
}

/// A zip error as a fault. Errors of the operating system keep their own message.
fn explain(error: ZipError) -> Fault {
    match error {
        ZipError::Io(e) if e.raw_os_error().is_some() => Fault::Read(e),
        other => Fault::format(FORMAT, &other),
    }
}

fn header(array: &Array) -> Vec<u8> {
    let descr = match array.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::BF16 => "<V2",
        DType::F16 => "<f2",
        DType::U8 => "|u1",
        DType::I32 => "<i4",
        DType::U32 => "<u4",
    };
    let shape: Vec<String> = array
        .shape()
        .iter()
        .map(|extent| format!("{extent},"))
        .collect();
    let shape = shape.concat();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Magic, version and length take 10 bytes; the numbers start at a multiple of 64.
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    [
        MAGIC,
        &[1, 0],
        &(text.len() as u16).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

/// Decodes one `.npy` file that says it unpacks to `bytes` bytes. The size is compared with the shape
/// before the numbers are unpacked, so a small archive cannot fill the memory.
fn decode(name: &str, mut file: impl Read, bytes: u64) -> Decoded {
    let damaged = |e| Fault::format(FORMAT, &e);
    let Some((start, text)) = split(&mut file).map_err(damaged)? else {
        let why = format!("array {name:?} has no .npy header of version 1, 2 or 3");
        return Err(Fault::format(FORMAT, &why));
    };
    let Some((descr, fortran, shape)) = parse(&text) else {
        return Err(Fault::format(
            FORMAT,
            &format!("array {name:?} has the header {text:?}"),
        ));
    };
    let little = descr.strip_prefix(['<', '=', '|']).unwrap_or(descr);
    let stored = match little {
        "f4" => Stored::As(DType::F32),
        "f8" => Stored::As(DType::F64),
        "V2" => Stored::As(DType::BF16),
        "f2" => Stored::As(DType::F16),
        "u1" | "b1" => Stored::As(DType::U8),
        "i4" => Stored::As(DType::I32),
        "u4" => Stored::As(DType::U32),
        "i1" => Stored::I8,
        "i2" => Stored::I16,
        "u2" => Stored::U16,
        "i8" => Stored::I64,
        _ => {
            return Err(Fault::DType {
                name: name.to_owned(),
                dtype: descr.to_owned(),
            });
        }
    };
    let held = bytes.saturating_sub(start);
    stored.check(FORMAT, name, &shape, held)?;
    let mut numbers = Vec::new();
    file.take(held + 1)
        .read_to_end(&mut numbers)
        .map_err(damaged)?;
    if !fortran {
        return stored.decode(FORMAT, name, &shape, &numbers);
    }
    // Column-major is row-major with the axes the other way round.
    let reversed: Vec<usize> = shape.iter().rev().copied().collect();
    let axes: Vec<usize> = (0..shape.len()).rev().collect();
    let array = stored.decode(FORMAT, name, &reversed, &numbers)?;
    Ok(array.permute(&axes).expect("a reversal is a permutation"))
}

/// Reads the start of a `.npy` file: gives its length in bytes, and the text of the header in it.
fn split(file: &mut impl Read) -> io::Result<Option<(u64, String)>> {
    let mut read = |count: u64| {
        let mut bytes = Vec::new();
        let read = file.by_ref().take(count).read_to_end(&mut bytes);
        read.map(|found| Some(bytes).filter(|_| found as u64 == count))
    };
    let Some(start) = read(MAGIC.len() as u64 + 2)? else {
        return Ok(None);
    };
    let digits = match start.strip_prefix(MAGIC) {
        Some([1, _]) => 2,
        Some([2 | 3, _]) => 4,
        _ => return Ok(None),
    };
    let length = read(digits)?.unwrap_or_default();
    let length = length
        .iter()
        .rev()
        .fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    if length > LONGEST_HEADER {
        return Ok(None);
    }
    let text = read(length)?.and_then(|text| String::from_utf8(text).ok());
    Ok(text.map(|text| (start.len() as u64 + digits + length, text)))
}

/// Parses the header of a `.npy` file, a Python dictionary literal: element type, whether column-major,
/// shape. Strings have single or double quotes. Integers written by Python 2 end with an L.
fn parse(text: &str) -> Option<(&str, bool, Vec<usize>)> {
    let value = |key: &str| {
        let [one, two] = ['\'', '"'].map(|quote| text.split_once(&format!("{quote}{key}{quote}")));
        let rest = one.or(two)?.1.trim_start().strip_prefix(':')?;
        Some(rest.trim_start())
    };
    let descr = value("descr")?;
    let quote = descr.chars().next().filter(|c| "'\"".contains(*c))?;
    let descr = descr[1..].split_once(quote)?.0;
    let fortran = value("fortran_order")?.starts_with("True");
    let extents = value("shape")?
        .strip_prefix('(')?
        .split_once(')')?
        .0
        .split(',');
    let extents = extents.map(|extent| extent.trim().trim_end_matches(['L', 'l']));
    let extents = extents.filter(|extent| !extent.is_empty());
    Some((
        descr,
        fortran,
        extents.map(str::parse).collect::<Result<_, _>>().ok()?,
    ))
}
