//! Evaluation: fresh learners taught by the generator, and others by real images in the best ways that trials find.

pub mod evaluate;
pub mod examination;
pub mod report;
pub mod rivals;
pub mod suite;
pub mod training_data;
pub mod tuning;
