//! What the kernels compute. Moves, picks and element-wise functions have the processor's bits; sums and
//! products agree within rounding.

use crate::common::{Layout, bytes, noise, numbers, sum_of_products};
use crate::stand_in::StandIn;
use half::{bf16, f16};
use kernels::{
    ArgMax, Concat, Conv, ConvKind, Device, Distribution, Float, Kernel, MatMul, Pad, Precision,
    Random, Ratio, Reversible, ReversibleKind, Rows, Take, Window, WindowKind,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::sync::LazyLock;
use tensor::DType;

#[test]
fn kernels_agree_with_the_processor() {
    let Some(device) = StandIn::build() else {
        return;
    };
    let launched = concat!(env!("CARGO_TARGET_TMPDIR"), "/launched");
    let _ = std::fs::remove_file(launched);
    // On tensor cores of a warpgroup, and of a warp: there, only products differ. Only in products do warps
    // have work of their own.
    let products = ["parity_matmul", "parity_conv", "parity_tiles"];
    for (capability, order, tests) in [
        ("9", "forward", &["parity"][..]),
        ("9", "reversed", &["parity"]),
        ("9", "starved", &products),
        ("8", "reversed", &products),
    ] {
        let settings = [
            ("CUDA_ON_CPU_CAPABILITY", capability),
            ("CUDA_ON_CPU_ORDER", order),
            ("CUDA_ON_CPU_LAUNCHED", launched),
        ];
        device.pass(tests, &settings);
    }
    let launched = std::fs::read_to_string(launched).unwrap();
    for kernel in every_kernel() {
        let ran = launched.lines().any(|name| name == kernel);
        assert!(ran, "no test of parity launches {kernel}");
    }
    assert!(launched.contains("map_joined_"));
}

/// The names of all kernels that ship.
fn every_kernel() -> Vec<String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/MANIFEST");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let rows = manifest
        .lines()
        .filter(|line| ["sm_80 ", "sm_90a "].iter().any(|of| line.starts_with(of)));
    let name = |row: &str| row.split_whitespace().nth(1).unwrap().to_string();
    let kernels: Vec<String> = rows.map(name).collect();
    assert!(kernels.len() > 80, "{kernels:?}");
    kernels
}

const PRECISIONS: [Precision; 3] = [Precision::Fp32, Precision::Tf32, Precision::Bf16];

pub(super) static CPU: LazyLock<Device> = LazyLock::new(|| Device::cpu(Some(1)).unwrap());
pub(super) static CUDA: LazyLock<[Device; 3]> =
    LazyLock::new(|| PRECISIONS.map(|p| Device::cuda(0, p).unwrap()));

/// Cases that are the same in every run.
pub(super) fn cases<S: Strategy>(count: u32, strategy: S, test: impl Fn(S::Value)) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config {
        cases: count,
        failure_persistence: None,
        ..Config::default()
    };
    let run = TestRunner::new_with_rng(config, rng).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    run.unwrap();
}

pub(super) fn f32s(count: usize, seed: u64) -> Vec<u8> {
    bytes(
        &noise(count, seed)
            .iter()
            .map(|&x| x as f32)
            .collect::<Vec<_>>(),
    )
}

/// Noise of the types that the kernel reads.
pub(super) fn inputs(kernel: &Kernel) -> Vec<Vec<u8>> {
    let array = |(i, (dtype, count)): (usize, (DType, usize))| match dtype {
        DType::F32 => f32s(count, i as u64 + 1),
        // Bytes whose halves are ordinary numbers.
        _ => (0..count * dtype.size())
            .map(|at| (at * 37 % 61) as u8)
            .collect(),
    };
    kernel.inputs().into_iter().enumerate().map(array).collect()
}

pub(super) fn run_on(device: &Device, kernel: &Kernel, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    run_shifted(device, 0, kernel, inputs)
}

/// As [`run_on`], on views that start that many elements after an address that is aligned for vectors.
fn run_shifted(
    device: &Device,
    elements: usize,
    kernel: &Kernel,
    inputs: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let result = Layout::new(kernel.clone()).run_shifted(device, elements, inputs);
    result.unwrap_or_else(|error| panic!("{kernel:?}: {error}"))
}

/// The same bits as on the processor, wherever views start, but for those of NaNs: see [`with_one_nan`].
pub(super) fn same(kernel: &Kernel, inputs: &[Vec<u8>]) {
    let cpu = with_one_nan(kernel, run_on(&CPU, kernel, inputs));
    for elements in [0, 1] {
        let cuda = with_one_nan(kernel, run_shifted(&CUDA[0], elements, kernel, inputs));
        assert!(cpu == cuda, "{kernel:?} + {elements}\n{cpu:?}\n{cuda:?}");
    }
}

