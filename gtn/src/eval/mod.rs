//! Evaluation: fresh learners taught by the generator, beside baselines: learners taught by real images, with
//! tuned hyper-parameters.

pub mod evaluate;
pub mod examination;
pub mod report;
pub mod rivals;
pub mod suite;
pub mod training_data;
pub mod tuning;
