//! Which data set is loaded from where, and what is in it.

use std::fs;

use tempfile::TempDir;

use super::mnist::FILES;
use super::*;

const HANDWRITTEN: DatasetChoice = DatasetChoice::Named(Named::Mnist);
const CLOTHES: DatasetChoice = DatasetChoice::Named(Named::FashionMnist);

fn load_in(choice: &DatasetChoice, flag: Option<&Path>, seed: u64) -> Result<Dataset> {
    load(choice, Want::default(), &Place::new(flag, None), seed)
}

/// Writes a split with these labels, as the published files are.
fn write_split(dir: &Path, images: &str, labels: &str, classes: &[u8]) {
    let (count, side) = (classes.len() as u32, 28);
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(images), idx::tests::images(count, side, side)).unwrap();
    fs::write(dir.join(labels), idx::tests::labels(classes)).unwrap();
}

fn write_set(dir: &Path, train: &[u8]) {
    write_split(dir, FILES[0], FILES[1], train);
    write_split(dir, FILES[2], FILES[3], &[7, 2, 1]);
}

#[test]
fn the_last_sixth_of_train_is_validation() {
    let dir = TempDir::new().unwrap();
    write_set(dir.path(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7]);
    let data = load_in(&DatasetChoice::Auto, Some(dir.path()), 0).unwrap();
    assert_eq!(data.choice, HANDWRITTEN);
    assert_eq!(
        (&data.card.mean[..], &data.card.std[..]),
        (&[0.1307][..], &[0.3081][..])
    );
    assert_eq!(
        (&data.card.name[..], &data.card.class_names[3][..]),
        ("mnist", "3")
    );
    assert_eq!(data.train.labels, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(data.validation.labels, [8, 7]);
    assert_eq!(data.test.labels, [7, 2, 1]);
    assert_eq!(data.train.images.len(), 10 * 28 * 28);
    let expected = format!(
        "MNIST from {}, because --data-dir names it",
        dir.path().display()
    );
    assert_eq!(data.origin, expected);
}

#[test]
fn what_begins_as_mnist_and_has_more_classes_is_another_set() {
    let load = |trained: u8, tested: u8| {
        let dir = TempDir::new().unwrap();
        let train = [&MNIST.first_labels[..], &[trained; 20]].concat();
        write_set(dir.path(), &train.repeat(2));
        write_split(dir.path(), FILES[2], FILES[3], &[tested]);
        let choice = DatasetChoice::At(dir.path().to_owned());
        load_in(&choice, None, 0)
    };
    assert_eq!(load(9, 1).unwrap().card.name, "mnist");
    let data = load(11, 1).unwrap();
    assert_ne!(data.card.name, "mnist");
    assert_eq!(
        data.card.class_names,
        ["0", "1", "2", "3", "4", "5", "9", "11"]
    );
    for split in [&data.train, &data.validation, &data.test] {
        assert!(split.labels.iter().all(|&label| label < 8));
    }
    let error = load(9, 12).unwrap_err().to_string();
    assert!(error.contains("test image 0 has the label 12"), "{error}");
}

#[test]
fn a_subfolder_is_found_and_other_clothes_are_not_digits() {
    let dir = TempDir::new().unwrap();
    let sub = dir.path().join("fashion-mnist");
    write_set(&sub, &FASHION_MNIST.first_labels);
    let data = load_in(&CLOTHES, Some(dir.path()), 0).unwrap();
    assert_eq!(data.choice, CLOTHES);
    assert_eq!(data.train.len(), 9);
    let error = load_in(&DatasetChoice::Auto, Some(dir.path()), 0).unwrap_err();
    assert!(error.to_string().contains("no MNIST there"), "{error}");
    let error = load_in(&HANDWRITTEN, Some(&sub), 0).unwrap_err();
    assert!(
        error.lines().ends_with(
            "these are the files of Fashion-MNIST, not of MNIST\nhint: --dataset fashion-mnist"
        ),
        "{error}"
    );
}

#[test]
fn a_part_of_the_files_is_an_error_and_no_reason_to_look_elsewhere() {
    let dir = TempDir::new().unwrap();
    write_set(dir.path(), &[0; 12]);
    fs::remove_file(dir.path().join(FILES[1])).unwrap();
    let line = load_in(&DatasetChoice::Auto, Some(dir.path()), 0)
        .unwrap_err()
        .to_string();
    assert!(line.ends_with("train-labels-idx1-ubyte: no such file, with or without .gz"));
    for by in [Some("GTN_DATA_DIR"), None] {
        let folder = dir.path().into();
        let place = Place { folder, by };
        let found = named(Named::Mnist, Want::default(), &place, 0).unwrap();
        assert_eq!(found.unwrap_err().to_string(), line);
    }
}

/// What is there and cannot be listed is not called empty. A file stands for a folder without permission, which the
/// superuser can read.
#[test]
fn what_cannot_be_listed_is_said() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = idx::listed(&file).unwrap_err().to_string();
    assert!(error.contains("file: cannot be read: "), "{error}");
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let wanted = match fs::read_dir(&closed) {
        Ok(_) => "it is empty",
        Err(_) => "it cannot be read",
    };
    assert_eq!(seen(&closed), wanted);
}

