//! A tape is a program: record, differentiate, plan, run.

mod error;
mod op;
mod ops;
mod plan;
mod tape;
mod transform;

pub use error::{Error, Result};
pub use kernels::Distribution;
pub use ops::contraction::ConvOptions;
pub use plan::{Plan, Port};
pub use tape::{Tape, Var};