/// Gives every NaN in the results of a kernel the same bits. IEEE 754 leaves sign and payload of a NaN to the
/// machine: arithmetic on an NVIDIA GPU gives 0x7FFFFFFF (0x7FFF in 16 bits), on x86-64 the operand's NaN or
/// 0xFFC00000.
pub(super) fn with_one_nan(kernel: &Kernel, mut results: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    fn replace<T: bytemuck::Pod>(result: &mut [u8], nan: T, is_nan: impl Fn(T) -> bool) {
        for bytes in result.chunks_exact_mut(size_of::<T>()) {
            if is_nan(bytemuck::pod_read_unaligned(bytes)) {
                bytes.copy_from_slice(bytemuck::bytes_of(&nan));
            }
        }
    }
    for (result, (dtype, _)) in results.iter_mut().zip(kernel.outputs()) {
        match dtype {
            DType::F32 => replace(result, f32::NAN, f32::is_nan),
            DType::F64 => replace(result, f64::NAN, f64::is_nan),
            DType::BF16 => replace(result, bf16::NAN, bf16::is_nan),
            DType::F16 => replace(result, f16::NAN, f16::is_nan),
            DType::U8 | DType::I32 | DType::U32 => {}
        }
    }
    results
}

/// The same f32 numbers within `tolerance`; and the same bits twice, wherever views start.
pub(super) fn close(device: &Device, kernel: &Kernel, inputs: &[Vec<u8>], tolerance: f32) {
    let (cpu, cuda) = (run_on(&CPU, kernel, inputs), run_on(device, kernel, inputs));
    for elements in [1, 2] {
        assert!(
            cuda == run_shifted(device, elements, kernel, inputs),
            "{kernel:?} + {elements} differs from run to run"
        );
    }
    for (cpu, cuda) in cpu.iter().zip(&cuda) {
        let (cpu, cuda) = (numbers::<f32>(cpu), numbers::<f32>(cuda));
        for (i, (x, y)) in cpu.iter().zip(&cuda).enumerate() {
            assert!((x - y).abs() <= tolerance, "{kernel:?}: {i}: {x} {y}");
        }
    }
}

