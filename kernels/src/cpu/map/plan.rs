//! A map made ready to run: what is computed when, and where values live.

use super::access::Access;
use super::compiled::{Chain, compile};
use super::tiling::{Sums, Tiling};
use super::{BLOCK, CELLS};
use crate::cpu::simd::Simd;
use crate::{Binary, Float, Instr, Map, Store, StoreKind, Unary};
use tensor::DType;

/// A map made ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) float: Float,
    pub(super) tiling: Tiling,
    pub(super) reads: Vec<Read>,
    /// What is the same for all blocks: done at the start of every task.
    pub(super) once: Vec<Action>,
    /// What is the same for all rows of a unit, whose first `columns` points it is done for.
    pub(super) unit: Vec<Action>,
    pub(super) columns: usize,
    /// What is done for every block.
    pub(super) block: Vec<Action>,
    /// What [`Op::Chain`] runs.
    pub(super) chains: Vec<Chain>,
    /// Outputs of all points that no chain writes.
    pub(super) full: Vec<Output>,
    pub(super) sums: Vec<Sum>,
    /// Cost of a point, in visits of an element.
    pub(super) work: f64,
}

/// Where values of the iteration space come from.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) source: Source,
    pub(super) access: Access,
    pub(super) place: Place,
}

/// Where a read leaves what it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Copied to its cell's register: it is stored as it is, and a store before that may write over the
    /// input.
    Copied,
    /// Left in the input, if a block is whole steps: loops of the interpreter go on to the end of a step.
    Steps,
    /// Left in the input, if the block's elements follow each other.
    Whole,
    /// Left in the input: a chain walks through it.
    There,
    /// As [`Place::Whole`], but one row of a chain is read for all rows of a unit, in which it is the same.
    Row,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Input(usize, DType),
    /// The offset itself: the index along an axis.
    Index,
}

/// Computes the value of one cell. A cell is a number or a register for the points of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Action {
    pub(super) op: Op,
    pub(super) cell: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Read(usize),
    Const(f64),
    Unary(Unary, usize),
    Binary(Binary, usize, usize),
    Select(usize, usize, usize),
    /// Compiled code that computes many cells. The cell of the action is not used.
    Chain(usize),
}

impl Op {
    /// The cells that it works on.
    pub(super) fn operands(&self) -> impl Iterator<Item = usize> + use<> {
        let (operands, count) = match *self {
            Self::Read(_) | Self::Const(_) | Self::Chain(_) => ([0; 3], 0),
            Self::Unary(_, x) => ([x, 0, 0], 1),
            Self::Binary(_, x, y) => ([x, y, 0], 2),
            Self::Select(c, x, y) => ([c, x, y], 3),
        };
        operands.into_iter().take(count)
    }
}

/// Where a value goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) operand: usize,
    pub(super) dtype: DType,
    pub(super) cell: usize,
}

/// A sum over a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum {
    pub(super) output: Output,
    /// Cells for the sum of the last few rows, that of all rows before, and for a value that is a number.
    pub(super) registers: [usize; 3],
    /// Element of the workspace where the sums of all chunks begin, if they do not go straight to the output.
    pub(super) partials: Option<usize>,
    /// A chain adds to it.
    pub(super) chained: bool,
}

/// When a value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Once,
    Block,
}

impl Plan {
    /// For a map that was checked, and a level of vector instructions; `None` if it has no points.
    pub(crate) fn new(map: &Map, simd: Simd) -> Result<Option<Self>, String> {
        if map.points() == 0 {
            return Ok(None);
        }
        let apart = Self::lower(map, true);
        match apart.ok().and_then(|plan| compile(&plan, simd)) {
            Some(plan) => Ok(Some(plan)),
            None => Self::lower(map, false).map(Some),
        }
    }

    /// The plan without machine code. With `apart`, which compilation needs, every value has a cell of its
    /// own, and only what is equal for all points is done once.
    fn lower(map: &Map, apart: bool) -> Result<Self, String> {
        let mut plan = Self {
            float: map.float,
            tiling: Tiling::new(map),
            reads: Vec::new(),
            once: Vec::new(),
            unit: Vec::new(),
            columns: BLOCK,
            block: Vec::new(),
            chains: Vec::new(),
            full: Vec::new(),
            sums: Vec::new(),
            work: work(map),
        };
        let mut cells = Cells {
            apart,
            ..Cells::default()
        };
        Lowering {
            map,
            plan: &mut plan,
            cells: &mut cells,
            values: vec![None; map.code.len()],
        }
        .run();
        plan.add_sums(map, &mut cells);
        if cells.count >= CELLS {
            return Err(format!("{} values at once; at most {CELLS}", cells.count));
        }
        match plan
            .reads
            .iter()
            .position(|read| !read.access.is_supported())
        {
            Some(_) => Err("too many axes that cannot be merged".into()),
            None => Ok(plan),
        }
    }

    /// Elements of the workspace.
    pub(super) fn partials(map: &Map, tiling: &Tiling, store: &Store) -> usize {
        let direct = store.dtype == map.float.into() && tiling.chunks == 1;
        match (&store.kind, &tiling.sums) {
            (StoreKind::Sum(_), Sums::Rows { .. }) if tiling.chunks > 1 => {
                tiling.groups * tiling.chunks * tiling.sum_width()
            }
            (StoreKind::Sum(_), Sums::Nested { .. }) if !direct => {
                tiling.groups * tiling.chunks * tiling.sum_width()
            }
            _ => 0,
        }
    }

