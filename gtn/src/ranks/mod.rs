//! Ranks: the processes that work on one run together, and how they communicate.
//!
//! There are several where an MPI launcher started a program that was built with the feature `mpi`; else
//! there is one. What a run computes depends on its settings and never on the number of ranks. Pieces of work
//! are dealt out by number, and results are combined in the order of those numbers.

#[cfg(not(feature = "mpi"))]
#[path = "alone.rs"]
mod world;
#[cfg(feature = "mpi")]
#[path = "mpi/mod.rs"]
mod world;

mod sum;

use crate::error::{Error, ErrorKind, Result};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
pub use sum::OrderedSum;
use world::World;

/// The variables in which launchers say how many processes they started: Open MPI's, and those of MPICH and SLURM.
const LAUNCHED: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// This process among those of its run.
#[derive(Clone, Debug)]
pub struct Ranks(Rc<Rank>);

#[derive(Debug)]
struct Rank {
    world: Option<World>,
    /// All ranks by number; only this one if there is no world.
    all: Vec<Hello>,
    number: usize,
    /// Whether all ranks have agreed on an error and are about to exit.
    failed: Cell<bool>,
    /// The current outer step, for the message about a lost rank; 0 outside of a training.
    step: Arc<AtomicU64>,
}

/// What a rank tells of itself at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    host: String,
    process: u32,
    /// The processors that it may use, as Linux writes them.
    cores: String,
}

impl Hello {
    /// What Linux says about this process. On other systems all ranks appear to be on one machine, and none
    /// is watched.
    fn new() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let mut lines = status.lines();
        let cores = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Self {
            host: read("/proc/sys/kernel/hostname"),
            process: std::process::id(),
            cores: cores.unwrap_or_default().trim().to_owned(),
        }
    }
}

/// A hash to compare values by. Ranks can compare it only if they run the same program.
pub fn fingerprint(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Ranks {
    /// The only rank.
    pub fn alone() -> Self {
        Self(Rc::new(Rank {
            world: None,
            all: vec![Hello::default()],
            number: 0,
            failed: Cell::new(false),
            step: Arc::default(),
        }))
    }

    /// Meets the processes that a launcher started together with this one. From then on watches those on this
    /// machine: if one is lost, the program says so and ends.
    ///
    /// # Errors
    /// If there are several and this program was built without MPI, or with a different MPI.
    pub fn join() -> Result<Self> {
        let launched = LAUNCHED.iter().find_map(|name| std::env::var(name).ok());
        let launched = launched.and_then(|count| count.parse().ok());
        let Some(world) = World::join(launched)? else {
            return Ok(Self::alone());
        };
        let mut rank = Rank {
            number: world.number(),
            world: Some(world),
            all: Vec::new(),
            failed: Cell::new(false),
            step: Arc::default(),
        };
        rank.all = rank.gather(Ok(Hello::new()))?;
        let ranks = Self(Rc::new(rank));
        ranks.watch();
        Ok(ranks)
    }

    /// The number of this rank, from 0.
    pub fn number(&self) -> usize {
        self.0.number
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.all.len()
    }

    /// Whether this is the rank that writes files and speaks to the user.
    pub fn is_first(&self) -> bool {
        self.number() == 0
    }

    /// The ranks on this one's machine: numbers and what they said.
    fn neighbours(&self) -> impl Iterator<Item = (usize, &Hello)> {
        let own = &self.0.all[self.number()];
        let here = |(_, hello): &(usize, &Hello)| hello.host == own.host;
        self.0.all.iter().enumerate().filter(here)
    }

    /// The number of this rank among those on its machine: that of its GPU.
    pub fn local(&self) -> usize {
        let before = |&(number, _): &(usize, &Hello)| number < self.number();
        self.neighbours().filter(before).count()
    }

    /// How many ranks share this one's machine, itself among them.
    pub fn on_machine(&self) -> usize {
        self.neighbours().count()
    }

    /// How many ranks share the processors that this one may use; a launcher often gives each its own.
    pub fn on_cores(&self) -> usize {
        let own = &self.0.all[self.number()].cores;
        let shared = |(_, hello): &(usize, &Hello)| hello.cores == *own;
        self.neighbours().filter(shared).count()
    }

    /// Tells at which outer step this rank is, for the message about a lost rank; 0 outside of a training.
    pub fn at_step(&self, step: u64) {
        self.0.step.store(step, Ordering::Relaxed);
    }

    /// The values of all ranks, in order. Every rank waits for all others.
    ///
    /// # Errors
    /// If any rank passes an error: all ranks get it, with that rank's number in front. So a rank may leave
    /// by `?` anywhere, as long as it ends in [`Ranks::part`].
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: Result<T>) -> Result<Vec<T>> {
        self.0.gather(own)
    }

    /// Whether all ranks say yes.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub fn all(&self, yes: bool) -> Result<bool> {
        Ok(self.gather(Ok(yes))?.into_iter().all(|yes| yes))
    }

    /// Refuses ranks that run a different program from the first: it might sum in another order, for
    /// instance.
    ///
    /// # Errors
    /// If one does. Or as [`Ranks::gather`].
    pub fn same_program(&self) -> Result<()> {
        let program = || {
            let bytes = std::env::current_exe().and_then(std::fs::read);
            let bytes = bytes.map_err(|e| Error::run(format!("cannot read this program: {e}")))?;
            Ok(fingerprint(&bytes))
        };
        self.same("another program", ErrorKind::Run, program)
    }

    /// Refuses ranks whose value differs from that of the first.
    ///
    /// # Errors
    /// An error of that kind if one differs; `what` says in what. Or as [`Ranks::gather`].
    pub fn same<T>(
        &self,
        what: &str,
        kind: ErrorKind,
        own: impl FnOnce() -> Result<T>,
    ) -> Result<()>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        if self.count() == 1 {
            return Ok(());
        }
        let all = self.gather(own())?;
        let Some(other) = all.iter().position(|value| *value != all[0]) else {
            return Ok(());
        };
        self.0.failed.set(true);
        let message = format!("rank {other} has {what} than rank 0");
        Err(Error::new(kind, message).hint("all ranks need the same program, settings and data"))
    }

    /// Deals out `count` pieces of work: piece i goes to rank i modulo the number of ranks. Gives the results
    /// of all pieces, in order; `None` if the work on any piece was stopped, which it says by returning
    /// `None`.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub fn deal<T: Serialize + DeserializeOwned>(
        &self,
        count: usize,
        work: impl FnMut(usize) -> Result<Option<T>>,
    ) -> Result<Option<Vec<T>>> {
        let own = (self.number()..count).step_by(self.count()).map(work);
        let own: Result<Option<Vec<T>>> = own.collect();
        let all: Option<Vec<Vec<T>>> = self.gather(own)?.into_iter().collect();
        let Some(all) = all else { return Ok(None) };
        let mut all: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
        let pieces = (0..count).map(|i| all[i % self.count()].next());
        Ok(pieces.collect())
    }

    /// A sum of arrays of `length` numbers, whose order does not depend on the number of ranks.
    pub fn sum(&self, length: usize) -> OrderedSum<'_> {
        OrderedSum::new(self.0.world.as_ref(), self.count(), length)
    }

    /// Ends the joint work of the ranks. An error goes to all others, wherever they are.
    ///
    /// # Errors
    /// If one rank has one.
    pub fn part<T: Serialize + DeserializeOwned>(&self, outcome: Result<T>) -> Result<T> {
        if self.0.failed.get() {
            return outcome;
        }
        let mut all = self.gather(outcome)?;
        Ok(all.swap_remove(self.number()))
    }

    fn watch(&self) {
        let others = self.neighbours().filter(|(n, _)| *n != self.number());
        let others = others.map(|(number, hello)| (number, hello.process));
        if let Some(world) = &self.0.world {
            world.watch(others.collect(), Arc::clone(&self.0.step));
        }
    }
}

