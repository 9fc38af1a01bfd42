//! The ranks that an MPI launcher started.

mod watch;

use crate::error::{Error, Result};
use ::mpi::Threading;
use ::mpi::collective::CommunicatorCollectives;
use ::mpi::datatype::PartitionMut;
use ::mpi::environment::{Universe, initialize_with_threading};
use ::mpi::topology::{Communicator, SimpleCommunicator};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) struct World {
    communicator: SimpleCommunicator,
    /// Whether losing another rank is an error. It is, until the ranks part.
    watching: Arc<AtomicBool>,
    /// Ends MPI when it is dropped, after the communicator.
    _universe: Universe,
}

impl World {
    /// All processes that the launcher started. `None` if there was no launcher; then MPI is not initialised.
    pub(super) fn join(launched: Option<usize>) -> Result<Option<Self>> {
        let Some(count) = launched else {
            return Ok(None);
        };
        let begun = initialize_with_threading(Threading::Funneled);
        let (universe, _) = begun.ok_or_else(|| Error::run("MPI was begun twice"))?;
        let communicator = universe.world();
        let met = communicator.size() as usize;
        if met != count {
            let error = format!("the launcher started {count} ranks, and MPI knows {met}");
            return Err(
                Error::usage(error).hint("use the launcher of the MPI that gtn was built with")
            );
        }
        Ok(Some(Self {
            communicator,
            watching: Arc::default(),
            _universe: universe,
        }))
    }

    pub(super) fn number(&self) -> usize {
        self.communicator.rank() as usize
    }

    /// What every rank says, in their order.
    pub(super) fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        let mut lengths = vec![0i32; self.communicator.size() as usize];
        self.communicator
            .all_gather_into(&(own.len() as i32), &mut lengths[..]);
        let starts: Vec<i32> = lengths
            .iter()
            .scan(0, |end, &length| {
                Some(std::mem::replace(end, *end + length))
            })
            .collect();
        let mut all = vec![0u8; lengths.iter().map(|&length| length as usize).sum()];
        let mut parts = PartitionMut::new(&mut all[..], &lengths[..], &starts[..]);
        self.communicator.all_gather_varcount_into(own, &mut parts);
        let part =
            |(&start, &length): (&i32, &i32)| all[start as usize..][..length as usize].to_vec();
        starts.iter().zip(&lengths).map(part).collect()
    }

    /// Sends part i of an array to rank i, of as many equal parts as there are ranks; gives what the others sent.
    pub(super) fn exchange(&self, own: &[f32]) -> Vec<f32> {
        let mut all = vec![0.0f32; own.len()];
        self.communicator.all_to_all_into(own, &mut all[..]);
        all
    }

    /// The arrays of all ranks, one after another; all are of one length.
    pub(super) fn assemble(&self, own: &[f32]) -> Vec<f32> {
        let mut all = vec![0.0f32; own.len() * self.communicator.size() as usize];
        self.communicator.all_gather_into(own, &mut all[..]);
        all
    }

    /// Looks after other ranks on this machine, by number and process.
    pub(super) fn watch(&self, others: Vec<(usize, u32)>, step: Arc<AtomicU64>) {
        self.watching.store(true, Ordering::Relaxed);
        watch::start(self.number(), others, step, Arc::clone(&self.watching));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Finalising MPI waits for all ranks. After a panic the others would wait forever for this one's
        // messages.
        if std::thread::panicking() {
            self.communicator.abort(101);
        }
        self.watching.store(false, Ordering::Relaxed);
        self.communicator.barrier();
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, count) = (self.number(), self.communicator.size());
        write!(f, "World({number} of {count})")
    }
}
