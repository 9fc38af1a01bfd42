use super::*;
use crate::cpu::gemm::tests::{assert_close, decode, encode, noise, on_threads, raw};
use proptest::prelude::*;

/// The two arguments, in the order of [`ConvKind`], as the numbers that the kernel gets.
fn arguments(spec: &Conv) -> [Vec<f64>; 2] {
    let [x, w, y] = spec.counts();
    let counts = match spec.kind {
        ConvKind::Forward => [x, w],
        ConvKind::Input => [y, w],
        ConvKind::Weight => [x, y],
    };
    [0, 1].map(|i| {
        let values = noise(counts[i], i as u64);
        decode(&encode(&values, spec.float), counts[i], spec.float)
    })
}

fn result_count(spec: &Conv) -> usize {
    let [x, w, y] = spec.counts();
    match spec.kind {
        ConvKind::Forward => y,
        ConvKind::Input => x,
        ConvKind::Weight => w,
    }
}

fn run(spec: &Conv, start: &[f64], garbage: u64) -> Vec<f64> {
    run_on(spec, arguments(spec), start, garbage)
}

fn run_on(spec: &Conv, [first, second]: [Vec<f64>; 2], start: &[f64], garbage: u64) -> Vec<f64> {
    let (mut first, mut second) = (encode(&first, spec.float), encode(&second, spec.float));
    let mut out = encode(start, spec.float);
    let mut workspace = vec![garbage; workspace(spec).div_ceil(8)];
    conv(
        spec,
        raw(&mut first),
        raw(&mut second),
        raw(&mut out),
        raw(&mut workspace),
    );
    decode(&out, start.len(), spec.float)
}

/// The batch one by one.
fn separately(spec: &Conv, start: &[f64]) -> Vec<f64> {
    let one = Conv { batch: 1, ..*spec };
    let all = arguments(spec);
    let part = |all: &[f64], i: usize| {
        let count = all.len() / spec.batch;
        all[i * count..][..count].to_vec()
    };
    let run = |i| run_on(&one, all.each_ref().map(|a| part(a, i)), &part(start, i), 3);
    (0..spec.batch).flat_map(run).collect()
}

/// The definition: eight loops, each product added where it belongs.
fn reference(spec: &Conv) -> Vec<f64> {
    let [first, second] = arguments(spec);
    let mut result = vec![0.0; result_count(spec)];
    let [kh, kw] = spec.window;
    let mut product = |x: usize, w: usize, y: usize| match spec.kind {
        ConvKind::Forward => result[y] += first[x] * second[w],
        ConvKind::Input => result[x] += first[y] * second[w],
        ConvKind::Weight => result[w] += first[x] * second[y],
    };
    // Images lie one after another, and so do the images of a batch.
    for image in 0..spec.batch * spec.n {
        let outputs = image / spec.n * spec.out..(image / spec.n + 1) * spec.out;
        for (i, j) in (0..spec.out_h()).flat_map(|i| (0..spec.out_w()).map(move |j| (i, j))) {
            for (p, q) in (0..kh).flat_map(|p| (0..kw).map(move |q| (p, q))) {
                let row = (i * spec.stride[0] + p).wrapping_sub(spec.pad[0]);
                let col = (j * spec.stride[1] + q).wrapping_sub(spec.pad[2]);
                if row >= spec.h || col >= spec.w {
                    continue;
                }
                for (o, c) in outputs
                    .clone()
                    .flat_map(|o| (0..spec.c).map(move |c| (o, c)))
                {
                    let x = ((image * spec.h + row) * spec.w + col) * spec.c + c;
                    let w = ((o * kh + p) * kw + q) * spec.c + c;
                    let y = (image * spec.out_h() + i) * spec.out_w() + j;
                    product(x, w, y * spec.out + o % spec.out);
                }
            }
        }
    }
    result
}

