//! The processor: every kernel, on all cores.

/// Evaluates an expression in which `T` is the Rust type of a float.
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
mod conv;
mod gemm;
#[cfg(all(test, target_arch = "x86_64"))]
mod levels;
#[cfg(all(test, target_arch = "x86_64"))]
mod loops;
mod map;
mod math;
mod matrix;
mod microkernel;
mod panels;
mod parallel;
mod peak;
mod random;
mod reversible;
mod scratch;
mod shapes;
mod simd;
mod special;
mod window;

use crate::bound::{Arrays, Bound, Lap, Memory, Step};
use crate::{Conv, DeviceError, Float, Kernel, Pair, ProgramError};
pub use simd::Simd;
use std::fmt;
use std::time::Instant;

/// The processor's threads, and the vector instructions that they use.
pub struct Cpu {
    pool: rayon::ThreadPool,
    simd: Simd,
}

impl Cpu {
    /// Starts that many threads (as many as there are cores if `None`) with vector instructions of that level
    /// (the best if `None`). Results do not depend on the number of threads; how they depend on the level,
    /// [`Simd`] says. `into` makes a [`Device`](crate::Device) of it.
    ///
    /// # Errors
    /// If the processor does not have the level, or the threads cannot be started.
    pub fn new(threads: Option<usize>, simd: Option<Simd>) -> Result<Self, DeviceError> {
        let detected = Simd::detected();
        let simd = simd.unwrap_or(detected);
        if simd > detected {
            return Err(DeviceError::Simd {
                wanted: simd,
                detected,
            });
        }
        let threads =
            threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        // rayon would take 0 for "as many as there are".
        if threads == 0 {
            return Err(DeviceError::Threads {
                threads,
                reason: "at least 1 is needed".into(),
            });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("kernels-{i}"))
            .start_handler(move |_| {
                scratch::reserve();
                simd::hold(simd);
            })
            .build()
            .map_err(|e| DeviceError::Threads {
                threads,
                reason: e.to_string(),
            })?;
        Ok(Self { pool, simd })
    }

    /// How many threads run its kernels.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The level of vector instructions that they use.
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// Multiplies and adds f32 numbers in registers, on all threads at once and as fast as they can: the
    /// ceiling of a benchmark. Returns the number of floating-point operations. A thread does some hundred of
    /// them a round.
    pub fn multiply_add(&self, rounds: u64) -> u64 {
        self.pool
            .broadcast(|_| peak::multiply_add(rounds))
            .iter()
            .sum()
    }

    /// Does work on the threads, which stay awake for it.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(|| parallel::awake(work))
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cpu({} threads, {})", self.threads(), self.simd)
    }
}

impl Kernel {
    /// Bytes of workspace that the CPU needs for it, which the program provides: see [`Step::workspace`].
    /// Depends on the shapes only. A CUDA device has scratch memory of its own.
    pub fn workspace(&self) -> usize {
        match self {
            kernel if kernel.is_idle() => 0,
            Self::Map(map) => map.workspace(),
            Self::Conv(conv) | Self::ConvPair(Pair(conv)) => conv::workspace(conv),
            _ => 0,
        }
    }
}

/// The steps of a program, made ready to run on any number of threads of one level.
#[derive(Debug)]
pub(crate) struct Ready {
    steps: Vec<Compiled>,
    simd: Simd,
}

impl Ready {
    pub(crate) fn new(steps: &[Step], cpu: &Cpu) -> Result<Self, ProgramError> {
        let simd = cpu.simd;
        let compile = |(at, step): (usize, &Step)| {
            let compiled = Compiled::new(&step.kernel, simd);
            compiled.map_err(|reason| ProgramError::Step { step: at, reason })
        };
        let steps = steps.iter().enumerate().map(compile);
        Ok(Self {
            steps: steps.collect::<Result<_, _>>()?,
            simd,
        })
    }

    /// Whether that processor can run them.
    pub(crate) fn is_for(&self, cpu: &Cpu) -> bool {
        self.simd == cpu.simd
    }

    /// Runs the steps in order, on the calling thread and its pool.
    pub(crate) fn run(&self, bound: &[Bound], memory: &Memory<'_>) -> Result<(), ProgramError> {
        (0..bound.len()).try_for_each(|at| self.step(at, &bound[at], memory))
    }

    /// As `run`, with a lap for every step.
    pub(crate) fn time(
        &self,
        bound: &[Bound],
        memory: &Memory<'_>,
    ) -> Result<Vec<Lap>, ProgramError> {
        let lap = |at| {
            let begin = Instant::now();
            self.step(at, &bound[at], memory)?;
            let time = begin.elapsed();
            Ok(Lap { begin, time })
        };
        (0..bound.len()).map(lap).collect()
    }

    fn step(&self, at: usize, bound: &Bound, memory: &Memory<'_>) -> Result<(), ProgramError> {
        let run = &self.steps[at].0;
        run(&Arrays { bound, memory }).map_err(|reason| ProgramError::Step { step: at, reason })
    }
}

/// A kernel made ready to run: everything that follows from its shapes is decided. Running it fails only
/// where an index in memory points outside.
struct Compiled(Box<Run>);

type Run = dyn Fn(&Arrays<'_>) -> Result<(), String> + Send + Sync;

impl Compiled {
    /// For a kernel that was checked.
    fn new(kernel: &Kernel, simd: Simd) -> Result<Self, String> {
        if kernel.is_idle() {
            return Ok(always(|_| ()));
        }
        Ok(match kernel {
            Kernel::Map(map) => {
                let stores = map.stores.len();
                match map::Plan::new(map, simd)? {
                    Some(plan) => always(move |arrays| plan.run(arrays)),
                    None => always(move |arrays| map::run_empty(stores, arrays)),
                }
            }
            &Kernel::MatMul(spec) => always(move |a| {
                gemm::matmul(&spec, &[[a.input(0), a.input(1)]], a.output(0));
            }),
            &Kernel::MatMulPair(Pair(spec)) => always(move |a| {
                let products = [[a.input(0), a.input(1)], [a.input(2), a.input(3)]];
                gemm::matmul(&spec, &products, a.output(0));
            }),
            &Kernel::Conv(spec) => always(move |a| {
                conv::conv(&spec, a.input(0), a.input(1), a.output(0), a.workspace());
            }),
            &Kernel::ConvPair(Pair(first)) => {
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
                let plan = shapes::PadPlan::new(spec);
                always(move |a| plan.run(a))
            }
            Kernel::Concat(spec) => {
                let spec = spec.clone();
                always(move |a| shapes::concat(&spec, a))
            }
            Kernel::Take(spec) => {
                let spec = spec.clone();
                typed!(spec.float, T => always(move |a| shapes::take::<T>(&spec, a)))
            }
            &Kernel::ArgMax(spec) => {
                typed!(spec.float, T => always(move |a| shapes::argmax::<T>(&spec, a)))
            }
            &Kernel::Random(spec) => {
                typed!(spec.float, T => always(move |a| random::random::<T>(&spec, a)))
            }
            &Kernel::Reversible(spec) => {
                typed!(spec.float, T => always(move |a| reversible::reversible::<T>(&spec, a)))
            }
            &Kernel::Rows(spec) => {
                typed!(spec.float, T => maybe(move |a| shapes::rows::<T>(&spec, a)))
            }
            &Kernel::Window(spec) => {
                typed!(spec.float, T => maybe(move |a| window::window::<T>(&spec, a)))
            }
        })
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
    Compiled(Box::new(run))
}
