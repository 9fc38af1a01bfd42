//! Compiles `cu/*.cu` to the PTX that ships in the library, and writes `ptx/MANIFEST`.
//!
//!     LD_LIBRARY_PATH=<folder of libnvrtc.so.12> PTXAS=<ptxas> cargo run -p kernels --example ptx
//!
//! NVRTC 12.0 is wanted, for its PTX is taken by the drivers of CUDA 12.0 and later. It is in the package
//! `nvidia-cuda-nvrtc-cu12==12.0.140` of the Python index, ptxas is in `nvidia-cuda-nvcc`. No GPU is needed.
#![allow(clippy::print_stdout, reason = "a command")]

use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts, sys};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Architectures whose machine code the manifest tells about.
const MACHINES: [&str; 2] = ["sm_80", "sm_90"];

const FLAGS: [&str; 3] = [
    "--gpu-architecture=compute_80",
    "--std=c++17",
    "--fmad=false",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // SAFETY: it opens a library that the system names; nothing else is called.
    if !unsafe { sys::is_culib_present() } {
        return Err("libnvrtc.so.12 was not found; set LD_LIBRARY_PATH to its folder".into());
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result()?;
    let mut manifest = format!(
        "Made by `cargo run -p kernels --example ptx`: what `ptx/` was compiled from.\n\ncompiler NVRTC {major}.{minor}\nflags {}\n\n",
        FLAGS.join(" ")
    );
    for source in listed(&root.join("cu"))? {
        writeln!(manifest, "{}  cu/{}", hash(&source)?, name(&source))?;
    }
    let mut table = String::new();
    for source in listed(&root.join("cu"))?
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
    {
        let ptx = root.join("ptx").join(name(source)).with_extension("ptx");
        std::fs::write(&ptx, compile(source)?)?;
        writeln!(manifest, "{}  ptx/{}", hash(&ptx)?, name(&ptx))?;
        for machine in MACHINES {
            table.push_str(&resources(&ptx, machine)?);
        }
    }
    writeln!(
        manifest,
        "\n{:<7}{:<28}{:>10}{:>8}{:>8}",
        "machine", " kernel", "registers", "spilled", "shared"
    )?;
    manifest.push_str(&table);
    std::fs::write(root.join("ptx/MANIFEST"), manifest)?;
    println!("wrote {}", root.join("ptx").display());
    Ok(())
}

/// The files of a folder, by name.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.sort();
    Ok(files)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn hash(path: &Path) -> Result<String, Box<dyn Error>> {
    let digest = Sha256::digest(std::fs::read(path)?);
    Ok(digest
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}

fn compile(source: &Path) -> Result<String, Box<dyn Error>> {
    let folder = source.parent().unwrap_or(Path::new("."));
    let mut options: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
    options.push(format!("--include-path={}", folder.display()));
    let options = CompileOptions {
        options,
        ..CompileOptions::default()
    };
    let text = std::fs::read_to_string(source)?;
    match compile_ptx_with_opts(text, options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(cudarc::nvrtc::CompileError::CompileError { log, .. }) => {
            Err(format!("{}: {}", name(source), log.to_string_lossy()).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Registers, spilled bytes and static shared memory of every kernel, as ptxas says.
fn resources(ptx: &Path, machine: &str) -> Result<String, Box<dyn Error>> {
    let ptxas = std::env::var("PTXAS").unwrap_or_else(|_| "ptxas".into());
    let done = Command::new(&ptxas)
        .args(["-v", &format!("-arch={machine}"), "-o", "/dev/null"])
        .arg(ptx)
        .output()
        .map_err(|error| format!("{ptxas}: {error}; set PTXAS"))?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if !done.status.success() {
        return Err(format!("{}: {said}", name(ptx)).into());
    }
    let number = |line: &str, unit: &str| {
        let before = line.split(unit).next().unwrap_or("");
        before
            .rsplit([' ', ','])
            .find(|word| !word.is_empty())
            .and_then(|word| word.parse::<u32>().ok())
    };
    let (mut rows, mut kernel, mut spilled) = (Vec::new(), String::new(), 0);
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("entry function '") {
            kernel = rest.split('\'').next().unwrap_or("").into();
        } else if line.contains("bytes spill stores") {
            spilled = number(line, " bytes spill stores").unwrap_or(0);
        } else if line.contains(" registers") {
            let registers = number(line, " registers").unwrap_or(0);
            let shared = if line.contains("bytes smem") {
                number(line, " bytes smem").unwrap_or(0)
            } else {
                0
            };
            rows.push(format!(
                "{machine:<7} {kernel:<27}{registers:>10}{spilled:>8}{shared:>8}\n"
            ));
        }
    }
    rows.sort();
    Ok(rows.concat())
}
