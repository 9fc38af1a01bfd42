//! The instructions of a map, each a loop over a block.

use super::STEP;
use super::compiled::{Loop, Opcode, Test};
use super::plan::Op;
use crate::cpu::math::{self, Real, is_nan};
use crate::cpu::simd::multiversion;
use crate::cpu::special;
use crate::{Binary, Unary};

/// A value of a block of points: a number that all share, or one each, in whole steps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a, T> {
    Scalar(T),
    Block(&'a [T]),
}

multiversion! {
    /// Writes to `out`, or returns the result if it is the same for all points.
    pub(super) fn unary<T: Real>(f: Unary, x: Arg<'_, T>, out: &mut [T]) -> Option<T> {
        match f {
            Unary::Neg => each1(x, out, |x| -x),
            Unary::Exp => each1(x, out, math::exp),
            Unary::Log => each1(x, out, math::log),
            Unary::Sqrt => each1(x, out, Real::sqrt),
            Unary::Rsqrt => each1(x, out, |x| T::ONE / x.sqrt()),
            Unary::Tanh => each1(x, out, math::tanh),
            Unary::Sigmoid => each1(x, out, math::sigmoid),
            Unary::Abs => each1(x, out, Real::abs),
            Unary::TanhSlope => each1(x, out, special::tanh_slope),
            Unary::SigmoidSlope => each1(x, out, special::sigmoid_slope),
            Unary::Softplus => each1(x, out, special::softplus),
            Unary::Log1p => each1(x, out, special::log1p),
            Unary::Expm1 => each1(x, out, special::expm1),
            Unary::Sin => near_and_far(x, out, special::sin, special::far_sin),
            Unary::Cos => near_and_far(x, out, special::cos, special::far_cos),
            Unary::Erf => each1(x, out, special::erf),
            Unary::Erfc => each1(x, out, special::erfc),
            Unary::Sign => each1(x, out, |x| if is_nan(x) { x } else { truth::<T>(x > T::ZERO) - truth(x < T::ZERO) }),
            Unary::PowI(n) => powi(x, n, out),
        }
    }
}

multiversion! {
    /// As [`unary`].
    pub(super) fn binary<T: Real>(f: Binary, x: Arg<'_, T>, y: Arg<'_, T>, out: &mut [T]) -> Option<T> {
        match f {
            Binary::Add => each2(x, y, out, |x, y| x + y),
            Binary::Sub => each2(x, y, out, |x, y| x - y),
            Binary::Mul => each2(x, y, out, |x, y| x * y),
            Binary::StrongMul => each2(x, y, out, special::strong_mul),
            Binary::Div => each2(x, y, out, |x, y| x / y),
            Binary::Pow => each2(x, y, out, special::pow),
            Binary::Max => each2(x, y, out, |x, y| if x > y || is_nan(x) { x } else { y }),
            Binary::Min => each2(x, y, out, |x, y| if x < y || is_nan(x) { x } else { y }),
            Binary::Less => each2(x, y, out, |x, y| truth(x < y)),
            Binary::LessEq => each2(x, y, out, |x, y| truth(x <= y)),
            Binary::Equal => each2(x, y, out, |x, y| truth(x == y)),
        }
    }
}

multiversion! {
    /// As [`unary`].
    pub(super) fn select<T: Real>(c: Arg<'_, T>, x: Arg<'_, T>, y: Arg<'_, T>, out: &mut [T]) -> Option<T> {
        match (c, x, y) {
            (Arg::Scalar(c), x, y) => each1(if c == T::ZERO { y } else { x }, out, |x| x),
            (Arg::Block(_), Arg::Scalar(x), y) => each2(c, y, out, |c, y| if c == T::ZERO { y } else { x }),
            (Arg::Block(_), x, Arg::Scalar(y)) => each2(c, x, out, |c, x| if c == T::ZERO { y } else { x }),
            (Arg::Block(c), Arg::Block(x), Arg::Block(y)) => {
                for (((c, x), y), out) in steps(c).iter().zip(steps(x)).zip(steps(y)).zip(steps_mut(out)) {
                    for i in 0..STEP {
                        // Both are loaded: the choice must not become one of addresses.
                        let (x, y) = (x[i], y[i]);
                        out[i] = if c[i] == T::ZERO { y } else { x };
                    }
                }
                None
            }
        }
    }
}

