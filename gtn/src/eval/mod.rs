//! Evaluation: fresh learners taught by the generator, and others by real images with tuned rates.

pub mod evaluate;
pub mod report;
pub mod tuning;
