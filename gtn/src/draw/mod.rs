//! Drawing: synthetic images as PNG, curves as SVG, a run as a page of HTML.

pub mod columns;
pub mod curves;
pub mod page;
pub mod picture;
pub mod scatter;
