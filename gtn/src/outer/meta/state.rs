//! The state of an outer loop, as a checkpoint stores it.

use super::{MetaTrainer, not_finite};
use crate::data::Dataset;
use crate::error;
use crate::outer::curriculum::StartImages;
use autograd::prelude::*;
use tensor::Arrays;

impl MetaTrainer {
    /// All arrays that the next outer step depends on, by name.
    ///
    /// # Errors
    /// If the device fails.
    pub fn arrays(&self) -> Result<Arrays> {
        let named = |(values, name, key): (&Values, String, String)| Ok((key, values.get(&name)?));
        self.parts().into_iter().map(named).collect()
    }

    /// As [`MetaTrainer::arrays`], for a checkpoint.
    ///
    /// # Errors
    /// If a number is not finite, since a run cannot go on from it. Or if the device fails.
    pub fn finite_arrays(&self) -> error::Result<Arrays> {
        let arrays = self.arrays()?;
        let Some((name, _)) = arrays.iter().find(|(_, array)| !array.all_finite()) else {
            return Ok(arrays);
        };
        let step = self.outer_step.saturating_sub(1);
        let (lr, eps) = (self.config.outer_lr_at(step), self.config.outer_eps);
        let what = format!("array {name}, moved with the rate {lr:.3e} and outer_eps {eps:e},");
        Err(not_finite(step, &what))
    }

    /// Begins with what another run has learned, and with a fresh outer optimiser.
    ///
    /// # Errors
    /// With the name of an array that is missing, or of another shape.
    pub fn begin_with(&mut self, arrays: &Arrays) -> error::Result<()> {
        let mut begun = self.arrays()?;
        let own = self.optimizer_prefix();
        for (key, array) in begun.iter_mut().filter(|(key, _)| !key.starts_with(&own)) {
            let missing = || error::Error::run(format!("array {key} is missing"));
            *array = arrays.get(key).ok_or_else(missing)?.clone();
        }
        self.restore(&begun, 0)
    }

    /// Begins with copies of real images, where the settings say so.
    ///
    /// # Errors
    /// If a class has no training image, or the device fails.
    pub fn begin_with_copies(&mut self, data: &Dataset) -> error::Result<()> {
        if self.config.start_images == StartImages::Real {
            self.teacher.copy_real(&self.device, &self.config, data)?;
        }
        Ok(())
    }

    /// How many outer steps in a row have run away by now. The next outer step depends on it, beside the
    /// arrays.
    pub fn runaways(&self) -> usize {
        self.runaways
    }

    /// Continues after this many outer steps in a row that ran away.
    #[must_use]
    pub fn after_runaways(mut self, count: usize) -> Self {
        self.runaways = count;
        self
    }

    /// Continues from where [`MetaTrainer::arrays`] were taken, after `outer_step` outer steps.
    ///
    /// # Errors
    /// With the name of an array that is missing, of another shape, or not finite; the trainer is of no
    /// use then.
    pub fn restore(&mut self, arrays: &Arrays, outer_step: u64) -> error::Result<()> {
        for (values, name, key) in self.parts() {
            let wrong = |problem| error::Error::run(format!("array {key} {problem}"));
            let array = arrays.get(&key).ok_or_else(|| wrong("is missing"))?;
            if !array.all_finite() {
                return Err(wrong("has numbers that are not finite"));
            }
            let written = values.write(&name, array);
            written.map_err(|e| error::Error::run(e).at(format!("array {key}")))?;
        }
        self.outer_step = outer_step;
        Ok(())
    }

    /// The arrays of a checkpoint: where each is, its name there, and its name in the checkpoint.
    fn parts(&self) -> Vec<(&Values, String, String)> {
        let learned = self.learned().into_iter().map(|spec| {
            let generator = spec.name.starts_with("generator.");
            let key = if generator {
                spec.name.clone()
            } else {
                format!("learned.{}", spec.name)
            };
            (&self.teacher.values, spec.name, key)
        });
        let (prefix, state) = (self.optimizer_prefix(), self.descent.state());
        let kept = state.specs().map(|spec| {
            let key = format!("{prefix}{}", spec.name.replace("generator.", ""));
            (state, spec.name.clone(), key)
        });
        learned.chain(kept).collect()
    }

    /// What the names of the outer optimiser's arrays begin with.
    fn optimizer_prefix(&self) -> String {
        format!("{}.", self.config.outer_optimizer.0.name())
    }
}
