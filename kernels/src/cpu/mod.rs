//! The processor: every kernel, on all cores.

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
use crate::{Conv, Float, Kernel};
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
            Kernel::MatMul(matmul) => always(move |a| {
                gemm::matmul(&matmul, &[[a.input(0), a.input(1)]], a.output(0));
            }),
            Kernel::MatMulPair(matmul) => always(move |a| {
                let products = [[a.input(0), a.input(1)], [a.input(2), a.input(3)]];
                gemm::matmul(&matmul, &products, a.output(0));
            }),
            Kernel::Conv(conv) => always(move |a| {
                conv::conv(&conv, a.input(0), a.input(1), a.output(0), a.workspace());
            }),
            Kernel::ConvPair(first) => {
                let second = Conv {
                    accumulate: true,
                    ..first
                };
                always(move |a| {
                    conv::conv(&first, a.input(0), a.input(1), a.output(0), a.workspace());
                    conv::conv(&second, a.input(2), a.input(3), a.output(0), a.workspace());
                })
            }
            Kernel::Pad(dtype, pad) => {
                let plan = shapes::PadPlan::new(&pad, dtype.size());
                always(move |arrays| plan.run(arrays))
            }
            Kernel::Concat(dtype, concat) => {
                always(move |arrays| shapes::concat(&concat, dtype.size(), arrays))
            }
            Kernel::Take(Float::F32, take) => {
                always(move |arrays| shapes::take::<f32>(&take, arrays))
            }
            Kernel::Take(Float::F64, take) => {
                always(move |arrays| shapes::take::<f64>(&take, arrays))
            }
            Kernel::ArgMax(Float::F32, arg) => {
                always(move |arrays| shapes::argmax::<f32>(&arg, arrays))
            }
            Kernel::ArgMax(Float::F64, arg) => {
                always(move |arrays| shapes::argmax::<f64>(&arg, arrays))
            }
            Kernel::Random(random) => match random.float {
                Float::F32 => always(move |arrays| random::random::<f32>(&random, arrays)),
                Float::F64 => always(move |arrays| random::random::<f64>(&random, arrays)),
            },
            Kernel::Reversible(spec) => match spec.float {
                Float::F32 => always(move |arrays| reversible::reversible::<f32>(&spec, arrays)),
                Float::F64 => always(move |arrays| reversible::reversible::<f64>(&spec, arrays)),
            },
            Kernel::Rows(Float::F32, rows) => {
                maybe(move |arrays| shapes::rows::<f32>(&rows, arrays))
            }
            Kernel::Rows(Float::F64, rows) => {
                maybe(move |arrays| shapes::rows::<f64>(&rows, arrays))
            }
            Kernel::Window(Float::F32, window) => {
                maybe(move |arrays| window::window::<f32>(&window, arrays))
            }
            Kernel::Window(Float::F64, window) => {
                maybe(move |arrays| window::window::<f64>(&window, arrays))
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
