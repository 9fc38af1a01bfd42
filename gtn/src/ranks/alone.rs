//! A program that was built without MPI: there is only one rank.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

#[derive(Debug)]
pub(super) enum World {}

impl World {
    /// There is no world. If a launcher started several processes this is an error, since all would do the
    /// same work.
    pub(super) fn join(launched: Option<usize>) -> Result<Option<Self>> {
        match launched {
            Some(count @ 2..) => {
                let error = format!("{count} ranks were started, and this program has no MPI");
                Err(Error::usage(error).hint("cargo build -p gtn --release --features mpi"))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn number(&self) -> usize {
        match *self {}
    }

    pub(super) fn gather(&self, _: &[u8]) -> Vec<Vec<u8>> {
        match *self {}
    }

    pub(super) fn exchange(&self, _: &[f32]) -> Vec<f32> {
        match *self {}
    }

    pub(super) fn assemble(&self, _: &[f32]) -> Vec<f32> {
        match *self {}
    }

    pub(super) fn watch(&self, _: Vec<(usize, u32)>, _: Arc<AtomicU64>) {
        match *self {}
    }
}
