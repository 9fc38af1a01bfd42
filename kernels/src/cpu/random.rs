//! Counter-based random numbers.
#![expect(
    clippy::needless_range_loop,
    reason = "one lane of several arrays is the unit of thought"
)]

use super::math::{Real, cos_sin_turns, log};
use super::parallel;
use super::simd::multiversion;
use crate::bound::Arrays;
use crate::{Distribution, Random};

/// Calls of Philox that are made side by side.
const LANES: usize = 64;

/// Philox 4x32-10 of J. Salmon, M. Moraes, R. Dror, D. Shaw, «Parallel random numbers: as easy as 1, 2, 3»,
/// SC 2011.
#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        let high = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            (a >> 32) as u32 ^ counter[3] ^ key[1],
        ];
        counter = [high[0], b as u32, high[1], a as u32];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

pub(crate) fn random<T: Real>(random: &Random, arrays: &Arrays<'_>) {
    // SAFETY: `Program` checked the arrays: they lie apart, and nobody else uses them now.
    let (key, output) = unsafe {
        (
            arrays.input(0).slice::<u32>(),
            arrays.output(0).slice_mut::<T>(),
        )
    };
    let key = [key[0], key[1], key[2], key[3]];
    let width = LANES * 4 / T::WORDS;
    parallel::chunks(output, width, 10 * width, |i, out| {
        draw(random, key, (i * LANES) as u32, out);
    });
}

multiversion! {
    /// The numbers of [`LANES`] calls, as far as there is room for them.
    fn draw<T: Real>(random: &Random, key: [u32; 4], first: u32, out: &mut [T]) {
        let mut bits = [[0; LANES]; 4];
        for lane in 0..LANES {
            let call = first.wrapping_add(lane as u32);
            let words = philox([call, random.op, key[2], key[3]], [key[0], key[1]]);
            for i in 0..4 {
                bits[i][lane] = words[i];
            }
        }
        let mut numbers = [[T::ZERO; LANES]; 4];
        let count = 4 / T::WORDS;
        let words = |i: usize, lane: usize| [bits[i * T::WORDS][lane], bits[i * T::WORDS + T::WORDS - 1][lane]];
        match random.distribution {
            Distribution::Uniform => {
                for i in 0..count {
                    for lane in 0..LANES {
                        numbers[i][lane] = T::uniform(words(i, lane));
                    }
                }
            }
            Distribution::Normal => {
                for i in (0..count).step_by(2) {
                    for lane in 0..LANES {
                        let radius = (-(T::TWO * log(T::positive(words(i, lane))))).sqrt();
                        let (cos, sin) = cos_sin_turns(T::uniform(words(i + 1, lane)));
                        numbers[i][lane] = radius * cos;
                        numbers[i + 1][lane] = radius * sin;
                    }
                }
            }
        }
        for (lane, out) in out.chunks_mut(count).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                *out = numbers[i][lane];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::philox;

    /// The known-answer vectors of the Random123 distribution.
    #[test]
    fn known_answers() {
        let cases = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }
}
