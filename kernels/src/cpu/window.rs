//! Pooling windows.

use super::math::{Real, beats};
use super::parallel;
use crate::program::Arrays;
use crate::{Window, WindowKind};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn window<T: Real>(window: &Window, arrays: &Arrays<'_>) -> Result<(), String> {
    let Window { h, w, c, .. } = *window;
    let (x_image, y_image) = (h * w * c, window.out_h() * window.out_w() * c);
    let work = y_image * window.window[0] * window.window[1];
    let bad = AtomicBool::new(false);
    let check = |good: bool| {
        if !good {
            bad.store(true, Ordering::Relaxed);
        }
    };
    // SAFETY, for all: `Program` checked the arrays: they lie apart, and nobody else uses them now.
    let input = unsafe { arrays.input(0).slice::<T>() };
    match window.kind {
        WindowKind::ArgMax => {
            // SAFETY: as above.
            let output = unsafe { arrays.output(0).slice_mut::<u8>() };
            parallel::chunks(output, y_image, work, |i, out| {
                argmax(window, &input[i * x_image..][..x_image], out)
            });
        }
        WindowKind::Gather => {
            // SAFETY: as above.
            let (picks, output) = unsafe {
                (
                    arrays.input(1).slice::<u8>(),
                    arrays.output(0).slice_mut::<T>(),
                )
            };
            parallel::chunks(output, y_image, work, |i, out| {
                let (x, picks) = (
                    &input[i * x_image..][..x_image],
                    &picks[i * y_image..][..y_image],
                );
                check(each_pick(window, picks, |at, from| out[at] = x[from]));
            });
        }
        WindowKind::Scatter => {
            // SAFETY: as above.
            let (picks, output) = unsafe {
                (
                    arrays.input(1).slice::<u8>(),
                    arrays.output(0).slice_mut::<T>(),
                )
            };
            parallel::chunks(output, x_image, work, |i, out| {
                let (y, picks) = (
                    &input[i * y_image..][..y_image],
                    &picks[i * y_image..][..y_image],
                );
                out.fill(T::ZERO);
                check(each_pick(window, picks, |at, to| out[to] = out[to] + y[at]));
            });
        }
    }
    if bad.into_inner() {
        Err("an offset points outside of its window or image".into())
    } else {
        Ok(())
    }
}

fn argmax<T: Real>(window: &Window, x: &[T], out: &mut [u8]) {
    let c = window.c;
    for (at, out) in out.chunks_exact_mut(c).enumerate() {
        let mut best: Option<usize> = None;
        for offset in 0..window.window[0] * window.window[1] {
            let Some(pixel) = pixel(window, at, offset) else {
                continue;
            };
            let Some(first) = best else {
                out.fill(offset as u8);
                best = Some(offset);
                continue;
            };
            let _ = first;
            for (channel, out) in out.iter_mut().enumerate() {
                let best = pixel_of(window, at, *out as usize) * c + channel;
                if beats(x[pixel * c + channel], x[best]) {
                    *out = offset as u8;
                }
            }
        }
    }
}

fn pixel_of(window: &Window, at: usize, offset: usize) -> usize {
    pixel(window, at, offset).unwrap_or(0)
}

/// The pixel of x at `offset` in window number `at`, if it lies inside the image.
fn pixel(window: &Window, at: usize, offset: usize) -> Option<usize> {
    let Window {
        h,
        w,
        window: [_, kw],
        stride,
        pad,
        ..
    } = *window;
    let y = (at / window.out_w() * stride[0] + offset / kw).checked_sub(pad[0])?;
    let x = (at % window.out_w() * stride[1] + offset % kw).checked_sub(pad[2])?;
    (y < h && x < w).then_some(y * w + x)
}

/// Calls `visit(element of y, element of x)` for every pick; false if one lies outside.
fn each_pick(window: &Window, picks: &[u8], mut visit: impl FnMut(usize, usize)) -> bool {
    let (c, pixels) = (window.c, window.window[0] * window.window[1]);
    let mut good = true;
    for (at, &pick) in picks.iter().enumerate() {
        let offset = usize::from(pick);
        match pixel(window, at / c, offset) {
            Some(pixel) if offset < pixels => visit(at, pixel * c + at % c),
            _ => good = false,
        }
    }
    good
}
