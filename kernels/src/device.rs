//! Devices and their memory.

use crate::cuda::{self, Cuda};
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
    /// There is no usable CUDA device.
    #[error("no usable CUDA device: {0}")]
    NoCuda(String),
    /// The CUDA driver refused or failed.
    #[error("CUDA device: {what}: {reason}")]
    Cuda {
        /// What was asked of it.
        what: &'static str,
        /// The driver's code, and what to do.
        reason: String,
    },
    /// A kernel met an index outside of its array; found when a result was read.
    #[error("{0}")]
    Fault(String),
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

/// How a CUDA device multiplies matrices, convolutions included; sums are in f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Exact f32, without tensor cores.
    Fp32,
    /// Tensor cores; operands rounded to 10 bits of mantissa.
    #[default]
    Tf32,
    /// Tensor cores; operands rounded to 7 bits of mantissa.
    Bf16,
}

/// What there is to say about a CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaFacts {
    /// As its maker calls it.
    pub name: String,
    /// The CUDA version that the driver serves: major and minor.
    pub driver: [u32; 2],
    /// Compute capability: major and minor.
    pub capability: [u32; 2],
    /// Bytes of its memory that are free.
    pub free_bytes: usize,
    /// Bytes of its memory.
    pub total_bytes: usize,
}

/// Something that runs programs. Cheap to clone: a handle.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    engine: Engine,
    held: AtomicUsize,
    peak: AtomicUsize,
}

enum Engine {
    Cpu(rayon::ThreadPool),
    Cuda(Arc<Cuda>),
}

