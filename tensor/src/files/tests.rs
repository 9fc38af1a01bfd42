//! Round trips, and files that are not what they should be.

use super::*;
use half::{bf16, f16};
use proptest::prelude::*;
use std::io::{Cursor, ErrorKind, Write};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

fn sample() -> Arrays {
    let ramp = |shape: &[usize], dtype| {
        let numbers: Vec<f64> = (0..shape.iter().product())
            .map(|i: usize| i as f64)
            .collect();
        Array::new(shape, numbers).unwrap().cast(dtype)
    };
    let arrays = [
        ("scalar", Array::scalar(-0.1, DType::F32)),
        ("empty", Array::zeros(DType::F64, [2, 0])),
        ("weird name/π.v", ramp(&[1, 3], DType::F64)),
        (
            "f32",
            Array::new([3], vec![f32::MIN_POSITIVE, f32::NEG_INFINITY, -0.0]).unwrap(),
        ),
        (
            "f64",
            Array::new([2, 1], vec![1e-300, std::f64::consts::PI]).unwrap(),
        ),
        (
            "bf16",
            Array::new([1], Data::BF16(vec![bf16::from_f32(1e30)])).unwrap(),
        ),
        (
            "f16",
            Array::new([1], Data::F16(vec![f16::from_f32(0.1)])).unwrap(),
        ),
        ("u8", ramp(&[3], DType::U8)),
        ("i32", Array::new([2], vec![i32::MIN, 7]).unwrap()),
        ("u32", Array::new([2, 1, 1], vec![u32::MAX, 7]).unwrap()),
        ("deep", ramp(&[2, 1, 3, 2, 1], DType::F32)),
    ];
    arrays.map(|(name, array)| (name.to_owned(), array)).into()
}

fn about() -> Metadata {
    (0..20)
        .map(|i| (format!("key {i}"), format!("\"value\"\n{i}")))
        .collect()
}

/// An npz file with one entry of this header and these bytes.
fn npz(text: &str, numbers: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("x.npy", SimpleFileOptions::default())
        .unwrap();
    let length = (text.len() as u16).to_le_bytes();
    zip.write_all(&[b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), numbers].concat())
        .unwrap();
    zip.finish().unwrap().into_inner()
}

fn npz_of(descr: &str, fortran: &str, shape: &str, numbers: &[u8]) -> Result<Array, String> {
    let text = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let arrays = npz::read(Cursor::new(npz(&text, numbers))).map_err(|fault| fault.to_string())?;
    Ok(arrays["x"].clone())
}

/// A safetensors file of one array.
fn tensors_of(kind: &str, shape: &[usize], numbers: &[u8]) -> Result<Array, String> {
    let end = numbers.len();
    let header = format!(
        "{{\"x\":{{\"dtype\":\"{kind}\",\"shape\":{shape:?},\"data_offsets\":[0,{end}]}}}}"
    );
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length[..], header.as_bytes(), numbers].concat();
    let (arrays, _) = safetensors_from_bytes(&bytes).map_err(|fault| fault.to_string())?;
    Ok(arrays["x"].clone())
}

#[test]
fn every_type_survives_both_formats() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (
        folder.path().join("a.safetensors"),
        folder.path().join("a.npz"),
    );
    for arrays in [sample(), Arrays::new()] {
        for metadata in [about(), Metadata::new()] {
            write_safetensors(&one, &arrays, &metadata).unwrap();
            assert_eq!(read_safetensors(&one).unwrap(), (arrays.clone(), metadata));
        }
        write_npz(&two, &arrays).unwrap();
        assert_eq!(read_npz(&two).unwrap(), arrays);
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "a temporary file was left behind");
}

#[test]
fn equal_arrays_make_equal_bytes() {
    // A hash map would give twenty keys another order each time.
    let bytes = safetensors_bytes(&sample(), &about()).unwrap();
    assert_eq!(bytes, safetensors_bytes(&sample(), &about()).unwrap());
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(header % 8, 0, "the numbers are aligned");
}

