//! The outer loop: a teacher, the trainings of learners that it teaches, and the updates of what it has learned.

mod copies;
pub mod curriculum;
pub mod growth;
pub mod hyper;
pub mod inner;
pub mod known;
pub mod makers;
pub(crate) mod mean;
pub mod meta;
pub mod order;
pub(crate) mod pupils;
pub mod rule;
pub mod teacher;
pub mod training;