impl Rank {
    fn gather<T: Serialize + DeserializeOwned>(&self, own: Result<T>) -> Result<Vec<T>> {
        let Some(world) = &self.world else {
            return Ok(vec![own?]);
        };
        let said = serde_json::to_vec(&own).map_err(Error::engine)?;
        let all = world.gather(&said);
        // A rank that leaves with an error calls this from another place than the others, so their values may
        // be of another type.
        for (number, said) in all.iter().enumerate() {
            if let Err(error) = heard::<Result<IgnoredAny>>(said)? {
                self.failed.set(true);
                return Err(error.at(format!("rank {number}")));
            }
        }
        all.iter().map(|said| heard::<Result<T>>(said)?).collect()
    }
}

fn heard<T: DeserializeOwned>(said: &[u8]) -> Result<T> {
    serde_json::from_slice(said).map_err(Error::engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rank_does_everything_by_itself() {
        let ranks = Ranks::alone();
        assert_eq!((ranks.number(), ranks.count(), ranks.local()), (0, 1, 0));
        assert_eq!((ranks.on_machine(), ranks.on_cores()), (1, 1));
        let squares = ranks.deal(4, |i| Ok(Some(i * i))).unwrap();
        assert_eq!(squares, Some(vec![0, 1, 4, 9]));
        let stopped = ranks.deal(4, |i| Ok((i < 2).then_some(i))).unwrap();
        assert_eq!(stopped, None);
        let error = ranks.gather::<()>(Err(Error::run("no"))).unwrap_err();
        assert_eq!(error.to_string(), "no");
    }

    #[test]
    fn a_sum_goes_from_the_first_to_the_last() {
        // In another order the small ones would be lost.
        let arrays = [[1e8f32, 1.0], [-1e8, 2.0], [3.0, 4.0]];
        let ranks = Ranks::alone();
        let mut sum = ranks.sum(2);
        for array in arrays {
            sum.add(Some(array.to_vec()), 1);
        }
        assert_eq!(sum.total(), [3.0, 7.0]);
    }
}
