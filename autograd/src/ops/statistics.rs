//! Norms, means and variances, composed of the primitives. They stay accurate where squares overflow or
//! underflow, and where a mean is large compared with the deviation.

use crate::error::{Result, refuse};
use crate::tape::{Tape, Var};
use tensor::DType;

/// Statistics of an array over some axes, which stay with extent 1.
#[derive(Clone, Copy, Debug)]
pub struct Moments<'t> {
    /// The mean.
    pub mean: Var<'t>,
    /// The mean of the squared distances from the mean: divided by the count, not the count − 1.
    pub variance: Var<'t>,
    /// The array minus its mean.
    pub centered: Var<'t>,
    /// The variance times `inverse`².
    scaled: Var<'t>,
    /// Scales numbers before they are squared: a power of two, 1 unless the squares would overflow.
    inverse: Var<'t>,
}

impl<'t> Moments<'t> {
    /// The moments of an array whose mean and variance are known already.
    pub fn given(x: Var<'t>, mean: Var<'t>, variance: Var<'t>) -> Result<Self> {
        Ok(Self {
            mean,
            variance,
            centered: (x - mean)?,
            scaled: variance,
            inverse: variance.constant_like(1.0),
        })
    }

    /// 1/√(variance + `eps`): its product with [`centered`](Moments::centered) has mean 0 and variance 1.
    pub fn inverse_deviation(&self, eps: f64) -> Result<Var<'t>> {
        let inverse = self.inverse;
        (self.scaled + ((inverse * eps)? * inverse)?)?.rsqrt()? * inverse
    }
}

/// \[1/unit, unit\] for numbers whose magnitudes add up to `total`. Both are powers of two. Numbers times
/// 1/unit can be squared and summed without overflow and, if `small`, without underflow. The unit is 1 in
/// the middle of the range, and where all numbers are zero.
fn units(total: Var<'_>, small: bool) -> Result<[Var<'_>; 2]> {
    // Exponents of two. Numbers whose magnitudes add up to less than 2^`least` are scaled up by 2^`up`;
    // from 2^`most` on they are scaled down by 2^`down`. At 2^`least` the greatest of 2²³ numbers is at
    // least 2⁻⁶³ (in f64 of 2⁴⁰ numbers 2⁻⁴⁴⁰), so its square is still a normal number.
    let [least, most, up, down] = match total.dtype() {
        DType::F32 => [-40, 60, 90, -65],
        _ => [-400, 500, 600, -520],
    };
    let power = |n: i32| total.constant_like(2_f64.powi(n));
    let (one, zero) = (power(0), total.constant_like(0.0));
    let choose = |sign: i32| {
        let mut middle = one;
        if small {
            let tiny = total.less(power(least))?.select(power(sign * up), one)?;
            middle = zero.less(total)?.select(tiny, one)?;
        }
        total.less(power(most))?.select(middle, power(sign * down))
    };
    Ok([choose(1)?, choose(-1)?])
}

impl<'t> Var<'t> {
    /// Mean, variance and distances from the mean over some axes.
    ///
    /// The mean is computed in two passes, the second over what the first left (Chan, Golub and `LeVeque`
    /// 1983). So all digits are right even where the mean is large compared with the deviation.
    pub fn moments(self, axes: &[usize]) -> Result<Moments<'t>> {
        let [inverse, unit] = units(self.abs()?.sum_keep(axes)?, false)?;
        let mean = self.mean_keep(axes)?;
        let apart = (self - mean)?;
        // The rounding error of the mean. It has no derivative.
        let rest = apart.mean_keep(axes)?.stop_gradient();
        let square = |x: Var<'t>| (x * inverse)? * (x * inverse)?;
        let squares = square(apart)?.mean_keep(axes)?;
        // The same variance for derivatives only: it is never computed, so it may overflow. Its derivative
        // multiplies by 1/unit² once per mean instead of once per element.
        let plain = ((apart * apart)?.mean_keep(axes)? * (inverse * inverse)?)?;
        let squares = squares.with_derivative_of(plain)?;
        let scaled = (squares - square(rest)?)?.max(mean.constant_like(0.0))?;
        Ok(Moments {
            mean: (mean + rest)?,
            variance: ((scaled * unit)? * unit)?,
            centered: (apart - rest)?,
            scaled,
            inverse,
        })
    }

    /// The variance over some axes, which stay with extent 1: see [`Moments::variance`].
    pub fn variance_keep(self, axes: &[usize]) -> Result<Var<'t>> {
        Ok(self.moments(axes)?.variance)
    }

    /// √Σx² over some axes, which stay with extent 1. The squares neither overflow nor underflow. The
    /// derivative is x/‖x‖, and 0 where all of x are 0.
    pub fn norm_keep(self, axes: &[usize]) -> Result<Var<'t>> {
        let (squares, [_, unit]) = self.squares(axes)?;
        squares.sqrt()? * unit
    }

    /// 1/‖x‖ as two factors, because derivatives of their product may overflow. The first is a power of
    /// two, 1 in the middle of the range. The second is the rest, and 0 where all of x are 0. The axes stay
    /// with extent 1.
    pub fn inverse_norm_keep(self, axes: &[usize]) -> Result<[Var<'t>; 2]> {
        let (squares, [inverse, _]) = self.squares(axes)?;
        let zero = squares.constant_like(0.0);
        let rest = zero.less(squares)?.select(squares.rsqrt()?, zero)?;
        Ok([inverse, rest])
    }

    /// √Σx² over everything, a scalar: see [`norm_keep`](Var::norm_keep).
    ///
    /// ```
    /// # use autograd::{Plan, Tape}; use kernels::Device; use tensor::{Array, DType};
    /// let tape = Tape::new();
    /// let x = tape.input("x", DType::F32, [2])?;
    /// let norm = x.norm()?;
    /// let slope = tape.grad(norm, &[x])?[0];
    /// let at = Array::new([2], vec![3e30_f32, 4e30])?; // whose squares are infinite
    /// let results = Plan::new(&[norm, slope])?.run(&Device::cpu(None)?, &[(x, &at)])?;
    /// assert!((results[0].to_f64_vec()[0] / 5e30 - 1.0).abs() < 1e-6);
    /// assert!((results[1].to_f64_vec()[0] - 0.6).abs() < 1e-6);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    pub fn norm(self) -> Result<Var<'t>> {
        self.tape().norm_of(&[self])
    }

    /// Σ(x/unit)² over some axes, and \[1/unit, unit\].
    fn squares(self, axes: &[usize]) -> Result<(Var<'t>, [Var<'t>; 2])> {
        let [inverse, unit] = units(self.abs()?.sum_keep(axes)?, true)?;
        let scaled = (self * inverse)?;
        Ok(((scaled * scaled)?.sum_keep(axes)?, [inverse, unit]))
    }
}

impl Tape {
    /// √Σx² over all elements of some arrays, a scalar: see [`Var::norm_keep`].
    pub fn norm_of<'t>(&'t self, arrays: &[Var<'t>]) -> Result<Var<'t>> {
        if arrays.is_empty() {
            return refuse("norm_of", "no arrays");
        }
        let sum = |f: &dyn Fn(Var<'t>) -> Result<Var<'t>>| {
            let sums = arrays.iter().map(|array| f(*array)?.sum_all());
            self.sum_of(&sums.collect::<Result<Vec<_>>>()?)
        };
        let [inverse, unit] = units(sum(&|array| array.abs())?, true)?;
        let squares = sum(&|array| {
            let scaled = (array * inverse)?;
            scaled * scaled
        })?;
        squares.sqrt()? * unit
    }
}
