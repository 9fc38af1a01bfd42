//! What the inputs and outputs of plans are bound to.

/// Which array: one that is learned, given or prepared, by its position among these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Learned(usize),
    Given(usize),
    Prepared(usize),
}

/// How much of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slice {
    Whole,
    /// The row of the inner step at hand.
    Step,
    /// The row of the outer loss at hand.
    Outer,
}

/// Where the array of a plan's input or output lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An array of the state that a step starts from.
    State(usize),
    /// An array of the state that a step makes.
    NewState(usize),
    /// The cotangent of the state: read, that after the step; written, that before it.
    Cotangent(usize),
    Array(Place, Slice),
    /// The meta-gradient with respect to an array.
    Gradient(Place, Slice),
    Loss,
    OuterLoss,
    /// An activation or a buffer that was stored for the step.
    Kept(usize),
    /// A result of the step's prelude.
    Prelude(usize),
}
