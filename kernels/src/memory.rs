//! Zeroed host memory whose untouched pages take no room, and views of the memory of any device.

use crate::DeviceError;
use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

/// Alignment of all memory, in bytes: a cache line, which is also the widest vector.
const ALIGNMENT: usize = 64;

/// Bytes from which memory is mapped from the system, so that it can have huge pages. It is the size of two
/// of Linux's huge pages.
const LARGE: usize = 4 << 20;

/// Memory that is initialised and aligned to a cache line.
pub(crate) struct HostMemory {
    start: NonNull<u8>,
    #[expect(dead_code, reason = "it owns the memory")]
    held: Held,
}

/// Where memory comes from.
enum Held {
    Pages(#[expect(dead_code, reason = "it is there to be dropped")] MmapMut),
    Block { base: NonNull<u8>, layout: Layout },
}

// SAFETY: it alone owns its memory, and neither a block nor a mapping belongs to a thread.
unsafe impl Send for HostMemory {}

impl HostMemory {
    /// `None` if there is not enough.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        if bytes < LARGE {
            Self::block(bytes)
        } else {
            Self::pages(bytes)
        }
    }

    fn block(bytes: usize) -> Option<Self> {
        // The system's allocator gives untouched pages for small alignments only, and clears the memory by
        // writing to it for larger ones: so the alignment is made by hand.
        let layout = Layout::from_size_align(bytes.checked_add(ALIGNMENT)?, 1).ok()?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skip = base.align_offset(ALIGNMENT);
        debug_assert!(skip < ALIGNMENT, "bytes can be aligned to anything");
        // SAFETY: the block has `ALIGNMENT` bytes more than wanted, and `skip` is less than that.
        let start = unsafe { base.add(skip) };
        let held = Held::Block { base, layout };
        Some(Self { start, held })
    }

    /// Maps memory, in huge pages where the system has them: a first touch then takes 2 MiB, not 4 KiB.
    fn pages(bytes: usize) -> Option<Self> {
        let mut pages = MmapMut::map_anon(bytes).ok()?;
        #[cfg(target_os = "linux")]
        // If the system refuses huge pages, memory is only slower.
        pages.advise(memmap2::Advice::HugePage).ok();
        let start = NonNull::new(pages.as_mut_ptr())?;
        let held = Held::Pages(pages);
        Some(Self { start, held })
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Self::Block { base, layout } = self {
            // SAFETY: allocated in `HostMemory::block` with this layout.
            unsafe { dealloc(base.as_ptr(), *layout) }
        }
    }
}

/// What copies need from the GPU that a view is on. Callers have checked addresses and sizes.
pub(crate) trait Gpu {
    /// Copies from the host; `source` is free again when this returns.
    fn write(&self, to: u64, source: &[u8]) -> Result<(), DeviceError>;

    /// Copies to the host when all work queued before is done, and reports what kernels found wrong.
    fn read(&self, from: u64, target: &mut [u8]) -> Result<(), DeviceError>;

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), DeviceError>;

    fn zero(&self, at: u64, bytes: usize) -> Result<(), DeviceError>;
}

/// A range of a [`Buffer`](crate::Buffer). It stays on one thread, because a buffer does.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// In host memory, or an address of the GPU.
    start: *mut u8,
    bytes: usize,
    /// The GPU that holds it; `None` if it is host memory.
    gpu: Option<&'a dyn Gpu>,
}

impl<'a> View<'a> {
    /// A view of `bytes` bytes from `start` on, which must live for `'a`.
    pub(crate) fn new(start: *mut u8, bytes: usize, gpu: Option<&'a dyn Gpu>) -> Self {
        Self { start, bytes, gpu }
    }

    /// A range of it.
    ///
    /// # Panics
    /// If the range does not fit.
    pub fn part(&self, offset: usize, bytes: usize) -> View<'a> {
        let end = offset.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "bytes {offset}+{bytes} of {self:?}"
        );
        Self {
            start: self.start.wrapping_add(offset),
            bytes,
            gpu: self.gpu,
        }
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies host bytes to its start.
    ///
    /// # Panics
    /// If they are more than the view has.
    pub fn write(&self, source: &[u8]) -> Result<(), DeviceError> {
        let to = self.part(0, source.len());
        if let Some(gpu) = to.gpu {
            return gpu.write(to.address() as u64, source);
        }
        // SAFETY: `part` checked the range. Nobody holds references into a buffer, so `source` lies outside
        // it.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), to.start, source.len()) };
        Ok(())
    }

    /// Copies bytes from its start to the host, when all work queued before is done. Reports what kernels
    /// found wrong.
    ///
    /// # Panics
    /// If they are more than the view has.
    pub fn read(&self, target: &mut [u8]) -> Result<(), DeviceError> {
        let from = self.part(0, target.len());
        if let Some(gpu) = from.gpu {
            return gpu.read(from.address() as u64, target);
        }
        // SAFETY: as for `write`.
        unsafe { std::ptr::copy_nonoverlapping(from.start, target.as_mut_ptr(), target.len()) };
        Ok(())
    }

    /// Copies all bytes of a view of the same size on the same device, without a detour through the host.
    ///
    /// # Panics
    /// If sizes differ, or the views overlap, or are on two devices.
    pub fn copy_from(&self, source: View<'_>) -> Result<(), DeviceError> {
        assert_eq!(self.bytes, source.bytes, "a copy between views");
        assert!(
            !self.overlaps(&source),
            "a copy of {} bytes that overlap their target",
            self.bytes
        );
        assert!(
            self.is_on(source.gpu),
            "a copy from {source:?} to {self:?}: they must be on one device"
        );
        if let Some(gpu) = self.gpu {
            return gpu.copy(self.address() as u64, source.address() as u64, self.bytes);
        }
        // SAFETY: both have as many bytes, and were found apart.
        unsafe { std::ptr::copy_nonoverlapping(source.start, self.start, self.bytes) };
        Ok(())
    }

    /// Sets all bytes to zero.
    pub(crate) fn zero(&self) -> Result<(), DeviceError> {
        if let Some(gpu) = self.gpu {
            return gpu.zero(self.address() as u64, self.bytes);
        }
        // SAFETY: the view lies inside its buffer, and nobody holds references into a buffer.
        unsafe { std::ptr::write_bytes(self.start, 0, self.bytes) };
        Ok(())
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(crate) fn address(&self) -> usize {
        self.start.addr()
    }

    /// Whether a byte is in both.
    pub(crate) fn overlaps(&self, other: &View<'_>) -> bool {
        let range = |view: &View<'_>| view.address()..view.address() + view.bytes;
        overlap(&range(self), &range(other))
    }

    /// Whether its memory is that GPU's, or the host's if there is none.
    pub(crate) fn is_on(&self, gpu: Option<&dyn Gpu>) -> bool {
        match (self.gpu, gpu) {
            (None, None) => true,
            (Some(one), Some(other)) => std::ptr::addr_eq(one, other),
            _ => false,
        }
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.gpu.map_or("cpu", |_| "cuda");
        write!(f, "View({} bytes on {name})", self.bytes)
    }
}

/// Whether both ranges hold some number.
pub(crate) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}
