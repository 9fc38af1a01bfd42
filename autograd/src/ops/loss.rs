//! Losses of a classifier, composed of the primitives.

use crate::error::{Result, refuse};
use crate::tape::Var;

impl<'t> Var<'t> {
    /// The max along the last axis, which stays with extent 1; the derivative goes to the first of equals.
    pub fn max_last(self) -> Result<Var<'t>> {
        Ok(self.row("max_last")?.max)
    }

    /// ln softmax along the last axis. Nothing overflows, and no digits are lost where a probability is
    /// near 0 or near 1: that of the likeliest class is computed as −ln(1 + the odds of all others).
    pub fn log_softmax(self) -> Result<Var<'t>> {
        let Row { max, is_max, .. } = self.row("log_softmax")?;
        let zero = self.constant_like(0.0);
        let below = is_max.select(zero, (self - max)?)?;
        below - odds(below, is_max)?.log1p()?
    }

    /// eˣ/Σeˣ along the last axis.
    pub fn softmax(self) -> Result<Var<'t>> {
        self.log_softmax()?.exp()
    }

    /// ln Σeˣ along the last axis, which stays with extent 1; −∞ if all elements are −∞.
    pub fn logsumexp(self) -> Result<Var<'t>> {
        let Row { max, is_max } = self.row("logsumexp")?;
        let nothing = max.equal(max.constant_like(f64::NEG_INFINITY))?;
        let shift = nothing.select(max.constant_like(0.0), max)?;
        max + odds((self - shift)?, is_max)?.log1p()?
    }

    /// The max of every row, and where it is: 1 at the first of equals, 0 elsewhere.
    fn row(self, name: &'static str) -> Result<Row<'t>> {
        let shape = self.shape();
        let Some(last) = shape.len().checked_sub(1) else {
            return refuse(name, "a scalar has no axis");
        };
        let is_max = self.argmax(last)?.one_hot(shape[last], self.dtype())?;
        let max = is_max
            .select(self, self.constant_like(0.0))?
            .sum_keep(&[last])?;
        Ok(Row { max, is_max })
    }

    /// The mean of the squared differences, a scalar.
    pub fn mean_squared_error(self, target: Var<'t>) -> Result<Var<'t>> {
        (self - target)?.powi(2)?.mean_all()
    }

    /// Mean cross-entropy of logits \[n, classes\] and labels of that shape: rows of probabilities, as one-hot
    /// or learned soft labels. Logits \[k, n, classes\] of k models under the same labels have a loss each:
    /// the result is \[k\].
    ///
    /// ```
    /// use autograd::{Plan, Tape};
    /// use kernels::Device;
    /// use tensor::{Array, DType};
    /// let tape = Tape::new();
    /// let logits = tape.input("logits", DType::F64, [1, 2])?;
    /// let labels = tape.input("labels", DType::F64, [1, 2])?;
    /// let plan = Plan::new(&[logits.cross_entropy(labels)?])?;
    /// let at = Array::new([1, 2], vec![0.0, 0.0])?;
    /// let class = Array::new([1, 2], vec![1.0, 0.0])?;
    /// let loss = plan.run(&Device::cpu(None)?, &[(logits, &at), (labels, &class)])?;
    /// assert!((loss[0].to_f64_vec()[0] - 2f64.ln()).abs() < 1e-15);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cross_entropy(self, labels: Var<'t>) -> Result<Var<'t>> {
        let (shape, given) = (self.shape(), labels.shape());
        let models = shape.len().saturating_sub(2);
        if given.len() != 2 || models > 1 || shape[models..] != given[..] {
            return refuse(
                "cross_entropy",
                format!(
                    "logits {shape} and labels {given}: both must be [n, classes], and only logits may \
                     have an axis before these"
                ),
            );
        }
        // A class whose label is 0 adds nothing, even where its log-probability is −∞.
        let likelihood = labels
            .strong_mul(self.log_softmax()?)?
            .sum(&[models, models + 1])?;
        likelihood * (-1.0 / given[0] as f64)
    }
}

/// The max of every row, and where it is.
struct Row<'t> {
    max: Var<'t>,
    is_max: Var<'t>,
}

/// Σeˣ along the last axis over all but the max.
fn odds<'t>(below: Var<'t>, is_max: Var<'t>) -> Result<Var<'t>> {
    let others = is_max.select(below.constant_like(0.0), below.exp()?)?;
    others.sum_keep(&[below.shape().len() - 1])
}
