//! Memory of the whole process: no more after a thousand outer steps.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use gtn::data::Dataset;
use gtn::outer::meta::MetaTrainer;
use gtn::run::config::{Config, Preset};
use kernels::Device;
use std::sync::Mutex;

const MIB: u64 = 1 << 20;

/// Resident memory of this process in bytes, where Linux tells.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn config() -> Config {
    Config {
        outer_steps: 1000,
        inner_steps: 2,
        inner_batch: 10,
        outer_batch: 10,
        noise: 4,
        generator_hidden: 4,
        generator_channels: [2, 1],
        widths: "1-3,1-3,2-6".parse().unwrap(),
        ..Config::preset(Preset::Quick)
    }
}

/// The process's memory is that of both tests.
static ALONE: Mutex<()> = Mutex::new(());

/// The most of the device's memory that is held after one of the last 100 outer steps, and the process's memory, after so
/// many steps and after more.
fn held(config: &Config, [few, many]: [u64; 2]) -> [(usize, Option<u64>); 2] {
    let data = Dataset::drawn(1, [50, 10, 10]);
    let device = Device::cpu(Some(1)).unwrap();
    let mut trainer = MetaTrainer::new(&device, config, data.problem()).unwrap();
    // A trainer keeps what it planned for its last learner, so the most of some steps is compared.
    let mut after = |steps: u64| {
        let mut most = 0;
        while trainer.outer_step() < steps {
            trainer.step(&data).unwrap();
            if trainer.outer_step() > steps - 100 {
                most = most.max(device.held_bytes());
            }
        }
        (most, resident())
    };
    [after(few), after(many)]
}

fn assert_same(early: Option<u64>, late: Option<u64>, more: u64) {
    let (Some(early), Some(late)) = (early, late) else {
        eprintln!("skipped the process's memory: this system does not tell");
        return;
    };
    assert!(
        late < early + more,
        "{} KiB after few outer steps, {} after many",
        early / 1024,
        late / 1024
    );
}

/// Every outer step draws other widths and plans anew: nothing of that may stay.
#[test]
fn a_thousand_outer_steps_do_not_grow() {
    let _alone = ALONE.lock();
    let [(held, early), (same, late)] = held(&config(), [100, 1000]);
    assert_eq!(held, same);
    assert_same(early, late, 2 * MIB);
}

/// Two learners of the built-in population in every outer step, hundreds of structures in all.
#[test]
fn a_population_does_not_grow() {
    let _alone = ALONE.lock();
    let config = Config {
        learner: "mixed".parse().unwrap(),
        widths: "none".parse().unwrap(),
        learners_per_step: 2,
        ..config()
    };
    let [(held, early), (same, late)] = held(&config, [100, 200]);
    // The widest of all may come late.
    assert!(same < held + held / 4, "{held} bytes, then {same}");
    assert_same(early, late, 8 * MIB);
}
