//! Compiles `cu/*.cu` to the PTX that ships in the library, and writes `ptx/MANIFEST`.
//!
//!     cargo run -p gtn-kernels --example ptx
//!
//! It takes NVRTC 12.0, for its PTX is taken by the drivers of CUDA 12.0 and later, and ptxas. Both are fetched
//! from the Python index if `NVRTC` (the folder of libnvrtc.so.12) and `PTXAS` do not name them. No GPU is needed.
#![allow(clippy::print_stdout, reason = "a command")]

mod compile;
mod compilers;

use compile::{FLAGS, architecture, compile, listed, name, sources};
use cudarc::nvrtc::sys;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let nvrtc = compilers::nvrtc()?;
    if std::env::var_os("LD_LIBRARY_PATH").as_deref() != Some(nvrtc.as_os_str()) {
        // The library path is read when a process starts.
        let again = Command::new(std::env::current_exe()?)
            .env("LD_LIBRARY_PATH", nvrtc)
            .status()?;
        std::process::exit(again.code().unwrap_or(1));
    }
    // SAFETY: it opens a library that the system names; nothing else is called.
    if !unsafe { sys::is_culib_present() } {
        return Err("libnvrtc.so.12 was not found; NVRTC names its folder".into());
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result()?;
    let mut manifest = format!(
        "Made by `cargo run -p gtn-kernels --example ptx`: what `ptx/` was compiled from.\n\ncompiler NVRTC {major}.{minor}\nflags {} --gpu-architecture=compute_80 (wgmma: compute_90a)\n\n",
        FLAGS.join(" ")
    );
    for source in listed(&root.join("cu"))? {
        writeln!(manifest, "{}  cu/{}", hash(&source)?, name(&source))?;
    }
    let mut table = String::new();
    for (source, ptx) in sources(root)? {
        std::fs::write(&ptx, compile(&source)?)?;
        writeln!(manifest, "{}  ptx/{}", hash(&ptx)?, name(&ptx))?;
        for machine in architecture(&name(&source)).1 {
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

fn hash(path: &Path) -> Result<String, Box<dyn Error>> {
    Ok(compilers::hex(&std::fs::read(path)?))
}

/// Registers, spilled bytes and static shared memory of every kernel, as ptxas says.
fn resources(ptx: &Path, machine: &str) -> Result<String, Box<dyn Error>> {
    let done = Command::new(compilers::ptxas()?)
        .args(["-v", &format!("-arch={machine}"), "-o", "/dev/null"])
        .arg(ptx)
        .output()?;
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
