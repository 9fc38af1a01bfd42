//! The outer loop: a teacher, the trainings of learners that it teaches, and the updates of what it has learned.

mod adam;
mod collect;
pub mod curriculum;
pub mod images;
pub mod meta;
pub(crate) mod routine;
pub mod teacher;
pub mod training;
