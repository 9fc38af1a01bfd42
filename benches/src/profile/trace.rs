//! A trace of events in the format of Chrome's `about:tracing`, which Perfetto reads as well.
//!
//! See "Trace Event Format" (Google, 2016): complete events (`ph` X) of one thread lie inside each other by
//! their times. Here a meta-gradient encloses runs of plans, and a run its launches.

use super::Timed;
use autograd::Phase;
use gtn::error::Result;
use gtn::run::run_folder::write_atomically;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Times are in microseconds since the meta-gradient began.
#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    cat: &'a str,
    ph: &'static str,
    pid: u32,
    tid: u32,
    ts: f64,
    dur: f64,
    args: Value,
}

/// Writes all launches of a meta-gradient.
pub(super) fn write(path: &Path, timed: &Timed, phases: &[Phase<'_>]) -> Result<()> {
    write_atomically(path, |file| events(file, timed, phases))
}

fn events(file: &mut dyn Write, timed: &Timed, phases: &[Phase<'_>]) -> io::Result<()> {
    let event = |name, cat, begin: Instant, time: Duration, args| {
        let since = begin.duration_since(timed.begin);
        let event = Event {
            name,
            cat,
            ph: "X",
            pid: 1,
            tid: 1,
            ts: since.as_nanos() as f64 / 1e3,
            dur: time.as_nanos() as f64 / 1e3,
            args,
        };
        serde_json::to_string(&event).map_err(io::Error::other)
    };
    let whole = event(
        "meta-gradient",
        "meta-gradient",
        timed.begin,
        timed.time,
        json!({}),
    )?;
    write!(
        file,
        "{{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n{whole}"
    )?;
    for run in &timed.runs {
        let phase = phases.iter().find(|phase| phase.name == run.phase);
        let plan = phase.expect("every run is of a phase").plan;
        let args = json!({
            "step": run.step,
            "launches": plan.launches(),
            "flops": plan.flops(),
            "bytes": plan.bytes_moved(),
        });
        write!(
            file,
            ",\n{}",
            event(run.phase, "phase", run.begin, run.time, args)?
        )?;
        for (i, ((kernel, shape), lap)) in plan.kernels().zip(&run.laps).enumerate() {
            let args = json!({
                "launch": i,
                "shape": shape.to_vec(),
                "extents": super::extents(kernel),
                "flops": kernel.flops(),
                "bytes": kernel.bytes(),
            });
            write!(
                file,
                ",\n{}",
                event(kernel.name(), "launch", lap.begin, lap.time, args)?
            )?;
        }
    }
    writeln!(file, "\n]}}")
}
