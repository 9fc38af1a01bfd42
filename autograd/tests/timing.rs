//! Where time and memory of a meta-gradient go.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::prelude::*;
use autograd::{ConvOptions, Planned};
use common::{gradients, horizon, training, values};
use std::collections::BTreeMap;

fn policies() -> [Policy; 8] {
    let (one, two) = (Schedule::binomial(1), Schedule::binomial(2));
    [
        Schedule::store_all().into(),
        Schedule::per_step().into(),
        Schedule::every(3).into(),
        two.into(),
        two.with_activations(3).into(),
        two.with_prelude().into(),
        one.with_activations(2).with_prelude().into(),
        Policy::Window(4),
    ]
}

#[test]
fn a_timed_meta_gradient_is_the_same_and_has_a_lap_for_every_launch() {
    let device = Device::cpu(Some(2)).unwrap();
    let training = training(Optimizer::Adam, F32);
    let values = values(&device, &training);
    for policy in policies() {
        let horizon = horizon(policy, Mode::Mixed);
        let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
        let losses = unroll.gradient(&values).unwrap();
        let expected = gradients(&unroll);
        let (timed_losses, runs) = unroll.timed_gradient(&values).unwrap();
        assert_eq!((&timed_losses, gradients(&unroll)), (&losses, expected));

        let phases = unroll.phases();
        let mut counted = BTreeMap::new();
        for run in &runs {
            *counted.entry(run.phase).or_insert(0) += 1;
            let phase = phases.iter().find(|phase| phase.name == run.phase).unwrap();
            assert_eq!(run.laps.len(), phase.plan.launches());
            let mut from = run.begin;
            for lap in &run.laps {
                assert!(lap.begin >= from, "one after another");
                from = lap.begin + lap.time;
            }
            assert!(from <= run.begin + run.time);
        }
        let forecast: BTreeMap<_, _> = phases.iter().map(|p| (p.name, p.runs)).collect();
        assert_eq!(counted, forecast, "{policy}");
        let flops: u64 = phases.iter().map(|p| p.runs * p.plan.flops()).sum();
        assert_eq!(flops, unroll.forecast().flops, "{policy}");

        let planned = Planned::new(&training, &horizon).unwrap();
        assert_eq!(planned.forecast(), unroll.forecast());
        assert_eq!(planned.schedule(), unroll.schedule());
    }
}

fn check_peak(plan: &Plan) {
    let peak = plan.peak();
    assert!(peak.launch < plan.launches().max(1));
    let rounded = peak.held.iter().map(|held| held.bytes.next_multiple_of(64));
    assert_eq!(rounded.sum::<usize>(), peak.bytes);
    assert_eq!(peak.bytes, plan.least_bytes(), "{peak:?}\n{plan}");
    assert!(peak.held.iter().all(|held| held.launch <= peak.launch));
    let sizes: Vec<usize> = peak.held.iter().map(|held| held.bytes).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b));
}

#[test]
fn the_peak_is_held_by_what_adds_up_to_the_least_that_is_possible() {
    for optimizer in [Optimizer::Momentum, Optimizer::Adam] {
        let training = training(optimizer, F32);
        for mode in [Mode::Mixed, Mode::Reverse] {
            for schedule in [Schedule::per_step(), Schedule::store_all()] {
                let planned = Planned::new(&training, &horizon(schedule, mode)).unwrap();
                planned
                    .phases()
                    .iter()
                    .for_each(|phase| check_peak(phase.plan));
            }
        }
    }
}

#[test]
fn the_peak_is_named() {
    let tape = Tape::new();
    let x = tape.input("x", F32, [2, 8, 8, 3]).unwrap();
    let w = tape.input("w", F32, [4, 3, 3, 3]).unwrap();
    let images = x.conv2d(w, ConvOptions::padded(1)).unwrap();
    let pooled = images.tanh().unwrap().max_pool([2, 2], [2, 2], [0; 4]);
    let plan = Plan::new(&[pooled.unwrap().sum_all().unwrap()]).unwrap();
    check_peak(&plan);
    let peak = plan.peak();
    // The convolution's scratch memory, and what it makes.
    let shapes: Vec<_> = peak.held.iter().map(|held| held.shape.clone()).collect();
    assert_eq!(shapes, [None, Some([2, 8, 8, 4].into())], "{peak:?}");
    let (kernel, shape) = plan.kernels().nth(peak.launch).unwrap();
    assert_eq!(
        (kernel.name(), kernel.workspace()),
        ("conv", peak.held[0].bytes)
    );
    assert_eq!(Some(shape), peak.held[1].shape.as_ref());
}
