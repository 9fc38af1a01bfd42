//! Pictures of a curriculum: what a generator teaches, as a PNG file.

use std::path::Path;

use crate::error::{Error, Result};
use crate::run::run_folder::write_atomically;
use png::{BitDepth, ColorType, Encoder};

/// Pixels between two images, and around all.
const GAP: usize = 1;

/// Synthetic images in the order in which a learner sees them.
#[derive(Clone, Copy, Debug)]
pub struct ImageGrid<'a> {
    images: &'a [f32],
    labels: &'a [u16],
    batch: usize,
    shape: [usize; 3],
}

impl<'a> ImageGrid<'a> {
    /// The images of all inner steps: `images` is `[T, B, rows, columns, channels]` row by row,
    /// `labels` is `[T, B]`, `batch` is B and `shape` the last three.
    ///
    /// Values from -2 to 2 are drawn from black to white.
    ///
    /// # Errors
    /// If labels, images and shape do not fit together.
    pub fn new(
        images: &'a [f32],
        labels: &'a [u16],
        batch: usize,
        shape: [usize; 3],
    ) -> Result<Self> {
        let [rows, columns, channels] = shape;
        let (found, count) = (images.len(), labels.len());
        let wrong = |problem: String| Err(Error::run(problem));
        if channels != 1 && channels != 3 {
            let known = "only 1 (grey) or 3 (red, green, blue) can be drawn";
            return wrong(format!("images of {channels} channels: {known}"));
        }
        if labels.is_empty() || !count.is_multiple_of(batch) {
            return wrong(format!(
                "{count} images are not one or more inner batches of {batch}"
            ));
        }
        if found == 0 || found != count * rows * columns * channels {
            let shape = format!("{rows} x {columns} x {channels}");
            return wrong(format!("{found} values for {count} images of {shape}"));
        }
        Ok(ImageGrid {
            images,
            labels,
            batch,
            shape,
        })
    }

    /// Every image: a row for each inner step, in it the images of that step sorted by class.
    ///
    /// ```
    /// use gtn::draw::picture::ImageGrid;
    ///
    /// let images = vec![0.0; 3 * 2 * 28 * 28];
    /// let grid = ImageGrid::new(&images, &[0, 1, 0, 1, 0, 1], 2, [28, 28, 1])?;
    /// let picture = grid.every_image();
    /// assert_eq!((picture.width, picture.height), (59, 88));
    /// # Ok::<(), gtn::error::Error>(())
    /// ```
    pub fn every_image(&self) -> Picture {
        let rows = self
            .labels
            .chunks_exact(self.batch)
            .enumerate()
            .map(|(step, labels)| {
                let mut order: Vec<usize> = (0..self.batch).collect();
                order.sort_by_key(|&i| labels[i]);
                order
                    .into_iter()
                    .map(|i| Some(step * self.batch + i))
                    .collect()
            });
        self.draw(&rows.collect::<Vec<_>>())
    }

    /// A sheet of samples: a row for each class, in it that class's first image of up to `columns`
    /// inner steps, spread evenly from the first to the last; black where a step has none.
    pub fn by_class_and_step(&self, columns: usize) -> Picture {
        let steps = self.labels.len() / self.batch;
        let columns = columns.clamp(1, steps);
        let last = self.labels.iter().copied().max().unwrap_or_default();
        let first = |class, step: usize| {
            let labels = &self.labels[step * self.batch..][..self.batch];
            labels
                .iter()
                .position(|&label| label == class)
                .map(|i| step * self.batch + i)
        };
        let column = |k| k * (steps - 1) / (columns - 1).max(1);
        let row = |class| (0..columns).map(|k| first(class, column(k))).collect();
        self.draw(&(0..=last).map(row).collect::<Vec<_>>())
    }

    /// One image by its number, without a frame.
    pub fn single(&self, image: usize) -> Picture {
        let [height, width, channels] = self.shape;
        let size = height * width * channels;
        let values = &self.images[image * size..][..size];
        Picture {
            width,
            height,
            channels,
            pixels: values.iter().map(|&value| shade(value)).collect(),
        }
    }

    /// Puts images, by their number, in rows of equal length.
    fn draw(&self, grid: &[Vec<Option<usize>>]) -> Picture {
        let [rows, columns, channels] = self.shape;
        let width = GAP + grid[0].len() * (columns + GAP);
        let height = GAP + grid.len() * (rows + GAP);
        let mut pixels = vec![0; width * height * channels];
        for (down, row) in grid.iter().enumerate() {
            for (right, image) in row.iter().enumerate() {
                let Some(image) = image else { continue };
                let values = &self.images[image * rows * columns * channels..];
                for (y, line) in values
                    .chunks_exact(columns * channels)
                    .take(rows)
                    .enumerate()
                {
                    let top = GAP + down * (rows + GAP) + y;
                    let left = GAP + right * (columns + GAP);
                    let place = &mut pixels[(top * width + left) * channels..];
                    for (pixel, &value) in place.iter_mut().zip(line) {
                        *pixel = shade(value);
                    }
                }
            }
        }
        Picture {
            width,
            height,
            channels,
            pixels,
        }
    }
}

/// From -2 to 2 black to white.
fn shade(value: f32) -> u8 {
    // A cast from float saturates at 0 and 255, and turns NaN into 0, which is black.
    ((value + 2.0) / 4.0 * 255.0).round() as u8
}

