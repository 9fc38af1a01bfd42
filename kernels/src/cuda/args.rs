//! Parameters of device functions. Here and in [`super::lower`] stand the structs of `cu/`, with the same
//! names, fields and order; both sides assert their sizes.

use bytemuck::{Pod, Zeroable};

/// Bits by which an array's slot number is shifted: its offset has those below, so a slot has fewer than 2⁴⁸
/// bytes.
const SLOT_BITS: u32 = 48;

/// An array as kernels get it: its slot in the upper 16 bits, its offset in the others.
pub(super) fn place(slot: usize, offset: usize) -> u64 {
    debug_assert!(slot < 1 << 16, "checked when a program is lowered");
    (slot as u64) << SLOT_BITS | offset as u64
}

/// A number that is known to fit.
pub(super) fn word(x: usize) -> u32 {
    debug_assert!(
        u32::try_from(x).is_ok(),
        "checked when a program is lowered"
    );
    x as u32
}

/// Divides numbers below 2³¹ by a constant, with a multiplication and a shift: see `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[expect(clippy::struct_field_names, reason = "as on the device")]
pub(super) struct Divisor {
    divisor: u32,
    magic: u32,
    shift: u32,
}
const _: () = assert!(size_of::<Divisor>() == 12, "as on the device");

impl Divisor {
    /// By 1 in place of 0: there is nothing to divide then.
    pub(super) fn new(divisor: usize) -> Self {
        let d = divisor.max(1) as u64;
        let shift = u64::BITS - (d - 1).leading_zeros();
        let magic = (((1 << shift) - d) << 32) / d + 1;
        Self {
            divisor: d as u32,
            magic: magic as u32,
            shift,
        }
    }
}

/// Slots' addresses that one launch of `bind_slots` writes.
pub(super) const BIND: usize = 60;

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct BindArgs {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) bases: [u64; BIND],
}
const _: () = assert!(size_of::<BindArgs>() == 496, "as on the device");

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct FillArgs {
    pub(super) output: u64,
    pub(super) bytes: u64,
}
const _: () = assert!(size_of::<FillArgs>() == 16, "as on the device");

#[cfg(test)]
mod tests {
    use super::*;

    /// What `divide` in `common.cuh` computes.
    fn divide(n: u32, by: Divisor) -> u32 {
        let high = ((u64::from(n) * u64::from(by.magic)) >> 32) as u32;
        (high + n) >> by.shift
    }

    #[test]
    fn division_by_constants_is_exact() {
        let largest = (1_u32 << 31) - 1;
        for d in (1..2000).chain([4095, 4096, 65_537, 1 << 30, largest]) {
            let divisor = Divisor::new(d as usize);
            let near = |n: u32| [n.saturating_sub(1), n, n + 1];
            let numbers = [0, d, 7 * (d.min(1 << 20)), largest / d * d, largest - 1];
            for n in numbers.into_iter().flat_map(near).filter(|&n| n <= largest) {
                assert_eq!(divide(n, divisor), n / d, "{n} / {d}");
            }
        }
    }
}
