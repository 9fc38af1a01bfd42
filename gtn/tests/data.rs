//! Data sets of users, in every format, from their files through the outer loop; and files that are of no use.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{GrayImage, RgbImage};
use place::{Place, TINY, idx, json, refused, text};
use std::fs;
use std::path::Path;
use tensor::{Array, Arrays, Metadata, write_npz, write_safetensors};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

/// Bytes that look like nothing, but like another for every image.
fn noise(image: usize, count: usize) -> Vec<u8> {
    let byte = |i: usize| (((i * 37 + image * 101) * 2_654_435_761) >> 7) as u8;
    (0..count).map(byte).collect()
}

fn all(images: usize, size: usize) -> Vec<u8> {
    (0..images).flat_map(|i| noise(i, size)).collect()
}

/// Trains for an outer step and evaluates; then the run's folder knows what it needs to.
fn trains(place: &Place, data: &str, expected: &str) {
    let tiny = TINY.replace("--dataset mnist", "");
    let args = format!("train {tiny} --outer-steps 1 --learners 1 --no-baseline --json --out run");
    let output = place.output(&format!("{args} --dataset {data}"));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{data}: {said}");
    let trained = json(&text(&output.stdout));
    assert!(trained["gtn_accuracy_mean"].is_number(), "{trained}");
    let surveyed = json(&place.run(&format!("data {data} --json")));
    assert_eq!(trained["dataset"], surveyed["name"]);
    let card = fs::read_to_string(place.path("run/data.toml")).unwrap();
    assert!(card.contains(expected), "{card}");
    // Where the data was is remembered.
    let again = json(&place.run("eval run --no-baseline --json"));
    assert_eq!(again["gtn_accuracy_mean"], trained["gtn_accuracy_mean"]);
    fs::remove_dir_all(place.path("run")).unwrap();
}

#[test]
fn idx_of_other_sizes_and_labels() {
    let place = Place::new();
    fs::create_dir(place.path("letters")).unwrap();
    for (name, count) in [("train", 40), ("t10k", 10)] {
        let images = all(count, 20 * 13).into_iter();
        let images = idx(2051, &[count as u32, 20, 13], images);
        place.write(&format!("letters/{name}-images.idx3-ubyte"), &images);
        let labels = idx(
            2049,
            &[count as u32],
            (0..count).map(|i| [3, 7, 255][i % 3]),
        );
        place.write(&format!("letters/{name}-labels.idx1-ubyte"), &labels);
    }
    trains(
        &place,
        "letters",
        "image = [20, 13, 1]\nclasses = 3\nclass_names = [\"3\", \"7\", \"255\"]",
    );
}

/// Records of CIFAR-10: a label, and three planes.
fn records(count: usize, salt: usize) -> Vec<u8> {
    let record = |i: usize| [vec![(i % 10) as u8], noise(i + salt, 3072)].concat();
    (0..count).flat_map(record).collect()
}

fn cifar_parts() -> Vec<(String, Vec<u8>)> {
    let train = (1..6).map(|i| (format!("data_batch_{i}.bin"), records(30, 100 * i)));
    let test = ("test_batch.bin".to_owned(), records(10, 7));
    train.chain([test]).collect()
}

