//! Networks: what parameters they have, and functions that record their forward pass.
//!
//! [`Generator`] makes the training data, [`Learner`] trains on it. Neither owns numbers: parameters are
//! described by [`ParamSpec`]s, made by [`init`], and given to the recording functions as variables.

mod build;
mod drawn;
mod families;
mod generator;
mod init;
pub mod layers;
mod learner;
mod learners;
pub mod network;
mod population;
pub mod role;
mod space;
mod suite;
mod together;
pub mod widths;
mod windows;

pub use drawn::Drawn;
pub use families::Family;
pub use generator::{Generator, GeneratorConfig, Variant};
pub use init::{Init, ParamSpec, init};
pub use learner::{Described, Learner, Statistics};
pub use learners::Learners;
pub use network::{Network, Norm};
pub use population::{Member, Population, Source};
pub use space::{Code, Space, Truth};
pub use suite::Suite;
pub use together::stack;

use autograd::{Error, Result, Var};

/// Hands out variables in the order of their specs.
struct Feed<'a, 't> {
    of: &'static str,
    rest: &'a [Var<'t>],
}

impl<'a, 't> Feed<'a, 't> {
    /// Checks that there are as many variables as wanted.
    fn new(of: &'static str, vars: &'a [Var<'t>], wanted: usize) -> Result<Self> {
        if vars.len() == wanted {
            return Ok(Self { of, rest: vars });
        }
        Err(Error::Setting(format!(
            "{of}: {wanted} variables wanted, {} given",
            vars.len()
        )))
    }

    fn take<const N: usize>(&mut self) -> Result<[Var<'t>; N]> {
        let Some((first, rest)) = self.rest.split_first_chunk() else {
            return Err(Error::Setting(format!("{}: too few variables", self.of)));
        };
        self.rest = rest;
        Ok(*first)
    }
}

#[cfg(test)]
mod tests;