#[test]
fn says_where_it_looked() {
    let dir = TempDir::new().unwrap();
    let line = load_in(&DatasetChoice::Auto, Some(dir.path()), 0)
        .unwrap_err()
        .to_string();
    let expected = format!(
        "--data-dir {}: no MNIST there or in its folder mnist: \
         no train-images-idx3-ubyte, with or without .gz; it is empty",
        dir.path().display()
    );
    assert_eq!(line, expected);
    for i in 0..14 {
        fs::write(dir.path().join(format!("{i:02}")), "").unwrap();
    }
    let line = load_in(&DatasetChoice::Auto, Some(dir.path()), 0).unwrap_err();
    assert!(
        line.to_string()
            .ends_with("; seen: 00, 01, 02, 03, 04, 05, 06, 07, 08, 09, 10, 11, and 2 more")
    );
    let place = |by| Place {
        folder: "/no/where".into(),
        by,
    };
    let in_env = place(Some("GTN_DATA_DIR"));
    let set = Named::FashionMnist;
    assert!(named(set, Want::default(), &in_env, 0).is_none());
    assert_eq!(
        nothing(set, &in_env).lines(),
        "error: GTN_DATA_DIR /no/where: no Fashion-MNIST there or in its folder fashion-mnist: \
         no train-images-idx3-ubyte, with or without .gz; there is no such folder"
    );
    let unnamed = nothing(set, &place(None));
    assert_eq!(
        unnamed.lines(),
        "error: no Fashion-MNIST found (GTN_DATA_DIR is not set, none in ./data)\n\
         hint: name its folder with --data-dir"
    );
}

/// How people rename a file.
type Rename<'a> = &'a dyn Fn(&str) -> String;

#[test]
fn files_are_found_as_people_have_them() {
    let gzip = |path: &Path| {
        use std::io::Write;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&fs::read(path).unwrap()).unwrap();
        fs::write(path.with_added_extension("GZ"), packed.finish().unwrap()).unwrap();
        fs::remove_file(path).unwrap();
    };
    let dotted = |name: &str| name.replace("-idx", ".idx");
    let capital = str::to_uppercase;
    let folder = |name: &str| format!("{name}/{name}");
    let same = str::to_owned;
    let cases: [(&str, Rename); 9] = [
        ("", &dotted),
        ("", &capital),
        ("", &folder),
        ("MNIST/raw", &same),
        ("raw", &same),
        ("Mnist", &dotted),
        ("mnist/raw", &dotted),
        ("", &|name| {
            dotted(name).replace("train-images", "Train-Images")
        }),
        ("MNIST", &|name| format!("{name}/{}", dotted(name))),
    ];
    for (number, (place, name)) in cases.into_iter().enumerate() {
        for packed in [false, true] {
            let dir = TempDir::new().unwrap();
            let (plain, place) = (
                dir.path().join("plain"),
                dir.path().join("here").join(place),
            );
            write_set(&plain, &[0, 1, 2, 3, 4, 5]);
            for file in FILES {
                let to = place.join(name(file));
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::rename(plain.join(file), &to).unwrap();
                if packed {
                    gzip(&to);
                }
            }
            let data = load_in(&DatasetChoice::Auto, Some(&dir.path().join("here")), 0);
            assert_eq!(data.unwrap().train.labels, [0, 1, 2, 3, 4], "{number}");
        }
    }
    let dir = TempDir::new().unwrap();
    write_set(
        &dir.path().join("FashionMNIST/raw"),
        &FASHION_MNIST.first_labels,
    );
    assert!(load_in(&CLOTHES, Some(dir.path()), 0).is_ok());
}

