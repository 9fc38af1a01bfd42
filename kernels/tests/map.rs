//! Maps against plain code, one number at a time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::maps::{EXACT, assert_same, decode, encode, inputs, recipe};
use common::{run, run_all};
use kernels::{Binary, Float, Instr, Kernel, Load, Map, Store, StoreKind, Unary};
use proptest::prelude::*;
use tensor::DType;

/// One number of the working type: f32 arithmetic is done in f32.
fn unary(float: Float, f: Unary, x: f64) -> f64 {
    let round = |x: f64| {
        if float == Float::F32 {
            f64::from(x as f32)
        } else {
            x
        }
    };
    match f {
        Unary::Neg => -x,
        Unary::Sqrt => round(x.sqrt()),
        Unary::Rsqrt => round(1.0 / round(x.sqrt())),
        Unary::Abs => x.abs(),
        Unary::Sign if x.is_nan() => x,
        Unary::Sign => f64::from(i8::from(x > 0.0) - i8::from(x < 0.0)),
        Unary::PowI(0) => 1.0,
        Unary::PowI(3) => round(x * round(x * x)),
        Unary::PowI(-2) => round(1.0 / round(x * x)),
        other => unreachable!("{other:?} is not exact"),
    }
}

fn binary(float: Float, f: Binary, x: f64, y: f64) -> f64 {
    let round = |x: f64| {
        if float == Float::F32 {
            f64::from(x as f32)
        } else {
            x
        }
    };
    let nan = x.is_nan() || y.is_nan();
    match f {
        Binary::Add => round(x + y),
        Binary::Sub => round(x - y),
        Binary::Mul => round(x * y),
        Binary::StrongMul if (x * y).is_nan() && (x == 0.0 || y == 0.0) => 0.0,
        Binary::StrongMul => round(x * y),
        // Tested for itself, against the standard library.
        Binary::Pow => f.eval(float, x, y),
        Binary::Div => round(x / y),
        Binary::Max | Binary::Min if nan => f64::NAN,
        Binary::Max => {
            if x > y {
                x
            } else {
                y
            }
        }
        Binary::Min => {
            if x < y {
                x
            } else {
                y
            }
        }
        Binary::Less => f64::from(u8::from(x < y)),
        Binary::LessEq => f64::from(u8::from(x <= y)),
        Binary::Equal => f64::from(u8::from(x == y)),
    }
}

/// All indices of the space, in order.
fn points(extents: &[usize]) -> Vec<Vec<usize>> {
    let mut points = vec![vec![]];
    for &extent in extents {
        points = points
            .iter()
            .flat_map(|p| (0..extent).map(|i| [&p[..], &[i]].concat()))
            .collect();
    }
    points
}

/// Value of every instruction at every point.
fn values(map: &Map, inputs: &[Vec<u8>]) -> Vec<Vec<f64>> {
    let round = |x: f64| {
        if map.float == Float::F32 {
            f64::from(x as f32)
        } else {
            x
        }
    };
    let inputs: Vec<_> = map
        .loads
        .iter()
        .zip(inputs)
        .map(|(load, raw)| decode(load.dtype, raw))
        .collect();
    points(&map.extents)
        .iter()
        .map(|point| {
            let mut values: Vec<f64> = Vec::new();
            for instr in &map.code {
                values.push(match *instr {
                    Instr::Load(i) => {
                        let at: usize = point
                            .iter()
                            .zip(&map.loads[i].strides)
                            .map(|(i, s)| i * s)
                            .sum();
                        round(inputs[i][at])
                    }
                    Instr::Const(bits) => round(f64::from_bits(bits)),
                    Instr::Iota(axis) => round(point[axis] as f64),
                    Instr::Unary(f, x) => unary(map.float, f, values[x]),
                    Instr::Binary(f, x, y) => binary(map.float, f, values[x], values[y]),
                    Instr::Select(c, x, y) => values[if values[c] == 0.0 { y } else { x }],
                });
            }
            values
        })
        .collect()
}

fn check(map: &Map) {
    let inputs = inputs(map);
    let outputs = run_all(&Kernel::Map(map.clone()), &inputs);
    let values = values(map, &inputs);
    for (i, (store, output)) in map.stores.iter().zip(&outputs).enumerate() {
        let column: Vec<f64> = values.iter().map(|values| values[store.value]).collect();
        match &store.kind {
            StoreKind::Full => {
                let want = decode(store.dtype, &encode(store.dtype, &column));
                assert_same(
                    &decode(store.dtype, output),
                    &want,
                    &format!("store {i}, element"),
                );
            }
            StoreKind::Sum(flags) => check_sum(map, flags, store.dtype, &column, output),
        }
    }
    check_unfused(map, &inputs, &outputs);
}

