//! A tape is a program: record, differentiate, plan, run.

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
pub use plan::{Bound, Held, Peak, Plan, Task};
pub use spec::ArraySpec;
pub use tape::{Tape, Var};
pub use unroll::{
    CotangentNorms, Declared, Forecast, Horizon, Losses, Mode, Phase, Planned, Policy, Schedule,
    Scope, State, TimedRun, Trainer, Training, Trouble, Unroll, Values,
};
