//! Launches of fused element-wise programs. The code of each is written here, as PTX, and compiled by the driver
//! when it is first needed: see [`kernel`] for what a map's code does, [`shape`] for what maps share it, [`joined`] for
//! maps that share a launch.

mod joined;
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
pub(in crate::cuda) use joined::{JOINED, Maps};
use numbers::Numbers;
use shape::{Shape, SumShape};
use space::{Run, Space, Steps, View, flags};
use std::sync::Arc;

/// Threads of a block: also the most that share a sum.
const THREADS: usize = 256;

/// Blocks among which sums are divided, about: four for each multiprocessor of a large device.
const BLOCKS: usize = 528;

/// Bytes of parameters that a launch takes beside the table of slots.
pub(in crate::cuda) const PARAMETERS: usize = 4096 - 8;

/// How the sums of a map are taken: a function of the extents and flags alone.
#[derive(Clone, Copy, Debug)]
struct Sums {
    kept: usize,
    reduce: usize,
    /// Threads that share a sum, a power of two.
    lanes: usize,
    /// Whether the summed axes hold the innermost one.
    lanes_inner: bool,
    /// Points of a sum that a block adds.
    chunk: usize,
    /// Blocks that share a sum.
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

/// Whether a map in f64 that has this instruction is refused. Moving integers, for which f64 is exact, needs
/// none of these.
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
            maps: Some(Arc::new(Maps::Alone(shape))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Load, StoreKind};
    use tensor::DType;

    /// x [n, c] · scale [c], summed over the rows if it is to be.
    fn scaled(extents: [usize; 2], sum: bool) -> Map {
        let load = |strides: [usize; 2]| Load {
            dtype: DType::F32,
            strides: strides.to_vec(),
        };
        let kind = if sum {
            StoreKind::Sum(vec![true, false])
        } else {
            StoreKind::Full
        };
        Map {
            float: Float::F32,
            extents: extents.to_vec(),
            loads: vec![load([extents[1], 1]), load([0, 1])],
            code: vec![
                Instr::Load(0),
                Instr::Load(1),
                Instr::Binary(Binary::Mul, 0, 1),
            ],
            stores: vec![Store {
                value: 2,
                dtype: DType::F32,
                kind,
            }],
        }
    }

    fn shape(map: &Map) -> Shape {
        let needed = map.needed();
        let sums = Sums::of(map).map(|sums| sums.shape());
        Shape::new(map, &needed, &Space::new(map, &needed), sums)
    }

    #[test]
    fn maps_of_other_sizes_share_their_code() {
        for sum in [false, true] {
            let one = shape(&scaled([5000, 64], sum));
            assert_eq!(one, shape(&scaled([3000, 128], sum)));
            assert_eq!(one.name(), shape(&scaled([3000, 128], sum)).name());
            // Too few points for four a thread; rows that do not come in fours.
            assert_ne!(one, shape(&scaled([50, 64], sum)));
        }
        assert_ne!(
            shape(&scaled([5000, 63], false)),
            shape(&scaled([5000, 64], false))
        );
        let mut other = scaled([5000, 64], false);
        other.code[2] = Instr::Binary(Binary::Add, 0, 1);
        assert_ne!(
            shape(&other).name(),
            shape(&scaled([5000, 64], false)).name()
        );
    }

    /// One axis where every view moves evenly; two where the scale begins again at each row.
    #[test]
    fn axes_are_merged_where_no_view_tells_them_apart() {
        let mut map = scaled([6, 4], false);
        let needed = map.needed();
        let space = Space::new(&map, &needed);
        assert_eq!(space.reduced.extents, [4, 6]);
        let expected = [Steps::Even(1), Steps::Axes(vec![1, 0])];
        assert_eq!(space.reduced.steps, expected);
        map.loads[1].strides = vec![0, 0];
        let space = Space::new(&map, &needed);
        assert_eq!(space.reduced.extents, [24]);
        assert_eq!(space.reduced.steps, [Steps::Even(1), Steps::Even(0)]);
    }

    #[test]
    fn partial_sums_of_a_map_are_few() {
        let mut largest = 0;
        for kept in (1..300).chain([1023, 1 << 14, 1 << 20]) {
            for reduce in (1..12).map(|bits| (1 << (2 * bits)) - 1) {
                for extents in [[kept, reduce], [reduce, kept]] {
                    let mut map = scaled(extents, true);
                    let flags = extents.iter().map(|&n| n == reduce).collect();
                    map.stores[0].kind = StoreKind::Sum(flags);
                    let sums = Sums::of(&map).filter(|sums| sums.chunks > 1);
                    largest = sums.map_or(0, |sums| sums.chunks * sums.kept).max(largest);
                }
            }
        }
        // 66 KiB: see `SCRATCH_BYTES`.
        assert!((12_000..17_000).contains(&largest), "{largest}");
    }
}
