//! Pooling windows: vector loops over the channels of a pixel, images shared between threads.
//!
//! These loops are plain `for`s: closures in them might not be inlined, and then not be vectorised. Most are over strips
//! of channels, which stay in registers from pixel to pixel, so that they run at the speed of the memory.

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

    /// Where the pixels of a window of 2×2, the usual one, begin, if all are inside.
    #[inline(always)]
    fn four(&self, window: &Window) -> Option<[usize; 4]> {
        let whole = self.rows == (0..2) && self.columns == (0..2);
        (window.window == [2, 2] && whole).then(|| {
            let pixel = |row, column| self.pixel(window, row, column).1;
            [pixel(0, 0), pixel(0, 1), pixel(1, 0), pixel(1, 1)]
        })
    }

    /// Whether these offsets are of pixels inside.
    #[inline(always)]
    fn holds(&self, window: &Window, picks: &[u8]) -> bool {
        let [kh, kw] = window.window;
        let mut sound = true;
        if self.rows == (0..kh) && self.columns == (0..kw) {
            for &pick in picks {
                sound &= usize::from(pick) < kh * kw;
            }
        } else {
            for &pick in picks {
                let (row, column) = (usize::from(pick) / kw, usize::from(pick) % kw);
                sound &= self.rows.contains(&row) && self.columns.contains(&column);
            }
        }
        sound
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

/// A stretch of channels.
#[inline(always)]
fn strip<T: Copy, const W: usize>(from: &[T], first: usize) -> [T; W] {
    let strip = from[first..].first_chunk();
    *strip.expect("so many channels")
}

/// Writes one.
#[inline(always)]
fn put<T: Copy, const W: usize>(strip: [T; W], to: &mut [T], first: usize) {
    to[first..][..W].copy_from_slice(&strip);
}

/// Which of four is the greatest.
#[inline(always)]
fn greatest<T: Real, const W: usize>([a, b, c, d]: [[T; W]; 4]) -> [u8; W] {
    let mut picks = [0; W];
    for lane in 0..W {
        let (mut best, mut pick) = (a[lane], 0);
        (best, pick) = if beats(b[lane], best) {
            (b[lane], 1)
        } else {
            (best, pick)
        };
        (best, pick) = if beats(c[lane], best) {
            (c[lane], 2)
        } else {
            (best, pick)
        };
        picks[lane] = if beats(d[lane], best) { 3 } else { pick };
    }
    picks
}

multiversion! {
    fn argmax<T: Real>(window: &Window, x: &[T], picks: &mut [u8]) {
        for (picks, inside) in picks.chunks_exact_mut(window.c).zip(windows(window)) {
            if let Some([a, b, c, d]) = inside.four(window) {
                strips!(T, window.c, first, W => {
                    let pixels = [strip::<T, W>(x, a + first), strip(x, b + first),
                        strip(x, c + first), strip(x, d + first)];
                    put(greatest(pixels), picks, first);
                });
                continue;
            }
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
        }
    }
}

multiversion! {
    /// Whether all picks lie inside.
    fn gather<T: Real>(window: &Window, x: &[T], picks: &[u8], y: &mut [T]) -> bool {
        let mut sound = true;
        let rows = picks.chunks_exact(window.c).zip(y.chunks_exact_mut(window.c));
        for ((picks, y), inside) in rows.zip(windows(window)) {
            sound &= inside.holds(window, picks);
            strips!(T, window.c, first, W => {
                let (picks, mut value) = (strip::<u8, W>(picks, first), [T::ZERO; W]);
                for row in inside.rows.clone() {
                    for column in inside.columns.clone() {
                        let (offset, at) = inside.pixel(window, row, column);
                        let x = strip::<T, W>(x, at + first);
                        for lane in 0..W {
                            let picked = picks[lane] == offset as u8;
                            value[lane] = if picked { x[lane] } else { value[lane] };
                        }
                    }
                }
                put(value, y, first);
            });
        }
        sound
    }
}

multiversion! {
    /// Whether all picks lie inside.
    fn scatter<T: Real>(window: &Window, y: &[T], picks: &[u8], x: &mut [T]) -> bool {
        let mut sound = true;
        // Pixels of one window only are written once, without being read.
        let disjoint = is_disjoint(window);
        if !(disjoint && is_tiled(window)) {
            x.fill(T::ZERO);
        }
        let rows = picks.chunks_exact(window.c).zip(y.chunks_exact(window.c));
        for ((picks, y), inside) in rows.zip(windows(window)) {
            sound &= inside.holds(window, picks);
            strips!(T, window.c, first, W => {
                let (picks, y) = (strip::<u8, W>(picks, first), strip::<T, W>(y, first));
                for row in inside.rows.clone() {
                    for column in inside.columns.clone() {
                        let (offset, at) = inside.pixel(window, row, column);
                        let mut sum = if disjoint { [T::ZERO; W] } else { strip(x, at + first) };
                        for lane in 0..W {
                            let picked = picks[lane] == offset as u8;
                            // Sums begin with +0 and so never are −0: adding zero changes nothing.
                            sum[lane] = sum[lane] + if picked { y[lane] } else { T::ZERO };
                        }
                        put(sum, x, at + first);
                    }
                }
            });
        }
        sound
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
