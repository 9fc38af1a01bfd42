//! GTN.

pub mod data;
pub mod picture;
pub mod run_folder;
