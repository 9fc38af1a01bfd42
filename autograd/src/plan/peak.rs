//! What an arena holds when it is fullest.

use super::memory::ALIGN;
use std::cmp::Reverse;
use tensor::Shape;

/// The launch at which the most bytes of a plan's arena are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peak {
    /// The number of the launch.
    pub launch: usize,
    /// Bytes in use there, each array rounded up to whole cache lines.
    pub bytes: usize,
    /// What uses them, the largest first.
    pub held: Vec<Held>,
}

/// An array in use, or a kernel's scratch memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The launch that made it.
    pub launch: usize,
    /// Its kernel.
    pub kernel: &'static str,
    /// The array's shape; `None` for scratch memory.
    pub shape: Option<Shape>,
    /// Its size.
    pub bytes: usize,
}

/// Something in the arena, until the last launch that needs it.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) held: Held,
    pub(super) last: usize,
}

impl Peak {
    pub(super) fn of(stays: &[Stay], launches: usize) -> Self {
        let size = |stay: &Stay| stay.held.bytes.next_multiple_of(ALIGN) as isize;
        let mut change = vec![0; launches + 1];
        for stay in stays {
            change[stay.held.launch] += size(stay);
            change[stay.last + 1] -= size(stay);
        }
        let (mut alive, mut bytes, mut launch) = (0, 0, 0);
        for (at, change) in change.into_iter().enumerate() {
            alive += change;
            if alive > bytes {
                (bytes, launch) = (alive, at);
            }
        }
        let there = |stay: &&Stay| stay.held.launch <= launch && launch <= stay.last;
        let held = stays.iter().filter(there).map(|stay| stay.held.clone());
        let mut held: Vec<Held> = held.collect();
        held.sort_by_key(|held| Reverse(held.bytes));
        Self {
            launch,
            bytes: bytes as usize,
            held,
        }
    }
}
