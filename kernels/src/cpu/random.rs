//! Counter-based random numbers.

use super::math::Real;
use super::parallel;
use crate::program::Arrays;
use crate::{Distribution, Random};

/// Philox 4x32-10 of J. Salmon, M. Moraes, R. Dror, D. Shaw, «Parallel random numbers: as easy as 1, 2, 3»,
/// SC 2011.
#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b] = [
            u64::from(counter[0]) * 0xD251_1F53,
            u64::from(counter[2]) * 0xCD9E_8D57,
        ];
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

/// Numbers that one call of Philox gives: 32 random bits for an f32, 64 for an f64.
const fn per_call<T>() -> usize {
    16 / size_of::<T>()
}

pub(crate) fn random<T: Real>(random: &Random, arrays: &Arrays<'_>) {
    // SAFETY: `Program` checked the arrays: they lie apart, and nobody else uses them now.
    let (key, output) = unsafe {
        (
            arrays.input(0).slice::<u32>(),
            arrays.output(0).slice_mut::<T>(),
        )
    };
    let draw = |call: usize| {
        let bits = philox([call as u32, random.op, key[2], key[3]], [key[0], key[1]]);
        match random.distribution {
            Distribution::Uniform => T::uniform(bits),
            Distribution::Normal => T::normal(bits),
        }
    };
    let whole = output.len() - output.len() % per_call::<T>();
    let (head, tail) = output.split_at_mut(whole);
    parallel::rows(head, per_call::<T>(), 64, |call, out| {
        out.copy_from_slice(draw(call).as_ref())
    });
    let count = tail.len();
    tail.copy_from_slice(&draw(whole / per_call::<T>()).as_ref()[..count]);
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
