//! Programs from outside: what is refused, and that the rest runs.
#![allow(clippy::unwrap_used, reason = "tests")]

use kernels::{
    Binary, Device, Float, Instr, Kernel, Load, Map, Operand, Program, Slot, Step, Store, StoreKind,
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
