//! The processor: every kernel, on all cores.

pub(crate) mod conv;
mod gemm;
pub(crate) mod map;
mod math;
mod microkernel;
mod panels;
mod parallel;
mod random;
pub(crate) mod scratch;
mod shapes;
mod simd;
mod window;

use crate::program::Arrays;
use crate::{Float, Kernel};
use shapes::PadPlan;

/// A kernel made ready to run.
#[derive(Clone, Debug)]
pub(crate) enum Compiled {
    Map(map::Plan),
    /// A map without points, of so many outputs.
    Empty(usize),
    Pad(PadPlan),
    Other(Kernel),
}

pub(crate) fn compile(kernel: &Kernel) -> Result<Compiled, String> {
    Ok(match kernel {
        Kernel::Map(map) => {
            map::Plan::new(map)?.map_or(Compiled::Empty(map.stores.len()), Compiled::Map)
        }
        Kernel::Pad(dtype, pad) => Compiled::Pad(PadPlan::new(pad, dtype.size())),
        other => Compiled::Other(other.clone()),
    })
}

/// An expression in which `T` is the given [`Float`].
macro_rules! float {
    ($float:expr, $T:ident => $call:expr) => {
        match $float {
            Float::F32 => {
                type $T = f32;
                $call
            }
            Float::F64 => {
                type $T = f64;
                $call
            }
        }
    };
}

pub(crate) fn run(compiled: &Compiled, arrays: &Arrays<'_>) -> Result<(), String> {
    let kernel = match compiled {
        Compiled::Map(plan) => {
            plan.run(arrays);
            return Ok(());
        }
        Compiled::Empty(outputs) => {
            map::run_empty(arrays, *outputs);
            return Ok(());
        }
        Compiled::Pad(plan) => {
            plan.run(arrays);
            return Ok(());
        }
        Compiled::Other(kernel) => kernel,
    };
    let (input, output, workspace) = (
        |i| arrays.input(i),
        || arrays.output(0),
        || arrays.workspace(),
    );
    match kernel {
        Kernel::MatMul(matmul) => gemm::matmul(matmul, input(0), input(1), output(), workspace()),
        Kernel::Conv(conv) => conv::conv(conv, input(0), input(1), output(), workspace()),
        Kernel::Window(float, window) => {
            return float!(float, T => window::window::<T>(window, arrays));
        }
        Kernel::Concat(dtype, concat) => shapes::concat(concat, dtype.size(), arrays),
        Kernel::Take(float, take) => float!(float, T => shapes::take::<T>(take, arrays)),
        Kernel::Rows(float, rows) => return float!(float, T => shapes::rows::<T>(rows, arrays)),
        Kernel::ArgMax(float, arg) => float!(float, T => shapes::argmax::<T>(arg, arrays)),
        Kernel::Random(random) => float!(random.float, T => random::random::<T>(random, arrays)),
        Kernel::Map(_) | Kernel::Pad(..) => unreachable!("compiled to a plan"),
    }
    Ok(())
}
