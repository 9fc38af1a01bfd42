//! Random small programs of primitives.

use super::{Recorded, apart, noise};
use autograd::check::{self, Options};
use autograd::prelude::*;
use autograd::{ConvOptions, reference};
use proptest::prelude::*;

/// What to do next: an operation and its operands, as far as there are so many.
type Step = (u8, usize, usize);

/// Results stay this small.
const MOST: usize = 48;

/// A program while it is recorded: all matrices.
struct Program<'t> {
    tape: &'t Tape,
    results: Vec<Var<'t>>,
    /// How far from a kink each operation that has one is, for every element.
    gaps: Vec<Var<'t>>,
}

impl<'t> Program<'t> {
    fn record(tape: &'t Tape, inputs: &[Var<'t>], steps: &[Step]) -> Result<Self> {
        let (results, gaps) = (inputs.to_vec(), Vec::new());
        let mut program = Self {
            tape,
            results,
            gaps,
        };
        for &(op, a, b) in steps {
            let operands = program.results.len();
            let (a, b) = (program.results[a % operands], program.results[b % operands]);
            let result = program.step(op, a, b)?;
            program.results.push(crop(result)?);
        }
        Ok(program)
    }

    fn step(&mut self, op: u8, a: Var<'t>, b: Var<'t>) -> Result<Var<'t>> {
        let (rows, columns) = extents(a);
        let kind = |i: usize, n: usize| (usize::from(op) + i) % n;
        match op % 29 {
            0 => a.tanh(),
            1 => a.sigmoid(),
            2 => a.tanh()?.exp(),
            3 => ((a * a)? + 0.5)?.log(),
            4 => ((a * a)? + 0.5)?.sqrt(),
            5 => ((a * a)? + 0.5)?.rsqrt(),
            6 => a.tanh()?.powi(3),
            7 => -a,
            8 => self.kinked(a, Var::abs),
            9 => self.kinked(a, Var::relu),
            10 => self.kinked(a, |a| a.sign()? * a.tanh()?),
            11 => a + Self::like(b, a)?,
            12 => a - Self::like(b, a)?,
            13 => a * Self::like(b, a)?.tanh()?,
            14 => a / (Self::like(b, a)?.powi(2)? + 1.0)?,
            15 => self.between(a, b, Var::max),
            16 => self.between(a, b, Var::min),
            17 => self.between(a, b, |a, b| a.less(b)?.select((a * 2.0)?, b)),
            18 => a.sum_keep(&[kind(0, 2)])? * 0.3,
            19 => a.sum_keep(&[0, 1])? * 0.2,
            20 => a.permute(&[1, 0]),
            21 => a.slice(&[rows / 2, 0], &[rows - rows / 2, columns]),
            22 => a.pad(&[kind(0, 2), 1], &[0, kind(1, 2)]),
            23 => self
                .tape
                .concat(&[a, Self::like(b, a)?.expand(a.shape())?], kind(0, 2)),
            24 => a.take(1, &[0, columns as u32 - 1, 0]),
            25 => a.reshape([columns, rows]),
            26 => {
                let b = Self::fit(b, [extents(b).0, columns])?;
                a.matmul_with(b, false, true)? * 0.3
            }
            27 => {
                // As far from a tie as its closest pair.
                let pairs = (a.reshape([rows, columns, 1])? - a.reshape([rows, 1, columns])?)?;
                let along = |axis| self.tape.iota(axis, a.dtype(), pairs.shape());
                let same = along(1)?.equal(along(2)?)?;
                self.gaps.push((pairs + same)?);
                a.max_last()
            }
            _ => {
                let image = a.reshape([1, rows, columns, 1])?;
                let kernel = Self::fit(b, [2, 2])?.reshape([1, 2, 2, 1])?;
                let y = image.conv2d(kernel, ConvOptions::padded(1))?;
                let shape = y.shape();
                y.reshape([shape[1], shape[2]])? * 0.5
            }
        }
    }

    /// `b` where it stretches to the shape of `a`, else as much of it as there is room for.
    fn like(b: Var<'t>, a: Var<'t>) -> Result<Var<'t>> {
        let (to, from) = (extents(a), extents(b));
        let stretches = |from: usize, to: usize| from == 1 || from == to;
        if stretches(from.0, to.0) && stretches(from.1, to.1) {
            return Ok(b);
        }
        Self::fit(b, [to.0, to.1])
    }

    /// Cut or filled up with zeros.
    fn fit(b: Var<'t>, to: [usize; 2]) -> Result<Var<'t>> {
        let (rows, columns) = extents(b);
        let kept = [rows.min(to[0]), columns.min(to[1])];
        let missing = [to[0] - kept[0], to[1] - kept[1]];
        b.slice(&[0, 0], &kept)?.pad(&[0, 0], &missing)
    }

    fn kinked(
        &mut self,
        a: Var<'t>,
        f: impl FnOnce(Var<'t>) -> Result<Var<'t>>,
    ) -> Result<Var<'t>> {
        self.gaps.push(a);
        f(a)
    }

    fn between(
        &mut self,
        a: Var<'t>,
        b: Var<'t>,
        f: impl FnOnce(Var<'t>, Var<'t>) -> Result<Var<'t>>,
    ) -> Result<Var<'t>> {
        let b = Self::like(b, a)?;
        self.gaps.push((a - b)?);
        f(a, b)
    }

    fn outs(&self) -> Vec<Var<'t>> {
        self.results[self.results.len().saturating_sub(2)..].to_vec()
    }
}

