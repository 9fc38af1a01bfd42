//! The kernels that a device has.

use crate::spec::{Spec, bytes};
use crate::{ArgMax, Concat, Conv, Map, MatMul, Pad, Pair, Random, Reversible, Rows, Take, Window};
use strum::{IntoStaticStr, VariantNames};
use tensor::{DType, Shape};

/// One kernel with its shapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum Kernel {
    /// Fused element-wise program.
    Map(Map),
    /// Matrix product.
    MatMul(MatMul),
    /// Two matrix products and their sum.
    MatMulPair(Pair<MatMul>),
    /// Convolution or one of its transposes.
    Conv(Conv),
    /// Two convolutions and their sum.
    ConvPair(Pair<Conv>),
    /// Pooling windows.
    Window(Window),
    /// Zero border.
    Pad(Pad),
    /// Concatenation.
    Concat(Concat),
    /// Constant indices along an axis.
    Take(Take),
    /// Rows by an index array.
    Rows(Rows),
    /// Index of the greatest.
    ArgMax(ArgMax),
    /// Random numbers.
    Random(Random),
    /// Momentum that can be undone.
    Reversible(Reversible),
}

impl Kernel {
    fn spec(&self) -> &dyn Spec {
        match self {
            Self::Map(spec) => spec,
            Self::MatMul(spec) => spec,
            Self::MatMulPair(spec) => spec,
            Self::Conv(spec) => spec,
            Self::ConvPair(spec) => spec,
            Self::Window(spec) => spec,
            Self::Pad(spec) => spec,
            Self::Concat(spec) => spec,
            Self::Take(spec) => spec,
            Self::Rows(spec) => spec,
            Self::ArgMax(spec) => spec,
            Self::Random(spec) => spec,
            Self::Reversible(spec) => spec,
        }
    }

    /// The same contraction, added to its result instead of replacing it. `None` for all but single
    /// contractions.
    pub fn added(&self) -> Option<Self> {
        let accumulate = true;
        match *self {
            Self::MatMul(spec) => Some(Self::MatMul(MatMul { accumulate, ..spec })),
            Self::Conv(spec) => Some(Self::Conv(Conv { accumulate, ..spec })),
            _ => None,
        }
    }

    /// The sum of two such contractions as one kernel. `None` for all but single contractions.
    pub fn paired(&self) -> Option<Self> {
        match *self {
            Self::MatMul(spec) => Some(Self::MatMulPair(Pair(spec))),
            Self::Conv(spec) => Some(Self::ConvPair(Pair(spec))),
            _ => None,
        }
    }

    /// A word for print-outs.
    pub fn name(&self) -> &'static str {
        self.spec().name()
    }

    /// Refuses parameters that make no sense, and arrays that no memory could hold.
    /// [`Program::new`](crate::Program::new) calls it. Only [`Kernel::name`] may be called on a kernel that
    /// has not passed.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.spec().check()?;
        let mut sizes = self.spec().extents().into_iter();
        sizes.try_for_each(|extents| {
            let checked = Shape::from(extents).check();
            checked.map_err(|error| error.to_string())
        })
    }

    /// Whether there is nothing to do: no output has an element, and there are no rows whose indices would be checked.
    pub(crate) fn is_idle(&self) -> bool {
        let empty = self.outputs().iter().all(|&(_, count)| count == 0);
        empty && !matches!(self, Self::Rows(rows) if rows.width > 0)
    }

    /// Type and least number of elements of every input.
    pub fn inputs(&self) -> Vec<(DType, usize)> {
        self.spec().inputs()
    }

    /// Type and number of elements of every output.
    pub fn outputs(&self) -> Vec<(DType, usize)> {
        self.spec().outputs()
    }

    /// Floating-point operations; every function of a [`Map`] counts as one.
    pub fn flops(&self) -> u64 {
        self.spec().flops()
    }

    /// Bytes that must at least be read and written: every distinct element once.
    pub fn bytes(&self) -> u64 {
        self.spec()
            .bytes_read()
            .saturating_add(bytes(&self.outputs()))
    }
}
