//! The CUDA device of a build without the feature `cuda`: there is none. Only `count` and `open` can be
//! called, because no `Cuda` can exist.

use super::{CudaFacts, Precision};
use crate::bound::{Bound, Lap, Step};
use crate::memory::Gpu;
use crate::{DeviceError, ProgramError};
use std::sync::Arc;

/// A GPU, which this build cannot have: it lacks the feature `cuda`.
#[derive(Debug)]
pub enum Cuda {}

impl Cuda {
    /// Counts none.
    pub fn count() -> usize {
        0
    }

    /// Says that this build has no CUDA.
    pub fn open(_ordinal: usize, _precision: Precision) -> Result<Self, DeviceError> {
        let reason = "this program was built without it (the feature `cuda`)";
        Err(DeviceError::NoCuda(reason.into()))
    }

    /// Launches every kernel by itself instead of replaying a graph.
    pub fn without_graphs(self) -> Self {
        self
    }

    /// Joins launches after that many runs of a program.
    pub fn joins_after(self, _runs: u32) -> Self {
        self
    }

    /// How it multiplies.
    pub fn precision(&self) -> Precision {
        match *self {}
    }

    /// What there is to say about it.
    pub fn facts(&self) -> Result<CudaFacts, DeviceError> {
        match *self {}
    }

    pub(crate) fn memory(&self) -> Result<[usize; 2], DeviceError> {
        match *self {}
    }

    pub(crate) fn wait(&self) -> Result<(), DeviceError> {
        match *self {}
    }
}

impl Gpu for Cuda {
    fn write(&self, _to: u64, _source: &[u8]) -> Result<(), DeviceError> {
        match *self {}
    }

    fn read(&self, _from: u64, _target: &mut [u8]) -> Result<(), DeviceError> {
        match *self {}
    }

    fn copy(&self, _to: u64, _from: u64, _bytes: usize) -> Result<(), DeviceError> {
        match *self {}
    }

    fn zero(&self, _at: u64, _bytes: usize) -> Result<(), DeviceError> {
        match *self {}
    }
}

/// Memory of a GPU.
pub(crate) enum CudaMemory {}

impl CudaMemory {
    pub(crate) fn new(cuda: &Arc<Cuda>, _bytes: usize, _held: usize) -> Result<Self, DeviceError> {
        match **cuda {}
    }

    pub(crate) fn address(&self) -> u64 {
        match *self {}
    }
}

/// A program made ready for a GPU.
#[derive(Debug)]
pub(crate) enum Ready {}

impl Ready {
    pub(crate) fn new(
        cuda: &Arc<Cuda>,
        _slots: usize,
        _steps: &[Step],
        _bound: &[Bound],
    ) -> Result<Self, ProgramError> {
        match **cuda {}
    }

    pub(crate) fn is_for(&self, _cuda: &Arc<Cuda>) -> bool {
        match *self {}
    }

    pub(crate) fn run(&self, _addresses: &[u64]) -> Result<(), DeviceError> {
        match *self {}
    }

    pub(crate) fn time(&self, _addresses: &[u64]) -> Result<Vec<Lap>, DeviceError> {
        match *self {}
    }
}