/// Whether [`record`] can express it in instructions.
pub(super) fn has_instructions(op: Op) -> bool {
    match op {
        Op::Unary(f, _) => matches!(
            f,
            Unary::Neg | Unary::Sqrt | Unary::Rsqrt | Unary::Abs | Unary::Sign | Unary::PowI(_)
        ),
        Op::Binary(f, ..) => f != Binary::Pow,
        _ => true,
    }
}

/// The same functions as instructions of a compiled loop, given the values of operands.
pub(super) fn record(
    op: Op,
    body: &mut Loop,
    operand: impl Fn(usize, &mut Loop) -> usize,
) -> Option<usize> {
    let mut operands = op.operands().map(|x| operand(x, body)).collect::<Vec<_>>();
    operands.resize(3, 0);
    let [x, y, z] = operands[..] else { return None };
    let one = |body: &mut Loop| body.constant(1.0);
    Some(match op {
        Op::Const(x) => body.constant(x),
        Op::Unary(f, _) => match f {
            Unary::Neg => {
                let sign = body.constant(-0.0);
                body.apply(Opcode::XOR, sign, x)
            }
            Unary::Abs => {
                let sign = body.constant(-0.0);
                body.apply(Opcode::AND_NOT, sign, x)
            }
            Unary::Sqrt => body.sqrt(x),
            Unary::Rsqrt => {
                let (one, root) = (one(body), body.sqrt(x));
                body.apply(Opcode::DIV, one, root)
            }
            Unary::Sign => {
                let zero = body.constant(0.0);
                let (above, below) = (
                    body.truth(Test::Less, zero, x),
                    body.truth(Test::Less, x, zero),
                );
                let sign = body.apply(Opcode::SUB, above, below);
                body.choose(Test::Unordered, [x, x], [x, sign])
            }
            Unary::PowI(n) => record_powi(x, n, body),
            _ => return None,
        },
        Op::Binary(f, ..) => match f {
            Binary::Add => body.apply(Opcode::ADD, x, y),
            Binary::Sub => body.apply(Opcode::SUB, x, y),
            Binary::Mul => body.apply(Opcode::MUL, x, y),
            Binary::StrongMul => {
                let (product, zero) = (body.apply(Opcode::MUL, x, y), body.constant(0.0));
                let mut strong = product;
                for factor in [y, x] {
                    strong = body.choose(Test::Equal, [factor, zero], [zero, strong]);
                }
                body.choose(Test::Unordered, [product, product], [strong, product])
            }
            Binary::Div => body.apply(Opcode::DIV, x, y),
            Binary::Pow => return None,
            Binary::Max | Binary::Min => {
                let op = if f == Binary::Max {
                    Opcode::MAX
                } else {
                    Opcode::MIN
                };
                let number = body.apply(op, x, y);
                body.choose(Test::Unordered, [x, x], [x, number])
            }
            Binary::Less => body.truth(Test::Less, x, y),
            Binary::LessEq => body.truth(Test::LessEq, x, y),
            Binary::Equal => body.truth(Test::Equal, x, y),
        },
        Op::Select(..) => {
            let zero = body.constant(0.0);
            body.choose(Test::Equal, [x, zero], [z, y])
        }
        Op::Read(_) | Op::Chain(_) => return None,
    })
}

