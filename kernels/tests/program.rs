//! Programs from outside: what is refused, and that the rest runs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::check_rows;
use kernels::{
    Binary, Device, Float, Instr, Kernel, Load, Map, Operand, Pad, Program, Slot, Step, Store,
    StoreKind,
};
use std::time::Instant;
use tensor::DType;

fn f32s(extents: &[usize], strides: &[usize]) -> Load {
    assert_eq!(extents.len(), strides.len());
    Load {
        dtype: DType::F32,
        strides: strides.to_vec(),
    }
}

fn at(slot: usize, offset: usize) -> Operand {
    Operand { slot, offset }
}

/// x + bias over [2, 3], its sum over rows beside it.
fn add_bias() -> Map {
    let extents = vec![2, 3];
    Map {
        float: Float::F32,
        loads: vec![f32s(&extents, &[3, 1]), f32s(&extents, &[0, 1])],
        code: vec![
            Instr::Load(0),
            Instr::Load(1),
            Instr::Binary(Binary::Add, 0, 1),
        ],
        stores: vec![
            Store {
                value: 2,
                dtype: DType::F32,
                kind: StoreKind::Full,
            },
            Store {
                value: 2,
                dtype: DType::F32,
                kind: StoreKind::Sum(vec![true, false]),
            },
        ],
        extents,
    }
}

#[test]
fn runs() {
    let kernel = Kernel::Map(add_bias());
    let workspace = kernel.workspace();
    let step = Step {
        kernel,
        inputs: vec![at(0, 0), at(0, 24)],
        outputs: vec![at(1, 0), at(1, 24)],
        workspace: Some(at(2, 0)),
    };
    let slot = |bytes, writable| Slot { bytes, writable };
    let program = Program::new(
        vec![slot(36, false), slot(36, true), slot(workspace, true)],
        vec![step],
    )
    .unwrap();
    let device = Device::cpu(Some(2)).unwrap();
    let buffer = device.alloc(128 + workspace).unwrap();
    let numbers: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0, 20.0, 30.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    buffer.write(0, &numbers).unwrap();
    let views = [
        buffer.view(0, 40),
        buffer.view(40, 40),
        buffer.view(80, workspace),
    ];
    let found = || {
        let mut out = [0; 36];
        buffer.read(40, &mut out).unwrap();
        let numbers = out.chunks(4);
        let number = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
        numbers.map(number).collect::<Vec<f32>>()
    };
    let expected = [11.0, 22.0, 33.0, 14.0, 25.0, 36.0, 25.0, 47.0, 69.0];
    program.run(&device, &views).unwrap();
    assert_eq!(found(), expected);

    buffer.zero(40, 40).unwrap();
    let begin = Instant::now();
    let laps = program.time(&device, &views).unwrap();
    let time = begin.elapsed();
    assert_eq!((laps.len(), found()), (1, expected.to_vec()));
    assert!(laps[0].begin >= begin && laps[0].time <= time);
    assert!(program.time(&device, &views[1..]).is_err());
}

#[test]
fn views_are_rows_of_dense_arrays() {
    for threads in [1, 2] {
        let device = Device::cpu(Some(threads)).unwrap();
        check_rows(&device, 7, 3);
        check_rows(&device, 5, 10_001);
    }
}

/// A view starts at a multiple of the largest element that its slot holds, wherever in the slot that is.
#[test]
fn views_between_elements_are_refused() {
    let copy = |dtype, input, output| Step {
        kernel: Kernel::Pad(Pad {
            dtype,
            extents: vec![1],
            before: vec![0],
            after: vec![0],
        }),
        inputs: vec![input],
        outputs: vec![output],
        workspace: None,
    };
    let slots = [(12, false), (4, true), (8, true)];
    let slots = slots.map(|(bytes, writable)| Slot { bytes, writable });
    let steps = vec![
        copy(DType::F32, at(0, 8), at(1, 0)),
        copy(DType::F64, at(0, 0), at(2, 0)),
    ];
    let program = Program::new(slots.to_vec(), steps).unwrap();
    let device = Device::cpu(Some(1)).unwrap();
    let buffer = device.alloc(64).unwrap();
    let run = |starts: [usize; 3]| {
        let views = [0, 1, 2].map(|i| buffer.view(starts[i], slots[i].bytes));
        program.run(&device, &views).map_err(|e| e.to_string())
    };
    assert_eq!(run([8, 36, 40]), Ok(()));
    let reason = |bytes| format!("the view does not start at a multiple of {bytes} bytes");
    assert_eq!(run([4, 36, 40]), Err(format!("slot 0: {}", reason(8))));
    assert_eq!(run([8, 34, 40]), Err(format!("slot 1: {}", reason(4))));
    assert_eq!(run([8, 36, 44]), Err(format!("slot 2: {}", reason(8))));
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "free memory is unknown here")]
fn a_processor_says_what_memory_is_free() {
    // A machine that runs tests has between 16 MiB and 16 TiB.
    let free = Device::cpu(Some(1)).unwrap().free_bytes().unwrap();
    assert!((1 << 24..1 << 44).contains(&free), "{free}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_so() {
    let error = Device::cuda(0, kernels::Precision::Fp32).unwrap_err();
    let reason = "this program was built without it (the feature `cuda`)";
    assert_eq!(
        error.to_string(),
        format!("no usable CUDA device: {reason}")
    );
}
