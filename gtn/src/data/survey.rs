//! What is in a data set, and what is odd about it.

use super::{Dataset, Problem, Split};
use crate::error::one_line;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::PathBuf;

/// What is in a data set.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// A word for it.
    pub name: String,
    /// Where it was read from.
    pub place: Option<PathBuf>,
    /// Size of the images, and number of classes.
    #[serde(flatten)]
    pub problem: Problem,
    /// The name of every class.
    pub class_names: Vec<String>,
    /// Images of each class to train on.
    pub train: Vec<usize>,
    /// Images of each class to validate with.
    pub validation: Vec<usize>,
    /// Images of each class to test with.
    pub test: Vec<usize>,
    /// For each channel, the mean of the training pixels divided by 255.
    pub mean: Vec<f32>,
    /// For each channel, the standard deviation of the training pixels divided by 255; 1 where they are all the same.
    pub std: Vec<f32>,
    /// Test images that also occur among training or validation images.
    pub test_images_seen: usize,
    /// Training images that are copies of earlier ones.
    pub repeated: usize,
    /// Images whose pixels are all the same.
    pub blank: usize,
    /// What is odd, a sentence each.
    pub odd: Vec<String>,
}

/// Classes count as uneven if the largest has this many times the images of the smallest.
const UNEVEN: usize = 10;

/// Characters of the column of names. Longer names push the other columns away.
const WIDEST: usize = 60;

impl Survey {
    /// Counts and compares all images.
    pub fn of(data: &Dataset) -> Self {
        let classes = data.problem().classes;
        let counts = [&data.train, &data.validation, &data.test].map(|split| count(split, classes));
        let seen: HashSet<&[u8]> = images(&data.train)
            .chain(images(&data.validation))
            .collect();
        let test_images_seen = images(&data.test)
            .filter(|image| seen.contains(image))
            .count();
        let train: HashSet<&[u8]> = images(&data.train).collect();
        let channels = data.problem().image[2];
        let is_blank = |image: &&[u8]| {
            image
                .chunks_exact(channels)
                .all(|p| *p == image[..channels])
        };
        let splits = [&data.train, &data.validation, &data.test];
        let [in_train, validation, test] = counts;
        let mut survey = Self {
            name: data.card.name.clone(),
            place: data.card.place.clone(),
            problem: data.problem(),
            class_names: data.card.class_names.clone(),
            train: in_train,
            validation,
            test,
            mean: data.card.mean.clone(),
            std: data.card.std.clone(),
            test_images_seen,
            repeated: data.train.len() - train.len(),
            blank: splits.into_iter().flat_map(images).filter(is_blank).count(),
            odd: Vec::new(),
        };
        survey.odd = survey.oddities(other_labels(&data.train));
        survey
    }

    fn oddities(&self, other_labels: usize) -> Vec<String> {
        let mut odd = Vec::new();
        for (count, what) in [
            (
                self.test_images_seen,
                "test images are also training or validation images",
            ),
            (self.repeated, "training images are copies of others"),
            (
                other_labels,
                "training images have other labels than their copies",
            ),
            (self.blank, "images are of one colour"),
        ] {
            if count > 0 {
                odd.push(format!("{count} {what}"));
            }
        }
        for (name, counts) in self.parts() {
            let empty = counts
                .iter()
                .zip(&self.class_names)
                .filter(|(count, _)| **count == 0);
            let empty: Vec<&str> = empty.map(|(_, class)| class.as_str()).collect();
            if !empty.is_empty() {
                odd.push(format!("no {name} images of: {}", empty.join(", ")));
            }
        }
        let [least, most] = [self.train.iter().min(), self.train.iter().max()];
        if let (Some(&least), Some(&most)) = (least, most)
            && least > 0
            && most >= UNEVEN * least
        {
            odd.push(format!(
                "classes are uneven: {least} to {most} training images"
            ));
        }
        odd
    }

