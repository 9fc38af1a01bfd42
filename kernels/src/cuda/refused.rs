//! What the driver refuses, as an error of this crate.

use crate::DeviceError;
use cudarc::driver::{DriverError, sys};

/// Whether the driver refused for want of memory.
pub(super) fn lacks_memory(error: &DeviceError) -> bool {
    let named = format!("{:?}", sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    match error {
        DeviceError::OutOfMemory { .. } => true,
        DeviceError::Cuda { reason, .. } => reason.starts_with(&named),
        _ => false,
    }
}

/// One line of what the driver refused.
pub(super) fn failed(what: &'static str, DriverError(code): DriverError) -> DeviceError {
    use sys::CUresult as Code;
    let advice = match code {
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
        | Code::CUDA_ERROR_LAUNCH_FAILED
        | Code::CUDA_ERROR_MISALIGNED_ADDRESS
        | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
        | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | Code::CUDA_ERROR_INVALID_PC
        | Code::CUDA_ERROR_LAUNCH_TIMEOUT
        | Code::CUDA_ERROR_ECC_UNCORRECTABLE
        | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | Code::CUDA_ERROR_ASSERT
        | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED => {
            "; the device is lost for this process: start again from the last checkpoint"
        }
        _ => "",
    };
    DeviceError::Cuda {
        what,
        // The name of the code, not the driver's text: asking for that needs a driver that works.
        reason: format!("{code:?}{advice}"),
    }
}
