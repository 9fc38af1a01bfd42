//! A tape is a program: record, differentiate, plan, run.

mod error;
mod op;
mod ops;
mod tape;
mod transform;

pub use error::{Error, Result};
pub use kernels::Distribution;
pub use ops::contraction::ConvOptions;
pub use tape::{Tape, Var};
