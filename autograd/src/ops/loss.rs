//! Losses of a classifier, composed of the primitives.

use crate::error::{Result, refuse};
use crate::tape::Var;

impl<'t> Var<'t> {
    /// The logarithm of softmax along the last axis. Does not overflow.
    pub fn log_softmax(self) -> Result<Var<'t>> {
        let Some(last) = self.shape().len().checked_sub(1) else {
            return refuse("log_softmax", "a scalar has no axis");
        };
        // A shift changes nothing, and keeps exp from overflowing; so its derivative is none either.
        let shifted = (self - self.max_last()?.stop_gradient())?;
        let log_sum = shifted.exp()?.sum_keep(&[last])?.log()?;
        shifted - log_sum
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
        let likelihood = (labels * self.log_softmax()?)?.sum(&[models, models + 1])?;
        likelihood * (-1.0 / given[0] as f64)
    }
}
