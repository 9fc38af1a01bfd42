//! Host arrays: a shape and the numbers.

use crate::{DType, Shape};
use half::{bf16, f16};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use thiserror::Error;

/// The numbers of an [`Array`], by element type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// [`DType::F32`]
    F32(Vec<f32>),
    /// [`DType::F64`]
    F64(Vec<f64>),
    /// [`DType::BF16`]
    BF16(Vec<bf16>),
    /// [`DType::F16`]
    F16(Vec<f16>),
    /// [`DType::U8`]
    U8(Vec<u8>),
    /// [`DType::I32`]
    I32(Vec<i32>),
    /// [`DType::U32`]
    U32(Vec<u32>),
}

/// An array in host memory: row-major numbers and their shape.
///
/// ```
/// use tensor::{Array, DType};
/// let a = Array::new([2, 3], vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let t = a.permute(&[1, 0])?;
/// assert_eq!(t.shape().to_string(), "[3, 2]");
/// assert_eq!(t.as_f32(), Some(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0][..]));
/// assert_eq!(t.cast(DType::U8).as_u8(), Some(&[1, 4, 2, 5, 3, 6][..]));
/// assert!(Array::new([2, 2], vec![1.0_f32]).is_err());
/// # Ok::<(), tensor::ArrayError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Shape,
    data: Data,
}

/// Why an array could not be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ArrayError {
    /// More elements than any memory holds.
    #[error(
        "shape {shape} has more elements than any memory holds: at most {}",
        Shape::MOST
    )]
    Size {
        /// The shape asked for.
        shape: Shape,
    },
    /// More or fewer numbers than the shape has places.
    #[error("shape {shape} holds {} elements, but {count} were given", shape.count())]
    Count {
        /// The shape asked for.
        shape: Shape,
        /// How many numbers were given.
        count: usize,
    },
    /// More or fewer bytes than the shape and the element type need.
    #[error("{dtype} {shape} takes {} bytes, but {bytes} were given", shape.count() * dtype.size())]
    Bytes {
        /// The element type asked for.
        dtype: DType,
        /// The shape asked for.
        shape: Shape,
        /// How many bytes were given.
        bytes: usize,
    },
    /// The axes are not a permutation of the shape's axes.
    #[error("axes {axes:?} are no permutation of the {} axes of shape {shape}", shape.len())]
    Axes {
        /// The axes asked for.
        axes: Vec<usize>,
        /// The array's shape.
        shape: Shape,
    },
}

/// Evaluates an expression with the vector of whichever variant is there.
macro_rules! each {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::F32($v) => $body,
            Data::F64($v) => $body,
            Data::BF16($v) => $body,
            Data::F16($v) => $body,
            Data::U8($v) => $body,
            Data::I32($v) => $body,
            Data::U32($v) => $body,
        }
    };
}

/// An element type of [`Data`]. An f64 represents every value of every element type exactly.
trait Element: bytemuck::Pod {
    fn wide(self) -> f64;
    fn narrow(wide: f64) -> Self;
}

macro_rules! element {
    ($t:ty, $variant:ident, $narrow:expr) => {
        impl Element for $t {
            fn wide(self) -> f64 {
                self.into()
            }
            fn narrow(wide: f64) -> Self {
                ($narrow)(wide)
            }
        }

        impl From<Vec<$t>> for Data {
            fn from(numbers: Vec<$t>) -> Self {
                Data::$variant(numbers)
            }
        }
    };
}

element!(f32, F32, |x| x as f32);
element!(f64, F64, |x| x);
element!(bf16, BF16, |x| bf16::from_f32(round_to_odd(x)));
element!(f16, F16, |x| f16::from_f32(round_to_odd(x)));
element!(u8, U8, |x| x as u8);
element!(i32, I32, |x| x as i32);
element!(u32, U32, |x| x as u32);

/// Rounds to odd: gives `x` itself if it is an f32, else the neighbouring f32 whose last bit is 1.
///
/// Rounding the result once more, to a type at least two bits shorter, gives the same as rounding `x` once
/// (Boldo and Melquiond 2008). The f64 conversions of `half` 2.7 do not: they look at the upper 32 bits
/// only, and so take a number just above a tie for a tie.
fn round_to_odd(x: f64) -> f32 {
    let near = x as f32;
    let wide = f64::from(near);
    if wide == x || x.is_nan() || near.to_bits() & 1 == 1 {
        near
    } else if wide.abs() < x.abs() {
        f32::from_bits(near.to_bits() + 1)
    } else {
        f32::from_bits(near.to_bits() - 1)
    }
}

