//! `gtn learner`

use super::{Outcome, print, show};
use crate::error::{Error, Result};
use crate::nn::widths::Widths;
use crate::nn::{Family, Learner, Learners, Network, Norm, Suite};
use crate::run::values::count;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;

/// Settings of `gtn learner`.
#[derive(Debug, Args)]
pub(super) struct LearnerArgs {
    /// A family, a text like 'conv 16 | relu | dense', a population (mixed), a suite (held-out, initialisations), or a TOML
    /// file [default: all families]
    #[arg(value_name = "NAME|TEXT|FILE")]
    learner: Option<String>,
    /// Widths for the places that a family or text has [default: those that it is known with]
    #[arg(long, value_name = "N,…")]
    widths: Option<Widths>,
    /// Normalisation, where a family or text has a place for it [default: the family's]
    #[arg(long, value_name = "NORM")]
    norm: Option<Norm>,
    /// Rows, columns and channels of the images
    #[arg(long, value_name = "HxWxC", default_value = "28x28x1", value_parser = image)]
    image: [usize; 3],
    /// Classes
    #[arg(long, value_name = "N", default_value = "10", value_parser = count())]
    classes: usize,
    /// End with one JSON object on standard output
    #[arg(long)]
    json: bool,
}

fn image(text: &str) -> Result<[usize; 3], String> {
    let extents: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
    let extents = extents.ok().and_then(|extents| extents.try_into().ok());
    let sound = |image: &[usize; 3]| image.iter().all(|&n| (1..=1 << 12).contains(&n));
    extents.filter(sound).ok_or_else(|| {
        "rows, columns and channels from 1 to 4096 are needed, as in 28x28x1".to_owned()
    })
}

/// A learner in the JSON output.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    layers: String,
    parameters: usize,
    multiply_adds: usize,
}

pub(super) fn run(args: &LearnerArgs) -> Result<Outcome> {
    let mut learners = Vec::new();
    for (name, network) in networks(args)? {
        let learner = network.learner(args.image, args.classes);
        let learner = learner.map_err(|error| Error::usage(error).at(&name))?;
        learners.push((name, learner));
    }
    match &learners[..] {
        [(name, learner)] => show(layers(name, learner).trim_end())?,
        several => show(summary(several).trim_end())?,
    }
    if args.json {
        let entry = |(name, learner): &'_ (String, Learner)| {
            let layers = learner.network().to_string();
            let (parameters, multiply_adds) = (learner.parameter_count(), learner.multiply_adds());
            serde_json::json!(Entry {
                name,
                layers,
                parameters,
                multiply_adds
            })
        };
        let entries: Vec<_> = learners.iter().map(entry).collect();
        print(&serde_json::json!({ "command": "learner", "learners": entries }))?;
    }
    Ok(Outcome::Done)
}

/// The networks that are asked for, each with a name.
fn networks(args: &LearnerArgs) -> Result<Vec<(String, Network)>> {
    let own = |family: &Family| {
        let widths = args.widths.as_ref().map(Widths::middle);
        let norm = args
            .norm
            .or(family.norms.first().copied())
            .unwrap_or_default();
        let network = family.network(&widths.unwrap_or_else(|| family.usual.clone()), norm);
        Ok((family.name.clone(), network.map_err(Error::usage)?))
    };
    let Some(text) = &args.learner else {
        return Family::all().iter().map(own).collect();
    };
    if let Some(suite) = Suite::named(text) {
        refuse_places(args, "a suite")?;
        return Ok(suite?.networks);
    }
    match text.parse()? {
        Learners::Family(family) => Ok(vec![own(&family)?]),
        Learners::Population(population, _) => {
            refuse_places(args, "a population")?;
            let middle = |member: &crate::nn::Member| {
                let drawn = member.source.middle()?;
                Ok((drawn.family, drawn.network))
            };
            population.members().iter().map(middle).collect()
        }
    }
}

/// Refuses what is for the places of a family or text: the networks of a suite or population have none.
fn refuse_places(args: &LearnerArgs, what: &str) -> Result<()> {
    let norm = args.norm.map(|_| "--norm");
    match args.widths.as_ref().map(|_| "--widths").or(norm) {
        Some(flag) => {
            let problem = format!("{flag} is for a family or text, and this is {what}");
            Err(Error::usage(problem).hint(format!("leave out {flag}")))
        }
        None => Ok(()),
    }
}

/// A line for every layer.
fn layers(name: &str, learner: &Learner) -> String {
    // Layers of cells in a cell have long numbers.
    let lengths = learner.layers().iter().map(|layer| layer.number.len() + 2);
    let first = lengths.fold(10, usize::max);
    let mut table = format!(
        "{name}\n{}\n\n  {:<first$}{:<34}{:>14}{:>12}{:>16}\n",
        learner.network(),
        "",
        "layer",
        "shape",
        "parameters",
        "multiply-adds"
    );
    for layer in learner.layers() {
        let shape: Vec<String> = layer.shape.iter().map(usize::to_string).collect();
        let _ = writeln!(
            table,
            "  {:<first$}{:<34}{:>14}{:>12}{:>16}",
            layer.number,
            layer.layer,
            shape.join("×"),
            layer.parameters,
            layer.multiply_adds
        );
    }
    let _ = writeln!(
        table,
        "\n  {} parameters, {} multiply-adds for an image",
        learner.parameter_count(),
        learner.multiply_adds()
    );
    table
}

/// A line for every learner.
fn summary(learners: &[(String, Learner)]) -> String {
    let mut table = format!(
        "  {:<22}{:>12}{:>16}\n",
        "learner", "parameters", "multiply-adds"
    );
    for (name, learner) in learners {
        let (parameters, adds) = (learner.parameter_count(), learner.multiply_adds());
        let _ = writeln!(table, "  {name:<22}{parameters:>12}{adds:>16}");
    }
    table
}
