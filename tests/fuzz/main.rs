//! Random inputs for the readers of files, for meta-gradients, and for kernels.
//!
//!     cargo run -p tests --bin fuzz -- --minutes 60 --seed 1
//!
//! An input is made of the seed, the name of its target and its number, and of nothing else: what fails is printed with
//! the command that makes it again. An input that panics, takes longer than [`SLOW`] seconds, or breaks what its target promises
//! has failed; then the exit code is 1. One that does not end stops the program.

mod draw;
mod kernels;
mod programs;
mod readers;

use clap::{Parser, ValueEnum};
use draw::Draw;
use readers::Readers;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Seconds that no input needs.
const SLOW: u32 = 60;
/// Failures that are printed of a target, before it is left alone.
const PRINTED: usize = 10;
/// How long a target is tried before the next has its turn.
const TURN: Duration = Duration::from_secs(2);

/// Random inputs for readers, programs and kernels.
#[derive(Debug, Parser)]
struct Args {
    /// What to try [default: all, in turn]
    targets: Vec<Target>,
    /// How long, in minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// What inputs are made of, beside their numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first input
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Tries the first input and no other
    #[arg(long)]
    once: bool,
}

/// What inputs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Damaged IDX, npz and safetensors files, settings, metrics and checkpoints
    Readers,
    /// Random trainings under random schedules
    Programs,
    /// Random stretches of tape, fused and not
    Kernels,
}

/// The input that is tried now.
static NOW: Mutex<Option<String>> = Mutex::new(None);
/// What the last panic said, and where.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// A target, and how far it has come.
struct Turn {
    target: Target,
    next: u64,
    failures: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    set_hook(Box::new(|info| {
        let said = info.to_string().replace('\n', ": ");
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            println!("{trace}");
        }
        PANIC.lock().expect("no panic here").get_or_insert(said);
    }));
    std::thread::spawn(watch);
    let targets = match &args.targets[..] {
        [] => Target::value_variants(),
        some => some,
    };
    let readers = Readers::new();
    let mut turns: Vec<Turn> = targets
        .iter()
        .map(|&target| Turn {
            target,
            next: args.from,
            failures: 0,
        })
        .collect();
    let end = Instant::now() + Duration::from_secs_f64(60.0 * args.minutes);
    while Instant::now() < end && turns.iter().any(|turn| turn.failures < PRINTED) {
        for turn in &mut turns {
            turn.take(&args, &readers, end);
        }
        if args.once {
            break;
        }
    }
    for turn in &turns {
        let (name, failures) = (turn.target.name(), turn.failures);
        println!(
            "{name}: {} inputs, {failures} failed",
            turn.next - args.from
        );
    }
    ExitCode::from(u8::from(turns.iter().any(|turn| turn.failures > 0)))
}

impl Target {
    fn name(self) -> String {
        let value = self.to_possible_value().expect("it has a name");
        value.get_name().to_owned()
    }

    /// Tries an input.
    fn attempt(self, draw: &mut Draw, readers: &Readers) -> Result<(), String> {
        match self {
            Self::Readers => readers.attempt(draw),
            Self::Programs => programs::attempt(draw),
            Self::Kernels => kernels::attempt(draw),
        }
    }
}

impl Turn {
    fn take(&mut self, args: &Args, readers: &Readers, end: Instant) {
        let end = end.min(Instant::now() + TURN);
        while Instant::now() < end && self.failures < PRINTED {
            let number = self.next;
            let name = self.target.name();
            let again = format!("fuzz {name} --seed {} --from {number} --once", args.seed);
            *NOW.lock().expect("no panic here") = Some(again.clone());
            let mut draw = Draw::new(args.seed, &name, number);
            let tried = catch_unwind(AssertUnwindSafe(|| self.target.attempt(&mut draw, readers)));
            let panic = PANIC.lock().expect("no panic here").take();
            let failed = match (tried, panic) {
                (_, Some(panic)) => Some(panic),
                (Ok(tried), None) => tried.err(),
                (Err(_), None) => Some("a panic without a word".to_owned()),
            };
            if let Some(reason) = failed {
                println!("{reason}\n  again: {again}");
                self.failures += 1;
            }
            self.next += 1;
            if args.once {
                break;
            }
        }
        *NOW.lock().expect("no panic here") = None;
    }
}

/// Ends the program when an input does not end. It counts seconds that it has slept: where the program is stopped, or
/// hardly gets a processor, they wait as well.
fn watch() {
    let (mut seen, mut seconds) = (None, 0);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = NOW.lock().expect("no panic here").clone();
        seconds = if now == seen { seconds + 1 } else { 0 };
        seen = now;
        if let Some(again) = &seen
            && seconds > SLOW
        {
            println!("an input does not end\n  again: {again}");
            std::process::exit(1);
        }
    }
}
