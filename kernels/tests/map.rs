//! Maps against plain code, one number at a time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{bytes, noise, numbers, run, run_all};
use half::{bf16, f16};
use kernels::{Binary, Float, Instr, Kernel, Load, Map, Store, StoreKind, Unary};
use proptest::prelude::*;
use tensor::DType;

const UNARY: [Unary; 8] = [
    Unary::Neg,
    Unary::Sqrt,
    Unary::Rsqrt,
    Unary::Abs,
    Unary::Sign,
    Unary::PowI(3),
    Unary::PowI(-2),
    Unary::PowI(0),
];
const BINARY: [Binary; 9] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Max,
    Binary::Min,
    Binary::Less,
    Binary::LessEq,
    Binary::Equal,
];
const DTYPES: [DType; 7] = [
    DType::F32,
    DType::F64,
    DType::BF16,
    DType::F16,
    DType::U8,
    DType::I32,
    DType::U32,
];

/// Random numbers that decide what a map is.
#[derive(Clone, Debug)]
struct Recipe {
    float: Float,
    extents: Vec<usize>,
    /// Type, and for each axis what the stride is made of.
    loads: Vec<(usize, Vec<u8>)>,
    code: Vec<[u8; 4]>,
    full: Vec<(u8, usize)>,
    sums: Vec<(u8, usize)>,
    flags: Vec<bool>,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let extents = prop_oneof![
        6 => prop::collection::vec(0_usize..8, 0..6),
        4 => (1_usize..4, 1_usize..5, prop_oneof![1_usize..70, 500_usize..1100]).prop_map(|(a, b, c)| vec![a, b, c]),
        3 => (1_usize..90, 1_usize..90).prop_map(|(a, b)| vec![a, b]),
        1 => (30_000_usize..70_000, 1_usize..3).prop_map(|(a, b)| vec![a, b]),
        1 => (1_usize..3, 500_usize..2000, 1_usize..40).prop_map(|(a, b, c)| vec![a, b, c]),
    ];
    let float = prop_oneof![3 => Just(Float::F32), 1 => Just(Float::F64)];
    let loads = prop::collection::vec(
        (0..DTYPES.len(), prop::collection::vec(any::<u8>(), 6)),
        0..4,
    );
    let code = prop::collection::vec(any::<[u8; 4]>(), 1..12);
    let stores = || prop::collection::vec((any::<u8>(), 0..DTYPES.len()), 0..3);
    (
        float,
        extents,
        loads,
        code,
        stores(),
        stores(),
        prop::collection::vec(any::<bool>(), 6),
    )
        .prop_map(|(float, extents, loads, code, full, sums, flags)| Recipe {
            float,
            extents,
            loads,
            code,
            full,
            sums,
            flags,
        })
}

impl Recipe {
    fn map(&self) -> Map {
        let axes = self.extents.len();
        let loads: Vec<_> = self
            .loads
            .iter()
            .map(|(dtype, picks)| Load {
                dtype: if *dtype >= 3 {
                    DTYPES[*dtype]
                } else {
                    self.float.into()
                },
                strides: self.strides(picks),
            })
            .collect();
        let mut code: Vec<Instr> = Vec::new();
        for &[kind, a, b, c] in &self.code {
            let earlier = |x: u8| usize::from(x) % code.len();
            let instr = match kind % 8 {
                0 | 1 if !loads.is_empty() => Instr::Load(usize::from(a) % loads.len()),
                2 if axes > 0 => Instr::Iota(usize::from(a) % axes),
                _ if code.is_empty() => Instr::Const(f64::from(a) / 16.0 - 4.0),
                0..=2 => Instr::Const(f64::from(a) / 16.0 - 4.0),
                3 | 4 => Instr::Unary(UNARY[usize::from(b) % UNARY.len()], earlier(a)),
                5 | 6 => Instr::Binary(
                    BINARY[usize::from(c) % BINARY.len()],
                    earlier(a),
                    earlier(b),
                ),
                _ => Instr::Select(earlier(a), earlier(b), earlier(c)),
            };
            code.push(instr);
        }
        let store = |&(value, dtype): &(u8, usize), kind| Store {
            value: usize::from(value) % code.len(),
            dtype: DTYPES[dtype],
            kind,
        };
        let sums = StoreKind::Sum(self.flags[..axes].to_vec());
        let mut stores: Vec<_> = self
            .full
            .iter()
            .map(|s| store(s, StoreKind::Full))
            .collect();
        // Integers saturate: too coarse to compare sums by.
        stores.extend(
            self.sums
                .iter()
                .map(|&(value, dtype)| store(&(value, dtype % 2), sums.clone())),
        );
        Map {
            float: self.float,
            extents: self.extents.clone(),
            loads,
            code,
            stores,
        }
    }

