//! Launches of fused element-wise programs: see `map.cu`.

use super::{Fields, Launch, Lowering};
use crate::{Binary, Float, Instr, Load, Map, Store, StoreKind, Unary};
use tensor::DType;

/// Threads of a block.
const THREADS: usize = 128;

/// Axes of an access, at most: `RANK`.
const RANK: usize = 10;

/// The cell of a value that needs none, and of a first operand that is the value of the instruction before.
const NOWHERE: usize = 0xFFFF;

/// Loads for which nothing is looked up: `STREAM` and `SAME` in `map.cu`.
const STREAM: usize = 23;
const SAME: usize = 24;

/// Bytes of cells up to which four points are evaluated at once: what needs no opting in.
const SHARED: usize = 48 << 10;

/// Bytes of cells at most: what a block can have on every device that is served (on 8.6 and 8.9 no more).
const MOST_SHARED: usize = 99 << 10;

/// Points below which a thread has one: a large device is not full otherwise.
const FEW: usize = 1 << 16;

/// Bytes of partial sums.
pub(super) fn workspace(map: &Map) -> usize {
    match Sums::of(map) {
        Some(sums) if sums.chunks > 1 => sums.count * sums.chunks * sums.kept * size_of::<f32>(),
        _ => 0,
    }
}

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

/// `Access` in `map.cu`: where points lie, axes with a common stride merged, innermost first.
fn access(
    map: &Map,
    array: u64,
    dtype: DType,
    strides: &[usize],
    cell: usize,
) -> Result<Fields, String> {
    let mut axes: Vec<(usize, usize)> = Vec::new();
    for axis in order(map).into_iter().rev() {
        let (extent, stride) = (map.extents[axis], strides[axis]);
        match axes.last_mut() {
            _ if extent == 1 => {}
            Some((inner, step)) if stride == *step * *inner => *inner *= extent,
            _ => axes.push((extent, stride)),
        }
    }
    if axes.len() > RANK {
        return Err(format!(
            "map: a view of {} axes; at most {RANK} on CUDA",
            axes.len()
        ));
    }
    let quads = axes.len() < 2 || axes[0].0.is_multiple_of(4);
    let mut fields = Fields::default()
        .u64(array)
        .u32(dtype_number(dtype))
        .u32(axes.len())
        .u32(usize::from(quads))
        .u32(cell);
    for &(extent, stride) in &axes {
        fields = fields.divisor(extent).u32(stride);
    }
    Ok(fields.zeros(16 * (RANK - axes.len())))
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
fn dtype_number(dtype: DType) -> usize {
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
        let args = Fields::default()
            .u64(code.instructions)
            .u64(code.accesses)
            .u64(stores)
            .u64(outs)
            .u64(self.workspace())
            .u32(code.count)
            .u32(store_count)
            .u32(split.count)
            .u32(map.points())
            .u32(split.kept)
            .u32(split.reduce)
            .u32(split.chunk)
            .u32(split.chunks)
            .u32(split.lanes.ilog2() as usize)
            .u32(usize::from(split.lanes_inner))
            .u32(sums.map_or(1, |sums| sums.blocks()))
            .u32(code.cells);
        let mut launches = vec![Launch {
            function: format!("map_{kind}_{suffix}"),
            blocks: u32::try_from(blocks).map_err(|_| format!("map: {blocks} blocks"))?,
            threads: THREADS as u32,
            shared: shared as u32,
            args: args.words(88),
        }];
        if split.chunks > 1 {
            launches.extend(self.combine(map, &split));
        }
        Ok(launches)
    }

    /// Tables of what is written for every point, and of what is summed.
    fn stores(&mut self, map: &Map, code: &Code) -> Result<(u64, usize, u64), String> {
        let (mut full, mut sums, mut count) = (Fields::default(), Fields::default(), 0);
        for (i, store) in map.stores.iter().enumerate() {
            let (array, cell) = (self.output(i), code.cell_of[store.value]);
            if store.is_sum() {
                sums = sums.u64(array).u32(dtype_number(store.dtype)).u32(cell);
            } else {
                let strides = row_major(&map.extents);
                full = full.then(&access(map, array, store.dtype, &strides, cell)?);
                count += 1;
            }
        }
        let (full, sums) = (self.tables.add(full.bytes()), self.tables.add(sums.bytes()));
        Ok((full, count, sums))
    }

    fn combine(&self, map: &Map, sums: &Sums) -> Vec<Launch> {
        let summed = map
            .stores
            .iter()
            .enumerate()
            .filter(|(_, store)| store.is_sum());
        let launch = |(at, (i, store)): (usize, (usize, &Store))| {
            let args = Fields::default()
                .u64(self.workspace())
                .u64(self.output(i))
                .u32(at * sums.chunks * sums.kept)
                .u32(sums.kept)
                .u32(sums.chunks)
                .u32(dtype_number(store.dtype));
            Launch::per_point("map_combine", sums.kept, args.words(32))
        };
        summed.enumerate().flat_map(launch).collect()
    }
}

