//! `auto`: the fastest schedule that half of the free memory holds.

use super::*;

fn planned(horizon: &Horizon) -> Planned {
    Planned::new(&CASE.training(), horizon).unwrap()
}

/// The choice where `free` bytes are free.
fn auto(free: usize) -> Planned {
    planned(&CASE.horizon(Policy::Auto).free_bytes(free))
}

fn fixed(policy: impl Into<Policy>) -> Planned {
    planned(&CASE.horizon(policy))
}

#[test]
fn with_room_for_it_everything_is_stored() {
    let all = fixed(Schedule::store_all()).forecast();
    for free in [2 * all.bytes, 2 * all.bytes + 1, usize::MAX] {
        let chosen = auto(free);
        assert_eq!(chosen.schedule(), Schedule::store_all(), "{free}");
        assert_eq!(chosen.forecast(), all);
    }
    let chosen = auto(2 * all.bytes - 1);
    assert_ne!(chosen.schedule(), Schedule::store_all());
    assert!(chosen.forecast().bytes < all.bytes);
}

#[test]
fn with_some_room_the_choice_is_that_of_a_budget() {
    let most = fixed(Schedule::store_all()).forecast().bytes;
    let least = fixed(Schedule::binomial(1)).forecast().bytes;
    let mut different = Vec::new();
    for tenth in 0..=9 {
        let room = least + (most - least) * tenth / 9;
        let (chosen, budget) = (auto(2 * room), fixed(Policy::Budget(room)));
        assert_eq!(chosen.schedule(), budget.schedule(), "{room}");
        assert_eq!(chosen.forecast(), budget.forecast(), "{room}");
        different.push(chosen.schedule());
    }
    different.dedup();
    assert!(different.len() > 4, "{different:?}");
}

#[test]
fn without_room_it_is_nearly_the_leanest() {
    let refused = CASE.forecast(Policy::Budget(1)).unwrap_err().to_string();
    let least = refused.split("the least is ").nth(1).unwrap();
    let least: usize = least.split(' ').next().unwrap().parse().unwrap();
    let (nearly, leanest) = [least + least * 3 / 100, least]
        .map(|bytes| fixed(Policy::Budget(bytes)).forecast())
        .into();
    for free in [0, 1, least, 2 * least - 1] {
        assert_eq!(auto(free).forecast(), nearly, "{free}");
    }
    assert_eq!(auto(2 * least).forecast(), leanest);
}

#[test]
fn what_nobody_says_is_asked_of_the_device_and_what_it_does_not_know_is_lean() {
    let horizon = CASE.horizon(Policy::Auto);
    let lean = fixed(Policy::Lean);
    assert_ne!(lean.schedule(), Schedule::store_all());
    assert_eq!(planned(&horizon).schedule(), lean.schedule());
    let device = Device::cpu(Some(1)).unwrap();
    let unroll = Unroll::new(&device, &CASE.training(), &horizon).unwrap();
    let expected = match device.free_bytes() {
        Some(free) => auto(free),
        None => lean,
    };
    assert_eq!(unroll.schedule(), expected.schedule());
    // What the caller says goes before what the device says.
    let horizon = horizon.free_bytes(0);
    let unroll = Unroll::new(&device, &CASE.training(), &horizon).unwrap();
    assert_eq!(unroll.schedule(), auto(0).schedule());
}
