//! Elements in memory and values in registers, and the operations on them: those of the processor, step for step.

use super::ptx::{Kind, Reg, Text};
use crate::{Binary, Float, Instr, Unary};
use tensor::DType;

fn kind(float: Float) -> Kind {
    match float {
        Float::F32 => Kind::F32,
        Float::F64 => Kind::F64,
    }
}

fn suffix(float: Float) -> &'static str {
    match float {
        Float::F32 => "f32",
        Float::F64 => "f64",
    }
}

/// A number, by its bits.
pub(super) fn constant(text: &mut Text, value: f64, float: Float) -> Reg {
    match float {
        Float::F32 => text.value(
            Kind::F32,
            "mov.f32",
            format_args!("0f{:08X}", (value as f32).to_bits()),
        ),
        Float::F64 => text.value(
            Kind::F64,
            "mov.f64",
            format_args!("0d{:016X}", value.to_bits()),
        ),
    }
}

/// An index along an axis as a value: the sum of what the kept and the reduced point add to it.
pub(super) fn index(text: &mut Text, kept: Option<Reg>, reduced: Option<Reg>, float: Float) -> Reg {
    let sum = match (kept, reduced) {
        (Some(kept), Some(reduced)) => text.word("add.u32", kept, reduced),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return constant(text, 0.0, float),
    };
    let op = format!("cvt.rn.{}.u32", suffix(float));
    text.value(kind(float), op, sum)
}

/// The element at an address as a value.
pub(super) fn load(text: &mut Text, dtype: DType, address: Reg, float: Float) -> Reg {
    let place = format!("[{address}]");
    let (to, kind) = (suffix(float), kind(float));
    let single = match dtype {
        DType::U8 | DType::I32 | DType::U32 => {
            let (load, from) = match dtype {
                DType::U8 => ("ld.global.u8", "u32"),
                DType::I32 => ("ld.global.u32", "s32"),
                _ => ("ld.global.u32", "u32"),
            };
            let whole = text.value(Kind::B32, load, place);
            return text.value(kind, format_args!("cvt.rn.{to}.{from}"), whole);
        }
        DType::F64 => {
            let double = text.value(Kind::F64, "ld.global.f64", place);
            return match float {
                Float::F32 => text.value(kind, "cvt.rn.f32.f64", double),
                Float::F64 => double,
            };
        }
        DType::F32 => text.value(Kind::F32, "ld.global.f32", place),
        DType::BF16 => {
            let half = text.value(Kind::B32, "ld.global.u16", place);
            let bits = text.word("shl.b32", half, 16);
            text.value(Kind::F32, "mov.b32", bits)
        }
        DType::F16 => {
            let half = text.value(Kind::B16, "ld.global.b16", place);
            text.value(Kind::F32, "cvt.f32.f16", half)
        }
    };
    match float {
        Float::F32 => single,
        Float::F64 => text.value(kind, "cvt.f64.f32", single),
    }
}

/// Writes a value to a place in memory, if it exists. In integers, numbers out of range saturate and NaN is 0.
pub(super) fn store(
    text: &mut Text,
    dtype: DType,
    place: &str,
    value: Reg,
    float: Float,
    exists: Option<Reg>,
) {
    let from = suffix(float);
    let single = |text: &mut Text| match float {
        Float::F32 => value,
        Float::F64 => text.value(Kind::F32, "cvt.rn.f32.f64", value),
    };
    let (store, element) = match dtype {
        DType::F32 => ("st.global.f32", single(text)),
        DType::F64 => match float {
            Float::F32 => ("st.global.f64", text.value(Kind::F64, "cvt.f64.f32", value)),
            Float::F64 => ("st.global.f64", value),
        },
        DType::U8 => {
            let whole = text.value(Kind::B32, format_args!("cvt.rzi.u32.{from}"), value);
            ("st.global.u8", text.word("min.u32", whole, 255))
        }
        DType::I32 => {
            let op = format!("cvt.rzi.s32.{from}");
            ("st.global.u32", text.value(Kind::B32, op, value))
        }
        DType::U32 => {
            let op = format!("cvt.rzi.u32.{from}");
            ("st.global.u32", text.value(Kind::B32, op, value))
        }
        DType::BF16 | DType::F16 => {
            let to = if dtype == DType::F16 { "f16" } else { "bf16" };
            let single = match float {
                Float::F32 => value,
                Float::F64 => odd_single(text, value),
            };
            let op = format!("cvt.rn.{to}.f32");
            ("st.global.b16", text.value(Kind::B16, op, single))
        }
    };
    match exists {
        Some(flag) => text.line(format_args!("@{flag} {store} [{place}], {element}")),
        None => text.line(format_args!("{store} [{place}], {element}")),
    }
}