impl Data {
    /// The numbers as another type (see [`Array::cast`]).
    fn collect(dtype: DType, numbers: impl Iterator<Item = f64>) -> Self {
        fn vec<T: Element>(numbers: impl Iterator<Item = f64>) -> Vec<T> {
            let (count, mut vec) = (numbers.size_hint().0, Vec::new());
            if let Err(error) = vec.try_reserve_exact(count) {
                panic!("no memory for an array of {count} elements: {error}");
            }
            vec.extend(numbers.map(T::narrow));
            vec
        }
        match dtype {
            DType::F32 => Data::F32(vec(numbers)),
            DType::F64 => Data::F64(vec(numbers)),
            DType::BF16 => Data::BF16(vec(numbers)),
            DType::F16 => Data::F16(vec(numbers)),
            DType::U8 => Data::U8(vec(numbers)),
            DType::I32 => Data::I32(vec(numbers)),
            DType::U32 => Data::U32(vec(numbers)),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::BF16(_) => DType::BF16,
            Data::F16(_) => DType::F16,
            Data::U8(_) => DType::U8,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
        }
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        each!(self, v => v.len())
    }
}

impl Array {
    /// An array of `shape` with these numbers in row-major order, their type its element type.
    ///
    /// # Errors
    /// [`ArrayError::Count`] if the shape has not as many elements as there are numbers,
    /// [`ArrayError::Size`] if it is too large for any memory.
    pub fn new(shape: impl Into<Shape>, data: impl Into<Data>) -> Result<Self, ArrayError> {
        let (shape, data) = (shape.into(), data.into());
        shape.check()?;
        let count = data.count();
        if count == shape.count() {
            Ok(Self { shape, data })
        } else {
            Err(ArrayError::Count { shape, count })
        }
    }

    /// An array with `value` at every element, converted as [`Array::cast`] does.
    ///
    /// # Panics
    /// If there is not enough memory. If the shape comes from outside, call [`Shape::check`] first, and
    /// compare its size with the memory that there is. The same applies to [`Array::zeros`],
    /// [`Array::normal`] and [`Array::uniform`].
    pub fn full(dtype: DType, shape: impl Into<Shape>, value: f64) -> Self {
        let shape = shape.into();
        let data = Data::collect(dtype, std::iter::repeat_n(value, shape.count()));
        Self { shape, data }
    }

