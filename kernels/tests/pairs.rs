//! The sum of two products, as one kernel: the bits are those of the products and an addition.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{bytes, noise, run_all, sum_of_products};
use kernels::{Conv, ConvKind, Device, Float, Kernel, MatMul, Operand, Pair, Program, Slot, Step};
use tensor::DType;

fn check(single: &Kernel) {
    let pair = single.paired().unwrap();
    let inputs = pair.inputs().into_iter().enumerate();
    let array = |(i, (dtype, count)): (usize, (DType, usize))| {
        let numbers = noise(count, i as u64 + 1);
        match dtype {
            DType::F64 => bytes(&numbers),
            _ => bytes(&numbers.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        }
    };
    let inputs: Vec<Vec<u8>> = inputs.map(array).collect();
    let device = Device::cpu(Some(1)).unwrap();
    let expected = sum_of_products(&device, single, &inputs);
    assert!(run_all(&pair, &inputs) == [expected], "{pair:?}");
    assert_eq!(pair.flops(), 2 * single.flops());
    let [read, written] = [single.inputs(), single.outputs()].map(|arrays| {
        arrays
            .iter()
            .map(|&(t, n)| (t.size() * n) as u64)
            .sum::<u64>()
    });
    assert_eq!(pair.bytes(), 2 * read + written);
}

fn matmul(float: Float, [batch, m, n, k]: [usize; 4], flags: u8) -> MatMul {
    MatMul {
        float,
        batch,
        m,
        n,
        k,
        transpose_a: flags & 1 != 0,
        transpose_b: flags & 2 != 0,
        accumulate: false,
    }
}

#[test]
fn pairs_of_matrix_products() {
    // The last three take several stretches of the inner index, and sums in the wrong order of memory.
    let sizes = [
        [1, 1, 1, 1],
        [3, 5, 7, 0],
        [2, 33, 17, 9],
        [1, 90, 75, 310],
        [1, 67, 40, 1500],
        [1, 30, 75, 2500],
    ];
    for float in [Float::F32, Float::F64] {
        for size in sizes {
            (0..4).for_each(|flags| check(&Kernel::MatMul(matmul(float, size, flags))));
        }
    }
}

#[test]
fn pairs_of_convolutions() {
    // Channels, strides and windows for every form of the processor's code.
    let shapes = [
        ([1, 3], [1, 1], [3, 2]),
        ([17, 23], [1, 1], [3, 2]),
        ([17, 23], [1, 1], [3, 3]),
        ([32, 1], [1, 1], [3, 2]),
        ([6, 5], [2, 3], [3, 2]),
    ];
    for float in [Float::F32, Float::F64] {
        for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
            for ([c, out], stride, window) in shapes {
                check(&Kernel::Conv(Conv {
                    float,
                    kind,
                    batch: 1,
                    n: 3,
                    h: 9,
                    w: 8,
                    c,
                    out,
                    window,
                    stride,
                    pad: [1, 0, 2, 1],
                    accumulate: false,
                }));
            }
        }
    }
}

#[test]
fn a_pair_is_not_added_in_place() {
    let kernel = Kernel::MatMulPair(Pair(MatMul {
        accumulate: true,
        ..matmul(Float::F32, [1, 1, 1, 1], 0)
    }));
    let slot = |writable| Slot { bytes: 4, writable };
    let at = |slot| Operand { slot, offset: 0 };
    let step = Step {
        kernel,
        inputs: (0..4).map(at).collect(),
        outputs: vec![at(4)],
        workspace: None,
    };
    let slots = (0..5).map(|i| slot(i == 4)).collect();
    let error = Program::new(slots, vec![step]).unwrap_err().to_string();
    assert_eq!(
        error,
        "step 0: matmul-pair: a pair of products cannot be added in place"
    );
}
