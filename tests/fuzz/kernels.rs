//! Random stretches of tape with every kernel: what a plan computes is what plain loops do, fused or not, on any
//! number of threads.

use crate::draw::Draw;
use autograd::prelude::*;
use autograd::{ConvOptions, reference};

/// Elements of a result, at most.
const MOST: usize = 20_000;

/// A stretch of tape while it is recorded.
struct Program<'t> {
    tape: &'t Tape,
    dtype: DType,
    given: Vec<(Var<'t>, Array)>,
    results: Vec<Var<'t>>,
}

impl<'t> Program<'t> {
    fn input(&mut self, draw: &mut Draw, shape: &[usize]) -> Result<Var<'t>> {
        let var = self.tape.input("x", self.dtype, shape)?;
        self.given.push((var, draw.array(self.dtype, shape)));
        Ok(var)
    }

    /// An extent: most are small, some are those of a vector or a tile and one more.
    fn extent(draw: &mut Draw) -> usize {
        match draw.below(12) {
            0 => draw.of(&[15, 16, 17, 31, 33, 64, 65, 129]),
            1 => 0,
            _ => draw.between(1, 9),
        }
    }

    /// Records one more operation on any of the results; none, if it does not fit.
    fn step(&mut self, draw: &mut Draw) -> Result<Option<Var<'t>>> {
        let a = draw.of(&self.results);
        let (shape, axes) = (a.shape(), a.shape().len());
        let axis = draw.below(axes.max(1));
        Ok(Some(match draw.below(22) {
            0..4 => one(draw, a)?,
            4..8 => {
                let b = self.like(draw, a)?;
                two(draw, a, b)?
            }
            8 => a.reshape([shape.count()])?,
            9 if axes > 1 => {
                let turn: Vec<usize> = (0..axes).map(|i| (i + 1) % axes).collect();
                a.permute(&turn)?
            }
            10 if axes > 0 => a.sum_keep(&[axis])?,
            11 => a.sum_all()?.reshape([1])?,
            12 if axes > 0 && shape[axis] > 1 => {
                let (mut start, mut extents) = (vec![0; axes], shape.to_vec());
                start[axis] = draw.below(shape[axis]);
                extents[axis] = draw.between(1, shape[axis] - start[axis]);
                a.slice(&start, &extents)?
            }
            13 if axes > 0 => {
                let border = |draw: &mut Draw| (0..axes).map(|_| draw.below(3)).collect::<Vec<_>>();
                a.pad(&border(draw), &border(draw))?
            }
            14 if axes > 0 => {
                let b = self.like(draw, a)?.expand(shape.clone())?;
                self.tape.concat(&[a, b, a], axis)?
            }
            15 if axes > 0 && shape[axis] > 0 => {
                let picked = draw.below(12);
                let index: Vec<u32> = (0..picked)
                    .map(|_| draw.below(shape[axis]) as u32)
                    .collect();
                a.take(axis, &index)?
            }
            16 | 17 => self.product(draw, a)?,
            18 | 19 => self.convolution(draw, a)?,
            20 if axes > 0 && shape[0] > 0 => {
                let index: Vec<i32> = (0..draw.below(9))
                    .map(|_| draw.below(shape[0]) as i32)
                    .collect();
                let var = self.tape.input("index", I32, [index.len()])?;
                self.given.push((var, Array::new([index.len()], index)?));
                a.rows(var)?
            }
            21 if axes == 4 && shape[1] > 1 && shape[2] > 1 => {
                let stride = [draw.between(1, 3), draw.between(1, 3)];
                a.max_pool([2, 2], stride, [draw.below(2), 0, draw.below(2), 1])?
            }
            _ => return Ok(None),
        }))
    }

    /// An array that stretches to the shape of another: some axes are 1.
    fn like(&mut self, draw: &mut Draw, a: Var<'t>) -> Result<Var<'t>> {
        let same: Vec<Var<'t>> = self
            .results
            .iter()
            .filter(|b| b.shape() == a.shape())
            .copied()
            .collect();
        if draw.once_in(2) {
            return Ok(draw.of(&same));
        }
        let shape = a.shape();
        let shape: Vec<usize> = shape
            .iter()
            .map(|&n| if draw.once_in(3) { 1 } else { n })
            .collect();
        self.input(draw, &shape)
    }

    /// A matrix product, with either operand turned.
    fn product(&mut self, draw: &mut Draw, a: Var<'t>) -> Result<Var<'t>> {
        let shape = a.shape();
        let rows = shape.first().copied().unwrap_or(1);
        let columns = shape.count().checked_div(rows);
        let columns = columns.unwrap_or_else(|| Self::extent(draw));
        let a = a.reshape([rows, columns])?;
        let (turned, other) = (draw.once_in(2), draw.once_in(2));
        let (inner, n) = (if turned { rows } else { columns }, Self::extent(draw));
        let b = self.input(draw, &if other { [n, inner] } else { [inner, n] })?;
        let product = a.matmul_with(b, turned, other)?;
        product * (1.0 / (1.0 + inner as f64).sqrt())
    }

    /// A convolution of images, or its transpose.
    fn convolution(&mut self, draw: &mut Draw, a: Var<'t>) -> Result<Var<'t>> {
        let image = if a.shape().len() == 4 && a.shape()[3] < 40 {
            a
        } else {
            let sides = [
                draw.between(1, 3),
                draw.between(3, 9),
                draw.between(3, 9),
                draw.between(1, 18),
            ];
            self.input(draw, &sides)?
        };
        let (shape, window) = (image.shape(), [draw.between(1, 4), draw.between(1, 4)]);
        let out = draw.of(&[1, 2, 5, 16, 17]);
        let stride = [draw.between(1, 2), draw.between(1, 2)];
        let transposed = draw.once_in(3);
        let options = ConvOptions {
            stride,
            pad: if transposed {
                [0; 4]
            } else {
                std::array::from_fn(|_| draw.below(3))
            },
        };
        let scale = 1.0 / (1.0 + (window[0] * window[1] * shape[3]) as f64).sqrt();
        let pixels =
            |axis: usize| shape[1 + axis] + options.pad[2 * axis] + options.pad[2 * axis + 1];
        if transposed {
            let w = self.input(draw, &[shape[3], window[0], window[1], out])?;
            if shape[1] * shape[2] == 0 {
                return Ok(image);
            }
            return image.conv2d_transposed(w, options)? * scale;
        }
        if pixels(0) < window[0] || pixels(1) < window[1] || shape[1] * shape[2] == 0 {
            return Ok(image);
        }
        let w = self.input(draw, &[out, window[0], window[1], shape[3]])?;
        image.conv2d(w, options)? * scale
    }
}

/// A function of one number, none of which leaves the range.
fn one<'t>(draw: &mut Draw, a: Var<'t>) -> Result<Var<'t>> {
    match draw.below(16) {
        0 => a.tanh(),
        1 => a.sigmoid(),
        2 => a.tanh()?.exp(),
        3 => ((a * a)? + 0.5)?.log(),
        4 => (a.abs()? + 0.1)?.sqrt(),
        5 => ((a * a)? + 0.5)?.rsqrt(),
        6 => a.tanh()?.powi(3),
        7 => -a,
        8 => a.relu(),
        9 => a.softplus(),
        10 => a.sin(),
        11 => a.erf(),
        12 => a.tanh()?.expm1(),
        13 => (a * a)?.log1p(),
        14 => a.tanh()?.cos(),
        _ => a * 0.75,
    }
}

