//! What the primitives mean: a tape computed entry by entry, in f64, with the plainest loops.
//!
//! Plans are compared with it. It shares no code with them, and it is slow.

mod reversible;

use crate::error::{Error, Result};
use crate::op::Op;
use crate::tape::{Node, Var};
use kernels::{
    ArgMax, Binary, Concat, Conv, ConvKind, Distribution, Float, Kernel, MatMul, Random, Rows,
    Take, Unary, Window, WindowKind,
};
use std::collections::BTreeSet;
use strum::VariantNames;
use tensor::{Array, DType};

/// The names of all primitives of a tape.
pub fn primitives() -> BTreeSet<&'static str> {
    // Families, and what only plans make.
    const OTHERS: [&str; 6] = ["unary", "binary", "kernel", "map", "matmulpair", "convpair"];
    let families = [
        Op::VARIANTS,
        Unary::VARIANTS,
        Binary::VARIANTS,
        Kernel::VARIANTS,
    ];
    let names = families.concat().into_iter();
    names.filter(|name| !OTHERS.contains(name)).collect()
}

/// The names of the primitives that some results of one tape use.
pub fn primitives_of(outs: &[Var<'_>]) -> BTreeSet<&'static str> {
    let Some(first) = outs.first() else {
        return BTreeSet::new();
    };
    let last = outs.iter().map(|out| out.id).max().unwrap_or(0);
    let needed = first.tape().needed_by(outs, last);
    (0..=last)
        .filter(|&id| needed[id])
        .map(|id| first.tape().with_node(id, |node| node.op.name()))
        .collect()
}

/// Computes results of one tape from its inputs. All arithmetic and all results are f64, which represents
/// integers and rounded casts exactly. For inputs of f32 it gives what far more precise arithmetic would.
pub fn run(outs: &[Var<'_>], inputs: &[(Var<'_>, &Array)]) -> Result<Vec<Array>> {
    let Some(first) = outs.first() else {
        return Ok(Vec::new());
    };
    let tape = first.tape();
    let last = outs.iter().map(|out| out.id).max().unwrap_or(0);
    let needed = tape.needed_by(outs, last);
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); last + 1];
    for id in (0..=last).filter(|&id| needed[id]) {
        let node = tape.node(id);
        let args: Vec<Operand<'_>> = node
            .args
            .iter()
            .map(|&arg| Operand {
                numbers: &values[arg],
                shape: tape.with_node(arg, |node| node.shape.to_vec()),
            })
            .collect();
        values[id] = match &node.op {
            Op::Input(name, _) => input(name, tape.var(id), inputs)?,
            _ => evaluate(&node, &args)?,
        };
    }
    let array = |out: &Var<'_>| {
        Array::new(out.shape(), values[out.id].clone()).expect("as many numbers as its shape")
    };
    Ok(outs.iter().map(array).collect())
}

struct Operand<'a> {
    numbers: &'a [f64],
    shape: Vec<usize>,
}

fn input(name: &str, var: Var<'_>, inputs: &[(Var<'_>, &Array)]) -> Result<Vec<f64>> {
    let given = inputs.iter().find(|(given, _)| *given == var);
    match given {
        Some((_, array)) if *array.shape() == var.shape() => Ok(array.to_f64_vec()),
        _ => Err(Error::Plan(format!(
            "no {} for input `{name}`",
            var.shape()
        ))),
    }
}

