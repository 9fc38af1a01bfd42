//! Changes of real images at random, so that learners do not see the same ones again and again.

use crate::run::values::fraction;
use clap::builder::{RangedU64ValueParser, TypedValueParser};
use rand::{Rng, RngExt};
use serde::Serialize;

/// How real images are changed, in the outer loss and where they teach.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::Args, Serialize)]
#[command(next_help_heading = "Data")]
pub struct Augment {
    /// Shift real images by up to N pixels down or up and right or left; what comes in is black
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = pixels())]
    pub crop: usize,
    /// Mirror real images, left and right, with this probability
    #[arg(long, value_name = "X", default_value = "0", value_parser = fraction)]
    pub flip: f64,
    /// Cut a square of N×N pixels, as far as it is inside, out of real images: they are the mean there
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = pixels())]
    pub cutout: usize,
}

fn pixels() -> impl TypedValueParser<Value = usize> {
    let range = RangedU64ValueParser::<u64>::new().range(0..=1024);
    range.map(|pixels| pixels as usize)
}

impl Augment {
    /// Changes normalised images of `shape` (rows, columns, channels); `black` is a black pixel after
    /// normalisation. Every image draws its shift, flip and cut in the same order, even those that the
    /// settings switch off.
    pub fn apply(
        self,
        images: &mut [f32],
        shape: [usize; 3],
        black: &[f32],
        random: &mut impl Rng,
    ) {
        if self == Self::default() {
            return;
        }
        let mut before = vec![0.0; shape.iter().product()];
        for image in images.chunks_exact_mut(before.len()) {
            before.copy_from_slice(image);
            self.one(&before, image, shape, black, random);
        }
    }

    fn one(
        self,
        from: &[f32],
        to: &mut [f32],
        [rows, columns, channels]: [usize; 3],
        black: &[f32],
        random: &mut impl Rng,
    ) {
        let [down, right] = [0; 2].map(|_: usize| random.random_range(0..=2 * self.crop));
        let mirrored = random.random_bool(self.flip);
        let centre = [rows, columns].map(|extent| random.random_range(0..extent));
        let is_cut = |place: usize, centre: usize| {
            let half = self.cutout / 2;
            (centre.saturating_sub(half)..centre + self.cutout - half).contains(&place)
        };
        for (place, pixel) in to.chunks_exact_mut(channels).enumerate() {
            let (y, x) = (place / columns, place % columns);
            if is_cut(y, centre[0]) && is_cut(x, centre[1]) {
                pixel.fill(0.0);
                continue;
            }
            let x = if mirrored { columns - 1 - x } else { x };
            // In the image with a border of `crop` black pixels.
            let [y, x] = [y + down, x + right].map(|place| place.checked_sub(self.crop));
            match (y, x) {
                (Some(y), Some(x)) if y < rows && x < columns => {
                    pixel.copy_from_slice(&from[(y * columns + x) * channels..][..channels]);
                }
                _ => pixel.copy_from_slice(black),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::{Draw, rng};
    use std::collections::BTreeSet;

    const SHAPE: [usize; 3] = [2, 3, 2];

    /// All results of an image whose pixels are 1 to 6 and, in the other channel, -1 to -6; black is (9, -9).
    fn results(augment: Augment) -> BTreeSet<Vec<i32>> {
        let image: Vec<f32> = (1..=6).flat_map(|p| [p as f32, -p as f32]).collect();
        let mut images = image.repeat(500);
        let random = &mut rng(1, Draw::Augment, 0, 0);
        augment.apply(&mut images, SHAPE, &[9.0, -9.0], random);
        let first = |image: &[f32]| {
            let pixels = image.as_chunks::<2>().0;
            assert!(pixels.iter().all(|[a, b]| *a == -b));
            pixels.iter().map(|[a, _]| *a as i32).collect()
        };
        images.chunks_exact(12).map(first).collect()
    }

    #[test]
    fn images_are_shifted_mirrored_and_cut() {
        let off = Augment::default();
        assert_eq!(results(off), [vec![1, 2, 3, 4, 5, 6]].into());
        let flip = Augment { flip: 0.5, ..off };
        let both = [vec![1, 2, 3, 4, 5, 6], vec![3, 2, 1, 6, 5, 4]];
        assert_eq!(results(flip), both.into());
        let shifted = results(Augment { crop: 1, ..off });
        assert_eq!(shifted.len(), 9);
        assert!(shifted.contains(&vec![9, 9, 9, 9, 1, 2]));
        assert!(shifted.contains(&vec![5, 6, 9, 9, 9, 9]));
        let cut = results(Augment { cutout: 1, ..off });
        let without = |p: i32| (1..=6).map(|q| if p == q { 0 } else { q }).collect();
        assert_eq!(cut, (1..=6).map(without).collect());
        // A square of two by two around a corner is half outside.
        let cut = results(Augment { cutout: 2, ..off });
        assert!(cut.contains(&vec![0, 2, 3, 4, 5, 6]) && cut.contains(&vec![1, 0, 0, 4, 0, 0]));
    }
}
