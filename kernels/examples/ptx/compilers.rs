//! Where the compilers of the device code are: named by the environment, or fetched from the Python index
//! once, by version and hash, into the target folder.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// ptxas: `PTXAS`, the one beside `NVCC`, that of the path, or that of the index. Else why there is none.
pub(crate) fn ptxas() -> Result<PathBuf, String> {
    let beside = |nvcc: PathBuf| nvcc.with_file_name("ptxas");
    let named = std::env::var_os("PTXAS").map(PathBuf::from);
    let nvcc = std::env::var_os("NVCC").map(PathBuf::from).map(beside);
    let candidates = named.into_iter().chain(nvcc);
    let works = |path: &PathBuf| Command::new(path).arg("--version").output().is_ok();
    if let Some(found) = candidates.chain(["ptxas".into()]).find(works) {
        return Ok(found);
    }
    let found = fetched()?.join("nvidia/cu13/bin/ptxas");
    works(&found)
        .then_some(found)
        .ok_or_else(|| "the index has no ptxas for this machine".into())
}

/// The folder of libnvrtc.so.12: `NVRTC`, or that of the index. Else why there is none.
pub(crate) fn nvrtc() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("NVRTC") {
        return Ok(named.into());
    }
    let found = fetched()?.join("nvidia/cuda_nvrtc/lib");
    found
        .is_dir()
        .then_some(found)
        .ok_or_else(|| "the index has no NVRTC 12.0 for this machine".into())
}

/// The folder that the packages of `compilers.txt` are in.
fn fetched() -> Result<&'static Path, String> {
    static FETCHED: LazyLock<Result<PathBuf, String>> = LazyLock::new(fetch);
    FETCHED.as_deref().map_err(Clone::clone)
}

fn fetch() -> Result<PathBuf, String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ptx/compilers.txt");
    let text = std::fs::read(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    // This program is in a folder of the profile's: target/debug/deps, or target/debug/examples.
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = own.ancestors().nth(3).unwrap_or(Path::new("."));
    let folder = target.join(format!("tmp/compilers-{}", &hex(&text)[..16]));
    if folder.is_dir() {
        return Ok(folder);
    }
    // Fetched aside and moved, for other programs may do this, too.
    let aside = folder.with_extension(std::process::id().to_string());
    let done = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes"])
        .args(["--retries=1", "--timeout=20", "--disable-pip-version-check"])
        .arg("--target")
        .arg(&aside)
        .arg("--requirement")
        .arg(&list)
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let reason = said.lines().rfind(|line| !line.is_empty()).unwrap_or("");
        let _ = std::fs::remove_dir_all(&aside);
        return Err(format!("python3 -m pip could not fetch it: {reason}"));
    }
    if std::fs::rename(&aside, &folder).is_err() {
        // Another one was first.
        std::fs::remove_dir_all(&aside).map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

/// SHA-256, as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
