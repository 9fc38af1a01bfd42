//! From a source of the device code to PTX.

use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};
use std::error::Error;
use std::path::{Path, PathBuf};

pub(crate) const FLAGS: [&str; 2] = ["--std=c++17", "--fmad=false"];

/// The architecture that a source is compiled for, and the machines that ptxas makes code of its PTX for.
pub(crate) fn architecture(name: &str) -> (&'static str, &'static [&'static str]) {
    if name.contains("wgmma") {
        ("compute_90a", &["sm_90a"])
    } else {
        ("compute_80", &["sm_80", "sm_90"])
    }
}

/// The files of a folder, by name.
pub(crate) fn listed(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.sort();
    Ok(files)
}

/// The sources in `cu/` that become PTX each, and where that is.
pub(crate) fn sources(root: &Path) -> Result<Vec<(PathBuf, PathBuf)>, Box<dyn Error>> {
    let mut sources = listed(&root.join("cu"))?;
    sources.retain(|path| path.extension().is_some_and(|e| e == "cu"));
    let ptx = |source: &PathBuf| root.join("ptx").join(name(source)).with_extension("ptx");
    Ok(sources
        .into_iter()
        .map(|source| (source.clone(), ptx(&source)))
        .collect())
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Compiles a source with the NVRTC that the library path leads to.
pub(crate) fn compile(source: &Path) -> Result<String, Box<dyn Error>> {
    let folder = source.parent().unwrap_or(Path::new("."));
    let mut options: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
    let (architecture, _) = architecture(&name(source));
    options.push(format!("--gpu-architecture={architecture}"));
    options.push(format!("--include-path={}", folder.display()));
    if name(source) == "functions.cu" {
        // Functions without a kernel that calls them are kept only so.
        options.push("--relocatable-device-code=true".into());
    }
    let options = CompileOptions {
        options,
        ..CompileOptions::default()
    };
    let text = std::fs::read_to_string(source)?;
    match compile_ptx_with_opts(text, options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(CompileError::CompileError { log, .. }) => {
            Err(format!("{}: {}", name(source), log.to_string_lossy()).into())
        }
        Err(error) => Err(error.into()),
    }
}
