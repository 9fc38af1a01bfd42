//! Whether there is a usable device. Nothing here panics: the bindings would, where the driver library is
//! missing, so its presence is asked for first.

use super::CudaFacts;
use super::args::{FillArgs, place};
use super::device::Cuda;
use super::lower::Launch;
use super::ready::launch;
use super::refused::failed;
use crate::DeviceError;
use crate::memory::Gpu;
use cudarc::driver::{CudaContext, CudaStream, DriverError, sys};
use std::sync::Arc;

/// Compute capability that the kernels are compiled for.
const LEAST: (i32, i32) = (8, 0);

/// The first driver that takes their PTX (version 8.0): that of CUDA 12.0.
const LEAST_DRIVER: i32 = 12_000;

fn none(reason: impl Into<String>) -> DeviceError {
    DeviceError::NoCuda(reason.into())
}

/// The context of a device that should be usable, and a stream of its own.
pub(super) fn open(ordinal: usize) -> Result<(Arc<CudaContext>, Arc<CudaStream>), DeviceError> {
    let context = context(ordinal)?;
    // SAFETY: nothing was allocated yet. One stream orders all work, so no events are needed.
    unsafe { context.disable_event_tracking() };
    let stream = context
        .new_stream()
        .map_err(|error| refused("no stream", error))?;
    Ok((context, stream))
}

/// How many devices the driver knows: at least one.
pub(super) fn count() -> Result<usize, DeviceError> {
    // SAFETY: it opens a library that the system names; nothing else is called.
    if !unsafe { sys::is_culib_present() } {
        return Err(none("no CUDA driver library found"));
    }
    // SAFETY: the library is there. A broken one may lack even this symbol, which the call would panic at.
    if !unsafe { has_symbols() } {
        return Err(none("the CUDA driver library is broken or too old"));
    }
    let count = CudaContext::device_count().map_err(|error| refused("the driver", error))?;
    if count < 1 {
        return Err(none("the driver knows no device"));
    }
    Ok(count as usize)
}

fn context(ordinal: usize) -> Result<Arc<CudaContext>, DeviceError> {
    let count = count()?;
    if ordinal >= count {
        return Err(none(format!("device {ordinal} of {count}")));
    }
    let driver = driver_version()?;
    if driver < LEAST_DRIVER {
        let [major, minor] = [driver / 1000, driver % 1000 / 10];
        return Err(none(format!(
            "the driver serves CUDA {major}.{minor}; 12.0 is needed"
        )));
    }
    let context = CudaContext::new(ordinal).map_err(|error| refused("no context", error))?;
    let (major, minor) = context
        .compute_capability()
        .map_err(|error| refused("no capability", error))?;
    if (major, minor) < LEAST {
        let reason = format!(
            "compute capability {major}.{minor}; {}.{} is needed",
            LEAST.0, LEAST.1
        );
        return Err(none(reason));
    }
    Ok(context)
}

/// Whether the library has every function that this crate calls.
///
/// # Safety
/// The library must be there.
unsafe fn has_symbols() -> bool {
    const NEEDED: [&[u8]; 39] = [
        b"cuInit\0",
        b"cuDriverGetVersion\0",
        b"cuDeviceGet\0",
        b"cuDeviceGetCount\0",
        b"cuDeviceGetName\0",
        b"cuDeviceGetAttribute\0",
        b"cuDevicePrimaryCtxRetain\0",
        b"cuDevicePrimaryCtxRelease_v2\0",
        b"cuCtxSetCurrent\0",
        b"cuCtxGetCurrent\0",
        b"cuStreamCreate\0",
        b"cuStreamDestroy_v2\0",
        b"cuStreamSynchronize\0",
        b"cuEventCreate\0",
        b"cuEventDestroy_v2\0",
        b"cuEventRecord\0",
        b"cuEventSynchronize\0",
        b"cuEventElapsedTime\0",
        b"cuStreamWaitEvent\0",
        b"cuMemAlloc_v2\0",
        b"cuMemFree_v2\0",
        b"cuMemGetInfo_v2\0",
        b"cuMemsetD8Async\0",
        b"cuMemcpyHtoDAsync_v2\0",
        b"cuMemcpyDtoHAsync_v2\0",
        b"cuMemcpyDtoDAsync_v2\0",
        b"cuModuleLoadData\0",
        b"cuModuleLoadDataEx\0",
        b"cuModuleUnload\0",
        b"cuModuleGetFunction\0",
        b"cuFuncSetAttribute\0",
        b"cuLaunchKernel\0",
        b"cuGraphCreate\0",
        b"cuGraphAddKernelNode_v2\0",
        b"cuGraphInstantiateWithFlags\0",
        b"cuGraphUpload\0",
        b"cuGraphLaunch\0",
        b"cuGraphExecDestroy\0",
        b"cuGraphDestroy\0",
    ];
    // SAFETY: the caller's promise.
    let library = unsafe { sys::culib() };
    NEEDED.iter().all(|&name| {
        // SAFETY: the symbol is only looked up.
        unsafe { library.get::<*const ()>(name) }.is_ok()
    })
}

fn driver_version() -> Result<i32, DeviceError> {
    let mut version = 0;
    // SAFETY: the library has the symbol; it writes one number.
    let code = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(version),
        code => Err(refused("no driver version", DriverError(code))),
    }
}

fn refused(what: &str, DriverError(code): DriverError) -> DeviceError {
    let why = match code {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => "there is no device",
        sys::CUresult::CUDA_ERROR_STUB_LIBRARY => "it is the toolkit's stub, not a driver",
        sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => "library and kernel module differ",
        _ => "",
    };
    let colon = if why.is_empty() { "" } else { ": " };
    none(format!("{what}: {code:?}{colon}{why}"))
}

/// Runs one small kernel and looks at what it wrote.
pub(super) fn compute(cuda: &Cuda) -> Result<(), DeviceError> {
    const WORDS: usize = 32;
    let address = cuda.allocate(8 + 4 * WORDS, 0)?;
    let run = || {
        cuda.write(address, &(address + 8).to_le_bytes())?;
        let args = FillArgs {
            output: place(0, 0),
            bytes: 4 * WORDS as u64,
        };
        let probe = Launch::new("probe", 1, WORDS as u32, &args);
        launch(cuda, &probe, address)?;
        let mut bytes = [0; 4 * WORDS];
        cuda.read(address + 8, &mut bytes)?;
        let right = |(i, word): (usize, &[u8; 4])| {
            u32::from_le_bytes(*word) == (i as u32).wrapping_mul(2_654_435_761).wrapping_add(7)
        };
        let all = bytes.as_chunks::<4>().0.iter().enumerate().all(right);
        if all {
            Ok(())
        } else {
            Err(none("a test kernel gave wrong results"))
        }
    };
    let result = run();
    // SAFETY: allocated above, used by nobody else.
    unsafe { cuda.release(address) };
    result
}

/// What there is to say about a device.
pub(super) fn facts(cuda: &Cuda) -> Result<CudaFacts, DeviceError> {
    let fact = |error| failed("device query", error);
    let (major, minor) = cuda.context.compute_capability().map_err(fact)?;
    let [free, total] = cuda.memory()?;
    let driver = driver_version()?;
    Ok(CudaFacts {
        name: cuda.context.name().map_err(fact)?,
        driver: [driver / 1000, driver % 1000 / 10].map(i32::cast_unsigned),
        capability: [major, minor].map(i32::cast_unsigned),
        free_bytes: free,
        total_bytes: total,
    })
}