#[test]
fn no_test_images_are_refused() {
    let dir = TempDir::new().unwrap();
    write_split(dir.path(), FILES[0], FILES[1], &[0; 12]);
    write_split(dir.path(), FILES[2], FILES[3], &[]);
    let error = load_in(&HANDWRITTEN, Some(dir.path()), 0).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("t10k-images-idx3-ubyte: no test images")
    );
}

#[test]
fn a_handful_of_images_cannot_be_split() {
    let dir = TempDir::new().unwrap();
    write_set(dir.path(), &[0; 5]);
    let error = load_in(&HANDWRITTEN, Some(dir.path()), 0).unwrap_err();
    assert!(error.to_string().contains(": 5 training images"), "{error}");
}

#[test]
fn the_embedded_set_is_normalised_by_its_own_numbers() {
    let data = load_in(&DatasetChoice::Embedded, None, 11).unwrap();
    let sizes = [&data.train, &data.validation, &data.test].map(Split::len);
    assert_eq!(sizes, [20_000, 2_000, 5_000]);
    assert_eq!(
        data.origin,
        "digits drawn by the program itself, because it was asked for"
    );
    let all: Vec<usize> = (0..data.train.len()).collect();
    let values = data.normalised(&data.train, &all);
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
    assert!(
        mean.abs() < 1e-4 && (square - 1.0).abs() < 1e-4,
        "{mean} {square}"
    );
}

#[test]
fn a_spread_has_of_each_class_of_an_ordered_split() {
    let split = Split {
        images: vec![0; 30],
        labels: (0..30).map(|i| i / 10).collect(),
    };
    let labels = |count| -> Vec<u16> {
        split
            .spread(count)
            .iter()
            .map(|&i| split.labels[i])
            .collect()
    };
    assert_eq!(labels(6), [0, 0, 1, 1, 2, 2]);
    assert_eq!(split.spread(40), (0..30).collect::<Vec<_>>());
    assert!(Split::default().spread(3).is_empty());
}

#[test]
fn normalised_takes_the_chosen_images_in_order() {
    let mut data = Dataset::drawn(0, [1; 3]);
    let image = [1, 2, 3];
    data.card = Card {
        problem: Problem { image, classes: 3 },
        mean: vec![0.5, 0.0, 1.0],
        std: vec![0.25, 0.5, 1.0],
        ..data.card
    };
    let split = Split {
        images: vec![255, 0, 255, 0, 255, 0, 0, 0, 0, 255, 255, 255],
        labels: vec![1, 2],
    };
    let [first, second] = [
        [2.0, 0.0, 0.0, -2.0, 2.0, -1.0],
        [-2.0, 0.0, -1.0, 2.0, 2.0, 0.0],
    ];
    let batch = data.normalised(&split, &[1, 0, 1]);
    assert_eq!(batch, [second, first, second].concat());
}

#[test]
fn the_published_files_hold_the_known_facts() {
    let Some(dir) = std::env::var_os("GTN_DATA_DIR") else {
        println!("skipped: GTN_DATA_DIR is not set");
        return;
    };
    let dir = std::path::PathBuf::from(dir);
    for (choice, set) in [(HANDWRITTEN, &MNIST), (CLOTHES, &FASHION_MNIST)] {
        let place = Place::new(Some(&dir), None);
        let Some(data) = named(set.set, Want::default(), &place, 0) else {
            println!("skipped: no {} in {}", set.set.title(), dir.display());
            continue;
        };
        let data = data.unwrap();
        assert_eq!(data.choice, choice);
        let sizes = [&data.train, &data.validation, &data.test].map(Split::len);
        assert_eq!(sizes, [50_000, 10_000, 10_000]);
        assert!(set.begins(&data.train.labels));
        let labels = [&data.train.labels[..], &data.validation.labels].concat();
        let mut counts = [0; 10];
        for label in labels {
            counts[usize::from(label)] += 1;
        }
        if set.set == Named::Mnist {
            let known = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949];
            assert_eq!(counts, known);
        } else {
            assert_eq!(counts, [6000; 10]);
        }
        let pixels = [&data.train.images[..], &data.validation.images].concat();
        let (mean, std) = mean_and_std(&pixels, 1);
        assert!((mean[0] - data.card.mean[0]).abs() < 1e-4);
        assert!((std[0] - data.card.std[0]).abs() < 1e-4);
    }
}
