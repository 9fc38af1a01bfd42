//! What can go wrong while recording, planning and running.

use kernels::{DeviceError, ProgramError};
use std::fmt;
use std::path::PathBuf;
use tensor::ArrayError;

/// An error of this crate; one line each.
#[derive(thiserror::Error)]
pub enum Error {
    /// Operands do not fit an operation.
    #[error("{op}: {reason}")]
    Record {
        /// The operation.
        op: &'static str,
        /// What does not fit, with the shapes.
        reason: String,
    },
    /// A gradient was asked for where none exists.
    #[error("{op} has no derivative: {reason}")]
    NoDerivative {
        /// The operation.
        op: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The inputs or outputs of a plan were given wrongly.
    #[error("plan: {0}")]
    Plan(String),
    /// An impossible setting of the training loop.
    #[error("{0}")]
    Setting(String),
    /// A number that should be finite is not.
    #[error("the {what} is not finite at inner step {step}")]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// For an inner loss the step, counted from 0; for an outer loss how many steps were done before it.
        step: usize,
    },
    /// Snapshots cannot be kept in a file.
    #[error(
        "snapshots on disk: {reason}; the file takes {bytes} bytes in {}: give another folder, or keep fewer there",
        folder.display()
    )]
    SnapshotFile {
        /// The folder of the file.
        folder: PathBuf,
        /// The bytes that it takes in all.
        bytes: usize,
        /// What the system said.
        reason: String,
    },
    /// An array was made of the wrong numbers.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A program was refused or failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// The message itself: a `main` that returns an error prints its `Debug` form.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What most functions here return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn refuse<T>(op: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::Record {
        op,
        reason: reason.into(),
    })
}
