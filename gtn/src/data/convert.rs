//! Images of another size, or with other channels.

use super::found::check_memory;
use super::{Channels, Split, Want};
use crate::error::Result;
use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Luma, Pixel, Rgb};

impl Want {
    /// The size and channels of an image after conversion.
    pub(super) fn shape(self, [rows, columns, channels]: [usize; 3]) -> [usize; 3] {
        let channels = match self.channels {
            Channels::AsIs => channels,
            Channels::Grey => 1,
            Channels::Colour => 3,
        };
        match self.resize {
            0 => [rows, columns, channels],
            side => [side, side, channels],
        }
    }

    /// Makes an image of `from` rows, columns and channels, 1 or 3, into what is wanted.
    pub(super) fn image(self, bytes: &[u8], from: [usize; 3]) -> Vec<u8> {
        let to @ [.., channels] = self.shape(from);
        let bytes = match (from[2], channels) {
            (3, 1) => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&pixel| luminance(pixel))
                .collect(),
            (1, 3) => bytes.iter().flat_map(|&p| [p; 3]).collect(),
            _ => bytes.to_vec(),
        };
        match channels {
            _ if from[..2] == to[..2] => bytes,
            1 => resized::<Luma<u8>>(bytes, from, to),
            _ => resized::<Rgb<u8>>(bytes, from, to),
        }
    }

    /// Refuses conversions of so many images whose results do not fit into memory.
    pub(super) fn check(self, count: usize, from: [usize; 3]) -> Result<()> {
        let to = self.shape(from);
        if to == from {
            return Ok(());
        }
        check_memory(to.map(|side| side as f64).iter().product::<f64>() * count as f64)
    }

    /// Makes all images of a split into what is wanted.
    pub(super) fn split(self, split: Split, from: [usize; 3]) -> Split {
        if self.shape(from) == from {
            return split;
        }
        let bytes = self.shape(from).iter().product::<usize>();
        let mut images = Vec::with_capacity(split.len() * bytes);
        for i in 0..split.len() {
            images.extend(self.image(split.image(i), from));
        }
        Split {
            images,
            labels: split.labels,
        }
    }
}

/// Luma: brightness as the eye perceives it (ITU-R BT.601).
fn luminance([r, g, b]: [u8; 3]) -> u8 {
    let [r, g, b] = [r, g, b].map(u32::from);
    ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
}

fn resized<P: Pixel<Subpixel = u8> + 'static>(
    bytes: Vec<u8>,
    from: [usize; 3],
    to: [usize; 3],
) -> Vec<u8> {
    let [[rows, columns, _], [to_rows, to_columns, _]] = [from, to].map(|s| s.map(|n| n as u32));
    let image = ImageBuffer::<P, _>::from_raw(columns, rows, bytes);
    let image = image.expect("an image has as many bytes as its size says");
    // A triangle as wide as a new pixel: an average where images shrink, linear where they grow.
    resize(&image, to_columns, to_rows, FilterType::Triangle).into_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_become_what_is_wanted() {
        let want = |resize, channels| Want { resize, channels };
        let image = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255];
        let grey = want(0, Channels::Grey);
        assert_eq!(grey.image(&image, [2, 2, 3]), [76, 150, 29, 255]);
        let colour = want(0, Channels::Colour);
        assert_eq!(colour.image(&[7, 9], [1, 2, 1]), [7, 7, 7, 9, 9, 9]);
        let small = want(1, Channels::AsIs);
        assert_eq!(small.image(&[10; 6], [2, 3, 1]), [10]);
        assert_eq!(small.shape([2, 3, 3]), [1, 1, 3]);
        let large = want(4, Channels::Colour).image(&[0, 200], [1, 2, 1]);
        assert_eq!(large.len(), 48);
        assert!(large[..12].is_sorted(), "{large:?}");
        assert_eq!(want(2, Channels::AsIs).image(&image, [2, 2, 3]), image);
        let split = Split {
            images: vec![0, 10, 20, 30],
            labels: vec![0, 1],
        };
        let half = small.split(split, [1, 2, 1]);
        assert_eq!(half.images, [5, 25]);
    }
}