    /// Row-major strides of a permuted, broadcast, padded array.
    fn strides(&self, picks: &[u8]) -> Vec<usize> {
        let axes = self.extents.len();
        let mut order: Vec<usize> = (0..axes).collect();
        if picks[5].is_multiple_of(3) {
            order.sort_by_key(|&axis| picks[axis]);
        }
        let (mut strides, mut step) = (vec![0; axes], 1);
        for &axis in order.iter().rev() {
            let broadcast = picks[axis].is_multiple_of(3) && picks[5] % 4 != 1;
            if !broadcast {
                strides[axis] = step;
                step *= self.extents[axis].max(1) + usize::from(picks[axis] % 7 == 1);
            }
        }
        strides
    }
}

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

/// The nearest of the numbers around a rough guess, the even one of two; `limit` stands for infinity.
fn nearest(x: f64, guess: u16, value: impl Fn(u16) -> f64, limit: f64) -> u16 {
    if x.is_nan() || x == 0.0 {
        return guess;
    }
    let finite = |bits| {
        if value(bits).is_infinite() {
            limit.copysign(x)
        } else {
            value(bits)
        }
    };
    let distance = |bits: u16| ((finite(bits) - x).abs(), bits % 2);
    let around = [guess.wrapping_sub(1), guess, guess.wrapping_add(1)];
    let around = around
        .into_iter()
        .filter(|&bits| !value(bits).is_nan() && value(bits).is_sign_negative() == (x < 0.0));
    around
        .min_by(|&a, &b| distance(a).partial_cmp(&distance(b)).unwrap())
        .unwrap()
}

fn nearest_bf16(x: f64) -> bf16 {
    let value = |bits| bf16::from_bits(bits).to_f64();
    if x.is_infinite() {
        bf16::from_f64(x)
    } else {
        bf16::from_bits(nearest(
            x,
            bf16::from_f64(x).to_bits(),
            value,
            2_f64.powi(128),
        ))
    }
}

fn nearest_f16(x: f64) -> f16 {
    let value = |bits| f16::from_bits(bits).to_f64();
    if x.is_infinite() {
        f16::from_f64(x)
    } else {
        f16::from_bits(nearest(x, f16::from_f64(x).to_bits(), value, 65536.0))
    }
}

fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    match dtype {
        DType::F32 => bytes(&values.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        DType::F64 => bytes(values),
        DType::BF16 => bytes(&values.iter().map(|&x| nearest_bf16(x)).collect::<Vec<_>>()),
        DType::F16 => bytes(&values.iter().map(|&x| nearest_f16(x)).collect::<Vec<_>>()),
        DType::U8 => bytes(&values.iter().map(|&x| x as u8).collect::<Vec<_>>()),
        DType::I32 => bytes(&values.iter().map(|&x| x as i32).collect::<Vec<_>>()),
        DType::U32 => bytes(&values.iter().map(|&x| x as u32).collect::<Vec<_>>()),
    }
}

fn decode(dtype: DType, raw: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F32 => numbers::<f32>(raw).into_iter().map(f64::from).collect(),
        DType::F64 => numbers(raw),
        DType::BF16 => numbers::<bf16>(raw).into_iter().map(f64::from).collect(),
        DType::F16 => numbers::<f16>(raw).into_iter().map(f64::from).collect(),
        DType::U8 => raw.iter().map(|&x| f64::from(x)).collect(),
        DType::I32 => numbers::<i32>(raw).into_iter().map(f64::from).collect(),
        DType::U32 => numbers::<u32>(raw).into_iter().map(f64::from).collect(),
    }
}

fn inputs(map: &Map) -> Vec<Vec<u8>> {
    let kernel = Kernel::Map(map.clone());
    let input = |(i, (dtype, count)): (usize, (DType, usize))| {
        let mut values = noise(count, i as u64);
        if !dtype.is_float() {
            values.iter_mut().for_each(|x| *x *= 100.0);
        }
        encode(dtype, &values)
    };
    kernel.inputs().into_iter().enumerate().map(input).collect()
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
                    Instr::Const(x) => round(x),
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

fn assert_same(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        assert!(same, "{what} {i}: {got} instead of {want}");
    }
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

/// Sums in f64 are the reference; errors must be small against the sum of magnitudes.
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
    for (i, (got, (want, size))) in got.into_iter().zip(sums).enumerate() {
        let close = (got - want).abs() <= 8.0 * epsilon * size;
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
        check(&recipe.map());
    }
}
