//! The instructions of a map as the device reads them, and the cells that hold values meanwhile.

use super::{Access, order};
use crate::cuda::lower::Lowering;
use crate::{Binary, Float, Instr, Load, Map, Unary};
use bytemuck::{Pod, Zeroable};
use tensor::DType;

/// The cell of a value that needs none, and of a first operand that is the value of the instruction before.
const NOWHERE: usize = 0xFFFF;

/// `Op` in `map.cu`, in its order.
#[derive(Clone, Copy)]
#[repr(u16)]
enum Op {
    Load,
    Index,
    Const,
    Select,
    Neg,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Tanh,
    Sigmoid,
    TanhSlope,
    SigmoidSlope,
    Softplus,
    Log1p,
    Expm1,
    Sin,
    Cos,
    Erf,
    Erfc,
    Abs,
    Sign,
    PowI,
    Add,
    Sub,
    Mul,
    StrongMul,
    Div,
    Pow,
    Max,
    Min,
    Less,
    LessEq,
    Equal,
    /// A load of f32 in the order of points.
    Stream,
    /// A load of one f32 for all points.
    Same,
}

/// `map.cu`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Instruction {
    op: u16,
    cell: u16,
    a: u16,
    b: u16,
    c: u16,
    pad: u16,
    n: i32,
    array: u64,
    value: f64,
}
const _: () = assert!(size_of::<Instruction>() == 32, "as on the device");

/// The instructions of a map as the device reads them, and where values live meanwhile.
pub(super) struct Code {
    pub(super) instructions: u64,
    pub(super) accesses: u64,
    pub(super) count: usize,
    pub(super) cells: usize,
    /// For every value that has one, its cell.
    pub(super) cell_of: Vec<usize>,
    /// Whether anything is done that f64 copies do not need.
    pub(super) computes: bool,
}

impl Code {
    pub(super) fn new(lowering: &mut Lowering<'_>, map: &Map) -> Result<Self, String> {
        let needed = map.needed();
        let kept: Vec<usize> = (0..map.code.len()).filter(|&i| needed[i]).collect();
        let mut cells = Cells::new(map, &kept);
        let (mut instructions, mut accesses) = (Vec::new(), Vec::new());
        let mut computes = false;
        for (at, &value) in kept.iter().enumerate() {
            let instr = map.code[value];
            let before = at.checked_sub(1).map(|at| kept[at]);
            let operands = placed(instr, before);
            let cell = |i: usize| match operands[i] {
                Some(x) if i > 0 || Some(x) != before => cells.of[x],
                _ => NOWHERE,
            };
            let [a, b, c] = [0, 1, 2].map(|i| cell(i) as u16);
            let mut instruction = Instruction {
                op: op(instr) as u16,
                cell: cells.assign(at, value) as u16,
                a,
                b,
                c,
                pad: 0,
                n: 0,
                array: 0,
                value: 0.0,
            };
            match instr {
                Instr::Load(i) => {
                    let load = &map.loads[i];
                    instruction.array = lowering.input(i);
                    if let Some(op) = simple(map, load) {
                        instruction.op = op as u16;
                    }
                    instruction.n = accesses.len() as i32;
                    let (array, dtype) = (instruction.array, load.dtype);
                    accesses.push(Access::new(map, array, dtype, &load.strides, 0)?);
                }
                Instr::Iota(axis) => {
                    let mut unit = vec![0; map.extents.len()];
                    unit[axis] = 1;
                    instruction.n = accesses.len() as i32;
                    accesses.push(Access::new(map, 0, DType::F32, &unit, 0)?);
                }
                Instr::Const(bits) => {
                    instruction.value = f64::from_bits(bits);
                    instruction.n = (instruction.value as f32).to_bits().cast_signed();
                }
                Instr::Unary(Unary::PowI(n), _) => instruction.n = n,
                Instr::Unary(Unary::Neg | Unary::Sign, _) => {}
                Instr::Unary(..) => computes = true,
                Instr::Binary(Binary::Pow, ..) => computes = true,
                Instr::Binary(..) | Instr::Select(..) => {}
            }
            instructions.push(instruction);
        }
        // The device reads one instruction ahead.
        instructions.push(Instruction::zeroed());
        Ok(Self {
            instructions: lowering.tables.add(&instructions),
            accesses: lowering.tables.add(&accesses),
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
        (Instr::Binary(Binary::Add | Binary::Mul | Binary::StrongMul, ..), [x, y, z])
            if y == before =>
        {
            [y, x, z]
        }
        (_, operands) => operands,
    }
}

/// The cheaper instruction of a load of f32 that takes the points in their order, or is the same for all.
fn simple(map: &Map, load: &Load) -> Option<Op> {
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
        Some(Op::Same)
    } else {
        stream.then_some(Op::Stream)
    }
}

fn op(instr: Instr) -> Op {
    match instr {
        Instr::Load(_) => Op::Load,
        Instr::Iota(_) => Op::Index,
        Instr::Const(_) => Op::Const,
        Instr::Select(..) => Op::Select,
        Instr::Unary(f, _) => match f {
            Unary::Neg => Op::Neg,
            Unary::Exp => Op::Exp,
            Unary::Log => Op::Log,
            Unary::Sqrt => Op::Sqrt,
            Unary::Rsqrt => Op::Rsqrt,
            Unary::Tanh => Op::Tanh,
            Unary::Sigmoid => Op::Sigmoid,
            Unary::TanhSlope => Op::TanhSlope,
            Unary::SigmoidSlope => Op::SigmoidSlope,
            Unary::Softplus => Op::Softplus,
            Unary::Log1p => Op::Log1p,
            Unary::Expm1 => Op::Expm1,
            Unary::Sin => Op::Sin,
            Unary::Cos => Op::Cos,
            Unary::Erf => Op::Erf,
            Unary::Erfc => Op::Erfc,
            Unary::Abs => Op::Abs,
            Unary::Sign => Op::Sign,
            Unary::PowI(_) => Op::PowI,
        },
        Instr::Binary(f, _, _) => match f {
            Binary::Add => Op::Add,
            Binary::Sub => Op::Sub,
            Binary::Mul => Op::Mul,
            Binary::StrongMul => Op::StrongMul,
            Binary::Div => Op::Div,
            Binary::Pow => Op::Pow,
            Binary::Max => Op::Max,
            Binary::Min => Op::Min,
            Binary::Less => Op::Less,
            Binary::LessEq => Op::LessEq,
            Binary::Equal => Op::Equal,
        },
    }
}
