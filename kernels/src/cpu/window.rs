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

/// Channels that are looked at together, at most.
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
struct Inside {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Pixel of the image where the window's corner lies, or would lie.
    corner: isize,
}

impl Inside {
    /// The offset in the window, and the element of the image where the pixel's channels begin.
    #[inline(always)]
    fn pixel(&self, window: &Window, row: usize, column: usize) -> (usize, usize) {
        let pixel = self.corner + (row * window.w + column) as isize;
        (row * window.window[1] + column, pixel as usize * window.c)
    }
}

/// The windows of an image, in order.
struct Windows<'a> {
    window: &'a Window,
    row: usize,
    column: usize,
}

impl Iterator for Windows<'_> {
    type Item = Inside;

    #[inline(always)]
    fn next(&mut self) -> Option<Inside> {
        let Window {
            h, w, stride, pad, ..
        } = *self.window;
        if self.column == self.window.out_w() {
            (self.row, self.column) = (self.row + 1, 0);
        }
        let (y, x) = (self.row * stride[0], self.column * stride[1]);
        self.column += 1;
        let [kh, kw] = self.window.window;
        Some(Inside {
            rows: pad[0].saturating_sub(y)..kh.min(h + pad[0] - y),
            columns: pad[2].saturating_sub(x)..kw.min(w + pad[2] - x),
            corner: (y * w + x) as isize - (pad[0] * w + pad[2]) as isize,
        })
    }
}

#[inline(always)]
fn windows(window: &Window) -> Windows<'_> {
    Windows {
        window,
        row: 0,
        column: 0,
    }
}

/// The channels dealt out to as few pieces as can be.
#[inline(always)]
fn piece(channels: usize) -> usize {
    channels.div_ceil(channels.div_ceil(LANES).max(1)).max(1)
}

/// A piece of channels as vectors: its first half, and its last, which overlaps the first if there are
/// fewer than [`LANES`]. So most numbers of channels need no loop over single ones.
#[inline(always)]
fn lanes<T: Copy>(from: &[T]) -> [T; LANES] {
    let mut lanes = [from[0]; LANES];
    let (first, last) = lanes.split_at_mut(LANES / 2);
    if let (Some(from), Some(end)) = (from.first_chunk(), from.last_chunk()) {
        let (from, end): (&[T; LANES / 2], &[T; LANES / 2]) = (from, end);
        first.copy_from_slice(from);
        last.copy_from_slice(end);
    } else {
        for (lane, &from) in first.iter_mut().zip(from) {
            *lane = from;
        }
    }
    lanes
}

/// Writes a piece of channels.
#[inline(always)]
fn put<T: Copy>(lanes: &[T; LANES], to: &mut [T]) {
    let (first, last) = lanes.split_at(LANES / 2);
    if to.len() < LANES / 2 {
        for (to, &lane) in to.iter_mut().zip(first) {
            *to = lane;
        }
        return;
    }
    to[..LANES / 2].copy_from_slice(first);
    let end = to.len() - LANES / 2;
    to[end..].copy_from_slice(last);
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
        let size = piece(window.c);
        for (picks, inside) in picks.chunks_exact_mut(window.c).zip(windows(window)) {
            let (first, _) = inside.pixel(window, inside.rows.start, inside.columns.start);
            for (i, picks) in picks.chunks_mut(size).enumerate() {
                let (start, count) = (i * size, picks.len());
                let mut best = [-T::INFINITY; LANES];
                let mut pick = [T::from_f64(first as f64); LANES];
                for row in inside.rows.clone() {
                    for column in inside.columns.clone() {
                        let (offset, at) = inside.pixel(window, row, column);
                        let x = lanes(&x[at + start..][..count]);
                        let offset = T::from_f64(offset as f64);
                        for lane in 0..LANES {
                            let wins = beats(x[lane], best[lane]);
                            best[lane] = if wins { x[lane] } else { best[lane] };
                            pick[lane] = if wins { offset } else { pick[lane] };
                        }
                    }
                }
                let mut bytes = [0; LANES];
                for lane in 0..LANES {
                    bytes[lane] = pick[lane].to_byte();
                }
                put(&bytes, picks);
            }
        }
    }
}

