//! Studies: variants of a run beside each other, such as curricula, or settings drawn at random with and without a norm.
//!
//! A [`Study`] is read from a TOML file and names its runs. [`Found`] is the result of one, and a [`Table`]
//! sums them up.

mod draws;
mod found;
mod plan;
mod table;

pub use found::{Broke, Found, Outcome};
pub use plan::{Run, Study};
pub use table::{Summary, Table};