fn two<'t>(draw: &mut Draw, a: Var<'t>, b: Var<'t>) -> Result<Var<'t>> {
    match draw.below(7) {
        0 => a + b,
        1 => a - b,
        2 => a * b.tanh()?,
        3 => a / ((b * b)? + 1.0)?,
        4 => a.max(b),
        5 => a.min(b),
        _ => a.less(b)?.select(a, b),
    }
}

/// Tries a program.
pub(crate) fn attempt(draw: &mut Draw) -> Result<(), String> {
    let checked = check(draw).unwrap_or_else(|error| Some(error.to_string()));
    checked.map_or(Ok(()), Err)
}

/// What is wrong.
fn check(draw: &mut Draw) -> Result<Option<String>> {
    let tape = Tape::new();
    let mut program = Program {
        tape: &tape,
        dtype: draw.of(&[F32, F64]),
        given: Vec::new(),
        results: Vec::new(),
    };
    let first: Vec<usize> = (0..draw.below(5)).map(|_| Program::extent(draw)).collect();
    let first = program.input(draw, &first)?;
    program.results.push(first);
    for _ in 0..draw.between(1, 24) {
        if let Some(result) = program.step(draw)?.filter(|x| x.shape().count() <= MOST) {
            program.results.push(result);
        }
    }
    let given: Vec<(Var<'_>, &Array)> = program
        .given
        .iter()
        .map(|(var, array)| (*var, array))
        .collect();
    let last = program.results[program.results.len() - 1];
    let run = |outs: &[Var<'_>], threads, segments| -> Result<Vec<Array>> {
        Plan::in_segments(outs, segments)?.run(&Device::cpu(Some(threads))?, &given)
    };
    let fused = run(&[last], 1, 1)?.remove(0);
    // With every result stored, little is fused.
    let apart = run(&program.results, draw.between(1, 3), 1)?;
    let cut = run(&[last], 2, draw.between(2, 4))?.remove(0);
    if fused.bytes() != apart[apart.len() - 1].bytes() || fused.bytes() != cut.bytes() {
        return Ok(Some(format!("other bits where less is fused\n{tape:?}")));
    }
    let plain = reference::run(&program.results, &given)?;
    let allowed = if program.dtype == F64 { 1e-9 } else { 1e-2 };
    for (at, (ours, plain)) in apart.iter().zip(&plain).enumerate() {
        for (x, y) in ours.to_f64_vec().into_iter().zip(plain.to_f64_vec()) {
            // Beyond what comparisons can tell apart, numbers that are almost equal are taken for different ones.
            if (x - y).abs() > allowed * (1.0 + y.abs()) || x.is_nan() != y.is_nan() {
                return Ok(Some(format!(
                    "result {at}: {x}, by plain loops {y}\n{tape:?}"
                )));
            }
        }
    }
    Ok(None)
}
