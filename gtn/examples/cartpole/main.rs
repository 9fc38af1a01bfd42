//! Generative Teaching Networks for reinforcement learning (Such et al. 2020, arXiv 1912.07768): a generator makes one batch of
//! states and targets, from which any newly initialised policy learns `CartPole` in one step of SGD.
//!
//! `cargo run -p gtn --release --example cartpole`; its page is docs/cartpole.md.

mod environment;
mod episodes;
mod lesson;
mod teaching;

use autograd::prelude::Device;
use clap::Parser;
use gtn::draw::curves::{self, Chart, Scale, Series};
use gtn::error::{Error, Result};
use gtn::nn::Network;
use lesson::Lesson;
use std::path::PathBuf;
use std::process::ExitCode;
use teaching::{Examined, Teaching};

/// Learns a batch of synthetic data from which new policies learn to balance a pole in one step of SGD.
#[derive(Debug, Parser)]
struct Cli {
    /// All random numbers depend on it; several, with commas between them, are several runs
    #[arg(long, value_name = "N", default_value = "1", value_delimiter = ',')]
    seed: Vec<u64>,
    /// Outer steps, each with a new policy
    #[arg(long, value_name = "N", default_value_t = 1500)]
    outer_steps: u64,
    /// Threads; the results do not depend on them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Layers of the policies
    #[arg(
        long,
        value_name = "LAYERS",
        default_value = "init pytorch | weight_norm off | dense 256 | tanh | dense"
    )]
    policy: Network,
    /// Layers of other policies to examine, which did not take part; may be repeated
    #[arg(long, value_name = "LAYERS")]
    also: Vec<Network>,
    /// Draw the returns along the outer steps into this file
    #[arg(long, value_name = "FILE.svg")]
    curve: Option<PathBuf>,
}

/// The synthetic batch, as published, and numbers of noise for each row.
const BATCH: [usize; 2] = [512, 64];
/// New policies that are examined at the end.
const EXAMINED: u64 = 64;
/// Outer steps that are averaged for a line of output and a point of the curve.
const PERIOD: u64 = 25;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.lines());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let policies = std::iter::once(&cli.policy).chain(&cli.also);
    let lessons: Vec<Lesson> = policies
        .map(|policy| Lesson::new(BATCH, policy))
        .collect::<autograd::Result<_>>()?;
    let device = Device::cpu(Some(cli.threads.into()))?;
    let mut curves = Vec::new();
    println!("seed  untrained  after one step  worst of {EXAMINED}  cut at 200 steps  policy");
    for &seed in &cli.seed {
        let mut teaching = Teaching::new(&device, &lessons[0], seed, cli.outer_steps)?;
        curves.push(teach(&mut teaching, cli)?);
        for lesson in &lessons {
            let examined = teaching.examine(lesson, EXAMINED)?;
            println!("{}", row(seed, &examined, lesson.policy.network()));
        }
    }
    if let Some(path) = &cli.curve {
        curves::write(path, &[chart(&curves)])?;
    }
    Ok(())
}

/// All outer steps. Gives the mean return in every period.
fn teach(teaching: &mut Teaching<'_>, cli: &Cli) -> Result<Vec<f64>> {
    let (mut means, mut sum) = (Vec::new(), 0.0);
    for step in 1..=cli.outer_steps {
        let stepped = teaching.step(step - 1).map_err(Error::engine);
        let at = |error: Error| error.at(format!("seed {}, outer step {step}", teaching.seed()));
        sum += stepped.map_err(at)?;
        if step % PERIOD == 0 {
            let mean = sum / PERIOD as f64;
            eprintln!(
                "seed {}, outer step {step} of {}: mean return {mean:.1}, rate {:.3}",
                teaching.seed(),
                cli.outer_steps,
                teaching.rate()?
            );
            means.push(mean);
            sum = 0.0;
        }
    }
    Ok(means)
}

fn row(seed: u64, examined: &Examined, policy: &Network) -> String {
    let Examined {
        untrained,
        trained,
        worst,
        cut,
    } = examined;
    format!("{seed:4}  {untrained:9.1}  {trained:14.1}  {worst:11.1}  {cut:16.1}  {policy}")
}

fn chart(runs: &[Vec<f64>]) -> Chart {
    let periods = runs.first().map_or(0, Vec::len) as u64;
    let xs: Vec<f64> = (1..=periods).map(|i| (i * PERIOD) as f64).collect();
    Chart {
        title: "CartPole after one step of SGD: mean return of new policies".to_owned(),
        x: "outer step".to_owned(),
        y: "return".to_owned(),
        scale: Scale::Linear,
        series: vec![Series::of_runs("GTN", &xs, runs)],
    }
}