/// How far a product of `count` terms below 4 may be off on each device: rounding of sums, then of operands.
pub(super) fn tolerances(count: usize) -> [f32; 3] {
    let (all, random) = (count as f32 + 8.0, (count as f32).sqrt() + 2.0);
    [1e-6 * all, 4e-3 * random, 3e-2 * random]
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_matmul() {
    let sizes = (1..3_usize, 1..150_usize, 1..150_usize, 0..300_usize);
    cases(
        24,
        (sizes, any::<[bool; 3]>()),
        |((batch, m, n, k), flags)| {
            matmul(batch, [m, n, k], flags);
        },
    );
    // Splits of the inner index, and all tiles.
    matmul(1, [16, 16, 3000], [false, false, true]);
    matmul(1, [130, 60, 1000], [true, false, false]);
    matmul(1, [260, 200, 32], [false, true, false]);
    matmul(1, [20, 12, 4100], [true, true, true]);
    // So many products that nothing is split: an inner index of many stages, which go round in shared memory.
    matmul(132, [8, 8, 480], [false, false, false]);
}

fn matmul(batch: usize, [m, n, k]: [usize; 3], [transpose_a, transpose_b, accumulate]: [bool; 3]) {
    let kernel = Kernel::MatMul(MatMul {
        float: Float::F32,
        batch,
        m,
        n,
        k,
        transpose_a,
        transpose_b,
        accumulate,
    });
    let mut inputs = inputs(&kernel);
    if accumulate {
        inputs.truncate(2);
    }
    for (device, tolerance) in CUDA.iter().zip(tolerances(k)) {
        close(device, &kernel, &inputs, tolerance);
    }
    if !accumulate {
        pair(&kernel);
    }
}

/// Two of a product in one kernel have the bits of two products and an addition.
fn pair(single: &Kernel) {
    let pair = single.paired().unwrap();
    let inputs = inputs(&pair);
    for device in CUDA.iter() {
        let expected = sum_of_products(device, single, &inputs);
        assert!(run_on(device, &pair, &inputs) == [expected], "{pair:?}");
    }
}

fn conv() -> impl Strategy<Value = Conv> {
    let kind = prop_oneof![
        Just(ConvKind::Forward),
        Just(ConvKind::Input),
        Just(ConvKind::Weight)
    ];
    let sizes = (
        1..4_usize,
        1..11_usize,
        1..11_usize,
        1..14_usize,
        1..10_usize,
    );
    let shape = (
        1..4_usize,
        1..4_usize,
        1..4_usize,
        1..3_usize,
        any::<[u8; 4]>(),
    );
    (kind, sizes, shape, any::<[bool; 2]>()).prop_map(
        |(kind, (n, h, w, c, out), (kh, kw, sy, sx, pad), [accumulate, alone])| {
            let pad = pad.map(|p| usize::from(p) % 3);
            Conv {
                float: Float::F32,
                kind,
                batch: if alone { 1 } else { 3 },
                n,
                h: h.max(kh),
                w: w.max(kw),
                c,
                out,
                window: [kh, kw],
                stride: [sy, sx],
                pad,
                accumulate,
            }
        },
    )
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_conv() {
    cases(48, conv(), check_conv);
    for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
        let spec = Conv {
            float: Float::F32,
            kind,
            batch: 1,
            n: 2,
            h: 14,
            w: 14,
            c: 16,
            out: 20,
            window: [3, 3],
            stride: [1, 1],
            pad: [1; 4],
            accumulate: false,
        };
        check_conv(spec);
        // Splits of the inner index, for each of the batch.
        check_conv(Conv {
            batch: 3,
            n: 3,
            ..spec
        });
        // Steps: some positions of the window reach a pixel, or none does.
        for (window, stride, pad) in [([4, 4], [2, 2], [1; 4]), ([3, 2], [2, 3], [2, 0, 1, 1])] {
            check_conv(Conv {
                window,
                stride,
                pad,
                ..spec
            });
        }
        check_conv(Conv {
            batch: 2,
            c: 1,
            stride: [2, 2],
            ..spec
        });
    }
}

fn check_conv(spec: Conv) {
    let kernel = Kernel::Conv(spec);
    let inner = match spec.kind {
        ConvKind::Forward => spec.window[0] * spec.window[1] * spec.c,
        ConvKind::Input => spec.window[0] * spec.window[1] * spec.out,
        ConvKind::Weight => spec.n * spec.out_h() * spec.out_w(),
    };
    for (device, tolerance) in CUDA.iter().zip(tolerances(inner)) {
        close(device, &kernel, &inputs(&kernel), tolerance);
    }
    if !spec.accumulate {
        pair(&kernel);
    }
}

/// Images of few channels: bands of a row and of several, columns of the weight in one group and in more,
/// channels of y that are no multiple of 4 or of 16, strides, and what does not fit shared memory.
#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_few() {
    for (c, out) in [
        (1, 64),
        (2, 20),
        (3, 7),
        (4, 16),
        (5, 33),
        (6, 9),
        (7, 4),
        (8, 18),
    ] {
        let spec = Conv {
            float: Float::F32,
            kind: ConvKind::Input,
            batch: 1 + c % 2,
            n: 3,
            h: 9 + c,
            w: 11,
            c,
            out,
            window: [[3, 3], [4, 4], [1, 2]][c % 3],
            stride: [[1, 1], [2, 2], [1, 3]][c % 3],
            pad: [[1; 4], [1, 1, 2, 1], [0; 4]][c % 3],
            accumulate: c % 3 == 0,
        };
        check_conv(spec);
        check_conv(Conv {
            n: 90,
            h: 5,
            ..spec
        });
        check_conv(Conv {
            kind: ConvKind::Weight,
            ..spec
        });
        check_conv(Conv {
            kind: ConvKind::Weight,
            batch: 1,
            n: 6,
            out: out + 64,
            ..spec
        });
        let wide = [5, 5];
        check_conv(Conv {
            w: 10 + c,
            window: wide,
            ..spec
        });
    }
}

/// So many products that the device splits none of their sums. Chains of 256 terms keep digits that a chain
/// of 1,024 loses: that is off by 9.7e-6.
#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_long_sums() {
    let (batch, k) = (132, 1024);
    let kernel = Kernel::MatMul(MatMul {
        float: Float::F32,
        batch,
        m: 1,
        n: 1,
        k,
        transpose_a: false,
        transpose_b: true,
        accumulate: false,
    });
    let operand = |x: f32| bytes(&vec![x; batch * k]);
    let found = run_on(&CUDA[0], &kernel, &[operand(0.1), operand(1.0)]);
    for sum in numbers::<f32>(&found[0]) {
        let error = (f64::from(sum) / (k as f64 * f64::from(0.1_f32)) - 1.0).abs();
        assert!(error < 4e-6, "{sum} is off by {error:.1e}");
    }
}

