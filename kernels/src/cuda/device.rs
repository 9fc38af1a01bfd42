//! The device: its one stream, its memory, and what it reports.

use super::lower::{COUNTERS, Launch, Maps, SCRATCH_BYTES};
use super::modules::Modules;
use super::refused::failed;
use super::spare::Spare;
use super::{CudaFacts, Precision, probe};
use crate::DeviceError;
use crate::memory::Gpu;
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, result, sys};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Words that kernels report what is wrong in: fault, step, value, position, limit.
const FAULT_WORDS: usize = 5;

/// Runs of a program after which its graph gets kernels of its own, in which maps of different code share
/// launches. The driver takes a second or two to compile those of a learner; a run saves some 12 µs by them
/// (set-up B on an H200). A learner that is trained again and again has that many runs after a minute; one of
/// the 64 that the preset `mnist` draws from has 1,000.
const JOIN_AFTER: u32 = 2000;

/// A GPU with one stream, on which everything happens in order.
pub struct Cuda {
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
    pub(super) precision: Precision,
    /// Whether warpgroups multiply (wgmma): on tensor cores of exactly capability 9.0.
    pub(super) wgmma: bool,
    modules: Mutex<Modules>,
    spare: Mutex<Spare>,
    /// Who holds it puts a program's launches into the stream: programs share scratch memory, so none may come between.
    queue: Mutex<()>,
    /// Whether programs are replayed as graphs, or launched kernel by kernel.
    pub(super) graphs: bool,
    /// Runs of a program after which its graph gets kernels of its own.
    pub(super) join_after: u32,
    pub(super) faults: u64,
    /// [`SCRATCH_BYTES`] for the kernels that run, then [`COUNTERS`] words.
    pub(super) scratch: u64,
}

impl Cuda {
    /// Counts the devices that the driver knows; 0 where there is no driver.
    pub fn count() -> usize {
        probe::count().unwrap_or(0)
    }

    /// Opens a device by its number, and makes sure that it computes: see
    /// [`Device::cuda`](crate::Device::cuda).
    pub fn open(ordinal: usize, precision: Precision) -> Result<Self, DeviceError> {
        let (context, stream) = probe::open(ordinal)?;
        let capability = context.compute_capability();
        let mut cuda = Self {
            wgmma: precision != Precision::Fp32 && capability.is_ok_and(|it| it == (9, 0)),
            context,
            stream,
            precision,
            modules: Mutex::default(),
            spare: Mutex::default(),
            queue: Mutex::default(),
            graphs: true,
            join_after: JOIN_AFTER,
            faults: 0,
            scratch: 0,
        };
        cuda.faults = cuda.allocate(4 * FAULT_WORDS, 0)?;
        cuda.zero(cuda.faults, 4 * FAULT_WORDS)?;
        cuda.scratch = cuda.allocate(SCRATCH_BYTES + 4 * COUNTERS, 0)?;
        cuda.zero(cuda.scratch + SCRATCH_BYTES as u64, 4 * COUNTERS)?;
        probe::compute(&cuda)?;
        Ok(cuda)
    }

    /// Launches every kernel by itself instead of replaying a graph. For tests: results have the same bits.
    pub fn without_graphs(mut self) -> Self {
        self.graphs = false;
        self
    }

    /// Joins all launches of a program that it can after that many runs, instead of 2,000. For tests and
    /// measurements: results have the same bits.
    pub fn joins_after(mut self, runs: u32) -> Self {
        self.join_after = runs;
        self
    }

    /// Keeps other programs' launches out of the stream.
    pub(super) fn queue(&self) -> MutexGuard<'_, ()> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it multiplies.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What there is to say about it.
    pub fn facts(&self) -> Result<CudaFacts, DeviceError> {
        probe::facts(self)
    }

    /// Memory of the device, not yet initialised. `held` is for the message if there is none.
    pub(super) fn allocate(&self, bytes: usize, held: usize) -> Result<u64, DeviceError> {
        self.bind()?;
        if let Some(address) = self.spare().take(bytes) {
            return Ok(address);
        }
        // SAFETY: the context is bound. The caller owns the memory, writes to it before it reads, and frees
        // it.
        let take = || unsafe { result::malloc_sync(bytes.max(1)) };
        let out = DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let taken = take().or_else(|error| {
            if error != out {
                return Err(error);
            }
            self.release_spare();
            take()
        });
        match taken {
            Ok(address) => Ok(address),
            Err(error) if error == out => {
                let free = self.context.mem_get_info().map_or(0, |(free, _)| free);
                Err(DeviceError::OutOfMemory {
                    wanted: bytes,
                    held,
                    device: format!("cuda ({free} free)"),
                })
            }
            Err(error) => Err(failed("allocation", error)),
        }
    }