fn evaluate(node: &Node, args: &[Operand<'_>]) -> Result<Vec<f64>> {
    let count = node.shape.count();
    let numbers = |i: usize| args[i].numbers;
    Ok(match &node.op {
        Op::Input(..) => unreachable!("inputs are given"),
        Op::Perturbation(_) => vec![0.0; count],
        Op::Const(bits) => vec![f64::from_bits(*bits); count],
        Op::Iota(axis) => places(&node.shape)
            .iter()
            .map(|at| at[*axis] as f64)
            .collect(),
        Op::Unary(op) => numbers(0).iter().map(|&x| unary(*op, x)).collect(),
        Op::Binary(op) => (0..count)
            .map(|i| binary(*op, numbers(0)[i], numbers(1)[i]))
            .collect(),
        Op::Select => (0..count)
            .map(|i| numbers(if numbers(0)[i] == 0.0 { 2 } else { 1 })[i])
            .collect(),
        Op::Cast(to) => cast(numbers(0), *to),
        Op::StopGradient | Op::StraightThrough | Op::Reshape => numbers(0).to_vec(),
        Op::Permute(axes) => gather(node, &args[0], |at| {
            let mut from = vec![0; at.len()];
            (0..at.len()).for_each(|i| from[axes[i]] = at[i]);
            from
        }),
        Op::Broadcast => gather(node, &args[0], |at| {
            (0..at.len())
                .map(|i| if args[0].shape[i] == 1 { 0 } else { at[i] })
                .collect()
        }),
        Op::Slice(start) => gather(node, &args[0], |at| {
            at.iter().zip(start).map(|(i, first)| i + first).collect()
        }),
        Op::Sum(flags) => scatter(node, args, |_, at| {
            (0..at.len())
                .map(|i| if flags[i] { 0 } else { at[i] })
                .collect()
        }),
        Op::Kernel(kernel) => of_kernel(kernel, node, args)?,
    })
}

fn of_kernel(kernel: &Kernel, node: &Node, args: &[Operand<'_>]) -> Result<Vec<f64>> {
    let numbers: Vec<&[f64]> = args.iter().map(|arg| arg.numbers).collect();
    Ok(match kernel {
        Kernel::Pad(spec) => scatter(node, args, |_, at| {
            let along = at.iter().zip(&spec.before);
            along.map(|(i, first)| i + first).collect()
        }),
        Kernel::Concat(spec) => concat(spec, &numbers),
        Kernel::Take(spec) => take(spec, numbers[0]),
        Kernel::MatMul(spec) => matmul(spec, numbers[0], numbers[1]),
        Kernel::Conv(spec) => conv(spec, numbers[0], numbers[1]),
        Kernel::ArgMax(spec) => argmax(spec, numbers[0]),
        Kernel::Rows(spec) => rows(spec, numbers[0], numbers[1])?,
        Kernel::Window(spec) => window(spec, args),
        Kernel::Random(spec) => random(spec, numbers[0]),
        Kernel::Reversible(spec) => reversible::reversible(spec, &numbers),
        Kernel::Map(_) | Kernel::MatMulPair(_) | Kernel::ConvPair(_) => {
            return Err(Error::Plan(format!("{} is no primitive", kernel.name())));
        }
    })
}

fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => x.sqrt().recip(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => (1.0 + (-x).exp()).recip(),
        Unary::TanhSlope => x.cosh().powi(-2),
        Unary::SigmoidSlope => (x / 2.0).cosh().powi(-2) / 4.0,
        Unary::Softplus if x > 0.0 => x + (-x).exp().ln_1p(),
        Unary::Softplus => x.exp().ln_1p(),
        Unary::Log1p => x.ln_1p(),
        Unary::Expm1 => x.exp_m1(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Erf => erf(x),
        Unary::Erfc if x < 1.0 => 1.0 - erf(x),
        Unary::Erfc => erfc(x),
        Unary::Abs => x.abs(),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        Unary::Sign => 0.0 * x,
        Unary::PowI(n) => x.powi(n),
    }
}

/// By a series of positive terms (Abramowitz and Stegun 1964, 7.1.6).
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= x * x / (f64::from(n) + 0.5);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// By a continued fraction, for x ≥ 1 (7.1.14).
fn erfc(x: f64) -> f64 {
    let fraction = (1..200)
        .rev()
        .fold(x, |rest, n| x + f64::from(n) / 2.0 / rest);
    (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
}

fn binary(op: Binary, x: f64, y: f64) -> f64 {
    let truth = |b: bool| if b { 1.0 } else { 0.0 };
    let nan = x.is_nan() || y.is_nan();
    match op {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::StrongMul if x == 0.0 || y == 0.0 => 0.0,
        Binary::StrongMul => x * y,
        Binary::Div => x / y,
        Binary::Pow => x.powf(y),
        Binary::Max | Binary::Min if nan => f64::NAN,
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::Less => truth(x < y),
        Binary::LessEq => truth(x <= y),
        Binary::Equal => truth(x == y),
    }
}

fn cast(numbers: &[f64], to: DType) -> Vec<f64> {
    let wide = Array::new([numbers.len()], numbers.to_vec()).expect("one axis of them all");
    wide.cast(to).to_f64_vec()
}

/// The indices of all elements, in row-major order.
fn places(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for &extent in shape {
        let longer = |at: Vec<usize>| (0..extent).map(move |i| [&at[..], &[i]].concat());
        all = all.into_iter().flat_map(longer).collect();
    }
    all
}

/// Where the element of an index lies.
fn position(shape: &[usize], at: &[usize]) -> usize {
    at.iter()
        .zip(shape)
        .fold(0, |sum, (i, extent)| sum * extent + i)
}

/// Every element of the result comes from one of the operand.
fn gather(node: &Node, arg: &Operand<'_>, from: impl Fn(&[usize]) -> Vec<usize>) -> Vec<f64> {
    places(&node.shape)
        .iter()
        .map(|at| arg.numbers[position(&arg.shape, &from(at))])
        .collect()
}

/// Every element of the operands is added to one of the result.
fn scatter(
    node: &Node,
    args: &[Operand<'_>],
    to: impl Fn(usize, &[usize]) -> Vec<usize>,
) -> Vec<f64> {
    let mut sums = vec![0.0; node.shape.count()];
    for (part, arg) in args.iter().enumerate() {
        for (at, x) in places(&arg.shape).iter().zip(arg.numbers) {
            sums[position(&node.shape, &to(part, at))] += x;
        }
    }
    sums
}

fn concat(spec: &Concat, parts: &[&[f64]]) -> Vec<f64> {
    let row = |i: usize| {
        let rows = parts.iter().zip(&spec.inner);
        rows.flat_map(move |(part, &inner)| part[i * inner..][..inner].to_vec())
    };
    (0..spec.outer).flat_map(row).collect()
}

fn take(spec: &Take, x: &[f64]) -> Vec<f64> {
    let Take {
        outer, n, inner, ..
    } = *spec;
    let picked = spec.index.len();
    let extent = if spec.adjoint { n } else { picked };
    let mut y = vec![0.0; outer * extent * inner];
    for at in places(&[outer, picked, inner]) {
        let short = position(&[outer, picked, inner], &at);
        let long = position(
            &[outer, n, inner],
            &[at[0], spec.index[at[1]] as usize, at[2]],
        );
        if spec.adjoint {
            y[long] += x[short];
        } else {
            y[short] = x[long];
        }
    }
    y
}

fn matmul(spec: &MatMul, a: &[f64], b: &[f64]) -> Vec<f64> {
    let MatMul { batch, m, n, k, .. } = *spec;
    let mut c = vec![0.0; batch * m * n];
    for at in places(&[batch, m, n, k]) {
        let [batch, i, j, l] = at[..] else {
            unreachable!("four extents")
        };
        let from_a = if spec.transpose_a {
            l * m + i
        } else {
            i * k + l
        };
        let from_b = if spec.transpose_b {
            j * k + l
        } else {
            l * n + j
        };
        c[(batch * m + i) * n + j] += a[batch * m * k + from_a] * b[batch * k * n + from_b];
    }
    c
}

fn conv(spec: &Conv, a: &[f64], b: &[f64]) -> Vec<f64> {
    let [x_count, w_count, y_count] = spec.counts();
    let mut result = match spec.kind {
        ConvKind::Forward => vec![0.0; y_count],
        ConvKind::Input => vec![0.0; x_count],
        ConvKind::Weight => vec![0.0; w_count],
    };
    let (out_h, out_w, [kh, kw]) = (spec.out_h(), spec.out_w(), spec.window);
    for at in places(&[spec.batch, spec.n, out_h, out_w, spec.out, kh, kw, spec.c]) {
        let [batch, n, oy, ox, o, ky, kx, c] = at[..] else {
            unreachable!("eight extents")
        };
        let Some((iy, ix)) = pixel(spec.stride, spec.pad, [spec.h, spec.w], [oy, ox], [ky, kx])
        else {
            continue;
        };
        let images = |rest: [usize; 3]| [&[spec.batch, spec.n][..], &rest].concat();
        let x = position(&images([spec.h, spec.w, spec.c]), &[batch, n, iy, ix, c]);
        let w = position(
            &[spec.batch, spec.out, kh, kw, spec.c],
            &[batch, o, ky, kx, c],
        );
        let y = position(&images([out_h, out_w, spec.out]), &[batch, n, oy, ox, o]);
        match spec.kind {
            ConvKind::Forward => result[y] += a[x] * b[w],
            ConvKind::Input => result[x] += a[y] * b[w],
            ConvKind::Weight => result[w] += a[x] * b[y],
        }
    }
    result
}

/// The pixel that an element of a window lies on; none if it is outside the image.
fn pixel(
    stride: [usize; 2],
    pad: [usize; 4],
    size: [usize; 2],
    window: [usize; 2],
    element: [usize; 2],
) -> Option<(usize, usize)> {
    let along = |axis: usize| {
        let from_border = window[axis] * stride[axis] + element[axis];
        from_border
            .checked_sub(pad[2 * axis])
            .filter(|&i| i < size[axis])
    };
    Some((along(0)?, along(1)?))
}

/// Whether it is greater than the best so far: NaN is greater than all numbers, the first wins.
fn beats(x: f64, best: f64) -> bool {
    x > best || (x.is_nan() && !best.is_nan())
}

fn argmax(spec: &ArgMax, x: &[f64]) -> Vec<f64> {
    let ArgMax {
        outer, n, inner, ..
    } = *spec;
    let value = |at: &[usize], i: usize| x[(at[0] * n + i) * inner + at[1]];
    places(&[outer, inner])
        .iter()
        .map(|at| {
            let better = |best, i| {
                if beats(value(at, i), value(at, best)) {
                    i
                } else {
                    best
                }
            };
            (1..n).fold(0, better) as f64
        })
        .collect()
}

fn rows(spec: &Rows, x: &[f64], index: &[f64]) -> Result<Vec<f64>> {
    let width = spec.width;
    let mut y = vec![0.0; width * if spec.adjoint { spec.rows } else { spec.count }];
    for (i, &row) in index.iter().enumerate() {
        if row < 0.0 || row >= spec.rows as f64 {
            return Err(Error::Plan(format!("row {row} of {}", spec.rows)));
        }
        for j in 0..width {
            let (long, short) = (row as usize * width + j, i * width + j);
            if spec.adjoint {
                y[long] += x[short];
            } else {
                y[short] = x[long];
            }
        }
    }
    Ok(y)
}

fn window(spec: &Window, args: &[Operand<'_>]) -> Vec<f64> {
    let [kh, kw] = spec.window;
    let image = [spec.n, spec.h, spec.w, spec.c];
    let pooled = [spec.n, spec.out_h(), spec.out_w(), spec.c];
    let source = args[0].numbers;
    let scatter = spec.kind == WindowKind::Scatter;
    let mut result = vec![0.0; if scatter { image } else { pooled }.iter().product()];
    for (y, at) in places(&pooled).iter().enumerate() {
        let on = |offset: usize| {
            let element = [offset / kw, offset % kw];
            let (iy, ix) = pixel(
                spec.stride,
                spec.pad,
                [spec.h, spec.w],
                [at[1], at[2]],
                element,
            )?;
            Some(position(&image, &[at[0], iy, ix, at[3]]))
        };
        let picked = || on(args[1].numbers[y] as usize).expect("an element inside the image");
        match spec.kind {
            WindowKind::Gather => result[y] = source[picked()],
            WindowKind::Scatter => result[picked()] += source[y],
            WindowKind::ArgMax => {
                let inside = (0..kh * kw).filter_map(|offset| Some((offset, source[on(offset)?])));
                let better = |best: (usize, f64), x: (usize, f64)| {
                    if beats(x.1, best.1) { x } else { best }
                };
                result[y] = inside.reduce(better).expect("a window touches the image").0 as f64;
            }
        }
    }
    result
}

/// Philox 4x32-10 (Salmon et al. 2011): counter = number of the call, op, outer and inner step;
/// key = seed.
fn philox(call: u32, op: u32, key: &[f64]) -> [u32; 4] {
    let word = |i: usize| key[i] as u32;
    let mut counter = [call, op, word(2), word(3)];
    let mut round_key = [word(0), word(1)];
    for _ in 0..10 {
        let first = u64::from(counter[0]) * 0xD251_1F53;
        let second = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ round_key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ round_key[1],
            first as u32,
        ];
        round_key[0] = round_key[0].wrapping_add(0x9E37_79B9);
        round_key[1] = round_key[1].wrapping_add(0xBB67_AE85);
    }
    counter
}

fn random(spec: &Random, key: &[f64]) -> Vec<f64> {
    // Each number takes one word for an f32 (of which it keeps 24 bits), two for an f64 (53).
    let words = spec.float.size() / 4;
    let calls = spec.count.div_ceil(4 / words) as u32;
    let all: Vec<u32> = (0..calls)
        .flat_map(|call| philox(call, spec.op, key))
        .collect();
    let whole: Vec<u64> = all
        .chunks(words)
        .map(|words| {
            words
                .iter()
                .fold(0, |bits, &word| bits << 32 | u64::from(word))
        })
        .collect();
    let uniform = |bits: u64| match spec.float {
        Float::F32 => (bits >> 8) as f64 * 2_f64.powi(-24),
        Float::F64 => (bits >> 11) as f64 * 2_f64.powi(-53),
    };
    // In (0, 1], so that it has a logarithm.
    let positive = |bits: u64| match spec.float {
        Float::F32 => bits as f64 * 2_f64.powi(-32) + 2_f64.powi(-33),
        Float::F64 => uniform(bits) + 2_f64.powi(-53),
    };
    // Box and Muller 1958.
    let normal = |pair: &[u64]| {
        let radius = (-2.0 * positive(pair[0]).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * uniform(pair[1])).sin_cos();
        [radius * cos, radius * sin]
    };
    let numbers: Vec<f64> = match spec.distribution {
        Distribution::Uniform => whole.into_iter().map(uniform).collect(),
        Distribution::Normal => whole.chunks(2).flat_map(normal).collect(),
    };
    numbers[..spec.count].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tape;

    #[test]
    fn matmul_and_its_transposes() {
        let tape = Tape::new();
        let a = tape.input("a", DType::F64, [2, 3]).unwrap();
        let b = tape.input("b", DType::F64, [3, 2]).unwrap();
        let outs = [
            a.matmul(b).unwrap(),
            b.matmul_with(a, true, true).unwrap(),
            a.matmul_with(a, false, true).unwrap(),
        ];
        let x = Array::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let y = Array::new([3, 2], vec![1.0, 0.0, 2.0, 1.0, 0.0, -1.0]).unwrap();
        let results = run(&outs, &[(a, &x), (b, &y)]).unwrap();
        assert_eq!(results[0].to_f64_vec(), [5.0, -1.0, 14.0, -1.0]);
        assert_eq!(results[1].to_f64_vec(), [5.0, 14.0, -1.0, -1.0]);
        assert_eq!(results[2].to_f64_vec(), [14.0, 32.0, 32.0, 77.0]);
    }

    #[test]
    fn convolution_slides_the_window_over_the_padded_image() {
        let tape = Tape::new();
        let x = tape.input("x", DType::F64, [1, 2, 3, 1]).unwrap();
        let w = tape.input("w", DType::F64, [1, 2, 2, 1]).unwrap();
        let options = crate::ConvOptions {
            stride: [1, 2],
            pad: [1, 0, 0, 1],
        };
        let y = x.conv2d(w, options).unwrap();
        let image = Array::new([1, 2, 3, 1], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let weight = Array::new([1, 2, 2, 1], vec![1.0, 10.0, 100.0, 1000.0]).unwrap();
        let result = run(&[y], &[(x, &image), (w, &weight)]).unwrap();
        assert_eq!(*result[0].shape(), [1, 2, 2, 1].into());
        assert_eq!(result[0].to_f64_vec(), [2100.0, 300.0, 5421.0, 603.0]);
    }

    #[test]
    fn a_batch_of_convolutions_has_images_and_weights_each() {
        let tape = Tape::new();
        let x = tape.input("x", DType::F64, [2, 1, 1, 2, 1]).unwrap();
        let w = tape.input("w", DType::F64, [2, 1, 1, 2, 1]).unwrap();
        let y = x.conv2d(w, crate::ConvOptions::padded(0)).unwrap();
        let images = Array::new([2, 1, 1, 2, 1], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let weights = Array::new([2, 1, 1, 2, 1], vec![1.0, 10.0, 100.0, 1000.0]).unwrap();
        let result = run(&[y], &[(x, &images), (w, &weights)]).unwrap();
        assert_eq!(*result[0].shape(), [2, 1, 1, 1, 1].into());
        assert_eq!(result[0].to_f64_vec(), [21.0, 4300.0]);
    }

    /// Known answers of the Random123 distribution.
    #[test]
    fn philox_known_answers() {
        assert_eq!(
            philox(0, 0, &[0.0; 4]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        let key = [0xa409_3822_u32, 0x299f_31d0, 0x1319_8a2e, 0x0370_7344].map(f64::from);
        assert_eq!(
            philox(0x243f_6a88, 0x85a3_08d3, &key),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