/// The larger tiles, which only products with many of them get: of 128 or 192 rows, and 128 columns or 64.
#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_tiles() {
    let check = |kernel: &Kernel| {
        for (device, tolerance) in CUDA.iter().zip(tolerances(9)) {
            close(device, kernel, &inputs(kernel), tolerance);
        }
    };
    // As many tiles as fit a device at once.
    let of_warps = [(128, 128, 2), (128, 64, 3)];
    let of_warpgroups = [(192, 128, 1), (192, 64, 1)];
    for (rows, columns, fit) in of_warps.into_iter().chain(of_warpgroups) {
        for [transpose_a, transpose_b] in
            [[false, false], [false, true], [true, false], [true, true]]
        {
            // With vectors, and with single elements.
            let short = if transpose_a == transpose_b { 0 } else { 3 };
            check(&Kernel::MatMul(MatMul {
                float: Float::F32,
                batch: 132 * fit,
                m: rows - short,
                n: columns - short,
                k: 8 - short,
                transpose_a,
                transpose_b,
                accumulate: false,
            }));
        }
        let conv = Conv {
            float: Float::F32,
            kind: ConvKind::Forward,
            batch: 1,
            n: 1,
            h: 133 * fit * rows / 128,
            w: 127,
            c: 4,
            out: columns,
            window: [1, 2],
            stride: [1, 1],
            pad: [0, 0, 1, 0],
            accumulate: false,
        };
        check(&Kernel::Conv(conv));
        check(&Kernel::Conv(Conv {
            kind: ConvKind::Input,
            c: columns,
            out: 4,
            ..conv
        }));
        check(&Kernel::Conv(Conv {
            kind: ConvKind::Weight,
            h: 2,
            w: 3,
            c: columns / 2,
            out: 132 * fit * rows,
            ..conv
        }));
    }
}