multiversion! {
    /// Whether all picks lie inside.
    fn gather<T: Real>(window: &Window, x: &[T], picks: &[u8], y: &mut [T]) -> bool {
        let (size, mut sound) = (piece(window.c), [T::ONE; LANES]);
        let rows = picks.chunks_exact(window.c).zip(y.chunks_exact_mut(window.c));
        for ((picks, y), inside) in rows.zip(windows(window)) {
            for (i, (picks, y)) in picks.chunks(size).zip(y.chunks_mut(size)).enumerate() {
                let (start, count) = (i * size, y.len());
                let pick = widened::<T>(picks);
                let (mut value, mut found) = ([T::ZERO; LANES], [T::ZERO; LANES]);
                for row in inside.rows.clone() {
                    for column in inside.columns.clone() {
                        let (offset, at) = inside.pixel(window, row, column);
                        let x = lanes(&x[at + start..][..count]);
                        let offset = T::from_f64(offset as f64);
                        for lane in 0..LANES {
                            let picked = pick[lane] == offset;
                            value[lane] = if picked { x[lane] } else { value[lane] };
                            found[lane] = if picked { T::ONE } else { found[lane] };
                        }
                    }
                }
                both(&mut sound, &found);
                put(&value, y);
            }
        }
        all(&sound)
    }
}

multiversion! {
    /// Whether all picks lie inside.
    fn scatter<T: Real>(window: &Window, y: &[T], picks: &[u8], x: &mut [T]) -> bool {
        let (size, mut sound) = (piece(window.c), [T::ONE; LANES]);
        // Pixels of one window only are written once, without being read.
        let disjoint = is_disjoint(window);
        if !(disjoint && is_tiled(window)) {
            x.fill(T::ZERO);
        }
        let rows = picks.chunks_exact(window.c).zip(y.chunks_exact(window.c));
        for ((picks, y), inside) in rows.zip(windows(window)) {
            for (i, (picks, y)) in picks.chunks(size).zip(y.chunks(size)).enumerate() {
                let (start, count) = (i * size, y.len());
                let (pick, y) = (widened::<T>(picks), lanes(y));
                let mut found = [T::ZERO; LANES];
                for row in inside.rows.clone() {
                    for column in inside.columns.clone() {
                        let (offset, at) = inside.pixel(window, row, column);
                        let target = &mut x[at + start..][..count];
                        let mut sum = if disjoint { [T::ZERO; LANES] } else { lanes(target) };
                        let offset = T::from_f64(offset as f64);
                        for lane in 0..LANES {
                            let picked = pick[lane] == offset;
                            // Sums begin with +0 and so never are −0: adding zero changes nothing.
                            sum[lane] = sum[lane] + if picked { y[lane] } else { T::ZERO };
                            found[lane] = if picked { T::ONE } else { found[lane] };
                        }
                        put(&sum, target);
                    }
                }
                both(&mut sound, &found);
            }
        }
        all(&sound)
    }
}

/// Whether no two windows share a pixel.
fn is_disjoint(window: &Window) -> bool {
    let Window { window, stride, .. } = window;
    stride[0] >= window[0] && stride[1] >= window[1]
}

/// Whether every pixel lies in a window, if no two share one.
fn is_tiled(window: &Window) -> bool {
    let Window { h, w, pad, .. } = *window;
    let reach = [
        window.out_h() * window.window[0],
        window.out_w() * window.window[1],
    ];
    window.stride == window.window && reach[0] >= h + pad[0] && reach[1] >= w + pad[2]
}

/// Leaves a one only where both are.
#[inline(always)]
fn both<T: Real>(sound: &mut [T; LANES], found: &[T; LANES]) {
    for lane in 0..LANES {
        let (sound, found) = (&mut sound[lane], found[lane]);
        *sound = if found < *sound { found } else { *sound };
    }
}

fn all<T: Real>(sound: &[T; LANES]) -> bool {
    sound.iter().all(|&sound| sound == T::ONE)
}
