//! The processor: every kernel, on all cores.

pub(crate) mod conv;
pub(crate) mod gemm;