fn tar(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let path = format!("cifar-10-batches-bin/{name}");
        archive.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[test]
fn cifar_10_as_an_archive_and_as_its_folder() {
    let place = Place::new();
    place.write("data/cifar-10-binary.tar.gz", &tar(&cifar_parts()));
    let expected = "name = \"cifar-10\"";
    trains(&place, "cifar-10 --data-dir data", expected);
    trains(&place, "data/cifar-10-binary.tar.gz", expected);
    fs::create_dir(place.path("batches")).unwrap();
    for (name, bytes) in cifar_parts() {
        place.write(&format!("batches/{name}"), &bytes);
    }
    trains(&place, "batches", "\"airplane\", \"automobile\"");
    let [archive, folder] = ["data/cifar-10-binary.tar.gz", "batches"]
        .map(|data| json(&place.run(&format!("data {data} --json")))["mean"].clone());
    assert_eq!(archive, folder);
}

/// The whole of CIFAR-10, made of the strips of 500 images that a folder of test data keeps it in.
#[test]
fn the_published_cifar_10_holds_the_known_facts() {
    let folder = std::env::var_os("GTN_DATA_DIR").map(|dir| Path::new(&dir).join("cifar10"));
    let Some(folder) = folder.filter(|folder| folder.join("labels.bin").exists()) else {
        println!("skipped: GTN_DATA_DIR has no cifar10/labels.bin");
        return;
    };
    let place = Place::new();
    let labels = fs::read(folder.join("labels.bin")).unwrap();
    let files = [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
    ];
    for (file, name) in files.into_iter().chain(["test_batch"]).enumerate() {
        let mut records = Vec::new();
        for strip in 20 * file..20 * (file + 1) {
            let name = match strip {
                0..100 => format!("train-{:03}.webp", strip + 1),
                _ => format!("test-{:03}.webp", strip - 99),
            };
            let pixels = image::open(folder.join(name))
                .unwrap()
                .into_rgb8()
                .into_raw();
            for (i, image) in pixels.chunks_exact(3072).enumerate() {
                records.push(labels[500 * strip + i]);
                for channel in 0..3 {
                    records.extend(image.iter().skip(channel).step_by(3));
                }
            }
        }
        place.write(&format!("data/{name}.bin"), &records);
    }
    let found = json(&place.run("data cifar-10 --data-dir data --json"));
    assert_eq!(found["train"], serde_json::json!(vec![4500; 10]));
    assert_eq!(found["validation"], serde_json::json!(vec![500; 10]));
    assert_eq!(found["test"], serde_json::json!(vec![1000; 10]));
    let known = [
        ("mean", [0.4914, 0.4822, 0.4465]),
        ("std", [0.2470, 0.2435, 0.2616]),
    ];
    for (name, known) in known {
        for (channel, known) in known.into_iter().enumerate() {
            // Those of nine tenths of the training images.
            let found = found[name][channel].as_f64().unwrap();
            assert!((found - known).abs() < 1e-3, "{name} {channel}: {found}");
        }
    }
}

#[test]
fn cifar_100_has_coarse_labels_too() {
    let place = Place::new();
    fs::create_dir(place.path("cifar-100-binary")).unwrap();
    let record = |i: usize| [vec![77, (i % 100) as u8], noise(i, 3072)].concat();
    for (name, count) in [("train.bin", 1000), ("test.bin", 100)] {
        let bytes: Vec<u8> = (0..count).flat_map(record).collect();
        place.write(&format!("cifar-100-binary/{name}"), &bytes);
    }
    let found = json(&place.run("data . --json"));
    assert_eq!(
        (&found["classes"], &found["name"]),
        (&100.into(), &"cifar-100".into())
    );
    assert_eq!(found["train"][99], 9);
}

/// A pickle of Python 2, as torchvision's folder has it: names and bytes are strings, pixels an array of numpy.
fn pickle(labels: &[u8], pixels: &[u8]) -> Vec<u8> {
    let short = |text: &str| [&[b'U', text.len() as u8], text.as_bytes()].concat();
    let number = |n: u32| [&b"J"[..], &n.to_le_bytes()].concat();
    let string = [&b"T"[..], &(pixels.len() as u32).to_le_bytes(), pixels].concat();
    let parts = [
        b"\x80\x02}(".to_vec(),
        short("data"),
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85".to_vec(),
        short("b"),
        b"\x87R(K\x01".to_vec(),
        number(labels.len() as u32),
        number(3072),
        b"\x86cnumpy\ndtype\n".to_vec(),
        short("u1"),
        b"K\x00K\x01\x87R(K\x03".to_vec(),
        short("|"),
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89".to_vec(),
        string,
        b"tb".to_vec(),
        short("labels"),
        b"](".to_vec(),
        labels.iter().flat_map(|&label| [b'K', label]).collect(),
        b"eu.".to_vec(),
    ];
    parts.concat()
}

#[test]
fn cifar_10_as_torchvision_keeps_it() {
    let place = Place::new();
    let folder = place.path("cifar-10-batches-py");
    fs::create_dir(&folder).unwrap();
    let labels: Vec<u8> = (0..30).map(|i| i % 10).collect();
    for i in 0..6 {
        let name = if i == 0 {
            "test_batch".to_owned()
        } else {
            format!("data_batch_{i}")
        };
        let pixels: Vec<u8> = (0..30)
            .flat_map(|image| noise(100 * i + image, 3072))
            .collect();
        fs::write(folder.join(name), pickle(&labels, &pixels)).unwrap();
    }
    trains(
        &place,
        ". --resize 8 --channels grey",
        "image = [8, 8, 1]\nclasses = 10",
    );
    fs::write(
        folder.join("data_batch_3"),
        pickle(&labels[1..], &all(30, 3072)),
    )
    .unwrap();
    place.fails(
        1,
        "data .",
        "data_batch_3: no pickle of CIFAR: 29 labels for 92160 bytes",
    );
    fs::write(
        folder.join("data_batch_3"),
        "c__builtin__\nexec\n(S'x'\ntR.",
    )
    .unwrap();
    place.fails(1, "data .", "data_batch_3: no pickle of CIFAR: ");
}

fn photograph(path: &Path, image: usize, [rows, columns]: [u32; 2]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes = noise(image, (rows * columns * 3) as usize);
    RgbImage::from_raw(columns, rows, bytes)
        .unwrap()
        .save(path)
        .unwrap();
}

#[test]
fn folders_of_images() {
    let place = Place::new();
    for i in 0..48 {
        let (class, end) = (["cat", "dog"][i % 2], ["png", "JPG", "webp"][i % 3]);
        let path = |part: &str| place.path(&format!("pets/{part}{class}/{i}.{end}"));
        photograph(&path("train/"), i, [9, 14]);
        photograph(&path("test/"), i + 100, [9, 14]);
        // Without parts, of all sizes.
        photograph(
            &place.path(&format!("mixed/{class}/{i}.{end}")),
            i,
            [9, 5 + i as u32],
        );
    }
    let expected = "image = [9, 14, 3]\nclasses = 2\nclass_names = [\"cat\", \"dog\"]";
    trains(&place, "pets", expected);
    trains(
        &place,
        "mixed --resize 10 --channels grey",
        "image = [10, 10, 1]",
    );
    // Names of parts may begin with capitals.
    fs::rename(place.path("pets/test"), place.path("pets/Test")).unwrap();
    let surveyed = json(&place.run("data pets --json"));
    assert_eq!(surveyed["test"], serde_json::json!([24, 24]));
    fs::rename(place.path("pets/train"), place.path("pets/Train")).unwrap();
    assert_eq!(json(&place.run("data pets --json")), surveyed);
    let output = place.output("data mixed --resize 10 --picture seen.png");
    assert!(text(&output.stderr).contains("it has no test images: a sixth of each class"));
    assert!(text(&output.stdout).contains("dog"));
    let picture = image::open(place.path("seen.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (177, 23));
}

#[test]
fn arrays_and_tables() {
    let place = Place::new();
    let array = |n: usize, shape: &[usize]| {
        let size: usize = shape.iter().product();
        Array::new([&[n], shape].concat(), all(n, size)).unwrap()
    };
    let labels = |n: usize| {
        Array::new([n, 1], (0..n as i32).map(|i| i % 4 - 1).collect::<Vec<_>>()).unwrap()
    };
    let arrays = Arrays::from([
        ("x_train".to_owned(), array(40, &[3, 6, 7])),
        ("y_train".to_owned(), labels(40)),
        ("x_test".to_owned(), array(8, &[3, 6, 7])),
        ("y_test".to_owned(), labels(8)),
    ]);
    write_npz(place.path("some.npz"), &arrays).unwrap();
    trains(
        &place,
        "some.npz",
        "image = [6, 7, 3]\nclasses = 4\nclass_names = [\"-1\", \"0\"",
    );
    let mut grey = arrays.clone();
    grey.insert("x_train".to_owned(), array(40, &[6, 7]));
    grey.retain(|name, _| name.ends_with("train"));
    write_safetensors(place.path("some.safetensors"), &grey, &Metadata::new()).unwrap();
    trains(&place, "some.safetensors", "image = [6, 7, 1]");

    let row = |i: usize| {
        let pixels: Vec<String> = noise(i, 48).iter().map(u8::to_string).collect();
        format!("{},{}\n", ["oak", "elm", "ash"][i % 3], pixels.join(","))
    };
    let rows: String = (0..60).map(row).collect();
    place.write(
        "trees.csv",
        format!("label,p0{}\n{rows}", ",p".repeat(47)).as_bytes(),
    );
    trains(
        &place,
        "trees.csv",
        "image = [4, 4, 3]\nclasses = 3\nclass_names = [\"ash\", \"elm\", \"oak\"]",
    );
    fs::create_dir(place.path("trees")).unwrap();
    place.write("trees/trees_train.csv", rows.as_bytes());
    place.write("trees/trees_test.csv", row(1).as_bytes());
    assert_eq!(
        json(&place.run("data trees --json"))["test"],
        serde_json::json!([0, 1, 0])
    );
}

#[test]
fn classes_whose_names_are_paths_stay_below_the_folder() {
    let place = Place::new();
    let absolute = place.path("absolute").display().to_string();
    let classes = ["../escaped", &absolute, "", "oak"];
    let row = |i: usize| format!("{},{},{},9,0\n", classes[i % 4], i % 5, i % 7);
    place.write("paths.csv", (0..60).map(row).collect::<String>().as_bytes());
    let tiny = TINY.replace("--dataset mnist", "--dataset paths.csv");
    place.run(&format!(
        "train {tiny} --outer-steps 1 --no-baseline --out run"
    ));
    place.run("export run --to out/images --format images");
    for name in ["out/escaped", "absolute"] {
        assert!(!place.path(name).exists(), "{name}");
    }
    let folders = fs::read_dir(place.path("out/images")).unwrap();
    let mut names: Vec<String> = folders
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected = ["___escaped", &absolute.replace('/', "_"), "unnamed", "oak"];
    expected.sort_unstable();
    assert_eq!(names, expected);
}

/// Its images teach, and the colour that never changes is 0 to learners.
#[test]
fn a_colour_that_is_never_there_is_no_fault() {
    let place = Place::new();
    let row = |i: usize| {
        let pixel = |p: usize| format!("{},{},0", i * (p + 3) % 251, i * (p + 7) % 241);
        let pixels: Vec<String> = (0..4).map(pixel).collect();
        format!("{},{}\n", i % 2, pixels.join(","))
    };
    place.write("warm.csv", (0..60).map(row).collect::<String>().as_bytes());
    let found = json(&place.run("data warm.csv --json"));
    assert_eq!([&found["mean"][2], &found["std"][2]], [&0.0, &1.0]);
    assert!(found["std"][0].as_f64().unwrap() < 0.5, "{found}");
    trains(&place, "warm.csv", "image = [2, 2, 3]\nclasses = 2");
}

/// A folder of images is split by the program: with more of them, others are held out for the test.
#[test]
fn data_that_has_changed_is_told() {
    let place = Place::new();
    let image = |i: usize| photograph(&place.path(&format!("set/{}/{i}.png", i % 2)), i, [4, 5]);
    (0..24).for_each(image);
    let tiny = TINY.replace("--dataset mnist", "--dataset set");
    place.run(&format!(
        "train {tiny} --outer-steps 1 --no-baseline --out run"
    ));
    let eval = || {
        let output = place.output("eval run --no-baseline");
        assert!(output.status.success());
        text(&output.stderr)
    };
    assert!(!eval().contains("warning"));
    (24..40).for_each(image);
    let said = eval();
    assert!(
        said.contains("warning: run had 18 training, 2 validation and 4 test images, and"),
        "{said}"
    );
    place.run("train --resume run --outer-steps 2 --no-baseline");
    assert!(eval().contains("warning: run had 18 training"));
}

#[test]
fn a_run_goes_on_with_data_that_has_moved() {
    let place = Place::new();
    let row = |i: usize| format!("{},{},{},9,0\n", i % 2, i % 5, i % 7);
    place.write("old.csv", (0..60).map(row).collect::<String>().as_bytes());
    let tiny = TINY.replace("--dataset mnist", "--dataset old.csv");
    place.run(&format!(
        "train {tiny} --outer-steps 1 --no-baseline --out run"
    ));
    fs::rename(place.path("old.csv"), place.path("new.csv")).unwrap();
    let resume = "train --resume run --outer-steps 2 --no-baseline";
    place.fails(2, resume, "old.csv`: there is no such file or folder");
    place.run(&format!("{resume} --data-dir new.csv"));
    // From now on it is known to be there.
    place.run("eval run --no-baseline");
    let other = "eval run --no-baseline --data-dir data";
    place.fails(1, other, "the data set has 10 classes of 28×28 grey images, and this run was made for 2 classes of 2×2");
}

#[cfg(target_os = "linux")]
#[test]
fn classes_whose_names_are_no_text_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    for class in [b"caf\xe9", b"caf\xe8"] {
        let folder = place.path("photos").join(OsStr::from_bytes(class));
        photograph(&folder.join("1.png"), 1, [4, 5]);
    }
    place.fails(1, "data photos", "the name of this folder is not UTF-8");
}

/// An image that does not fit into the memory of the process is refused before it is unpacked.
#[cfg(target_os = "linux")]
#[test]
fn an_image_beyond_the_limit_of_the_process_is_refused() {
    let place = Place::new();
    for class in ["a", "b"] {
        fs::create_dir_all(place.path(&format!("large/{class}"))).unwrap();
        let grey = GrayImage::from_pixel(9000, 9000, image::Luma([7]));
        grey.save(place.path(&format!("large/{class}/1.png")))
            .unwrap();
    }
    let limited = format!("ulimit -v 900000; exec {PROGRAM} data large");
    let mut command = place.command("sh", "-c");
    let output = command.arg(limited).output().unwrap();
    let words = "large/a/1.png: images of 927 MiB, and the system gives no such memory";
    refused(&output, 1, "data large", words);
}

/// Every fault has one line, which names the place.
#[test]
fn data_sets_of_no_use_are_refused() {
    let place = Place::new();
    let image = |path: &str, i, size| photograph(&place.path(path), i, size);
    for i in 0..12 {
        for set in ["sizes", "broken", "empty", "extra/train", "grey"] {
            image(&format!("{set}/{}/{i}.png", i % 2), i, [4, 5]);
        }
        image(&format!("one/a/{i}.png"), i, [4, 5]);
        image(&format!("extra/test/{}/{i}.png", i % 3), i, [4, 5]);
    }
    image("sizes/1/9.png", 3, [5, 4]);
    place.write("broken/1/7.png", &[0x89, b'P', b'N', b'G', 1, 2]);
    fs::create_dir(place.path("empty/2")).unwrap();
    GrayImage::from_raw(5, 4, noise(1, 20))
        .unwrap()
        .save(place.path("grey/1/5.png"))
        .unwrap();
    place.write("short.csv", b"0,1,2,3,4\n1,2,3,4\n");
    place.write("large.csv", b"0,1,2,3,4\n1,2,3,4,256\n");
    place.write("oblong.csv", b"0,1,2,3,4,5\n1,2,3,4,5,6\n");
    place.write("same.csv", "1,5,5,5,5\n2,5,5,5,5\n".repeat(40).as_bytes());
    place.write("few.csv", b"0,1,2,3,4\n1,2,3,4,5\n");
    place.write("single.csv", "1,1,2,3,5\n".repeat(40).as_bytes());
    fs::create_dir(place.path("pair")).unwrap();
    place.write("pair/train.csv", b"oak,9,8,7,6\nelm,1,2,3,5\n");
    place.write("pair/test.csv", b"ash,9,8,7,6\n");
    let named = |images: Array| {
        let labels = Array::new([4], vec![0, 1, 0, 1]).unwrap();
        Arrays::from([
            ("x_train".to_owned(), images),
            ("y_train".to_owned(), labels),
        ])
    };
    let floats = Array::new([4, 2, 2], vec![0.5f32; 16]).unwrap();
    write_npz(place.path("floats.npz"), &named(floats)).unwrap();
    let three = Array::new([3, 2, 2], vec![5u8; 12]).unwrap();
    write_npz(place.path("three.npz"), &named(three)).unwrap();
    write_npz(place.path("other.npz"), &Arrays::new()).unwrap();

    let mut parts = cifar_parts();
    parts[2].1[3073] = 10;
    place.write("cifar-10-binary.tar.gz", &tar(&parts));
    let cut = &tar(&cifar_parts())[..5000];
    fs::create_dir(place.path("cut")).unwrap();
    place.write("cut/cifar-10-binary.tar.gz", cut);
    // A part that announces a gigabyte.
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header
        .set_path("cifar-10-batches-bin/data_batch_1.bin")
        .unwrap();
    header.set_size(1 << 30);
    header.set_cksum();
    archive.append(&header, std::io::empty()).unwrap();
    fs::create_dir(place.path("bomb")).unwrap();
    let bomb = archive.into_inner().unwrap().finish().unwrap();
    place.write("bomb/cifar-10-binary.tar.gz", &bomb);
    parts.remove(4);
    parts[2].1[3073] = 1;
    fs::create_dir(place.path("part")).unwrap();
    place.write("part/cifar-10-binary.tar.gz", &tar(&parts));
    fs::create_dir(place.path("nothing")).unwrap();
    fs::create_dir(place.path("huge")).unwrap();
    for file in ["train", "t10k"] {
        let header = idx(2051, &[1_000_000, 60_000, 60_000], [].into_iter());
        place.write(&format!("huge/{file}-images-idx3-ubyte"), &header);
        place.write(
            &format!("huge/{file}-labels-idx1-ubyte"),
            &idx(2049, &[1], [1].into_iter()),
        );
    }
    // 5,000 arrays, each of which says that it unpacks to 4 GiB.
    let name = |i: usize| (format!("x{i}"), Array::new([1], vec![1]).unwrap());
    write_npz(place.path("bomb.npz"), &(0..5000).map(name).collect()).unwrap();
    let mut bomb = fs::read(place.path("bomb.npz")).unwrap();
    let entries = bomb
        .windows(4)
        .enumerate()
        .filter(|(_, four)| four == b"PK\x01\x02");
    for at in entries.map(|(at, _)| at).collect::<Vec<_>>() {
        bomb[at + 24..at + 28].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
    }
    place.write("bomb.npz", &bomb);
    // Elsewhere nobody says how much memory is free.
    if cfg!(target_os = "linux") {
        place.fails(1, "data huge", "images of 3352761.3 GiB, and ");
        let words = "bomb.npz: it unpacks to 20000.0 GiB, of which a copy is made: images of 40000.0 GiB, and ";
        place.fails(1, "data bomb.npz", words);
    }

    for (data, words) in [
        (
            "sizes",
            "sizes/1/9.png: 5×4 in colour, and sizes/0/0.png is 4×5 in colour",
        ),
        (
            "grey",
            "grey/1/5.png: 4×5 grey, and grey/0/0.png is 4×5 in colour",
        ),
        ("broken", "broken/1/7.png: unreadable image"),
        ("empty", "empty/2: class 2 has no images"),
        ("one", "one: all images are of one class"),
        ("extra", "extra/test/2: no class of the training images"),
        ("short.csv", "short.csv: CSV error: record 1"),
        (
            "large.csv",
            "large.csv: row 2: field 5 is `256`, and pixels are bytes from 0 to 255",
        ),
        (
            "oblong.csv",
            "oblong.csv: 5 pixels in a row are no square image",
        ),
        ("same.csv", "same.csv: all training images have one colour"),
        ("few.csv", "few.csv: no class has 6 training images"),
        ("single.csv", "single.csv: all images are of one class"),
        ("pair", "pair: test image 0 has the label ash"),
        (
            "floats.npz",
            "floats.npz: x_train: elements of type f32, and pixels are bytes",
        ),
        ("three.npz", "three.npz: y_train: 4 labels for 3 images"),
        ("other.npz", "other.npz: no array x_train in it"),
        (
            "cifar-10-binary.tar.gz",
            "data_batch_3.bin: label 1 is 10; the classes are 0 to 9",
        ),
        (
            "cut",
            "cut/cifar-10-binary.tar.gz: the archive is damaged or cut off",
        ),
        ("bomb", "data_batch_1.bin: announces 1073741824 bytes"),
        ("part", "data_batch_5.bin is missing"),
        (
            "nothing",
            "nothing: no data set that gtn can read; it is empty",
        ),
        (
            "run.toml",
            "no data set `run.toml`: there is no such file or folder",
        ),
    ] {
        let code = if data == "run.toml" { 2 } else { 1 };
        place.fails(code, &format!("data {data}"), words);
    }
}
