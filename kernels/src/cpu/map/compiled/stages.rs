//! What of a plan becomes machine code.
//!
//! A block goes through stages: reads, a chain, what the interpreter does with its results, the next chain, and so
//! on. Even stages are chains. The last is one; it writes outputs and adds to sums.

use super::vectors::Prefix;
use super::{Chain, Loop, Stream};
use crate::cpu::map::access::{Access, Walk};
use crate::cpu::map::plan::{Action, Op, Output, Place, Plan, Read, Source};
use crate::cpu::map::tiling::{LANES, Sums, Tiling, gcd};
use crate::cpu::map::{BLOCK, CELLS, ops};
use crate::cpu::simd::Simd;

/// Points of a row below which a walk by rows is not worth it.
const SHORT: usize = 8;

/// Cost of a point in a map that is one chain, as a part of what it costs the interpreter: measured on maps
/// in the second-level cache.
const FASTER: f64 = 0.3;

/// The plan with chains, if the level has them. In `plan`, every value must have a cell of its own.
pub(in crate::cpu::map) fn compile(plan: &Plan, simd: Simd) -> Option<Plan> {
    let prefix = Prefix::of(simd)?;
    let long = plan.tiling.longer().map(|tiling| Stages::new(plan, tiling));
    match long {
        Some(long) if long.needs_no_registers() => long.compile(prefix),
        _ => Stages::new(plan, plan.tiling.clone()).compile(prefix),
    }
}

/// What is known of a cell.
#[derive(Clone, Copy)]
struct Fact {
    op: Option<Op>,
    /// When it is computed.
    stage: usize,
    /// The interpreter, or a conversion, needs it in memory.
    held: bool,
    /// It is needed after its stage.
    kept: bool,
    /// How chains walk through it, if they can walk through where it lies.
    walk: Option<Walk>,
    /// They walk along one row of it again and again.
    row: bool,
}

/// Whether chains can write it.
fn is_direct(plan: &Plan, output: &Output) -> bool {
    output.dtype == plan.float.into()
}

struct Stages<'a> {
    plan: &'a Plan,
    tiling: Tiling,
    /// By cell.
    facts: Vec<Fact>,
    /// Points of a row of the loops.
    columns: usize,
    last: usize,
}

impl<'a> Stages<'a> {
    fn new(plan: &'a Plan, tiling: Tiling) -> Self {
        let nothing = Fact {
            op: None,
            stage: 0,
            held: false,
            kept: false,
            walk: None,
            row: false,
        };
        let mut stages = Self {
            plan,
            columns: tiling.block,
            tiling,
            facts: vec![nothing; CELLS],
            last: 0,
        };
        for &Action { op, cell } in &plan.once {
            let fact = &mut stages.facts[cell];
            fact.op = Some(op);
            fact.walk = Some(Walk::Scalar);
        }
        for &Action { op, cell } in &plan.block {
            let stage = stages.stage(op);
            let fact = &mut stages.facts[cell];
            (fact.op, fact.stage) = (Some(op), stage);
            stages.last = stages.last.max(stage).next_multiple_of(2);
        }
        stages.find_needs();
        stages.find_walks();
        stages
    }

    /// All is read where it lies, by one chain that writes all.
    fn needs_no_registers(&self) -> bool {
        let there = |action: &Action| match action.op {
            Op::Read(_) => self.facts[action.cell].walk.is_some(),
            _ => true,
        };
        self.last == 0
            && self.plan.block.iter().all(there)
            && self.outputs().all(|(_, _, direct)| direct)
    }

    fn compile(&self, prefix: Prefix) -> Option<Plan> {
        let mut plan = self.plan.clone();
        plan.tiling = self.tiling.clone();
        plan.columns = self.columns;
        plan.block.clear();
        for &action in &self.plan.block {
            if let Op::Read(read) = action.op {
                let place = self.place(action.cell);
                let repeats = self.tiling.repeats(&plan.reads[read].access);
                plan.reads[read].place = place;
                match place {
                    Place::Row => plan.unit.push(action),
                    Place::Whole | Place::Steps if repeats => plan.once.push(action),
                    _ => plan.block.push(action),
                }
            }
        }
        for stage in 0..=self.last {
            if stage % 2 == 1 {
                plan.block.extend(self.actions(stage));
                continue;
            }
            let body = self.body(stage)?;
            if !body.sinks.is_empty() {
                let op = Op::Chain(plan.chains.len());
                plan.block.push(Action { op, cell: 0 });
                plan.chains.push(Chain::new(body, prefix)?);
            }
        }
        plan.full.retain(|output| !is_direct(self.plan, output));
        if self.last == 0 {
            plan.work *= FASTER;
        }
        if self.has_rows() {
            plan.sums.iter_mut().for_each(|sum| sum.chained = true);
        }
        Some(plan)
    }

    fn stage(&self, op: Op) -> usize {
        let after = op.operands().map(|x| self.facts[x].stage);
        let after = after.max().unwrap_or(0);
        match op {
            Op::Read(_) => 0,
            _ if ops::has_instructions(op) => after.next_multiple_of(2),
            _ => after | 1,
        }
    }

