//! Single operations and fused chains, each with its derivatives, in f32 against the processor in f32 and f64.

use super::{Check, compare, same_bits, tolerance};
use crate::device::PrecisionChoice;
use anyhow::Result;
use autograd::{ConvOptions, Plan, Port, Tape, Var};
use kernels::{Device, Distribution};
use tensor::{Array, DType};

type Outs<'t> = autograd::Result<Vec<Var<'t>>>;

/// Records some results of inputs of floats, and of integers that it declares itself.
struct Case {
    name: &'static str,
    inputs: &'static [&'static [usize]],
    record: for<'t> fn(&'t Tape, DType, &[Var<'t>]) -> Outs<'t>,
}

const CASES: [Case; 14] = [
    Case {
        name: "functions",
        inputs: &[&[37, 19]],
        record: |_, _, inputs| {
            let &[x] = inputs else {
                unreachable!("as many as declared")
            };
            let size = (x.abs()? + 0.5)?;
            let all = [
                x.exp()?,
                size.log()?,
                size.sqrt()?,
                size.rsqrt()?,
                x.tanh()?,
                x.sigmoid()?,
                x.powi(3)?,
                size.powi(-2)?,
                x.relu()?,
                x.leaky_relu(0.1)?,
                x.sign()?,
            ];
            Ok(all.to_vec())
        },
    },
    Case {
        name: "two arguments, broadcast",
        inputs: &[&[6, 1, 33], &[5, 1]],
        record: |_, _, inputs| {
            let &[x, y] = inputs else {
                unreachable!("as many as declared")
            };
            let less = x.less(y)?;
            Ok(vec![
                (x + y)?,
                (x - y)?,
                (x * y)?,
                (x / ((y * y)? + 1.0)?)?,
                x.max(y)?,
                x.min(y)?,
                less,
                less.select(x, y)?,
            ])
        },
    },
    Case {
        name: "sums over rows, columns, all and in turns",
        inputs: &[&[40, 7, 30, 5]],
        record: |_, _, inputs| {
            let &[x] = inputs else {
                unreachable!("as many as declared")
            };
            Ok(vec![
                x.sum(&[3])?,
                x.sum(&[0])?,
                x.sum(&[0, 1, 2])?,
                x.sum(&[0, 2])?,
                x.mean_all()?,
            ])
        },
    },
    Case {
        name: "softmax cross-entropy of labels",
        inputs: &[&[50, 10]],
        record: |tape, dtype, inputs| {
            let &[z] = inputs else {
                unreachable!("as many as declared")
            };
            let hot = tape.input("labels", DType::I32, [50])?.one_hot(10, dtype)?;
            let z = (z - z.max_last()?.stop_gradient())?;
            let log = (z - z.exp()?.sum_keep(&[1])?.log()?)?;
            Ok(vec![(hot * log)?.sum(&[1])?])
        },
    },
    Case {
        name: "batch norm",
        inputs: &[&[8, 9, 9, 12]],
        record: |_, _, inputs| {
            let &[x] = inputs else {
                unreachable!("as many as declared")
            };
            let centred = (x - x.mean_keep(&[0, 1, 2])?)?;
            let variance = (centred * centred)?.mean_keep(&[0, 1, 2])?;
            Ok(vec![
                (centred * (variance + 1e-5)?.rsqrt()?)?.leaky_relu(0.1)?,
            ])
        },
    },
    Case {
        name: "matmul, all transposes, batch, long inner index",
        inputs: &[
            &[70, 45],
            &[45, 33],
            &[3, 20, 17],
            &[3, 17, 9],
            &[2000, 12],
            &[2000, 8],
        ],
        record: |_, _, inputs| {
            let &[a, b, c, d, e, f] = inputs else {
                unreachable!("as many as declared")
            };
            let turned = b.permute(&[1, 0])?;
            Ok(vec![
                a.matmul(b)?,
                a.matmul_with(turned, false, true)?,
                c.matmul(d)?,
                e.matmul_with(f, true, false)?,
            ])
        },
    },
    Case {
        name: "convolutions",
        inputs: &[&[6, 3, 3, 8], &[6, 2, 3, 8], &[3, 12, 11, 8]],
        record: |_, _, inputs| {
            let &[w, v, x] = inputs else {
                unreachable!("as many as declared")
            };
            let strided = ConvOptions {
                stride: [2, 1],
                ..ConvOptions::padded(1)
            };
            let y = x.conv2d(w, ConvOptions::padded(1))?;
            Ok(vec![
                y,
                x.conv2d(v, strided)?,
                y.conv2d_transposed(w, ConvOptions::padded(1))?,
            ])
        },
    },
    Case {
        name: "convolutions, a batch",
        inputs: &[&[3, 2, 9, 8, 5], &[3, 6, 3, 2, 5]],
        record: |_, _, inputs| {
            let &[x, w] = inputs else {
                unreachable!("as many as declared")
            };
            let y = x.conv2d(w, ConvOptions::padded(1))?;
            Ok(vec![y, y.conv2d_transposed(w, ConvOptions::padded(1))?])
        },
    },
    Case {
        name: "convolution of one channel",
        inputs: &[&[5, 28, 28, 1], &[16, 3, 3, 1]],
        record: |_, _, inputs| {
            let &[x, w] = inputs else {
                unreachable!("as many as declared")
            };
            Ok(vec![x.conv2d(w, ConvOptions::padded(1))?])
        },
    },
    Case {
        name: "pooling",
        inputs: &[&[3, 9, 8, 7]],
        record: |_, _, inputs| {
            let &[x] = inputs else {
                unreachable!("as many as declared")
            };
            Ok(vec![
                x.max_pool([2, 2], [2, 2], [0; 4])?,
                x.max_pool([3, 3], [2, 1], [1, 1, 0, 2])?,
            ])
        },
    },
    Case {
        name: "upsample, borders, concat, slice",
        inputs: &[&[2, 5, 6, 3], &[2, 5, 6, 4]],
        record: |tape, _, inputs| {
            let &[x, y] = inputs else {
                unreachable!("as many as declared")
            };
            Ok(vec![
                x.upsample(2)?,
                x.reflect_pad(1, 2)?.edge_pad(2, 1)?,
                x.pad(&[0, 1, 0, 2], &[1, 0, 3, 0])?,
                tape.concat(&[x, y], 3)?,
                x.slice(&[0, 1, 2, 0], &[2, 3, 3, 2])?,
            ])
        },
    },
    Case {
        name: "rows by index, constant indices",
        inputs: &[&[10, 6]],
        record: |tape, _, inputs| {
            let &[x] = inputs else {
                unreachable!("as many as declared")
            };
            let index = tape.input("index", DType::I32, [25])?;
            Ok(vec![x.rows(index)?, x.take(1, &[5, 0, 0, 3])?])
        },
    },
    Case {
        name: "random numbers",
        inputs: &[],
        record: |tape, dtype, _| {
            let key = tape.input("key", DType::U32, [4])?;
            // In f64 other bits are drawn: both compare what f32 draws.
            let draw = |op, kind| tape.random(key, op, kind, DType::F32, [999]);
            Ok(vec![
                draw(1, Distribution::Uniform)?.cast(dtype),
                draw(2, Distribution::Normal)?.cast(dtype),
            ])
        },
    },
    Case {
        name: "storage types",
        inputs: &[&[500]],
        record: |_, dtype, inputs| {
            let &[x] = inputs else {
                unreachable!("as many as declared")
            };
            let through = |to| x.cast(to).cast(dtype);
            Ok(vec![through(DType::BF16), through(DType::F16)])
        },
    },
];