    fn parts(&self) -> [(&'static str, &Vec<usize>); 3] {
        [
            ("training", &self.train),
            ("validation", &self.validation),
            ("test", &self.test),
        ]
    }

    /// For people. Names come from files, and could play tricks on a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}: {}\n", one_line(&self.name), self.problem);
        let class_names: Vec<_> = self.class_names.iter().map(|name| one_line(name)).collect();
        for (name, counts) in self.parts() {
            let sum: usize = counts.iter().sum();
            let _ = writeln!(text, "  {name:<11} {sum:>7} images");
        }
        let list = |numbers: &[f32]| {
            let numbers: Vec<_> = numbers.iter().map(|x| format!("{x:.4}")).collect();
            numbers.join(" ")
        };
        let (mean, std) = (list(&self.mean), list(&self.std));
        let _ = writeln!(
            text,
            "  mean {mean}, standard deviation {std} of training pixels / 255"
        );
        let widest = class_names.iter().map(|name| name.chars().count()).max();
        let width = widest.unwrap_or(0).clamp("class".len(), WIDEST);
        let _ = writeln!(
            text,
            "\n  {:<width$} {:>11}{:>11}{:>11}",
            "class", "training", "validation", "test"
        );
        for (i, name) in class_names.iter().enumerate() {
            let [train, validation, test] = self.parts().map(|(_, counts)| counts[i]);
            let _ = writeln!(
                text,
                "  {name:<width$} {train:>11}{validation:>11}{test:>11}"
            );
        }
        text.push('\n');
        for odd in &self.odd {
            let _ = writeln!(text, "  odd: {}", one_line(odd));
        }
        if self.odd.is_empty() {
            text.push_str("  nothing odd: no copies, no empty classes\n");
        }
        text
    }
}

fn images(split: &Split) -> impl Iterator<Item = &[u8]> {
    (0..split.len()).map(|i| split.image(i))
}

fn count(split: &Split, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for &label in &split.labels {
        counts[usize::from(label)] += 1;
    }
    counts
}

/// How many images have another label than the first with the same pixels.
fn other_labels(split: &Split) -> usize {
    let mut first = HashMap::new();
    let labelled = images(split).zip(&split.labels);
    labelled
        .filter(|(image, label)| first.entry(*image).or_insert(*label) != label)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_as_long_as_a_page_has_its_line() {
        let mut data = Dataset::drawn(1, [40, 20, 20]);
        data.card.class_names[3] = "x".repeat(100_000);
        let text = Survey::of(&data).text();
        assert!(text.contains(&format!("  {}           4", "x".repeat(100_000))));
        assert!(text.contains(&format!("\n  {:<60}           4", "2")));
    }

    #[test]
    fn what_is_odd_is_said() {
        let mut data = Dataset::drawn(1, [40, 20, 20]);
        assert_eq!(Survey::of(&data).odd, [""; 0]);
        assert_eq!(Survey::of(&data).train, [4; 10]);
        let image = data.train.image(0).to_vec();
        data.test.images[..784].copy_from_slice(&image);
        data.train.images[784..1568].copy_from_slice(&image);
        data.train.images[2 * 784..3 * 784].fill(7);
        data.validation.labels[3] = 4;
        data.validation.labels[13] = 4;
        data.train.labels[10..].fill(2);
        let survey = Survey::of(&data);
        assert_eq!(
            survey.odd,
            [
                "1 test images are also training or validation images",
                "1 training images are copies of others",
                "1 training images have other labels than their copies",
                "1 images are of one colour",
                "no validation images of: 3",
                "classes are uneven: 1 to 31 training images",
            ]
        );
        let text = survey.text();
        assert!(
            text.starts_with("embedded: 10 classes of 28×28 grey images\n"),
            "{text}"
        );
        assert!(
            text.contains("  odd: 1 images are of one colour\n"),
            "{text}"
        );
    }

    #[test]
    fn names_of_classes_do_nothing_to_a_terminal() {
        let mut data = Dataset::drawn(1, [40, 20, 20]);
        data.card.class_names[3] = "\x1b[31mred\nline".to_owned();
        data.validation.labels.fill(0);
        let text = Survey::of(&data).text();
        assert!(!text.contains('\x1b'), "{text}");
        assert!(text.contains("\n  \\u{1b}[31mred line  "), "{text}");
        assert!(text.contains("2, \\u{1b}[31mred line, 4"), "{text}");
    }
}
