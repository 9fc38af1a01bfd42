//! Shapes: the extents of an array, outermost first.

use crate::ArrayError;
use smallvec::SmallVec;
use std::fmt;
use std::ops::Deref;

/// The extents of an array, outermost first; elements lie in row-major order. A scalar has no axes.
///
/// ```
/// use tensor::Shape;
/// let s = Shape::from([2, 3, 4]);
/// assert_eq!(s.count(), 24);
/// assert_eq!(s.strides(), [12, 4, 1]);
/// assert_eq!(s.to_string(), "[2, 3, 4]");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[usize; INLINE]>);

/// The number of axes that are stored inline. A shape with more axes allocates, and plans copy thousands of
/// shapes. Raising it makes every `Shape` larger.
const INLINE: usize = 4;

impl Shape {
    /// The shape of a single number.
    pub fn scalar() -> Self {
        Self::default()
    }

    /// The most elements that an array may have: 2⁶⁰ − 1 on 64-bit machines. Even at 8 bytes an element,
    /// their bytes fit an `isize`.
    pub const MOST: usize = isize::MAX as usize / 8;

    /// Refuses a shape whose nonzero extents multiply to more than [`Shape::MOST`]. Zeros are left out so
    /// that they cannot hide a large extent: in a shape that passes, neither strides nor the product of any
    /// of its extents overflow.
    ///
    /// # Errors
    /// [`ArrayError::Size`]
    pub fn check(&self) -> Result<(), ArrayError> {
        let extents = self.0.iter().filter(|&&extent| extent > 0);
        let count = extents.fold(1, |count: usize, &extent| count.saturating_mul(extent));
        if count <= Self::MOST {
            return Ok(());
        }
        Err(ArrayError::Size {
            shape: self.clone(),
        })
    }

    /// The number of elements, or `usize::MAX` if there are more.
    pub fn count(&self) -> usize {
        if self.0.contains(&0) {
            return 0;
        }
        let extents = self.0.iter();
        extents.fold(1, |count, &extent| count.saturating_mul(extent))
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1_usize; self.0.len()];
        for axis in (1..self.0.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(self.0[axis]);
        }
        strides
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<Vec<usize>> for Shape {
    fn from(extents: Vec<usize>) -> Self {
        Self(extents.into())
    }
}

impl From<&[usize]> for Shape {
    fn from(extents: &[usize]) -> Self {
        Self(extents.into())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Self {
        Self(extents[..].into())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:?}", self.0))
    }
}
