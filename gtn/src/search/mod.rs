//! Architecture search: networks of a space ranked by estimates that take seconds, and whether the ranking is right.
//!
//! An [`Estimator`] is a sum of ranks of columns. A [`Source`] is what has to be computed for a column: a
//! training, on a run's images or on real ones, or a single pass. A [`Lab`] computes sources for many
//! networks at once, a [`Ledger`] keeps every result as it comes, and [`correlate`] compares estimates with
//! accuracies that are known.

pub mod agreement;
pub mod correlate;
mod estimator;
mod lab;
mod ledger;
pub mod probe;
mod strategy;
mod structure;
mod table;
pub mod tune;

pub use estimator::{Estimator, Measure, Source, Teaching};
pub use lab::{Lab, Task};
pub use ledger::{Entry, Ledger, Outcome, RECIPES};
pub use strategy::{Proposals, Round, Strategy};
pub use structure::Structure;
pub use table::{Cost, Table};