/// Sums in f64 are the reference. A sum of n terms rounds n times, each by at most half of epsilon of the sum
/// of magnitudes. A long sum has chains of 32 additions, and there are a few levels of them: no more than 64.
fn check_sum(map: &Map, flags: &[bool], dtype: DType, values: &[f64], output: &[u8]) {
    let kept = |point: &[usize]| {
        let axes = (0..flags.len()).filter(|&axis| !flags[axis]);
        axes.fold(0, |at, axis| at * map.extents[axis] + point[axis])
    };
    let got = decode(dtype, output);
    let mut sums = vec![(0.0, 0.0); got.len()];
    let mut lost = vec![0.0; got.len()];
    for (point, &value) in points(&map.extents).iter().zip(values) {
        let at = kept(point);
        let (sum, size) = sums[at];
        // What rounding loses is added up apart (Kahan, Neumaier).
        let next: f64 = sum + value;
        lost[at] += if f64::abs(sum) > value.abs() {
            (sum - next) + value
        } else {
            (value - next) + sum
        };
        sums[at] = (next, size + value.abs());
    }
    sums.iter_mut()
        .zip(&lost)
        .filter(|(_, lost)| lost.is_finite())
        .for_each(|(sum, lost)| sum.0 += lost);
    let coarse = map.float == Float::F32 || dtype == DType::F32;
    let epsilon = if coarse {
        f64::from(f32::EPSILON)
    } else {
        f64::EPSILON
    };
    // An f32 cannot hold a sum below half of its smallest number (1e-45): it is zero there.
    let smallest = if coarse {
        f64::from(f32::from_bits(1))
    } else {
        0.0
    };
    let terms = values.len() / got.len().max(1);
    let roundings = terms.min(64) as f64;
    for (i, (got, (want, size))) in got.into_iter().zip(sums).enumerate() {
        let close = (got - want).abs() <= roundings * epsilon / 2.0 * size + smallest;
        let overflow = size > f64::from(f32::MAX) && !got.is_finite();
        assert!(
            close || !want.is_finite() && !got.is_finite() || overflow,
            "sum {i}: {got} instead of {want}"
        );
    }
}

/// Every instruction as a map of its own, then every sum: the bits must be those of the fused map.
fn check_unfused(map: &Map, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) {
    let device = common::device(1);
    let dtype = map.float.into();
    let mut strides = vec![1; map.extents.len()];
    for axis in (1..strides.len()).rev() {
        strides[axis - 1] = strides[axis] * map.extents[axis];
    }
    let contiguous = || Load {
        dtype,
        strides: strides.clone(),
    };
    let single = |loads: Vec<Load>, code: Vec<Instr>, store: Store, inputs: &[Vec<u8>]| {
        let map = Map {
            float: map.float,
            extents: map.extents.clone(),
            loads,
            code,
            stores: vec![store],
        };
        run(&device, Kernel::Map(map), inputs).remove(0)
    };
    let full = |value| Store {
        value,
        dtype,
        kind: StoreKind::Full,
    };
    let mut values: Vec<Vec<u8>> = Vec::new();
    for &instr in &map.code {
        let value = |x: usize| values[x].clone();
        values.push(match instr {
            Instr::Load(i) => single(
                vec![map.loads[i].clone()],
                vec![Instr::Load(0)],
                full(0),
                &inputs[i..=i],
            ),
            Instr::Const(_) | Instr::Iota(_) => single(vec![], vec![instr], full(0), &[]),
            Instr::Unary(f, x) => single(
                vec![contiguous()],
                vec![Instr::Load(0), Instr::Unary(f, 0)],
                full(1),
                &[value(x)],
            ),
            Instr::Binary(f, x, y) => single(
                vec![contiguous(); 2],
                vec![Instr::Load(0), Instr::Load(1), Instr::Binary(f, 0, 1)],
                full(2),
                &[value(x), value(y)],
            ),
            Instr::Select(c, x, y) => single(
                vec![contiguous(); 3],
                vec![
                    Instr::Load(0),
                    Instr::Load(1),
                    Instr::Load(2),
                    Instr::Select(0, 1, 2),
                ],
                full(3),
                &[value(c), value(x), value(y)],
            ),
        });
    }
    for (i, (store, output)) in map.stores.iter().zip(outputs).enumerate() {
        let store = Store {
            value: 0,
            ..store.clone()
        };
        let value = &values[map.stores[i].value];
        let alone = single(
            vec![contiguous()],
            vec![Instr::Load(0)],
            store.clone(),
            std::slice::from_ref(value),
        );
        assert_same(
            &decode(store.dtype, &alone),
            &decode(store.dtype, output),
            &format!("fused store {i}, element"),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_map(recipe in recipe()) {
        check(&recipe.map(&EXACT));
    }
}
