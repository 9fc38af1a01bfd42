//! Meta-gradients of the set-ups: seconds each, by schedule and mode.
//!
//! `cargo bench -p benches --bench meta_gradient`; memory and FLOPs are printed by `benches meta-grad`.

#![allow(
    missing_docs,
    reason = "criterion's macros write undocumented functions"
)]

use autograd::optim::Optimizer;
use autograd::{Horizon, Mode, Schedule, Unroll};
use benches::{DataKind, Problem, Setup};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kernels::Device;
use std::hint::black_box;
use tensor::DType;

fn problem(setup: &str, steps: usize, data: DataKind) -> Problem {
    let setup = Setup::parse(setup, false).expect("a known set-up");
    Problem {
        steps,
        rows: steps,
        batch: setup.batch,
        data,
        learners: 1,
        dtype: DType::F32,
        optimizer: Optimizer::Momentum,
        setup,
    }
}

fn unroll(device: &Device, problem: &Problem, schedule: Schedule, mode: Mode) -> Unroll {
    let steps = problem.steps;
    let horizon = Horizon::new(steps).schedule(schedule).mode(mode);
    Unroll::new(device, &problem.training(), &horizon).expect("a plan")
}

fn by_schedule(c: &mut Criterion) {
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("perceptron on free images, T = 32");
    group.sample_size(20);
    let problem = problem("C", 32, DataKind::Direct);
    let values = problem
        .load(&device, &problem.fresh(0).expect("values"))
        .expect("memory");
    for mode in [Mode::Mixed, Mode::Reverse] {
        for schedule in [
            Schedule::store_all(),
            Schedule::per_step(),
            Schedule::every(6),
        ] {
            let mut unroll = unroll(&device, &problem, schedule, mode);
            group.bench_function(BenchmarkId::new(format!("{mode:?}"), schedule), |b| {
                b.iter(|| black_box(unroll.gradient(&values).expect("finite")));
            });
        }
    }
}

/// What a new learner architecture costs before its first step.
fn planning(c: &mut Criterion) {
    let device = Device::cpu(None).expect("threads");
    let problem = problem("A", 8, DataKind::Gen);
    c.bench_function("record and plan set-up A", |b| {
        b.iter(|| black_box(unroll(&device, &problem, Schedule::per_step(), Mode::Mixed)));
    });
}

criterion_group!(benches, by_schedule, planning);
criterion_main!(benches);
