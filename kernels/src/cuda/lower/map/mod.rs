//! Launches of fused element-wise programs: see `map.cu`.

mod code;

use super::{Divisor, Launch, Lowering, word};
use crate::{Float, Map, Store, StoreKind};
use bytemuck::{Pod, Zeroable};
use code::Code;
use tensor::DType;

/// Threads of a block.
const THREADS: usize = 128;

/// Axes of an access, at most: `RANK`.
const RANK: usize = 10;

/// Bytes of cells up to which four points are evaluated at once: what needs no opting in.
const SHARED: usize = 48 << 10;

/// Bytes of cells at most: what a block can have on every device that is served (on 8.6 and 8.9 no more).
const MOST_SHARED: usize = 99 << 10;

/// Points below which a thread has one: a large device is not full otherwise.
const FEW: usize = 1 << 16;

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Axis {
    extent: Divisor,
    stride: u32,
}

/// Where points lie in an array, axes innermost first; `cell` of a store is the cell that it writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Access {
    array: u64,
    dtype: u32,
    rank: u32,
    quads: u32,
    cell: u32,
    axes: [Axis; RANK],
}
const _: () = assert!(size_of::<Access>() == 184, "as on the device");

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Sum {
    output: u64,
    dtype: u32,
    cell: u32,
}
const _: () = assert!(size_of::<Sum>() == 16, "as on the device");

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct MapArgs {
    code: u64,
    accesses: u64,
    stores: u64,
    sums: u64,
    partials: u64,
    instructions: u32,
    store_count: u32,
    sum_count: u32,
    points: u32,
    kept: u32,
    reduce: u32,
    chunk: u32,
    chunks: u32,
    lane_bits: u32,
    lanes_inner: u32,
    blocks: u32,
    cells: u32,
}
const _: () = assert!(size_of::<MapArgs>() == 88, "as on the device");

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct MapCombineArgs {
    partials: u64,
    output: u64,
    first: u32,
    kept: u32,
    chunks: u32,
    dtype: u32,
}
const _: () = assert!(size_of::<MapCombineArgs>() == 32, "as on the device");

/// How the sums of a map are taken: a function of the extents and flags alone.
#[derive(Clone, Copy, Debug)]
struct Sums {
    count: usize,
    kept: usize,
    reduce: usize,
    /// Threads that share a sum, a power of two; whether the summed axes hold the innermost one.
    lanes: usize,
    lanes_inner: bool,
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
        let chunks = (1024 / blocks).min(reduce / (16 * lanes)).max(1);
        let chunk = reduce.div_ceil(chunks).next_multiple_of(4 * lanes);
        Some(Self {
            count: map.stores.iter().filter(|store| store.is_sum()).count(),
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

    /// How many partial sums there are, of all sums.
    fn partials(&self) -> usize {
        self.count * self.chunks * self.kept
    }
}

fn flags(map: &Map) -> Option<&[bool]> {
    map.stores.iter().find_map(|store| match &store.kind {
        StoreKind::Sum(flags) => Some(&flags[..]),
        StoreKind::Full => None,
    })
}

/// The axes in the order in which points are counted: kept ones before those that are summed.
fn order(map: &Map) -> Vec<usize> {
    let mut order: Vec<usize> = (0..map.extents.len()).collect();
    if let Some(flags) = flags(map) {
        order.sort_by_key(|&axis| flags[axis]);
    }
    order
}

impl Access {
    /// Merges axes with a common stride.
    fn new(
        map: &Map,
        array: u64,
        dtype: DType,
        strides: &[usize],
        cell: usize,
    ) -> Result<Self, String> {
        let mut merged: Vec<(usize, usize)> = Vec::new();
        for axis in order(map).into_iter().rev() {
            let (extent, stride) = (map.extents[axis], strides[axis]);
            match merged.last_mut() {
                _ if extent == 1 => {}
                Some((inner, step)) if stride == *step * *inner => *inner *= extent,
                _ => merged.push((extent, stride)),
            }
        }
        let rank = merged.len();
        if rank > RANK {
            return Err(format!(
                "map: a view of {rank} axes; at most {RANK} on CUDA"
            ));
        }
        let mut axes = [Axis::zeroed(); RANK];
        for (axis, &(extent, stride)) in axes.iter_mut().zip(&merged) {
            *axis = Axis {
                extent: Divisor::new(extent),
                stride: word(stride),
            };
        }
        Ok(Self {
            array,
            dtype: dtype_number(dtype),
            rank: word(rank),
            quads: (rank < 2 || merged[0].0.is_multiple_of(4)).into(),
            cell: word(cell),
            axes,
        })
    }
}

/// The strides of an array that has all points, in their order.
fn row_major(extents: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; extents.len()];
    let mut next = 1;
    for (stride, &extent) in strides.iter_mut().zip(extents).rev() {
        *stride = next;
        next *= extent;
    }
    strides
}

/// `DType` in `common.cuh`.
fn dtype_number(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F64 => 1,
        DType::BF16 => 2,
        DType::F16 => 3,
        DType::U8 => 4,
        DType::I32 => 5,
        DType::U32 => 6,
    }
}

