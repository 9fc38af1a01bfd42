//! Every kernel on a CUDA device against the processor: see `stand_in`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "cuda/device.rs"]
mod device;
#[path = "cuda/maps.rs"]
mod maps;
#[path = "cuda/parity.rs"]
mod parity;
mod stand_in;
