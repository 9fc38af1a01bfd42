//! What a draw of a learner gives.

use super::network::Network;
use super::space::code::Code;

/// A learner's network, as it was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The name of its family.
    pub family: String,
    /// Its code, if the family is a search space.
    pub code: Option<Code>,
    /// Its widths.
    pub widths: Vec<usize>,
    /// The network.
    pub network: Network,
}
