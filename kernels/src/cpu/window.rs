//! Pooling windows: vector loops over the channels of a pixel, images shared between threads.
//!
//! These loops are plain `for`s: closures in them might not be inlined, and then not be vectorised. Most
//! loops run over strips of channels, which stay in registers from pixel to pixel, so that they are as fast
//! as the memory.

use super::math::{Real, beats};
use super::parallel;
use super::simd::{multiversion, strips};
use crate::bound::Arrays;
use crate::{Window, WindowKind};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// The part of a window that lies inside the image: so many rows and columns of its pixels.
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

    /// Whether it is all of a window of K×K pixels.
    #[inline(always)]
    fn is_whole<const K: usize>(&self, window: &Window) -> bool {
        window.window == [K, K] && self.rows == (0..K) && self.columns == (0..K)
    }

    /// All of a window of K×K pixels, with numbers that the compiler knows: loops over it are unrolled.
    #[inline(always)]
    fn whole<const K: usize>(&self, window: &Window) -> (Self, Window) {
        let window = Window {
            window: [K, K],
            ..*window
        };
        let (rows, columns) = (0..K, 0..K);
        (
            Self {
                rows,
                columns,
                corner: self.corner,
            },
            window,
        )
    }
}

/// Runs the block with the window and its part inside. If all of a window of 2×2 or 3×3 pixels lies inside,
/// which is usual, a copy of the block knows its size at compile time. `$whole` says whether that is so.
macro_rules! usual {
    ($window:ident, $inside:ident, $whole:ident => $body:block) => {
        if $inside.is_whole::<2>($window) {
            const $whole: bool = true;
            let ($inside, $window) = &$inside.whole::<2>($window);
            $body
        } else if $inside.is_whole::<3>($window) {
            const $whole: bool = true;
            let ($inside, $window) = &$inside.whole::<3>($window);
            $body
        } else {
            const $whole: bool = false;
            $body
        }
    };
}

/// The windows of an image, in order.
struct Windows<'a> {
    window: &'a Window,
    width: usize,
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
        if self.column == self.width {
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
        width: window.out_w(),
        row: 0,
        column: 0,
    }
}

/// A stretch of channels.
#[inline(always)]
fn strip<T: Copy, const W: usize>(from: &[T], first: usize) -> [T; W] {
    let strip = from[first..].first_chunk();
    *strip.expect("so many channels")
}

/// Writes a stretch of channels.
#[inline(always)]
fn put<T: Copy, const W: usize>(strip: [T; W], to: &mut [T], first: usize) {
    to[first..][..W].copy_from_slice(&strip);
}

multiversion! {
    fn argmax<T: Real>(window: &Window, x: &[T], picks: &mut [u8]) {
        for (picks, inside) in picks.chunks_exact_mut(window.c).zip(windows(window)) {
            usual!(window, inside, _WHOLE => {
                let (offset, start) = inside.pixel(window, inside.rows.start, inside.columns.start);
                strips!(T, window.c, first, W => {
                    let mut best = strip::<T, W>(x, start + first);
                    let mut pick = [offset as u32; W];
                    for row in inside.rows.clone() {
                        for column in inside.columns.clone() {
                            let (offset, at) = inside.pixel(window, row, column);
                            let x = strip::<T, W>(x, at + first);
                            for lane in 0..W {
                                let wins = beats(x[lane], best[lane]);
                                best[lane] = if wins { x[lane] } else { best[lane] };
                                pick[lane] = if wins { offset as u32 } else { pick[lane] };
                            }
                        }
                    }
                    put(pick.map(|pick| pick as u8), picks, first);
                });
            });
        }
    }
}

multiversion! {
    /// Whether all picks lie inside.
    fn gather<T: Real>(window: &Window, x: &[T], picks: &[u8], y: &mut [T]) -> bool {
        let mut sound = are_offsets(window, picks);
        let rows = picks.chunks_exact(window.c).zip(y.chunks_exact_mut(window.c));
        for ((picks, y), inside) in rows.zip(windows(window)) {
            usual!(window, inside, WHOLE => {
                strips!(T, window.c, first, W => {
                    let (picks, mut value) = (strip::<u8, W>(picks, first), [T::ZERO; W]);
                    let mut found = [0; W];
                    for row in inside.rows.clone() {
                        for column in inside.columns.clone() {
                            let (offset, at) = inside.pixel(window, row, column);
                            let x = strip::<T, W>(x, at + first);
                            for lane in 0..W {
                                let picked = picks[lane] == offset as u8;
                                value[lane] = if picked { x[lane] } else { value[lane] };
                                found[lane] |= u8::from(picked);
                            }
                        }
                    }
                    sound &= WHOLE || found.iter().fold(1, |all, found| all & found) == 1;
                    put(value, y, first);
                });
            });
        }
        sound
    }
}

multiversion! {
    /// Whether all picks lie inside.
    fn scatter<T: Real>(window: &Window, y: &[T], picks: &[u8], x: &mut [T]) -> bool {
        let mut sound = are_offsets(window, picks);
        // If windows do not overlap, every pixel is written once, without being read.
        let disjoint = is_disjoint(window);
        if !(disjoint && is_tiled(window)) {
            x.fill(T::ZERO);
        }
        let rows = picks.chunks_exact(window.c).zip(y.chunks_exact(window.c));
        for ((picks, y), inside) in rows.zip(windows(window)) {
            usual!(window, inside, WHOLE => {
                strips!(T, window.c, first, W => {
                    let (picks, y) = (strip::<u8, W>(picks, first), strip::<T, W>(y, first));
                    let mut found = [0; W];
                    for row in inside.rows.clone() {
                        for column in inside.columns.clone() {
                            let (offset, at) = inside.pixel(window, row, column);
                            let mut sum = if disjoint { [T::ZERO; W] } else { strip(x, at + first) };
                            for lane in 0..W {
                                let picked = picks[lane] == offset as u8;
                                // Sums begin with +0 and so never are −0: adding zero changes nothing.
                                sum[lane] = sum[lane] + if picked { y[lane] } else { T::ZERO };
                                found[lane] |= u8::from(picked);
                            }
                            put(sum, x, at + first);
                        }
                    }
                    sound &= WHOLE || found.iter().fold(1, |all, found| all & found) == 1;
                });
            });
        }
        sound
    }
}

/// Whether all picks lie in a window, inside of the image or not.
#[inline(always)]
fn are_offsets(window: &Window, picks: &[u8]) -> bool {
    let mut greatest = 0;
    for &pick in picks {
        greatest = pick.max(greatest);
    }
    picks.is_empty() || usize::from(greatest) < window.window[0] * window.window[1]
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
