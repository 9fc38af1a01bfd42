//! The code of sums: a thread's own, those of the lanes of a block, those of the blocks that share a sum.

use super::kernel::{Index, Writer, at_point};
use super::ptx::{Kind, Label, Reg};
use super::shape::SumShape;
use super::{THREADS, values};
use crate::{Float, Instr};
use tensor::DType;

/// Sums whose lanes are added together: as many as fit 40 KiB of shared memory, at 4 bytes for each thread.
pub(super) const ROUND: usize = 40;

/// Parts of a sum that are on their way at once when a block adds them.
const PARTS: usize = 8;

/// The sizes of the sums, and where a thread stands among them.
struct Place {
    thread: Reg,
    /// How many kept points there are.
    kept_count: Reg,
    /// The thread's kept point, or the last one if it has none.
    kept: Reg,
    /// Whether the thread has a kept point.
    exists: Reg,
    /// Threads that share a sum.
    lanes: Reg,
    /// Which of them this thread is.
    lane: Reg,
    /// Bytes of shared memory from a lane to the next.
    apart: Reg,
    /// The number of the block among those that share its sums.
    chunk: Reg,
    /// How many blocks share a sum.
    chunks: Reg,
    /// The number of the block's kept points among those of all blocks.
    block: Reg,
    /// The reduced points of the block.
    begin: Reg,
    end: Reg,
}

