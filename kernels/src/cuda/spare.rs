//! Memory of a GPU that nobody holds, for whoever wants as much next.
//!
//! The driver waits for the device whenever it gives or takes memory. A block that comes back here may be
//! given away at once: all that the device does to it is queued on one stream, the new owner's work after the
//! old one's.

use std::collections::BTreeMap;

/// Bytes of the largest block that is kept. Larger ones are few; weights and gradients are many.
const LARGEST: usize = 32 << 20;

/// Bytes of all blocks that are kept, at most. Raised, it would hold memory that other processes may want.
const MOST: usize = 256 << 20;

/// Addresses of blocks, by their bytes.
#[derive(Debug, Default)]
pub(super) struct Spare {
    blocks: BTreeMap<usize, Vec<u64>>,
    bytes: usize,
}

impl Spare {
    /// Keeps a block, if there is room.
    pub(super) fn keep(&mut self, address: u64, bytes: usize) -> bool {
        let room = bytes <= LARGEST && self.bytes + bytes <= MOST;
        if room {
            self.blocks.entry(bytes).or_default().push(address);
            self.bytes += bytes;
        }
        room
    }

    /// Gives a block of exactly so many bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Option<u64> {
        let address = self.blocks.get_mut(&bytes)?.pop()?;
        self.bytes -= bytes;
        Some(address)
    }

    /// Gives all blocks.
    pub(super) fn take_all(&mut self) -> Vec<u64> {
        let Self { blocks, .. } = std::mem::take(self);
        blocks.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_by_their_size() {
        let mut spare = Spare::default();
        assert!(spare.keep(1, 100) && spare.keep(2, 100) && spare.keep(3, 50));
        assert_eq!([50, 50, 99].map(|n| spare.take(n)), [Some(3), None, None]);
        assert!(!spare.keep(4, LARGEST + 1));
        let kept = (0..20).filter(|&i| spare.keep(i, LARGEST)).count();
        assert_eq!(kept, MOST / LARGEST - 1);
        assert_eq!(spare.take_all().len(), 2 + kept);
        assert!(spare.take(100).is_none() && spare.keep(1, LARGEST));
    }
}
