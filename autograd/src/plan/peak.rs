//! What holds the peak of an arena: found from the finished program, by who reads what was written last.

use super::layout::ARENA;
use super::memory::ALIGN;
use kernels::{Kernel, Operand, Step, StoreKind};
use std::ops::Range;
use tensor::Shape;

/// The launch at which the most bytes of a plan's arena are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peak {
    /// The number of the launch.
    pub launch: usize,
    /// Bytes in use there, each array rounded up to whole cache lines.
    pub bytes: usize,
    /// What uses them, the largest first.
    pub held: Vec<Held>,
}

/// An array in use, or a kernel's scratch memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The launch that made it.
    pub launch: usize,
    /// Its kernel.
    pub kernel: &'static str,
    /// The array's shape, as far as the fused loops know it; `None` for scratch memory.
    pub shape: Option<Shape>,
    /// Its size.
    pub bytes: usize,
}

/// What lies in a range of the arena from the launch that made it to the last that reads it.
struct Life {
    held: Held,
    range: Range<usize>,
    last: usize,
}

/// Everything that was ever in the arena, and which of it is not yet written over.
#[derive(Default)]
struct Lives {
    all: Vec<Life>,
    current: Vec<usize>,
}

impl Lives {
    /// The array in which a range lies is needed by a launch.
    fn read(&mut self, range: &Range<usize>, at: usize) {
        for &i in &self.current {
            let life = &mut self.all[i];
            if life.range.start <= range.start && range.end <= life.range.end {
                life.last = at;
            }
        }
    }

    /// A launch writes something new.
    fn write(&mut self, held: Held, range: Range<usize>) {
        let (all, at) = (&mut self.all, held.launch);
        self.current.retain(|&i| {
            let life = &mut all[i];
            if life.range == range && life.last == at {
                // In place: the operand's bytes are those of the result.
                life.last = at.saturating_sub(1);
            }
            life.range.end <= range.start || range.end <= life.range.start
        });
        self.current.push(all.len());
        let last = at;
        all.push(Life { held, range, last });
    }
}

/// The range of the arena in which so many bytes lie; `None` where they lie elsewhere, or there are none.
fn in_arena(operand: Operand, bytes: usize) -> Option<Range<usize>> {
    let there = operand.slot == ARENA && bytes > 0;
    there.then(|| operand.offset..operand.offset + bytes)
}

/// Looks at all launches; `shapes` are those of their first results.
pub(super) fn find(steps: &[Step], shapes: &[&Shape]) -> Peak {
    let mut lives = Lives::default();
    for (at, step) in steps.iter().enumerate() {
        let kernel = &step.kernel;
        let sizes = |arrays: Vec<(tensor::DType, usize)>| -> Vec<usize> {
            arrays.iter().map(|(dtype, n)| dtype.size() * n).collect()
        };
        let outputs = sizes(kernel.outputs());
        let ranges = |operands: &[Operand], sizes: &[usize]| -> Vec<Option<Range<usize>>> {
            let pairs = operands.iter().zip(sizes);
            pairs.map(|(&o, &bytes)| in_arena(o, bytes)).collect()
        };
        let mut read = ranges(&step.inputs, &sizes(kernel.inputs()));
        let written = ranges(&step.outputs, &outputs);
        if accumulates(kernel) {
            read.extend(written.clone());
        }
        read.iter()
            .flatten()
            .for_each(|range| lives.read(range, at));
        let held = |shape, bytes| Held {
            launch: at,
            kernel: kernel.name(),
            shape,
            bytes,
        };
        for (i, range) in written.into_iter().enumerate() {
            let Some(range) = range else { continue };
            let shape = if i == 0 {
                shapes[at].clone()
            } else {
                stored_shape(kernel, i)
            };
            lives.write(held(Some(shape), outputs[i]), range);
        }
        let scratch = kernel.workspace();
        let room = step.workspace.and_then(|o| in_arena(o, scratch));
        if let Some(range) = room {
            lives.write(held(None, scratch), range);
        }
    }
    at_the_most(steps.len(), lives.all)
}

fn at_the_most(launches: usize, lives: Vec<Life>) -> Peak {
    let alive = |life: &Life, at: usize| life.held.launch <= at && at <= life.last;
    let bytes = |at: usize| -> usize {
        let sizes = lives.iter().filter(|life| alive(life, at));
        sizes
            .map(|life| life.held.bytes.next_multiple_of(ALIGN))
            .sum()
    };
    // Of several alike the first.
    let launch = (0..launches).rev().max_by_key(|&at| bytes(at)).unwrap_or(0);
    let bytes = bytes(launch);
    let held = lives.into_iter().filter(|life| alive(life, launch));
    let mut held: Vec<Held> = held.map(|life| life.held).collect();
    held.sort_by_key(|held| std::cmp::Reverse(held.bytes));
    Peak {
        launch,
        bytes,
        held,
    }
}

fn accumulates(kernel: &Kernel) -> bool {
    match kernel {
        Kernel::MatMul(matmul) => matmul.accumulate,
        Kernel::Conv(conv) => conv.accumulate,
        _ => false,
    }
}

/// The shape of a further result: only fused loops have any.
fn stored_shape(kernel: &Kernel, output: usize) -> Shape {
    let Kernel::Map(map) = kernel else {
        return [kernel.outputs()[output].1].into();
    };
    match &map.stores[output].kind {
        StoreKind::Full => map.extents.clone().into(),
        StoreKind::Sum(flags) => {
            let kept = map
                .extents
                .iter()
                .zip(flags)
                .filter(|&(_, &summed)| !summed);
            kept.map(|(&n, _)| n).collect::<Vec<_>>().into()
        }
    }
}
