//! How a network of a space is written.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A network of a space: a number for each choice, written in base 36.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Code(pub(super) Vec<u8>);

impl Code {
    /// The number chosen at every place.
    pub fn choices(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |&choice: &u8| {
            char::from_digit(choice.into(), 36).expect("a place has at most 36 choices")
        };
        f.write_str(&self.0.iter().map(digit).collect::<String>())
    }
}
