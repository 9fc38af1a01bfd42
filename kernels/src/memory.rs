//! Zeroed memory, of which pages that nobody touches take no room.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of all memory: a cache line, and the widest vector.
const ALIGNMENT: usize = 64;

/// Memory of its own, initialised and aligned to a cache line.
pub(crate) struct Memory {
    base: NonNull<u8>,
    layout: Layout,
    start: NonNull<u8>,
}

// SAFETY: it owns what it points to.
unsafe impl Send for Memory {}

impl Memory {
    /// `None` if there is not enough.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        // The system's allocator gives untouched pages for small alignments only, and clears the memory by
        // writing to it for larger ones: so the alignment is made by hand.
        let layout = Layout::from_size_align(bytes.checked_add(ALIGNMENT)?, 1).ok()?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skip = base.align_offset(ALIGNMENT);
        debug_assert!(skip < ALIGNMENT, "bytes can be aligned to anything");
        // SAFETY: there are `ALIGNMENT` bytes more than wanted.
        let start = unsafe { base.add(skip) };
        Some(Self {
            base,
            layout,
            start,
        })
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
