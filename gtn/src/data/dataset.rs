//! A data set in memory: bytes and classes in three splits, and how to normalise them.

use super::DatasetChoice;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// The task that a data set sets: networks are built for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Rows, columns and channels of an image.
    pub image: [usize; 3],
    /// Number of classes.
    pub classes: usize,
}

impl Problem {
    /// 28×28 grey images of ten classes.
    pub const MNIST: Self = Self {
        image: [28, 28, 1],
        classes: 10,
    };

    /// Numbers in an image: rows × columns × channels.
    pub fn image_len(self) -> usize {
        self.image.iter().product()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, columns, channels] = self.image;
        let colours = match channels {
            1 => "grey".to_owned(),
            3 => "colour".to_owned(),
            _ => format!("{channels}-channel"),
        };
        let classes = self.classes;
        write!(f, "{classes} classes of {rows}×{columns} {colours} images")
    }
}

/// Labelled images, all of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Rows × columns × channels bytes per image, channels last, 0 for black.
    pub images: Vec<u8>,
    /// One class per image.
    pub labels: Vec<u16>,
}

impl Split {
    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of image `i`.
    pub fn image(&self, i: usize) -> &[u8] {
        let size = self.images.len() / self.len();
        &self.images[i * size..][..size]
    }

    /// Indices of `count` images (of all, if there are fewer), evenly spaced from the first to the last. So a
    /// split that is sorted by class gives as many of each class.
    pub(crate) fn spread(&self, count: usize) -> Vec<usize> {
        let count = count.min(self.len());
        (0..count).map(|i| i * self.len() / count).collect()
    }

    /// The images whose index is `wanted`.
    pub(super) fn part(&self, wanted: impl Fn(usize) -> bool) -> Self {
        let mut part = Self::default();
        for i in (0..self.len()).filter(|&i| wanted(i)) {
            part.images.extend(self.image(i));
            part.labels.push(self.labels[i]);
        }
        part
    }

    /// The first `count` images, and the others.
    pub(super) fn split_at(mut self, count: usize) -> (Self, Self) {
        let size = self.images.len() / self.len().max(1);
        let images = self.images.split_off(count * size);
        let labels = self.labels.split_off(count);
        (self, Self { images, labels })
    }
}

/// What a run records about its data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// A short name, for tables and folder names.
    pub name: String,
    /// The folder or file that it was read from, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<PathBuf>,
    /// Size of the images, and number of classes.
    #[serde(flatten)]
    pub problem: Problem,
    /// A name for each class.
    pub class_names: Vec<String>,
    /// Numbers of training, validation and test images; older runs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<[usize; 3]>,
    /// For each channel, the mean of the training pixels divided by 255.
    pub mean: Vec<f32>,
    /// For each channel, the standard deviation of the training pixels divided by 255; 1 where they are all the same.
    pub std: Vec<f32>,
}

/// A data set, read or made.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The choice that loads it again; never `Auto`.
    pub choice: DatasetChoice,
    /// What a run records about it.
    pub card: Card,
    /// What learners of real data train on.
    pub train: Split,
    /// What the meta-loss and every choice made during a run look at.
    pub validation: Split,
    /// What only the final report looks at.
    pub test: Split,
    /// One sentence for the user: which data set this is, and why this one.
    pub origin: String,
}

impl Dataset {
    /// Size of the images, and number of classes.
    pub fn problem(&self) -> Problem {
        self.card.problem
    }

    /// A black pixel after normalisation.
    pub fn black(&self) -> Vec<f32> {
        let Card { mean, std, .. } = &self.card;
        mean.iter()
            .zip(std)
            .map(|(mean, std)| -mean / std)
            .collect()
    }

    /// The chosen images of one of the splits, normalised for a learner: `(p / 255 - mean) / std` by channel,
    /// \[n, rows, columns, channels\] for n indices.
    ///
    /// ```
    /// use gtn::data::Dataset;
    ///
    /// let data = Dataset::drawn(1, [10, 5, 5]);
    /// let batch = data.normalised(&data.validation, &[3, 1, 4]);
    /// assert_eq!(batch.len(), 3 * data.problem().image_len());
    /// ```
    pub fn normalised(&self, split: &Split, indices: &[usize]) -> Vec<f32> {
        let Card { mean, std, .. } = &self.card;
        // A table takes 256 divisions per channel, instead of one per pixel.
        let table = |(mean, std)| -> [f32; 256] {
            std::array::from_fn(|p| (p as f32 / 255.0 - mean) / std)
        };
        let tables: Vec<_> = mean.iter().zip(std).map(table).collect();
        let mut values = Vec::with_capacity(indices.len() * self.problem().image_len());
        for &i in indices {
            let image = split.image(i);
            if let [table] = &tables[..] {
                values.extend(image.iter().map(|&p| table[usize::from(p)]));
                continue;
            }
            for pixel in image.chunks_exact(tables.len()) {
                let channels = pixel.iter().zip(&tables);
                values.extend(channels.map(|(&p, table)| table[usize::from(p)]));
            }
        }
        values
    }
}

/// For each channel, mean and standard deviation of the pixels divided by 255; exact sums, so the same everywhere.
pub(super) fn mean_and_std(images: &[u8], channels: usize) -> (Vec<f32>, Vec<f32>) {
    let mut sums = vec![(0u64, 0u64); channels];
    for pixel in images.chunks_exact(channels) {
        for ((sum, squares), &p) in sums.iter_mut().zip(pixel) {
            let p = u64::from(p);
            *sum += p;
            *squares += p * p;
        }
    }
    let n = (images.len() / channels) as f64;
    let of_channel = |(sum, squares)| {
        let mean = sum as f64 / n;
        let variance = squares as f64 / n - mean * mean;
        ((mean / 255.0) as f32, (variance.sqrt() / 255.0) as f32)
    };
    sums.into_iter().map(of_channel).unzip()
}