/// Results, then the gradients of the sum of their squares.
fn plan(case: &Case, dtype: DType) -> autograd::Result<Plan> {
    let tape = Tape::new();
    let declare =
        |(i, shape): (usize, &&[usize])| tape.input(&format!("x{i}"), dtype, shape.to_vec());
    let inputs = case
        .inputs
        .iter()
        .enumerate()
        .map(declare)
        .collect::<autograd::Result<Vec<_>>>()?;
    let mut outs = (case.record)(&tape, dtype, &inputs)?;
    let squares = outs
        .iter()
        .map(|&out| (out * out)?.sum_all())
        .collect::<autograd::Result<Vec<_>>>()?;
    if !inputs.is_empty() {
        outs.extend(tape.grad(tape.sum_of(&squares)?, &inputs)?);
    }
    Plan::new(&outs)
}

/// Noise for floats, small numbers for indices.
pub(super) fn array(port: &Port, seed: usize) -> Array {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 33) as f64 / f64::from(1_u32 << 31);
        // The same number in f32 and f64.
        if port.dtype.is_float() {
            f64::from((2.0 * unit - 1.0) as f32)
        } else {
            (10.0 * unit).floor()
        }
    };
    let numbers: Vec<f64> = (0..port.shape.count()).map(next).collect();
    let array = Array::new(port.shape.clone(), numbers).expect("as many numbers as the shape has");
    array.cast(port.dtype)
}

fn results(device: &Device, case: &Case, dtype: DType) -> autograd::Result<Vec<Array>> {
    let plan = plan(case, dtype)?;
    let arrays: Vec<Array> = plan
        .inputs()
        .iter()
        .enumerate()
        .map(|(i, port)| array(port, i))
        .collect();
    let names = plan.inputs().iter().map(|port| &port.name[..]);
    plan.run(device, &names.zip(&arrays).collect::<Vec<_>>())
}

pub(super) fn run(
    device: &Device,
    precision: PrecisionChoice,
    note: &mut impl FnMut(Check),
) -> Result<()> {
    let cpu = Device::cpu(None)?;
    for case in &CASES {
        let found = results(device, case, DType::F32)?;
        let name = case.name;
        let expected = results(&cpu, case, DType::F32)?;
        note(compare(
            format!("{name}, f32"),
            &found,
            &expected,
            tolerance(precision),
        ));
        let exact = results(&cpu, case, DType::F64)?;
        note(compare(
            format!("{name}, f64"),
            &found,
            &exact,
            2.0 * tolerance(precision),
        ));
        let again = results(device, case, DType::F32)?;
        note(same_bits(format!("{name}, again"), &again, &found));
    }
    Ok(())
}
