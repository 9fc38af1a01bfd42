//! Kernels by themselves, in the shapes that learners and generators have: FLOP/s or bytes/s of each.
//!
//! `cargo bench -p benches --bench kernels`; criterion calls FLOPs elements. Every kernel runs as a program of
//! one step on all cores.

#![allow(
    missing_docs,
    reason = "criterion's macros write undocumented functions"
)]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use gtn::bench::Single;
use kernels::{
    Binary, Conv, ConvKind, Device, Float, Instr, Kernel, Load, Map, MatMul, Store, StoreKind,
    Unary, Window, WindowKind,
};
use tensor::DType;

/// What a kernel is measured in.
#[derive(Clone, Copy)]
enum Rate {
    Flops,
    Bytes,
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    device: &Device,
    name: &str,
    rate: Rate,
    kernel: &Kernel,
) {
    group.throughput(match rate {
        Rate::Flops => Throughput::Elements(kernel.flops()),
        Rate::Bytes => Throughput::Bytes(kernel.bytes()),
    });
    let single = Single::new(device, kernel).expect("a sound kernel, and memory");
    let run = || single.run(device).expect("no bad index");
    group.bench_function(name, |b| b.iter(run));
}

/// The dense layers of the generator, in the three forms that derivatives need, and a square product.
fn products(c: &mut Criterion) {
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("product");
    let shapes = [
        ("128x1024 by 1024x6272", [128, 6272, 1024], [false, false]),
        (
            "transposed 128x1024 by 128x6272",
            [1024, 6272, 128],
            [true, false],
        ),
        (
            "128x6272 by transposed 1024x6272",
            [128, 1024, 6272],
            [false, true],
        ),
        ("square 1024", [1024, 1024, 1024], [false, false]),
    ];
    for (name, [m, n, k], [transpose_a, transpose_b]) in shapes {
        let product = MatMul {
            float: Float::F32,
            batch: 1,
            m,
            n,
            k,
            transpose_a,
            transpose_b,
            accumulate: false,
        };
        bench(
            &mut group,
            &device,
            name,
            Rate::Flops,
            &Kernel::MatMul(product),
        );
    }
}

/// Layers of learners, and the generator's upsampling convolution (which is the transpose with respect to
/// the input), each with its transposes.
fn convolutions(c: &mut Criterion) {
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("convolution");
    let layer = |side, c, out| (64, [side, c, out], [3, 1, 1]);
    let upsampling = |side, c, out| (128, [side, c, out], [4, 2, 1]);
    let shapes = [
        ("28x28 1 to 24", layer(28, 1, 24)),
        ("28x28 1 to 32", layer(28, 1, 32)),
        ("14x14 24 to 40", layer(14, 24, 40)),
        ("14x14 32 to 64", layer(14, 32, 64)),
        ("upsampling 7x7 128 to 64", upsampling(14, 64, 128)),
        ("upsampling 14x14 64 to 1", upsampling(28, 1, 64)),
    ];
    for (name, (n, [side, c, out], [window, stride, pad])) in shapes {
        for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
            let conv = Conv {
                float: Float::F32,
                kind,
                batch: 1,
                n,
                h: side,
                w: side,
                c,
                out,
                window: [window; 2],
                stride: [stride; 2],
                pad: [pad; 4],
                accumulate: false,
            };
            let name = format!("{name}, {kind:?}");
            bench(&mut group, &device, &name, Rate::Flops, &Kernel::Conv(conv));
        }
    }
}

/// Pooling by halves after the first convolution.
fn windows(c: &mut Criterion) {
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("window");
    for channels in [24, 32] {
        for kind in [WindowKind::ArgMax, WindowKind::Gather, WindowKind::Scatter] {
            let window = Window {
                float: Float::F32,
                kind,
                n: 64,
                h: 28,
                w: 28,
                c: channels,
                window: [2, 2],
                stride: [2, 2],
                pad: [0; 4],
            };
            let name = format!("{channels} channels, {kind:?}");
            let kernel = Kernel::Window(window);
            bench(&mut group, &device, &name, Rate::Bytes, &kernel);
        }
    }
}

/// An array of [64, 14, 14, 40], with numbers per channel.
fn maps(c: &mut Criterion) {
    const EXTENTS: [usize; 2] = [64 * 14 * 14, 40];
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("map");
    let load = |strides: [usize; 2]| Load {
        dtype: DType::F32,
        strides: strides.to_vec(),
    };
    let (whole, channel) = (load([EXTENTS[1], 1]), load([0, 1]));
    let store = |value, kind| Store {
        value,
        dtype: DType::F32,
        kind,
    };
    let by_channel = || StoreKind::Sum(vec![true, false]);
    let get = Instr::Load;
    let binary = Instr::Binary;
    let shift_scale = vec![
        get(0),
        get(1),
        binary(Binary::Sub, 0, 1),
        get(2),
        binary(Binary::Mul, 2, 3),
        Instr::constant(0.0),
        binary(Binary::Max, 4, 5),
    ];
    let norm_and_relu = (
        vec![whole.clone(), channel.clone(), channel],
        shift_scale,
        vec![store(6, StoreKind::Full)],
    );
    let square = vec![get(0), binary(Binary::Mul, 0, 0)];
    let moments = (
        vec![whole.clone()],
        square,
        vec![store(0, by_channel()), store(1, by_channel())],
    );
    let tanh = (
        vec![whole],
        vec![get(0), Instr::Unary(Unary::Tanh, 0)],
        vec![store(1, StoreKind::Full)],
    );
    let all = [
        ("norm and relu", norm_and_relu),
        ("moments", moments),
        ("tanh", tanh),
    ];
    for (name, (loads, code, stores)) in all {
        let map = Map {
            float: Float::F32,
            extents: EXTENTS.to_vec(),
            loads,
            code,
            stores,
        };
        bench(&mut group, &device, name, Rate::Bytes, &Kernel::Map(map));
    }
}

criterion_group!(benches, products, convolutions, windows, maps);
criterion_main!(benches);
