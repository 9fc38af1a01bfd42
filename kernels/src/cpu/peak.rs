//! What the processor can do at most: fused multiply-adds in registers.

use std::hint::black_box;

/// Independent sums: enough to hide the latency of a multiply-add on all known processors.
const SUMS: usize = 12;

/// Adds to every sum `rounds` times, with the widest instructions of the device; gives the floating-point
/// operations.
pub(crate) fn multiply_add(rounds: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    let (lanes, sum) = match super::simd::level() {
        // SAFETY: the processor has what `level` says.
        super::simd::Simd::Avx512 => (16, unsafe { x86::avx512(rounds) }),
        // SAFETY: as above.
        super::simd::Simd::Avx2 => (8, unsafe { x86::avx2(rounds) }),
        super::simd::Simd::Baseline => (4, portable(rounds, |sum, x, y| sum * x + y)),
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (lanes, sum) = (4, portable(rounds, f32::mul_add));
    black_box(sum);
    rounds * (SUMS * lanes * 2) as u64
}

/// Vectors of four, which every supported processor has.
#[cfg_attr(
    target_arch = "x86_64",
    allow(clippy::suboptimal_flops, reason = "it has none")
)]
fn portable(rounds: u64, multiply_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let (x, y) = (black_box(0.999), black_box(0.001));
    let mut sums = [[y; 4]; SUMS];
    for _ in 0..rounds {
        for sum in sums.as_flattened_mut() {
            *sum = multiply_add(*sum, x, y);
        }
    }
    sums.as_flattened().iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{SUMS, black_box};
    use std::arch::x86_64::{
        _mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_cvtss_f32, _mm512_fmadd_ps,
        _mm512_set1_ps,
    };

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: u64) -> f32 {
        let (x, y) = (black_box(0.999), black_box(0.001));
        let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(y));
        let mut sums = [y; SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        sums.into_iter().map(|sum| _mm512_cvtss_f32(sum)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: u64) -> f32 {
        let (x, y) = (black_box(0.999), black_box(0.001));
        let (x, y) = (_mm256_set1_ps(x), _mm256_set1_ps(y));
        let mut sums = [y; SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
    }
}

#[cfg(test)]
mod tests {
    use crate::Cpu;

    #[test]
    fn every_thread_does_its_rounds() {
        let done = |threads, rounds| {
            let cpu = Cpu::new(Some(threads), None).expect("threads");
            cpu.multiply_add(rounds)
        };
        assert!(done(1, 1) > 0);
        assert_eq!(done(3, 5), 15 * done(1, 1));
    }
}