impl Lowering<'_> {
    pub(super) fn map(&mut self, map: &Map) -> Result<Vec<Launch>, String> {
        if map.points() == 0 {
            return Ok((0..map.stores.len()).flat_map(|i| self.zero(i)).collect());
        }
        if map.points() > super::MOST {
            return Err(format!(
                "map: {} points; at most {} on CUDA",
                map.points(),
                super::MOST
            ));
        }
        let sums = Sums::of(map);
        let code = Code::new(self, map)?;
        let single = map.float == Float::F64;
        if single && (sums.is_some() || code.computes) {
            return Err("map in f64: the CUDA device computes in f32; use the CPU".into());
        }
        let per_thread = |points: usize| code.cells * THREADS * points * map.float.size();
        let room = sums.map_or(0, |sums| sums.count * THREADS * 4);
        let four = !single && per_thread(4) + room <= SHARED && map.points() >= FEW;
        let points = if four { 4 } else { 1 };
        let shared = per_thread(points) + room;
        if shared > MOST_SHARED {
            return Err(format!(
                "map: {} values at once; too many on CUDA",
                code.cells
            ));
        }
        let (stores, store_count, outs) = self.stores(map, &code)?;
        let kind = if sums.is_some() { "sum" } else { "full" };
        let suffix = if single {
            "f64".into()
        } else {
            points.to_string()
        };
        let blocks = sums.map_or(map.points().div_ceil(THREADS * points), |sums| {
            sums.blocks() * sums.chunks
        });
        let split = sums.unwrap_or(Sums {
            count: 0,
            kept: 0,
            reduce: 0,
            lanes: 1,
            lanes_inner: false,
            chunk: 0,
            chunks: 1,
        });
        let partials = match split.chunks {
            1 => 0,
            _ => self.partials(split.partials())?,
        };
        let args = MapArgs {
            code: code.instructions,
            accesses: code.accesses,
            stores,
            sums: outs,
            partials,
            instructions: word(code.count),
            store_count: word(store_count),
            sum_count: word(split.count),
            points: word(map.points()),
            kept: word(split.kept),
            reduce: word(split.reduce),
            chunk: word(split.chunk),
            chunks: word(split.chunks),
            lane_bits: split.lanes.ilog2(),
            lanes_inner: split.lanes_inner.into(),
            blocks: word(sums.map_or(1, |sums| sums.blocks())),
            cells: word(code.cells),
        };
        let function = format!("map_{kind}_{suffix}");
        let blocks = u32::try_from(blocks).map_err(|_| format!("map: {blocks} blocks"))?;
        let mut launches = vec![Launch {
            shared: shared as u32,
            ..Launch::new(function, blocks, THREADS as u32, &args)
        }];
        if split.chunks > 1 {
            launches.extend(self.combine(map, &split, partials));
        }
        Ok(launches)
    }

    /// Tables of what is written for every point, and of what is summed.
    fn stores(&mut self, map: &Map, code: &Code) -> Result<(u64, usize, u64), String> {
        let (mut full, mut sums) = (Vec::new(), Vec::new());
        for (i, store) in map.stores.iter().enumerate() {
            let (output, cell) = (self.output(i), code.cell_of[store.value]);
            if store.is_sum() {
                sums.push(Sum {
                    output,
                    dtype: dtype_number(store.dtype),
                    cell: word(cell),
                });
            } else {
                let strides = row_major(&map.extents);
                full.push(Access::new(map, output, store.dtype, &strides, cell)?);
            }
        }
        let table = self.tables.add(&full);
        Ok((table, full.len(), self.tables.add(&sums)))
    }

    fn combine(&self, map: &Map, sums: &Sums, partials: u64) -> Vec<Launch> {
        let summed = map
            .stores
            .iter()
            .enumerate()
            .filter(|(_, store)| store.is_sum());
        let launch = |(at, (i, store)): (usize, (usize, &Store))| {
            let args = MapCombineArgs {
                partials,
                output: self.output(i),
                first: word(at * sums.chunks * sums.kept),
                kept: word(sums.kept),
                chunks: word(sums.chunks),
                dtype: dtype_number(store.dtype),
            };
            Launch::per_point("map_combine", sums.kept, &args)
        };
        summed.enumerate().flat_map(launch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::lower::SCRATCH_BYTES;

    /// As many sums as the shared memory of a block has accumulators for.
    #[test]
    fn partial_sums_fit_the_scratch_memory() {
        let most = MOST_SHARED / (THREADS * size_of::<f32>());
        let mut largest = 0;
        for kept in (1..200).chain([1023, 1 << 14, 1 << 20]) {
            for reduce in (1..12).map(|bits| (1 << (2 * bits)) - 1) {
                for extents in [vec![kept, reduce], vec![reduce, kept]] {
                    let kind = StoreKind::Sum(extents.iter().map(|&n| n == reduce).collect());
                    let store = Store {
                        value: 0,
                        dtype: DType::F32,
                        kind,
                    };
                    let map = Map {
                        float: Float::F32,
                        extents,
                        loads: vec![],
                        code: vec![],
                        stores: vec![store; most],
                    };
                    let bytes = Sums::of(&map).map_or(0, |sums| match sums.chunks {
                        1 => 0,
                        _ => sums.partials() * size_of::<f32>(),
                    });
                    largest = bytes.max(largest);
                }
            }
        }
        assert!(largest <= SCRATCH_BYTES, "{largest}");
        assert!(largest > SCRATCH_BYTES / 2, "{largest}: less would do");
    }
}
