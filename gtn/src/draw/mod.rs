//! Drawing: synthetic images as PNG, curves as SVG.

pub mod curves;
pub mod picture;
