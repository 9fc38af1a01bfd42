//! Generative Teaching Networks: a generator learns to make data on which fresh learners learn fast.
//!
//! [`meta`] is the outer loop, [`report`] says whether it worked, [`cli`] is the program around both.

mod adam;
pub mod checkpoint;
pub mod cli;
mod collect;
pub mod config;
pub mod curriculum;
pub mod curves;
pub mod data;
pub mod device;
pub mod evaluate;
pub mod images;
pub mod memory;
pub mod meta;
pub mod nn;
pub mod picture;
pub mod report;
mod routine;
pub mod run_folder;
pub mod seeds;
pub mod selftest;
pub mod teacher;
pub mod training;
pub mod tuning;
pub mod widths;
