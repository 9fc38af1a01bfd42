//! Pooling windows: vector loops over the channels of a pixel, images shared between threads.
//!
//! These loops are plain `for`s: closures in them might not be inlined, and then not be vectorised.

use super::math::{Real, beats};
use super::parallel;
use super::simd::multiversion;
use crate::program::Arrays;
use crate::{Window, WindowKind};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Channels that are looked at together.
const LANES: usize = 32;

pub(crate) fn window<T: Real>(window: &Window, arrays: &Arrays<'_>) -> Result<(), String> {
    let Window { h, w, c, .. } = *window;
    let (x_image, y_image) = (h * w * c, window.out_h() * window.out_w() * c);
    let work = y_image * window.window[0] * window.window[1];
    let (input, output) = (arrays.input(0), arrays.output(0));
    // SAFETY: `Program` checked the arrays: they lie apart, and nobody else uses them now.
    let input = unsafe { input.slice::<T>() };
    let x = |i: usize| &input[i * x_image..][..x_image];
    if window.kind == WindowKind::ArgMax {
        // SAFETY: as above.
        let picks = unsafe { output.slice_mut::<u8>() };
        parallel::chunks(picks, y_image, work, |i, picks| argmax(window, x(i), picks));
        return Ok(());
    }
    // SAFETY: as above.
    let (picks, output) = unsafe { (arrays.input(1).slice::<u8>(), output.slice_mut::<T>()) };
    let picks = |i: usize| &picks[i * y_image..][..y_image];
    let sound = AtomicBool::new(true);
    let check = |good: bool| {
        if !good {
            sound.store(false, Ordering::Relaxed);
        }
    };
    if window.kind == WindowKind::Gather {
        parallel::chunks(output, y_image, work, |i, y| {
            check(gather(window, x(i), picks(i), y));
        });
    } else {
        let y = |i: usize| &input[i * y_image..][..y_image];
        parallel::chunks(output, x_image, work, |i, x| {
            check(scatter(window, y(i), picks(i), x));
        });
    }
    if sound.into_inner() {
        Ok(())
    } else {
        Err("windows: an offset lies outside of its window or image".into())
    }
}

/// The part of a window that lies inside the image.
struct Inside<'a> {
    window: &'a Window,
    rows: Range<usize>,
    columns: Range<usize>,
    /// Row and column of the window's corner, plus the border.
    corner: [usize; 2],
}

impl<'a> Inside<'a> {
    /// For window number `at` of an image.
    #[inline(always)]
    fn new(window: &'a Window, at: usize) -> Self {
        let Window {
            h,
            w,
            window: [kh, kw],
            stride,
            pad,
            ..
        } = *window;
        let corner = [
            at / window.out_w() * stride[0],
            at % window.out_w() * stride[1],
        ];
        Self {
            window,
            rows: pad[0].saturating_sub(corner[0])..kh.min(h + pad[0] - corner[0]),
            columns: pad[2].saturating_sub(corner[1])..kw.min(w + pad[2] - corner[1]),
            corner,
        }
    }

    #[inline(always)]
    fn offset(&self, row: usize, column: usize) -> usize {
        row * self.window.window[1] + column
    }

    /// Where channels of a pixel lie in the image.
    #[inline(always)]
    fn channels(&self, row: usize, column: usize, piece: &Range<usize>) -> Range<usize> {
        let Window { w, c, pad, .. } = *self.window;
        let pixel = (self.corner[0] + row - pad[0]) * w + self.corner[1] + column - pad[2];
        pixel * c + piece.start..pixel * c + piece.end
    }
}

/// The channels in pieces.
#[inline(always)]
fn pieces(channels: usize) -> impl Iterator<Item = Range<usize>> {
    (0..channels.div_ceil(LANES)).map(move |i| i * LANES..channels.min((i + 1) * LANES))
}

/// A piece of channels, filled up with zeros.
#[inline(always)]
fn lanes<T: Copy + Default>(from: &[T]) -> [T; LANES] {
    if let Some(lanes) = from.first_chunk() {
        return *lanes;
    }
    let mut lanes = [T::default(); LANES];
    lanes[..from.len()].copy_from_slice(from);
    lanes
}

