//! Single operations and fused chains, each with its derivatives, in f32 against the processor in f32 and f64.

use super::{Check, compare, same_bits, tolerance};
use crate::device::PrecisionChoice;
use crate::error::Result;
use autograd::{ArraySpec, ConvOptions, Plan, Tape, Var};
use kernels::{Device, Distribution};
use tensor::{Array, DType};

type Outs<'t> = autograd::Result<Vec<Var<'t>>>;

/// Records some results of inputs of floats, and of integers.
struct Case {
    name: &'static str,
    inputs: &'static [&'static [usize]],
    /// Integer inputs behind these: element types and counts.
    integers: &'static [(DType, usize)],
    record: for<'t> fn(&'t Tape, DType, &[Var<'t>]) -> Outs<'t>,
}

const fn case(
    name: &'static str,
    inputs: &'static [&'static [usize]],
    integers: &'static [(DType, usize)],
    record: for<'t> fn(&'t Tape, DType, &[Var<'t>]) -> Outs<'t>,
) -> Case {
    Case {
        name,
        inputs,
        integers,
        record,
    }
}

/// A case's inputs, as many as it declares.
fn declared<'t, const N: usize>(inputs: &[Var<'t>]) -> [Var<'t>; N] {
    *inputs.first_chunk().expect("as many as declared")
}

