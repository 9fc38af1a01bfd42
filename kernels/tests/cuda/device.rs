//! The device itself: that it is found or missing, what it reports, and how programs run on it.

use crate::common::{Layout, bytes, check_rows, run};
use crate::stand_in::{StandIn, text};
use kernels::{
    Binary, Cuda, Device, DeviceError, Float, Instr, Kernel, Lap, Load, Map, MatMul, Operand,
    Precision, Program, Rows, Slot, Step, Store, StoreKind, Window, WindowKind,
};
use std::path::Path;
use std::process::Command;
use tensor::DType;

fn cuda() -> Device {
    Device::cuda(0, Precision::Fp32).unwrap()
}

fn without_graphs() -> Device {
    let cuda = Cuda::open(0, Precision::Fp32).unwrap();
    cuda.without_graphs().into()
}

#[test]
fn programs_run_and_replay() {
    if let Some(device) = StandIn::build() {
        device.pass(&["device::runs_"], &[]);
    }
}

/// y = a · x over one slot each.
fn scale(count: usize) -> (Vec<Slot>, Vec<Step>) {
    let load = |strides| Load {
        dtype: DType::F32,
        strides,
    };
    let kernel = Kernel::Map(Map {
        float: Float::F32,
        extents: vec![count],
        loads: vec![load(vec![1]), load(vec![0])],
        code: vec![
            Instr::Load(0),
            Instr::Load(1),
            Instr::Binary(Binary::Mul, 0, 1),
        ],
        stores: vec![Store {
            value: 2,
            dtype: DType::F32,
            kind: StoreKind::Full,
        }],
    });
    let at = |slot| Operand { slot, offset: 0 };
    let slot = |bytes, writable| Slot { bytes, writable };
    let step = Step {
        kernel,
        inputs: vec![at(0), at(1)],
        outputs: vec![at(2)],
        workspace: None,
    };
    let slots = vec![
        slot(4 * count, false),
        slot(4, false),
        slot(4 * count, true),
    ];
    (slots, vec![step])
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn runs_on_other_memory_every_time() {
    let (slots, steps) = scale(100);
    let program = Program::new(slots, steps).unwrap();
    for device in [cuda(), without_graphs()] {
        let buffer = device.alloc(64 * 1024).unwrap();
        for i in 0..20 {
            buffer.write(i * 512, &bytes(&[i as f32; 100])).unwrap();
        }
        buffer.write(64 * 1024 - 8, &bytes(&[2.0_f32])).unwrap();
        // Runs are queued one after another, each on its own views; only then anybody looks.
        for i in 0..20 {
            let views = [
                buffer.view(i * 512, 400),
                buffer.view(64 * 1024 - 8, 4),
                buffer.view(32 * 1024 + i * 512, 400),
            ];
            program.run(&device, &views).unwrap();
        }
        for i in 0..20 {
            let mut found = vec![0; 400];
            buffer.read(32 * 1024 + i * 512, &mut found).unwrap();
            assert_eq!(found, bytes(&[2.0 * i as f32; 100]));
        }
    }
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn runs_with_many_slots() {
    let count = 150;
    let slot = |writable| Slot { bytes: 4, writable };
    let (_, one) = scale(1);
    let slots: Vec<Slot> = [slot(false), slot(false)]
        .into_iter()
        .chain((0..count).map(|_| slot(true)))
        .collect();
    let step = |i: usize| Step {
        inputs: vec![
            Operand {
                slot: if i == 0 { 0 } else { i + 1 },
                offset: 0,
            },
            Operand { slot: 1, offset: 0 },
        ],
        outputs: vec![Operand {
            slot: i + 2,
            offset: 0,
        }],
        ..one[0].clone()
    };
    let program = Program::new(slots, (0..count).map(step).collect()).unwrap();
    let device = cuda();
    let buffer = device.alloc(8 * (count + 2)).unwrap();
    buffer.write(0, &bytes(&[1.0_f32])).unwrap();
    buffer.write(8, &bytes(&[1.25_f32])).unwrap();
    let views: Vec<_> = (0..count + 2).map(|i| buffer.view(8 * i, 4)).collect();
    let found = || {
        let mut found = [0; 4];
        buffer.read(8 * (count + 1), &mut found).unwrap();
        buffer.zero(16, 8 * count).unwrap();
        f32::from_le_bytes(found)
    };
    let expected = (0..count).fold(1.0_f32, |x, _| x * 1.25);
    program.run(&device, &views).unwrap();
    assert_eq!(found(), expected);
    let laps = program.time(&device, &views).unwrap();
    assert_eq!((found(), laps.len()), (expected, count));
    let follows = |pair: &[Lap]| pair[0].begin + pair[0].time == pair[1].begin;
    assert!(laps.windows(2).all(follows), "{laps:?}");
    program.run(&device, &views).unwrap();
    assert_eq!(found(), expected, "the graph is as it was");
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn runs_copies_and_counts_memory() {
    let device = cuda();
    let (a, b) = (device.alloc(1000).unwrap(), device.alloc(500).unwrap());
    assert_eq!((device.held_bytes(), device.peak_bytes()), (1500, 1500));
    let mut found = vec![1; 500];
    b.read(0, &mut found).unwrap();
    assert_eq!(found, vec![0; 500], "memory is zeroed");
    a.write(100, &[7; 300]).unwrap();
    b.copy_from(50, &a, 90, 200).unwrap();
    b.zero(200, 10).unwrap();
    b.read(0, &mut found).unwrap();
    let expected: Vec<u8> = (0..500)
        .map(|i| {
            if (60..200).contains(&i) || (210..250).contains(&i) {
                7
            } else {
                0
            }
        })
        .collect();
    assert_eq!(found, expected);
    drop(a);
    assert_eq!((device.held_bytes(), device.peak_bytes()), (500, 1500));
    let facts = device.as_cuda().unwrap().facts().unwrap();
    assert!(
        facts.total_bytes > facts.free_bytes && facts.driver[0] >= 12,
        "{facts:?}"
    );
    assert_eq!(device.free_bytes(), Some(facts.free_bytes));
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn runs_on_rows_of_dense_arrays() {
    let device = cuda();
    check_rows(&device, 7, 3);
    // Large enough for four points a thread.
    check_rows(&device, 5, (1 << 16) + 1);
}

fn rows_kernel() -> Kernel {
    Kernel::Rows(Rows {
        float: Float::F32,
        rows: 5,
        width: 2,
        count: 3,
        adjoint: false,
    })
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn runs_report_indices_outside() {
    let device = cuda();
    let x = bytes(&[1.0_f32; 10]);
    for index in [[0, 7, 1], [0, 1, -1]] {
        let index = bytes::<i32>(&index);
        let cpu = Layout::new(rows_kernel())
            .run(&Device::cpu(Some(1)).unwrap(), &[x.clone(), index.clone()]);
        let gpu = Layout::new(rows_kernel()).run(&device, &[x.clone(), index]);
        assert_eq!(gpu.unwrap_err().to_string(), cpu.unwrap_err().to_string());
    }
    // Once reported, a fault is over.
    run(&device, rows_kernel(), &[x, bytes(&[0, 4, 1])]);
    let window = Window {
        float: Float::F32,
        kind: WindowKind::Gather,
        n: 1,
        h: 2,
        w: 2,
        c: 1,
        window: [2, 2],
        stride: [2, 2],
        pad: [0; 4],
    };
    // Of a window with borders: its corner is outside of the image.
    let bordered = Window {
        window: [3, 3],
        stride: [1, 1],
        pad: [1; 4],
        ..window
    };
    for (window, picks) in [(window, vec![9]), (bordered, vec![0, 4, 4, 4])] {
        for kind in [WindowKind::Gather, WindowKind::Scatter] {
            let kernel = Kernel::Window(Window { kind, ..window });
            let error = Layout::new(kernel).run(&device, &[bytes(&[1.0_f32; 4]), picks.clone()]);
            assert_eq!(
                error.unwrap_err().to_string(),
                "step 0: windows: an offset lies outside of its window or image"
            );
        }
    }
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn runs_refuse_what_the_device_cannot_do() {
    let device = cuda();
    let matmul = Kernel::MatMul(MatMul {
        float: Float::F64,
        batch: 1,
        m: 2,
        n: 2,
        k: 2,
        transpose_a: false,
        transpose_b: false,
        accumulate: false,
    });
    let error = Layout::new(matmul).run(&device, &[vec![0; 32], vec![0; 32]]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "step 0: matmul in f64: the CUDA device computes in f32; use the CPU"
    );
    // Memory of the one is no memory of the other.
    let (slots, steps) = scale(1);
    let program = Program::new(slots, steps).unwrap();
    let host = Device::cpu(Some(1)).unwrap().alloc(64).unwrap();
    let views = [0, 8, 16].map(|at| host.view(at, 4));
    let error = program.run(&device, &views).unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
}

#[test]
fn too_little_memory_is_one_clear_line() {
    if let Some(device) = StandIn::build() {
        device.pass(&["device::memory_"], &[("CUDA_ON_CPU_MEMORY", "70000000")]);
    }
}

#[test]
#[ignore = "needs the stand-in CUDA device: see `stand_in`"]
fn memory_runs_out() {
    let device = cuda();
    let free = device.as_cuda().unwrap().facts().unwrap().free_bytes;
    let half = free / 2 + 1;
    let held = device.alloc(half).unwrap();
    let error = device.alloc(half).unwrap_err();
    assert!(
        matches!(error, DeviceError::OutOfMemory { .. }),
        "{error:?}"
    );
    let wanted = format!("{half} bytes wanted");
    assert!(error.to_string().contains(&wanted), "{error}");
    drop(held);
    drop(device.alloc(half).unwrap());
    // What came back is kept, and given up where it is wanted in another size.
    device.alloc(free).unwrap();
}

#[test]
fn a_lost_device_is_one_clear_line() {
    if let Some(device) = StandIn::build() {
        // The third launch: one is the probe, one writes the table of slots.
        device.pass(&["device::lost_"], &[("CUDA_ON_CPU_LOSE_AT", "3")]);
    }
}

#[test]
#[ignore = "needs the stand-in CUDA device: see `stand_in`"]
fn lost_in_the_middle() {
    let device = cuda();
    let (slots, steps) = scale(1);
    let program = Program::new(slots, steps).unwrap();
    let buffer = device.alloc(64).unwrap();
    let views = [0, 8, 16].map(|at| buffer.view(at, 4));
    program.run(&device, &views).unwrap();
    let error = buffer.read(16, &mut [0; 4]).unwrap_err().to_string();
    assert_eq!(
        error,
        "CUDA device: queued work: CUDA_ERROR_LAUNCH_FAILED; the device is lost for this process: start \
         again from the last checkpoint"
    );
    assert!(device.alloc(10).is_err());
    assert!(program.run(&device, &views).is_err());
}

/// What a child says when it asks for a CUDA device, with this library path.
fn reason(folder: &Path, settings: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "device::say_why_not"])
        .env("LD_LIBRARY_PATH", folder)
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let line = said.lines().find_map(|line| line.split_once("why: "));
    line.unwrap_or_else(|| panic!("{said}")).1.into()
}

#[test]
#[ignore = "run with other library paths by the tests below"]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn say_why_not() {
    match Device::cuda(0, Precision::Fp32) {
        Ok(device) => println!("why: none, {device:?}"),
        Err(error) => println!("why: {error}"),
    }
}

#[test]
fn without_a_driver_library_there_is_a_reason() {
    let empty = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-driver");
    std::fs::create_dir_all(&empty).unwrap();
    let found = reason(&empty, &[]);
    // A machine with a driver has a device, or says why not.
    assert!(
        found == "no usable CUDA device: no CUDA driver library found"
            || !found.contains("library found"),
        "{found}"
    );
    std::fs::write(empty.join("libcuda.so.1"), "this is no library").unwrap();
    let found = reason(&empty, &[]);
    assert!(!found.contains("panic"), "{found}");
    std::fs::remove_file(empty.join("libcuda.so.1")).unwrap();
}

#[test]
fn drivers_that_cannot_be_used_give_their_reason() {
    let Some(device) = StandIn::build() else {
        return;
    };
    let cases = [
        (
            "CUDA_ON_CPU_INIT",
            "100",
            "the driver: CUDA_ERROR_NO_DEVICE: there is no device",
        ),
        (
            "CUDA_ON_CPU_INIT",
            "34",
            "the driver: CUDA_ERROR_STUB_LIBRARY: it is the toolkit's stub, not a driver",
        ),
        (
            "CUDA_ON_CPU_VERSION",
            "11080",
            "the driver serves CUDA 11.8; 12.0 is needed",
        ),
    ];
    for (name, value, expected) in cases {
        let found = reason(device.folder(), &[(name, value)]);
        assert_eq!(found, format!("no usable CUDA device: {expected}"));
    }
    // Kernels that do not load: here, for the stand-in does not know where its own are.
    let found = reason(device.folder(), &[]);
    assert_eq!(
        found,
        "CUDA device: loading of kernels: CUDA_ERROR_INVALID_IMAGE: ptxas fatal : no kernels of the host"
    );
    // A library that has none of the functions.
    let broken = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken-driver");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::copy(
        device.folder().join("libkernels.so"),
        broken.join("libcuda.so.1"),
    )
    .unwrap();
    let found = reason(&broken, &[]);
    assert_eq!(
        found,
        "no usable CUDA device: the CUDA driver library is broken or too old"
    );
}

/// What the proof without a GPU rests on: faults that a GPU may hide are found.
#[test]
fn planted_faults_are_found() {
    let Some(device) = StandIn::build() else {
        return;
    };
    for order in ["forward", "reversed"] {
        let run = |kernel| {
            let output = device.run_planted(kernel, &[("CUDA_ON_CPU_ORDER", order)]);
            (output.status.success(), text(&output))
        };
        assert_eq!(run("sound"), (true, "0 wrong\n".into()));
        assert_eq!(run("sound_copies"), (true, "0 wrong\n".into()));
        assert_eq!(run("missing_wait"), (true, "256 wrong\n".into()));
        assert_eq!(run("wrong_count"), (true, "256 wrong\n".into()));
        // In order, all but the last element; in reverse order, only that of the first thread to run.
        let (_, said) = run("missing_barrier");
        assert_ne!(said, "0 wrong\n", "{order}");
        let (success, said) = run("divergent_barrier");
        assert!(
            !success && said.contains("a barrier that not all threads reach"),
            "{said}"
        );
        for kernel in ["outside", "outside_shared", "misaligned"] {
            assert!(!run(kernel).0, "{kernel}, {order}");
        }
    }
}
