//! Memory that every thread of a device keeps for intermediate values.

use crate::memory::HostMemory;
use std::cell::RefCell;

/// Bytes per thread. Pages that no kernel touches take no room.
pub(super) const BYTES: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<HostMemory> = RefCell::new(HostMemory::new(BYTES).expect("memory for a thread's scratch"));
}

/// Called when a thread starts, so that programs allocate nothing while they run.
pub(crate) fn reserve() {
    with(|_| ());
}

/// Lends this thread's scratch: [`BYTES`] initialised bytes, aligned to 64. Panics if `work` borrows it
/// again.
pub(super) fn with<R>(work: impl FnOnce(*mut u8) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| work(scratch.pointer()))
}
