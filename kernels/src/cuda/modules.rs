//! The device code that ships in this library, loaded family by family when a program first needs it.

use super::failed;
use crate::DeviceError;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::sync::Arc;

/// PTX by family. The driver compiles it for its device when it is loaded, and keeps the result on disk.
const FAMILIES: [(&str, &str); 8] = [
    ("shapes", include_str!("../../ptx/shapes.ptx")),
    ("window", include_str!("../../ptx/window.ptx")),
    ("random", include_str!("../../ptx/random.ptx")),
    ("reversible", include_str!("../../ptx/reversible.ptx")),
    ("map", include_str!("../../ptx/map.ptx")),
    ("gemm_fp32", include_str!("../../ptx/gemm_fp32.ptx")),
    ("gemm_tf32", include_str!("../../ptx/gemm_tf32.ptx")),
    ("gemm_bf16", include_str!("../../ptx/gemm_bf16.ptx")),
];

/// The family that has a function.
fn family(function: &str) -> &'static str {
    let tests = [
        ("_tf32", "gemm_tf32"),
        ("_bf16", "gemm_bf16"),
        ("_fp32", "gemm_fp32"),
        ("gemm_combine", "gemm_fp32"),
        ("map_", "map"),
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
            let module = context
                .load_module(Ptx::from_src(*ptx))
                .map_err(|error| failed("loading of kernels", error))?;
            self.loaded.insert(family, module);
        }
        let function = self.loaded[family]
            .load_function(name)
            .map_err(|error| failed("look-up of a kernel", error))?;
        self.functions.insert(name.into(), function.clone());
        Ok(function)
    }
}
