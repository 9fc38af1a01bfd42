//! GTN.

pub mod bench;
pub mod curves;
pub mod data;
pub mod nn;
pub mod picture;
pub mod run_folder;
