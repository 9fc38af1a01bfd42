//! The arrays that a training starts from, as one would make them by hand.

use super::step::Training;
use super::{Given, Horizon, Records};
use crate::error::Result;
use kernels::Device;

/// Records of all that a meta-gradient is computed from, to be filled: zeros at first.
#[derive(Debug)]
pub struct Values {
    /// One record: θ, the optimiser's state, buffers.
    pub start: Records,
    /// One record: the shared arrays.
    pub shared: Records,
    /// The rows: a record for each.
    pub rows: Records,
    /// The hyper-parameters: a record per inner step.
    pub hyper: Records,
    /// A record per outer loss.
    pub outer_rows: Records,
}

impl Values {
    /// Zeros for a training as far as a horizon.
    pub fn new(device: &Device, training: &Training<'_>, horizon: &Horizon) -> Result<Self> {
        let records = |ports, count| Records::new(device, ports, count);
        Ok(Self {
            start: records(training.start_ports(), 1)?,
            shared: records(training.shared.clone(), 1)?,
            rows: records(training.row_ports(), horizon.rows)?,
            hyper: records(training.hyper_ports(), horizon.steps)?,
            outer_rows: records(training.outer_rows.clone(), horizon.outer_steps.len())?,
        })
    }

    /// As [`Unroll::gradient`](super::Unroll::gradient) takes them.
    pub fn given(&self) -> Given<'_> {
        Given {
            start: &self.start,
            shared: &self.shared,
            rows: &self.rows,
            hyper: &self.hyper,
            outer_rows: &self.outer_rows,
        }
    }
}
