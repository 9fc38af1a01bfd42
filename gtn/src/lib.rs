//! Generative Teaching Networks: a generator learns to make data on which fresh learners learn fast.
//!
//! [`outer`] is the outer loop, and [`eval`] measures how well its data teaches. [`search`] ranks networks by
//! a short training on that data, [`mod@fit`] trains one network for use, and [`export`] hands results to
//! other frameworks. [`study`] compares variants of a run. [`run`] holds a run's settings and files, and
//! [`cli`] is the command line over all of these.

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
