//! Generative Teaching Networks: a generator learns to make data on which fresh learners learn fast.
//!
//! [`outer`] is the outer loop, [`eval`] says whether it worked, [`export`] takes it to other frameworks, [`search`] ranks networks by it, [`mod@fit`] trains one for use,
//! [`study`] sets variants of a run beside each other, [`run`] holds a run's settings and files, [`cli`]
//! is the program around all.

pub mod cli;
pub mod data;
pub mod device;
pub mod draw;
pub mod error;
pub mod eval;
pub mod export;
pub mod fit;
pub mod nn;
pub mod outer;
pub mod ranks;
pub mod run;
pub mod search;
pub mod seeds;
pub mod selftest;
pub mod study;
mod text;
