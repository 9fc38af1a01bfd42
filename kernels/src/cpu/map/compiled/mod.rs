//! Loops over a block as machine code: most of a map, where the processor has AVX-512 or AVX2.
//!
//! Interpreted, every instruction is a loop of its own from cells to a cell. A [`Chain`] is one loop for all of
//! them: it reads inputs where they lie, keeps values in vector registers, writes to outputs and adds to sums. The
//! same operations in the same order give the same bits. What it has no instructions for (exponentials, odd
//! strides, conversions) stays with the interpreter, before and between chains ([`stages`]).

mod assembler;
mod code;
mod stages;
mod vectors;

use super::access::Walk;
use super::{Cell, Machine};
use crate::Float;
use crate::cpu::math::Real;
use code::Code;
pub(super) use stages::compile;
use std::sync::Arc;
use vectors::Prefix;
pub(super) use vectors::{Opcode, Test};

/// Most streams of a chain.
const STREAMS: usize = 48;

/// A compiled loop over a block.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    streams: Vec<Stream>,
    code: Arc<Code>,
}

/// Memory that a loop walks through.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    /// Read: where a cell lies.
    Read(usize, Walk),
    /// Written: the register of a cell.
    Cell(usize),
    /// Written: an output operand.
    Output(usize),
    /// Added to: the last rows of a sum.
    Sum(usize),
}

impl Chain {
    /// `None` if the loop is too much for the processor's registers, or the system allows no new code.
    fn new(body: Loop, prefix: Prefix) -> Option<Self> {
        let code = (body.streams.len() <= STREAMS).then(|| Code::new(&body, prefix))??;
        Some(Self {
            streams: body.streams,
            code,
        })
    }
}

impl Stream {
    fn walk(self) -> Walk {
        match self {
            Self::Read(_, walk) => walk,
            Self::Cell(_) | Self::Output(_) => Walk::Points,
            Self::Sum(_) => Walk::Rows { step: 0, stride: 1 },
        }
    }
}

/// What is to be compiled: a loop over rows of `columns` points, the last perhaps shorter.
#[derive(Clone, Debug)]
pub(super) struct Loop {
    float: Float,
    columns: usize,
    streams: Vec<Stream>,
    values: Vec<Instr>,
    sinks: Vec<Sink>,
}

/// One instruction; operands are indices of earlier values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Instr {
    Load {
        stream: usize,
        walk: Walk,
    },
    /// A constant, by the bits of an f64: 0 and −0 differ.
    Const(u64),
    Sqrt(usize),
    Arithmetic(Opcode, usize, usize),
    /// The third where the test holds of the first two, else the fourth.
    Choose(Test, [usize; 4]),
}

/// Where a value goes.
#[derive(Clone, Copy, Debug)]
struct Sink {
    value: usize,
    stream: usize,
    /// It is added to what is there.
    add: bool,
}

impl Instr {
    fn operands(&self) -> impl Iterator<Item = usize> + use<> {
        let (operands, count) = match *self {
            Self::Load { .. } | Self::Const(_) => ([0; 4], 0),
            Self::Sqrt(x) => ([x, 0, 0, 0], 1),
            Self::Arithmetic(_, x, y) => ([x, y, 0, 0], 2),
            Self::Choose(_, operands) => (operands, 4),
        };
        operands.into_iter().take(count)
    }
}

impl Loop {
    pub(super) fn constant(&mut self, x: f64) -> usize {
        self.value(Instr::Const(x.to_bits()))
    }

    pub(super) fn sqrt(&mut self, x: usize) -> usize {
        self.value(Instr::Sqrt(x))
    }

    pub(super) fn apply(&mut self, op: Opcode, x: usize, y: usize) -> usize {
        self.value(Instr::Arithmetic(op, x, y))
    }

    /// `yes` where the test holds of `x` and `y`, else `no`.
    pub(super) fn choose(
        &mut self,
        test: Test,
        [x, y]: [usize; 2],
        [yes, no]: [usize; 2],
    ) -> usize {
        if let Instr::Choose(inner, [a, b, one, zero]) = self.values[x]
            && test == Test::Equal
            && self.is(y, 0.0)
            && self.is(one, 1.0)
            && self.is(zero, 0.0)
        {
            // A choice by the result of a comparison: by the comparison itself.
            return self.choose(inner, [a, b], [no, yes]);
        }
        self.value(Instr::Choose(test, [x, y, yes, no]))
    }

    fn is(&self, value: usize, number: f64) -> bool {
        self.values[value] == Instr::Const(number.to_bits())
    }

    /// 1 where the test holds, else 0.
    pub(super) fn truth(&mut self, test: Test, x: usize, y: usize) -> usize {
        let truth = [1.0, 0.0].map(|x| self.constant(x));
        self.choose(test, [x, y], truth)
    }

    /// The number of a value. Equal values have one number.
    fn value(&mut self, instr: Instr) -> usize {
        self.values
            .iter()
            .position(|&other| other == instr)
            .unwrap_or_else(|| {
                self.values.push(instr);
                self.values.len() - 1
            })
    }

    /// A value in memory.
    fn load(&mut self, cell: usize, walk: Walk) -> usize {
        let stream = self.stream(Stream::Read(cell, walk));
        self.value(Instr::Load { stream, walk })
    }

    fn sink(&mut self, value: usize, stream: Stream) {
        let (stream, add) = (self.stream(stream), matches!(stream, Stream::Sum(_)));
        self.sinks.push(Sink { value, stream, add });
    }

    fn stream(&mut self, stream: Stream) -> usize {
        self.streams
            .iter()
            .position(|&other| other == stream)
            .unwrap_or_else(|| {
                self.streams.push(stream);
                self.streams.len() - 1
            })
    }
}

impl<T: Real> Machine<'_, T> {
    pub(super) fn run_chain(&mut self, chain: &Chain, start: usize, count: usize) {
        let mut pointers = [std::ptr::null_mut(); STREAMS];
        let pointers = &mut pointers[..chain.streams.len()];
        for (pointer, &stream) in pointers.iter_mut().zip(&chain.streams) {
            *pointer = match stream {
                Stream::Read(cell, walk) => self.pointer(cell, walk, count),
                Stream::Cell(cell) => {
                    // SAFETY: no reference into the register of this cell is alive.
                    let register = unsafe { self.register(cell, count) }.as_mut_ptr();
                    self.cells[cell] = Cell::Block(register);
                    register.cast()
                }
                // The chain writes to the output itself.
                Stream::Output(operand) => self.arrays.output(operand).element::<T>(start).cast(),
                Stream::Sum(sum) => self.recent(sum).cast(),
            };
        }
        // SAFETY: `Program` checked that all that a load or a store reaches lies in its array; registers have
        // room for a block, and sums for a row. This thread alone has the registers and these points of the
        // outputs; of an input that an output lies over it reads each point before it writes it.
        unsafe { chain.code.run(pointers, count) }
    }

    /// Where a cell's numbers lie, as many as the walk needs.
    fn pointer(&mut self, cell: usize, walk: Walk, count: usize) -> *mut u8 {
        match self.cells[cell] {
            Cell::Block(values) => values.cast_mut().cast(),
            Cell::Scalar(x) => {
                let count = if walk == Walk::Scalar { 1 } else { count };
                // SAFETY: no reference into the register of this cell is alive.
                let register = unsafe { self.register(cell, count) };
                register.fill(x);
                register.as_mut_ptr().cast()
            }
        }
    }
}