/// Offsets as numbers of the working type: as wide as what they are computed with.
#[inline(always)]
fn widened<T: Real>(picks: &[u8]) -> [T; LANES] {
    let (picks, mut wide) = (lanes(picks), [T::ZERO; LANES]);
    for lane in 0..LANES {
        wide[lane] = T::from_f64(f64::from(picks[lane]));
    }
    wide
}

multiversion! {
    fn argmax<T: Real>(window: &Window, x: &[T], picks: &mut [u8]) {
        for (at, picks) in picks.chunks_exact_mut(window.c).enumerate() {
            let inside = Inside::new(window, at);
            let first = inside.offset(inside.rows.start, inside.columns.start);
            for piece in pieces(window.c) {
                let mut best = [-T::INFINITY; LANES];
                let mut pick = [T::from_f64(first as f64); LANES];
                for row in inside.rows.clone() {
                    for column in inside.columns.clone() {
                        let x = lanes(&x[inside.channels(row, column, &piece)]);
                        let offset = T::from_f64(inside.offset(row, column) as f64);
                        for lane in 0..LANES {
                            let wins = beats(x[lane], best[lane]);
                            best[lane] = if wins { x[lane] } else { best[lane] };
                            pick[lane] = if wins { offset } else { pick[lane] };
                        }
                    }
                }
                let (count, mut bytes) = (piece.len(), [0; LANES]);
                for lane in 0..LANES {
                    bytes[lane] = pick[lane].to_byte();
                }
                picks[piece].copy_from_slice(&bytes[..count]);
            }
        }
    }
}

multiversion! {
    /// Whether all picks lie inside.
    fn gather<T: Real>(window: &Window, x: &[T], picks: &[u8], y: &mut [T]) -> bool {
        let mut sound = true;
        let rows = picks.chunks_exact(window.c).zip(y.chunks_exact_mut(window.c));
        for (at, (picks, y)) in rows.enumerate() {
            let inside = Inside::new(window, at);
            for piece in pieces(window.c) {
                let pick = widened::<T>(&picks[piece.clone()]);
                let (mut value, mut found) = ([T::ZERO; LANES], [T::ZERO; LANES]);
                for row in inside.rows.clone() {
                    for column in inside.columns.clone() {
                        let x = lanes(&x[inside.channels(row, column, &piece)]);
                        let offset = T::from_f64(inside.offset(row, column) as f64);
                        for lane in 0..LANES {
                            let picked = pick[lane] == offset;
                            value[lane] = if picked { x[lane] } else { value[lane] };
                            found[lane] = if picked { T::ONE } else { found[lane] };
                        }
                    }
                }
                sound &= all(&found, piece.len());
                let count = piece.len();
                y[piece].copy_from_slice(&value[..count]);
            }
        }
        sound
    }
}

multiversion! {
    /// Whether all picks lie inside.
    fn scatter<T: Real>(window: &Window, y: &[T], picks: &[u8], x: &mut [T]) -> bool {
        let mut sound = true;
        x.fill(T::ZERO);
        let rows = picks.chunks_exact(window.c).zip(y.chunks_exact(window.c));
        for (at, (picks, y)) in rows.enumerate() {
            let inside = Inside::new(window, at);
            for piece in pieces(window.c) {
                let pick = widened::<T>(&picks[piece.clone()]);
                let y = lanes(&y[piece.clone()]);
                let mut found = [T::ZERO; LANES];
                for row in inside.rows.clone() {
                    for column in inside.columns.clone() {
                        let target = &mut x[inside.channels(row, column, &piece)];
                        let mut sum = lanes(target);
                        let offset = T::from_f64(inside.offset(row, column) as f64);
                        for lane in 0..LANES {
                            let picked = pick[lane] == offset;
                            // Sums begin with +0 and so never are −0: adding zero changes nothing.
                            sum[lane] = sum[lane] + if picked { y[lane] } else { T::ZERO };
                            found[lane] = if picked { T::ONE } else { found[lane] };
                        }
                        target.copy_from_slice(&sum[..piece.len()]);
                    }
                }
                sound &= all(&found, piece.len());
            }
        }
        sound
    }
}

#[inline(always)]
fn all<T: Real>(found: &[T; LANES], count: usize) -> bool {
    let mut least = T::ONE;
    for &found in &found[..count] {
        least = if found < least { found } else { least };
    }
    least == T::ONE
}