/// Everything that holds for every convolution.
fn check(spec: Conv) {
    for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
        let spec = Conv { kind, ..spec };
        let count = result_count(&spec);
        let terms = spec.flops() as usize / 2 / count.max(1);
        let fresh = run(&spec, &vec![f64::NAN; count], u64::MAX);
        assert_close(&fresh, &reference(&spec), spec.float, terms);
        let start = decode(&encode(&noise(count, 3), spec.float), count, spec.float);
        let sum: Vec<f64> = start.iter().zip(&fresh).map(|(a, b)| a + b).collect();
        let sum = decode(&encode(&sum, spec.float), count, spec.float);
        let added = Conv {
            accumulate: true,
            ..spec
        };
        for threads in 1..=3 {
            assert_eq!(
                on_threads(threads, || run(&spec, &vec![1.0; count], 0)),
                fresh
            );
            assert_eq!(on_threads(threads, || run(&added, &start, 7)), sum);
        }
        if spec.batch > 1 {
            assert_eq!(separately(&spec, &start), fresh);
            assert_eq!(separately(&added, &start), sum);
        }
    }
}

fn spec(n: usize, [h, w]: [usize; 2], [c, out]: [usize; 2], window: [usize; 2]) -> Conv {
    Conv {
        float: Float::F32,
        kind: ConvKind::Forward,
        batch: 1,
        n,
        h,
        w,
        c,
        out,
        window,
        stride: [1, 1],
        pad: [1, 1, 1, 1],
        accumulate: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_convolution(
        batch in prop_oneof![Just(1_usize), 0_usize..4],
        n in 0_usize..5,
        image in [1_usize..12, 1..12],
        channels in [0_usize..20, 0..20],
        window in [1_usize..5, 1..5],
        stride in [1_usize..4, 1..4],
        pad in [0_usize..3, 0..3, 0..3, 0..3],
        float in prop_oneof![Just(Float::F32), Just(Float::F64)],
    ) {
        prop_assume!(window[0] <= image[0] + pad[0] + pad[1]);
        prop_assume!(window[1] <= image[1] + pad[2] + pad[3]);
        check(Conv { float, batch, stride, pad, ..spec(n, image, channels, window) });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_convolution_from_or_to_one_channel(
        n in 1_usize..4,
        image in [1_usize..40, 1..40],
        channels in 1_usize..40,
        is_first in any::<bool>(),
        window in [1_usize..6, 1..6],
        pad in [0_usize..6, 0..6, 0..6, 0..6],
        float in prop_oneof![Just(Float::F32), Just(Float::F64)],
    ) {
        prop_assume!(window[0] <= image[0] + pad[0] + pad[1]);
        prop_assume!(window[1] <= image[1] + pad[2] + pad[3]);
        let channels = if is_first { [1, channels] } else { [channels, 1] };
        check(Conv { float, pad, ..spec(n, image, channels, window) });
    }
}

#[test]
fn convolutions_of_many_blocks() {
    check(spec(5, [28, 28], [1, 32], [3, 3]));
    check(spec(3, [14, 14], [32, 64], [3, 3]));
    check(spec(2, [7, 7], [128, 64], [3, 3]));
    check(Conv {
        pad: [0, 1, 1, 0],
        ..spec(3, [14, 14], [64, 1], [2, 2])
    });
    check(Conv {
        stride: [2, 2],
        ..spec(3, [28, 28], [16, 33], [3, 3])
    });
    for pad in [1, 3] {
        check(Conv {
            stride: [2, 2],
            pad: [pad; 4],
            ..spec(2, [14, 14], [32, 24], [4, 4])
        });
    }
    check(Conv {
        float: Float::F64,
        ..spec(17, [9, 9], [20, 20], [3, 3])
    });
    check(Conv {
        batch: 3,
        ..spec(3, [14, 14], [17, 33], [3, 3])
    });
    check(Conv {
        batch: 2,
        stride: [2, 2],
        ..spec(2, [15, 14], [1, 24], [4, 4])
    });
}

/// Windows of three with steps of one, which are computed in tiles from about twelve channels on.
fn tiled(n: usize, image: [usize; 2], channels: [usize; 2], pad: [usize; 4]) -> Conv {
    let spec = Conv {
        pad,
        ..spec(n, image, channels, [3, 3])
    };
    assert!(matches!(Form::of(&spec), Form::Tiled(_)), "{spec:?}");
    spec
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_tiles(
        batch in 1_usize..4,
        n in 1_usize..9,
        image in [3_usize..14, 3..14],
        channels in [16_usize..50, 16..50],
        pad in [0_usize..3, 0..3, 0..3, 0..3],
        float in prop_oneof![Just(Float::F32), Just(Float::F64)],
    ) {
        check(Conv { float, batch, pad, ..spec(n, image, channels, [3, 3]) });
    }
}

#[test]
fn tiles_of_many_blocks() {
    // Tiles that end with the image, and that reach out of it; one tile only; blocks across images.
    check(tiled(9, [14, 14], [32, 64], [1; 4]));
    check(tiled(2, [13, 15], [17, 33], [0; 4]));
    check(tiled(12, [4, 4], [40, 40], [0; 4]));
    check(tiled(70, [4, 3], [24, 16], [2, 0, 1, 2]));
    // Sums that take several pieces of channels.
    check(tiled(2, [10, 9], [150, 200], [1; 4]));
    check(Conv {
        float: Float::F64,
        batch: 2,
        ..tiled(3, [9, 10], [70, 130], [2; 4])
    });
}

/// The root mean square of a form's errors in f32, divided by that of the results, in units of ε.
fn error(spec: &Conv, form: &Form) -> f64 {
    let ([first, second], count) = (arguments(spec), result_count(spec));
    let (mut first, mut second) = (encode(&first, spec.float), encode(&second, spec.float));
    let mut out = vec![0_u64; count.div_ceil(2)];
    let mut workspace = vec![0_u64; aligned::space(bytes_of_one(spec, form)).div_ceil(8)];
    let inputs = [raw(&mut first), raw(&mut second)];
    super::run::<f32>(spec, form, inputs, raw(&mut out), raw(&mut workspace));
    let got = decode(&out, count, spec.float);
    let want = reference(spec);
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let errors = square(&mut got.iter().zip(&want).map(|(got, want)| got - want));
    (errors / square(&mut want.iter().copied())).sqrt() / f64::from(f32::EPSILON)
}

/// A direct sum has as many terms as a patch has elements, or an image pixels. Sums over tiles are shorter:
/// 16 products for 4 results. The transforms round, too, but no more than that saves.
#[test]
fn tiles_are_about_as_exact_as_sums_of_all_products() {
    for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
        let spec = Conv {
            kind,
            ..tiled(8, [14, 14], [32, 64], [1; 4])
        };
        let direct = match kind {
            ConvKind::Forward => Form::Gather(Phases::forward(&spec)),
            ConvKind::Input => Form::Gather(Phases::backward(&spec)),
            ConvKind::Weight => Form::Weight(Correlation::forward(&spec), Sides::Same),
        };
        assert!(!matches!(
            Form::of(&spec),
            Form::Gather(_) | Form::Weight(..)
        ));
        let [tiled, direct] = [Form::of(&spec), direct].map(|form| error(&spec, &form));
        println!("{kind:?}: {tiled:.2} tiled, {direct:.2} direct");
        assert!(
            tiled < 8.0 && direct < 8.0,
            "{kind:?}: {tiled} and {direct}"
        );
    }
}

/// ⟨conv(x, w), y⟩ = ⟨x, convᵀ(y, w)⟩ = ⟨w, convᵀ(x, y)⟩.
#[test]
fn tiled_transposes_are_adjoint() {
    let spec = Conv {
        float: Float::F64,
        batch: 2,
        ..tiled(3, [9, 12], [21, 34], [1, 2, 0, 1])
    };
    let [x, w, y] = [0, 1, 2].map(|i| noise(spec.counts()[i], i as u64));
    let dot = |kind, inputs: [&Vec<f64>; 2], other: &[f64]| -> f64 {
        let start = vec![0.0; other.len()];
        let result = run_on(&Conv { kind, ..spec }, inputs.map(Vec::clone), &start, 5);
        result.iter().zip(other).map(|(a, b)| a * b).sum()
    };
    let forward = dot(ConvKind::Forward, [&x, &w], &y);
    let input = dot(ConvKind::Input, [&y, &w], &x);
    let weight = dot(ConvKind::Weight, [&x, &y], &w);
    for transpose in [input, weight] {
        assert!(
            (transpose / forward - 1.0).abs() < 1e-11,
            "{transpose} and {forward}"
        );
    }
}
