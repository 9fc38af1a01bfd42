//! Recording and planning, and the plan's run, of the smallest set-up: what the engine costs where kernels
//! cost little.
//!
//! `cargo bench -p benches --bench plans`

#![allow(
    missing_docs,
    reason = "criterion's macros write undocumented functions"
)]

use autograd::optim::Optimizer;
use autograd::{Horizon, Unroll};
use benches::{DataKind, Problem, Setup};
use criterion::{Criterion, criterion_group, criterion_main};
use kernels::Device;
use std::hint::black_box;
use tensor::DType;

fn plans(c: &mut Criterion) {
    let device = Device::cpu(None).expect("threads");
    let mut group = c.benchmark_group("meta-gradient of one step");
    for name in ["tiny", "tinymlp"] {
        let setup = Setup::parse(name, false).expect("a known set-up");
        let problem = Problem {
            steps: 1,
            rows: 1,
            batch: setup.batch,
            data: DataKind::Gen,
            learners: 1,
            dtype: DType::F32,
            optimizer: Optimizer::Momentum,
            setup,
        };
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

criterion_group!(benches, plans);
criterion_main!(benches);
