//! `benches learners`

use crate::meta_grad::planned;
use crate::subject::{any_values, problem_of};
use clap::Args;
use gtn::cli::{Machine, Outcome, say};
use gtn::error::Result;
use gtn::nn::{Network, Suite};
use gtn::outer::makers::Makers;
use gtn::outer::training::training;
use gtn::run::config::Config;
use gtn::run::settings::Settings;
use serde::Serialize;
use std::time::Instant;

/// Settings of `benches learners`.
#[derive(Debug, Args)]
pub struct LearnersArgs {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    machine: Machine,
}

/// How often each is measured; the fastest counts.
const RUNS: usize = 3;

#[derive(Serialize)]
struct Report {
    command: &'static str,
    learners: Vec<Row>,
    /// Seconds of all plans divided by seconds of all meta-gradients.
    plan_share: f64,
}

#[derive(Serialize)]
struct Row {
    learner: String,
    parameters: usize,
    multiply_adds: usize,
    /// See [`planned`].
    plan_seconds: f64,
    /// Of a meta-gradient.
    gradient_seconds: f64,
    bytes: usize,
}

pub(super) fn run(args: &LearnersArgs) -> Result<Outcome> {
    let (config, device) = (args.settings.resolve()?, args.machine.device()?);
    let problem = problem_of(&config)?;
    let makers = Makers::of(&config, problem)?;
    let mut learners = Vec::new();
    say(&format!(
        "  {:<22}{:>12}{:>10}{:>12}{:>10}{:>8}",
        "learner", "parameters", "plan ms", "gradient ms", "plan %", "MiB"
    ));
    for (name, network) in networks(&config)? {
        let learner = network.learner(problem.image, problem.classes)?;
        let training = training(&config, problem, &makers, &learner);
        let values = any_values(&device, &training)?;
        let (mut plan, mut gradient, mut bytes) = (f64::INFINITY, f64::INFINITY, 0);
        for _ in 0..RUNS {
            let (seconds, mut unroll) = planned(&device, &training, &config.horizon())?;
            plan = plan.min(seconds);
            unroll.gradient(&values)?;
            let begin = Instant::now();
            unroll.gradient(&values)?;
            gradient = gradient.min(begin.elapsed().as_secs_f64());
            bytes = unroll.forecast().bytes;
        }
        let parameters = learner.parameter_count();
        let (ms, share) = (1e3 * plan, 100.0 * plan / gradient);
        say(&format!(
            "  {name:<22}{parameters:>12}{ms:>10.1}{:>12.1}{share:>10.1}{:>8}",
            1e3 * gradient,
            bytes >> 20
        ));
        learners.push(Row {
            learner: name,
            parameters,
            multiply_adds: learner.multiply_adds(),
            plan_seconds: plan,
            gradient_seconds: gradient,
            bytes,
        });
    }
    let sum = |of: fn(&Row) -> f64| learners.iter().map(of).sum::<f64>();
    let (plans, gradients) = (sum(|row| row.plan_seconds), sum(|row| row.gradient_seconds));
    let plan_share = plans / gradients;
    say(&format!(
        "Each in turn, as where every outer step has another one: planning adds {:.1} %",
        100.0 * plan_share
    ));
    args.machine.print(&Report {
        command: "learners",
        learners,
        plan_share,
    })?;
    Ok(Outcome::Done)
}

/// The middle learner of each family of the settings, and those of the suite for evaluation.
fn networks(config: &Config) -> Result<Vec<(String, Network)>> {
    let population = config.population();
    let members = population.members().iter().map(|member| {
        let drawn = member.source.middle()?;
        Ok((drawn.family, drawn.network))
    });
    let members = members.collect::<Result<Vec<_>>>()?;
    Ok([members, Suite::parse("held-out")?.networks].concat())
}
