//! Matrix products, and pairs of contractions.

use super::{Spec, product};
use crate::Float;
use tensor::DType;

/// `C = op(A) · op(B)`, for each of `batch` independent triples that lie one after another.
///
/// `op(A)` is m×k, `op(B)` k×n, C m×n, all row-major; with `transpose_a`, A is stored k×m, with
/// `transpose_b`, B is stored n×k. 2·batch·m·n·k FLOPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatMul {
    /// Element type of all three.
    pub float: Float,
    /// Number of independent products.
    pub batch: usize,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Inner length.
    pub k: usize,
    /// A is stored k×m.
    pub transpose_a: bool,
    /// B is stored n×k.
    pub transpose_b: bool,
    /// `C += product` instead of `C = product`: the whole product is formed first and then added, with
    /// one rounding per element, so the bits are those of a product followed by an addition.
    pub accumulate: bool,
}

impl Spec for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        let &Self { batch, m, n, k, .. } = self;
        vec![vec![batch, m, k], vec![batch, k, n], vec![batch, m, n]]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        let &Self { batch, m, n, k, .. } = self;
        let counts = [product(&[batch, m, k]), product(&[batch, k, n])];
        counts.map(|count| (self.float.into(), count)).to_vec()
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        vec![(self.float.into(), product(&[self.batch, self.m, self.n]))]
    }

    fn flops(&self) -> u64 {
        product(&[2, self.batch, self.m, self.n, self.k]) as u64
    }
}

/// Two contractions of equal shapes and their sum, A₁·B₁ + A₂·B₂: the tangent of a product. Each is formed
/// whole, then they are added with one rounding per element, so the bits are those of a product followed by
/// one that accumulates. Inputs: A₁, B₁, A₂, B₂. The field describes one of the two, which must not
/// accumulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair<S>(pub S);

/// What a pair is made of.
pub(super) trait Contraction: Spec {
    fn pair_name(&self) -> &'static str;
    fn accumulates(&self) -> bool;
}

impl Contraction for MatMul {
    fn pair_name(&self) -> &'static str {
        "matmul-pair"
    }

    fn accumulates(&self) -> bool {
        self.accumulate
    }
}

impl<S: Contraction> Spec for Pair<S> {
    fn name(&self) -> &'static str {
        self.0.pair_name()
    }

    fn check(&self) -> Result<(), String> {
        if self.0.accumulates() {
            return Err("a pair of products cannot be added in place".into());
        }
        self.0.check()
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        self.0.extents()
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        self.0.inputs().repeat(2)
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        self.0.outputs()
    }

    fn flops(&self) -> u64 {
        self.0.flops().saturating_mul(2)
    }
}