/// A number of f64 in f32, rounded to odd: what is rounded again is then rounded as if it were the number itself (Boldo and
/// Melquiond 2008).
fn odd_single(text: &mut Text, value: Reg) -> Reg {
    let nearer_zero = text.value(Kind::F32, "cvt.rz.f32.f64", value);
    let back = text.value(Kind::F64, "cvt.f64.f32", nearer_zero);
    let is_inexact = text.flag("neu.f64", back, value);
    let bits = text.value(Kind::B32, "mov.b32", nearer_zero);
    let odd = text.word("or.b32", bits, 1);
    let either = format_args!("{odd}, {bits}, {is_inexact}").to_string();
    let bits = text.value(Kind::B32, "selp.b32", either);
    text.value(Kind::F32, "mov.b32", bits)
}

/// What an instruction that works on values makes of its operands.
pub(super) fn apply(text: &mut Text, instr: Instr, operands: &[Reg], float: Float) -> Reg {
    match (instr, operands) {
        (Instr::Unary(f, _), &[x]) => unary(text, f, x, float),
        (Instr::Binary(f, ..), &[x, y]) => binary(text, f, [x, y], float),
        (Instr::Select(..), &[x, y, z]) => {
            let zero = constant(text, 0.0, float);
            let is_zero = text.flag(format_args!("eq.{}", suffix(float)), x, zero);
            select(text, is_zero, z, y, float)
        }
        _ => unreachable!("loads, constants and indices have no operands"),
    }
}

/// The first where the flag is set, else the second.
fn select(text: &mut Text, flag: Reg, first: Reg, second: Reg, float: Float) -> Reg {
    let op = format!("selp.{}", suffix(float));
    text.value(kind(float), op, format_args!("{first}, {second}, {flag}"))
}

/// The functions of `functions.cu`, by name.
fn function(f: Unary) -> Option<&'static str> {
    match f {
        Unary::Exp => Some("map_exp"),
        Unary::Log => Some("map_log"),
        Unary::Tanh => Some("map_tanh"),
        Unary::Sigmoid => Some("map_sigmoid"),
        Unary::TanhSlope => Some("map_tanh_slope"),
        Unary::SigmoidSlope => Some("map_sigmoid_slope"),
        Unary::Softplus => Some("map_softplus"),
        Unary::Log1p => Some("map_log1p"),
        Unary::Expm1 => Some("map_expm1"),
        Unary::Sin => Some("map_sin"),
        Unary::Cos => Some("map_cos"),
        Unary::Erf => Some("map_erf"),
        Unary::Erfc => Some("map_erfc"),
        Unary::Neg | Unary::Sqrt | Unary::Rsqrt | Unary::Abs | Unary::Sign | Unary::PowI(_) => None,
    }
}

/// Calls a function of f32.
fn call(text: &mut Text, name: &str, arguments: &[Reg]) -> Reg {
    text.plain("{ .param .b32 x0; .param .b32 x1; .param .b32 y;");
    for (i, argument) in arguments.iter().enumerate() {
        text.line(format_args!("st.param.f32 [x{i}], {argument}"));
    }
    let list = ["x0", "x0, x1"][arguments.len() - 1];
    text.line(format_args!("call (y), {name}, ({list})"));
    let result = text.value(Kind::F32, "ld.param.f32", "[y]");
    text.plain("}");
    result
}