const CASES: [Case; 14] = [
    case("functions", &[&[37, 19]], &[], |_, _, inputs| {
        let x = inputs[0];
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
    }),
    case(
        "two arguments, broadcast",
        &[&[6, 1, 33], &[5, 1]],
        &[],
        |_, _, inputs| {
            let [x, y] = declared(inputs);
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
    ),
    case(
        "sums over rows, columns, all and in turns",
        &[&[40, 7, 30, 5]],
        &[],
        |_, _, inputs| {
            let x = inputs[0];
            Ok(vec![
                x.sum(&[3])?,
                x.sum(&[0])?,
                x.sum(&[0, 1, 2])?,
                x.sum(&[0, 2])?,
                x.mean_all()?,
            ])
        },
    ),
    case(
        "softmax cross-entropy of labels",
        &[&[50, 10]],
        &[(DType::I32, 50)],
        |_, dtype, inputs| {
            let [z, labels] = declared(inputs);
            let hot = labels.one_hot(10, dtype)?;
            let z = (z - z.max_last()?.stop_gradient())?;
            let log = (z - z.exp()?.sum_keep(&[1])?.log()?)?;
            Ok(vec![(hot * log)?.sum(&[1])?])
        },
    ),
    case("batch norm", &[&[8, 9, 9, 12]], &[], |_, _, inputs| {
        let x = inputs[0];
        let centred = (x - x.mean_keep(&[0, 1, 2])?)?;
        let variance = (centred * centred)?.mean_keep(&[0, 1, 2])?;
        Ok(vec![
            (centred * (variance + 1e-5)?.rsqrt()?)?.leaky_relu(0.1)?,
        ])
    }),
    case(
        "matmul, all transposes, batch, long inner index",
        &[
            &[70, 45],
            &[45, 33],
            &[3, 20, 17],
            &[3, 17, 9],
            &[2000, 12],
            &[2000, 8],
        ],
        &[],
        |_, _, inputs| {
            let [a, b, c, d, e, f] = declared(inputs);
            let turned = b.permute(&[1, 0])?;
            Ok(vec![
                a.matmul(b)?,
                a.matmul_with(turned, false, true)?,
                c.matmul(d)?,
                e.matmul_with(f, true, false)?,
            ])
        },
    ),
    case(
        "convolutions",
        &[&[6, 3, 3, 8], &[6, 2, 3, 8], &[3, 12, 11, 8]],
        &[],
        |_, _, inputs| {
            let [w, v, x] = declared(inputs);
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
    ),
    case(
        "convolutions, a batch",
        &[&[3, 2, 9, 8, 5], &[3, 6, 3, 2, 5]],
        &[],
        |_, _, inputs| {
            let [x, w] = declared(inputs);
            let y = x.conv2d(w, ConvOptions::padded(1))?;
            Ok(vec![y, y.conv2d_transposed(w, ConvOptions::padded(1))?])
        },
    ),
    case(
        "convolution of one channel",
        &[&[5, 28, 28, 1], &[16, 3, 3, 1]],
        &[],
        |_, _, inputs| {
            let [x, w] = declared(inputs);
            Ok(vec![x.conv2d(w, ConvOptions::padded(1))?])
        },
    ),
    case("pooling", &[&[3, 9, 8, 7]], &[], |_, _, inputs| {
        let x = inputs[0];
        Ok(vec![
            x.max_pool([2, 2], [2, 2], [0; 4])?,
            x.max_pool([3, 3], [2, 1], [1, 1, 0, 2])?,
        ])
    }),
    case(
        "upsample, borders, concat, slice",
        &[&[2, 5, 6, 3], &[2, 5, 6, 4]],
        &[],
        |tape, _, inputs| {
            let [x, y] = declared(inputs);
            Ok(vec![
                x.upsample(2)?,
                x.reflect_pad(1, 2)?.edge_pad(2, 1)?,
                x.pad(&[0, 1, 0, 2], &[1, 0, 3, 0])?,
                tape.concat(&[x, y], 3)?,
                x.slice(&[0, 1, 2, 0], &[2, 3, 3, 2])?,
            ])
        },
    ),
    case(
        "rows by index, constant indices",
        &[&[10, 6]],
        &[(DType::I32, 25)],
        |_, _, inputs| {
            let [x, index] = declared(inputs);
            Ok(vec![x.rows(index)?, x.take(1, &[5, 0, 0, 3])?])
        },
    ),
    case(
        "random numbers",
        &[],
        &[(DType::U32, 4)],
        |tape, dtype, inputs| {
            let key = inputs[0];
            // In f64 other bits are drawn: both compare what f32 draws.
            let draw = |op, kind| tape.random(key, op, kind, DType::F32, [999]);
            Ok(vec![
                draw(1, Distribution::Uniform)?.cast(dtype),
                draw(2, Distribution::Normal)?.cast(dtype),
            ])
        },
    ),
    case("storage types", &[&[500]], &[], |_, dtype, inputs| {
        let x = inputs[0];
        let through = |to| x.cast(to).cast(dtype);
        Ok(vec![through(DType::BF16), through(DType::F16)])
    }),
];

/// Noise for floats, small numbers for indices.
pub(super) fn array(spec: &ArraySpec, seed: usize) -> Array {
    let range = if spec.dtype.is_float() {
        [-1.0, 1.0]
    } else {
        [0.0, 10.0]
    };
    // Drawn in f32, so that f32 and f64 get the same numbers.
    let numbers = Array::uniform(DType::F32, spec.shape.clone(), range, seed as u64);
    numbers.cast(spec.dtype)
}

/// Results, then the gradients of the sum of their squares.
fn results(device: &Device, case: &Case, dtype: DType) -> autograd::Result<Vec<Array>> {
    let tape = Tape::new();
    let floats = case
        .inputs
        .iter()
        .map(|shape| ArraySpec::new("x", dtype, *shape));
    let integers = case
        .integers
        .iter()
        .map(|(dtype, count)| ArraySpec::new("index", *dtype, [*count]));
    let specs: Vec<ArraySpec> = floats.chain(integers).collect();
    let inputs = specs
        .iter()
        .map(|spec| tape.input(&spec.name, spec.dtype, spec.shape.clone()))
        .collect::<autograd::Result<Vec<_>>>()?;
    let mut outs = (case.record)(&tape, dtype, &inputs)?;
    let squares = outs
        .iter()
        .map(|&out| (out * out)?.sum_all())
        .collect::<autograd::Result<Vec<_>>>()?;
    let floats = &inputs[..case.inputs.len()];
    if !floats.is_empty() {
        outs.extend(tape.grad(tape.sum_of(&squares)?, floats)?);
    }
    let numbers = specs.iter().enumerate();
    let arrays: Vec<Array> = numbers.map(|(i, spec)| array(spec, i)).collect();
    let given: Vec<_> = inputs.into_iter().zip(&arrays).collect();
    Plan::new(&outs)?.run(device, &given)
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