    fn find_needs(&mut self) {
        for &Action { op, cell } in &self.plan.block {
            let stage = self.facts[cell].stage;
            for x in op.operands() {
                self.facts[x].held |= stage % 2 == 1;
                self.facts[x].kept |= self.facts[x].stage != stage;
            }
        }
        for (output, _, direct) in self.outputs() {
            let fact = &mut self.facts[output.cell];
            fact.held |= !direct;
            fact.kept |= fact.stage != self.last;
        }
    }

    fn find_walks(&mut self) {
        let (plan, tiling) = (self.plan, &self.tiling);
        let access = |action: &Action| {
            let Op::Read(read) = action.op else {
                return None;
            };
            let Read { source, access, .. } = &plan.reads[read];
            let same = matches!(source, Source::Input(_, dtype) if *dtype == plan.float.into());
            (same && !self.facts[action.cell].held).then_some((action.cell, access))
        };
        let accesses: Vec<(usize, &Access)> = plan.block.iter().filter_map(access).collect();
        self.columns = if let Sums::Rows { fold } = tiling.sums {
            (tiling.inner * fold).min(BLOCK)
        } else {
            columns(accesses.iter().map(|(_, access)| *access), tiling)
        };
        for (cell, access) in accesses {
            let fact = &mut self.facts[cell];
            fact.walk = access.walk(self.columns, tiling);
            if fact.walk.is_none() && tiling.repeats_in_units(access, self.columns) {
                (fact.walk, fact.row) = (Some(Walk::Rows { step: 0, stride: 1 }), true);
            }
        }
    }

    /// Where a read leaves its numbers.
    fn place(&self, cell: usize) -> Place {
        let fact = &self.facts[cell];
        let mut outputs = self.outputs();
        match fact.walk {
            _ if outputs.any(|(output, _, direct)| output.cell == cell && !direct) => Place::Copied,
            _ if fact.held => Place::Steps,
            None => Place::Whole,
            Some(_) if fact.row => Place::Row,
            Some(_) => Place::There,
        }
    }

    /// All that is stored, where to, and whether the last chain does it.
    fn outputs(&self) -> impl Iterator<Item = (&'a Output, Stream, bool)> + use<'a> {
        let (plan, rows) = (self.plan, self.has_rows());
        let full = plan.full.iter();
        let full = full.map(|full| (full, Stream::Output(full.operand), is_direct(plan, full)));
        let sums = plan.sums.iter().enumerate();
        full.chain(sums.map(move |(at, sum)| (&sum.output, Stream::Sum(at), rows)))
    }

    /// Chains add to sums.
    fn has_rows(&self) -> bool {
        matches!(self.tiling.sums, Sums::Rows { .. })
    }

    /// What is computed in a stage.
    fn actions(&self, stage: usize) -> impl Iterator<Item = Action> {
        let actions = self.plan.block.iter().copied();
        actions.filter(move |action| {
            self.facts[action.cell].stage == stage && !matches!(action.op, Op::Read(_))
        })
    }

    /// The loop of a stage.
    fn body(&self, stage: usize) -> Option<Loop> {
        let mut body = Loop {
            float: self.plan.float,
            columns: self.columns,
            streams: Vec::new(),
            values: Vec::new(),
            sinks: Vec::new(),
        };
        let mut values = vec![None; CELLS];
        for Action { op, cell } in self.actions(stage) {
            let value = ops::record(op, &mut body, |x, body| self.operand(x, &values, body))?;
            values[cell] = Some(value);
            if self.facts[cell].held || self.facts[cell].kept {
                body.sink(value, Stream::Cell(cell));
            }
        }
        let outputs = self.outputs().filter(|_| stage == self.last);
        for (output, stream, _) in outputs.filter(|&(_, _, direct)| direct) {
            let value = self.operand(output.cell, &values, &mut body);
            body.sink(value, stream);
        }
        Some(body)
    }

    /// The value of a cell in a loop.
    fn operand(&self, cell: usize, values: &[Option<usize>], body: &mut Loop) -> usize {
        let fact = &self.facts[cell];
        match (values[cell], fact.op) {
            (Some(value), _) => value,
            (None, Some(Op::Const(x))) => body.constant(x),
            (None, _) => body.load(cell, fact.walk.unwrap_or(Walk::Points)),
        }
    }
}

/// Points of a row of a loop without sums: some periods of what repeats, or a row of what is not contiguous.
fn columns<'a>(accesses: impl Iterator<Item = &'a Access> + Clone, tiling: &Tiling) -> usize {
    let mut uneven = accesses
        .clone()
        .filter(|access| access.walk(0, tiling).is_none());
    let whole = uneven.try_fold(1, |whole, access| {
        let period = access.repeats()?.period;
        let whole = whole / gcd(whole, period) * period;
        (whole <= BLOCK && tiling.repeats_in_units(access, period)).then_some(whole)
    });
    if let Some(whole @ 2..) = whole {
        // Short, for it is copied once a unit; long enough for a few vectors.
        return LANES.div_ceil(whole) * whole;
    }
    let rows = accesses.filter_map(Access::row);
    let rows = rows.filter(|row| (SHORT..tiling.block).contains(row));
    rows.min().unwrap_or(tiling.block)
}
