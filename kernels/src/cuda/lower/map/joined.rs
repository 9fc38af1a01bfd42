//! Maps that share a launch: side by side, each on blocks of its own; or in turn, on one block for all.
//!
//! ```text
//! strand = the one that the block belongs to      // its end and the place of its numbers are parameters
//! for (part of strand)                            // more than one only where a single block does them in turn
//!     for (block of part) what that block does in the map's own launch
//! ```
//!
//! So results have the bits that they have alone. Strands of equal shapes share their code.

use super::numbers::{Numbers, Start};
use super::ptx::{Kind, Reg, Text};
use super::sums::ROUND;
use super::{Launch, Shape, THREADS};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The maps of a launch, strand by strand: all that its code depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) struct Maps(Vec<Vec<Shape>>);

impl Launch {
    /// Joins launches of one map each: strands side by side, the maps of each in turn.
    pub(in crate::cuda) fn joined(mut strands: Vec<Vec<&Self>>) -> Self {
        // The same code, in whichever order a program has them.
        strands.sort_by_key(|strand| names(strand));
        let mut numbers = Numbers::default();
        let (mut blocks, mut place) = (0, 8 * strands.len());
        for strand in &strands {
            blocks += if strand.len() > 1 {
                1
            } else {
                strand[0].blocks
            };
            numbers.word(blocks as usize);
            numbers.word(place);
            place += arguments(strand).len();
        }
        for strand in &strands {
            numbers.append(&arguments(strand));
        }
        let maps = Maps(strands.iter().map(|strand| shapes(strand)).collect());
        Self {
            function: maps.name(),
            blocks,
            threads: THREADS as u32,
            shared: 0,
            args: numbers.into_bytes(),
            maps: Some(Arc::new(maps)),
        }
    }
}

fn names<'a>(strand: &[&'a Launch]) -> Vec<&'a str> {
    strand.iter().map(|part| part.function.as_str()).collect()
}

fn shapes(strand: &[&Launch]) -> Vec<Shape> {
    let maps = strand.iter().filter_map(|part| part.maps.as_ref());
    maps.flat_map(|maps| maps.0.concat()).collect()
}

/// The parameters of a strand: of several maps their blocks first, then those of each.
fn arguments(strand: &[&Launch]) -> Vec<u8> {
    let mut numbers = Numbers::default();
    if strand.len() > 1 {
        let blocks = strand.iter().map(|part| part.blocks as usize);
        blocks.for_each(|blocks| numbers.word(blocks));
    }
    for part in strand {
        numbers.append(&part.args);
    }
    numbers.into_bytes()
}

impl Maps {
    /// A map that has a launch for itself.
    pub(super) fn alone(shape: Shape) -> Self {
        Self(vec![vec![shape]])
    }

    /// A name that no others have, but by a chance of 2⁻⁶⁴; the same in every process.
    pub(in crate::cuda) fn name(&self) -> String {
        if let [strand] = &self.0[..]
            && let [shape] = &strand[..]
        {
            return shape.name();
        }
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("map_joined_{:016x}", hasher.finish())
    }

    /// The kernel, in PTX.
    pub(in crate::cuda) fn kernel(&self) -> String {
        let mut text = Text::default();
        let block = text.value(Kind::B32, "mov.u32", "%ctaid.x");
        let bytes = match &self.0[..] {
            [strand] if strand.len() == 1 => {
                let start = Start { base: None, at: 0 };
                strand[0].write(&mut text, block, start)
            }
            _ => self.write(&mut text, block),
        };
        let mut kernel = format!(
            ".visible .entry {}(.param .u64 slots, .param .align 8 .b8 numbers[{bytes}])\n.maxntid {THREADS}, 1, 1\n{{\n",
            self.name(),
        );
        let sums = self.0.iter().flatten().filter(|shape| shape.sum.is_some());
        if let Some(most) = sums.map(|shape| shape.sums.len().min(ROUND)).max() {
            let bytes = 4 * (most * THREADS + 1);
            let _ = writeln!(kernel, "    .shared .align 4 .b8 shared[{bytes}];");
        }
        kernel + &text.body() + "    ret;\n}\n"
    }

    /// Writes the way from a block of the launch to its strand, and all strands. Returns the bytes of the parameters.
    fn write(&self, text: &mut Text, of_launch: Reg) -> usize {
        let numbers = text.value(Kind::B64, "mov.u64", "numbers");
        let (block, base) = (text.register(Kind::B32), text.register(Kind::B64));
        let labels: Vec<_> = self.0.iter().map(|_| text.label()).collect();
        let same = |strand| self.0.iter().position(|other| other == strand);
        let mut first = None;
        for (i, strand) in self.0.iter().enumerate() {
            let at = 8 * i;
            let next = text.label();
            let end = (i + 1 < self.0.len())
                .then(|| text.value(Kind::B32, "ld.param.u32", format_args!("[numbers+{at}]")));
            if let Some(end) = end {
                let beyond = text.flag("ge.u32", of_launch, end);
                text.line(format_args!("@{beyond} bra {next}"));
            }
            let place = format!("[numbers+{}]", at + 4);
            let place = text.value(Kind::B32, "ld.param.u32", place);
            text.line(format_args!("mad.wide.u32 {base}, {place}, 1, {numbers}"));
            match first {
                None => text.line(format_args!("mov.u32 {block}, {of_launch}")),
                Some(first) => text.line(format_args!("sub.u32 {block}, {of_launch}, {first}")),
            }
            let code = labels[same(strand).unwrap_or(i)];
            text.line(format_args!("bra {code}"));
            text.here(next);
            first = end;
        }
        let done = text.label();
        let mut sizes = Vec::with_capacity(self.0.len());
        for (i, strand) in self.0.iter().enumerate() {
            let size = match same(strand) {
                Some(earlier) if earlier < i => sizes[earlier],
                _ => {
                    text.here(labels[i]);
                    let size = write_strand(text, strand, block, base);
                    text.line(format_args!("bra {done}"));
                    size
                }
            };
            sizes.push(size);
        }
        text.here(done);
        8 * self.0.len() + sizes.iter().sum::<usize>()
    }
}

/// Writes what a block of a strand does, whose parameters begin at `base`. Returns their bytes.
fn write_strand(text: &mut Text, strand: &[Shape], block: Reg, base: Reg) -> usize {
    let start = |at| Start {
        base: Some(base),
        at,
    };
    if let [shape] = strand {
        return shape.write(text, block, start(0));
    }
    let mut at = (4 * strand.len()).next_multiple_of(8);
    for (i, shape) in strand.iter().enumerate() {
        let place = format!("[{base}+{}]", 4 * i);
        let blocks = text.value(Kind::B32, "ld.param.u32", place);
        text.line(format_args!("mov.u32 {block}, 0"));
        let again = text.label();
        text.here(again);
        at += shape.write(text, block, start(at));
        // What is written and read after it sees what was before it, in global and in shared memory.
        text.line("bar.sync 0");
        text.line(format_args!("add.u32 {block}, {block}, 1"));
        let more = text.flag("lt.u32", block, blocks);
        text.line(format_args!("@{more} bra {again}"));
    }
    at
}
