//! GTN.

pub mod data;
pub mod run_folder;
