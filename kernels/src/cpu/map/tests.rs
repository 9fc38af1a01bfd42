//! Compiled maps against interpreted ones.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{BLOCK, Plan};
use crate::cpu::levels::common::maps::{UNARY, assert_same, decode, inputs, recipe};
use crate::cpu::levels::common::{Layout, at_level, levels, run};
use kernels::{Binary, Device, Float, Instr, Kernel, Load, Map, Simd, Store, StoreKind};
use proptest::prelude::*;
use std::sync::LazyLock;

/// The levels that compile.
fn compiling() -> impl Iterator<Item = Simd> {
    levels().filter(|&level| level > Simd::Baseline)
}

/// The outputs of a map of its own inputs, computed by one thread of a level.
fn outputs(map: &Map, level: Simd) -> Vec<Vec<u8>> {
    run(&at_level(1, level), Kernel::Map(map.clone()), &inputs(map))
}

/// The outputs of a level are the interpreter's.
fn assert_interpreted(map: &Map, level: Simd) {
    let [want, got] = [Simd::Baseline, level].map(|level| outputs(map, level));
    for (store, (got, want)) in map.stores.iter().zip(got.iter().zip(&want)) {
        let [got, want] = [got, want].map(|raw| decode(store.dtype, raw));
        assert_same(&got, &want, &format!("{level}, {store:?}, element"));
    }
}

/// A map with its outputs in new memory, or over inputs where they may lie.
fn layout(map: &Map, in_place: bool) -> Layout {
    let mut layout = Layout::new(Kernel::Map(map.clone()));
    let mut free: Vec<usize> = (0..map.loads.len()).filter(|_| in_place).collect();
    for (o, store) in map.stores.iter().enumerate() {
        let fits = |&i: &usize| {
            let load = &map.loads[i];
            store.kind == StoreKind::Full
                && load.dtype == store.dtype
                && load.is_contiguous(&map.extents)
        };
        if let Some(at) = free.iter().position(fits) {
            let input = layout.step.inputs[free.remove(at)];
            layout.slots[input.slot].writable = true;
            layout.step.outputs[o] = input;
        }
    }
    layout
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn compiled_maps_give_the_interpreters_bits(recipe in recipe(), in_place: bool) {
        static INTERPRETER: LazyLock<Device> = LazyLock::new(|| at_level(1, Simd::Baseline));
        static DEVICES: LazyLock<Vec<(Simd, Device)>> = LazyLock::new(|| {
            let threads = |level| [1, 2].map(|threads| (level, at_level(threads, level)));
            compiling().flat_map(threads).collect()
        });
        let map = recipe.map(&UNARY);
        let inputs = inputs(&map);
        let run = |device| layout(&map, in_place).run(device, &inputs).unwrap();
        let want = run(&INTERPRETER);
        for (level, device) in DEVICES.iter() {
            for (store, (got, want)) in map.stores.iter().zip(run(device).iter().zip(&want)) {
                let [got, want] = [got, want].map(|raw| decode(store.dtype, raw));
                assert_same(&got, &want, &format!("{level}, {store:?}, element"));
            }
        }
    }
}

/// The update of a weight-normed layer, and the sums of its squares: [128, 784] with a number per row.
fn update() -> Map {
    let load = |strides: [usize; 2]| Load {
        dtype: tensor::DType::F32,
        strides: strides.to_vec(),
    };
    let store = |value, kind| Store {
        value,
        dtype: tensor::DType::F32,
        kind,
    };
    Map {
        float: Float::F32,
        extents: vec![128, 784],
        loads: vec![load([784, 1]), load([1, 0]), load([0, 0])],
        code: vec![
            Instr::Load(0),
            Instr::Load(1),
            Instr::Load(2),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Binary(Binary::Mul, 3, 2),
            Instr::Binary(Binary::Mul, 4, 4),
        ],
        stores: vec![
            store(4, StoreKind::Full),
            store(5, StoreKind::Sum(vec![false, true])),
        ],
    }
}

/// Images [5, 196, 4 groups, 4 channels] times what there is per image and channel, per image and group, and
/// per channel: all of it, and sums over pixels.
fn groups() -> Map {
    let load = |strides: [usize; 4]| Load {
        dtype: tensor::DType::F32,
        strides: strides.to_vec(),
    };
    let store = |kind| Store {
        value: 6,
        dtype: tensor::DType::F32,
        kind,
    };
    Map {
        float: Float::F32,
        extents: vec![5, 196, 4, 4],
        loads: vec![
            load([196 * 16, 16, 4, 1]),
            load([16, 0, 4, 1]),
            load([4, 0, 1, 0]),
            load([0, 0, 4, 1]),
        ],
        code: vec![
            Instr::Load(0),
            Instr::Load(1),
            Instr::Load(2),
            Instr::Load(3),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Binary(Binary::Sub, 4, 2),
            Instr::Binary(Binary::Mul, 5, 3),
        ],
        stores: vec![
            store(StoreKind::Full),
            store(StoreKind::Sum(vec![false, true, false, false])),
        ],
    }
}

/// All of a map, and its full result alone.
fn both_and_alone(map: Map) -> [Map; 2] {
    let mut alone = map.clone();
    alone.stores.pop();
    [map, alone]
}

#[test]
fn what_repeats_in_groups_gives_the_interpreters_bits() {
    for map in both_and_alone(groups()) {
        for level in compiling() {
            assert_interpreted(&map, level);
        }
    }
}

/// Plans of common maps are one chain that needs no registers, so that blocks are long.
#[test]
fn common_maps_are_one_chain() {
    for map in [update(), groups()].into_iter().flat_map(both_and_alone) {
        for level in compiling() {
            let plan = Plan::new(&map, level).unwrap().unwrap();
            assert_eq!((plan.chains.len(), plan.full.len()), (1, 0), "{level}");
            assert!(plan.tiling.block > BLOCK, "{level}: {:?}", plan.tiling);
        }
        let plan = Plan::new(&map, Simd::Baseline).unwrap().unwrap();
        assert!(plan.chains.is_empty());
    }
}

/// A polynomial of [3, 100] numbers with more coefficients than there are registers. They are of all kinds:
/// constants, a number for all points, and one for every row.
fn polynomial() -> Map {
    let load = |strides: [usize; 2]| Load {
        dtype: tensor::DType::F32,
        strides: strides.to_vec(),
    };
    let loads = vec![load([100, 1]), load([0, 0]), load([1, 0])];
    let mut code: Vec<Instr> = (0..3).map(Instr::Load).collect();
    let mut sum = 0;
    for i in 0..40 {
        code.push(Instr::constant(f64::from(i) / 16.0 - 1.0));
        for (op, x) in [
            (Binary::Mul, 0),
            (Binary::Add, code.len() - 1),
            (Binary::Sub, 1 + i as usize % 2),
        ] {
            code.push(Instr::Binary(op, sum, x));
            sum = code.len() - 1;
        }
    }
    Map {
        float: Float::F32,
        extents: vec![3, 100],
        loads,
        code,
        stores: vec![Store {
            value: sum,
            dtype: tensor::DType::F32,
            kind: StoreKind::Full,
        }],
    }
}

#[test]
fn numbers_that_find_no_register_are_fetched_where_they_are_used() {
    let map = polynomial();
    for level in compiling() {
        let plan = Plan::new(&map, level).unwrap().unwrap();
        assert_eq!((plan.chains.len(), plan.full.len()), (1, 0), "{level}");
        assert_interpreted(&map, level);
    }
}
