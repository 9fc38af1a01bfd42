//! Memory of the whole process: no more after a thousand outer steps.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use gtn::data::Dataset;
use gtn::outer::meta::MetaTrainer;
use gtn::run::config::{Config, Preset};
use kernels::Device;

const MIB: u64 = 1 << 20;

/// Resident memory of this process in bytes, where Linux tells.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Every outer step draws other widths and plans anew: nothing of that may stay.
#[test]
fn a_thousand_outer_steps_do_not_grow() {
    let config = Config {
        outer_steps: 1000,
        inner_steps: 2,
        inner_batch: 10,
        outer_batch: 10,
        noise: 4,
        generator_hidden: 4,
        generator_channels: [2, 1],
        widths: "1-3,1-3,2-6".parse().unwrap(),
        ..Config::preset(Preset::Quick)
    };
    let data = Dataset::drawn(1, [50, 10, 10]);
    let device = Device::cpu(Some(1)).unwrap();
    let mut trainer = MetaTrainer::new(&device, &config, data.problem()).unwrap();
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
    let (held, early) = after(100);
    let (same, late) = after(1000);
    assert_eq!(held, same);
    let (Some(early), Some(late)) = (early, late) else {
        eprintln!("skipped the process's memory: this system does not tell");
        return;
    };
    assert!(
        late < early + 2 * MIB,
        "{} KiB after 100 outer steps, {} after 1000",
        early / 1024,
        late / 1024
    );
}
