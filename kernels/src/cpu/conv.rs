//! Convolutions, as matrix products with the patches of one image at a time.

use std::slice;

use super::gemm::{Element, Matrix, for_each, product, scratch, tile_product};
use crate::program::Raw;
use crate::{Conv, ConvKind, Float};

/// Groups of images that the weight gradient sums separately, to have work for several threads.
const GROUPS: usize = 16;

impl Conv {
    /// Bytes of scratch memory: the partial sums of [`ConvKind::Weight`].
    pub fn workspace(&self) -> usize {
        match self.kind {
            ConvKind::Weight => GROUPS * self.counts()[1] * self.float.size(),
            ConvKind::Forward | ConvKind::Input => 0,
        }
    }
}

pub(crate) fn conv(spec: &Conv, first: Raw, second: Raw, out: Raw, workspace: Raw) {
    match spec.float {
        Float::F32 => conv_of::<f32>(spec, first, second, out, workspace),
        Float::F64 => conv_of::<f64>(spec, first, second, out, workspace),
    }
}

fn conv_of<T: Element>(spec: &Conv, first: Raw, second: Raw, result: Raw, workspace: Raw) {
    let &Conv {
        n,
        h,
        w,
        c,
        out,
        window,
        accumulate,
        ..
    } = spec;
    let (image, pixels) = (h * w * c, spec.out_h() * spec.out_w());
    let patch = window[0] * window[1] * c;
    let matrix = |raw: Raw, row, col| Matrix {
        at: raw.pointer.cast::<T>(),
        row,
        col,
    };
    match spec.kind {
        ConvKind::Forward => {
            let (x, y) = (matrix(first, image, 1), matrix(result, out, 1));
            let weight = matrix(second, 1, patch);
            for_each(n, spec.flops(), |i| {
                scratch(pixels * patch, |patches| {
                    // SAFETY: image i of x and of y, checked by the program; the latter ours alone.
                    unsafe {
                        gather(spec, x.offset(i, 0).at, patches);
                        let patches = Matrix {
                            at: patches,
                            row: patch,
                            col: 1,
                        };
                        let y = y.offset(i * pixels, 0);
                        tile_product([pixels, out, patch], patches, weight, y, accumulate);
                    }
                });
            });
        }
        ConvKind::Input => {
            let (y, x) = (matrix(first, out, 1), matrix(result, image, 1));
            let weight = matrix(second, patch, 1);
            for_each(n, spec.flops(), |i| {
                scratch(pixels * patch + image, |patches: *mut T| {
                    let sums = patches.wrapping_add(pixels * patch);
                    let matrix = Matrix {
                        at: patches,
                        row: patch,
                        col: 1,
                    };
                    // SAFETY: image i of x and of y, checked by the program; the former ours alone.
                    unsafe {
                        product(
                            [pixels, patch, out],
                            y.offset(i * pixels, 0),
                            weight,
                            matrix,
                        );
                        let x = slice::from_raw_parts_mut(x.offset(i, 0).at, image);
                        let sums = slice::from_raw_parts_mut(sums, image);
                        sums.fill(T::default());
                        scatter(spec, patches, sums);
                        store(x, sums, accumulate);
                    }
                });
            });
        }
        ConvKind::Weight => {
            let (x, y) = (matrix(first, image, 1), matrix(second, out, 1));
            let partial = matrix(workspace, out * patch, 1);
            for_each(GROUPS, spec.flops(), |group| {
                scratch(pixels * patch, |patches| {
                    let target = Matrix {
                        at: partial.offset(group, 0).at,
                        row: patch,
                        col: 1,
                    };
                    // SAFETY: this group's part of the workspace and images of x and y.
                    unsafe {
                        slice::from_raw_parts_mut(target.at, out * patch).fill(T::default());
                        for i in group * n / GROUPS..(group + 1) * n / GROUPS {
                            gather(spec, x.offset(i, 0).at, patches);
                            let patches = Matrix {
                                at: patches,
                                row: patch,
                                col: 1,
                            };
                            let y = y.offset(i * pixels, 0);
                            let y = Matrix {
                                row: y.col,
                                col: y.row,
                                ..y
                            };
                            tile_product([out, patch, pixels], y, patches, target, true);
                        }
                    }
                });
            });
            // SAFETY: the workspace has `GROUPS` weights, and the result is one.
            unsafe {
                let (sums, rest) = slice::from_raw_parts_mut(partial.at, GROUPS * out * patch)
                    .split_at_mut(out * patch);
                for part in rest.chunks_exact((out * patch).max(1)) {
                    sums.iter_mut()
                        .zip(part)
                        .for_each(|(sum, &value)| *sum += value);
                }
                let w = slice::from_raw_parts_mut(result.pointer.cast(), out * patch);
                store(w, sums, accumulate);
            }
        }
    }
}

