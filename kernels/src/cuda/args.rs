//! The parameters of a kernel, written field by field as its C struct has them.

/// Bytes that an array's slot number is shifted by, and so the most bytes of a slot.
const SLOT_BITS: u32 = 48;

/// Where an array lies, as kernels are told: slot and offset.
pub(super) fn place(slot: usize, offset: usize) -> u64 {
    debug_assert!(slot < 1 << 16, "checked when a program is lowered");
    (slot as u64) << SLOT_BITS | offset as u64
}

/// Fields in the order and with the alignment of C.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    pub(super) fn u64(mut self, x: u64) -> Self {
        debug_assert_eq!(self.0.len() % 8, 0, "structs have no holes");
        self.0.extend(x.to_le_bytes());
        self
    }

    pub(super) fn f64(mut self, x: f64) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }

    pub(super) fn u16(mut self, x: usize) -> Self {
        self.0.extend((x as u16).to_le_bytes());
        self
    }

    /// A number that is known to fit.
    pub(super) fn u32(mut self, x: usize) -> Self {
        debug_assert!(
            u32::try_from(x).is_ok(),
            "checked when a program is lowered"
        );
        self.0.extend((x as u32).to_le_bytes());
        self
    }

    pub(super) fn i32(mut self, x: i32) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }

    /// Divisor, factor and shift: see `Divisor` in `common.cuh`.
    pub(super) fn divisor(self, divisor: usize) -> Self {
        let d = divisor.max(1) as u64;
        let shift = u64::BITS - (d - 1).leading_zeros();
        let factor = (((1 << shift) - d) << 32) / d + 1;
        self.u32(d as usize)
            .u32(factor as u32 as usize)
            .u32(shift as usize)
    }

    pub(super) fn then(mut self, other: &Self) -> Self {
        self.0.extend(&other.0);
        self
    }

    pub(super) fn zeros(mut self, bytes: usize) -> Self {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the words of a parameter; the size must be what the C struct's `static_assert` says.
    pub(super) fn words(mut self, size: usize) -> Vec<u64> {
        assert_eq!(self.0.len(), size, "the size of the C struct");
        self.0.resize(size.next_multiple_of(8), 0);
        self.0
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&word| u64::from_le_bytes(word))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `divide` in `common.cuh` computes.
    fn divide(n: u32, words: &[u8]) -> u32 {
        let word =
            |i: usize| u32::from_le_bytes(words[4 * i..4 * i + 4].try_into().expect("four bytes"));
        let high = ((u64::from(n) * u64::from(word(1))) >> 32) as u32;
        (high + n) >> word(2)
    }

    #[test]
    fn division_by_constants_is_exact() {
        let largest = (1_u32 << 31) - 1;
        for d in (1..2000).chain([4095, 4096, 65_537, 1 << 30, largest]) {
            let fields = Fields::default().divisor(d as usize);
            let near = |n: u32| [n.saturating_sub(1), n, n + 1];
            let numbers = [0, d, 7 * (d.min(1 << 20)), largest / d * d, largest - 1];
            for n in numbers.into_iter().flat_map(near).filter(|&n| n <= largest) {
                assert_eq!(divide(n, fields.bytes()), n / d, "{n} / {d}");
            }
        }
    }
}
