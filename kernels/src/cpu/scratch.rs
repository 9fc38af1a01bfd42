//! Memory that every thread of a device keeps for intermediate values.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

/// Bytes per thread. Pages of it that no kernel touches take no room.
pub(super) const BYTES: usize = 1 << 20;

const LAYOUT: Layout = match Layout::from_size_align(BYTES, 64) {
    Ok(layout) => layout,
    Err(_) => panic!("a size and a power of two"),
};

struct Scratch(NonNull<u8>);

impl Scratch {
    fn new() -> Self {
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { alloc_zeroed(LAYOUT) };
        Self(NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(LAYOUT)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.0.as_ptr(), LAYOUT) }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Called when a thread starts, so that running programs allocate nothing.
pub(crate) fn reserve() {
    with(|_| ());
}

/// Lends this thread's scratch: [`BYTES`] initialised bytes, aligned to 64. `work` must not lend it again.
pub(super) fn with<R>(work: impl FnOnce(*mut u8) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| work(scratch.0.as_ptr()))
}
