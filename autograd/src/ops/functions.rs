//! Functions made of the primitives, element by element.

use crate::error::Result;
use crate::tape::Var;

impl<'t> Var<'t> {
    /// x where x > 0, else 0; its derivative at 0 is 0.
    pub fn relu(self) -> Result<Var<'t>> {
        let zero = self.constant_like(0.0);
        // NaN ≤ 0 is false, so NaN stays NaN.
        self.less_eq(zero)?.select(zero, self)
    }

    /// x where x > 0, else `slope`·x.
    pub fn leaky_relu(self, slope: f64) -> Result<Var<'t>> {
        self.less_eq(self.constant_like(0.0))?
            .select((self * slope)?, self)
    }

    /// x·σ(x), also called swish.
    pub fn silu(self) -> Result<Var<'t>> {
        self * self.sigmoid()?
    }

    /// x·Φ(x), Φ the distribution function of the standard normal (Hendrycks and Gimpel 2016); exact, not the
    /// approximation by tanh.
    pub fn gelu(self) -> Result<Var<'t>> {
        let phi = ((self * -std::f64::consts::FRAC_1_SQRT_2)?.erfc()? * 0.5)?;
        self * phi
    }

    /// ln σ(x), which is finite where σ(x) is 0.
    pub fn log_sigmoid(self) -> Result<Var<'t>> {
        let softplus = (-self)?.softplus()?;
        -softplus
    }

    /// x, limited to the range from `least` to `most`; the derivative outside of it is 0. NaN stays NaN.
    pub fn clamp(self, least: f64, most: f64) -> Result<Var<'t>> {
        self.max(self.constant_like(least))?
            .min(self.constant_like(most))
    }

    /// xᵖ for x ≥ 0 or a whole p, else NaN. For whole p known when it is recorded, `powi` is faster.
    pub fn powf(self, exponent: f64) -> Result<Var<'t>> {
        self.pow(self.constant_like(exponent))
    }

    /// x·ln y, which is 0 where x is 0, whatever y is: the terms of entropies.
    pub fn xlogy(self, y: Var<'t>) -> Result<Var<'t>> {
        self.strong_mul(y.log()?)
    }
}
