//! Sharing work between the threads of a device.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Work, in element visits, below which handing it to another thread costs more than it saves (about 10 µs).
const GRAIN: usize = 1 << 15;

/// Cuts `out` into pieces of `length`, the last perhaps shorter, and calls `fill(index, piece)` for each, on
/// several threads if that is worth it. `work` is the cost of a piece in element visits.
pub(crate) fn chunks<T: Send>(
    out: &mut [T],
    length: usize,
    work: usize,
    fill: impl Fn(usize, &mut [T]) + Sync,
) {
    if length > 0 {
        split(out, 0, length, work.max(1), &fill);
    }
}

fn split<T: Send>(
    out: &mut [T],
    first: usize,
    length: usize,
    work: usize,
    fill: &(impl Fn(usize, &mut [T]) + Sync),
) {
    let count = out.len().div_ceil(length);
    if count < 2 || count.saturating_mul(work) < 2 * GRAIN {
        out.chunks_mut(length)
            .enumerate()
            .for_each(|(i, out)| fill(first + i, out));
        return;
    }
    let half = count / 2;
    let (left, right) = out.split_at_mut(half * length);
    join(
        || split(left, first, length, work, fill),
        || split(right, first + half, length, work, fill),
    );
}

/// Calls `visit` with parts of `range` that make up the whole, on several threads if that is worth it. `work`
/// is the cost of one index in element visits.
pub(crate) fn ranges(range: Range<usize>, work: usize, visit: &(impl Fn(Range<usize>) + Sync)) {
    let (count, workers) = (range.len(), rayon::current_num_threads());
    let worth = (count.saturating_mul(work) / GRAIN).min(count);
    if worth < 2 || workers < 2 {
        return visit(range);
    }
    let pieces = worth.min(PIECES * workers);
    let end = |piece: usize| range.start + (piece * count).div_ceil(pieces);
    share(pieces, workers, &|mine: Pieces<'_>| {
        mine.for_each(|piece| visit(end(piece)..end(piece + 1)));
    });
}

/// Pieces per worker. If one worker comes late or is interrupted, the others do some of its pieces. More
/// pieces balance better, at one atomic addition each.
pub(crate) const PIECES: usize = 8;

/// Most parts that [`share`] cuts the pieces of a job into.
const SHARES: usize = 32;

/// A part of the pieces of a job, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Share {
    next: AtomicUsize,
    end: usize,
}

/// The pieces of a job that a worker gets, as it asks for them: those of its own share in ascending order, then
/// what the others have left.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    shares: &'a [Share],
    at: usize,
    finished: usize,
}

impl Iterator for Pieces<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.finished < self.shares.len() {
            let share = &self.shares[self.at];
            // Relaxed is enough: what a piece writes is seen by others after the join.
            let piece = share.next.fetch_add(1, Ordering::Relaxed);
            if piece < share.end {
                return Some(piece);
            }
            self.at = (self.at + 1) % self.shares.len();
            self.finished += 1;
        }
        None
    }
}

/// Deals `count` pieces out to `workers` workers, each on a thread of its own if one is free. A worker begins
/// at the same piece in every call with these numbers, so it often finds its data in its thread's cache. A
/// piece costs one atomic addition. A worker that comes when all is done costs nothing.
pub(crate) fn share(count: usize, workers: usize, work: &(impl Fn(Pieces<'_>) + Sync)) {
    let workers = workers.min(count).max(1);
    let used = workers.min(SHARES);
    let shares: [Share; SHARES] = std::array::from_fn(|at| Share {
        next: AtomicUsize::new(at.min(used) * count / used),
        end: (at + 1).min(used) * count / used,
    });
    spread(0..workers, &shares[..used], work);
}

fn spread(workers: Range<usize>, shares: &[Share], work: &(impl Fn(Pieces<'_>) + Sync)) {
    if workers.len() == 1 {
        return work(Pieces {
            shares,
            at: workers.start % shares.len(),
            finished: 0,
        });
    }
    let half = workers.start + workers.len() / 2;
    join(
        || spread(workers.start..half, shares, work),
        || spread(half..workers.end, shares, work),
    );
}

/// Most threads that are kept awake for the others.
const COMPANY: usize = 7;

/// How often such a thread looks for work, giving way to other processes, before it may sleep (about 0.3 ms).
const PATIENCE: usize = 1000;

thread_local! {
    /// Whether this thread has work, in which it may wait for others.
    static WORKING: Cell<bool> = const { Cell::new(false) };
}

fn working<R>(work: impl FnOnce() -> R) -> R {
    let before = WORKING.replace(true);
    let result = work();
    WORKING.set(before);
    result
}

fn join(left: impl FnOnce() + Send, right: impl FnOnce() + Send) {
    rayon::join(|| working(left), || working(right));
}

/// Does `work` on the current pool, and keeps other threads of the pool awake meanwhile. By itself a thread
/// sleeps after some 15 µs without work, and many launches are over before it is awake again.
pub(crate) fn awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let others = (rayon::current_num_threads() - 1).min(COMPANY);
    let done = AtomicBool::new(false);
    working(|| with_company(others, &done, work))
}

/// Says at its end that all is done, also if work panics.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn with_company<R: Send>(others: usize, done: &AtomicBool, work: impl FnOnce() -> R + Send) -> R {
    if others > 0 {
        return rayon::join(|| with_company(others - 1, done, work), || linger(done)).0;
    }
    let _done = Done(done);
    work()
}

/// Helps with whatever there is to do until `done` is set.
fn linger(done: &AtomicBool) {
    // This thread waits for a part of a job of its own. If it lingered here, that job would have to wait for
    // it.
    if WORKING.get() {
        return;
    }
    working(|| {
        let mut idle = 0;
        while idle < PATIENCE && !done.load(Ordering::Relaxed) {
            idle += 1;
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                idle = 0;
            } else {
                thread::yield_now();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pieces: usize, workers: usize, inner: usize) -> usize {
        let total = AtomicUsize::new(0);
        share(pieces, workers, &|mine: Pieces<'_>| {
            for piece in mine {
                ranges(0..inner, 1 << 14, &|range| {
                    let sum: usize = range.map(|i| piece * inner + i).sum();
                    total.fetch_add(sum, Ordering::Relaxed);
                });
            }
        });
        total.into_inner()
    }

    #[test]
    fn every_piece_is_done_once_while_others_work_on_the_same_threads() {
        for threads in 1..=4 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        for (round, inner) in (0..50).zip([0, 1, 7, 40].into_iter().cycle()) {
                            let (pieces, workers) = (round % 23, 1 + round % 40);
                            let found = pool.install(|| awake(|| count(pieces, workers, inner)));
                            assert_eq!(found, (0..pieces * inner).sum::<usize>());
                        }
                    });
                }
            });
        }
    }
}
