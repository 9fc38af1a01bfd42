//! PTX as text: registers, lines and loads of parameters, as a compiler's back end writes them.

use std::fmt::{self, Display, Write as _};

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    B16,
    B32,
    B64,
    F32,
    F64,
    Flag,
}

/// Kinds with the type that declares them, and the letters that their registers begin with.
const KINDS: [(&str, &str); 6] = [
    ("b16", "h"),
    ("b32", "r"),
    ("b64", "d"),
    ("f32", "f"),
    ("f64", "g"),
    ("pred", "p"),
];

/// A virtual register: `%r7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reg(Kind, u32);

impl Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}{}", KINDS[self.0 as usize].1, self.1)
    }
}

/// A place in the text to jump to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(u32);

impl Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// The body of a kernel as it grows.
#[derive(Default)]
pub(super) struct Text {
    lines: String,
    registers: [u32; KINDS.len()],
    labels: u32,
}

impl Text {
    pub(super) fn register(&mut self, kind: Kind) -> Reg {
        let count = &mut self.registers[kind as usize];
        *count += 1;
        Reg(kind, *count - 1)
    }

    /// Writes one instruction, without its semicolon.
    pub(super) fn line(&mut self, instruction: impl Display) {
        let _ = writeln!(self.lines, "    {instruction};");
    }

    /// Writes a line that is no instruction.
    pub(super) fn plain(&mut self, line: &str) {
        self.lines.push_str("    ");
        self.lines.push_str(line);
        self.lines.push('\n');
    }

    /// Writes `op result, operands` with a new register, which it returns.
    pub(super) fn value(&mut self, kind: Kind, op: impl Display, operands: impl Display) -> Reg {
        let result = self.register(kind);
        self.line(format_args!("{op} {result}, {operands}"));
        result
    }

    /// A 32-bit integer operation of two operands.
    pub(super) fn word(&mut self, op: &str, a: impl Display, b: impl Display) -> Reg {
        self.value(Kind::B32, op, format_args!("{a}, {b}"))
    }

    /// Whether a comparison holds: `setp.op.type`.
    pub(super) fn flag(&mut self, op: impl Display, a: impl Display, b: impl Display) -> Reg {
        let op = format!("setp.{op}");
        self.value(Kind::Flag, op, format_args!("{a}, {b}"))
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    pub(super) fn here(&mut self, label: Label) {
        let _ = writeln!(self.lines, "{label}:");
    }

    /// The registers' declarations, then the lines.
    pub(super) fn body(&self) -> String {
        let mut body = String::new();
        for ((declared, letter), count) in KINDS.iter().zip(self.registers) {
            if count > 0 {
                let _ = writeln!(body, "    .reg .{declared} %{letter}<{count}>;");
            }
        }
        body + &self.lines
    }
}
