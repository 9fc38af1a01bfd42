//! The processor: every kernel, on all cores.

/// What an expression is with `T` as the type of a float.
macro_rules! typed {
    ($float:expr, $T:ident => $body:expr) => {
        match $float {
            Float::F32 => {
                type $T = f32;
                $body
            }
            Float::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}

mod blocks;
pub(crate) mod conv;
mod gemm;
#[cfg(all(test, target_arch = "x86_64"))]
mod levels;
pub(crate) mod map;
mod math;
mod microkernel;
mod panels;
pub(crate) mod parallel;
pub(crate) mod peak;
mod random;
mod reversible;
pub(crate) mod scratch;
mod shapes;
mod simd;
mod transpose;
mod window;

use crate::program::Arrays;
use crate::{Conv, Float, Kernel, Pair};
use std::fmt;
use std::sync::Arc;

/// A kernel made ready to run: everything that follows from its shapes is decided.
#[derive(Clone)]
pub(crate) struct Compiled(Arc<Run>);

type Run = dyn Fn(&Arrays<'_>) -> Result<(), String> + Send + Sync;

impl Compiled {
    /// For a kernel that was checked.
    pub(crate) fn new(kernel: &Kernel) -> Result<Self, String> {
        Ok(match kernel.clone() {
            Kernel::Map(map) => match map::Plan::new(&map)? {
                Some(plan) => always(move |arrays| plan.run(arrays)),
                None => always(move |arrays| map::run_empty(map.stores.len(), arrays)),
            },
            Kernel::MatMul(spec) => always(move |a| {
                gemm::matmul(&spec, &[[a.input(0), a.input(1)]], a.output(0));
            }),
            Kernel::MatMulPair(Pair(spec)) => always(move |a| {
                let products = [[a.input(0), a.input(1)], [a.input(2), a.input(3)]];
                gemm::matmul(&spec, &products, a.output(0));
            }),
            Kernel::Conv(spec) => always(move |a| {
                conv::conv(&spec, a.input(0), a.input(1), a.output(0), a.workspace());
            }),
            Kernel::ConvPair(Pair(first)) => {
                let second = Conv {
                    accumulate: true,
                    ..first
                };
                always(move |a| {
                    conv::conv(&first, a.input(0), a.input(1), a.output(0), a.workspace());
                    conv::conv(&second, a.input(2), a.input(3), a.output(0), a.workspace());
                })
            }
            Kernel::Pad(spec) => {
                let plan = shapes::PadPlan::new(&spec);
                always(move |a| plan.run(a))
            }
            Kernel::Concat(spec) => always(move |a| shapes::concat(&spec, a)),
            Kernel::Take(spec) => {
                typed!(spec.float, T => always(move |a| shapes::take::<T>(&spec, a)))
            }
            Kernel::ArgMax(spec) => {
                typed!(spec.float, T => always(move |a| shapes::argmax::<T>(&spec, a)))
            }
            Kernel::Random(spec) => {
                typed!(spec.float, T => always(move |a| random::random::<T>(&spec, a)))
            }
            Kernel::Reversible(spec) => {
                typed!(spec.float, T => always(move |a| reversible::reversible::<T>(&spec, a)))
            }
            Kernel::Rows(spec) => {
                typed!(spec.float, T => maybe(move |a| shapes::rows::<T>(&spec, a)))
            }
            Kernel::Window(spec) => {
                typed!(spec.float, T => maybe(move |a| window::window::<T>(&spec, a)))
            }
        })
    }

    /// Errors come from indices in memory that point outside.
    pub(crate) fn run(&self, arrays: &Arrays<'_>) -> Result<(), String> {
        (self.0)(arrays)
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compiled")
    }
}

/// A kernel that cannot fail.
fn always(run: impl Fn(&Arrays<'_>) + Send + Sync + 'static) -> Compiled {
    maybe(move |arrays| {
        run(arrays);
        Ok(())
    })
}

fn maybe(run: impl Fn(&Arrays<'_>) -> Result<(), String> + Send + Sync + 'static) -> Compiled {
    Compiled(Arc::new(run))
}
