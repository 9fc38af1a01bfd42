//! Everything that a program with gradients through training uses, by one `use autograd::prelude::*`.

pub use crate::optim::{Descent, Optimizer};
pub use crate::{
    ArraySpec, Error, Forecast, Horizon, Losses, Mode, Plan, Policy, Result, Schedule, Scope, Tape,
    Trainer, Training, Unroll, Values, Var,
};
pub use kernels::Device;
pub use tensor::DType::{self, BF16, F16, F32, F64, I32, U8, U32};
pub use tensor::{Array, Shape};
