//! IDX, the file format of MNIST and Fashion-MNIST, plain or gzipped.
//!
//! A big-endian header (a magic number, then one 32-bit extent per dimension) and one byte per
//! element. Nothing in a header is believed before the bytes behind it have been read, so a
//! damaged or hostile file costs an error line and not the memory its header asks for.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::Split;
use super::found::check_memory;
use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;

/// The magic number of a file of images: unsigned bytes, three dimensions.
pub const IMAGES: u32 = 2051;
/// The magic number of a file of labels: unsigned bytes, one dimension.
pub const LABELS: u32 = 2049;

/// The most images or labels of a file: EMNIST has 814,255, and this many images take 784 MiB. A header that announces
/// more costs some time and no memory.
const MOST_ELEMENTS: u64 = 1 << 20;

/// Room taken before anything has been read: enough for all of MNIST, whatever a header claims.
const FIRST_ALLOCATION: u64 = 48 << 20;

/// As many classes as a byte can tell apart.
pub(super) const ANY_BYTE: u16 = 256;

/// Describes a file by its magic number.
fn what(magic: u32) -> &'static str {
    match magic {
        IMAGES => "images",
        LABELS => "labels",
        m if m >> 16 == 0x1f8b => "a gzip file inside of a gzip file",
        m if m >> 24 == u32::from(b'<') => "a web page, perhaps a failed download",
        m if m >> 8 == 0x08 => "IDX of other dimensions",
        m if (0x09..=0x0e).contains(&(m >> 8)) => "IDX of other elements than bytes",
        _ => "no IDX file",
    }
}

/// Reads images and their labels from two files, each named without `.gz`. Also gives rows and columns.
///
/// If `known` is given, images must have these rows and columns, and labels must be below that number of
/// classes.
pub fn read_labelled(
    images: &Path,
    labels: &Path,
    known: Option<([u32; 2], u16)>,
) -> Result<(Split, [usize; 2])> {
    let images = find(images)?;
    let labels = find(labels)?;
    // Labels first: the small file's faults are found before the large one is read.
    let classes_of = read_labels(&labels, known.map(|(_, classes)| classes))?;
    let (pixels, size) = read_images(&images, known.map(|(size, _)| size))?;
    let expected = pixels.len() / (size[0] * size[1]);
    let found = classes_of.len();
    if expected != found {
        let images = images.display();
        let problem = format!("{found} labels for the {expected} images of {images}");
        return Err(Error::data(problem).at(labels.display()));
    }
    let split = Split {
        images: pixels,
        labels: classes_of.into_iter().map(u16::from).collect(),
    };
    Ok((split, size))
}

/// Finds a file by its name. Case does not matter, nor do dots or underscores in place of dashes, nor `.gz`.
/// The file may also lie in a folder of such a name, which is how some tools unpack archives. Of several
/// matches an unpacked file comes first, and then the one with exactly that name.
pub fn find(path: &Path) -> Result<PathBuf> {
    let wanted = path.file_name().map(plain);
    let alike = |folder: &Path| {
        let mut alike = entries(folder);
        alike.retain(|entry| entry.file_name().map(plain) == wanted);
        alike
    };
    let folder = path.parent().unwrap_or(path);
    let mut files = alike(folder);
    let inner: Vec<PathBuf> = files.iter().flat_map(|entry| alike(entry)).collect();
    files.extend(inner);
    files
        .into_iter()
        .filter(|file| file.is_file())
        .min_by_key(|file| (is_gzip(file), file != path, file.clone()))
        .ok_or_else(|| Error::data("no such file, with or without .gz").at(path.display()))
}

/// The entries of a folder, sorted; none if it is not a folder, or cannot be read.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    listed(folder).unwrap_or_default()
}

/// The entries of a folder, sorted.
///
/// # Errors
/// If it cannot be read.
pub(super) fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    // An empty path is the current folder.
    let shown = Some(folder).filter(|path| !path.as_os_str().is_empty());
    let read = || -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(shown.unwrap_or(Path::new(".")))?;
        entries
            .map(|entry| Ok(folder.join(entry?.file_name())))
            .collect()
    };
    let mut entries = read().map_err(|error| unreadable(&error).at(folder.display()))?;
    entries.sort();
    Ok(entries)
}

