//! The device code that ships is that of the sources, and no kernel of it spills.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "a test that could not run says so")]

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
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
        let digest = Sha256::digest(std::fs::read(root().join(file)).unwrap());
        let found: String = digest
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(
            hash, found,
            "{file} has changed: cargo run -p kernels --example ptx"
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

/// ptxas by `PTXAS`, beside `NVCC`, or on the path.
fn ptxas() -> Option<PathBuf> {
    let beside = |nvcc: PathBuf| nvcc.with_file_name("ptxas");
    let named = std::env::var_os("PTXAS").map(PathBuf::from);
    let nvcc = std::env::var_os("NVCC").map(PathBuf::from).map(beside);
    let mut found = named
        .into_iter()
        .chain(nvcc)
        .chain([PathBuf::from("ptxas")]);
    found.find(|path| Command::new(path).arg("--version").output().is_ok())
}

#[test]
fn the_device_code_becomes_machine_code_without_spills() {
    let Some(ptxas) = ptxas() else {
        return eprintln!("skipped: no ptxas (set PTXAS or NVCC), so no machine code");
    };
    let compile = |file: String, machine: &str| {
        let mut command = Command::new(&ptxas);
        command.args([
            &format!("-arch={machine}"),
            "--warn-on-spills",
            "-Werror",
            "-o",
        ]);
        command
            .arg("/dev/null")
            .arg(root().join(&file))
            .spawn()
            .unwrap()
    };
    for machine in ["sm_80", "sm_90"] {
        let running = files("ptx")
            .into_iter()
            .map(|file| (file.clone(), compile(file, machine)));
        for (file, mut child) in running.collect::<Vec<_>>() {
            assert!(child.wait().unwrap().success(), "{file} for {machine}");
        }
    }
}
