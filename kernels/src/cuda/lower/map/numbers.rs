//! The parameters of a map's kernel: written here by the host, read in the same order by the code.

use super::ptx::{Kind, Reg, Text};
use super::word;
use crate::cuda::args::Divisor;
use crate::cuda::lower::Tables;

/// Words and places one after another, each at a multiple of its size.
#[derive(Debug, Default)]
pub(super) struct Numbers(Vec<u8>);

impl Numbers {
    pub(super) fn word(&mut self, x: usize) {
        self.0.extend_from_slice(bytemuck::bytes_of(&word(x)));
    }

    pub(super) fn divisor(&mut self, divisor: Divisor) {
        self.0.extend_from_slice(bytemuck::bytes_of(&divisor));
    }

    /// Where an array lies: see [`place`](crate::cuda::args::place).
    pub(super) fn place(&mut self, array: u64) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend_from_slice(bytemuck::bytes_of(&array));
    }

    /// Those of a map, at a multiple of 8 bytes.
    pub(super) fn append(&mut self, numbers: &[u8]) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend_from_slice(numbers);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The one parameter of a kernel whose numbers lie in a table.
    pub(super) fn in_table(self, tables: &mut Tables) -> Self {
        let mut one = Self::default();
        one.place(tables.add(&self.0));
        one
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0
    }
}

/// Division by a parameter.
#[derive(Clone, Copy)]
pub(super) struct By {
    divisor: Reg,
    magic: Reg,
    shift: Reg,
}

impl By {
    /// Quotient and rest of a number below 2³¹: `divide` in `common.cuh`.
    pub(super) fn split(self, text: &mut Text, n: Reg) -> [Reg; 2] {
        let high = text.word("mul.hi.u32", n, self.magic);
        let sum = text.word("add.u32", high, n);
        let quotient = text.word("shr.u32", sum, self.shift);
        let whole = text.word("mul.lo.u32", quotient, self.divisor);
        let rest = text.word("sub.u32", n, whole);
        [quotient, rest]
    }
}

/// Where the numbers of a map begin among a launch's parameters.
#[derive(Clone, Copy)]
pub(super) struct Start {
    /// The address of the first one, where it is not known before the launch.
    pub(super) base: Option<Reg>,
    /// Bytes from there, or from the first parameter, to the first number.
    pub(super) at: usize,
}

/// Reads the numbers of a map one after another.
pub(super) struct Reader {
    slots: Reg,
    start: Start,
    table: Option<Reg>,
    at: usize,
}

impl Reader {
    /// Of the parameters `slots` and `numbers`; or of a table, whose place is the only number then.
    pub(super) fn new(text: &mut Text, start: Start, table: bool) -> Self {
        let slots = text.value(Kind::B64, "ld.param.u64", "[slots]");
        let mut reader = Self {
            slots,
            start,
            table: None,
            at: 0,
        };
        if table {
            reader.table = Some(reader.place(text));
            reader.at = 0;
        }
        reader
    }

    fn read(&mut self, text: &mut Text, kind: Kind, size: usize) -> Reg {
        let at = self.at.next_multiple_of(size);
        self.at = at + size;
        let space = if self.table.is_some() {
            "global.nc"
        } else {
            "param"
        };
        let op = format!("ld.{space}.u{}", 8 * size);
        match (self.table, self.start.base) {
            (Some(table), _) => text.value(kind, op, format_args!("[{table}+{at}]")),
            (None, Some(base)) => {
                text.value(kind, op, format_args!("[{base}+{}]", self.start.at + at))
            }
            (None, None) => text.value(kind, op, format_args!("[numbers+{}]", self.start.at + at)),
        }
    }

    pub(super) fn word(&mut self, text: &mut Text) -> Reg {
        self.read(text, Kind::B32, 4)
    }

    pub(super) fn divisor(&mut self, text: &mut Text) -> By {
        let [divisor, magic, shift] = [(); 3].map(|()| self.word(text));
        By {
            divisor,
            magic,
            shift,
        }
    }

    /// The address of an array: that of its slot, from the table of slots, and its offset.
    pub(super) fn place(&mut self, text: &mut Text) -> Reg {
        let place = self.read(text, Kind::B64, 8);
        let slot = text.value(Kind::B64, "shr.u64", format_args!("{place}, 48"));
        let entry = text.value(Kind::B64, "shl.b64", format_args!("{slot}, 3"));
        let entry = text.value(
            Kind::B64,
            "add.u64",
            format_args!("{}, {entry}", self.slots),
        );
        let base = text.value(Kind::B64, "ld.global.nc.u64", format_args!("[{entry}]"));
        let offset = text.value(
            Kind::B64,
            "and.b64",
            format_args!("{place}, 0xFFFFFFFFFFFF"),
        );
        text.value(Kind::B64, "add.u64", format_args!("{base}, {offset}"))
    }

    /// Bytes that the numbers take among the parameters.
    pub(super) fn bytes(&self) -> usize {
        let own = if self.table.is_some() { 8 } else { self.at };
        own.next_multiple_of(8)
    }
}