    fn add_sums(&mut self, map: &Map, cells: &mut Cells) {
        let mut start = 0;
        for sum in &mut self.sums {
            sum.registers = [cells.fresh(), cells.fresh(), cells.fresh()];
            let partials = Self::partials(map, &self.tiling, &map.stores[sum.output.operand]);
            sum.partials = (partials > 0).then_some(start);
            start += partials;
        }
    }
}

/// Numbers of cells, given out and taken back.
#[derive(Default)]
struct Cells {
    /// Cells are never taken back.
    apart: bool,
    free: Vec<usize>,
    count: usize,
}

impl Cells {
    fn fresh(&mut self) -> usize {
        self.count += 1;
        self.count - 1
    }

    fn take(&mut self, phase: Phase) -> usize {
        match (phase, self.free.pop()) {
            (Phase::Block, Some(cell)) => cell,
            (_, back) => {
                self.free.extend(back);
                self.fresh()
            }
        }
    }
}

struct Lowering<'a> {
    map: &'a Map,
    plan: &'a mut Plan,
    cells: &'a mut Cells,
    /// Cell and phase of each value that was computed.
    values: Vec<Option<(usize, Phase)>>,
}

impl Lowering<'_> {
    fn run(mut self) {
        let last = self.last_uses();
        for (at, &instr) in self.map.code.iter().enumerate() {
            // Reads wait until their first use, so that registers are held for a short time.
            if last[at].is_some() && !is_read(instr) {
                self.compute(at);
                for operand in instr.operands() {
                    self.release(operand, at, &last);
                }
            }
        }
        for (operand, store) in self.map.stores.iter().enumerate() {
            let (cell, _) = self.compute(store.value);
            let output = Output {
                operand,
                dtype: store.dtype,
                cell,
            };
            match store.kind {
                StoreKind::Full => self.plan.full.push(output),
                StoreKind::Sum(_) => self.plan.sums.push(Sum {
                    output,
                    registers: [0; 3],
                    partials: None,
                    chained: false,
                }),
            }
        }
    }

    /// The last instruction that uses each value; later than all if it is stored; `None` if nothing needs it.
    fn last_uses(&self) -> Vec<Option<usize>> {
        let code = &self.map.code;
        let mut last = vec![None; code.len()];
        self.map
            .stores
            .iter()
            .for_each(|store| last[store.value] = Some(code.len()));
        for (at, &instr) in code.iter().enumerate().rev() {
            if last[at].is_some() {
                instr
                    .operands()
                    .for_each(|operand| last[operand] = last[operand].max(Some(at)));
            }
        }
        last
    }

    /// The cell of a value; emits what computes it, unless that was done.
    fn compute(&mut self, at: usize) -> (usize, Phase) {
        if let Some(value) = self.values[at] {
            return value;
        }
        let instr = self.map.code[at];
        let mut phase = Phase::Once;
        for operand in instr.operands() {
            phase = phase.max(self.compute(operand).1);
        }
        let cell_of = |value: usize| self.values[value].map_or(0, |(cell, _)| cell);
        let op = match instr {
            Instr::Load(_) | Instr::Iota(_) => {
                let read = self.read(at, instr);
                phase = self.phase_of(&read.access);
                self.plan.reads.push(read);
                Op::Read(self.plan.reads.len() - 1)
            }
            Instr::Const(bits) => Op::Const(f64::from_bits(bits)),
            Instr::Unary(f, x) => Op::Unary(f, cell_of(x)),
            Instr::Binary(f, x, y) => Op::Binary(f, cell_of(x), cell_of(y)),
            Instr::Select(c, x, y) => Op::Select(cell_of(c), cell_of(x), cell_of(y)),
        };
        let cell = self.cells.take(phase);
        let actions = if phase == Phase::Once {
            &mut self.plan.once
        } else {
            &mut self.plan.block
        };
        actions.push(Action { op, cell });
        self.values[at] = Some((cell, phase));
        (cell, phase)
    }

    fn read(&self, at: usize, instr: Instr) -> Read {
        let extents = &self.map.extents;
        let unit = |axis| {
            (0..extents.len())
                .map(|other| usize::from(other == axis))
                .collect::<Vec<_>>()
        };
        let (source, access) = match instr {
            Instr::Load(i) => {
                let load = &self.map.loads[i];
                (
                    Source::Input(i, load.dtype),
                    Access::new(extents, &load.strides),
                )
            }
            Instr::Iota(axis) => (Source::Index, Access::new(extents, &unit(axis))),
            _ => unreachable!("not a read"),
        };
        let stored = self.map.stores.iter().any(|store| store.value == at);
        Read {
            source,
            access,
            place: if stored { Place::Copied } else { Place::Steps },
        }
    }

    fn phase_of(&self, access: &Access) -> Phase {
        let repeats = !self.cells.apart && self.plan.tiling.repeats(access);
        if access.is_uniform() || repeats {
            Phase::Once
        } else {
            Phase::Block
        }
    }

    fn release(&mut self, value: usize, at: usize, last: &[Option<usize>]) {
        let Some((cell, Phase::Block)) = self.values[value] else {
            return;
        };
        if !self.cells.apart && last[value] == Some(at) && !self.cells.free.contains(&cell) {
            self.cells.free.push(cell);
        }
    }
}

fn is_read(instr: Instr) -> bool {
    matches!(instr, Instr::Load(_) | Instr::Iota(_))
}

/// Visits of an element in memory that a point costs, roughly: what a thread hand-off is weighed against.
fn work(map: &Map) -> f64 {
    let additions = map.code.iter().map(Instr::cost).sum::<usize>();
    additions as f64 / 5.0 + map.stores.len() as f64
}
