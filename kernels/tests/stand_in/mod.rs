//! Builds the stand-in CUDA device, and runs this test program on it.
//!
//! The driver library is opened once per process, so tests that want the stand-in run in a child process
//! whose library path leads to it: they are marked `#[ignore]`, and an ordinary test starts this very
//! program again with `--ignored`. CONTRIBUTING says how to run them on a GPU.
#![allow(dead_code, reason = "every test program uses a part of it")]
#![allow(clippy::print_stderr, reason = "a test that could not run says so")]

use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// For the build.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A folder with `libcuda.so.1`, and the kernels compiled for the host.
pub(crate) struct StandIn {
    folder: PathBuf,
}

impl StandIn {
    /// `None`, with a line that says so, where there is no C++ compiler.
    pub(crate) fn build() -> Option<Self> {
        let compiler = compiler()?;
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|up| up.join("kernels"));
        let kernels = kernels.into_iter().find(|path| path.join("cu").is_dir());
        let kernels = kernels.expect("the folder of the kernels' sources");
        let (cu, own) = (kernels.join("cu"), kernels.join("tests/stand_in"));
        let sources = files(&cu, "cu");
        let others = [(&cu, "cuh"), (&own, "h"), (&own, "cpp"), (&own, "cu")];
        let others = others.map(|(folder, kind)| files(folder, kind)).concat();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "stand-in-{}",
            &hash(&compiler, sources.iter().chain(&others))[..16]
        ));
        let _building = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        if !folder.is_dir() {
            // Built aside and moved, for other test programs may do this, too.
            let aside = folder.with_extension(std::process::id().to_string());
            std::fs::create_dir_all(&aside).expect("a folder for the build");
            compile(&compiler, &sources, &cu, &own, &aside);
            if std::fs::rename(&aside, &folder).is_err() {
                std::fs::remove_dir_all(&aside).expect("the other one was first");
            }
        }
        Some(Self { folder })
    }

    /// Where the driver library is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A kernel of `planted.cu`, whose faults the shim is to find.
    pub(crate) fn run_planted(&self, kernel: &str, settings: &[(&str, &str)]) -> Output {
        let mut command = Command::new(self.folder.join("planted"));
        command.arg(kernel).envs(settings.iter().copied());
        command.output().expect("a child process")
    }

    /// This test program on the stand-in device, with the tests that are ignored otherwise and match.
    pub(crate) fn run(&self, matching: &[&str], settings: &[(&str, &str)]) -> Output {
        let program = std::env::current_exe().expect("this program's path");
        let mut command = self.command(program);
        command
            .args(["--ignored", "--test-threads=2"])
            .args(matching);
        command.envs(settings.iter().copied());
        command.output().expect("a child process")
    }

    /// A program that will find the stand-in device.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", &self.folder);
        command.env("CUDA_ON_CPU_KERNELS", self.folder.join("libkernels.so"));
        command
    }

    /// As [`StandIn::run`]; all must pass, and there must be some.
    pub(crate) fn pass(&self, matching: &[&str], settings: &[(&str, &str)]) {
        let output = self.run(matching, settings);
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains(" 0 passed"), "no test matches: {said}");
    }
}

/// Everything that a child said.
pub(crate) fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

/// The first C++ compiler that works.
fn compiler() -> Option<String> {
    let named = std::env::var("CXX").ok();
    let known = ["c++", "g++", "clang++"].map(String::from);
    let works = |name: &String| Command::new(name).arg("--version").output().is_ok();
    let found = named.into_iter().chain(known).find(works);
    if found.is_none() {
        eprintln!("skipped: no C++ compiler, so no stand-in CUDA device");
    }
    found
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder of sources");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn hash<'a>(compiler: &str, files: impl Iterator<Item = &'a PathBuf>) -> String {
    let mut digest = Sha256::new_with_prefix(compiler);
    for file in files {
        digest.update(std::fs::read(file).expect("a source"));
    }
    digest
        .finalize()
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn compile(compiler: &str, sources: &[PathBuf], cu: &Path, own: &Path, to: &Path) {
    let start = |arguments: &[&str], source: &Path, target: &Path| {
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-O2", "-w", "-fPIC", "-DCUDA_ON_CPU"]);
        // No contraction: the device code is compiled so, too.
        command.args(["-march=native", "-fno-strict-aliasing", "-ffp-contract=off"]);
        // A device traps at a vector that is not aligned; so does this.
        command.args(["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]);
        command.args(arguments).arg("-I").arg(own).arg("-I").arg(cu);
        command.arg(source).arg("-o").arg(target);
        (source.to_path_buf(), command.spawn().expect("the compiler"))
    };
    let objects: Vec<PathBuf> = sources
        .iter()
        .map(|source| {
            to.join(source.file_name().expect("a file"))
                .with_extension("o")
        })
        .collect();
    let mut running: Vec<_> = sources
        .iter()
        .zip(&objects)
        .map(|(source, object)| start(&["-c", "-x", "c++"], source, object))
        .collect();
    running.push(start(
        &["-shared"],
        &own.join("driver.cpp"),
        &to.join("libcuda.so.1"),
    ));
    let planted = own.join("planted.cu");
    running.push(start(&["-x", "c++"], &planted, &to.join("planted")));
    for (source, mut child) in running {
        let status = child.wait().expect("the compiler's end");
        assert!(status.success(), "{compiler} refused {}", source.display());
    }
    let linked = Command::new(compiler)
        .arg("-shared")
        .args(&objects)
        .arg("-o")
        .arg(to.join("libkernels.so"))
        .status();
    assert!(
        linked.expect("the linker").success(),
        "the kernels do not link"
    );
}
