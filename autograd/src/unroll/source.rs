//! What the inputs and outputs of plans are bound to.

/// The array that is learned, given or prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Learned(usize),
    Given(usize),
    Prepared(usize),
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slice {
    Whole,
    /// The row of the inner step at hand, or of the outer loss.
    Step,
    Outer,
}

/// Where the array of a plan's input or output lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An array of the state that a step starts from, or of the one that it makes.
    State(usize),
    NewState(usize),
    /// The cotangent of the state: after the step, or before it.
    Cotangent(usize),
    Array(Place, Slice),
    /// The meta-gradient with respect to an array.
    Gradient(Place, Slice),
    Loss,
    OuterLoss,
    /// An activation that was stored for the step, or a buffer.
    Kept(usize),
    /// A result of the step's prelude.
    Prelude(usize),
}
