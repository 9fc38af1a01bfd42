//! Kernels by themselves, in the shapes that learners and generators have: FLOP/s or bytes/s of each.
//!
//! `cargo bench -p benches --bench kernels`; criterion calls FLOPs elements. Every kernel runs as a program of
//! one step on all cores.

#![allow(
    missing_docs,
    reason = "criterion's macros write undocumented functions"
)]

use benches::kernels::{Single, conv, load, map, matmul, pool};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use kernels::{Binary, ConvKind, Device, Instr, Kernel, StoreKind, Unary, WindowKind};

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
    for (name, extents, transpose) in shapes {
        let product = matmul(extents, transpose);
        bench(&mut group, &device, name, Rate::Flops, &product);
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
    for (name, (n, image, window)) in shapes {
        for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
            let name = format!("{name}, {kind:?}");
            let kernel = conv(kind, n, image, window);
            bench(&mut group, &device, &name, Rate::Flops, &kernel);
        }
    }
}

/// Pooling by halves after the first convolution.
fn windows(c: &mut Criterion) {
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("window");
    for channels in [24, 32] {
        for kind in [WindowKind::ArgMax, WindowKind::Gather, WindowKind::Scatter] {
            let name = format!("{channels} channels, {kind:?}");
            let kernel = pool(kind, 64, channels);
            bench(&mut group, &device, &name, Rate::Bytes, &kernel);
        }
    }
}

/// An array of [64, 14, 14, 40], with numbers per channel.
fn maps(c: &mut Criterion) {
    const EXTENTS: [usize; 2] = [64 * 14 * 14, 40];
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("map");
    let (whole, channel) = (load(&[EXTENTS[1], 1]), load(&[0, 1]));
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
        vec![(6, StoreKind::Full)],
    );
    let square = vec![get(0), binary(Binary::Mul, 0, 0)];
    let moments = (
        vec![whole.clone()],
        square,
        vec![(0, by_channel()), (1, by_channel())],
    );
    let tanh = (
        vec![whole],
        vec![get(0), Instr::Unary(Unary::Tanh, 0)],
        vec![(1, StoreKind::Full)],
    );
    let all = [
        ("norm and relu", norm_and_relu),
        ("moments", moments),
        ("tanh", tanh),
    ];
    for (name, (loads, code, stores)) in all {
        let kernel = map(&EXTENTS, loads, code, stores);
        bench(&mut group, &device, name, Rate::Bytes, &kernel);
    }
}

criterion_group!(benches, products, convolutions, windows, maps);
criterion_main!(benches);
