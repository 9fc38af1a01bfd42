//! Fused element-wise programs, evaluated block by block.
//!
//! A [`Plan`] cuts the points into blocks ([`Tiling`]) and gives every value a *cell*. For each block the
//! instructions run in order, each a loop over the block ([`ops`]) from cells to a cell. Blocks have
//! [`BLOCK`] points at most, so that the registers of all cells together stay in the first-level cache.
//! Inputs are read where they lie if they can be ([`access`]), and sums are taken in a fixed order ([`sum`]).
//!
//! Where the processor allows it, chains of instructions are one loop of machine code each ([`compiled`]), with the
//! same bits. If a chain is all of a map, blocks are longer, for there is nothing to keep.

mod access;
mod compiled;
mod element;
mod ops;
mod plan;
mod sum;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
mod tiling;

use super::math::Real;
use super::simd::{prefetch_read, prefetch_write};
use super::{parallel, scratch};
use crate::bound::Arrays;
use crate::{Binary, Float, Map, Unary};
use ops::Arg;
pub(crate) use plan::Plan;
use plan::{Action, Op, Place, Read, Source};
use std::ops::Range;
use tensor::DType;
use tiling::Tiling;

/// Points of a block. A register of f32 takes 2 KiB, so that twenty of them fit the first-level cache.
const BLOCK: usize = 512;

/// Points of a step of the interpreter's loops. The last step of a block may compute junk beyond its end.
const STEP: usize = 128;

/// Most cells of a plan: as many registers of f64 as a thread's scratch memory holds.
const CELLS: usize = scratch::BYTES / (BLOCK * size_of::<f64>());

impl Map {
    /// Bytes of workspace that the CPU needs for partial sums: see
    /// [`Kernel::workspace`](crate::Kernel::workspace).
    pub fn workspace(&self) -> usize {
        if self.points() == 0 || !self.stores.iter().any(crate::Store::is_sum) {
            return 0;
        }
        let tiling = Tiling::new(self);
        let stores = self.stores.iter();
        let partials = stores.map(|store| Plan::partials(self, &tiling, store));
        partials.sum::<usize>() * self.float.size()
    }
}

impl Unary {
    /// Its value at a number of the type, to the bit what a map computes.
    pub fn eval(self, float: Float, x: f64) -> f64 {
        let y = typed!(float, T => {
            ops::unary(self, Arg::Scalar(T::from_f64(x)), &mut []).map(Real::to_f64)
        });
        y.expect("numbers give a number")
    }
}

impl Binary {
    /// Its value at numbers of the type, to the bit what a map computes.
    pub fn eval(self, float: Float, x: f64, y: f64) -> f64 {
        let z = typed!(float, T => {
            let [x, y] = [x, y].map(|x| Arg::Scalar(T::from_f64(x)));
            ops::binary(self, x, y, &mut []).map(Real::to_f64)
        });
        z.expect("numbers give a number")
    }
}

/// What a map without points leaves behind: empty sums.
pub(crate) fn run_empty(outputs: usize, arrays: &Arrays<'_>) {
    for i in 0..outputs {
        // SAFETY: `Program` checked the arrays; nobody else uses them now.
        unsafe { arrays.output(i).slice_mut::<u8>() }.fill(0);
    }
}

impl Plan {
    pub(crate) fn run(&self, arrays: &Arrays<'_>) {
        typed!(self.float, T => self.run_as::<T>(arrays));
    }

    fn run_as<T: Real>(&self, arrays: &Arrays<'_>) {
        let work = (self.tiling.unit_points() as f64 * self.work) as usize;
        parallel::ranges(0..self.tiling.units(), work, &|units| {
            scratch::with(|memory| {
                let machine = Machine {
                    plan: self,
                    arrays,
                    registers: memory.cast(),
                    cells: &mut [Cell::Scalar(T::ZERO); CELLS],
                    depth: 0,
                };
                machine.run(units);
            });
        });
        self.combine::<T>(arrays);
    }
}

/// What a cell holds.
#[derive(Clone, Copy)]
enum Cell<T> {
    Scalar(T),
    /// A register, or an input in its place.
    Block(*const T),
}

/// Evaluates blocks on one thread.
struct Machine<'a, T> {
    plan: &'a Plan,
    arrays: &'a Arrays<'a>,
    registers: *mut T,
    cells: &'a mut [Cell<T>; CELLS],
    /// Rows added since sums were last added to those of all rows before.
    depth: usize,
}

impl<'a, T: Real> Machine<'a, T> {
    fn run(mut self, units: Range<usize>) {
        let plan = self.plan;
        for action in &plan.once {
            self.act(action, 0, BLOCK);
        }
        for unit in units {
            let unit = plan.tiling.unit(unit);
            self.begin_sums(unit);
            let start = unit.first_row * plan.tiling.inner + unit.first_column;
            for action in &plan.unit {
                self.act(action, start, plan.columns.min(unit.rows * unit.columns));
            }
            plan.tiling.each_block(unit, |start, count| {
                self.prefetch_outputs(start, count);
                for action in &plan.block {
                    self.act(action, start, count);
                }
                self.add_to_sums(unit, start, count);
                self.store(start, count);
            });
            self.end_sums(unit);
        }
    }