fn store<T: Element>(target: &mut [T], values: &[T], accumulate: bool) {
    if accumulate {
        target
            .iter_mut()
            .zip(values)
            .for_each(|(target, &value)| *target += value);
    } else {
        target.copy_from_slice(values);
    }
}

/// Calls `body(pixel of y, position in its window, pixel of x or none)` for one image.
fn taps(spec: &Conv, mut body: impl FnMut(usize, usize, Option<usize>)) {
    let [kh, kw] = spec.window;
    for i in 0..spec.out_h() {
        for j in 0..spec.out_w() {
            for tap in 0..kh * kw {
                let y = (i * spec.stride[0] + tap / kw).wrapping_sub(spec.pad[0]);
                let x = (j * spec.stride[1] + tap % kw).wrapping_sub(spec.pad[2]);
                let inside = y < spec.h && x < spec.w;
                body(i * spec.out_w() + j, tap, inside.then(|| y * spec.w + x));
            }
        }
    }
}

/// The patches under all windows of one image, a row each.
unsafe fn gather<T: Element>(spec: &Conv, image: *const T, patches: *mut T) {
    let (c, window) = (spec.c, spec.window[0] * spec.window[1]);
    taps(spec, |pixel, tap, source| {
        let patch = patches.wrapping_add((pixel * window + tap) * c);
        // SAFETY: the caller's image and room for all patches.
        let patch = unsafe { slice::from_raw_parts_mut(patch, c) };
        match source {
            // SAFETY: a pixel of the image.
            Some(source) => patch.copy_from_slice(unsafe {
                slice::from_raw_parts(image.wrapping_add(source * c), c)
            }),
            None => patch.fill(T::default()),
        }
    });
}

/// The transpose of [`gather`]: adds each patch to the image where it came from.
unsafe fn scatter<T: Element>(spec: &Conv, patches: *const T, image: &mut [T]) {
    let (c, window) = (spec.c, spec.window[0] * spec.window[1]);
    taps(spec, |pixel, tap, target| {
        let Some(target) = target else { return };
        let patch = patches.wrapping_add((pixel * window + tap) * c);
        // SAFETY: the caller's patches.
        let patch = unsafe { slice::from_raw_parts(patch, c) };
        let target = &mut image[target * c..][..c];
        target
            .iter_mut()
            .zip(patch)
            .for_each(|(target, &value)| *target += value);
    });
}

#[cfg(test)]
mod tests {
    use super::super::gemm::tests::{assert_close, decode, encode, noise, on_threads, raw};
    use super::*;
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
        let [first, second] = arguments(spec);
        let (mut first, mut second) = (encode(&first, spec.float), encode(&second, spec.float));
        let mut out = encode(start, spec.float);
        let mut workspace = vec![garbage; spec.workspace().div_ceil(8)];
        conv(
            spec,
            raw(&mut first),
            raw(&mut second),
            raw(&mut out),
            raw(&mut workspace),
        );
        decode(&out, start.len(), spec.float)
    }

    /// The definition: seven loops, each product added where it belongs.
    fn reference(spec: &Conv) -> Vec<f64> {
        let [first, second] = arguments(spec);
        let mut result = vec![0.0; result_count(spec)];
        let [kh, kw] = spec.window;
        let mut product = |x: usize, w: usize, y: usize| match spec.kind {
            ConvKind::Forward => result[y] += first[x] * second[w],
            ConvKind::Input => result[x] += first[y] * second[w],
            ConvKind::Weight => result[w] += first[x] * second[y],
        };
        for image in 0..spec.n {
            for (i, j) in (0..spec.out_h()).flat_map(|i| (0..spec.out_w()).map(move |j| (i, j))) {
                for (p, q) in (0..kh).flat_map(|p| (0..kw).map(move |q| (p, q))) {
                    let row = (i * spec.stride[0] + p).wrapping_sub(spec.pad[0]);
                    let col = (j * spec.stride[1] + q).wrapping_sub(spec.pad[2]);
                    if row >= spec.h || col >= spec.w {
                        continue;
                    }
                    for (o, c) in (0..spec.out).flat_map(|o| (0..spec.c).map(move |c| (o, c))) {
                        let x = ((image * spec.h + row) * spec.w + col) * spec.c + c;
                        let w = ((o * kh + p) * kw + q) * spec.c + c;
                        let y = (image * spec.out_h() + i) * spec.out_w() + j;
                        product(x, w, y * spec.out + o);
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
        }
    }

    fn spec(n: usize, [h, w]: [usize; 2], [c, out]: [usize; 2], window: [usize; 2]) -> Conv {
        Conv {
            float: Float::F32,
            kind: ConvKind::Forward,
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
            check(Conv { float, stride, pad, ..spec(n, image, channels, window) });
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
        check(Conv {
            float: Float::F64,
            ..spec(17, [9, 9], [20, 20], [3, 3])
        });
    }
}
