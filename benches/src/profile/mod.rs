//! `benches profile`

mod trace;

use crate::Single;
use crate::subject::{SubjectArgs, any_values};
use autograd::{Phase, TimedRun, Unroll, Values};
use clap::Args;
use gtn::cli::{Outcome, say};
use gtn::error::Result;
use kernels::{Device, Kernel, Pair};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Settings of `benches profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Meta-gradients that are timed launch by launch, after one to warm up; the fastest is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    repeats: u64,
    /// Write its launches to a trace file, for Perfetto or Chrome's tracing page
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
}

/// A meta-gradient with every launch timed.
struct Timed {
    begin: Instant,
    time: Duration,
    runs: Vec<TimedRun>,
}

/// Totals over some launches.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sum {
    launches: u64,
    seconds: f64,
    flops: u64,
    bytes: u64,
}

/// Totals of a kind of kernel, or of the time between launches.
#[derive(Debug, Serialize)]
struct Part {
    kind: &'static str,
    /// The share of the whole meta-gradient's time.
    share: f64,
    gflops: f64,
    gbytes: f64,
    #[serde(flatten)]
    sum: Sum,
}

#[derive(Debug, Serialize)]
struct PhaseTime {
    phase: &'static str,
    runs: u64,
    seconds: f64,
    share: f64,
    kinds: Vec<Part>,
}

/// A contraction of one shape: inside of the meta-gradient, and by itself.
#[derive(Debug, Serialize)]
struct Contraction {
    kernel: &'static str,
    shape: String,
    share: f64,
    gflops: f64,
    alone_gflops: f64,
    /// The speed inside as a share of the speed alone.
    of_alone: f64,
    #[serde(flatten)]
    sum: Sum,
}

#[derive(Serialize)]
struct Report {
    command: &'static str,
    subject: String,
    device: String,
    threads: usize,
    schedule: String,
    /// Seconds of a normal meta-gradient, and of one with every launch timed: the least of the repeats.
    seconds: f64,
    timed_seconds: f64,
    /// By kind of kernel, and last the time between launches. The shares add up to one.
    kinds: Vec<Part>,
    phases: Vec<PhaseTime>,
    outside_contractions: f64,
    /// All contractions: their speed inside as a share of their speed alone.
    of_alone: Option<f64>,
    contractions: Vec<Contraction>,
}

/// The name of the time in which no kernel runs.
const BETWEEN: &str = "between launches";

/// Seconds for which a contraction is run by itself.
const SERIES: f64 = 0.05;

pub(super) fn run(args: &ProfileArgs) -> Result<Outcome> {
    let subject = args.subject.subject()?;
    let device = args.subject.machine.device()?;
    let training = subject.training();
    let values = any_values(&device, &training)?;
    let mut unroll = Unroll::new(&device, &training, &subject.horizon)?;
    let (seconds, timed) = measure(&device, &mut unroll, &values, args.repeats)?;
    let phases = unroll.phases();
    if let Some(path) = &args.trace {
        trace::write(path, &timed, &phases)?;
        say(&format!("Trace: {}", path.display()));
    }
    let whole = timed.time.as_secs_f64();
    let contractions = contractions(&device, &timed, &phases)?;
    let inside: f64 = contractions.iter().map(|one| one.sum.seconds).sum();
    let alone: f64 = contractions
        .iter()
        .map(|one| one.sum.seconds * one.of_alone)
        .sum();
    let report = Report {
        command: "profile",
        subject: subject.name(),
        device: device.name().to_owned(),
        threads: device.threads(),
        schedule: unroll.schedule().to_string(),
        seconds,
        timed_seconds: whole,
        kinds: kinds(&timed.runs, &phases, whole, timed.time),
        phases: phases.iter().map(|phase| of_phase(&timed, phase)).collect(),
        outside_contractions: 1.0 - inside / whole,
        of_alone: (inside > 0.0).then(|| alone / inside),
        contractions,
    };
    report.show();
    args.subject.machine.print(&report)?;
    Ok(Outcome::Done)
}

/// The least seconds of a meta-gradient, and the fastest one with every launch timed. The two take turns, so
/// that changes in the machine's speed affect both alike.
fn measure(
    device: &Device,
    unroll: &mut Unroll,
    values: &Values,
    repeats: u64,
) -> Result<(f64, Timed)> {
    unroll.gradient(values)?;
    let (mut least, mut fastest) = (f64::INFINITY, None::<Timed>);
    for _ in 0..repeats {
        device.wait()?;
        let begin = Instant::now();
        unroll.gradient(values)?;
        least = least.min(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        let (_, runs) = unroll.timed_gradient(values)?;
        let time = begin.elapsed();
        if fastest.as_ref().is_none_or(|fastest| time < fastest.time) {
            fastest = Some(Timed { begin, time, runs });
        }
    }
    Ok((least, fastest.expect("at least one repeat")))
}

/// The launches of a run with their times.
fn launches<'a>(
    run: &'a TimedRun,
    phases: &'a [Phase<'a>],
) -> impl Iterator<Item = (&'a Kernel, Duration)> {
    let phase = phases.iter().find(|phase| phase.name == run.phase);
    let kernels = phase.expect("every run is of a phase").plan.kernels();
    kernels
        .zip(&run.laps)
        .map(|((kernel, _), lap)| (kernel, lap.time))
}

impl Sum {
    fn add(&mut self, kernel: &Kernel, time: Duration) {
        self.launches += 1;
        self.seconds += time.as_secs_f64();
        self.flops += kernel.flops();
        self.bytes += kernel.bytes();
    }

    fn per_second(&self, count: u64) -> f64 {
        let giga = count as f64 / 1e9;
        if self.seconds > 0.0 {
            giga / self.seconds
        } else {
            0.0
        }
    }
}

/// Totals of the launches of some runs by kind, and the part of the runs' `time` between launches. Shares are
/// of `whole` seconds.
fn kinds<'a>(
    runs: impl IntoIterator<Item = &'a TimedRun>,
    phases: &[Phase<'_>],
    whole: f64,
    time: Duration,
) -> Vec<Part> {
    let mut sums: BTreeMap<&'static str, Sum> = BTreeMap::new();
    for run in runs {
        for (kernel, time) in launches(run, phases) {
            sums.entry(kernel.name()).or_default().add(kernel, time);
        }
    }
    let busy: f64 = sums.values().map(|sum| sum.seconds).sum();
    let kind = |(kind, sum): (&'static str, Sum)| Part {
        kind,
        share: sum.seconds / whole,
        gflops: sum.per_second(sum.flops),
        gbytes: sum.per_second(sum.bytes),
        sum,
    };
    let mut kinds: Vec<Part> = sums.into_iter().map(kind).collect();
    kinds.sort_by(|a, b| b.share.total_cmp(&a.share));
    let between = Sum {
        seconds: time.as_secs_f64() - busy,
        ..Sum::default()
    };
    kinds.push(kind((BETWEEN, between)));
    kinds
}

fn of_phase(timed: &Timed, phase: &Phase<'_>) -> PhaseTime {
    let whole = timed.time.as_secs_f64();
    let runs = || timed.runs.iter().filter(|run| run.phase == phase.name);
    let time: Duration = runs().map(|run| run.time).sum();
    PhaseTime {
        phase: phase.name,
        runs: phase.runs,
        seconds: time.as_secs_f64(),
        share: time.as_secs_f64() / whole,
        kinds: kinds(runs(), &[*phase], whole, time),
    }
}

/// The extents of a contraction, or of each of a pair; `None` for other kernels.
fn extents(kernel: &Kernel) -> Option<String> {
    match kernel {
        Kernel::MatMul(mm) | Kernel::MatMulPair(Pair(mm)) => {
            let turned = |flag| if flag { "t" } else { "n" };
            let many = if mm.batch > 1 {
                format!("{} of ", mm.batch)
            } else {
                String::new()
            };
            let (a, b) = (turned(mm.transpose_a), turned(mm.transpose_b));
            let add = if mm.accumulate { " +=" } else { "" };
            Some(format!("{many}{} x {} x {} {a}{b}{add}", mm.m, mm.k, mm.n))
        }
        Kernel::Conv(conv) | Kernel::ConvPair(Pair(conv)) => {
            let ([kh, kw], [sh, sw]) = (conv.window, conv.stride);
            let image = format!("{} x {} x {} x {}", conv.n, conv.h, conv.w, conv.c);
            let stride = if [sh, sw] == [1, 1] {
                String::new()
            } else {
                format!(" / {sh}, {sw}")
            };
            let add = if conv.accumulate { " +=" } else { "" };
            Some(format!("{image}, {kh} x {kw}{stride} to {}{add}", conv.out))
        }
        _ => None,
    }
}

/// Every shape of contraction, and how fast it is by itself. The one that takes the most time comes first.
fn contractions(device: &Device, timed: &Timed, phases: &[Phase<'_>]) -> Result<Vec<Contraction>> {
    let mut shapes: Vec<(&Kernel, Sum)> = Vec::new();
    let all = timed.runs.iter().flat_map(|run| launches(run, phases));
    for (kernel, time) in all.filter(|(kernel, _)| extents(kernel).is_some()) {
        let known = shapes.iter().position(|(known, _)| *known == kernel);
        let at = known.unwrap_or_else(|| {
            shapes.push((kernel, Sum::default()));
            shapes.len() - 1
        });
        shapes[at].1.add(kernel, time);
    }
    let alone = |(kernel, sum): (&Kernel, Sum)| -> Result<Contraction> {
        let seconds = Single::lap(device, kernel, SERIES)?;
        Ok(Contraction {
            kernel: kernel.name(),
            shape: extents(kernel).unwrap_or_default(),
            share: sum.seconds / timed.time.as_secs_f64(),
            gflops: sum.per_second(sum.flops),
            alone_gflops: kernel.flops() as f64 / seconds / 1e9,
            of_alone: sum.launches as f64 * seconds / sum.seconds,
            sum,
        })
    };
    let mut found = shapes.into_iter().map(alone).collect::<Result<Vec<_>>>()?;
    found.sort_by(|a, b| b.share.total_cmp(&a.share));
    Ok(found)
}

impl Report {
    fn show(&self) {
        let Self {
            subject,
            schedule,
            seconds,
            timed_seconds,
            ..
        } = self;
        say(&format!(
            "{subject}, {schedule}: {seconds:.4} s; {timed_seconds:.4} s with every launch timed\n\n\
             share of time               seconds launches   GFLOP/s     GB/s"
        ));
        self.kinds.iter().for_each(Part::show);
        for phase in &self.phases {
            let (name, share, runs) = (phase.phase, 100.0 * phase.share, phase.runs);
            say(&format!(
                "\n{name}: {share:.1} %, {runs} runs, {:.4} s",
                phase.seconds
            ));
            phase.kinds.iter().for_each(Part::show);
        }
        say("\ncontractions                           share   GFLOP/s     alone");
        for one in &self.contractions {
            let name = format!("{} {}", one.kernel, one.shape);
            say(&format!(
                "{name:<38} {:>5.1} % {:>8.1} {:>9.1}  {:>4.0} % of alone",
                100.0 * one.share,
                one.gflops,
                one.alone_gflops,
                100.0 * one.of_alone
            ));
        }
        say(&format!(
            "\nOutside contractions: {:.1} %",
            100.0 * self.outside_contractions
        ));
        if let Some(of_alone) = self.of_alone {
            say(&format!(
                "Contractions run at {:.0} % of their speed alone",
                100.0 * of_alone
            ));
        }
    }
}

impl Part {
    fn show(&self) {
        say(&format!(
            "{:<18} {:>5.1} % {:>9.4} {:>8} {:>9.1} {:>8.1}",
            self.kind,
            100.0 * self.share,
            self.sum.seconds,
            self.sum.launches,
            self.gflops,
            self.gbytes
        ));
    }
}
