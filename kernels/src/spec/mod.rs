//! What kernels are, a file each: what they read and write, what they cost, and whether that makes sense.

mod argmax;
mod concat;
mod conv;
mod map;
mod matmul;
mod pad;
mod random;
mod reversible;
mod rows;
mod take;
mod window;

pub use argmax::ArgMax;
pub use concat::Concat;
pub use conv::{Conv, ConvKind};
pub use map::{Binary, Instr, Load, Map, Store, StoreKind, Unary};
pub use matmul::{MatMul, Pair};
pub use pad::Pad;
pub use random::{Distribution, Random};
pub use reversible::{Ratio, Reversible, ReversibleKind};
pub use rows::Rows;
pub use take::Take;
pub use window::{Window, WindowKind};

use tensor::DType;

/// What every kernel says of itself. Only `name` may be called before `check` has passed.
pub(crate) trait Spec {
    /// A word for print-outs.
    fn name(&self) -> &'static str;

    /// Refuses parameters that make no sense.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Extents of its arrays, and of the points that it visits. `Kernel::check` checks each list as a
    /// [`tensor::Shape`], so that no product of some of them overflows.
    fn extents(&self) -> Vec<Vec<usize>>;

    /// Type and least number of elements of every input.
    fn inputs(&self) -> Vec<(DType, usize)>;

    /// Type and number of elements of every output.
    fn outputs(&self) -> Vec<(DType, usize)>;

    /// Floating-point operations.
    fn flops(&self) -> u64 {
        0
    }

    /// Bytes that must at least be read: every distinct element once.
    fn bytes_read(&self) -> u64 {
        bytes(&self.inputs())
    }
}

/// Bytes of some arrays.
pub(crate) fn bytes(arrays: &[(DType, usize)]) -> u64 {
    let size = |&(dtype, count): &(DType, usize)| dtype.size() as u64 * count as u64;
    arrays.iter().map(size).fold(0, u64::saturating_add)
}

/// The product, saturated at `usize::MAX`. No slot is that large, so a saturated size is still refused.
pub(crate) fn product(extents: &[usize]) -> usize {
    if extents.contains(&0) {
        0
    } else {
        extents
            .iter()
            .fold(1, |product, &n| product.saturating_mul(n))
    }
}
