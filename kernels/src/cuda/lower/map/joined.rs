//! Maps that share a launch. A launch has *strands* side by side, each on blocks of its own. A strand is one
//! map, or several maps in turn on a single block.
//!
//! ```text
//! strand = the one that the block belongs to      // where it ends, its numbers and its code are parameters
//! for (part of strand)                            // more than one only where a single block does them in turn
//!     for (block of part) what that block does in the map's own launch
//! ```
//!
//! So results have the bits that they have in launches of their own. Strands of equal shapes share their
//! code, however many they are.

use super::numbers::{Numbers, Start};
use super::ptx::{Kind, Reg, Text};
use super::sums::ROUND;
use super::{Launch, PARAMETERS, Shape, THREADS};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Maps of a launch, at most: more take longer to compile, for each new combination.
pub(in crate::cuda) const JOINED: usize = 8;

/// Bytes of parameters that describe a strand: the end of its blocks, where its numbers are, and which code
/// it has.
const ENTRY: usize = 12;

/// The maps of a launch: all that its code depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) enum Maps {
    Alone(Shape),
    /// Strands of different code, the maps of each in turn. A launch may have several of each.
    Joined(Vec<Vec<Shape>>),
}

impl Launch {
    /// Joins launches of one map each: strands side by side, the maps of each in turn.
    pub(in crate::cuda) fn joined(mut strands: Vec<Vec<&Self>>) -> Self {
        // Sorted, so that the code is the same in whichever order a program has these strands.
        strands.sort_by_key(|strand| names(strand));
        let mut codes = strands.clone();
        codes.dedup_by_key(|strand| names(strand));
        let mut numbers = Numbers::default();
        let (mut blocks, mut code) = (0, 0);
        let mut place = (ENTRY * strands.len()).next_multiple_of(8);
        for strand in &strands {
            blocks += if strand.len() > 1 {
                1
            } else {
                strand[0].blocks
            };
            code += usize::from(names(strand) != names(&codes[code]));
            let entry = [blocks as usize, place, code];
            entry.into_iter().for_each(|n| numbers.word(n));
            place += arguments(strand).len();
        }
        for strand in &strands {
            numbers.append(&arguments(strand));
        }
        let maps = Maps::Joined(codes.iter().map(|strand| shapes(strand)).collect());
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
    let maps = strand.iter().filter_map(|part| part.maps.as_deref());
    let shape = |maps: &Maps| match maps {
        Maps::Alone(shape) => vec![shape.clone()],
        Maps::Joined(strands) => strands.concat(),
    };
    maps.flat_map(shape).collect()
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
    /// A name that no others have, but by a chance of 2⁻⁶⁴; the same in every process.
    pub(in crate::cuda) fn name(&self) -> String {
        match self {
            Self::Alone(shape) => shape.name(),
            Self::Joined(strands) => {
                let mut hasher = DefaultHasher::new();
                strands.hash(&mut hasher);
                format!("map_joined_{:016x}", hasher.finish())
            }
        }
    }

    /// The kernel, in PTX.
    pub(in crate::cuda) fn kernel(&self) -> String {
        let mut text = Text::default();
        let block = text.value(Kind::B32, "mov.u32", "%ctaid.x");
        let (shapes, bytes) = match self {
            Self::Alone(shape) => {
                let start = Start { base: None, at: 0 };
                (vec![shape], shape.write(&mut text, block, start))
            }
            Self::Joined(strands) => (
                strands.iter().flatten().collect(),
                write_strands(&mut text, strands, block),
            ),
        };
        let mut kernel = format!(
            ".visible .entry {}(.param .u64 slots, .param .align 8 .b8 numbers[{bytes}])\n.maxntid {THREADS}, 1, 1\n{{\n",
            self.name(),
        );
        let sums = shapes.iter().filter(|shape| shape.sum.is_some());
        if let Some(most) = sums.map(|shape| shape.sums.len().min(ROUND)).max() {
            let bytes = 4 * (most * THREADS + 1);
            let _ = writeln!(kernel, "    .shared .align 4 .b8 shared[{bytes}];");
        }
        kernel + &text.body() + "    ret;\n}\n"
    }
}

/// Writes the way from a block of the launch to its strand, and what each strand does. Returns the bytes of
/// the parameters of as many strands as there may be.
fn write_strands(text: &mut Text, strands: &[Vec<Shape>], of_launch: Reg) -> usize {
    let numbers = text.value(Kind::B64, "mov.u64", "numbers");
    let entry = text.value(Kind::B64, "mov.u64", "numbers");
    let first = text.value(Kind::B32, "mov.u32", 0);
    let (search, found, done) = (text.label(), text.label(), text.label());
    text.here(search);
    let end = text.value(Kind::B32, "ld.param.u32", format_args!("[{entry}]"));
    let own = text.flag("lt.u32", of_launch, end);
    text.line(format_args!("@{own} bra {found}"));
    text.line(format_args!("mov.u32 {first}, {end}"));
    text.line(format_args!("add.u64 {entry}, {entry}, {ENTRY}"));
    text.line(format_args!("bra {search}"));
    text.here(found);
    let block = text.word("sub.u32", of_launch, first);
    let [place, code] = [4, 8].map(|at| {
        let place = format!("[{entry}+{at}]");
        text.value(Kind::B32, "ld.param.u32", place)
    });
    let operands = format!("{place}, 1, {numbers}");
    let base = text.value(Kind::B64, "mad.wide.u32", operands);
    let mut most = 0;
    for (i, strand) in strands.iter().enumerate() {
        let next = text.label();
        let other = text.flag("ne.u32", code, i);
        text.line(format_args!("@{other} bra {next}"));
        most = most.max(write_strand(text, strand, block, base));
        text.line(format_args!("bra {done}"));
        text.here(next);
    }
    text.here(done);
    let bytes = (ENTRY * JOINED).next_multiple_of(8) + most * JOINED;
    bytes.min(PARAMETERS)
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
