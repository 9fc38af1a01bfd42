//! Launches of fused element-wise programs. The code of each is written here, as PTX, and compiled by the driver
//! when it is first needed: see [`kernel`] for what a kernel does, [`shape`] for what maps share one.

mod kernel;
mod numbers;
mod ptx;
mod shape;
mod space;
mod sums;
mod values;

use super::{Launch, Lowering, word};
use crate::cuda::args::Divisor;
use crate::{Binary, Float, Instr, Map, Store, Unary};
use numbers::Numbers;
pub(in crate::cuda) use shape::Shape;
use shape::SumShape;
use space::{Run, Space, Steps, View, flags};
use std::sync::Arc;

/// Threads of a block: also the most that share a sum.
const THREADS: usize = 256;

/// Blocks that sums are shared out to, about: four on each multiprocessor of a large device.
const BLOCKS: usize = 528;

/// Bytes of parameters that a launch takes beside the table of slots.
const PARAMETERS: usize = 4096 - 8;

/// How the sums of a map are taken: a function of the extents and flags alone.
#[derive(Clone, Copy, Debug)]
struct Sums {
    kept: usize,
    reduce: usize,
    /// Threads that share a sum, a power of two; whether the summed axes hold the innermost one.
    lanes: usize,
    lanes_inner: bool,
    /// Points of a sum that a block adds, and blocks that share a sum.
    chunk: usize,
    chunks: usize,
}

impl Sums {
    fn of(map: &Map) -> Option<Self> {
        let flags = flags(map)?;
        if map.points() == 0 || map.points() > super::MOST {
            return None;
        }
        let along = |summed: bool| -> usize {
            let axes = map.extents.iter().zip(flags);
            axes.filter(|&(_, &flag)| flag == summed)
                .map(|(&n, _)| n)
                .product()
        };
        let (kept, reduce) = (along(false), along(true));
        let innermost = map.extents.iter().zip(flags).rev().find(|&(&n, _)| n != 1);
        let lanes_inner = innermost.is_none_or(|(_, &flag)| flag);
        let wanted = reduce.div_ceil(4).next_power_of_two();
        let lanes = if lanes_inner {
            wanted.min(THREADS)
        } else {
            wanted.min(THREADS / kept.next_power_of_two().min(32))
        };
        let blocks = kept.div_ceil(THREADS / lanes);
        let chunks = (BLOCKS / blocks).min(reduce / (16 * lanes)).max(1);
        let chunk = reduce.div_ceil(chunks).next_multiple_of(4 * lanes);
        Some(Self {
            kept,
            reduce,
            lanes,
            lanes_inner,
            chunk,
            chunks: reduce.div_ceil(chunk),
        })
    }

    fn blocks(&self) -> usize {
        self.kept.div_ceil(THREADS / self.lanes)
    }

    fn shape(&self) -> SumShape {
        SumShape {
            lanes_inner: self.lanes_inner,
            split: self.chunks > 1,
        }
    }
}

/// Whether anything is done that copies of integers in f64 do not need.
fn computes(instr: &Instr) -> bool {
    match instr {
        Instr::Unary(f, _) => !matches!(f, Unary::PowI(_) | Unary::Neg | Unary::Sign),
        Instr::Binary(f, ..) => *f == Binary::Pow,
        Instr::Load(_) | Instr::Const(_) | Instr::Iota(_) | Instr::Select(..) => false,
    }
}

impl Lowering<'_> {
    pub(super) fn map(&mut self, map: &Map) -> Result<Vec<Launch>, String> {
        if map.points() == 0 {
            return Ok((0..map.stores.len()).flat_map(|i| self.zero(i)).collect());
        }
        if map.points() > super::MOST {
            let (points, most) = (map.points(), super::MOST);
            return Err(format!("map: {points} points; at most {most} on CUDA"));
        }
        let sums = Sums::of(map);
        let needed = map.needed();
        let mut code = map.code.iter().zip(&needed);
        let computes = code.any(|(instr, &needed)| needed && computes(instr));
        if map.float == Float::F64 && (sums.is_some() || computes) {
            return Err("map in f64: the CUDA device computes in f32; use the CPU".into());
        }
        let space = Space::new(map, &needed);
        let mut shape = Shape::new(map, &needed, &space, sums.map(|sums| sums.shape()));
        let mut numbers = self.numbers(map, &space, sums)?;
        if numbers.bytes().len() > PARAMETERS {
            shape.table = true;
            numbers = numbers.in_table(self.tables);
        }
        let blocks = match sums {
            Some(sums) => sums.blocks() * sums.chunks,
            None => map.points().div_ceil(THREADS * shape.points),
        };
        let blocks = u32::try_from(blocks).map_err(|_| format!("map: {blocks} blocks"))?;
        Ok(vec![Launch {
            function: shape.name(),
            blocks,
            threads: THREADS as u32,
            shared: 0,
            args: numbers.into_bytes(),
            map: Some(Arc::new(shape)),
        }])
    }

    /// The parameters of a kernel, in the order in which [`kernel`] reads them.
    fn numbers(&mut self, map: &Map, space: &Space, sums: Option<Sums>) -> Result<Numbers, String> {
        let mut numbers = Numbers::default();
        match &sums {
            None => numbers.word(map.points()),
            Some(sums) => {
                let columns = THREADS / sums.lanes;
                numbers.divisor(Divisor::new(sums.blocks()));
                let sizes = [sums.kept, sums.reduce, sums.chunk, sums.chunks, sums.lanes];
                let bits = [sums.lanes, columns].map(|n| n.ilog2() as usize);
                sizes.into_iter().chain(bits).for_each(|n| numbers.word(n));
            }
        }
        for run in [&space.kept, &space.reduced] {
            if !run.even() {
                let outer = run.extents.len() - 1;
                let inner = run.extents[..outer].iter();
                inner.for_each(|&extent| numbers.divisor(Divisor::new(extent)));
            }
        }
        for (i, view) in space.views.iter().enumerate() {
            match *view {
                View::Load(load) => numbers.place(self.input(load)),
                View::Iota(_) => {}
                View::Store(store) => numbers.place(self.output(store)),
            }
            for run in [&space.kept, &space.reduced] {
                strides(run, i).for_each(|stride| numbers.word(stride));
            }
        }
        let alone = |store: &Store| store.is_sum() || sums.is_none();
        let stores = map.stores.iter().enumerate();
        for (i, _) in stores.filter(|(_, store)| alone(store)) {
            numbers.place(self.output(i));
        }
        if let Some(sums) = sums.filter(|sums| sums.chunks > 1) {
            let count = map.stores.iter().filter(|store| store.is_sum()).count();
            numbers.place(self.scratch.partials(count * sums.chunks * sums.kept)?);
            numbers.place(self.scratch.counters(sums.blocks()));
        }
        Ok(numbers)
    }
}

/// The strides of a view that are parameters.
fn strides(run: &Run, view: usize) -> impl Iterator<Item = usize> {
    let strides = match &run.steps[view] {
        Steps::Even(stride) => vec![*stride],
        Steps::Axes(strides) => strides.clone(),
    };
    strides.into_iter().filter(|&stride| stride > 1)
}