/// As [`raise`].
fn record_powi(x: usize, n: i32, body: &mut Loop) -> usize {
    let one = body.constant(1.0);
    let (mut power, mut square, mut left) = (one, x, n.unsigned_abs());
    while left > 0 {
        if left & 1 == 1 {
            power = body.apply(Opcode::MUL, power, square);
        }
        left >>= 1;
        if left > 0 {
            square = body.apply(Opcode::MUL, square, square);
        }
    }
    if n < 0 {
        body.apply(Opcode::DIV, one, power)
    } else {
        power
    }
}

#[inline(always)]
fn truth<T: Real>(x: bool) -> T {
    if x { T::ONE } else { T::ZERO }
}

#[inline(always)]
fn powi<T: Real>(x: Arg<'_, T>, n: i32, out: &mut [T]) -> Option<T> {
    match x {
        Arg::Scalar(x) => return Some(raise([x], n)[0]),
        Arg::Block(x) => {
            for (x, out) in steps(x).iter().zip(steps_mut(out)) {
                *out = raise(*x, n);
            }
        }
    }
    None
}

#[inline(always)]
fn raise<T: Real, const N: usize>(mut square: [T; N], n: i32) -> [T; N] {
    let mut power = [T::ONE; N];
    let mut left = n.unsigned_abs();
    while left > 0 {
        if left & 1 == 1 {
            power
                .iter_mut()
                .zip(&square)
                .for_each(|(power, &square)| *power = *power * square);
        }
        for square in &mut square {
            *square = *square * *square;
        }
        left >>= 1;
    }
    if n < 0 {
        for power in &mut power {
            *power = T::ONE / *power;
        }
    }
    power
}

#[inline(always)]
fn each1<T: Real>(x: Arg<'_, T>, out: &mut [T], f: impl Fn(T) -> T) -> Option<T> {
    match x {
        Arg::Scalar(x) => return Some(f(x)),
        Arg::Block(x) => {
            for (x, out) in steps(x).iter().zip(steps_mut(out)) {
                for i in 0..STEP {
                    out[i] = f(x[i]);
                }
            }
        }
    }
    None
}

/// As [`each1`], for a function that `near` knows only where [`special::is_far`] is false. The few far points
/// are done afterwards.
#[inline(always)]
fn near_and_far<T: Real>(
    x: Arg<'_, T>,
    out: &mut [T],
    near: impl Fn(T) -> T,
    far: fn(T) -> T,
) -> Option<T> {
    match x {
        Arg::Scalar(x) => return Some(if special::is_far(x) { far(x) } else { near(x) }),
        Arg::Block(values) => {
            each1(x, out, near);
            for (&x, out) in values.iter().zip(out) {
                if special::is_far(x) {
                    *out = far(x);
                }
            }
        }
    }
    None
}

#[inline(always)]
fn each2<T: Real>(x: Arg<'_, T>, y: Arg<'_, T>, out: &mut [T], f: impl Fn(T, T) -> T) -> Option<T> {
    match (x, y) {
        (Arg::Scalar(x), Arg::Scalar(y)) => return Some(f(x, y)),
        (Arg::Scalar(x), Arg::Block(y)) => {
            for (y, out) in steps(y).iter().zip(steps_mut(out)) {
                for i in 0..STEP {
                    out[i] = f(x, y[i]);
                }
            }
        }
        (Arg::Block(x), Arg::Scalar(y)) => {
            for (x, out) in steps(x).iter().zip(steps_mut(out)) {
                for i in 0..STEP {
                    out[i] = f(x[i], y);
                }
            }
        }
        (Arg::Block(x), Arg::Block(y)) => {
            for ((x, y), out) in steps(x).iter().zip(steps(y)).zip(steps_mut(out)) {
                for i in 0..STEP {
                    out[i] = f(x[i], y[i]);
                }
            }
        }
    }
    None
}

#[inline(always)]
fn steps<T>(x: &[T]) -> &[[T; STEP]] {
    x.as_chunks().0
}

#[inline(always)]
fn steps_mut<T>(x: &mut [T]) -> &mut [[T; STEP]] {
    x.as_chunks_mut().0
}
