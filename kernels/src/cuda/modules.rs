//! The device code that ships in this library, loaded family by family when a program first needs it.

use super::lower::Maps;
use super::refused::failed;
use crate::DeviceError;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, sys};
use cudarc::nvrtc::Ptx;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;

/// PTX by family. The driver compiles it for its device when it is loaded, and keeps the result on disk.
const FAMILIES: [(&str, &str); 11] = [
    ("shapes", include_str!("../../ptx/shapes.ptx")),
    ("window", include_str!("../../ptx/window.ptx")),
    ("random", include_str!("../../ptx/random.ptx")),
    ("reversible", include_str!("../../ptx/reversible.ptx")),
    ("gemm_few", include_str!("../../ptx/gemm_few.ptx")),
    ("gemm_combine", include_str!("../../ptx/gemm_combine.ptx")),
    ("gemm_fp32", include_str!("../../ptx/gemm_fp32.ptx")),
    ("gemm_tf32", include_str!("../../ptx/gemm_tf32.ptx")),
    ("gemm_bf16", include_str!("../../ptx/gemm_bf16.ptx")),
    (
        "gemm_tf32_wgmma",
        include_str!("../../ptx/gemm_tf32_wgmma.ptx"),
    ),
    (
        "gemm_bf16_wgmma",
        include_str!("../../ptx/gemm_bf16_wgmma.ptx"),
    ),
];

/// The elementary functions that the code of maps calls.
const FUNCTIONS: &str = include_str!("../../ptx/functions.ptx");

/// The family that has a function.
fn family(function: &str) -> &'static str {
    let tests = [
        ("_tf32_wgmma", "gemm_tf32_wgmma"),
        ("_bf16_wgmma", "gemm_bf16_wgmma"),
        ("_tf32", "gemm_tf32"),
        ("_bf16", "gemm_bf16"),
        ("_fp32", "gemm_fp32"),
        ("_few", "gemm_few"),
        ("gemm_combine", "gemm_combine"),
        ("window_", "window"),
        ("random_", "random"),
        ("reversible_", "reversible"),
    ];
    let found = tests.iter().find(|(part, _)| function.contains(part));
    found.map_or("shapes", |&(_, family)| family)
}

/// What has been loaded.
#[derive(Default)]
pub(super) struct Modules {
    loaded: HashMap<&'static str, Arc<CudaModule>>,
    functions: HashMap<String, CudaFunction>,
    maps: HashMap<Arc<Maps>, CudaFunction>,
}

impl Modules {
    pub(super) fn function(
        &mut self,
        context: &Arc<CudaContext>,
        name: &str,
    ) -> Result<CudaFunction, DeviceError> {
        if let Some(function) = self.functions.get(name) {
            return Ok(function.clone());
        }
        let family = family(name);
        if !self.loaded.contains_key(family) {
            let source = FAMILIES.iter().find(|&&(of, _)| of == family);
            let (_, ptx) = source.expect("every family has its source");
            self.loaded.insert(family, load(context, ptx)?);
        }
        let function = self.loaded[family]
            .load_function(name)
            .map_err(|error| failed("look-up of a kernel", error))?;
        self.functions.insert(name.into(), function.clone());
        Ok(function)
    }

    /// The function of maps that was loaded.
    pub(super) fn maps(&self, maps: &Maps) -> Option<CudaFunction> {
        self.maps.get(maps).cloned()
    }

    /// Compiles the code of maps that was not loaded before, all of it as one module. The driver takes some
    /// ten milliseconds for a kernel, and finds it again on disk in the next process.
    pub(super) fn load_maps<'a>(
        &mut self,
        context: &Arc<CudaContext>,
        maps: impl Iterator<Item = &'a Arc<Maps>>,
    ) -> Result<(), DeviceError> {
        // By name, so that the driver knows the text again.
        let missing: BTreeMap<String, &Arc<Maps>> = maps
            .filter(|&map| !self.maps.contains_key(map))
            .map(|map| (map.name(), map))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let kernels: String = missing.values().map(|map| map.kernel()).collect();
        let module = load(context, &(functions(&kernels) + &kernels))?;
        for (name, map) in missing {
            let function = module
                .load_function(&name)
                .map_err(|error| failed("look-up of a kernel", error))?;
            self.maps.insert(map.clone(), function);
        }
        Ok(())
    }
}

/// The head of a module, and the elementary functions that its kernels call.
fn functions(kernels: &str) -> String {
    let mut parts = FUNCTIONS.split("\n.visible .func ");
    let mut text: String = parts.next().unwrap_or("").into();
    let declared = |part: &str| {
        let name = part.split_once("map_").map_or("", |(_, rest)| rest);
        let name = name.split(['(', '\n']).next().unwrap_or("");
        format!("map_{name}, (")
    };
    for part in parts.filter(|part| kernels.contains(&declared(part))) {
        text = text + "\n.visible .func " + part;
    }
    text + "\n"
}

fn load(context: &Arc<CudaContext>, ptx: &str) -> Result<Arc<CudaModule>, DeviceError> {
    context
        .load_module(Ptx::from_src(ptx))
        .map_err(|error| with_log(ptx, failed("loading of kernels", error)))
}

/// The error with the first lines of what the driver's compiler says about the PTX. The driver is asked
/// again, because the bindings do not ask for these lines. The context is that of the call that failed.
fn with_log(ptx: &str, error: DeviceError) -> DeviceError {
    use sys::CUjit_option::{CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    let mut log = [0_u8; 2048];
    let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // The size travels as a pointer. One byte is kept for the end of the text.
    let mut values: [*mut c_void; 2] = [
        log.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(log.len() - 1),
    ];
    let Ok(source) = CString::new(ptx) else {
        return error;
    };
    let mut module = std::ptr::null_mut();
    // SAFETY: the source ends with a zero, the log is as long as it says, and both outlive the call.
    let loaded = unsafe {
        sys::cuModuleLoadDataEx(
            &raw mut module,
            source.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if loaded == sys::CUresult::CUDA_SUCCESS {
        // SAFETY: it was loaded above, and nobody has it.
        let _ = unsafe { sys::cuModuleUnload(module) };
    }
    let text = CStr::from_bytes_until_nul(&log).map_or("".into(), CStr::to_string_lossy);
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    match error {
        DeviceError::Cuda { what, reason } if !said.is_empty() => DeviceError::Cuda {
            what,
            reason: format!("{reason}: {}", said[..said.len().min(3)].join("; ")),
        },
        error => error,
    }
}
