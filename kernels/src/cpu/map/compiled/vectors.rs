//! Instructions on vectors, with either prefix: EVEX (AVX-512) or VEX (AVX2).
//!
//! Both have the same opcodes, but for masks: with EVEX they are registers of their own, with VEX vectors whose lanes
//! are all ones or all zeros.

use super::assembler::{Assembler, Gpr, Jump, RAX, RCX, RDX};
use crate::Float;
use crate::cpu::simd::Simd;

/// How instructions on vectors are encoded, and so what registers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// 32 registers of 64 bytes.
    Evex,
    /// 16 registers of 32 bytes.
    Vex,
}

impl Prefix {
    /// `None` if nothing is compiled at the level.
    pub(super) fn of(level: Simd) -> Option<Self> {
        match level {
            Simd::Baseline => None,
            Simd::Avx2 => Some(Self::Vex),
            Simd::Avx512 => Some(Self::Evex),
        }
    }

    /// Bytes of a vector.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Evex => 64,
            Self::Vex => 32,
        }
    }

    /// The registers that values may lie in: all but those for masks, if loops choose or not.
    pub(super) fn registers(self, choose: bool) -> impl DoubleEndedIterator<Item = Register> {
        let count = match self {
            Self::Evex => 32,
            Self::Vex if choose => HOLDS_VECTOR.0,
            Self::Vex => REST_VECTOR.0,
        };
        (0..count).map(Register)
    }
}

/// A vector register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Register(u8);

/// Lanes of a vector that are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    All,
    /// Those at the end of a row, see [`Assembler::rest_of_rcx`].
    Rest,
}

/// Mask registers, by their numbers; 0 stands for all lanes.
const ALL: u8 = 0;
const REST: u8 = 1;
/// Where a comparison holds.
const HOLDS: u8 = 2;

/// The vector registers that stand for these masks with VEX.
const REST_VECTOR: Register = Register(15);
const HOLDS_VECTOR: Register = Register(14);

/// An instruction on vectors: its opcode map and byte, and how it tells f32 and f64 apart. Which operands it
/// takes, callers know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu::map) struct Opcode {
    map: u8,
    byte: u8,
    kind: Kind,
}

/// How an instruction tells element types apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// By the prefix 66, as the arithmetic of SSE, and by EVEX.W.
    Float,
    /// By EVEX.W, with the prefix 66.
    Wide,
    /// By EVEX.W, and the byte is one more for f64; with the prefix 66.
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
    /// From memory; with VEX also from the first lane of a register.
    const BROADCAST: Self = Self::new(2, 0x18, Kind::Next);
    /// From a general register, with EVEX.
    const SPREAD: Self = Self::new(2, 0x7C, Kind::Wide);
    /// By a mask register, with EVEX.
    const BLEND: Self = Self::new(2, 0x65, Kind::Wide);
    /// By a vector register, with VEX.
    const BLEND_BY: Self = Self::new(3, 0x4A, Kind::Next);
    /// Of the lanes of a vector register, with VEX.
    const LOAD_BY: Self = Self::new(2, 0x2C, Kind::Next);
    const STORE_BY: Self = Self::new(2, 0x2E, Kind::Next);

    const fn float(byte: u8) -> Self {
        Self::new(1, byte, Kind::Float)
    }

    const fn new(map: u8, byte: u8, kind: Kind) -> Self {
        Self { map, byte, kind }
    }
}

/// A comparison that raises no exception for a quiet NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::cpu::map) enum Test {
    Equal = 0x00,
    /// One of the two is NaN.
    Unordered = 0x03,
    Less = 0x11,
    LessEq = 0x12,
}

/// The last operand of an instruction.
#[derive(Clone, Copy, Debug)]
enum Last {
    Register(Register),
    Gpr(Gpr),
    /// The memory at a register plus rax.
    At(Gpr),
    /// The memory at a register.
    Start(Gpr),
}

impl Assembler {
    /// `to` = `op`(`x`, `y`).
    pub(super) fn vector(&mut self, op: Opcode, to: Register, x: Register, y: Register) {
        self.plain(op, to, x.0, Last::Register(y));
    }