fn unary(text: &mut Text, f: Unary, x: Reg, float: Float) -> Reg {
    let (kind, of) = (kind(float), suffix(float));
    if let Some(name) = function(f) {
        return call(text, name, &[x]);
    }
    match f {
        Unary::Neg => text.value(kind, format_args!("neg.{of}"), x),
        Unary::Abs => text.value(kind, format_args!("abs.{of}"), x),
        Unary::Sqrt => text.value(kind, format_args!("sqrt.rn.{of}"), x),
        Unary::Rsqrt => {
            let root = text.value(kind, format_args!("sqrt.rn.{of}"), x);
            text.value(kind, format_args!("rcp.rn.{of}"), root)
        }
        Unary::Sign => {
            let [zero, one] = [0.0, 1.0].map(|number| constant(text, number, float));
            let [above, below] = ["gt", "lt"].map(|op| {
                let flag = text.flag(format_args!("{op}.{of}"), x, zero);
                select(text, flag, one, zero, float)
            });
            let sign = binary(text, Binary::Sub, [above, below], float);
            let is_nan = text.flag(format_args!("nan.{of}"), x, x);
            select(text, is_nan, x, sign, float)
        }
        Unary::PowI(n) => whole_power(text, x, n, float),
        _ => unreachable!("called by name"),
    }
}

/// xⁿ by the multiplications of the processor.
fn whole_power(text: &mut Text, x: Reg, n: i32, float: Float) -> Reg {
    let mut square = x;
    let mut power = None;
    let mut left = n.unsigned_abs();
    while left > 0 {
        if left & 1 == 1 {
            // One times x is x.
            power = Some(match power {
                None => square,
                Some(power) => binary(text, Binary::Mul, [power, square], float),
            });
        }
        left >>= 1;
        if left > 0 {
            square = binary(text, Binary::Mul, [square, square], float);
        }
    }
    let Some(power) = power else {
        return constant(text, 1.0, float);
    };
    if n < 0 {
        text.value(kind(float), format_args!("rcp.rn.{}", suffix(float)), power)
    } else {
        power
    }
}

fn binary(text: &mut Text, f: Binary, [x, y]: [Reg; 2], float: Float) -> Reg {
    let (kind, of) = (kind(float), suffix(float));
    let mut plain = |op: &str| {
        let op = format!("{op}.rn.{of}");
        text.value(kind, op, format_args!("{x}, {y}"))
    };
    match f {
        Binary::Add => plain("add"),
        Binary::Sub => plain("sub"),
        Binary::Mul => plain("mul"),
        Binary::Div => plain("div"),
        Binary::StrongMul => {
            let product = plain("mul");
            // NaN of a factor that is zero becomes zero.
            let zero = constant(text, 0.0, float);
            let first = text.flag(format_args!("eq.{of}"), x, zero);
            let operands = format!("{y}, {zero}, {first}");
            let either = text.value(Kind::Flag, format_args!("setp.eq.or.{of}"), operands);
            let operands = format!("{product}, {product}, {either}");
            let replaced = text.value(Kind::Flag, format_args!("setp.nan.and.{of}"), operands);
            select(text, replaced, zero, product, float)
        }
        Binary::Pow => call(text, "map_pow", &[x, y]),
        // NaN if either is: x if it is NaN, and y where the comparison fails because y is.
        Binary::Max | Binary::Min => {
            let op = if f == Binary::Max { "gt" } else { "lt" };
            let beyond = text.flag(format_args!("{op}.{of}"), x, y);
            let operands = format!("{x}, {x}, {beyond}");
            let first = text.value(Kind::Flag, format_args!("setp.nan.or.{of}"), operands);
            select(text, first, x, y, float)
        }
        Binary::Less | Binary::LessEq | Binary::Equal => {
            let op = match f {
                Binary::Less => "lt",
                Binary::LessEq => "le",
                _ => "eq",
            };
            let flag = text.flag(format_args!("{op}.{of}"), x, y);
            let [one, zero] = [1.0, 0.0].map(|number| constant(text, number, float));
            select(text, flag, one, zero, float)
        }
    }
}