    /// Prefetches outputs. Writing to memory that is not in the cache first reads it; that, too, is to happen
    /// while the block is computed.
    fn prefetch_outputs(&self, start: usize, count: usize) {
        for output in &self.plan.full {
            let (size, memory) = (
                output.dtype.size(),
                self.arrays.output(output.operand).pointer,
            );
            prefetch_write(memory.wrapping_add(start * size), count * size);
        }
    }

    fn act(&mut self, action: &Action, start: usize, count: usize) {
        let steps = count.next_multiple_of(STEP);
        // SAFETY: only this action writes to this cell now, and none of its operands has that cell.
        let out = || unsafe { self.register(action.cell, steps) };
        let arg = |cell| self.arg(cell, steps);
        let scalar = match action.op {
            Op::Read(read) => return self.read(&self.plan.reads[read], action.cell, start, count),
            Op::Chain(chain) => return self.run_chain(&self.plan.chains[chain], start, count),
            Op::Const(x) => Some(T::from_f64(x)),
            Op::Unary(f, x) => ops::unary(f, arg(x), out()),
            Op::Binary(f, x, y) => ops::binary(f, arg(x), arg(y), out()),
            Op::Select(c, x, y) => ops::select(arg(c), arg(x), arg(y), out()),
        };
        self.cells[action.cell] = match scalar {
            Some(x) => Cell::Scalar(x),
            None => Cell::Block(out().as_ptr()),
        };
    }

    fn read(&mut self, read: &Read, cell: usize, start: usize, count: usize) {
        if let (Source::Input(input, _), Place::There) = (read.source, read.place) {
            let there = self
                .arrays
                .input(input)
                .element::<T>(read.access.offset(start));
            self.cells[cell] = Cell::Block(there.cast_const());
            return;
        }
        // SAFETY: no reference into the register of this cell is alive.
        let out = unsafe { self.register(cell, count) };
        self.cells[cell] = Cell::Block(out.as_ptr());
        let runs = read.access.runs(start, count);
        let Source::Input(input, dtype) = read.source else {
            return element::count(runs, out);
        };
        let input = self.arrays.input(input);
        let run = runs.peek();
        let whole = run.length == count;
        let in_place = match read.place {
            Place::Copied => false,
            Place::Steps => count.is_multiple_of(STEP),
            Place::Whole | Place::There | Place::Row => true,
        };
        let points = whole && run.stride == 1 && dtype == self.dtype();
        if in_place && points {
            let here = input.element::<T>(run.offset).cast_const();
            // Prefetch the next block, so that memory is busy while this one is computed.
            prefetch_read(here.wrapping_add(count).cast(), count * size_of::<T>());
            self.cells[cell] = Cell::Block(here);
            return;
        }
        let scalar = whole && run.stride == 0;
        let (runs, out) = if scalar {
            (read.access.runs(start, 1), &mut out[..1])
        } else {
            (runs, out)
        };
        // SAFETY: `Program` checked that all that the load reaches lies in the input, and is aligned. Nobody
        // writes to this block's part of it before the block is stored.
        unsafe { element::read(dtype, input, runs, out) };
        if scalar {
            self.cells[cell] = Cell::Scalar(out[0]);
        }
    }

    fn store(&self, start: usize, count: usize) {
        for output in &self.plan.full {
            let values = self.arg(output.cell, count);
            // SAFETY: `Program` checked that the output has all points; no other block has these. Where it
            // lies over an input, `values` is not the input itself: see [`Place::Copied`].
            unsafe {
                element::write(
                    output.dtype,
                    self.arrays.output(output.operand),
                    start,
                    count,
                    values,
                );
            };
        }
    }

    fn dtype(&self) -> DType {
        self.plan.float.into()
    }

    /// The value of a cell for the first `count` points of the block.
    fn arg(&self, cell: usize, count: usize) -> Arg<'a, T> {
        match self.cells[cell] {
            Cell::Scalar(x) => Arg::Scalar(x),
            // SAFETY: registers have room for a block, and are not written to while operands are in use; an
            // input in its place has that many elements, and nobody writes to them before this block does.
            Cell::Block(values) => Arg::Block(unsafe { std::slice::from_raw_parts(values, count) }),
        }
    }

    /// The memory of a cell.
    ///
    /// # Safety
    /// While the result is in use nobody else may use that cell's register.
    unsafe fn register(&self, cell: usize, count: usize) -> &'a mut [T] {
        assert!(cell < CELLS && count <= BLOCK, "checked by `Plan::new`");
        // SAFETY: the scratch has room for that many registers, this thread alone has it, and it is
        // initialised.
        unsafe { std::slice::from_raw_parts_mut(self.registers.add(cell * BLOCK), count) }
    }
}