fn is_gzip(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("gz"))
}

/// The form that all spellings of a file name share: lower case, dashes, no `.gz`.
pub fn plain(name: &OsStr) -> String {
    let name = name.to_string_lossy().to_lowercase();
    name.strip_suffix(".gz")
        .unwrap_or(&name)
        .replace(['.', '_'], "-")
}

/// The pixels of a file of images, and their rows and columns, which must be those of `size`, if given.
pub fn read_images(path: &Path, size: Option<[u32; 2]>) -> Result<(Vec<u8>, [usize; 2])> {
    in_file(path, |file| {
        let [count, rows, cols] = header(file, IMAGES)?;
        if let Some([h, w]) = size.filter(|&size| size != [rows, cols]) {
            let problem = format!("images of {h} x {w} pixels expected, these are {rows} x {cols}");
            return Err(Error::data(problem));
        }
        if [rows, cols].contains(&0) {
            return Err(Error::data("images without pixels"));
        }
        // 2^32 images of 2^32 x 2^32 pixels do not fit in 64 bits: then no file holds them.
        let pixels = u64::from(rows) * u64::from(cols);
        let bytes = body(file, 16, u64::from(count), pixels)?;
        Ok((bytes, [rows as usize, cols as usize]))
    })
}

/// The labels of a file, which must be below `classes`, if given.
pub fn read_labels(path: &Path, classes: Option<u16>) -> Result<Vec<u8>> {
    in_file(path, |file| {
        let [count] = header(file, LABELS)?;
        let labels = body(file, 8, u64::from(count), 1)?;
        let classes = classes.unwrap_or(ANY_BYTE);
        match labels.iter().position(|&label| u16::from(label) >= classes) {
            Some(index) => {
                let (value, last) = (labels[index], classes - 1);
                let problem = format!("label {index} is {value}; the classes are 0 to {last}");
                Err(Error::data(problem))
            }
            None => Ok(labels),
        }
    })
}

/// A file's bytes, unpacked if it is gzipped. Error messages depend on whether it is.
struct Source {
    bytes: Box<dyn Read>,
    gzipped: bool,
}

impl Source {
    /// Reads at most `limit` bytes, to the end where there are fewer.
    fn read(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(limit.min(FIRST_ALLOCATION) as usize);
        let read = (&mut self.bytes).take(limit).read_to_end(&mut bytes);
        read.map_err(|error| self.broken(&error))?;
        Ok(bytes)
    }

    /// Reads at most `limit` bytes and drops them. Gives how many there were.
    fn skip(&mut self, limit: u64) -> Result<u64> {
        let read = io::copy(&mut (&mut self.bytes).take(limit), &mut io::sink());
        read.map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &io::Error) -> Error {
        if !self.gzipped {
            return unreadable(error);
        }
        let problem = format!("the gzip stream is damaged or cut off ({error})");
        Error::data(problem).hint("fetch the file again")
    }
}

fn unreadable(error: &io::Error) -> Error {
    Error::data(format!("cannot be read: {error}"))
}

fn truncated(expected: u64, found: u64) -> Error {
    Error::data(format!(
        "truncated: {expected} bytes expected, {found} found"
    ))
}

/// Opens `path`, reads it, and puts its name into whatever goes wrong.
fn in_file<T>(path: &Path, read: impl FnOnce(&mut Source) -> Result<T>) -> Result<T> {
    open(path)
        .map_err(|error| unreadable(&error))
        .and_then(|mut source| read(&mut source))
        .map_err(|error| error.at(path.display()))
}

fn open(path: &Path) -> io::Result<Source> {
    let mut file = BufReader::new(File::open(path)?);
    // By content and not by name: some ways of fetching unpack a file and leave its name alone.
    let gzipped = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let bytes: Box<dyn Read> = if gzipped {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(Source { bytes, gzipped })
}

/// The extents of a file that begins with `magic`.
fn header<const RANK: usize>(file: &mut Source, magic: u32) -> Result<[u32; RANK]> {
    let expected = 4 + 4 * RANK as u64;
    let bytes = file.read(expected)?;
    let mut words = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&word| u32::from_be_bytes(word));
    if let Some(found) = words.next().filter(|&found| found != magic) {
        let [wanted, this] = [magic, found].map(what);
        let problem =
            format!("{wanted} expected (magic {magic}), but this is {this} (magic {found})");
        return Err(Error::data(problem));
    }
    if bytes.len() as u64 != expected {
        return Err(truncated(expected, bytes.len() as u64));
    }
    Ok(std::array::from_fn(|_| {
        words.next().expect("as many words as were read")
    }))
}

