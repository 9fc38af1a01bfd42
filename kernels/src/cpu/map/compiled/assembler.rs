//! The few instructions of x86-64 that compiled loops are made of, as bytes: those on general registers.
//! Those on vectors are in [`vectors`](super::vectors).
//!
//! Encodings after Intel's «Software Developer's Manual», volume 2: prefixes VEX in section 2.3, EVEX in 2.7.

use super::vectors::Prefix;
use crate::Float;

/// A general register, by its number in encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gpr(pub(super) u8);

pub(super) const RAX: Gpr = Gpr(0);
pub(super) const RCX: Gpr = Gpr(1);
pub(super) const RDX: Gpr = Gpr(2);
pub(super) const RBX: Gpr = Gpr(3);
pub(super) const RBP: Gpr = Gpr(5);
pub(super) const RSI: Gpr = Gpr(6);

/// When to jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum If {
    /// The last subtraction went below zero.
    Below = 2,
    AtLeast = 3,
    Zero = 4,
    NotZero = 5,
}

/// A jump, or an address, whose target is still to be set: the position behind its 32-bit distance.
#[must_use]
pub(super) struct Jump(usize);

impl Jump {
    /// That of the instruction that was written last.
    pub(super) fn here(asm: &Assembler) -> Self {
        Self(asm.here())
    }
}

/// Code in the making.
pub(super) struct Assembler {
    code: Vec<u8>,
    pub(super) float: Float,
    pub(super) prefix: Prefix,
    /// Instructions that take the address of the zeros in the table of masks.
    pub(super) zeros: Vec<Jump>,
}

impl Assembler {
    pub(super) fn new(float: Float, prefix: Prefix) -> Self {
        Self {
            code: Vec::new(),
            float,
            prefix,
            zeros: Vec::new(),
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.masks();
        self.code
    }

    /// log₂ of the bytes of an element.
    pub(super) fn shift(&self) -> u8 {
        match self.float {
            Float::F32 => 2,
            Float::F64 => 3,
        }
    }

    /// The current position, to jump to.
    pub(super) fn here(&self) -> usize {
        self.code.len()
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    pub(super) fn push(&mut self, register: Gpr) {
        self.bytes(&[0x40 | register.0 >> 3, 0x50 | register.0 & 7]);
    }

    pub(super) fn pop(&mut self, register: Gpr) {
        self.bytes(&[0x40 | register.0 >> 3, 0x58 | register.0 & 7]);
    }

    /// `to` = the word `index` from rdi on.
    pub(super) fn get(&mut self, to: Gpr, index: usize) {
        self.bytes(&[0x48 | to.0 >> 3 << 2, 0x8B, 0x87 | (to.0 & 7) << 3]);
        self.bytes(&(index as u32 * 8).to_le_bytes());
    }

    /// Adds to the word `index` from rdi on.
    pub(super) fn add_to(&mut self, index: usize, number: i32) {
        self.bytes(&[0x48, 0x81, 0x87]);
        self.bytes(&(index as u32 * 8).to_le_bytes());
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn add(&mut self, to: Gpr, number: i32) {
        self.arithmetic(0xC0, to, number);
    }

    pub(super) fn subtract(&mut self, from: Gpr, number: i32) {
        self.arithmetic(0xE8, from, number);
    }

    fn arithmetic(&mut self, operation: u8, register: Gpr, number: i32) {
        self.bytes(&[0x48 | register.0 >> 3, 0x81, operation | register.0 & 7]);
        self.bytes(&number.to_le_bytes());
    }

    /// Shifts rsi to the left.
    pub(super) fn scale_rsi(&mut self, by: u8) {
        self.bytes(&[0x48, 0xC1, 0xE6, by]);
    }

    pub(super) fn clear_rax(&mut self) {
        self.bytes(&[0x31, 0xC0]);
    }

    /// rcx = min(rsi, `most`), and rsi −= rcx.
    pub(super) fn take_rcx(&mut self, most: u32) {
        self.byte_and_number(0xB9, most);
        self.bytes(&[0x48, 0x39, 0xCE]); // cmp rsi, rcx
        self.bytes(&[0x48, 0x0F, 0x42, 0xCE]); // cmovb rcx, rsi
        self.bytes(&[0x48, 0x29, 0xCE]); // sub rsi, rcx
    }

    pub(super) fn test_rsi(&mut self) {
        self.bytes(&[0x48, 0x85, 0xF6]);
    }

    pub(super) fn minus(&mut self, from: Gpr, number: Gpr) {
        self.bytes(&[0x48, 0x29, 0xC0 | number.0 << 3 | from.0]);
    }

    pub(super) fn byte_and_number(&mut self, byte: u8, number: u32) {
        self.bytes(&[byte]);
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn jump(&mut self, when: If) -> Jump {
        self.bytes(&[0x0F, 0x80 | when as u8, 0, 0, 0, 0]);
        Jump::here(self)
    }

    /// Lets a jump lead to `aim`.
    pub(super) fn aim(&mut self, Jump(end): Jump, aim: usize) {
        let distance = (aim as i32).wrapping_sub(end as i32);
        self.code[end - 4..end].copy_from_slice(&distance.to_le_bytes());
    }

    /// Returns, with the upper parts of vector registers cleared, as other code expects them.
    pub(super) fn leave(&mut self) {
        self.bytes(&[0xC5, 0xF8, 0x77, 0xC3]); // vzeroupper; ret
    }
}