fn extents(a: Var<'_>) -> (usize, usize) {
    let shape = a.shape();
    (shape[0], shape[1])
}

fn crop(a: Var<'_>) -> Result<Var<'_>> {
    let (rows, columns) = extents(a);
    let columns = columns.min(MOST / 2);
    a.slice(&[0, 0], &[rows.min(MOST / columns), columns])
}

/// Whether results are of ordinary size and no kink is near: else rounding decides.
fn ordinary(points: &[Array], steps: &[Step]) -> Result<bool> {
    let tape = Tape::new();
    let mut inputs = Vec::new();
    for point in points {
        inputs.push(tape.input("input", F64, point.shape().clone())?);
    }
    let program = Program::record(&tape, &inputs, steps)?;
    let given: Vec<_> = inputs.iter().copied().zip(points).collect();
    let all = |vars: &[Var<'_>], good: fn(f64) -> bool| -> Result<bool> {
        let values = reference::run(vars, &given)?;
        Ok(values.iter().flat_map(Array::to_f64_vec).all(good))
    };
    Ok(all(&program.results, |x| x.abs() < 10.0)? && all(&program.gaps, |x| x.abs() > 1e-3)?)
}

fn points(seed: u64) -> Vec<Array> {
    let shapes = [[3, 4], [1, 4], [3, 1]];
    let each = shapes.into_iter().zip(seed..);
    each.map(|(shape, seed)| noise(Shape::from(shape), seed))
        .collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((any::<u8>(), any::<usize>(), any::<usize>()), 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn derivatives_of_random_programs(steps in steps(), seed in any::<u32>()) {
        let points = points(u64::from(seed));
        prop_assume!(ordinary(&points, &steps).unwrap());
        let options = Options { differences: 1e-6, ..Options::default() };
        let report = check::gradients(
            |tape, inputs| Ok(Program::record(tape, inputs, &steps)?.outs()),
            &points,
            &options,
        );
        prop_assert!(report.is_ok(), "{}", report.unwrap_err());
    }

    #[test]
    fn plans_of_random_programs(steps in steps(), seed in any::<u32>()) {
        let points = points(u64::from(seed));
        prop_assume!(ordinary(&points, &steps).unwrap());
        for (dtype, allowed) in [(F64, 1e-12), (F32, 1e-4)] {
            let tape = Tape::new();
            let f = |tape, inputs: &[_]| Ok(Program::record(tape, inputs, &steps)?.outs());
            let recorded = Recorded::new(&tape, f, &points, dtype).unwrap();
            let ours = recorded.planned(1).unwrap();
            prop_assert_eq!(&ours, &recorded.planned(2).unwrap());
            for (ours, theirs) in ours.iter().zip(&recorded.reference().unwrap()) {
                let error = apart(ours, theirs);
                prop_assert!(error <= allowed, "off by {error:.1e}");
            }
        }
    }
}
