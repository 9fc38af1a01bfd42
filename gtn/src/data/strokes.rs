//! A data set that needs no files: digits drawn from strokes, in the manner of handwriting.
//!
//! Every digit has a few prototypes, each a handful of strokes through control points. A drawn
//! digit is one of them with its control points disturbed, bent, slanted, scaled, turned, shifted,
//! and drawn with a pen of random width and pressure on a slightly noisy ground.
//!
//! The images are the same bits on every machine: the random numbers are `ChaCha8`'s, turned into
//! floats here, and the arithmetic is +, -, *, / and square root, which IEEE 754 rounds correctly.
//! No sine, no exponential: those differ between the mathematics libraries of systems.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use super::Split;

/// Rows, and columns, of an image.
const SIDE: usize = 28;
const PIXELS: usize = SIDE * SIDE;
const CLASSES: usize = 10;

/// A control point: x from left to right, y from top to bottom, a digit being 100 high.
type Point = (i8, i8);
/// A curve through its points; a point given twice is a corner.
type Stroke = &'static [Point];
/// The strokes of one way to write a digit.
type Glyph = &'static [Stroke];

/// How each digit is written: by different hands, equally often.
#[rustfmt::skip]
const GLYPHS: [&[Glyph]; CLASSES] = [
    // 0
    &[
        &[&[(30, 0), (8, 18), (0, 52), (10, 88), (32, 100), (54, 84), (60, 50), (52, 16), (30, 0)]],
        &[&[(36, 4), (14, 18), (2, 50), (8, 86), (28, 100), (50, 84), (58, 46), (48, 10), (24, 8)]],
        &[&[(44, 8), (20, 2), (-2, 26), (-2, 72), (26, 98), (60, 80), (66, 34), (46, 4), (28, 6)]],
    ],
    // 1
    &[
        &[&[(30, 0), (30, 50), (30, 100)]],
        &[&[(14, 22), (34, 0), (34, 0), (33, 50), (32, 100)]],
        &[&[(12, 20), (32, 0), (32, 0), (32, 50), (32, 100)], &[(8, 100), (32, 99), (56, 100)]],
    ],
    // 2
    &[
        &[&[(4, 22), (16, 4), (38, 0), (56, 18), (48, 46), (22, 76), (0, 100), (0, 100), (30, 98),
          (62, 96)]],
        &[&[(4, 20), (26, 0), (52, 14), (50, 48), (26, 84), (4, 96), (2, 82), (20, 78), (38, 94),
          (64, 96)]],
        &[&[(4, 10), (30, 2), (52, 12), (46, 40), (4, 98), (4, 98), (32, 98), (60, 98)]],
    ],
    // 3
    &[
        &[&[(4, 12), (28, 0), (52, 14), (46, 38), (22, 48), (22, 48), (50, 56), (58, 78), (36, 98),
          (2, 90)]],
        &[&[(4, 2), (30, 2), (54, 2), (54, 2), (24, 40), (24, 40), (52, 54), (56, 82), (30, 100),
          (0, 88)]],
        &[&[(6, 16), (32, 0), (50, 18), (38, 42), (20, 50), (18, 42), (38, 46), (56, 68), (46, 94),
          (20, 100), (0, 86)]],
    ],
    // 4
    &[
        &[&[(12, 0), (2, 52), (2, 52), (30, 52), (60, 50)], &[(48, 6), (46, 50), (44, 100)]],
        &[&[(44, 0), (20, 34), (0, 64), (0, 64), (32, 63), (64, 62)],
          &[(44, 0), (43, 50), (42, 100)]],
        &[&[(8, 4), (4, 40), (24, 52), (48, 40), (54, 4), (54, 4), (50, 50), (44, 100)]],
    ],
    // 5
    &[
        &[&[(52, 2), (32, 2), (14, 2), (14, 2), (8, 42), (8, 42), (34, 36), (56, 56), (50, 86),
          (24, 100), (0, 90)]],
        &[&[(14, 4), (10, 44), (38, 42), (54, 64), (42, 94), (4, 96)],
          &[(14, 4), (36, 2), (60, 0)]],
        &[&[(54, 4), (24, 4), (10, 22), (22, 44), (46, 58), (50, 82), (28, 100), (0, 90)]],
    ],
    // 6
    &[
        &[&[(44, 0), (18, 24), (4, 62), (14, 94), (40, 98), (54, 76), (42, 56), (18, 62), (6, 80)]],
        &[&[(30, 0), (8, 50), (6, 84), (26, 100), (50, 88), (50, 64), (28, 54), (8, 72)]],
        &[&[(58, 6), (26, 16), (4, 50), (8, 90), (38, 100), (60, 78), (44, 54), (10, 68)]],
    ],
    // 7
    &[
        &[&[(0, 4), (28, 3), (56, 2), (56, 2), (36, 46), (22, 100)]],
        &[&[(0, 4), (28, 3), (56, 2), (56, 2), (36, 46), (22, 100)],
          &[(16, 50), (36, 48), (56, 46)]],
        &[&[(0, 20), (2, 4), (2, 4), (30, 3), (58, 2), (58, 2), (40, 40), (34, 100)]],
    ],
    // 8
    &[
        &[&[(50, 14), (28, 0), (6, 18), (22, 42), (48, 62), (52, 88), (26, 100), (4, 84), (14, 58),
          (40, 40), (52, 16)]],
        &[&[(28, 0), (8, 20), (28, 46), (50, 22), (28, 0)],
          &[(28, 46), (2, 72), (28, 100), (56, 74), (28, 46)]],
        &[&[(56, 4), (24, 2), (10, 22), (34, 46), (50, 76), (30, 98), (8, 84), (18, 60), (46, 34),
          (58, 12)]],
    ],
    // 9
    &[
        &[&[(52, 20), (28, 0), (4, 22), (18, 48), (46, 38), (52, 14), (52, 14), (50, 60),
          (40, 100)]],
        &[&[(50, 22), (30, 2), (6, 20), (12, 46), (36, 44), (50, 18), (50, 18), (50, 60),
          (50, 100)]],
        &[&[(54, 24), (30, 0), (4, 24), (20, 50), (50, 34), (54, 20), (54, 20), (52, 70), (30, 100),
          (4, 90)]],
    ],
];