impl Writer<'_> {
    pub(super) fn sum(&mut self, sum: SumShape) {
        let at = self.place(sum);
        self.read_places();
        let parts = sum
            .split
            .then(|| [(); 2].map(|()| self.numbers.place(&mut self.text)));
        self.go_to_kept(at.kept);
        let zero = |_| values::constant(&mut self.text, 0.0, Float::F32);
        let totals: Vec<Reg> = self.shape.sums.iter().map(zero).collect();
        self.add_own(&at, &totals);
        self.add_lanes(&at, &totals);
        if let Some([parts, counters]) = parts {
            self.add_blocks(&at, &totals, parts, counters);
        }
        self.write_sums(&at, &totals);
    }

    fn place(&mut self, sum: SumShape) -> Place {
        let (text, numbers) = (&mut self.text, &mut self.numbers);
        let blocks = numbers.divisor(text);
        let [
            kept_count,
            reduce,
            size,
            chunks,
            lanes,
            lane_bits,
            column_bits,
        ] = [(); 7].map(|()| numbers.word(text));
        let thread = text.value(Kind::B32, "mov.u32", "%tid.x");
        let [chunk, block] = blocks.split(text, self.block);
        // Neighbouring threads go along the axis that is contiguous in memory.
        let (inner, bits) = if sum.lanes_inner {
            (lanes, lane_bits)
        } else {
            (text.word("shl.b32", 1, column_bits), column_bits)
        };
        let mask = text.word("sub.u32", inner, 1);
        let [low, high] = [
            text.word("and.b32", thread, mask),
            text.word("shr.u32", thread, bits),
        ];
        let [lane, column] = if sum.lanes_inner {
            [low, high]
        } else {
            [high, low]
        };
        let apart = if sum.lanes_inner {
            text.value(Kind::B32, "mov.u32", 4)
        } else {
            text.word("shl.b32", inner, 2)
        };
        let first = text.word("shl.b32", block, column_bits);
        let own = text.word("add.u32", first, column);
        let exists = text.flag("lt.u32", own, kept_count);
        let last = text.word("sub.u32", kept_count, 1);
        let kept = text.word("min.u32", own, last);
        let begin = text.word("mul.lo.u32", chunk, size);
        let end = text.word("add.u32", begin, size);
        let end = text.word("min.u32", end, reduce);
        // A thread without a sum has no points.
        let end = text.value(
            Kind::B32,
            "selp.b32",
            format_args!("{end}, {begin}, {exists}"),
        );
        Place {
            thread,
            kept_count,
            kept,
            exists,
            lanes,
            lane,
            apart,
            chunk,
            chunks,
            block,
            begin,
            end,
        }
    }

    /// Moves every view to the thread's kept point.
    fn go_to_kept(&mut self, kept: Reg) {
        let index = self.indices(&[kept], true);
        let shape = self.shape;
        for (view, form) in shape.views.iter().enumerate() {
            let strides = std::mem::take(&mut self.views[view].kept);
            let offset = self.offset(&form.kept, &strides, &index[0]);
            match (self.views[view].base, form.dtype) {
                (Some(base), Some(dtype)) => {
                    self.views[view].base = Some(self.element(base, dtype, offset));
                }
                _ => self.views[view].start = offset,
            }
        }
    }

    /// Adds the points of this thread, and writes the element-wise results.
    fn add_own(&mut self, at: &Place, totals: &[Reg]) {
        self.evaluate_still();
        let fixed = self.values.clone();
        let count = self.shape.points;
        let (round, done) = (self.text.label(), self.text.label());
        let first = self.text.word("add.u32", at.begin, at.lane);
        let step = self.text.word("mul.lo.u32", at.lanes, count);
        self.text.here(round);
        let over = self.text.flag("ge.u32", first, at.end);
        self.text.line(format_args!("@{over} bra {done}"));
        let mut points = vec![first];
        self.exist.clear();
        for i in 1..count {
            let next = self.text.word("add.u32", points[i - 1], at.lanes);
            points.push(next);
        }
        for next in &mut points[1..] {
            // A point that does not exist is replaced by the first one, and counts for nothing.
            let exists = self.text.flag("lt.u32", *next, at.end);
            let operands = format!("{next}, {first}, {exists}");
            *next = self.text.value(Kind::B32, "selp.b32", operands);
            self.exist.push(exists);
        }
        let points = self.indices(&points, false);
        self.evaluate(&points);
        self.store_beside(&points);
        for (sum, &total) in self.shape.sums.iter().zip(totals) {
            let terms = self.values[sum.value].clone().expect("computed before");
            for i in 0..count {
                let term = at_point(&terms, i);
                let guard = i
                    .checked_sub(1)
                    .map_or(String::new(), |i| format!("@{} ", self.exist[i]));
                self.text
                    .line(format_args!("{guard}add.rn.f32 {total}, {total}, {term}"));
            }
        }
        self.text
            .line(format_args!("add.u32 {first}, {first}, {step}"));
        self.text.line(format_args!("bra {round}"));
        self.text.here(done);
        self.values = fixed;
    }

    /// Computes, before the loop, the constants and what is equal for all reduced points.
    fn evaluate_still(&mut self) {
        // Which points they are makes no difference.
        let any = self.text.value(Kind::B32, "mov.u32", 0);
        let points = self.indices(&vec![any; self.shape.points], false);
        for (at, &instr) in self.shape.code.iter().enumerate() {
            let still = match instr {
                Instr::Load(view) | Instr::Iota(view) => self.shape.views[view].reduced.is_still(),
                _ => instr
                    .operands()
                    .all(|operand| self.values[operand].is_some()),
            };
            if still {
                self.values[at] = Some(self.instruction(at, &points));
            }
        }
    }

    /// Writes the element-wise results of a thread's points.
    fn store_beside(&mut self, points: &[Index]) {
        let shape = self.shape;
        for store in &shape.stores {
            let view = store.view.expect("beside sums, stores are views");
            let base = self.views[view].base.expect("an array");
            let offsets = self.offsets(view, points);
            let values = self.values[store.value].clone().expect("computed before");
            for i in 0..shape.points {
                let value = at_point(&values, i);
                let offset = offsets[i.min(offsets.len() - 1)];
                let address = self.element(base, store.dtype, offset);
                let exists = i.checked_sub(1).map(|i| self.exist[i]);
                let place = address.to_string();
                values::store(
                    &mut self.text,
                    store.dtype,
                    &place,
                    value,
                    shape.float,
                    exists,
                );
            }
        }
    }

    /// Adds the sums of the lanes in halves, through shared memory; lane 0 has the whole then.
    fn add_lanes(&mut self, at: &Place, totals: &[Reg]) {
        let text = &mut self.text;
        let shared = text.value(Kind::B32, "mov.u32", "shared");
        let operands = format!("{}, 4, {shared}", at.thread);
        let mine = text.value(Kind::B32, "mad.lo.u32", operands);
        for (i, totals) in totals.chunks(ROUND).enumerate() {
            if i > 0 {
                text.line("bar.sync 0");
            }
            for (s, total) in totals.iter().enumerate() {
                text.line(format_args!(
                    "st.shared.f32 [{mine}+{}], {total}",
                    4 * THREADS * s
                ));
            }
            let (round, skip, done) = (text.label(), text.label(), text.label());
            let half = text.word("shr.u32", at.lanes, 1);
            text.here(round);
            let over = text.flag("eq.u32", half, 0);
            text.line(format_args!("@{over} bra {done}"));
            text.line("bar.sync 0");
            let upper = text.flag("ge.u32", at.lane, half);
            text.line(format_args!("@{upper} bra {skip}"));
            let operands = format!("{half}, {}, {mine}", at.apart);
            let other = text.value(Kind::B32, "mad.lo.u32", operands);
            for (s, total) in totals.iter().enumerate() {
                let offset = 4 * THREADS * s;
                let more = text.value(
                    Kind::F32,
                    "ld.shared.f32",
                    format_args!("[{other}+{offset}]"),
                );
                text.line(format_args!("add.rn.f32 {total}, {total}, {more}"));
                text.line(format_args!("st.shared.f32 [{mine}+{offset}], {total}"));
            }
            text.here(skip);
            text.line(format_args!("shr.u32 {half}, {half}, 1"));
            text.line(format_args!("bra {round}"));
            text.here(done);
        }
    }

    /// Jumps over what only the threads that have a whole sum do, to a label that the caller puts behind it.
    fn skip_others(&mut self, at: &Place) -> Label {
        let text = &mut self.text;
        let behind = text.label();
        let others = text.flag("ne.u32", at.lane, 0);
        text.line(format_args!("@{others} bra {behind}"));
        text.line(format_args!("@!{} bra {behind}", at.exists));
        behind
    }

    /// Where the parts of a chunk are, one of each sum.
    fn parts_of(&mut self, at: &Place, chunk: Reg, parts: Reg, per_sum: Reg) -> Vec<Reg> {
        let sums = self.shape.sums.len();
        let operands = format!("{chunk}, {}, {}", at.kept_count, at.kept);
        let mut place = self.text.value(Kind::B32, "mad.lo.u32", operands);
        let address = |s| {
            if s > 0 {
                place = self.text.word("add.u32", place, per_sum);
            }
            self.element(parts, DType::F32, Some(place))
        };
        (0..sums).map(address).collect()
    }

    /// Writes the block's parts; the last block of those that share sums adds them all, in their order.
    fn add_blocks(&mut self, at: &Place, totals: &[Reg], parts: Reg, counters: Reg) {
        let words = self.shape.sums.len().min(ROUND) * THREADS;
        let per_sum = self.text.word("mul.lo.u32", at.chunks, at.kept_count);
        let counter = self.element(counters, DType::U32, Some(at.block));
        let written = self.skip_others(at);
        let own = self.parts_of(at, at.chunk, parts, per_sum);
        for (address, total) in own.iter().zip(totals) {
            self.text
                .line(format_args!("st.global.f32 [{address}], {total}"));
        }
        let (text, end) = (&mut self.text, self.end);
        let counted = text.label();
        text.here(written);
        text.line("membar.gl");
        text.line("bar.sync 0");
        let first = text.flag("ne.u32", at.thread, 0);
        text.line(format_args!("@{first} bra {counted}"));
        let most = text.word("sub.u32", at.chunks, 1);
        // The counter is 0 again after the last one.
        let before = text.value(
            Kind::B32,
            "atom.global.inc.u32",
            format_args!("[{counter}], {most}"),
        );
        let shared = text.value(Kind::B32, "mov.u32", "shared");
        text.line(format_args!(
            "st.shared.u32 [{shared}+{}], {before}",
            4 * words
        ));
        text.here(counted);
        text.line("bar.sync 0");
        let shared = text.value(Kind::B32, "mov.u32", "shared");
        let before = text.value(
            Kind::B32,
            "ld.shared.u32",
            format_args!("[{shared}+{}]", 4 * words),
        );
        let most = text.word("sub.u32", at.chunks, 1);
        let others = text.flag("ne.u32", before, most);
        text.line(format_args!("@{others} bra {end}"));
        text.line("membar.gl");
        self.add_parts(at, totals, parts, per_sum);
        self.add_lanes(at, totals);
    }

    /// Adds the parts of the chunks lane, lane + lanes, ….
    fn add_parts(&mut self, at: &Place, totals: &[Reg], parts: Reg, per_sum: Reg) {
        let mut text = &mut self.text;
        for total in totals {
            text.line(format_args!("mov.f32 {total}, 0f00000000"));
        }
        let count = if totals.len() > PARTS { 1 } else { PARTS };
        let (round, done) = (text.label(), text.label());
        let chunk = text.value(Kind::B32, "mov.u32", at.lane);
        text.here(round);
        let over = text.flag("ge.u32", chunk, at.chunks);
        text.line(format_args!("@{over} bra {done}"));
        let mut terms = Vec::new();
        for _ in 0..count {
            let exists = text.flag("lt.u32", chunk, at.chunks);
            let places = self.parts_of(at, chunk, parts, per_sum);
            text = &mut self.text;
            for (address, &total) in places.into_iter().zip(totals) {
                let part = text.register(Kind::F32);
                // Past the first-level cache, which does not see what other blocks write.
                text.line(format_args!(
                    "@{exists} ld.global.cg.f32 {part}, [{address}]"
                ));
                terms.push((exists, total, part));
            }
            text.line(format_args!("add.u32 {chunk}, {chunk}, {}", at.lanes));
        }
        for (exists, total, part) in terms {
            text.line(format_args!(
                "@{exists} add.rn.f32 {total}, {total}, {part}"
            ));
        }
        text.line(format_args!("bra {round}"));
        text.here(done);
    }

    /// Writes the sums: lane 0 has them.
    fn write_sums(&mut self, at: &Place, totals: &[Reg]) {
        let shape = self.shape;
        let done = self.skip_others(at);
        let outputs = self.outputs.clone();
        for ((sum, &total), base) in shape.sums.iter().zip(totals).zip(outputs) {
            let address = self.element(base, sum.dtype, Some(at.kept));
            values::store(
                &mut self.text,
                sum.dtype,
                &address.to_string(),
                total,
                Float::F32,
                None,
            );
        }
        self.text.here(done);
    }
}
