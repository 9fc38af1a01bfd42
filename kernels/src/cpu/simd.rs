//! Choosing vector instructions at run time.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
#[cfg(target_arch = "x86_64")]
use std::sync::atomic::{AtomicU8, Ordering};

/// Vector instruction sets that loops are compiled for, from the least to the best.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    /// Not looked at yet.
    Unknown,
    /// What every processor of the architecture has.
    Baseline,
    /// 256 bits, and fused multiply-adds.
    Avx2,
    /// 512 bits.
    Avx512,
}

/// The best that this processor has.
#[cfg(target_arch = "x86_64")]
pub(crate) fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        3 => Level::Avx512,
        2 => Level::Avx2,
        1 => Level::Baseline,
        _ => detect(),
    }
}

#[cfg(target_arch = "x86_64")]
static LEVEL: AtomicU8 = AtomicU8::new(Level::Unknown as u8);

#[cfg(target_arch = "x86_64")]
#[cold]
fn detect() -> Level {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let level = match (avx512, avx2) {
        (true, true) => Level::Avx512,
        (false, true) => Level::Avx2,
        (_, false) => Level::Baseline,
    };
    #[cfg(test)]
    let level = level.min(super::levels::limit());
    LEVEL.store(level as u8, Ordering::Relaxed);
    level
}

/// Whether code may be compiled for AVX-512 as the program runs.
pub(crate) fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return level() == Level::Avx512;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Asks for memory that is read soon. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_read(start: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(64) {
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) }
    }
}

/// Asks for memory that is written to soon. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_write(start: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(64) {
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(start.wrapping_add(at).cast()) }
    }
}

/// A function whose loops are compiled once per [`Level`]; the best is called. What it calls in those loops
/// must be `#[inline(always)]`, or it would stay at the baseline. Numbers that it is generic in follow the types,
/// after a semicolon.
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
                    // SAFETY: the processor was found to have these instructions.
                    $crate::cpu::simd::Level::Avx512 => return unsafe { avx512::<$($T,)+ $($($N),+)?>($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Level::Avx2 => return unsafe { avx2::<$($T,)+ $($($N),+)?>($($arg),*) },
                    _ => {}
                }
            }
            body::<$($T,)+ $($($N),+)?>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// A block for every stretch of channels that fills a vector of 512 or 256 bits, and then for single channels. It sees
/// the first as `$first`, and the constant `$W` of them. Loops over so many become single instructions, where those
/// over any number are unrolled to be faster for more channels than there mostly are.
macro_rules! strips {
    ($T:ty, $channels:expr, $first:ident, $W:ident => $body:block) => {{
        let channels = $channels;
        let mut $first = 0;
        while size_of::<$T>() == 4 && $first + 16 <= channels {
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