/// The instructions of a map as the device reads them, and where values live meanwhile.
struct Code {
    instructions: u64,
    accesses: u64,
    count: usize,
    cells: usize,
    /// For every value that has one, its cell.
    cell_of: Vec<usize>,
    /// Whether anything is done that f64 copies do not need.
    computes: bool,
}

impl Code {
    fn new(lowering: &mut Lowering<'_>, map: &Map) -> Result<Self, String> {
        let needed = map.needed();
        let kept: Vec<usize> = (0..map.code.len()).filter(|&i| needed[i]).collect();
        let mut cells = Cells::new(map, &kept);
        let (mut instructions, mut accesses, mut count) = (Fields::default(), Fields::default(), 0);
        let mut computes = false;
        for (at, &value) in kept.iter().enumerate() {
            let instr = map.code[value];
            let before = at.checked_sub(1).map(|at| kept[at]);
            let operands = placed(instr, before);
            let cell = |i: usize| match operands[i] {
                Some(x) if i > 0 || Some(x) != before => cells.of[x],
                _ => NOWHERE,
            };
            let operands = [cell(0), cell(1), cell(2)];
            let (mut op, mut number, mut array) = (opcode(instr), 0, 0);
            if let Instr::Load(i) = instr {
                let load = &map.loads[i];
                array = lowering.input(i);
                op = simple(map, load).unwrap_or(op);
                accesses = accesses.then(&access(map, array, load.dtype, &load.strides, 0)?);
            } else if let Instr::Iota(axis) = instr {
                let unit: Vec<usize> = (0..map.extents.len())
                    .map(|a| usize::from(a == axis))
                    .collect();
                accesses = accesses.then(&access(map, 0, DType::F32, &unit, 0)?);
            }
            if matches!(instr, Instr::Load(_) | Instr::Iota(_)) {
                number = count;
                count += 1;
            }
            let cell = cells.assign(at, value);
            computes |= matches!(instr, Instr::Unary(f, _) if !matches!(f, Unary::Neg | Unary::Sign | Unary::PowI(_)));
            let constant = if let Instr::Const(bits) = instr {
                f64::from_bits(bits)
            } else {
                0.0
            };
            let n = match instr {
                Instr::Unary(Unary::PowI(n), _) => n,
                Instr::Const(_) => (constant as f32).to_bits().cast_signed(),
                _ => number,
            };
            instructions = instructions
                .u16(op)
                .u16(cell)
                .u16(operands[0])
                .u16(operands[1])
                .u16(operands[2])
                .u16(0)
                .i32(n)
                .u64(array)
                .f64(constant);
        }
        // The device reads one instruction ahead.
        let instructions = instructions.zeros(32);
        Ok(Self {
            instructions: lowering.tables.add(instructions.bytes()),
            accesses: lowering.tables.add(accesses.bytes()),
            count: kept.len(),
            cells: cells.count,
            cell_of: cells.of,
            computes,
        })
    }
}

