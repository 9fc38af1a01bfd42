//! GTN.

pub mod data;
