//! Devices and their memory.

use crate::bound::{Bound, Lap, Memory, Step};
use crate::cpu::{self, Cpu};
use crate::cuda::{self, Cuda, CudaMemory, Precision};
use crate::host::host_free_bytes;
use crate::memory::{Gpu, HostMemory};
use crate::{DeviceError, ProgramError, View};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that runs programs. Cheap to clone: a handle.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    engine: Engine,
    held: AtomicUsize,
    peak: AtomicUsize,
}

enum Engine {
    Cpu(Cpu),
    Cuda(Arc<Cuda>),
}

impl Device {
    /// The processor, with that many threads (all cores if `None`). Results do not depend on the number.
    ///
    /// Programs may run on one device from several threads at once. They share the device's threads, so a run
    /// may return only when another one is over. [`Cpu::new`] also takes a level of vector instructions.
    pub fn cpu(threads: Option<usize>) -> Result<Self, DeviceError> {
        Ok(Cpu::new(threads, None)?.into())
    }

    /// An NVIDIA GPU, by its number. The error says in one line why there is none, or why it cannot be used:
    /// a missing or broken driver library is no reason to panic.
    pub fn cuda(ordinal: usize, precision: Precision) -> Result<Self, DeviceError> {
        Ok(Cuda::open(ordinal, precision)?.into())
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
            Engine::Cpu(cpu) => cpu.threads(),
            Engine::Cuda(_) => 1,
        }
    }

    /// What only the processor has.
    pub fn as_cpu(&self) -> Option<&Cpu> {
        match &self.0.engine {
            Engine::Cpu(cpu) => Some(cpu),
            Engine::Cuda(_) => None,
        }
    }

    /// What only a CUDA device has.
    pub fn as_cuda(&self) -> Option<&Cuda> {
        match &self.0.engine {
            Engine::Cpu(_) => None,
            Engine::Cuda(cuda) => Some(cuda),
        }
    }

    /// Waits for all work queued so far. Only timing needs it: reading waits by itself.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.as_cuda().map_or(Ok(()), Cuda::wait)
    }

    /// Bytes that are free now: of a GPU's memory, or as [`host_free_bytes`] counts. `None` if unknown.
    pub fn free_bytes(&self) -> Option<usize> {
        match &self.0.engine {
            Engine::Cpu(_) => host_free_bytes(),
            Engine::Cuda(cuda) => cuda.memory().ok().map(|[free, _]| free),
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
            Engine::Cpu(_) => HostMemory::new(bytes).map(Storage::Host),
            Engine::Cuda(cuda) => {
                let memory = CudaMemory::new(cuda, bytes, self.held_bytes())?;
                cuda.zero(memory.address(), bytes)?;
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

    /// Does work on the threads of the CPU device; for a GPU, on the calling thread.
    fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.0.engine {
            Engine::Cpu(cpu) => cpu.install(work),
            Engine::Cuda(_) => work(),
        }
    }

    /// The GPU whose memory it works on; `None` if it works on the host's.
    pub(crate) fn gpu(&self) -> Option<&dyn Gpu> {
        self.as_cuda().map(|cuda| cuda as &dyn Gpu)
    }

    /// Makes a program ready to run on it.
    pub(crate) fn prepare(
        &self,
        slots: usize,
        steps: &[Step],
        bound: &[Bound],
    ) -> Result<Ready, ProgramError> {
        match &self.0.engine {
            Engine::Cpu(cpu) => Ok(Ready::Cpu(cpu::Ready::new(steps, cpu)?)),
            Engine::Cuda(cuda) => {
                let ready = cuda::Ready::new(cuda, slots, steps, bound)?;
                Ok(Ready::Cuda(Mutex::new(ready)))
            }
        }
    }
}

impl From<Cpu> for Device {
    fn from(cpu: Cpu) -> Self {
        Self::new(Engine::Cpu(cpu))
    }
}

impl From<Cuda> for Device {
    fn from(cuda: Cuda) -> Self {
        Self::new(Engine::Cuda(Arc::new(cuda)))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {} threads)", self.name(), self.threads())
    }
}

/// What a device made of a program.
#[derive(Debug)]
pub(crate) enum Ready {
    Cpu(cpu::Ready),
    /// One run is queued at a time.
    Cuda(Mutex<cuda::Ready>),
}

impl Ready {
    /// Whether a device can run it.
    pub(crate) fn is_for(&self, device: &Device) -> bool {
        match (self, &device.0.engine) {
            (Self::Cpu(ready), Engine::Cpu(cpu)) => ready.is_for(cpu),
            (Self::Cuda(ready), Engine::Cuda(cuda)) => lock(ready).is_for(cuda),
            _ => false,
        }
    }

    /// Runs all steps on that device.
    pub(crate) fn run(
        &self,
        device: &Device,
        bound: &[Bound],
        views: &[View<'_>],
    ) -> Result<(), ProgramError> {
        match self {
            Self::Cpu(ready) => {
                let memory = Memory(views);
                device.install(|| ready.run(bound, &memory))
            }
            Self::Cuda(ready) => Ok(lock(ready).run(&addresses(views))?),
        }
    }

    /// Runs all steps on that device, with a lap for each.
    pub(crate) fn time(
        &self,
        device: &Device,
        bound: &[Bound],
        views: &[View<'_>],
    ) -> Result<Vec<Lap>, ProgramError> {
        match self {
            Self::Cpu(ready) => {
                let memory = Memory(views);
                device.install(|| ready.time(bound, &memory))
            }
            Self::Cuda(ready) => Ok(lock(ready).time(&addresses(views))?),
        }
    }
}

fn lock(ready: &Mutex<cuda::Ready>) -> MutexGuard<'_, cuda::Ready> {
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

fn addresses(views: &[View<'_>]) -> Vec<u64> {
    views.iter().map(|view| view.address() as u64).collect()
}

/// Memory of a device. Nobody holds references into it, on the host as on a GPU: copies and programs write
/// and read it. A buffer is `Send` but not `Sync`: copies and programs that reach it through `&Buffer` stay
/// on one thread at a time.
pub struct Buffer {
    memory: Storage,
    bytes: usize,
    device: Device,
}

enum Storage {
    Host(HostMemory),
    Device(CudaMemory),
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
        self.view(offset, source.len()).write(source)
    }

    /// Copies bytes from `offset` to the host, when all work queued before is done. Reports what kernels
    /// found wrong.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), DeviceError> {
        self.view(offset, target.len()).read(target)
    }

    /// Sets a range to zero.
    ///
    /// # Panics
    /// If the range does not fit.
    pub fn zero(&self, offset: usize, bytes: usize) -> Result<(), DeviceError> {
        self.view(offset, bytes).zero()
    }

    /// Copies bytes from a buffer of the same device, without a detour through the host.
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
        self.view(offset, bytes).copy_from(source.view(from, bytes))
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
        let start = match &self.memory {
            Storage::Host(memory) => memory.pointer(),
            Storage::Device(memory) => std::ptr::without_provenance_mut(memory.address() as usize),
        };
        View::new(start.wrapping_add(offset), bytes, self.device.gpu())
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
