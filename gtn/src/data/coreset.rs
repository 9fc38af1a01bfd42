//! Real images chosen once: as many as a run makes, balanced over the classes, in a fixed order.

use crate::data::Split;
use crate::seeds::{Draw, rng};
use rand::RngExt;
use rand::seq::SliceRandom;

/// How many images of a class are considered at most. Another image of 784 bytes costs about 0.2 µs for each
/// image that is chosen.
const CANDIDATES: usize = 10_000;

/// How images are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Uniformly, none twice.
    Random,
    /// Each as far as possible from those before it: greedy k-centre. The greatest distance from any image to
    /// its nearest chosen one is then at most twice the optimum (Gonzalez 1985; Sener and Savarese, arXiv
    /// 1708.00489). Distances are Euclidean between pixels; the first image is drawn.
    KCentre,
}

impl Choice {
    /// The numbers of `count` images, whose classes come in turn. A class with too few images begins again with its first.
    pub fn of(self, split: &Split, classes: usize, count: usize, seed: u64) -> Vec<usize> {
        let mut members = vec![Vec::new(); classes];
        for (i, &label) in split.labels.iter().enumerate() {
            members[usize::from(label)].push(i);
        }
        members.retain(|images| !images.is_empty());
        let classes = members.len();
        let chosen: Vec<Vec<usize>> = members
            .into_iter()
            .enumerate()
            .map(|(class, images)| {
                let wanted = (count - class.min(count)).div_ceil(classes);
                self.of_class(split, images, wanted, (seed, class as u64))
            })
            .collect();
        let pick = |i: usize| {
            let images = &chosen[i % classes];
            images[i / classes % images.len()]
        };
        (0..count).map(pick).collect()
    }

    /// As many of a class's images as are wanted, or all if there are fewer.
    fn of_class(
        self,
        split: &Split,
        mut images: Vec<usize>,
        wanted: usize,
        (seed, class): (u64, u64),
    ) -> Vec<usize> {
        let rng = &mut rng(seed, Draw::Choice, class, 0);
        if self == Self::Random || images.len() > CANDIDATES {
            images.shuffle(rng);
        }
        if self == Self::Random {
            images.truncate(wanted);
            return images;
        }
        images.truncate(CANDIDATES);
        let first = rng.random_range(0..images.len());
        let images: Vec<_> = images.into_iter().map(|i| (i, split.image(i))).collect();
        let wanted = wanted.min(images.len());
        k_centre(&images, first, wanted)
    }
}

/// Indices of images, each the farthest from those chosen before it; on a tie, the first.
fn k_centre(images: &[(usize, &[u8])], first: usize, wanted: usize) -> Vec<usize> {
    // For every image the squared distance to the nearest chosen one; `None` once it is chosen itself. So no
    // image is chosen twice, even when only duplicates are left.
    let mut nearest = vec![Some(u64::MAX); images.len()];
    let (mut chosen, mut next) = (Vec::new(), first);
    while chosen.len() < wanted {
        chosen.push(images[next].0);
        nearest[next] = None;
        let centre = images[next].1;
        let mut farthest = None;
        for (i, ((_, image), distance)) in images.iter().zip(&mut nearest).enumerate() {
            let Some(distance) = distance else { continue };
            *distance = (*distance).min(square_distance(image, centre));
            if farthest.is_none_or(|(most, _)| *distance > most) {
                farthest = Some((*distance, i));
            }
        }
        let Some((_, place)) = farthest else { break };
        next = place;
    }
    chosen
}

/// The squared distance of two images, exact.
fn square_distance(a: &[u8], b: &[u8]) -> u64 {
    // 65,536 squares of at most 255² fit into 32 bits.
    let part = |(a, b): (&[u8], &[u8])| -> u64 {
        let squares = a.iter().zip(b).map(|(&a, &b)| {
            let difference = i32::from(a) - i32::from(b);
            (difference * difference) as u32
        });
        u64::from(squares.sum::<u32>())
    };
    let parts = a.chunks(1 << 16).zip(b.chunks(1 << 16));
    parts.map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    /// One pixel for each image, all of one class.
    fn line(pixels: &[u8]) -> Split {
        Split {
            images: pixels.to_vec(),
            labels: vec![0; pixels.len()],
        }
    }

    #[test]
    fn the_farthest_comes_next_and_nothing_twice() {
        let split = line(&[10, 12, 250, 100, 10]);
        let images: Vec<_> = (0..5).map(|i| (i, split.image(i))).collect();
        // From 10: 250 is farthest; then 100; then 12 (2 away), and last the other 10, which is 0 away.
        assert_eq!(k_centre(&images, 0, 5), [0, 2, 3, 1, 4]);
        assert_eq!(k_centre(&images, 0, 2), [0, 2]);
        let [black, white] = [0, 255].map(|pixel| vec![pixel; 70_000]);
        assert_eq!(square_distance(&black, &white), 4_551_750_000);
    }

    #[test]
    fn the_greatest_distance_is_at_most_twice_the_least_possible() {
        let pixels: Vec<u8> = (0..14u32).map(|i| (i * i * 37 % 251) as u8).collect();
        let radius = |centres: &[usize]| -> u8 {
            let nearest = |p: &u8| centres.iter().map(|&c| p.abs_diff(pixels[c])).min();
            pixels.iter().filter_map(nearest).max().unwrap()
        };
        let mut least = u8::MAX;
        for i in 0..14 {
            for j in 0..i {
                for k in 0..j {
                    least = least.min(radius(&[i, j, k]));
                }
            }
        }
        for seed in 0..20 {
            let found = Choice::KCentre.of(&line(&pixels), 1, 3, seed);
            assert!(radius(&found) <= 2 * least, "{found:?}, {least}");
        }
    }

    #[test]
    fn classes_come_in_turn_and_the_seed_decides() {
        let data = Dataset::drawn(1, [200, 5, 5]);
        for choice in [Choice::Random, Choice::KCentre] {
            let chosen = choice.of(&data.train, 10, 64, 7);
            let classes = chosen.iter().map(|&i| usize::from(data.train.labels[i]));
            assert!(classes.eq((0..64).map(|i| i % 10)));
            let mut distinct = chosen.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), 64);
            assert_eq!(choice.of(&data.train, 10, 64, 7), chosen);
            assert_ne!(choice.of(&data.train, 10, 64, 8), chosen);
            // Fewer are the first of more, and a class that is used up begins again.
            assert_eq!(choice.of(&data.train, 10, 30, 7), chosen[..30]);
            let most = choice.of(&data.train, 10, 1000, 7);
            assert_eq!(most.len(), 1000);
        }
        let few = Choice::KCentre.of(&line(&[1, 2]), 1, 5, 0);
        assert_eq!(few[2..], [few[0], few[1], few[0]]);
    }
}
