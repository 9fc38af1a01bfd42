//! Elementary functions against the standard library, over all magnitudes.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{bytes, numbers, run_all};
use kernels::{Binary, Float, Instr, Kernel, Load, Map, Store, StoreKind, Unary};

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
    check(Unary::Expm1, f64::exp_m1, 2.0);
}

#[test]
fn logarithms() {
    check(Unary::Log, f64::ln, 1.0);
    check(Unary::Log1p, f64::ln_1p, 2.0);
}

#[test]
fn softplus_and_slopes_that_saturate() {
    let at_zero = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    check(Unary::Softplus, at_zero, 3.0);
    let e = |x: f64| (-x.abs()).exp();
    check(Unary::SigmoidSlope, |x| e(x) / (1.0 + e(x)).powi(2), 4.0);
    check(
        Unary::TanhSlope,
        |x| 4.0 * e(2.0 * x) / (1.0 + e(2.0 * x)).powi(2),
        4.0,
    );
}

#[test]
fn sines() {
    check(Unary::Sin, f64::sin, 2.0);
    check(Unary::Cos, f64::cos, 2.0);
    for float in [Float::F32, Float::F64] {
        let (last, most) = match float {
            Float::F32 => (127, f64::from(f32::MAX)),
            Float::F64 => (1023, f64::MAX),
        };
        let powers = (20..=last).map(|n| 1.234_567_8 * 2_f64.powi(n));
        let numbers: Vec<f64> = powers
            .chain([most, 1e6, 1e6_f64.next_down()])
            .flat_map(|x| [x, -x])
            .map(|x| {
                if float == Float::F32 {
                    f64::from(x as f32)
                } else {
                    x
                }
            })
            .filter(|x| x.is_finite())
            .collect();
        for (f, exact) in [
            (Unary::Sin, f64::sin as fn(f64) -> f64),
            (Unary::Cos, f64::cos),
        ] {
            for (&x, got) in numbers.iter().zip(apply(float, f, &numbers)) {
                let error = (got - exact(x)).abs();
                assert!(
                    error <= 3.0 * ulp(float, exact(x)),
                    "{f:?} of {x:e}: {got:e}"
                );
            }
        }
    }
}

#[test]
fn error_functions() {
    check(Unary::Erf, libm::erf, 2.0);
    check(Unary::Erfc, libm::erfc, 8.0);
}

#[test]
fn powers() {
    for float in [Float::F32, Float::F64] {
        let round = |x: f64| {
            if float == Float::F32 {
                f64::from(x as f32)
            } else {
                x
            }
        };
        let bases = (-60..60).map(|i| (f64::from(i) * 0.37).exp2());
        let special = [
            0.0,
            1.0,
            f64::INFINITY,
            f64::NAN,
            1e-42,
            1e-310,
            1.0 + 1e-6,
            3e38,
        ];
        let bases: Vec<f64> = bases
            .chain(special)
            .flat_map(|x| [x, -x])
            .map(round)
            .collect();
        let exponents = (-40..40).map(|i| f64::from(i) * 0.41);
        let special = [
            0.0,
            -0.0,
            1.0,
            2.0,
            -3.0,
            7.0,
            0.5,
            1e9,
            4e18,
            f64::INFINITY,
            f64::NAN,
        ];
        let exponents = exponents.chain(special).map(round);
        for y in exponents {
            for &x in &bases {
                let (got, exact) = (Binary::Pow.eval(float, x, y), x.powf(y));
                let near = (got - exact).abs() <= 4.0 * ulp(float, exact);
                let right = got == round(exact) || got.is_nan() && exact.is_nan();
                assert!(
                    right || near,
                    "{x:e} to the {y:e} ({float:?}): {got:e} instead of {exact:e}"
                );
            }
        }
    }
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