    /// An array of zeros.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Self {
        Self::full(dtype, shape, 0.0)
    }

    /// Normally distributed numbers with mean 0 and this standard deviation. They are drawn in f64 and
    /// converted, so a seed gives the same numbers in every element type.
    ///
    /// ```
    /// use tensor::{Array, DType};
    /// let weights = Array::normal(DType::F32, [784, 128], 0.05, 1);
    /// assert_eq!(weights, Array::normal(DType::F64, [784, 128], 0.05, 1).cast(DType::F32));
    /// ```
    pub fn normal(dtype: DType, shape: impl Into<Shape>, deviation: f64, seed: u64) -> Self {
        let draw = |rng: &mut _| deviation * Distribution::<f64>::sample(&StandardNormal, rng);
        Self::drawn(dtype, shape.into(), seed, draw)
    }

    /// Uniformly distributed numbers, `low` included and `high` excluded. They are drawn in f64 and
    /// converted.
    ///
    /// # Panics
    /// If `low` is not below `high`.
    pub fn uniform(
        dtype: DType,
        shape: impl Into<Shape>,
        [low, high]: [f64; 2],
        seed: u64,
    ) -> Self {
        Self::drawn(dtype, shape.into(), seed, |rng| rng.random_range(low..high))
    }

    fn drawn(
        dtype: DType,
        shape: Shape,
        seed: u64,
        mut draw: impl FnMut(&mut ChaCha8Rng) -> f64,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let numbers = (0..shape.count()).map(|_| draw(&mut rng));
        let data = Data::collect(dtype, numbers);
        Self { shape, data }
    }

    /// One number, with no axes.
    pub fn scalar(value: f64, dtype: DType) -> Self {
        Self::full(dtype, Shape::scalar(), value)
    }

    /// An array from the bytes of its elements, in this machine's byte order and at any alignment.
    ///
    /// # Errors
    /// [`ArrayError::Bytes`] if the elements do not take as many bytes, [`ArrayError::Size`] if the shape
    /// is too large for any memory.
    pub fn from_bytes(
        dtype: DType,
        shape: impl Into<Shape>,
        bytes: &[u8],
    ) -> Result<Self, ArrayError> {
        fn vec<T: Element>(bytes: &[u8]) -> Vec<T> {
            bytes
                .chunks_exact(size_of::<T>())
                .map(bytemuck::pod_read_unaligned)
                .collect()
        }
        let shape = shape.into();
        shape.check()?;
        if bytes.len() != shape.count() * dtype.size() {
            return Err(ArrayError::Bytes {
                dtype,
                shape,
                bytes: bytes.len(),
            });
        }
        let data = match dtype {
            DType::F32 => Data::F32(vec(bytes)),
            DType::F64 => Data::F64(vec(bytes)),
            DType::BF16 => Data::BF16(vec(bytes)),
            DType::F16 => Data::F16(vec(bytes)),
            DType::U8 => Data::U8(vec(bytes)),
            DType::I32 => Data::I32(vec(bytes)),
            DType::U32 => Data::U32(vec(bytes)),
        };
        Ok(Self { shape, data })
    }

    /// The extents, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The numbers, in row-major order.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The bytes of the numbers, in this machine's byte order.
    pub fn bytes(&self) -> &[u8] {
        each!(&self.data, v => bytemuck::cast_slice(v))
    }

    /// The numbers, widened; exact for every element type.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        each!(&self.data, v => v.iter().map(|x| x.wide()).collect())
    }

    /// The same numbers as another element type. Floats round to nearest, ties to even. Integers drop the
    /// fraction, saturate at the ends of their range, and turn NaN into 0.
    ///
    /// ```
    /// use tensor::{Array, DType};
    /// let a = Array::new([3], vec![-1.5_f32, 3.9, 1e9])?;
    /// assert_eq!(a.cast(DType::U8).as_u8(), Some(&[0, 3, 255][..]));
    /// # Ok::<(), tensor::ArrayError>(())
    /// ```
    #[must_use]
    pub fn cast(&self, dtype: DType) -> Self {
        if dtype == self.dtype() {
            return self.clone();
        }
        let data = each!(&self.data, v => Data::collect(dtype, v.iter().map(|x| x.wide())));
        Self {
            shape: self.shape.clone(),
            data,
        }
    }

    /// The same numbers in the same order under another shape.
    ///
    /// # Errors
    /// [`ArrayError::Count`] if the new shape has another number of elements, [`ArrayError::Size`] if it is
    /// too large for any memory.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self, ArrayError> {
        Self::new(shape, self.data)
    }

    /// The array with its axes in another order, rewritten in memory: axis `i` of the result is
    /// axis `axes[i]` of this array (as numpy's `transpose`).
    ///
    /// # Errors
    /// [`ArrayError::Axes`] if `axes` does not name each axis once.
    pub fn permute(&self, axes: &[usize]) -> Result<Self, ArrayError> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.shape.len()) {
            return Err(ArrayError::Axes {
                axes: axes.to_vec(),
                shape: self.shape.clone(),
            });
        }
        let own = self.shape.strides();
        let extents: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        let strides: Vec<usize> = axes.iter().map(|&axis| own[axis]).collect();
        let data = each!(&self.data, v => {
            let mut out = Vec::with_capacity(v.len());
            if !v.is_empty() {
                gather(v, 0, &extents, &strides, &mut out);
            }
            out.into()
        });
        Ok(Self {
            shape: extents.into(),
            data,
        })
    }

    /// Whether every number is finite.
    pub fn all_finite(&self) -> bool {
        each!(&self.data, v => v.iter().all(|x| x.wide().is_finite()))
    }
}

/// Appends the elements that lie at `strides` from `start`, the last axis fastest.
fn gather<T: Copy>(
    from: &[T],
    start: usize,
    extents: &[usize],
    strides: &[usize],
    out: &mut Vec<T>,
) {
    let (Some((&extent, extents)), Some((&stride, strides))) =
        (extents.split_first(), strides.split_first())
    else {
        return out.push(from[start]);
    };
    for i in 0..extent {
        gather(from, start + i * stride, extents, strides, out);
    }
}

macro_rules! slice {
    ($name:ident, $t:ty, $variant:ident) => {
        #[doc = concat!("The numbers, if they are [`DType::", stringify!($variant), "`].")]
        pub fn $name(&self) -> Option<&[$t]> {
            match &self.data {
                Data::$variant(v) => Some(v),
                _ => None,
            }
        }
    };
}

impl Array {
    slice!(as_f32, f32, F32);
    slice!(as_f64, f64, F64);
    slice!(as_u8, u8, U8);
    slice!(as_i32, i32, I32);
    slice!(as_u32, u32, U32);
}

#[cfg(test)]
mod tests;
