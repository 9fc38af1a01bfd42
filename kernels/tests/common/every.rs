//! One kernel of every kind, in both types, with inputs.

use super::{bytes, noise};
use kernels::{
    ArgMax, Binary, Concat, Conv, ConvKind, Distribution, Float, Instr, Kernel, Load, Map, MatMul,
    Pad, Pair, Random, Reversible, ReversibleKind, Rows, Store, StoreKind, Take, Unary, Window,
    WindowKind,
};
use tensor::DType;

/// Name, kernel and inputs.
pub(crate) type Case = (String, Kernel, Vec<Vec<u8>>);

/// Large enough that threads share the work, and that blocks and vectors have ends.
pub(crate) fn kernels() -> Vec<Case> {
    let floats = [Float::F32, Float::F64].into_iter();
    let all = floats.flat_map(|float| all(float).into_iter().map(move |kernel| (float, kernel)));
    let case = |(i, (float, kernel)): (usize, (Float, Kernel))| {
        let inputs = inputs(&kernel);
        (
            format!("{} {float:?} (case {i})", kernel.name()),
            kernel,
            inputs,
        )
    };
    all.enumerate().map(case).collect()
}

fn all(float: Float) -> Vec<Kernel> {
    let mut kernels = vec![
        Kernel::Map(map(float, [50, 30, 41], None)),
        Kernel::Map(map(float, [50, 30, 41], Some([true, true, false]))),
        Kernel::Map(map(float, [50, 30, 41], Some([false, true, false]))),
        Kernel::Map(map(float, [3, 30, 411], Some([true, false, true]))),
        Kernel::Map(map(float, [400, 30, 10], Some([false, false, true]))),
        Kernel::Pad(Pad {
            dtype: float.into(),
            extents: vec![40, 30, 41],
            before: vec![1, 0, 2],
            after: vec![0, 3, 0],
        }),
        Kernel::Concat(Concat {
            dtype: float.into(),
            outer: 800,
            inner: vec![70, 1, 33],
        }),
        Kernel::ArgMax(ArgMax {
            float,
            outer: 60,
            n: 43,
            inner: 41,
        }),
    ];
    for accumulate in [false, true] {
        kernels.push(Kernel::MatMul(matmul(float, accumulate)));
        for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
            kernels.push(Kernel::Conv(conv(float, kind, accumulate, [1, 1])));
            kernels.push(Kernel::Conv(conv(float, kind, accumulate, [2, 2])));
        }
    }
    kernels.push(Kernel::MatMulPair(Pair(matmul(float, false))));
    for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
        kernels.push(Kernel::ConvPair(Pair(conv(float, kind, false, [1, 1]))));
        // A window that is computed by transforms of tiles.
        kernels.push(Kernel::Conv(Conv {
            window: [3, 3],
            ..conv(float, kind, false, [1, 1])
        }));
    }
    for kind in [WindowKind::ArgMax, WindowKind::Gather, WindowKind::Scatter] {
        kernels.push(Kernel::Window(window(float, kind)));
    }
    for adjoint in [false, true] {
        let take = Take {
            float,
            outer: 20,
            n: 50,
            inner: 43,
            index: (0..90).map(|i| i * 7 % 50).collect(),
            adjoint,
        };
        kernels.push(Kernel::Take(take));
        let (rows, width, count) = (90, 403, 250);
        let rows = Rows {
            float,
            rows,
            width,
            count,
            adjoint,
        };
        kernels.push(Kernel::Rows(rows));
    }
    for distribution in [Distribution::Uniform, Distribution::Normal] {
        kernels.push(Kernel::Random(Random {
            float,
            distribution,
            count: 70_001,
            op: 3,
        }));
    }
    for kind in [
        ReversibleKind::Advance,
        ReversibleKind::Undo,
        ReversibleKind::Weight,
        ReversibleKind::WeightBefore,
        ReversibleKind::Velocity,
    ] {
        let count = 30_001;
        kernels.push(Kernel::Reversible(Reversible { float, count, kind }));
    }
    kernels
}

