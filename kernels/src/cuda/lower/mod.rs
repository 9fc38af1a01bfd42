//! From a checked step to launches: which device functions run, on how many blocks, with what parameters.
//! Nothing here talks to a driver.

mod cut;
mod few;
mod gemm;
mod map;
mod shapes;

pub(super) use map::{JOINED, Maps, PARAMETERS};

use super::args::{Divisor, FillArgs, place, word};
use crate::bound::{Array, Bound};
use crate::{Kernel, Pair, Precision};
use bytemuck::Pod;
use std::sync::Arc;
use tensor::DType;

/// Bytes of scratch memory of the device, for the partial sums of kernels that run side by side. One takes at
/// most the two products of a pair, 12 MiB each (`cut.rs`), or 66 KiB for each sum of a map (`map/mod.rs`).
pub(super) const SCRATCH_BYTES: usize = 64 << 20;

/// Counters of blocks, which lie behind the scratch memory: many times what a launch takes (`map/mod.rs`).
pub(super) const COUNTERS: usize = 16 << 10;

/// Scratch memory as it is given out, piece after piece and round again: steps that have pieces of their own
/// need not wait for each other.
pub(super) struct Scratch {
    slot: usize,
    /// Bytes of partial sums, and counters, that were given out in this round.
    bytes: usize,
    counters: usize,
    /// What was given out since this was emptied last.
    pub(super) taken: Vec<Array>,
}

impl Scratch {
    /// The scratch memory in that slot: [`SCRATCH_BYTES`], then [`COUNTERS`] words.
    pub(super) fn new(slot: usize) -> Self {
        Self {
            slot,
            bytes: 0,
            counters: 0,
            taken: Vec::new(),
        }
    }

    fn take(&mut self, offset: usize, bytes: usize) -> u64 {
        self.taken.push(Array {
            slot: self.slot,
            offset,
            bytes,
            alignment: 4,
        });
        place(self.slot, offset)
    }

    /// Room for partial sums; those that do not fit would go over other memory.
    fn partials(&mut self, count: usize) -> Result<u64, String> {
        let bytes = (count * size_of::<f32>()).next_multiple_of(256);
        if bytes > SCRATCH_BYTES {
            return Err(format!(
                "{bytes} bytes of partial sums; at most {SCRATCH_BYTES} on CUDA"
            ));
        }
        if self.bytes + bytes > SCRATCH_BYTES {
            self.bytes = 0;
        }
        self.bytes += bytes;
        Ok(self.take(self.bytes - bytes, bytes))
    }

    /// Words that are 0 before and after a launch.
    fn counters(&mut self, count: usize) -> u64 {
        if self.counters + count > COUNTERS {
            self.counters = 0;
        }
        self.counters += count;
        let first = SCRATCH_BYTES + 4 * (self.counters - count);
        self.take(first, 4 * count)
    }
}

/// Elements of an array, at most: kernels count in 32 bits.
const MOST: usize = (1 << 31) - 1;

/// One launch of a device function.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) function: String,
    pub(super) blocks: u32,
    pub(super) threads: u32,
    /// Bytes of shared memory whose size the launch chooses.
    pub(super) shared: u32,
    /// The bytes of its struct of parameters.
    pub(super) args: Vec<u8>,
    /// If it computes maps: what its code is written from.
    pub(super) maps: Option<Arc<Maps>>,
}

impl Launch {
    pub(super) fn new(
        function: impl Into<String>,
        blocks: u32,
        threads: u32,
        args: &impl Pod,
    ) -> Self {
        Self {
            function: function.into(),
            blocks,
            threads,
            shared: 0,
            args: bytemuck::bytes_of(args).to_vec(),
            maps: None,
        }
    }

    /// A thread per point, 256 a block; no launch if there are none.
    fn per_point(function: impl Into<String>, points: usize, args: &impl Pod) -> Vec<Self> {
        match points.div_ceil(256) as u32 {
            0 => vec![],
            blocks => vec![Self::new(function, blocks, 256, args)],
        }
    }
}

/// Constants of a program that kernels read from device memory: they lie in a slot of their own.
#[derive(Debug)]
pub(super) struct Tables {
    slot: usize,
    pub(super) bytes: Vec<u8>,
}

impl Tables {
    pub(super) fn new(slot: usize) -> Self {
        Self {
            slot,
            bytes: Vec::new(),
        }
    }

    /// Where the items will lie: at a multiple of 16 bytes.
    fn add(&mut self, items: &[impl Pod]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(bytemuck::cast_slice(items));
        place(self.slot, offset)
    }
}

/// What the lowering of a step knows beside its kernel.
pub(super) struct Lowering<'a> {
    pub(super) bound: &'a Bound,
    /// Number of the step, for reports.
    pub(super) step: usize,
    pub(super) precision: Precision,
    /// Whether warpgroups multiply on its tensor cores: see `wgmma.cuh`.
    pub(super) wgmma: bool,
    pub(super) tables: &'a mut Tables,
    /// Where kernels report what is wrong with their input.
    pub(super) faults: u64,
    /// Where their partial sums lie, and where they count the blocks that are done.
    pub(super) scratch: &'a mut Scratch,
}

impl Lowering<'_> {
    fn input(&self, i: usize) -> u64 {
        place_of(self.bound.inputs[i])
    }

    fn output(&self, i: usize) -> u64 {
        place_of(self.bound.outputs[i])
    }

    /// The launches of a kernel, or why the CUDA device cannot run it.
    pub(super) fn lower(&mut self, kernel: &Kernel) -> Result<Vec<Launch>, String> {
        let name = kernel.name();
        let arrays = [kernel.inputs(), kernel.outputs()].concat();
        if arrays.iter().any(|&(dtype, _)| dtype == DType::F64) {
            return Err(format!(
                "{name} in f64: the CUDA device computes in f32; use the CPU"
            ));
        }
        if let Some((_, count)) = arrays.iter().find(|&&(_, count)| count > MOST) {
            return Err(format!(
                "{name}: an array of {count} elements; at most {MOST} on CUDA"
            ));
        }
        if kernel.is_idle() {
            return Ok(Vec::new());
        }
        match kernel {
            Kernel::Map(map) => self.map(map),
            Kernel::MatMul(spec) | Kernel::MatMulPair(Pair(spec)) => self.matmul(spec),
            Kernel::Conv(spec) | Kernel::ConvPair(Pair(spec)) => self.conv(spec),
            Kernel::Window(window) => Ok(self.window(window)),
            Kernel::Pad(pad) => self.pad(pad),
            Kernel::Concat(concat) => Ok(self.concat(concat)),
            Kernel::Take(take) => Ok(self.take(take)),
            Kernel::Rows(rows) => Ok(self.rows(rows)),
            Kernel::ArgMax(arg) => Ok(self.argmax(arg)),
            Kernel::Random(random) => Ok(self.random(random)),
            Kernel::Reversible(spec) => Ok(self.reversible(spec)),
        }
    }

    /// Sets an output to zero.
    fn zero(&self, output: usize) -> Vec<Launch> {
        let bytes = self.bound.outputs[output].bytes;
        let args = FillArgs {
            output: self.output(output),
            bytes: bytes as u64,
        };
        Launch::per_point("fill_zero", bytes, &args)
    }
}

fn place_of(array: Array) -> u64 {
    place(array.slot, array.offset)
}