/// A picture, grey or in colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// A byte for each channel of each pixel, row by row.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Writes a PNG file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, |file| {
            let mut encoder = Encoder::new(file, self.width as u32, self.height as u32);
            encoder.set_depth(BitDepth::Eight);
            encoder.set_color(match self.channels {
                1 => ColorType::Grayscale,
                _ => ColorType::Rgb,
            });
            let mut png = encoder.write_header()?;
            png.write_image_data(&self.pixels)?;
            Ok(png.finish()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;

    use super::*;

    const LABELS: [u16; 6] = [2, 0, 2, 1, 2, 0];

    /// The value that is drawn in this shade.
    fn value(shade: u8) -> f32 {
        f32::from(shade) / 255.0 * 4.0 - 2.0
    }

    /// 2 inner steps of 3 images of one row and two columns; image i has the shades i and i + 10.
    fn images() -> Vec<f32> {
        (0..6).flat_map(|i| [value(i), value(i + 10)]).collect()
    }

    fn grid(images: &[f32]) -> ImageGrid<'_> {
        ImageGrid::new(images, &LABELS, 3, [1, 2, 1]).unwrap()
    }

    fn line(picture: &Picture, y: usize) -> &[u8] {
        &picture.pixels[y * picture.width..][..picture.width]
    }

    #[test]
    fn every_image_stands_in_its_steps_row_sorted_by_class() {
        let picture = grid(&images()).every_image();
        assert_eq!((picture.width, picture.height), (10, 5));
        assert_eq!(line(&picture, 1), [0, 1, 11, 0, 0, 10, 0, 2, 12, 0]);
        assert_eq!(line(&picture, 3), [0, 5, 15, 0, 3, 13, 0, 4, 14, 0]);
        assert_eq!([0, 2, 4].map(|y| line(&picture, y)), [[0; 10]; 3]);
    }

    #[test]
    fn a_single_image_has_no_frame() {
        let picture = grid(&images()).single(4);
        assert_eq!((picture.width, picture.height), (2, 1));
        assert_eq!(picture.pixels, [4, 14]);
    }

    #[test]
    fn the_sheet_has_a_row_per_class_and_a_column_per_step() {
        let picture = grid(&images()).by_class_and_step(99);
        assert_eq!((picture.width, picture.height), (7, 7));
        assert_eq!(line(&picture, 1), [0, 1, 11, 0, 5, 15, 0]);
        assert_eq!(
            line(&picture, 3),
            [0, 0, 0, 0, 3, 13, 0],
            "no class 1 in the first step"
        );
        assert_eq!(line(&picture, 5), [0, 0, 10, 0, 4, 14, 0]);
        assert_eq!(
            grid(&images()).by_class_and_step(0).width,
            4,
            "at least the first step"
        );
    }

    #[test]
    fn the_steps_of_a_sheet_reach_from_first_to_last() {
        let images: Vec<f32> = (0..10).map(value).collect();
        let all = ImageGrid::new(&images, &[0; 10], 1, [1, 1, 1]).unwrap();
        let picture = all.by_class_and_step(4);
        assert_eq!(line(&picture, 1), [0, 0, 0, 3, 0, 6, 0, 9, 0]);
    }

    #[test]
    fn values_beyond_the_range_are_black_or_white() {
        let images = [-9.0, -2.0, 0.0, 2.0, 9.0, f32::NAN];
        let picture = ImageGrid::new(&images, &[0], 1, [1, 6, 1])
            .unwrap()
            .every_image();
        assert_eq!(line(&picture, 1), [0, 0, 0, 128, 255, 255, 0, 0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let error = |labels: &[u16], batch, shape| {
            ImageGrid::new(&images(), labels, batch, shape)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(&LABELS, 3, [1, 3, 1]),
            "12 values for 6 images of 1 x 3 x 1"
        );
        assert_eq!(
            error(&LABELS, 4, [1, 2, 1]),
            "6 images are not one or more inner batches of 4"
        );
        assert_eq!(
            error(&[], 1, [1, 2, 1]),
            "0 images are not one or more inner batches of 1"
        );
        assert_eq!(
            error(&LABELS, 0, [1, 2, 1]),
            "6 images are not one or more inner batches of 0"
        );
        let nothing = ImageGrid::new(&[], &LABELS, 3, [1, 0, 1])
            .unwrap_err()
            .to_string();
        assert_eq!(nothing, "0 values for 6 images of 1 x 0 x 1");
        assert!(error(&LABELS, 3, [1, 1, 2]).starts_with("images of 2 channels"));
    }

    #[test]
    fn the_file_holds_the_picture_in_grey_and_in_colour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("picture.png");
        let images = images();
        let colour = ImageGrid::new(&images, &[0, 1], 1, [2, 1, 3]).unwrap();
        for picture in [grid(&images).every_image(), colour.every_image()] {
            picture.write(&path).unwrap();
            let decoder = png::Decoder::new(BufReader::new(File::open(&path).unwrap()));
            let mut reader = decoder.read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut pixels).unwrap();
            assert_eq!(
                (info.width, info.height),
                (picture.width as u32, picture.height as u32)
            );
            assert_eq!(info.color_type.samples(), picture.channels);
            assert_eq!(pixels, picture.pixels);
        }
    }
}