/// All functions, one after another, of a matrix and a row that is repeated.
fn map(float: Float, extents: [usize; 3], sum: Option<[bool; 3]>) -> Map {
    use Instr::{Iota, Load as Get, Select};
    let [_, b, c] = extents;
    let load = |strides: [usize; 3]| Load {
        dtype: float.into(),
        strides: strides.to_vec(),
    };
    let unary = [
        Unary::Exp,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Rsqrt,
        Unary::Log,
        Unary::Abs,
        Unary::Sqrt,
        Unary::Neg,
        Unary::PowI(3),
        Unary::PowI(-1),
    ];
    let binary = [
        Binary::Sub,
        Binary::Max,
        Binary::Div,
        Binary::Mul,
        Binary::Min,
        Binary::Add,
    ];
    let mut code = vec![Get(0), Get(1), Iota(2), Instr::constant(0.75)];
    for f in unary {
        code.push(Instr::Unary(f, code.len() - 1));
        code.push(Instr::Binary(Binary::Mul, code.len() - 1, 0));
    }
    for (i, f) in binary.into_iter().enumerate() {
        code.push(Instr::Binary(f, code.len() - 1, i % 4));
    }
    for f in [Binary::Less, Binary::LessEq, Binary::Equal] {
        code.push(Instr::Binary(f, code.len() - 1, 1));
        let last = code.len() - 1;
        code.push(Select(last, 0, last - 1));
    }
    code.push(Instr::Unary(Unary::Sign, code.len() - 1));
    code.push(Instr::Binary(Binary::Add, code.len() - 1, 0));
    let value = code.len() - 1;
    let mut stores = vec![Store {
        value: value - 3,
        dtype: float.into(),
        kind: StoreKind::Full,
    }];
    stores.extend(sum.map(|flags| Store {
        value,
        dtype: float.into(),
        kind: StoreKind::Sum(flags.to_vec()),
    }));
    Map {
        float,
        extents: extents.to_vec(),
        loads: vec![load([b * c, c, 1]), load([0, 0, 1])],
        code,
        stores,
    }
}

fn matmul(float: Float, accumulate: bool) -> MatMul {
    MatMul {
        float,
        batch: 2,
        m: 90,
        n: 75,
        k: 310,
        transpose_a: accumulate,
        transpose_b: !accumulate,
        accumulate,
    }
}

fn conv(float: Float, kind: ConvKind, accumulate: bool, stride: [usize; 2]) -> Conv {
    Conv {
        float,
        kind,
        batch: 2,
        n: 5,
        h: 14,
        w: 13,
        c: 17,
        out: 23,
        window: [3, 4],
        stride,
        pad: [1, 2, 1, 0],
        accumulate,
    }
}

fn window(float: Float, kind: WindowKind) -> Window {
    Window {
        float,
        kind,
        n: 9,
        h: 15,
        w: 14,
        c: 41,
        window: [3, 2],
        stride: [2, 2],
        pad: [0, 1, 0, 0],
    }
}

fn inputs(kernel: &Kernel) -> Vec<Vec<u8>> {
    let inputs = kernel.inputs().into_iter().enumerate();
    let input = |(i, (dtype, count)): (usize, (DType, usize))| match dtype {
        // A rate.
        DType::F32 if count == 1 => bytes(&[0.75_f32]),
        DType::F64 if count == 1 => bytes(&[0.75_f64]),
        DType::F32 => {
            let values: Vec<f32> = noise(count, i as u64).iter().map(|&x| x as f32).collect();
            bytes(&values)
        }
        DType::F64 => bytes(&noise(count, i as u64)),
        DType::I32 => bytes::<i32>(&(0..count as i32).map(|i| i * 11 % 90).collect::<Vec<_>>()),
        // The first row of a window is inside of the image wherever the window is.
        DType::U8 => (0..count).map(|i| (i % 2) as u8).collect(),
        // Some parameters of a state are set, others are not.
        DType::U32 if count > 4 => {
            let word = |i| (1 << 30 | i as u32) * u32::from(i % 3 > 0 && i / (count / 6) == 1);
            bytes(&(0..count).map(word).collect::<Vec<_>>())
        }
        _ => bytes::<u32>(&(0..count as u32).collect::<Vec<_>>()),
    };
    inputs.map(input).collect()
}