    pub(super) fn sqrt(&mut self, to: Register, x: Register) {
        self.plain(Opcode::SQRT, to, 0, Last::Register(x));
    }

    /// Other lanes become zero, and their memory is not touched.
    pub(super) fn load(&mut self, to: Register, at: Gpr, lanes: Lanes) {
        let at = Last::At(at);
        match (lanes, self.prefix) {
            (Lanes::All, _) => self.plain(Opcode::LOAD, to, 0, at),
            (Lanes::Rest, Prefix::Evex) => self.evex(Opcode::LOAD, to.0, 0, at, REST, true),
            (Lanes::Rest, Prefix::Vex) => self.vex(Opcode::LOAD_BY, to.0, REST_VECTOR.0, at),
        }
    }

    /// The memory of other lanes is not touched.
    pub(super) fn store(&mut self, at: Gpr, x: Register, lanes: Lanes) {
        let at = Last::At(at);
        match (lanes, self.prefix) {
            (Lanes::All, _) => self.plain(Opcode::STORE, x, 0, at),
            (Lanes::Rest, Prefix::Evex) => self.evex(Opcode::STORE, x.0, 0, at, REST, false),
            (Lanes::Rest, Prefix::Vex) => self.vex(Opcode::STORE_BY, x.0, REST_VECTOR.0, at),
        }
    }

    /// The number at an address, without rax, in all lanes.
    pub(super) fn broadcast(&mut self, to: Register, at: Gpr) {
        self.plain(Opcode::BROADCAST, to, 0, Last::Start(at));
    }

    /// A number in all lanes; changes rdx.
    pub(super) fn constant(&mut self, to: Register, x: f64) {
        match self.float {
            Float::F32 => self.byte_and_number(0xBA, (x as f32).to_bits()),
            Float::F64 => {
                self.bytes(&[0x48, 0xBA]);
                self.bytes(&x.to_bits().to_le_bytes());
            }
        }
        match self.prefix {
            Prefix::Evex => self.evex(Opcode::SPREAD, to.0, 0, Last::Gpr(RDX), ALL, false),
            Prefix::Vex => {
                // vmovd or vmovq to the first lane, from rdx
                let wide = u8::from(self.float == Float::F64) << 7;
                self.bytes(&[0xC4, inverted(to.0, 3) << 7 | 0x61, wide | 0x79, 0x6E]);
                self.operands(to.0, Last::Gpr(RDX));
                self.vex(Opcode::BROADCAST, to.0, 0, Last::Register(to));
            }
        }
    }

    /// `to` = `yes` in lanes where the test holds of `x` and `y`, else `no`.
    pub(super) fn choose(
        &mut self,
        test: Test,
        to: Register,
        [x, y]: [Register; 2],
        [yes, no]: [Register; 2],
    ) {
        let (y, yes) = (Last::Register(y), Last::Register(yes));
        match self.prefix {
            Prefix::Evex => {
                self.evex(Opcode::COMPARE, HOLDS, x.0, y, ALL, false);
                self.bytes(&[test as u8]);
                self.evex(Opcode::BLEND, to.0, no.0, yes, HOLDS, false);
            }
            Prefix::Vex => {
                self.vex(Opcode::COMPARE, HOLDS_VECTOR.0, x.0, y);
                self.bytes(&[test as u8]);
                self.vex(Opcode::BLEND_BY, to.0, no.0, yes);
                self.bytes(&[HOLDS_VECTOR.0 << 4]);
            }
        }
    }