/// The `count` elements of `size` bytes after a header of `header` bytes, and nothing after them.
fn body(file: &mut Source, header: u64, count: u64, size: u64) -> Result<Vec<u8>> {
    let total = count.saturating_mul(size);
    let expected = total.saturating_add(header);
    if count > MOST_ELEMENTS {
        let found = file.skip(MOST_ELEMENTS.saturating_mul(size))?;
        if found < MOST_ELEMENTS.saturating_mul(size) {
            return Err(truncated(expected, header + found));
        }
        let problem =
            format!("its header announces {count} elements, and {MOST_ELEMENTS} are the most");
        return Err(Error::data(problem));
    }
    check_memory(total as f64)?;
    let bytes = file.read(total)?;
    if (bytes.len() as u64) < total {
        return Err(truncated(expected, header + bytes.len() as u64));
    }
    // This read also takes the unpacker to the checksum at the end, which it verifies.
    if !file.read(1)?.is_empty() {
        let problem = format!("goes on after the {expected} bytes that its header announces");
        return Err(Error::data(problem));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    pub(in crate::data) fn images(count: u32, rows: u32, cols: u32) -> Vec<u8> {
        let pixels = (0..count * rows * cols).map(|i| i as u8);
        words(&[IMAGES, count, rows, cols])
            .into_iter()
            .chain(pixels)
            .collect()
    }

    pub(in crate::data) fn labels(labels: &[u8]) -> Vec<u8> {
        [words(&[LABELS, labels.len() as u32]), labels.to_vec()].concat()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What `read` says about a file of these bytes: its error without the folder's name.
    fn read_from<T: std::fmt::Debug>(
        bytes: &[u8],
        read: impl Fn(&Path) -> Result<T>,
    ) -> Result<T, String> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        read(&path).map_err(|error| {
            let line = error.to_string();
            assert!(!line.contains('\n'), "one line: {line}");
            line.strip_prefix(&format!("{}: ", path.display()))
                .expect("names the file")
                .to_owned()
        })
    }

    fn read_of_images(bytes: &[u8]) -> Result<Vec<u8>, String> {
        read_from(bytes, |path| {
            read_images(path, Some([4, 5])).map(|images| images.0)
        })
    }

    fn read_of_labels(bytes: &[u8]) -> Result<Vec<u8>, String> {
        read_from(bytes, |path| read_labels(path, Some(10)))
    }

    #[test]
    fn reads_what_was_written_plain_or_gzipped() {
        let bytes = images(3, 4, 5);
        assert_eq!(read_of_images(&bytes).unwrap(), bytes[16..]);
        assert_eq!(read_of_images(&gzip(&bytes)).unwrap(), bytes[16..]);
        assert_eq!(read_of_labels(&labels(&[0, 9, 4])).unwrap(), [0, 9, 4]);
        assert!(read_of_labels(&labels(&[])).unwrap().is_empty());
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let whole = images(3, 4, 5);
        let cases = [
            (read_of_images(&[]), "truncated: 16 bytes expected, 0 found"),
            (
                read_of_images(&whole[..9]),
                "truncated: 16 bytes expected, 9 found",
            ),
            (
                read_of_images(&whole[..75]),
                "truncated: 76 bytes expected, 75 found",
            ),
            (
                read_of_images(&[&whole[..], &[0]].concat()),
                "goes on after the 76 bytes that its header announces",
            ),
            (
                read_of_images(&labels(&[1, 2])),
                "images expected (magic 2051), but this is labels (magic 2049)",
            ),
            (
                read_of_labels(&whole),
                "labels expected (magic 2049), but this is images (magic 2051)",
            ),
            (
                read_of_labels(b"<!DOCTYPE html><html>"),
                "labels expected (magic 2049), but this is a web page, perhaps a failed download \
                 (magic 1008813135)",
            ),
            (
                read_of_images(&images(3, 5, 4)),
                "images of 4 x 5 pixels expected, these are 5 x 4",
            ),
            (
                read_of_labels(&labels(&[1, 9, 10])),
                "label 2 is 10; the classes are 0 to 9",
            ),
        ];
        for (result, line) in cases {
            assert_eq!(result.unwrap_err(), line);
        }
        let dir = TempDir::new().unwrap();
        let folder = read_labels(dir.path(), Some(10)).unwrap_err().to_string();
        assert!(folder.contains(": cannot be read: "), "{folder}");
        let missing = find(Path::new("none/such")).unwrap_err().to_string();
        assert_eq!(missing, "none/such: no such file, with or without .gz");
    }

    #[test]
    fn a_header_costs_no_memory() {
        for header in [[u32::MAX, 4, 5], [u32::MAX; 3]] {
            let bytes = words(&[IMAGES, header[0], header[1], header[2]]);
            let size = [header[1], header[2]];
            for bytes in [gzip(&bytes), bytes] {
                let line = read_from(&bytes, |path| read_images(path, Some(size))).unwrap_err();
                assert!(
                    line.starts_with("truncated: ") && line.ends_with("16 found"),
                    "{line}"
                );
            }
        }
        let line = read_of_labels(&words(&[LABELS, u32::MAX])).unwrap_err();
        assert_eq!(line, "truncated: 4294967303 bytes expected, 8 found");
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = |header: &[u32], count: usize| gzip(&[words(header), vec![0; count]].concat());
        let line = read_of_labels(&bomb(&[LABELS, u32::MAX], 2 << 20)).unwrap_err();
        assert_eq!(
            line,
            "its header announces 4294967295 elements, and 1048576 are the most"
        );
        let line = read_of_images(&bomb(&[IMAGES, (1 << 20) + 1, 4, 5], 21 << 20)).unwrap_err();
        assert_eq!(
            line,
            "its header announces 1048577 elements, and 1048576 are the most"
        );
        let line = read_of_images(&gzip(&gzip(&images(1, 4, 5)))).unwrap_err();
        assert!(
            line.contains("this is a gzip file inside of a gzip file"),
            "{line}"
        );
    }

    #[test]
    fn counts_must_agree() {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("i"), images(3, 4, 5)).unwrap();
        std::fs::write(path("l.gz"), gzip(&labels(&[1, 2]))).unwrap();
        let error = read_labelled(&path("i"), &path("l"), Some(([4, 5], 10))).unwrap_err();
        let [images, labels] = ["i", "l.gz"].map(|name| path(name).display().to_string());
        let line = format!("{labels}: 2 labels for the 3 images of {images}");
        assert_eq!(error.to_string(), line);
    }

    #[test]
    fn a_file_cut_off_anywhere_is_an_error() {
        let whole = images(2, 4, 5);
        for bytes in [gzip(&whole), whole] {
            for length in 0..bytes.len() {
                let line = read_of_images(&bytes[..length]).unwrap_err();
                let known = [
                    "truncated: ",
                    "the gzip stream is damaged",
                    "images expected",
                ];
                assert!(
                    known.iter().any(|start| line.starts_with(start)),
                    "{length}: {line}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn one_flipped_bit_of_a_gzip_stream_never_gives_other_pixels(
            byte in 0usize..60, bit in 0u8..8,
        ) {
            let whole = images(2, 4, 5);
            let mut bytes = gzip(&whole);
            let byte = byte % bytes.len();
            bytes[byte] ^= 1 << bit;
            if let Ok(pixels) = read_of_images(&bytes) {
                prop_assert_eq!(&pixels, &whole[16..], "byte {} bit {}", byte, bit);
            }
        }

        #[test]
        fn random_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read_of_images(&bytes).is_err());
            prop_assert!(read_of_labels(&bytes).is_err());
        }

        #[test]
        fn random_bytes_after_a_header_never_panic(
            count in 0u32..12, body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = |header: &[u32]| [words(header), body.clone()].concat();
            let pixels = read_of_images(&bytes(&[IMAGES, count, 4, 5]));
            prop_assert_eq!(pixels.is_ok(), body.len() == count as usize * 20);
            let classes = read_of_labels(&bytes(&[LABELS, count]));
            let in_range = body.iter().all(|&label| label < 10);
            prop_assert_eq!(classes.is_ok(), body.len() == count as usize && in_range);
        }
    }
}
