//! Moving numbers between memory of any element type and registers of the working type.

use super::access::Runs;
use super::ops::Arg;
use crate::bound::Raw;
use crate::cpu::math::Real;
use crate::cpu::simd::multiversion;
use half::{bf16, f16};
use tensor::DType;

/// An element in memory. Numbers out of range saturate, and NaN becomes 0, in integers.
pub(super) trait Element: bytemuck::Pod {
    fn load<T: Real>(self) -> T;
    fn store<T: Real>(value: T) -> Self;
}

macro_rules! element {
    ($t:ty, $load:expr, $store:expr) => {
        impl Element for $t {
            #[inline(always)]
            fn load<T: Real>(self) -> T {
                T::from_f64($load(self))
            }
            #[inline(always)]
            fn store<T: Real>(value: T) -> Self {
                $store(value)
            }
        }
    };
}

element!(f32, f64::from, |x: T| x.to_f64() as f32);
element!(f64, |x| x, Real::to_f64);
element!(
    bf16,
    |x: bf16| f64::from(x.to_f32()),
    |x: T| bf16::from_f32(x.to_f32_odd())
);
element!(f16, |x: f16| f64::from(x.to_f32()), |x: T| f16::from_f32(
    x.to_f32_odd()
));
element!(u8, f64::from, |x: T| x.to_f64() as u8);
element!(i32, f64::from, |x: T| x.to_f64() as i32);
element!(u32, f64::from, |x: T| x.to_f64() as u32);

/// An expression in which `S` is the Rust type of a [`DType`].
macro_rules! element_type {
    ($dtype:expr, $S:ident => $call:expr) => {
        match $dtype {
            DType::F32 => {
                type $S = f32;
                $call
            }
            DType::F64 => {
                type $S = f64;
                $call
            }
            DType::BF16 => {
                type $S = bf16;
                $call
            }
            DType::F16 => {
                type $S = f16;
                $call
            }
            DType::U8 => {
                type $S = u8;
                $call
            }
            DType::I32 => {
                type $S = i32;
                $call
            }
            DType::U32 => {
                type $S = u32;
                $call
            }
        }
    };
}

/// Fills a register with the elements that the runs reach.
///
/// # Safety
/// They lie in `input`, are of type `dtype`, and nobody writes to them.
pub(super) unsafe fn read<T: Real>(dtype: DType, input: Raw, runs: Runs<'_>, out: &mut [T]) {
    element_type!(dtype, S => read_runs::<S, T>(input, runs, out));
}

multiversion! {
    /// [`read`] for one element type. Only `read` calls it, whose caller vouches for the memory.
    fn read_runs<S: Element, T: Real>(input: Raw, runs: Runs<'_>, out: &mut [T]) {
        let input = input.element::<S>(0).cast_const();
        let mut rest = out;
        for run in runs {
            let (here, after) = rest.split_at_mut(run.length);
            rest = after;
            let input = input.wrapping_add(run.offset);
            match run.stride {
                // SAFETY: see `read`.
                0 => here.fill(unsafe { input.read() }.load()),
                // SAFETY: see `read`.
                1 => load_all(unsafe { std::slice::from_raw_parts(input, run.length) }, here),
                stride => {
                    for (i, value) in here.iter_mut().enumerate() {
                        // SAFETY: see `read`.
                        *value = unsafe { input.add(i * stride).read() }.load();
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn load_all<S: Element, T: Real>(from: &[S], to: &mut [T]) {
    // Rows are often short: whole vectors first, without the overhead of a general copy.
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
    for (to, from) in to.iter_mut().zip(from) {
        for lane in 0..16 {
            to[lane] = from[lane].load();
        }
    }
    for (to, &from) in to_rest.iter_mut().zip(from_rest) {
        *to = from.load();
    }
}

/// Fills a register with the offsets of runs: the index along an axis.
pub(super) fn count<T: Real>(runs: Runs<'_>, out: &mut [T]) {
    let mut rest = out;
    for run in runs {
        let (here, after) = rest.split_at_mut(run.length);
        rest = after;
        for (i, value) in here.iter_mut().enumerate() {
            *value = T::from_f64((run.offset + i * run.stride) as f64);
        }
    }
}

/// Writes `count` elements from element `at` on.
///
/// # Safety
/// They lie in `output`, are of type `dtype`, and are this thread's alone.
pub(super) unsafe fn write<T: Real>(
    dtype: DType,
    output: Raw,
    at: usize,
    count: usize,
    values: Arg<'_, T>,
) {
    debug_assert!(
        (at + count) * dtype.size() <= output.bytes,
        "outside of the array"
    );
    element_type!(dtype, S => {
        let output = output.element::<S>(at);
        // SAFETY: the caller's promise.
        store_all(values, unsafe { std::slice::from_raw_parts_mut(output, count) });
    });
}

multiversion! {
    fn store_all<S: Element, T: Real>(from: Arg<'_, T>, to: &mut [S]) {
        match from {
            Arg::Scalar(x) => to.fill(S::store(x)),
            Arg::Block(from) => {
                for (to, &from) in to.iter_mut().zip(from) {
                    *to = S::store(from);
                }
            }
        }
    }
}