impl Device {
    /// The processor, with that many threads (all cores if `None`). Results do not depend on the number.
    ///
    /// Programs may run on one device from several threads at once, and share its threads: then a run may return
    /// only when another one is over.
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
        Ok(Self::new(Engine::Cpu(pool)))
    }

    /// An NVIDIA GPU, by its number. The error says in one line why there is none, or why it cannot be used:
    /// a missing or broken driver library is no reason to panic.
    pub fn cuda(ordinal: usize, precision: Precision) -> Result<Self, DeviceError> {
        let cuda = Cuda::open(ordinal, precision, true)?;
        Ok(Self::new(Engine::Cuda(Arc::new(cuda))))
    }

    /// As [`Device::cuda`], but every kernel is launched by itself instead of replaying a graph. For tests:
    /// results have the same bits.
    pub fn cuda_without_graphs(ordinal: usize, precision: Precision) -> Result<Self, DeviceError> {
        let cuda = Cuda::open(ordinal, precision, false)?;
        Ok(Self::new(Engine::Cuda(Arc::new(cuda))))
    }

    fn new(engine: Engine) -> Self {
        Self(Arc::new(Inner {
            engine,
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }))
    }

    /// A short name for people: `cpu` or `cuda`.
    pub fn name(&self) -> &'static str {
        match &self.0.engine {
            Engine::Cpu(_) => "cpu",
            Engine::Cuda(_) => "cuda",
        }
    }

    /// How many threads of the processor run its kernels.
    pub fn threads(&self) -> usize {
        match &self.0.engine {
            Engine::Cpu(pool) => pool.current_num_threads(),
            Engine::Cuda(_) => 1,
        }
    }

    /// How it multiplies; `None` for the processor, which computes in the type that a program says.
    pub fn precision(&self) -> Option<Precision> {
        self.as_cuda().map(|cuda| cuda.precision())
    }

    /// What there is to say about it, if it is a CUDA device.
    pub fn cuda_facts(&self) -> Option<Result<CudaFacts, DeviceError>> {
        self.as_cuda().map(|cuda| cuda::facts(cuda))
    }

    /// Waits for all work queued so far. Nobody needs it but for timing: reading waits by itself.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.as_cuda().map_or(Ok(()), |cuda| cuda.wait())
    }

    /// Multiplies and adds f32 numbers in registers, on all threads at once and as fast as the processor can,
    /// and gives the number of floating-point operations: for a benchmark to know its ceiling. A thread does
    /// some hundred operations a round. `None` for a CUDA device.
    pub fn multiply_add(&self, rounds: u64) -> Option<u64> {
        match &self.0.engine {
            Engine::Cpu(pool) => {
                let all = pool.broadcast(|_| crate::cpu::peak::multiply_add(rounds));
                Some(all.into_iter().sum())
            }
            Engine::Cuda(_) => None,
        }
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

    /// Zeroed memory, aligned to 64 bytes. On the processor pages are taken from the system when first
    /// touched.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer, DeviceError> {
        let memory = match &self.0.engine {
            Engine::Cpu(_) => Memory::new(bytes).map(Storage::Host),
            Engine::Cuda(cuda) => {
                let address = cuda.allocate(bytes, self.held_bytes())?;
                let memory = DeviceMemory {
                    address,
                    cuda: cuda.clone(),
                };
                cuda.zero(address, bytes)?;
                Some(Storage::Device(memory))
            }
        };
        let memory = memory.ok_or_else(|| DeviceError::OutOfMemory {
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

    /// Runs work on the processor's threads.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.0.engine {
            Engine::Cpu(pool) => pool.install(|| crate::cpu::parallel::awake(work)),
            Engine::Cuda(_) => work(),
        }
    }

    pub(crate) fn as_cuda(&self) -> Option<&Arc<Cuda>> {
        match &self.0.engine {
            Engine::Cpu(_) => None,
            Engine::Cuda(cuda) => Some(cuda),
        }
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
    memory: Storage,
    bytes: usize,
    device: Device,
}

enum Storage {
    Host(Memory),
    Device(DeviceMemory),
}

/// Memory of a GPU.
struct DeviceMemory {
    address: u64,
    cuda: Arc<Cuda>,
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated when it was made, and this is its only owner.
        unsafe { self.cuda.free(self.address) };
    }
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
    pub fn write(&self, offset: usize, source: &[u8]) -> Result<(), DeviceError> {
        let here = self.view(offset, source.len());
        match &self.memory {
            Storage::Device(memory) => memory.cuda.write(here.address() as u64, source),
            Storage::Host(_) => {
                let to = here.pointer();
                // SAFETY: the range was checked; nobody holds references into a buffer, so they are apart.
                unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), to, source.len()) };
                Ok(())
            }
        }
    }

    /// Copies bytes from `offset` to the host, when all work queued before is done. Reports what kernels
    /// found wrong.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), DeviceError> {
        let here = self.view(offset, target.len());
        match &self.memory {
            Storage::Device(memory) => memory.cuda.read(here.address() as u64, target),
            Storage::Host(_) => {
                let from = here.pointer();
                // SAFETY: as for `write`.
                unsafe { std::ptr::copy_nonoverlapping(from, target.as_mut_ptr(), target.len()) };
                Ok(())
            }
        }
    }

    /// Sets a range to zero.
    ///
    /// # Panics
    /// If the range does not fit.
    pub fn zero(&self, offset: usize, bytes: usize) -> Result<(), DeviceError> {
        let here = self.view(offset, bytes);
        match &self.memory {
            Storage::Device(memory) => memory.cuda.zero(here.address() as u64, bytes),
            Storage::Host(_) => {
                // SAFETY: the range was checked.
                unsafe { std::ptr::write_bytes(here.pointer(), 0, bytes) };
                Ok(())
            }
        }
    }

    /// Copies bytes from a buffer of the same device, without a way round by the host.
    ///
    /// # Panics
    /// If they do not fit, or overlap, or the buffer is on another device.
    pub fn copy_from(
        &self,
        offset: usize,
        source: &Self,
        from: usize,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let (to, from) = (self.view(offset, bytes), source.view(from, bytes));
        let overlap =
            to.address() < from.address() + bytes && from.address() < to.address() + bytes;
        assert!(
            !overlap,
            "a copy of {bytes} bytes that overlap their target"
        );
        match (&self.memory, &source.memory) {
            (Storage::Device(memory), Storage::Device(other))
                if Arc::ptr_eq(&memory.cuda, &other.cuda) =>
            {
                memory
                    .cuda
                    .copy(to.address() as u64, from.address() as u64, bytes)
            }
            (Storage::Host(_), Storage::Host(_)) => {
                // SAFETY: the ranges were checked.
                unsafe { std::ptr::copy_nonoverlapping(from.pointer(), to.pointer(), bytes) };
                Ok(())
            }
            _ => panic!("a copy from {source:?} to {self:?}: they must be on one device"),
        }
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

impl<'a> View<'a> {
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
        self.buffer.view(self.offset + offset, bytes)
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies host bytes in: see [`Buffer::write`].
    ///
    /// # Panics
    /// If they are more than the view has.
    pub fn write(&self, source: &[u8]) -> Result<(), DeviceError> {
        assert!(
            source.len() <= self.bytes,
            "{} bytes to {self:?}",
            source.len()
        );
        self.buffer.write(self.offset, source)
    }

    /// Copies bytes to the host, when all work queued before is done: see [`Buffer::read`].
    ///
    /// # Panics
    /// If they are more than the view has.
    pub fn read(&self, target: &mut [u8]) -> Result<(), DeviceError> {
        assert!(
            target.len() <= self.bytes,
            "{} bytes of {self:?}",
            target.len()
        );
        self.buffer.read(self.offset, target)
    }

    /// Copies all bytes of a view of the same size on the same device: see [`Buffer::copy_from`].
    ///
    /// # Panics
    /// If sizes differ, or the views overlap, or are on two devices.
    pub fn copy_from(&self, source: View<'_>) -> Result<(), DeviceError> {
        assert_eq!(self.bytes, source.bytes, "a copy between views");
        let buffer = self.buffer;
        buffer.copy_from(self.offset, source.buffer, source.offset, self.bytes)
    }

    pub(crate) fn address(&self) -> usize {
        match &self.buffer.memory {
            Storage::Host(memory) => memory.pointer().addr() + self.offset,
            Storage::Device(memory) => memory.address as usize + self.offset,
        }
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.address()..self.address() + self.bytes
    }

    /// Whether that device can work on it: any processor on host memory, a GPU on its own.
    pub(crate) fn is_for(&self, device: &Device) -> bool {
        match (&self.buffer.memory, device.as_cuda()) {
            (Storage::Host(_), None) => true,
            (Storage::Device(memory), Some(cuda)) => Arc::ptr_eq(&memory.cuda, cuda),
            _ => false,
        }
    }

    /// Where it lies in host memory.
    ///
    /// # Panics
    /// If it is on a GPU.
    pub(crate) fn pointer(&self) -> *mut u8 {
        match &self.buffer.memory {
            // SAFETY: `Buffer::view` checked that the offset lies within the allocation.
            Storage::Host(memory) => unsafe { memory.pointer().add(self.offset) },
            Storage::Device(_) => {
                panic!("checked by `Program::run`: the processor has host memory")
            }
        }
    }
}
