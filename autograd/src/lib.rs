//! A tape is a program: record, differentiate, plan, run.

pub mod check;
mod error;
mod op;
mod ops;
pub mod optim;
mod plan;
#[doc(hidden)]
pub mod reference;
mod rules;
mod tape;
mod transform;
mod unroll;

pub use error::{Error, Result};
pub use kernels::Distribution;
pub use ops::contraction::ConvOptions;
pub use plan::{Held, Peak, Plan, Port};
pub use tape::{Tape, Var};
pub use unroll::{
    CotangentNorms, Forecast, Given, Horizon, LossAndBuffers, Losses, Mode, Phase, Planned,
    Records, Row, Schedule, Scope, TimedRun, Training, Trouble, Unroll, Values,
};