#[test]
fn numpy_types_without_a_counterpart() {
    let labels = [7_i64, -1].map(i64::to_le_bytes).concat();
    let large = [7_i64, 1 << 31].map(i64::to_le_bytes).concat();
    let expected = Array::new([2], vec![7, -1]).unwrap();
    let range = "array \"x\" holds 2147483648, which is out of the range of i32";
    assert_eq!(npz_of("'<i8'", "False", "(2,)", &labels).unwrap(), expected);
    assert_eq!(npz_of("'<i8'", "False", "(2,)", &large).unwrap_err(), range);
    assert_eq!(tensors_of("I64", &[2], &labels).unwrap(), expected);
    assert_eq!(tensors_of("I64", &[2], &large).unwrap_err(), range);

    let truth = Array::new([2], vec![1_u8, 0]).unwrap();
    assert_eq!(npz_of("'|b1'", "False", "(2,)", &[1, 0]).unwrap(), truth);
    assert_eq!(tensors_of("BOOL", &[2], &[1, 0]).unwrap(), truth);

    let error = npz_of("'>f4'", "False", "(1,)", &[0; 4]).unwrap_err();
    assert!(
        error.starts_with("array \"x\" has elements of type >f4; only f64"),
        "{error}"
    );
    let error = tensors_of("U64", &[1], &[0; 8]).unwrap_err();
    assert!(
        error.starts_with("array \"x\" has elements of type U64; only f64"),
        "{error}"
    );
    // No elements, and an extent that no array may have.
    let error = npz_of("'<f4'", "False", "(0, 1152921504606846976)", &[]).unwrap_err();
    assert!(error.contains("cannot have 0 bytes"), "{error}");
    let error = tensors_of("F32", &[0, 1 << 60], &[]).unwrap_err();
    assert!(error.contains("cannot have 0 bytes"), "{error}");
    assert!(
        npz_of("'|O'", "False", "(1,)", b"pickle")
            .unwrap_err()
            .contains("type |O")
    );
    assert!(
        npz_of("[('a', '<f4')]", "False", "(1,)", &[0; 4])
            .unwrap_err()
            .contains("header")
    );
}

#[test]
fn what_numpy_reads_is_read() {
    let ones = Array::new([2], vec![1.0_f32, 1.0]).unwrap();
    let bytes = [1.0_f32, 1.0].map(f32::to_le_bytes).concat();
    for header in [
        "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2,)}",
        "{'descr' : '=f4', 'fortran_order' : False, 'shape' : (2L,)}",
        "{'shape':(2 ,),'fortran_order':False,'descr':'<f4'}",
    ] {
        let arrays = npz::read(Cursor::new(npz(header, &bytes))).unwrap();
        assert_eq!(arrays["x"], ones, "{header}");
    }
    let small = |descr, bytes| npz_of(descr, "False", "(2,)", bytes).unwrap();
    let array = |numbers: [i32; 2]| Array::new([2], numbers.to_vec()).unwrap();
    assert_eq!(small("'|i1'", &[0xfd, 7]), array([-3, 7]));
    assert_eq!(small("'<i2'", &[0, 0x80, 7, 0]), array([-32768, 7]));
    assert_eq!(small("'<u2'", &[0, 0x80, 7, 0]), array([32768, 7]));
    let small = |dtype, bytes| tensors_of(dtype, &[2], bytes).unwrap();
    assert_eq!(small("I8", &[0xfd, 7]), array([-3, 7]));
    assert_eq!(small("I16", &[0, 0x80, 7, 0]), array([-32768, 7]));
    assert_eq!(small("U16", &[0, 0x80, 7, 0]), array([32768, 7]));
}

