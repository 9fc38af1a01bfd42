//! Suites: networks by name, for evaluation on topologies that meta-training never drew.

use super::network::Network;
use super::population::members;
use crate::error::{Error, Result};
use crate::text;
use std::path::Path;

/// Networks with names.
///
/// ```
/// use gtn::nn::Suite;
/// let suite = Suite::parse("held-out")?;
/// assert!(suite.networks.len() >= 10);
/// for (name, network) in &suite.networks {
///     let learner = network.learner([28, 28, 1], 10)?;
///     println!("{name}: {} parameters", learner.parameter_count());
/// }
/// # Ok::<(), gtn::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// Its name, or the file that it came from.
    pub name: String,
    /// Networks, each with a name of its own.
    pub networks: Vec<(String, Network)>,
}

impl Suite {
    /// The built-in suites: their names, and their files.
    const BUILT_IN: [(&'static str, &'static str); 2] = [
        ("held-out", include_str!("held-out.toml")),
        ("initialisations", include_str!("initialisations.toml")),
    ];

    /// The built-in suite of a name.
    ///
    /// # Errors
    /// None, as a test says.
    pub fn named(name: &str) -> Option<Result<Self>> {
        let built_in = Self::BUILT_IN.iter().find(|(known, _)| *known == name);
        built_in.map(|(name, text)| Self::from_toml(name, text))
    }

    /// The suite of a name, or in a TOML file of a user's own. A range counts as its middle, several choices
    /// as the first, and a space as its largest network.
    ///
    /// # Errors
    /// If there is no such suite or file, or a network in it makes no sense.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(suite) = Self::named(name) {
            return suite;
        }
        let names = Self::BUILT_IN.map(|(name, _)| name).join(", ");
        let hint = || format!("a suite is a TOML file of learners, or {names}");
        let text = text::read(Path::new(name)).map_err(|error| error.hint(hint()))?;
        Self::from_toml(name, &text)
    }

    /// Reads a file of learners, as for a [population](super::Population::from_toml).
    ///
    /// # Errors
    /// If a network makes no sense, or two have one name.
    pub fn from_toml(origin: &str, text: &str) -> Result<Self> {
        let members = members(text).map_err(|error| error.at(origin))?;
        let mut networks: Vec<(String, Network)> = Vec::with_capacity(members.len());
        for member in members {
            let drawn = member.source.middle()?;
            if networks.iter().any(|(name, _)| *name == drawn.family) {
                let error = Error::usage(format!("two learners are called {}", drawn.family));
                return Err(error.at(origin).hint("give each a `name`"));
            }
            networks.push((drawn.family, drawn.network));
        }
        Ok(Self {
            name: origin.to_owned(),
            networks,
        })
    }
}
