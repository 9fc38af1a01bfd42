//! The description of an array: its name, element type and shape.

use tensor::{Array, DType, Shape};

/// An array's name, element type and shape, without its numbers.
///
/// ```
/// use autograd::prelude::*;
/// let weights = ArraySpec::new("w", F32, [8, 1]);
/// assert_eq!(weights, ArraySpec::from(("w", &Array::zeros(F32, [8, 1]))));
/// assert_eq!(weights.bytes(), 32);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArraySpec {
    /// How people call it: in closures, messages and files.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
}

impl ArraySpec {
    /// An array of this name, element type and shape.
    pub fn new(name: impl Into<String>, dtype: DType, shape: impl Into<Shape>) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.into(),
        }
    }

    /// The same array under another name.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }

    /// Bytes of the array, or `usize::MAX` if there are more.
    pub fn bytes(&self) -> usize {
        self.shape.count().saturating_mul(self.dtype.size())
    }

    /// Bytes of one row: of what lies at one index of the first axis.
    pub(crate) fn row_bytes(&self) -> usize {
        self.bytes() / self.rows().max(1)
    }

    /// The extent of the first axis; 1 for a scalar.
    pub(crate) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// One row of the array.
    pub(crate) fn row(&self) -> Self {
        let inner = self.shape.get(1..).unwrap_or_default();
        Self::new(self.name.clone(), self.dtype, inner)
    }

    /// Refuses an array of another type or shape.
    pub(crate) fn expect(&self, array: &Array) -> crate::Result<()> {
        if array.dtype() == self.dtype && *array.shape() == self.shape {
            return Ok(());
        }
        let (dtype, shape) = (array.dtype(), array.shape());
        Err(crate::Error::Plan(format!(
            "`{}` is {} {}, not {dtype} {shape}",
            self.name, self.dtype, self.shape
        )))
    }
}

impl From<&Self> for ArraySpec {
    fn from(spec: &Self) -> Self {
        spec.clone()
    }
}

/// The description of an existing array.
impl From<(&str, &Array)> for ArraySpec {
    fn from((name, array): (&str, &Array)) -> Self {
        Self::new(name, array.dtype(), array.shape().clone())
    }
}
