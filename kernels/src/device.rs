//! Devices and their memory.

use crate::memory::Memory;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What can go wrong with a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device has not enough memory.
    #[error(
        "out of memory: {wanted} bytes wanted on {device}, {held} already held by this program"
    )]
    OutOfMemory {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes held.
        held: usize,
        /// The device's name.
        device: String,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

/// Something that runs programs. Cheap to clone: a handle.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    pool: rayon::ThreadPool,
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl Device {
    /// The processor, with that many threads (all cores if `None`). Results do not depend on the number.
    pub fn cpu(threads: Option<usize>) -> Result<Self, DeviceError> {
        let threads =
            threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("kernels-{i}"))
            .start_handler(|_| crate::cpu::scratch::reserve())
            .build()
            .map_err(|e| DeviceError::Threads {
                threads,
                reason: e.to_string(),
            })?;
        Ok(Self(Arc::new(Inner {
            pool,
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        })))
    }

    /// A short name for people: `cpu`.
    pub fn name(&self) -> &'static str {
        "cpu"
    }

    /// How many threads run its kernels.
    pub fn threads(&self) -> usize {
        self.0.pool.current_num_threads()
    }

    /// Bytes of all buffers that exist now.
    pub fn held_bytes(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// The most bytes that existed at once since the start or the last [`Device::reset_peak`].
    pub fn peak_bytes(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Starts measuring the peak anew.
    pub fn reset_peak(&self) {
        self.0.peak.store(self.held_bytes(), Ordering::Relaxed);
    }

    /// Zeroed memory, aligned to 64 bytes. Pages are taken from the system when first touched.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer, DeviceError> {
        let memory = Memory::new(bytes).ok_or_else(|| DeviceError::OutOfMemory {
            wanted: bytes,
            held: self.held_bytes(),
            device: self.name().into(),
        })?;
        let held = self.0.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.0.peak.fetch_max(held, Ordering::Relaxed);
        Ok(Buffer {
            memory,
            bytes,
            device: self.clone(),
        })
    }

    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.pool.install(work)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {} threads)", self.name(), self.threads())
    }
}

/// Memory of a device. As on a GPU nobody holds references into it: it is written and read by copies,
/// and by programs. A buffer is `Send` but not `Sync`: copies and programs that reach it through
/// `&Buffer` stay on one thread at a time.
pub struct Buffer {
    memory: Memory,
    bytes: usize,
    device: Device,
}

impl Buffer {
    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device it lives on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Copies host bytes to `offset`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&self, offset: usize, source: &[u8]) {
        self.view(offset, source.len());
        // SAFETY: the range was checked; `source` cannot overlap, for nobody holds references into a buffer.
        unsafe {
            std::ptr::copy_nonoverlapping(
                source.as_ptr(),
                self.memory.pointer().add(offset),
                source.len(),
            );
        }
    }

    /// Copies bytes from `offset` to the host.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn read(&self, offset: usize, target: &mut [u8]) {
        self.view(offset, target.len());
        // SAFETY: as for `write`.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.memory.pointer().add(offset),
                target.as_mut_ptr(),
                target.len(),
            );
        }
    }

    /// Sets a range to zero.
    ///
    /// # Panics
    /// If the range does not fit.
    pub fn zero(&self, offset: usize, bytes: usize) {
        self.view(offset, bytes);
        // SAFETY: the range was checked.
        unsafe { std::ptr::write_bytes(self.memory.pointer().add(offset), 0, bytes) }
    }

    /// A range of it, for a program to work on.
    ///
    /// # Panics
    /// If the range does not fit.
    pub fn view(&self, offset: usize, bytes: usize) -> View<'_> {
        let end = offset.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "bytes {offset}+{bytes} of a buffer of {}",
            self.bytes
        );
        View {
            buffer: self,
            offset,
            bytes,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes on {})", self.bytes, self.device.name())
    }
}

/// A range of a [`Buffer`].
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    buffer: &'a Buffer,
    offset: usize,
    bytes: usize,
}

impl View<'_> {
    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn address(&self) -> usize {
        self.pointer().addr()
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.address()..self.address() + self.bytes
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        // SAFETY: `Buffer::view` checked that the offset lies within the allocation.
        unsafe { self.buffer.memory.pointer().add(self.offset) }
    }
}
