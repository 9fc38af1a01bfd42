//! Pooling windows against plain code, one element at a time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Layout, bytes, device, noise, numbers, run_all};
use kernels::{Float, Kernel, Window, WindowKind};
use proptest::prelude::*;

/// For every window and channel: the offsets inside of it, and the elements of x there.
fn windows(window: &Window) -> Vec<Vec<(u8, usize)>> {
    let Window { n, h, w, c, .. } = *window;
    let mut all = Vec::new();
    for (image, i, j, channel) in (0..n * window.out_h() * window.out_w() * c).map(|at| {
        let (at, channel) = (at / c, at % c);
        let (at, j) = (at / window.out_w(), at % window.out_w());
        (at / window.out_h(), at % window.out_h(), j, channel)
    }) {
        let mut inside = Vec::new();
        for offset in 0..window.window[0] * window.window[1] {
            let row =
                (i * window.stride[0] + offset / window.window[1]).wrapping_sub(window.pad[0]);
            let col =
                (j * window.stride[1] + offset % window.window[1]).wrapping_sub(window.pad[2]);
            if row < h && col < w {
                inside.push((offset as u8, ((image * h + row) * w + col) * c + channel));
            }
        }
        all.push(inside);
    }
    all
}

fn encode(float: Float, values: &[f64]) -> Vec<u8> {
    match float {
        Float::F32 => bytes(&values.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        Float::F64 => bytes(values),
    }
}

fn decode(float: Float, encoded: &[u8]) -> Vec<f64> {
    match float {
        Float::F32 => numbers::<f32>(encoded).into_iter().map(f64::from).collect(),
        Float::F64 => numbers(encoded),
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Few different numbers, so that there are equals; some are NaN, infinite, or zero of either sign.
fn image(count: usize, seed: u64) -> Vec<f64> {
    let special = [f64::NAN, f64::NEG_INFINITY, f64::INFINITY, 0.0, -0.0];
    let value = |x: f64| {
        let rounded = (x * 8.0).round();
        let index = (rounded + 16.0) as usize;
        special.get(index).copied().unwrap_or(rounded / 4.0)
    };
    noise(count, seed).into_iter().map(value).collect()
}

fn check(window: Window) {
    let (float, windows) = (window.float, windows(&window));
    let kernel = |kind| Kernel::Window(Window { kind, ..window });
    let x = image(window.n * window.h * window.w * window.c, 1);
    let beats = |x: f64, best: f64| x > best || x.is_nan() && !best.is_nan();
    let pick = |inside: &Vec<(u8, usize)>| {
        let mut best = inside[0];
        for &other in inside {
            best = if beats(x[other.1], x[best.1]) {
                other
            } else {
                best
            };
        }
        best
    };
    let picked: Vec<_> = windows.iter().map(pick).collect();
    let picks: Vec<u8> = picked.iter().map(|&(offset, _)| offset).collect();
    let argmax = run_all(&kernel(WindowKind::ArgMax), &[encode(float, &x)]);
    assert_eq!(argmax[0], picks);

    // Not only the offsets of the greatest.
    let picked: Vec<_> = windows
        .iter()
        .enumerate()
        .map(|(i, inside)| inside[i * 7 % 11 % inside.len()])
        .collect();
    let picks: Vec<u8> = picked.iter().map(|&(offset, _)| offset).collect();
    let gathered = run_all(
        &kernel(WindowKind::Gather),
        &[encode(float, &x), picks.clone()],
    );
    let want: Vec<f64> = picked.iter().map(|&(_, at)| x[at]).collect();
    assert_eq!(bits(&decode(float, &gathered[0])), bits(&want));

    let y = decode(float, &encode(float, &noise(picked.len(), 2)));
    let scattered = run_all(
        &kernel(WindowKind::Scatter),
        &[encode(float, &y), picks.clone()],
    );
    let mut want = vec![0.0; x.len()];
    for (&(_, at), &y) in picked.iter().zip(&y) {
        want[at] = decode(float, &encode(float, &[want[at] + y]))[0];
    }
    assert_eq!(bits(&decode(float, &scattered[0])), bits(&want));

    // An offset that lies outside is an error, wherever it is.
    if let Some(at) = picks.len().checked_sub(1) {
        let mut picks = picks;
        picks[at * 5 / 7] = 255;
        for (kind, first) in [(WindowKind::Gather, &x), (WindowKind::Scatter, &y)] {
            let inputs = [encode(float, first), picks.clone()];
            Layout::new(kernel(kind))
                .run(&device(2), &inputs)
                .unwrap_err();
        }
    }
}

#[test]
fn a_pick_in_the_window_and_outside_of_the_image_is_an_error() {
    let window = |kind| {
        Kernel::Window(Window {
            float: Float::F32,
            kind,
            n: 1,
            h: 2,
            w: 2,
            c: 1,
            window: [3, 3],
            stride: [1, 1],
            pad: [1; 4],
        })
    };
    for kind in [WindowKind::Gather, WindowKind::Scatter] {
        let run = |picks: [u8; 4]| {
            let inputs = [encode(Float::F32, &[1.0; 4]), picks.to_vec()];
            Layout::new(window(kind)).run(&device(1), &inputs)
        };
        assert!(run([4; 4]).is_ok());
        // The corner of the first window is border.
        assert!(run([0, 4, 4, 4]).is_err(), "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]
    #[test]
    fn any_window(
        n in 0_usize..4,
        image in [1_usize..12, 1..12],
        c in prop_oneof![0_usize..5, 14_usize..50],
        size in [1_usize..4, 1..4],
        stride in [1_usize..4, 1..4],
        pad in [0_usize..3, 0..3, 0..3, 0..3],
        float in prop_oneof![Just(Float::F32), Just(Float::F64)],
    ) {
        let pad = [0, 1, 2, 3].map(|side: usize| pad[side].min(size[side / 2] - 1));
        prop_assume!(size[0] <= image[0] + pad[0] + pad[1] && size[1] <= image[1] + pad[2] + pad[3]);
        let kind = WindowKind::ArgMax;
        check(Window { float, kind, n, h: image[0], w: image[1], c, window: size, stride, pad });
    }
}

#[test]
fn pooling_by_halves() {
    for (c, float) in [1, 24, 40, 64]
        .into_iter()
        .flat_map(|c| [(c, Float::F32), (c, Float::F64)])
    {
        check(Window {
            float,
            kind: WindowKind::ArgMax,
            n: 3,
            h: 28,
            w: 27,
            c,
            window: [2, 2],
            stride: [2, 2],
            pad: [0; 4],
        });
    }
}
