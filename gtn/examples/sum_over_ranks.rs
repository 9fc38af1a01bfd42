//! Measures how long it takes to sum an outer step's meta-gradients over ranks: the terms of the cost model
//! in docs/many-machines.md.
//!
//! `mpirun -n 4 target/release/examples/sum_over_ranks 250000 2500000`: the arguments are the sizes of
//! meta-gradients, in numbers of 4 bytes.

use gtn::error::{Error, Result};
use gtn::ranks::Ranks;
use std::time::Instant;

const REPEATS: u32 = 20;

fn main() -> Result<()> {
    let lengths: Vec<usize> = std::env::args()
        .skip(1)
        .map(|length| length.parse().map_err(Error::usage))
        .collect::<Result<_>>()?;
    let ranks = Ranks::join()?;
    let seconds = |work: &dyn Fn() -> Result<()>| -> Result<f64> {
        work()?;
        let begin = Instant::now();
        (0..REPEATS).try_for_each(|_| work())?;
        Ok(begin.elapsed().as_secs_f64() / f64::from(REPEATS))
    };
    let meeting = seconds(&|| ranks.all(true).map(|_| ()))?;
    if ranks.is_first() {
        println!(
            "{} ranks, a meeting: {:.1} µs",
            ranks.count(),
            1e6 * meeting
        );
    }
    for length in lengths {
        let own = vec![1.0; length];
        let taken = seconds(&|| {
            let mut sum = ranks.sum(length);
            sum.add(Some(own.clone()), ranks.count());
            assert_eq!(sum.total()[0], ranks.count() as f32);
            Ok(())
        })?;
        if ranks.is_first() {
            let rate = 8.0 * length as f64 / taken / 1e9;
            println!(
                "{length} numbers: {:.2} ms, {rate:.2} GB/s sent by each",
                1e3 * taken
            );
        }
    }
    Ok(())
}
