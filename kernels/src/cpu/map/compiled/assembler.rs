//! The few instructions of x86-64 with AVX-512 that compiled loops are made of, as bytes.
//!
//! Encodings after Intel's «Software Developer's Manual», volume 2: prefix EVEX in section 2.7.

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

/// A vector register of 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zmm(pub(super) u8);

/// A mask register; k0 stands for all lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mask(pub(super) u8);

pub(super) const ALL: Mask = Mask(0);

/// An instruction on vectors: its map and byte; how it tells f32 and f64 apart; its operands are the caller's matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu::map) struct Opcode {
    map: u8,
    byte: u8,
    kind: Kind,
}

/// How an instruction tells element types apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// By prefix and W, as the arithmetic of SSE.
    Float,
    /// By W, with the prefix 66.
    Wide,
    /// By W, and the byte is one more for f64.
    Next,
}

impl Opcode {
    pub(in crate::cpu::map) const ADD: Self = Self::float(0x58);
    pub(in crate::cpu::map) const MUL: Self = Self::float(0x59);
    pub(in crate::cpu::map) const SUB: Self = Self::float(0x5C);
    /// The first if it is less, else the second: also of NaN and of zeros.
    pub(in crate::cpu::map) const MIN: Self = Self::float(0x5D);
    pub(in crate::cpu::map) const DIV: Self = Self::float(0x5E);
    /// The first if it is greater, else the second: also of NaN and of zeros.
    pub(in crate::cpu::map) const MAX: Self = Self::float(0x5F);
    /// Bits of the second that the first does not have.
    pub(in crate::cpu::map) const AND_NOT: Self = Self::float(0x55);
    pub(in crate::cpu::map) const XOR: Self = Self::float(0x57);
    pub(in crate::cpu::map) const SQRT: Self = Self::float(0x51);
    const LOAD: Self = Self::float(0x10);
    const STORE: Self = Self::float(0x11);
    const COMPARE: Self = Self::float(0xC2);
    const BLEND: Self = Self {
        map: 2,
        byte: 0x65,
        kind: Kind::Wide,
    };
    const BROADCAST: Self = Self {
        map: 2,
        byte: 0x18,
        kind: Kind::Next,
    };
    /// From a general register.
    const SPREAD: Self = Self {
        map: 2,
        byte: 0x7C,
        kind: Kind::Wide,
    };

    const fn float(byte: u8) -> Self {
        Self {
            map: 1,
            byte,
            kind: Kind::Float,
        }
    }
}

/// A comparison that quiet NaN does not disturb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::cpu::map) enum Test {
    Equal = 0x00,
    /// One of the two is NaN.
    Unordered = 0x03,
    Less = 0x11,
    LessEq = 0x12,
}

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

/// The last operand of an instruction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Last {
    Zmm(Zmm),
    Gpr(Gpr),
    /// The memory at a register plus rax.
    At(Gpr),
}

/// A jump whose aim is to be set.
#[must_use]
pub(super) struct Jump(usize);

/// Code in the making.
pub(super) struct Assembler {
    code: Vec<u8>,
    float: Float,
}

