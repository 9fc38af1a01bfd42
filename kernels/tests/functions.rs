//! Elementary functions against the standard library, over all magnitudes.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{bytes, numbers, run_all};
use kernels::{Float, Instr, Kernel, Load, Map, Store, StoreKind, Unary};

/// The function of each number, by a map.
fn apply(float: Float, f: Unary, x: &[f64]) -> Vec<f64> {
    let map = Map {
        float,
        extents: vec![x.len()],
        loads: vec![Load {
            dtype: float.into(),
            strides: vec![1],
        }],
        code: vec![Instr::Load(0), Instr::Unary(f, 0)],
        stores: vec![Store {
            value: 1,
            dtype: float.into(),
            kind: StoreKind::Full,
        }],
    };
    if float == Float::F64 {
        return numbers(&run_all(&Kernel::Map(map), &[bytes(x)])[0]);
    }
    let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    let y: Vec<f32> = numbers(&run_all(&Kernel::Map(map), &[bytes(&x)])[0]);
    y.into_iter().map(f64::from).collect()
}

/// Numbers of both signs from 2⁻⁴⁰ to 2¹⁰, and what is special.
fn arguments(float: Float) -> Vec<f64> {
    let magnitudes = (0..20_000).map(|i| (f64::from(i) * 0.0025 - 40.0).exp2());
    let special = [
        0.0,
        1.0,
        f64::INFINITY,
        88.8,
        104.0,
        709.9,
        745.2,
        1e-310,
        1e-42,
    ];
    let all = magnitudes.chain(special).flat_map(|x| [x, -x]);
    let round = |x: f64| {
        if float == Float::F32 {
            f64::from(x as f32)
        } else {
            x
        }
    };
    all.map(round).chain([f64::NAN]).collect()
}

/// The distance from a number to the next, near `x`; 1 beyond the largest.
fn ulp(float: Float, x: f64) -> f64 {
    let x = x.abs();
    match float {
        Float::F32 => f64::from((x as f32).next_up()) - f64::from(x as f32),
        Float::F64 => x.next_up() - x,
    }
}

fn check(f: Unary, exact: impl Fn(f64) -> f64, ulps: f64) {
    for float in [Float::F32, Float::F64] {
        // The standard library's f64 functions may themselves be wrong by a place.
        let allowed = if float == Float::F64 {
            ulps + 1.0
        } else {
            ulps
        };
        let arguments = arguments(float);
        for (&x, got) in arguments.iter().zip(apply(float, f, &arguments)) {
            let exact = exact(x);
            let rounded = if float == Float::F32 {
                f64::from(exact as f32)
            } else {
                exact
            };
            let right = got == rounded || got.is_nan() && exact.is_nan();
            assert!(
                right || (got - exact).abs() <= allowed * ulp(float, exact),
                "{f:?} of {x:e} ({float:?}): {got:e} instead of {exact:e}"
            );
        }
    }
}

#[test]
fn exponentials() {
    check(Unary::Exp, f64::exp, 1.0);
}

#[test]
fn logarithms() {
    check(Unary::Log, f64::ln, 1.0);
}

#[test]
fn hyperbolic_tangents() {
    check(Unary::Tanh, f64::tanh, 2.5);
}

#[test]
fn sigmoids() {
    // Written so that e^−x does not overflow.
    let sigmoid = |x: f64| {
        if x < 0.0 {
            x.exp() / (1.0 + x.exp())
        } else {
            1.0 / (1.0 + (-x).exp())
        }
    };
    check(Unary::Sigmoid, sigmoid, 2.5);
}