fn window() -> impl Strategy<Value = Window> {
    let sizes = (1..3_usize, 1..9_usize, 1..9_usize, 1..5_usize);
    let shape = (
        1..4_usize,
        1..4_usize,
        1..4_usize,
        1..4_usize,
        any::<[u8; 4]>(),
    );
    (sizes, shape).prop_map(|((n, h, w, c), (kh, kw, sy, sx, pad))| {
        let [top, bottom, left, right] = pad.map(usize::from);
        Window {
            float: Float::F32,
            kind: WindowKind::ArgMax,
            n,
            h: h.max(kh),
            w: w.max(kw),
            c,
            window: [kh, kw],
            stride: [sy, sx],
            pad: [top % kh, bottom % kh, left % kw, right % kw],
        }
    })
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_window() {
    // Side by side, of channels in fours.
    let tiles = (1..4_usize, 1..9_usize, 1..9_usize, 1..4_usize, 1..4_usize).prop_map(
        |(n, h, w, side, quads)| Window {
            float: Float::F32,
            kind: WindowKind::ArgMax,
            n,
            h: h.max(side),
            w: w.max(side),
            c: 4 * quads,
            window: [side, side],
            stride: [side, side],
            pad: [0; 4],
        },
    );
    cases(90, prop_oneof![2 => window(), 1 => tiles], |spec| {
        let of = |kind| Kernel::Window(Window { kind, ..spec });
        let argmax = of(WindowKind::ArgMax);
        let x = inputs(&argmax);
        same(&argmax, &x);
        let picks = run_on(&CPU, &argmax, &x).remove(0);
        same(&of(WindowKind::Gather), &[x[0].clone(), picks.clone()]);
        let y = f32s(picks.len(), 5);
        same(&of(WindowKind::Scatter), &[y, picks]);
    });
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_shapes() {
    let axis = (0..5_usize, 0..3_usize, 0..3_usize);
    let dtypes = prop_oneof![Just(DType::F32), Just(DType::U8), Just(DType::F16)];
    cases(
        60,
        (prop::collection::vec(axis, 1..5), dtypes.clone()),
        |(axes, dtype)| {
            let part = |pick: fn(&(usize, usize, usize)) -> usize| axes.iter().map(pick).collect();
            let pad = Pad {
                dtype,
                extents: part(|axis| axis.0),
                before: part(|axis| axis.1),
                after: part(|axis| axis.2),
            };
            let kernel = Kernel::Pad(pad);
            same(&kernel, &inputs(&kernel));
        },
    );
    cases(
        30,
        (0..5_usize, prop::collection::vec(0..9_usize, 1..4), dtypes),
        |(outer, inner, dtype)| {
            let kernel = Kernel::Concat(Concat {
                dtype,
                outer,
                inner,
            });
            same(&kernel, &inputs(&kernel));
        },
    );
    let take = (
        0..4_usize,
        1..6_usize,
        0..5_usize,
        prop::collection::vec(0..100_u32, 0..9),
        any::<bool>(),
    );
    cases(60, take, |(outer, n, inner, index, adjoint)| {
        let index = index.into_iter().map(|i| i % n as u32).collect();
        let kernel = Kernel::Take(Take {
            float: Float::F32,
            outer,
            n,
            inner,
            index,
            adjoint,
        });
        same(&kernel, &inputs(&kernel));
    });
    cases(
        40,
        (1..40_usize, 0..9_usize, 0..600_usize, any::<bool>()),
        |(rows, width, count, adjoint)| {
            let kernel = Kernel::Rows(Rows {
                float: Float::F32,
                rows,
                width,
                count,
                adjoint,
            });
            let mut inputs = inputs(&kernel);
            inputs[1] = bytes(
                &(0..count)
                    .map(|i| (i * 7 % rows) as i32)
                    .collect::<Vec<_>>(),
            );
            same(&kernel, &inputs);
        },
    );
    cases(
        30,
        (0..5_usize, 1..9_usize, 0..5_usize),
        |(outer, n, inner)| {
            let kernel = Kernel::ArgMax(ArgMax {
                float: Float::F32,
                outer,
                n,
                inner,
            });
            let mut inputs = inputs(&kernel);
            same(&kernel, &inputs);
            let mut special: Vec<f32> = numbers(&inputs[0]);
            for (i, x) in special.iter_mut().enumerate() {
                *x = [f32::NAN, 1.0, 1.0, f32::NEG_INFINITY][i % 4];
            }
            inputs[0] = bytes(&special);
            same(&kernel, &inputs);
        },
    );
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_random() {
    for distribution in [Distribution::Uniform, Distribution::Normal] {
        for count in [0, 1, 3, 4, 1000, 4099] {
            let kernel = Kernel::Random(Random {
                float: Float::F32,
                distribution,
                count,
                op: 3,
            });
            same(&kernel, &[bytes(&[7_u32, 11, 13, 17])]);
        }
    }
}

/// Steps from a start and on, one of which takes a word out, and back.
#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_reversible() {
    let spec = (0..600_usize, prop::collection::vec(0.0..1.0_f32, 1..6));
    cases(20, spec, |(count, mut momenta)| {
        momenta.extend([0.0, 0.0, 1e-7, 1.5]);
        let of = |kind| {
            let float = Float::F32;
            Kernel::Reversible(Reversible { float, count, kind })
        };
        let floats = [1, 2].map(|seed| f32s(count, seed));
        let (lr, mut state) = (bytes(&[0.3_f32]), vec![0; 4 * Reversible::words(count)]);
        let (mut most, mut carried) = (0, false);
        for (t, momentum) in momenta.into_iter().enumerate() {
            let mut gradient = f32s(count, 3 + t as u64);
            if count > 7 {
                gradient[4 * t..4 * t + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            }
            let rates = [lr.clone(), bytes(&[momentum])];
            let [theta, u] = floats.clone();
            let inputs = [vec![state, theta, u, gradient.clone()], rates.to_vec()].concat();
            same(&of(ReversibleKind::Advance), &inputs);
            state = run_on(&CPU, &of(ReversibleKind::Advance), &inputs).remove(0);
            let back = [vec![state.clone(), gradient], rates.to_vec()].concat();
            same(&of(ReversibleKind::Undo), &back);
            same(
                &of(ReversibleKind::WeightBefore),
                &[state.clone(), lr.clone()],
            );
            same(&of(ReversibleKind::Weight), std::slice::from_ref(&state));
            same(&of(ReversibleKind::Velocity), std::slice::from_ref(&state));
            let grown = Ratio::new(momentum.into()).map(|ratio| ratio.grow(most));
            let carry;
            (carry, most) = grown.unwrap_or((false, 0));
            carried |= carry;
        }
        assert!(carried);
    });
}