    /// Gives memory back. It is kept for whoever wants as much, or goes back to the driver when all work
    /// queued before is done.
    ///
    /// # Safety
    /// It came from [`Cuda::allocate`] with as many bytes, and nobody uses it afterwards but work that is
    /// queued already.
    pub(super) unsafe fn free(&self, address: u64, bytes: usize) {
        if !self.spare().keep(address, bytes) {
            // SAFETY: the caller's promise.
            unsafe { self.release(address) };
        }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the spare memory back to the driver.
    pub(super) fn release_spare(&self) {
        let spare = self.spare().take_all();
        for address in spare {
            // SAFETY: allocated, and nobody else knows it any more.
            unsafe { self.release(address) };
        }
    }

    /// Gives memory to the driver when all work queued before is done.
    ///
    /// # Safety
    /// As [`Cuda::free`].
    pub(super) unsafe fn release(&self, address: u64) {
        let waited = self.stream.synchronize();
        // SAFETY: the caller's promise.
        let freed = unsafe { result::free_sync(address) };
        // A drop has nobody to tell; a lost device shows at the next call.
        let _ = waited.and(freed);
    }

    /// Waits for all queued work.
    pub(crate) fn wait(&self) -> Result<(), DeviceError> {
        let waited = self.stream.synchronize();
        waited.map_err(|error| failed("queued work", error))
    }

    /// Free and total bytes of the device.
    pub(crate) fn memory(&self) -> Result<[usize; 2], DeviceError> {
        let (free, total) = self
            .context
            .mem_get_info()
            .map_err(|error| failed("memory query", error))?;
        Ok([free, total])
    }

    /// The function of a launch; that of a map was loaded before.
    pub(super) fn function(&self, launch: &Launch) -> Result<CudaFunction, DeviceError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let found = launch.maps.as_ref().and_then(|maps| modules.maps(maps));
        match found {
            Some(function) => Ok(function),
            None => modules.function(&self.context, &launch.function),
        }
    }

    /// Loads the code of these maps, as far as it is not there yet.
    pub(super) fn load_maps<'a>(
        &self,
        maps: impl Iterator<Item = &'a Arc<Maps>>,
    ) -> Result<(), DeviceError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        modules.load_maps(&self.context, maps)
    }

    /// The driver's calls work on the context of the calling thread.
    pub(super) fn bind(&self) -> Result<(), DeviceError> {
        self.context
            .bind_to_thread()
            .map_err(|error| failed("context", error))
    }
}

impl Gpu for Cuda {
    fn write(&self, address: u64, source: &[u8]) -> Result<(), DeviceError> {
        if source.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the caller has checked the range. The driver has taken pageable memory when it returns.
        unsafe { result::memcpy_htod_async(address, source, self.stream.cu_stream()) }
            .map_err(|error| failed("copy to the device", error))
    }

    fn read(&self, address: u64, target: &mut [u8]) -> Result<(), DeviceError> {
        self.bind()?;
        let mut faults = [0_u32; FAULT_WORDS];
        let stream = self.stream.cu_stream();
        let copied =
            |r: Result<(), DriverError>| r.map_err(|error| failed("copy from the device", error));
        if !target.is_empty() {
            // SAFETY: the caller has checked the range; `target` lives until the stream was waited for.
            copied(unsafe { result::memcpy_dtoh_async(target, address, stream) })?;
        }
        // SAFETY: the device's own words, likewise.
        copied(unsafe { result::memcpy_dtoh_async(&mut faults, self.faults, stream) })?;
        self.wait()?;
        match describe_fault(faults) {
            None => Ok(()),
            Some(reason) => {
                self.zero(self.faults, 4 * FAULT_WORDS)?;
                Err(DeviceError::Fault(reason))
            }
        }
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the caller has checked both ranges.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
            .map_err(|error| failed("copy on the device", error))
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the caller has checked the range.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) }
            .map_err(|error| failed("fill", error))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        for address in [self.faults, self.scratch] {
            if address != 0 {
                // SAFETY: allocated in `open`; programs hold a handle of this device, so none is left.
                unsafe { self.release(address) };
            }
        }
        self.release_spare();
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({:?})", self.precision)
    }
}

/// Memory of a GPU.
pub(crate) struct CudaMemory {
    address: u64,
    bytes: usize,
    cuda: Arc<Cuda>,
}

impl CudaMemory {
    /// Not yet initialised. `held` is for the message if there is none.
    pub(crate) fn new(cuda: &Arc<Cuda>, bytes: usize, held: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            address: cuda.allocate(bytes, held)?,
            bytes,
            cuda: cuda.clone(),
        })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        // SAFETY: allocated when it was made, and this is its only owner.
        unsafe { self.cuda.free(self.address, self.bytes) };
    }
}

/// What the words say, as the CPU would say it.
fn describe_fault([fault, step, value, at, limit]: [u32; FAULT_WORDS]) -> Option<String> {
    let index = value.cast_signed();
    match fault {
        0 => None,
        1 => Some(format!(
            "step {step}: rows: index {index} at {at}, of {limit} rows"
        )),
        _ => Some(format!(
            "step {step}: windows: an offset lies outside of its window or image"
        )),
    }
}