/// Line segments that a curve is drawn with, between two control points.
const SEGMENTS: usize = 5;

/// Draws `count` labelled digits, the classes in turn.
///
/// Each pair of `seed` and `stream` is a sequence of its own; a longer one begins with a shorter.
///
/// ```
/// let split = gtn::data::strokes::draw(7, 0, 20);
/// assert_eq!((split.len(), split.labels[13]), (20, 3));
/// ```
pub fn draw(seed: u64, stream: u64, count: usize) -> Split {
    let mut random = Random::new(seed, stream);
    let mut split = Split::default();
    split.images.reserve_exact(count * PIXELS);
    for i in 0..count {
        let class = i % CLASSES;
        split.images.extend(digit(class, &mut random));
        split.labels.push(class as u16);
    }
    split
}

/// Random numbers that every machine agrees on.
struct Random(ChaCha8Rng);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(stream);
        Random(generator)
    }

    /// Uniform from `low` up to `high`.
    fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32;
        low + unit * (high - low)
    }

    /// Nearly normal around 0 with the given standard deviation, never beyond three of it.
    fn around_zero(&mut self, deviation: f32) -> f32 {
        // Three uniforms of -1 to 1 have variance 1.
        let sum: f32 = (0..3).map(|_| self.between(-1.0, 1.0)).sum();
        sum * deviation
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.between(0.0, from.len() as f32) as usize % from.len()]
    }
}

/// One way of holding pen and paper: from a glyph's coordinates to pixels.
struct Hand {
    bend: [f32; 2],
    slant: f32,
    scale: [f32; 2],
    rotation: [f32; 2],
    centre: [f32; 2],
}

impl Hand {
    fn new(random: &mut Random) -> Self {
        let size = 20.0 * random.between(0.8, 1.05);
        // tan(angle / 2) gives an exact rotation without sine and cosine.
        let t = random.around_zero(0.06);
        let norm = 1.0 + t * t;
        Hand {
            bend: [random.around_zero(0.18), random.around_zero(0.12)],
            slant: random.around_zero(0.2),
            scale: [size * random.between(0.7, 1.15), size],
            rotation: [(1.0 - t * t) / norm, 2.0 * t / norm],
            centre: [0, 1].map(|_| SIDE as f32 / 2.0 + random.around_zero(0.85)),
        }
    }

    fn place(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let bent = [
            x + self.bend[0] * y * y - self.slant * y,
            y + self.bend[1] * x * x,
        ];
        let [x, y] = [bent[0] * self.scale[0], bent[1] * self.scale[1]];
        let [cos, sin] = self.rotation;
        [
            self.centre[0] + cos * x - sin * y,
            self.centre[1] + sin * x + cos * y,
        ]
    }
}

/// A drawing in progress: how much ink each pixel has, from 0 to 1.
struct Canvas([f32; PIXELS]);

impl Canvas {
    /// A straight line with round ends, anti-aliased by each pixel's distance from it.
    fn line(&mut self, from: [f32; 2], to: [f32; 2], radius: f32) {
        let reach = radius + 0.5;
        let range = |axis: usize| {
            // A pixel's middle is half a pixel from its index.
            let low = from[axis].min(to[axis]) - reach - 0.5;
            let high = from[axis].max(to[axis]) + reach + 0.5;
            // A cast from float stops at 0.
            low.ceil() as usize..(high.floor() as usize).min(SIDE)
        };
        let along = [to[0] - from[0], to[1] - from[1]];
        let length2 = (along[0] * along[0] + along[1] * along[1]).max(1e-9);
        for y in range(1) {
            for x in range(0) {
                let [px, py] = [x as f32 + 0.5 - from[0], y as f32 + 0.5 - from[1]];
                let nearest = ((px * along[0] + py * along[1]) / length2).clamp(0.0, 1.0);
                let [dx, dy] = [px - nearest * along[0], py - nearest * along[1]];
                let ink = (reach - (dx * dx + dy * dy).sqrt()).clamp(0.0, 1.0);
                let pixel = &mut self.0[y * SIDE + x];
                *pixel = pixel.max(ink);
            }
        }
    }

