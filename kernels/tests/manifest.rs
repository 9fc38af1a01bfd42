//! The device code that ships is that of the sources, and no kernel of it spills. Where the compilers can be
//! found or fetched, both are seen by compiling again.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "the example uses all of these modules")]

#[path = "../examples/ptx/compile.rs"]
mod compile;
#[path = "../examples/ptx/compilers.rs"]
mod compilers;

use std::io::Write;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest() -> String {
    std::fs::read_to_string(root().join("ptx/MANIFEST")).unwrap()
}

fn files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<String> = entries
        .map(|entry| {
            format!(
                "{folder}/{}",
                entry.unwrap().file_name().into_string().unwrap()
            )
        })
        .filter(|file| file != "ptx/MANIFEST")
        .collect();
    files.sort();
    files
}

#[test]
fn sources_and_device_code_are_those_of_the_manifest() {
    let manifest = manifest();
    let mut listed: Vec<String> = Vec::new();
    for line in manifest.lines() {
        let Some((hash, file)) = line.split_once("  ").filter(|(hash, _)| hash.len() == 64) else {
            continue;
        };
        let found = compilers::hex(&std::fs::read(root().join(file)).unwrap());
        assert_eq!(
            hash, found,
            "{file} has changed: cargo run -p gtn-kernels --example ptx"
        );
        listed.push(file.into());
    }
    listed.sort();
    assert_eq!(listed, [files("cu"), files("ptx")].concat());
}

#[test]
fn no_kernel_spills_and_all_are_for_drivers_of_cuda_12() {
    let manifest = manifest();
    let kernels: Vec<Vec<&str>> = manifest
        .lines()
        .filter(|line| line.starts_with("sm_"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(kernels.len() > 100, "{}", kernels.len());
    for kernel in kernels {
        assert_eq!(kernel[3], "0", "{kernel:?} spills");
    }
    for file in files("ptx") {
        let ptx = std::fs::read_to_string(root().join(&file)).unwrap();
        assert!(
            ptx.contains("\n.version 8.0\n"),
            "{file}: not for drivers of CUDA 12.0"
        );
    }
}

/// What was found; or a line, past the test harness, that says what could not be tested.
fn found<T>(what: &str, searched: Result<T, String>) -> Option<T> {
    searched
        .map_err(|reason| {
            let line = format!("skipped: {what}: {reason}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        })
        .ok()
}

#[test]
fn the_device_code_is_what_its_compiler_makes_of_the_sources() {
    let Some(nvrtc) = found("no PTX is compiled again", compilers::nvrtc()) else {
        return;
    };
    // The library path is read when a process starts.
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "compile_again"])
        .env("LD_LIBRARY_PATH", nvrtc)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "{said}");
    assert!(said.contains(" 1 passed"), "{said}");
}

#[test]
#[ignore = "the test above runs it with NVRTC on its library path"]
fn compile_again() {
    for (source, ptx) in compile::sources(root()).unwrap() {
        let made = compile::compile(&source).unwrap();
        let shipped = std::fs::read_to_string(&ptx).unwrap();
        assert!(
            made == shipped,
            "{} is not what {} becomes",
            ptx.display(),
            source.display()
        );
    }
}

#[test]
fn the_device_code_becomes_machine_code_without_spills() {
    let Some(ptxas) = found("no machine code is made", compilers::ptxas()) else {
        return;
    };
    let compile = |file: String, machine: &str| {
        let mut command = Command::new(&ptxas);
        command.args([
            &format!("-arch={machine}"),
            "--warn-on-spills",
            "--warn-on-local-memory-usage",
            "-Werror",
            "-o",
        ]);
        command
            .arg("/dev/null")
            .arg(root().join(&file))
            .spawn()
            .unwrap()
    };
    for machine in ["sm_80", "sm_90", "sm_90a"] {
        let mut files = files("ptx");
        files.retain(|file| compile::architecture(file).1.contains(&machine));
        assert!(!files.is_empty(), "{machine}");
        let running = files
            .into_iter()
            .map(|file| (file.clone(), compile(file, machine)));
        for (file, mut child) in running.collect::<Vec<_>>() {
            assert!(child.wait().unwrap().success(), "{file} for {machine}");
        }
    }
}