    /// Sets up [`Lanes::Rest`] for rcx bytes, which are fewer than a vector. Changes rcx and rdx.
    pub(super) fn rest_of_rcx(&mut self) {
        match self.prefix {
            Prefix::Evex => {
                self.bytes(&[0xC1, 0xE9, self.shift()]); // shr ecx, shift
                self.byte_and_number(0xBA, 1); // mov edx, 1
                self.bytes(&[0xD3, 0xE2]); // shl edx, cl
                self.bytes(&[0xFF, 0xCA]); // dec edx
                self.bytes(&[0xC5, 0xF8, 0x92, 0xC2 | REST << 3]); // kmovw k, edx
            }
            Prefix::Vex => {
                // The mask is loaded from rcx bytes before the zeros of the table, where there are ones.
                self.bytes(&[0x48, 0x8D, 0x15, 0, 0, 0, 0]); // lea rdx, [rip + distance]
                self.zeros.push(Jump::here(self));
                self.minus(RDX, RCX);
                self.minus(RDX, RAX); // which addresses add again
                self.plain(Opcode::LOAD, REST_VECTOR, 0, Last::At(RDX));
            }
        }
    }

    /// Writes the table of [`Assembler::rest_of_rcx`].
    pub(super) fn masks(&mut self) {
        let zeros = std::mem::take(&mut self.zeros);
        if !zeros.is_empty() {
            self.bytes(&[0xFF; 32]);
            let aim = self.here();
            self.bytes(&[0; 32]);
            zeros.into_iter().for_each(|jump| self.aim(jump, aim));
        }
    }

    /// Without a mask.
    fn plain(&mut self, op: Opcode, to: Register, second: u8, last: Last) {
        match self.prefix {
            Prefix::Evex => self.evex(op, to.0, second, last, ALL, false),
            Prefix::Vex => self.vex(op, to.0, second, last),
        }
    }

    fn evex(&mut self, op: Opcode, reg: u8, second: u8, last: Last, mask: u8, zero: bool) {
        let (prefix, byte) = self.prefix_and_byte(op);
        // Bits 3 and 4 of the last operand: of a vector register, or of base and index (which is rax).
        let four = match last {
            Last::Register(Register(number)) => inverted(number, 4),
            Last::Gpr(_) | Last::At(_) | Last::Start(_) => 1,
        };
        let three = inverted(last.number(), 3);
        self.bytes(&[
            0x62,
            inverted(reg, 3) << 7 | four << 6 | three << 5 | inverted(reg, 4) << 4 | op.map,
            u8::from(self.float == Float::F64) << 7 | (!second & 15) << 3 | 1 << 2 | prefix,
            u8::from(zero) << 7 | 2 << 5 | inverted(second, 4) << 3 | mask,
            byte,
        ]);
        self.operands(reg, last);
    }

    fn vex(&mut self, op: Opcode, reg: u8, second: u8, last: Last) {
        let (prefix, byte) = self.prefix_and_byte(op);
        self.bytes(&[
            0xC4,
            inverted(reg, 3) << 7 | 1 << 6 | inverted(last.number(), 3) << 5 | op.map,
            (!second & 15) << 3 | 1 << 2 | prefix,
            byte,
        ]);
        self.operands(reg, last);
    }

    fn prefix_and_byte(&self, op: Opcode) -> (u8, u8) {
        let double = u8::from(self.float == Float::F64);
        match op.kind {
            Kind::Float => (double, op.byte),
            Kind::Wide => (1, op.byte),
            Kind::Next => (1, op.byte + double),
        }
    }

    /// The bytes `ModRM` and SIB.
    fn operands(&mut self, reg: u8, last: Last) {
        let reg = (reg & 7) << 3;
        match last {
            Last::Register(Register(number)) | Last::Gpr(Gpr(number)) => {
                self.bytes(&[0xC0 | reg | number & 7]);
            }
            // With a displacement of 0, without which rbp and r13 have another meaning.
            Last::At(Gpr(base)) => self.bytes(&[0x44 | reg, base & 7, 0]),
            Last::Start(Gpr(base)) => self.bytes(&[0x44 | reg, 4 << 3 | base & 7, 0]),
        }
    }
}

impl Last {
    fn number(self) -> u8 {
        match self {
            Self::Register(Register(number)) => number,
            Self::Gpr(Gpr(number)) | Self::At(Gpr(number)) | Self::Start(Gpr(number)) => number,
        }
    }
}

/// A bit of a register's number as prefixes have it.
fn inverted(number: u8, bit: u8) -> u8 {
    (number >> bit & 1) ^ 1
}