impl Assembler {
    pub(super) fn new(float: Float) -> Self {
        Self {
            code: Vec::new(),
            float,
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.code
    }

    /// Here, to jump to.
    pub(super) fn here(&self) -> usize {
        self.code.len()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    // On vectors.

    /// `to` = `op`(`x`, `y`); lanes out of the mask stay as they were.
    pub(super) fn vector(&mut self, op: Opcode, to: Zmm, x: Zmm, y: Zmm, mask: Mask) {
        self.evex(op, to.0, x.0, Last::Zmm(y), mask, false);
    }

    pub(super) fn sqrt(&mut self, to: Zmm, x: Zmm) {
        self.evex(Opcode::SQRT, to.0, 0, Last::Zmm(x), ALL, false);
    }

    /// Lanes out of the mask become zero, and their memory is not touched.
    pub(super) fn load(&mut self, to: Zmm, at: Gpr, mask: Mask) {
        self.evex(Opcode::LOAD, to.0, 0, Last::At(at), mask, mask != ALL);
    }

    pub(super) fn store(&mut self, at: Gpr, x: Zmm, mask: Mask) {
        self.evex(Opcode::STORE, x.0, 0, Last::At(at), mask, false);
    }

    /// The number at an address in all lanes.
    pub(super) fn broadcast(&mut self, to: Zmm, at: Gpr) {
        self.evex(Opcode::BROADCAST, to.0, 0, Last::At(at), ALL, false);
    }

    /// A number in all lanes; changes rdx.
    pub(super) fn constant(&mut self, to: Zmm, x: f64) {
        match self.float {
            Float::F32 => {
                self.byte_and_number(0xBA, (x as f32).to_bits());
            }
            Float::F64 => {
                self.bytes(&[0x48, 0xBA]);
                self.bytes(&x.to_bits().to_le_bytes());
            }
        }
        self.evex(Opcode::SPREAD, to.0, 0, Last::Gpr(RDX), ALL, false);
    }

    /// `to` has the lanes where the comparison holds.
    pub(super) fn compare(&mut self, to: Mask, test: Test, x: Zmm, y: Zmm) {
        self.evex(Opcode::COMPARE, to.0, x.0, Last::Zmm(y), ALL, false);
        self.bytes(&[test as u8]);
    }

    /// `yes` in lanes of the mask, `no` in others.
    pub(super) fn blend(&mut self, to: Zmm, mask: Mask, yes: Zmm, no: Zmm) {
        self.evex(Opcode::BLEND, to.0, no.0, Last::Zmm(yes), mask, false);
    }

    fn evex(&mut self, op: Opcode, reg: u8, second: u8, last: Last, mask: Mask, zero: bool) {
        let double = self.float == Float::F64;
        let (prefix, byte) = match op.kind {
            Kind::Float => (u8::from(double), op.byte),
            Kind::Wide => (1, op.byte),
            Kind::Next => (1, op.byte + u8::from(double)),
        };
        // Bits 3 and 4 of the last operand: of a vector register, or of base and index (which is rax).
        let (number, four) = match last {
            Last::Zmm(Zmm(number)) => (number, number >> 4),
            Last::Gpr(Gpr(number)) | Last::At(Gpr(number)) => (number, 0),
        };
        // All of these are stored inverted.
        let high = |number: u8, bit: u8| (number >> bit & 1) ^ 1;
        self.bytes(&[
            0x62,
            high(reg, 3) << 7 | (four ^ 1) << 6 | high(number, 3) << 5 | high(reg, 4) << 4 | op.map,
            u8::from(double) << 7 | (!second & 15) << 3 | 1 << 2 | prefix,
            u8::from(zero) << 7 | 2 << 5 | high(second, 4) << 3 | mask.0,
            byte,
        ]);
        self.operands(reg, last);
    }

    /// The bytes `ModRM` and SIB.
    fn operands(&mut self, reg: u8, last: Last) {
        let reg = (reg & 7) << 3;
        match last {
            Last::Zmm(Zmm(number)) | Last::Gpr(Gpr(number)) => {
                self.bytes(&[0xC0 | reg | number & 7]);
            }
            // With a displacement of 0, without which rbp and r13 have another meaning.
            Last::At(Gpr(base)) => self.bytes(&[0x44 | reg, base & 7, 0]),
        }
    }

    // On general registers.

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

    /// rsi shifted to the left.
    pub(super) fn scale_rsi(&mut self, by: u8) {
        self.bytes(&[0x48, 0xC1, 0xE6, by]);
    }

    pub(super) fn clear_rax(&mut self) {
        self.bytes(&[0x31, 0xC0]);
    }

    /// Takes rcx off rsi: the rest of rsi, `most` at most.
    pub(super) fn take_rcx(&mut self, most: u32) {
        self.byte_and_number(0xB9, most);
        self.bytes(&[0x48, 0x39, 0xCE]); // cmp rsi, rcx
        self.bytes(&[0x48, 0x0F, 0x42, 0xCE]); // cmovb rcx, rsi
        self.bytes(&[0x48, 0x29, 0xCE]); // sub rsi, rcx
    }

    pub(super) fn test_rsi(&mut self) {
        self.bytes(&[0x48, 0x85, 0xF6]);
    }

    /// A mask of as many lanes as rcx has, shifted to the right; changes rcx and rdx.
    pub(super) fn mask_of_rcx(&mut self, to: Mask, by: u8) {
        self.bytes(&[0xC1, 0xE9, by]); // shr ecx, by
        self.byte_and_number(0xBA, 1); // mov edx, 1
        self.bytes(&[0xD3, 0xE2]); // shl edx, cl
        self.bytes(&[0xFF, 0xCA]); // dec edx
        self.bytes(&[0xC5, 0xF8, 0x92, 0xC2 | to.0 << 3]); // kmovw to, edx
    }

    fn byte_and_number(&mut self, byte: u8, number: u32) {
        self.bytes(&[byte]);
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn jump(&mut self, when: If) -> Jump {
        self.bytes(&[0x0F, 0x80 | when as u8, 0, 0, 0, 0]);
        Jump(self.here())
    }

    /// Lets a jump lead to `aim`.
    pub(super) fn aim(&mut self, Jump(end): Jump, aim: usize) {
        let distance = (aim as i32).wrapping_sub(end as i32);
        self.code[end - 4..end].copy_from_slice(&distance.to_le_bytes());
    }

    /// Returns; other code finds vector registers as it likes them.
    pub(super) fn leave(&mut self) {
        self.bytes(&[0xC5, 0xF8, 0x77, 0xC3]); // vzeroupper; ret
    }
}