    /// A smooth curve through all `points`, the pen's radius going from the first to the second of `radii`.
    fn curve(&mut self, points: &[[f32; 2]], radii: [f32; 2]) {
        let last = points.len() - 1;
        let mut from = points[0];
        for i in 0..last {
            let around = [i.saturating_sub(1), i, i + 1, (i + 2).min(last)].map(|k| points[k]);
            for step in 1..=SEGMENTS {
                let t = step as f32 / SEGMENTS as f32;
                let to = catmull_rom(&around, t);
                let way = (i as f32 + t) / last as f32;
                self.line(from, to, radii[0] + way * (radii[1] - radii[0]));
                from = to;
            }
        }
    }
}

/// The point at `t` (0 to 1) on the way from the second to the third point of a Catmull-Rom spline.
fn catmull_rom(points: &[[f32; 2]; 4], t: f32) -> [f32; 2] {
    [0, 1].map(|axis| {
        let [a, b, c, d] = points.map(|p| p[axis]);
        let linear = c - a;
        let square = 2.0 * a - 5.0 * b + 4.0 * c - d;
        let cube = 3.0 * b - a - 3.0 * c + d;
        b + 0.5 * t * (linear + t * (square + t * cube))
    })
}

/// One drawn digit.
fn digit(class: usize, random: &mut Random) -> [u8; PIXELS] {
    let glyph = random.choose(GLYPHS[class]);
    let hand = Hand::new(random);
    let unsteady = random.between(0.02, 0.06);
    let radius = random.between(0.7, 1.7);
    let mut canvas = Canvas([0.0; PIXELS]);
    for stroke in glyph {
        let radii = [0, 1].map(|_| radius * random.between(0.8, 1.2));
        canvas.curve(&disturbed(stroke, unsteady, &hand, random), radii);
    }
    let contrast = random.between(170.0, 255.0);
    let noise = random.between(2.0, 16.0);
    canvas.0.map(|ink| {
        // Four bytes in one draw: their sum has mean 510 and standard deviation 147.8.
        let sum: u16 = random
            .0
            .next_u32()
            .to_le_bytes()
            .into_iter()
            .map(u16::from)
            .sum();
        let grain = (f32::from(sum) - 510.0) * (noise / 147.8);
        // A cast from float stops at 0 and 255.
        (ink * contrast + grain) as u8
    })
}

/// A stroke's points as a hand puts them on the paper.
fn disturbed(stroke: Stroke, unsteady: f32, hand: &Hand, random: &mut Random) -> Vec<[f32; 2]> {
    let mut points: Vec<[f32; 2]> = Vec::with_capacity(stroke.len());
    for (i, &(x, y)) in stroke.iter().enumerate() {
        // The two points of a corner stay together.
        let point = if i > 0 && stroke[i - 1] == (x, y) {
            points[i - 1]
        } else {
            let middle = [f32::from(x) - 30.0, f32::from(y) - 50.0];
            hand.place(middle.map(|v| v / 100.0 + random.around_zero(unsteady)))
        };
        points.push(point);
    }
    points
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bits_everywhere() {
        // A changed hash is a changed data set: results with it no longer compare.
        let split = draw(1, 2, 5000);
        let hash = Sha256::digest(&split.images);
        assert_eq!(hash[..8], [0x36, 0xbb, 0x66, 0xdb, 0x90, 0x69, 0x70, 0x7e]);
    }

    #[test]
    fn a_longer_sequence_begins_with_a_shorter() {
        let (long, short) = (draw(3, 0, 50), draw(3, 0, 20));
        assert_eq!(long.images[..20 * PIXELS], short.images);
        assert_eq!(short.labels, (0..20).map(|i| i % 10).collect::<Vec<u16>>());
    }

    #[test]
    fn seeds_and_streams_give_other_images() {
        let first = draw(3, 0, 10);
        for other in [draw(4, 0, 10), draw(3, 1, 10)] {
            assert!((0..10).all(|i| first.image(i) != other.image(i)));
        }
    }

    #[test]
    fn digits_are_ink_on_a_dark_ground_inside_the_paper() {
        let split = draw(5, 0, 500);
        for i in 0..split.len() {
            let image = split.image(i);
            let inked = image.iter().filter(|&&p| p > 100).count();
            assert!(
                (15..300).contains(&inked),
                "digit {i} has {inked} inked pixels"
            );
        }
        // Shifts and slants seldom push ink to the paper's edge.
        let edge = (0..split.len()).filter(|&i| split.image(i)[..SIDE].iter().any(|&p| p > 100));
        assert!(edge.count() < 25);
    }
}
