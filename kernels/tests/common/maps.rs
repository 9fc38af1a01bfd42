//! Random maps, and numbers of all types.

use super::{bytes, noise, numbers};
use half::{bf16, f16};
use kernels::{Binary, Float, Instr, Kernel, Load, Map, Store, StoreKind, Unary};
use proptest::prelude::*;
use tensor::DType;

/// Functions of one value that are exact.
pub(crate) const EXACT: [Unary; 8] = [
    Unary::Neg,
    Unary::Sqrt,
    Unary::Rsqrt,
    Unary::Abs,
    Unary::Sign,
    Unary::PowI(3),
    Unary::PowI(-2),
    Unary::PowI(0),
];
/// All of them.
pub(crate) const UNARY: [Unary; 23] = {
    let [a, b, c, d, e, f, g, h] = EXACT;
    [
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        Unary::Exp,
        Unary::Log,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::TanhSlope,
        Unary::SigmoidSlope,
        Unary::Softplus,
        Unary::Log1p,
        Unary::Expm1,
        Unary::Sin,
        Unary::Cos,
        Unary::Erf,
        Unary::Erfc,
        Unary::PowI(1),
        Unary::PowI(10),
    ]
};

pub(crate) const BINARY: [Binary; 11] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::StrongMul,
    Binary::Pow,
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
pub(crate) struct Recipe {
    float: Float,
    extents: Vec<usize>,
    /// Type, and for each axis what the stride is made of.
    loads: Vec<(usize, Vec<u8>)>,
    code: Vec<[u8; 4]>,
    full: Vec<(u8, usize)>,
    sums: Vec<(u8, usize)>,
    flags: Vec<bool>,
}

pub(crate) fn recipe() -> impl Strategy<Value = Recipe> {
    let extents = prop_oneof![
        6 => prop::collection::vec(0_usize..8, 0..6),
        4 => (1_usize..4, 1_usize..5, prop_oneof![1_usize..70, 500_usize..1100]).prop_map(|(a, b, c)| vec![a, b, c]),
        3 => (1_usize..90, 1_usize..90).prop_map(|(a, b)| vec![a, b]),
        3 => (1_usize..20, 60_usize..900).prop_map(|(a, b)| vec![a, b]),
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
    /// With these functions of one value.
    pub(crate) fn map(&self, unary: &[Unary]) -> Map {
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
                _ if code.is_empty() => Instr::constant(f64::from(a) / 16.0 - 4.0),
                0..=2 => Instr::constant(f64::from(a) / 16.0 - 4.0),
                3 | 4 => Instr::Unary(unary[usize::from(b) % unary.len()], earlier(a)),
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

pub(crate) fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
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

pub(crate) fn decode(dtype: DType, raw: &[u8]) -> Vec<f64> {
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

/// Zeros, infinities, NaN and a subnormal number of f32.
const SPECIAL: [f64; 6] = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-40];

/// Numbers for all inputs of a map, some of them special.
pub(crate) fn inputs(map: &Map) -> Vec<Vec<u8>> {
    let kernel = Kernel::Map(map.clone());
    let input = |(i, (dtype, count)): (usize, (DType, usize))| {
        let mut values = noise(count, i as u64);
        if dtype.is_float() {
            let some = values.iter_mut().skip(5).step_by(13);
            some.zip(SPECIAL.iter().cycle().skip(i))
                .for_each(|(x, special)| *x = *special);
        } else {
            values.iter_mut().for_each(|x| *x *= 100.0);
        }
        encode(dtype, &values)
    };
    kernel.inputs().into_iter().enumerate().map(input).collect()
}

/// The same bits, but for those of NaN.
pub(crate) fn assert_same(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        assert!(same, "{what} {i}: {got} instead of {want}");
    }
}