/// Cells are given to values as they are computed, and are free again after the last use.
struct Cells {
    of: Vec<usize>,
    count: usize,
    free: Vec<usize>,
    /// For every value the position of its last use; the end for what is stored.
    last: Vec<usize>,
    /// Values whose last use is at a position.
    dying: Vec<Vec<usize>>,
    /// Whether a value is read from a cell at all.
    celled: Vec<bool>,
}

impl Cells {
    fn new(map: &Map, kept: &[usize]) -> Self {
        let values = map.code.len();
        let (mut last, mut celled) = (vec![0; values], vec![false; values]);
        for (at, &value) in kept.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| kept[at]);
            let operands = placed(map.code[value], before).into_iter().enumerate();
            for (i, operand) in operands.filter_map(|(i, x)| Some((i, x?))) {
                last[operand] = at;
                celled[operand] |= i > 0 || before != Some(operand);
            }
        }
        for store in &map.stores {
            last[store.value] = kept.len();
            celled[store.value] = true;
        }
        let mut dying = vec![Vec::new(); kept.len() + 1];
        kept.iter()
            .for_each(|&value| dying[last[value]].push(value));
        Self {
            of: vec![NOWHERE; values],
            count: 0,
            free: Vec::new(),
            last,
            dying,
            celled,
        }
    }

    /// The cell of the value that is computed at a position; operands that die there give theirs up first.
    fn assign(&mut self, at: usize, value: usize) -> usize {
        for &dead in &self.dying[at] {
            if self.of[dead] != NOWHERE {
                self.free.push(self.of[dead]);
            }
        }
        if !self.celled[value] || self.last[value] <= at {
            return NOWHERE;
        }
        self.of[value] = self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.of[value]
    }
}

/// The operands, that which was computed just before first where the order does not matter: only as the first
/// one it needs no cell.
fn placed(instr: Instr, before: Option<usize>) -> [Option<usize>; 3] {
    let mut operands = [None; 3];
    let places = operands.iter_mut().zip(instr.operands());
    places.for_each(|(place, x)| *place = Some(x));
    match (instr, operands) {
        (Instr::Binary(Binary::Add | Binary::Mul, ..), [x, y, z]) if y == before => [y, x, z],
        (_, operands) => operands,
    }
}

/// The instruction of a load in f32 that takes the points in their order, or is the same for all of them.
fn simple(map: &Map, load: &Load) -> Option<usize> {
    if load.dtype != DType::F32 || map.float != Float::F32 {
        return None;
    }
    let mut stride = 1;
    let (mut stream, mut same) = (true, true);
    for axis in order(map)
        .into_iter()
        .rev()
        .filter(|&axis| map.extents[axis] != 1)
    {
        stream &= load.strides[axis] == stride;
        same &= load.strides[axis] == 0;
        stride *= map.extents[axis];
    }
    if same {
        Some(SAME)
    } else {
        stream.then_some(STREAM)
    }
}

/// `Op` in `map.cu`.
fn opcode(instr: Instr) -> usize {
    match instr {
        Instr::Load(_) => 0,
        Instr::Iota(_) => 1,
        Instr::Const(_) => 2,
        Instr::Select(..) => 3,
        Instr::Unary(f, _) => match f {
            Unary::Neg => 4,
            Unary::Exp => 5,
            Unary::Log => 6,
            Unary::Sqrt => 7,
            Unary::Rsqrt => 8,
            Unary::Tanh => 9,
            Unary::Sigmoid => 10,
            Unary::Abs => 11,
            Unary::Sign => 12,
            Unary::PowI(_) => 13,
        },
        Instr::Binary(f, _, _) => match f {
            Binary::Add => 14,
            Binary::Sub => 15,
            Binary::Mul => 16,
            Binary::Div => 17,
            Binary::Max => 18,
            Binary::Min => 19,
            Binary::Less => 20,
            Binary::LessEq => 21,
            Binary::Equal => 22,
        },
    }
}