#[test]
fn what_is_odd_is_named() {
    let said = |bytes: Vec<u8>| npz::read(Cursor::new(bytes)).unwrap_err().to_string();
    let error = npz_of("'>i8'", "False", "(1,)", &[0; 8]).unwrap_err();
    assert!(error.ends_with("and these are big-endian"), "{error}");
    let error = npz_of("'\u{12}i8'", "False", "(1,)", &[0; 8]).unwrap_err();
    assert!(error.contains("type \\u{12}i8;"), "{error}");
    let one = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}";
    let stored = |name: &str, version: u8| {
        let options = SimpleFileOptions::default();
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for name in ["x.npy", name] {
            let options = options.compression_method(zip::CompressionMethod::Stored);
            zip.start_file(name, options).unwrap();
            let length = [one.len() as u8, 0];
            zip.write_all(
                &[
                    b"\x93NUMPY",
                    &[version, 0][..],
                    &length,
                    one.as_bytes(),
                    &[7],
                ]
                .concat(),
            )
            .unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    assert!(npz::read(Cursor::new(stored("y.npy", 1))).is_ok());
    assert!(said(stored("y.npy", 9)).ends_with("has no .npy header of version 1, 2 or 3"));
    let mut twice = stored("y.npy", 1);
    for at in 0..twice.len() - 5 {
        if &twice[at..at + 5] == b"y.npy" {
            twice[at] = b'x';
        }
    }
    assert!(said(twice).ends_with("an array is in it twice"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    std::fs::write(&path, b"\x93NUMPY\x01\x00").unwrap();
    let error = read_npz(&path).unwrap_err().to_string();
    assert!(error.contains("it is a bare .npy array"), "{error}");
    for second in [[0, 1], [1, 2]] {
        let entry = |at: [usize; 2]| {
            format!("\"x\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{at:?}}}")
        };
        let header = format!("{{{},{}}}", entry([0, 1]), entry(second));
        let length = (header.len() as u64).to_le_bytes();
        let bytes = [&length[..], header.as_bytes(), &vec![7; second[1]]].concat();
        let error = safetensors_from_bytes(&bytes).unwrap_err().to_string();
        assert!(error.ends_with("array \"x\" is in it twice"), "{error}");
    }
    let mut large = vec![b' '; 8 + 100_000_001];
    large[..8].copy_from_slice(&100_000_001_u64.to_le_bytes());
    let error = safetensors_from_bytes(&large).unwrap_err().to_string();
    assert!(error.contains("larger than the 100 MB"), "{error}");
}

#[test]
fn a_member_is_unpacked_only_as_far_as_its_shape_goes() {
    // 64 MiB of zeros, which take 64 KiB, after a header for one byte.
    let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}";
    let error = npz::read(Cursor::new(npz(text, &vec![0; 64 << 20]))).unwrap_err();
    let error = error.to_string();
    assert!(
        error.ends_with("of shape [1] cannot have 67108864 bytes"),
        "{error}"
    );
}

#[test]
fn column_major_arrays_are_turned() {
    let array = npz_of("'|u1'", "True", "(2, 3)", &[0, 3, 1, 4, 2, 5]).unwrap();
    assert_eq!(
        array,
        Array::new([2, 3], vec![0_u8, 1, 2, 3, 4, 5]).unwrap()
    );
}

#[test]
fn hostile_shapes_are_errors() {
    let huge = usize::MAX;
    for fortran in ["False", "True"] {
        for shape in [
            "(2,)",
            "(18446744073709551615, 2)",
            "(0, 1099511627776, 1099511627776)",
        ] {
            let error = npz_of("'<f4'", fortran, shape, &[]).unwrap_err();
            assert!(error.contains("cannot have 0 bytes"), "{error}");
        }
        assert!(
            npz_of("'<f4'", fortran, "(-1,)", &[])
                .unwrap_err()
                .contains("header")
        );
    }
    assert!(tensors_of("F32", &[huge, 2], &[]).is_err());
    assert!(tensors_of("F32", &[0, huge, huge], &[]).is_err());
    let arrays = Arrays::from([("__metadata__".to_owned(), Array::scalar(1.0, DType::F32))]);
    assert!(matches!(
        safetensors_bytes(&arrays, &about()),
        Err(Fault::Name(_))
    ));
}

#[test]
fn errors_are_one_line_with_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a file");
    let line = |error: FileError| {
        let text = error.to_string();
        assert!(
            text.starts_with(path.to_str().unwrap()) && !text.contains('\n'),
            "{text}"
        );
        text[path.to_str().unwrap().len()..].to_owned()
    };
    assert!(line(read_npz(&path).unwrap_err()).starts_with(": cannot be read: No such file"));
    let error = line(read_safetensors(&path).unwrap_err());
    assert!(
        error.starts_with(": cannot be read: No such file"),
        "{error}"
    );

    std::fs::write(&path, "{\"hello\": 1} and some more").unwrap();
    let error = line(read_npz(&path).unwrap_err());
    assert!(error.starts_with(": is not a sound npz file: "), "{error}");
    let error = line(read_safetensors(&path).unwrap_err());
    assert!(
        error.ends_with("does not fit in it (cut short, or another kind of file?)"),
        "{error}"
    );

    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let blocked = folder.path().join("folder");
    assert!(write_npz(&blocked, &sample()).is_err());
    let nowhere = folder.path().join("none").join("a.npz");
    let error = write_npz(&nowhere, &sample()).unwrap_err().to_string();
    assert!(
        error.contains("a.npz: cannot be written: No such file"),
        "{error}"
    );
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "a temporary file was left behind");
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    std::fs::write(&path, "old").unwrap();
    let failure = write_atomically(&path, |file| {
        file.write_all(b"half of the n")?;
        Err(io::Error::other("the disk is full"))
    });
    assert!(failure.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Both formats' bytes of the same arrays.
fn both() -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    write_npz(&path, &sample()).unwrap();
    [
        safetensors_bytes(&sample(), &about()).unwrap(),
        std::fs::read(path).unwrap(),
    ]
}

#[test]
fn no_file_cut_short_is_read() {
    let [tensors, archive] = both();
    for length in 0..tensors.len() {
        assert!(
            safetensors_from_bytes(&tensors[..length]).is_err(),
            "{length} bytes"
        );
    }
    for length in 0..archive.len() {
        assert!(
            npz::read(Cursor::new(&archive[..length])).is_err(),
            "{length} bytes"
        );
    }
}

#[test]
fn no_changed_byte_panics() {
    let files = both();
    for at in 0..files.iter().map(Vec::len).max().unwrap() {
        for change in [1, 0x80, 0xff] {
            let [mut tensors, mut archive] = files.clone();
            if let Some(byte) = tensors.get_mut(at) {
                *byte ^= change;
                let _ = safetensors_from_bytes(&tensors);
            }
            if let Some(byte) = archive.get_mut(at) {
                *byte ^= change;
                let _ = npz::read(Cursor::new(archive));
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(safetensors_from_bytes(&bytes).is_err());
        prop_assert!(npz::read(Cursor::new(&bytes)).is_err());
    }

    #[test]
    fn random_headers_do_not_panic(text in "[{}\\[\\]()'\"a-z0-9<|:, _]{0,80}", bytes: [u8; 8]) {
        let _ = npz::read(Cursor::new(npz(&text, &bytes)));
        let header = (text.len() as u64).to_le_bytes();
        let _ = safetensors_from_bytes(&[&header[..], text.as_bytes(), &bytes].concat());
    }
}

#[test]
fn a_device_that_is_full_is_an_error() {
    let arrays = sample();
    let mut enough = Cursor::new(Vec::new());
    npz::write(&mut enough, &arrays).unwrap();
    let bytes = enough.into_inner();
    for room in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        let mut memory = vec![0; room];
        let error = npz::write(Cursor::new(&mut memory[..]), &arrays).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero, "{room}");
    }
}
