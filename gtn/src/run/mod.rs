//! A run: its settings, its folder, its checkpoints, and whether it fits into memory.

pub mod best;
pub mod card;
pub mod checkpoint;
mod checks;
pub mod config;
pub(crate) mod derived;
pub(crate) mod events;
pub mod ledger;
pub mod memory;
pub mod run_folder;
pub mod settings;
pub mod values;
