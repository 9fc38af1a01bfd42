//! Choosing vector instructions at run time.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
use std::cell::Cell;
use strum::Display;

/// Levels of vector instructions that loops are compiled for, from the least to the best.
///
/// Element-wise values, their sums, moves and picks have the same bits at every level. Products and
/// convolutions have the same bits at all levels that fuse a multiplication with an addition.
/// [`Simd::Baseline`] of x86-64 does not: it rounds each product before it adds it, in the same order.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[strum(serialize_all = "lowercase")]
pub enum Simd {
    /// Those of all processors of the architecture: SSE2 or NEON, 128 bits.
    Baseline,
    /// 256 bits, and fused multiply-adds: AVX2 and FMA.
    Avx2,
    /// 512 bits: AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Simd {
    /// All levels, from the least.
    pub const ALL: [Self; 3] = [Self::Baseline, Self::Avx2, Self::Avx512];

    /// Finds the best level of this processor.
    pub fn detected() -> Self {
        #[cfg(not(target_arch = "x86_64"))]
        let level = Self::Baseline;
        #[cfg(target_arch = "x86_64")]
        let level = {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512) {
                (true, true) => Self::Avx512,
                (true, false) => Self::Avx2,
                (false, _) => Self::Baseline,
            }
        };
        #[cfg(all(test, target_arch = "x86_64"))]
        let level = level.min(limit());
        level
    }
}

/// Environment variable with which a test limits the level that a process detects: an index into
/// [`Simd::ALL`].
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) const LIMIT: &str = "KERNELS_TEST_LIMIT";

/// The level that [`LIMIT`] names; the best if it is not set.
#[cfg(all(test, target_arch = "x86_64"))]
fn limit() -> Simd {
    let Ok(limit) = std::env::var(LIMIT) else {
        return Simd::Avx512;
    };
    Simd::ALL[limit.parse::<usize>().expect("an index, by our own tests")]
}

thread_local! {
    /// The level of the device that this thread works for.
    static LEVEL: Cell<Option<Simd>> = const { Cell::new(None) };
}

/// Sets the level of the device that this thread works for.
///
/// # Panics
/// If the processor has less: it would meet instructions that it does not know.
pub(crate) fn hold(level: Simd) {
    assert!(level <= Simd::detected(), "checked by `Cpu::new`");
    LEVEL.set(Some(level));
}

/// The level of this thread's device, which the processor has; the best there is on threads of no device.
#[cfg(target_arch = "x86_64")]
pub(crate) fn level() -> Simd {
    LEVEL.get().unwrap_or_else(Simd::detected)
}

/// Bits of a vector in loops for this thread's device: 512 with AVX-512, else 256. At the baseline two
/// registers make such a vector.
pub(crate) fn register_bits() -> usize {
    #[cfg(target_arch = "x86_64")]
    if level() == Simd::Avx512 {
        return 512;
    }
    256
}

/// Prefetches memory that is read soon. The address need not be valid.
#[inline(always)]
pub(crate) fn prefetch_read(start: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(64) {
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) }
    }
}

/// Prefetches memory that is written to soon. The address need not be valid.
#[inline(always)]
pub(crate) fn prefetch_write(start: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(64) {
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(start.wrapping_add(at).cast()) }
    }
}

/// A function whose loops are compiled once for each [`Simd`]. A call runs the version for [`level`]. What it
/// calls in those loops must be `#[inline(always)]`, or it would be compiled for the baseline. Constants that
/// it is generic in follow the types, after a semicolon.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$($T:ident: $Bound:path),+ $(; $($N:ident),+)?>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<$($T: $Bound,)+ $($(const $N: usize),+)?>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<$($T: $Bound,)+ $($(const $N: usize),+)?>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512<$($T: $Bound,)+ $($(const $N: usize),+)?>($($arg: $ty),*) $(-> $ret)? {
                    body::<$($T,)+ $($($N),+)?>($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2<$($T: $Bound,)+ $($(const $N: usize),+)?>($($arg: $ty),*) $(-> $ret)? {
                    body::<$($T,)+ $($($N),+)?>($($arg),*)
                }
                match $crate::cpu::simd::level() {
                    // SAFETY: the processor has what `level` says.
                    $crate::cpu::simd::Simd::Avx512 => return unsafe { avx512::<$($T,)+ $($($N),+)?>($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Simd::Avx2 => return unsafe { avx2::<$($T,)+ $($($N),+)?>($($arg),*) },
                    $crate::cpu::simd::Simd::Baseline => {}
                }
            }
            body::<$($T,)+ $($($N),+)?>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Runs a block for one strip of channels after another: of 16 channels where vectors have 512 bits (which is
/// assumed if `$bits` is not given) and elements have 4 bytes, then of 8, then of single channels. The block
/// sees the first channel as `$first`, and the number of channels as the constant `$W`. Loops over a constant
/// number become single instructions. Others would be unrolled for more channels than there mostly are.
macro_rules! strips {
    ($T:ty, $channels:expr, $first:ident, $W:ident => $body:block) => {
        strips!($T, 512, $channels, $first, $W => $body)
    };
    ($T:ty, $bits:expr, $channels:expr, $first:ident, $W:ident => $body:block) => {{
        let (bits, channels) = ($bits, $channels);
        let mut $first = 0;
        while bits == 512 && size_of::<$T>() == 4 && $first + 16 <= channels {
            const $W: usize = 16;
            $body
            $first += 16;
        }
        while $first + 8 <= channels {
            const $W: usize = 8;
            $body
            $first += 8;
        }
        while $first < channels {
            const $W: usize = 1;
            $body
            $first += 1;
        }
    }};
}
pub(crate) use strips;

#[cfg(test)]
mod tests {
    use crate::{Cpu, Simd};

    /// Levels are lacking when this test runs again at a lower level, in a process that detects no more.
    #[test]
    fn levels_that_the_processor_lacks_are_refused() {
        for level in Simd::ALL {
            match Cpu::new(Some(1), Some(level)) {
                Ok(cpu) => assert!(cpu.simd() == level && level <= Simd::detected()),
                Err(error) => {
                    assert!(level > Simd::detected());
                    let text = error.to_string();
                    assert!(
                        text.starts_with(&format!("this processor has no {level}: ")),
                        "{text}"
                    );
                }
            }
        }
    }
}
