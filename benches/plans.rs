//! Recording and planning: what a new architecture costs before it runs, and how that grows with its size.
//!
//! `cargo bench -p benches --bench plans`

#![allow(
    missing_docs,
    reason = "criterion's macros write undocumented functions"
)]

use autograd::optim::Optimizer;
use autograd::{Horizon, Plan, Planned, Policy, Result, Schedule, Tape, Unroll};
use benches::{DataKind, Problem, Setup};
use criterion::{Criterion, criterion_group, criterion_main};
use kernels::Device;
use std::hint::black_box;
use tensor::DType;

fn problem(name: &str, steps: usize) -> Problem {
    let setup = Setup::parse(name, false).expect("a known set-up");
    Problem {
        steps,
        rows: steps,
        batch: setup.batch,
        data: DataKind::Gen,
        learners: 1,
        dtype: DType::F32,
        optimizer: Optimizer::Momentum,
        setup,
    }
}

/// The smallest set-ups: what the engine costs where kernels cost little.
fn small(c: &mut Criterion) {
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("meta-gradient of one step");
    for name in ["tiny", "tinymlp"] {
        let problem = problem(name, 1);
        let plan = || Unroll::new(&device, &problem.training(), &Horizon::new(1)).expect("a plan");
        group.bench_function(format!("{name}, record and plan"), |b| {
            b.iter(|| black_box(plan()));
        });
        let values = problem.fresh(0).expect("values");
        let values = problem.load(&device, &values).expect("memory");
        let mut unroll = plan();
        group.bench_function(format!("{name}, run"), |b| {
            b.iter(|| black_box(unroll.gradient(&values).expect("finite")));
        });
    }
}

/// All plans of a training: prepare, inner step, backward, outer loss, unprepare.
fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("record and plan a training");
    group.sample_size(10);
    let policies = [
        Schedule::store_all().into(),
        Schedule::per_step().into(),
        Policy::Lean,
    ];
    for policy in policies {
        let (problem, horizon) = (problem("A", 8), Horizon::new(8).schedule(policy));
        let plan = || Planned::new(&problem.training(), &horizon).expect("a plan");
        let name = format!("A, gen, T = 8, {policy}");
        println!("{name}: {}", plan().forecast());
        group.bench_function(name, |b| b.iter(|| black_box(plan())));
    }
}

/// x ← x + relu(x·V)·W for each block: the loss, its gradient, and the gradient's tangent along the weights.
fn residual(blocks: usize, segments: usize) -> Result<Plan> {
    let (dtype, tape) = (DType::F32, Tape::new());
    let mut x = tape.input("x", dtype, [256, 128])?;
    let (mut weights, mut along) = (Vec::new(), Vec::new());
    for i in 0..blocks {
        for side in ["in", "out"] {
            weights.push(tape.input(&format!("{side} {i}"), dtype, [128, 128])?);
            along.push(tape.input(&format!("along {side} {i}"), dtype, [128, 128])?);
        }
        let [v, w] = [weights[2 * i], weights[2 * i + 1]];
        x = (x + x.matmul(v)?.relu()?.matmul(w)?)?;
    }
    let loss = (x * x)?.mean_all()?;
    let gradient = tape.grad(loss, &weights)?;
    let pairs: Vec<_> = weights.into_iter().zip(along).collect();
    let tangent = tape.jvp(&gradient, &pairs)?;
    Plan::in_segments(&[vec![loss], gradient, tangent].concat(), segments)
}

/// The sum of many inputs.
fn inputs(count: usize) -> Result<Plan> {
    let tape = Tape::new();
    let input = |i: usize| tape.input(&format!("x {i}"), DType::F32, [8]);
    let vars: Vec<_> = (0..count).map(input).collect::<Result<_>>()?;
    let mut sum = vars[0];
    for &x in &vars[1..] {
        sum = (sum + x)?;
    }
    Plan::new(&[sum])
}

/// A chain of products, x ← tanh(x·W), and its gradient.
fn products(count: usize) -> Result<Plan> {
    let tape = Tape::new();
    let input = |name| tape.input(name, DType::F32, [8, 8]);
    let (x, w) = (input("x")?, input("w")?);
    let y = (0..count).try_fold(x, |y, _| y.matmul(w)?.tanh())?;
    Plan::new(&tape.grad(y.sum_all()?, &[x, w])?)
}

/// A chain of element-wise operations.
fn elementwise(count: usize) -> Result<Plan> {
    let tape = Tape::new();
    let x = tape.input("x", DType::F32, [8])?;
    let y = (0..count / 2).try_fold(x, |y, _| (y * 1.0001)?.tanh())?;
    Plan::new(&[y])
}

/// How the time grows: each of two sizes, of which the larger is ten times the smaller.
fn growth(c: &mut Criterion) {
    let mut group = c.benchmark_group("record and plan");
    group.sample_size(10);
    let mut one = |name: String, plan: &dyn Fn() -> Result<Plan>| {
        let made = plan().expect("a plan");
        let (launches, arena) = (made.launches(), made.arena_bytes());
        println!("{name}: {launches} launches, an arena of {arena} bytes");
        group.bench_function(name, |b| b.iter(|| black_box(plan())));
    };
    for blocks in [8, 64] {
        one(format!("{blocks} residual blocks"), &|| residual(blocks, 1));
    }
    one("64 residual blocks in 16 segments".into(), &|| {
        residual(64, 16)
    });
    for count in [1_000, 10_000] {
        one(format!("{count} inputs"), &|| inputs(count));
        one(format!("{count} products and their gradient"), &|| {
            products(count)
        });
        let count = 10 * count;
        one(format!("{count} element-wise operations"), &|| {
            elementwise(count)
        });
    }
}

criterion_group!(benches, small, whole, growth);
criterion_main!(benches);
