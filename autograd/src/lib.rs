//! Gradients through training. A tape is a program: record, differentiate, plan, run.
//!
//! # Derivatives of anything recorded
//!
//! Operations on [`Var`]s append primitives to a [`Tape`]; nothing is computed. [`Tape::grad`], [`Tape::vjp`], [`Tape::jvp`]
//! and [`Tape::hvp`] append more primitives, so derivatives have derivatives. A [`Plan`] of chosen results knows its launches,
//! FLOPs and peak memory before it runs, and runs any number of times. A Hessian-vector product:
//!
//! ```
#![doc = include_str!("../examples/hessian_vector_product.rs")]
//! ```
//!
//! # Gradients through an optimiser
//!
//! A [`Training`] says what the learner is, what is learned about its training, what is given, and both losses: named arrays
//! and closures over `Var`s. [`Unroll`] plans T steps of it and their gradient, with all memory, and computes the
//! meta-gradient of whatever [`Values`] it is given; [`Unroll::forecast`] says bytes and FLOPs beforehand. [`optim::Descent`]
//! moves what is learned, by the same optimisers. A learning rate for each of 32 steps, learned:
//!
//! ```
#![doc = include_str!("../examples/learn_learning_rate.rs")]
//! ```
//!
//! A learned array with the name of a weight is the weight's initial value. So this is MAML:
//!
//! ```no_run
#![doc = include_str!("../examples/maml_sine.rs")]
//! ```
//!
//! A learned array that the inner loss reads is training data. So this is distillation to pixels:
//!
//! ```no_run
#![doc = include_str!("../examples/distill_pixels.rs")]
//! ```
//!
//! # What is stored, and what is computed again
//!
//! A meta-gradient goes back through every step, so it needs their states again. What the forward sweep stores of them is a
//! [`Schedule`]; a [`Policy`] picks one (`auto`, `lean`, a budget in bytes, a window). All give the same meta-gradient, bit for bit.
//!
//! ```
//! use autograd::prelude::*;
//! let training = Training::new(Optimizer::Momentum)
//!     .weights([ArraySpec::new("w", F32, [256, 256])])
//!     .learned([ArraySpec::new("x", F32, [64, 256])])
//!     .loss(|s| s["x"].matmul(s["w"])?.powi(2)?.mean_all())
//!     .outer(|s| (s["w"] - 1.0)?.powi(2)?.mean_all());
//! let bytes = |policy: Policy| -> Result<usize> {
//!     let horizon = Horizon::new(1000).schedule(policy);
//!     Ok(autograd::Forecast::new(&training, &horizon)?.bytes)
//! };
//! assert!(bytes(Schedule::binomial(10).into())? < bytes(Schedule::per_step().into())? / 50);
//! assert!(bytes(Policy::Budget(16 << 20))? <= 16 << 20);
//! # Ok::<(), autograd::Error>(())
//! ```
//!
//! # Where to go on
//!
//! [`check::gradients`] tests the derivatives of a function of yours. [`Trainer`] trains without a meta-gradient.
//! [`Phase`] and [`Unroll::timed_gradient`] say where memory and time go.

pub mod check;
mod error;
mod op;
mod ops;
pub mod optim;
mod plan;
pub mod prelude;
#[doc(hidden)]
pub mod reference;
mod rules;
mod spec;
mod tape;
mod transform;
mod unroll;

pub use error::{Error, Result};
pub use kernels::Distribution;
pub use ops::contraction::ConvOptions;
pub use ops::statistics::Moments;
pub use plan::{Bound, Held, Peak, Plan, Task};
pub use spec::ArraySpec;
pub use tape::{Tape, Var};
pub use unroll::{
    CotangentNorms, Declared, Forecast, Horizon, Losses, Mode, Phase, Planned, Policy, Schedule,
    Scope, State, TimedRun, Trainer, Training, Trouble, Unroll, Values,
};
