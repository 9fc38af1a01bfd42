//! Fused element-wise programs.

use super::math::Real;
use crate::program::{Arrays, Raw};
use crate::{Binary, Instr, Map, StoreKind, Unary};
use half::{bf16, f16};
use tensor::DType;

pub(crate) fn workspace(_: &Map) -> usize {
    0
}

pub(crate) fn run<T: Real>(map: &Map, arrays: &Arrays<'_>) {
    let points = map.points();
    for (i, store) in map.stores.iter().enumerate() {
        if store.is_sum() {
            let out = arrays.output(i);
            // SAFETY: checked by `Program`.
            unsafe { out.slice_mut::<u8>() }.fill(0);
        }
    }
    let mut index = vec![0; map.extents.len()];
    let mut values: Vec<T> = Vec::with_capacity(map.code.len());
    let mut sums: Vec<Vec<f64>> = map
        .stores
        .iter()
        .enumerate()
        .map(|(i, s)| {
            if s.is_sum() {
                vec![0.0; arrays.output(i).bytes / s.dtype.size()]
            } else {
                vec![]
            }
        })
        .collect();
    for point in 0..points {
        values.clear();
        for instr in &map.code {
            let value = match *instr {
                Instr::Load(i) => {
                    let at = index
                        .iter()
                        .zip(&map.loads[i].strides)
                        .map(|(a, b)| a * b)
                        .sum();
                    read(arrays.input(i), map.loads[i].dtype, at)
                }
                Instr::Const(x) => T::from_f64(x),
                Instr::Iota(axis) => T::from_f64(index[axis] as f64),
                Instr::Unary(f, x) => unary(f, values[x]),
                Instr::Binary(f, x, y) => binary(f, values[x], values[y]),
                Instr::Select(c, x, y) => {
                    if values[c] != T::ZERO {
                        values[x]
                    } else {
                        values[y]
                    }
                }
            };
            values.push(value);
        }
        for (i, store) in map.stores.iter().enumerate() {
            match &store.kind {
                StoreKind::Full => write(arrays.output(i), store.dtype, point, values[store.value]),
                StoreKind::Sum(flags) => {
                    let mut at = 0;
                    for axis in 0..index.len() {
                        if !flags[axis] {
                            at = at * map.extents[axis] + index[axis];
                        }
                    }
                    sums[i][at] += values[store.value].to_f64();
                }
            }
        }
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            if index[axis] < map.extents[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (at, &sum) in sums.iter().enumerate() {
            write(arrays.output(i), map.stores[i].dtype, at, T::from_f64(sum));
        }
    }
}

fn read<T: Real>(raw: Raw, dtype: DType, at: usize) -> T {
    // SAFETY: checked by `Program`.
    unsafe {
        T::from_f64(match dtype {
            DType::F32 => f64::from(raw.slice::<f32>()[at]),
            DType::F64 => raw.slice::<f64>()[at],
            DType::BF16 => raw.slice::<bf16>()[at].to_f64(),
            DType::F16 => raw.slice::<f16>()[at].to_f64(),
            DType::U8 => f64::from(raw.slice::<u8>()[at]),
            DType::I32 => f64::from(raw.slice::<i32>()[at]),
            DType::U32 => f64::from(raw.slice::<u32>()[at]),
        })
    }
}

fn write<T: Real>(raw: Raw, dtype: DType, at: usize, value: T) {
    let value = value.to_f64();
    // SAFETY: checked by `Program`.
    unsafe {
        match dtype {
            DType::F32 => raw.slice_mut::<f32>()[at] = value as f32,
            DType::F64 => raw.slice_mut::<f64>()[at] = value,
            DType::BF16 => raw.slice_mut::<bf16>()[at] = bf16::from_f64(value),
            DType::F16 => raw.slice_mut::<f16>()[at] = f16::from_f64(value),
            DType::U8 => raw.slice_mut::<u8>()[at] = value as u8,
            DType::I32 => raw.slice_mut::<i32>()[at] = value as i32,
            DType::U32 => raw.slice_mut::<u32>()[at] = value as u32,
        }
    }
}

fn unary<T: Real>(f: Unary, x: T) -> T {
    match f {
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.log(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => T::ONE / x.sqrt(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => T::ONE / (T::ONE + (-x).exp()),
        Unary::Abs => x.abs(),
        Unary::Sign => {
            if x > T::ZERO {
                T::ONE
            } else if x < T::ZERO {
                -T::ONE
            } else {
                T::ZERO
            }
        }
        Unary::PowI(n) => {
            let (mut power, mut square, mut left) = (T::ONE, x, n.unsigned_abs());
            while left > 0 {
                if left & 1 == 1 {
                    power = power * square;
                }
                square = square * square;
                left >>= 1;
            }
            if n < 0 { T::ONE / power } else { power }
        }
    }
}

fn binary<T: Real>(f: Binary, x: T, y: T) -> T {
    let truth = |b| if b { T::ONE } else { T::ZERO };
    #[allow(clippy::eq_op, reason = "the test for NaN")]
    let nan = x != x;
    match f {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Max => {
            if x > y || nan {
                x
            } else {
                y
            }
        }
        Binary::Min => {
            if x < y || nan {
                x
            } else {
                y
            }
        }
        Binary::Less => truth(x < y),
        Binary::LessEq => truth(x <= y),
        Binary::Equal => truth(x == y),
    }
}
