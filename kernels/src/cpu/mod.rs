//! The processor: every kernel, on all cores.
