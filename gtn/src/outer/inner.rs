//! The optimiser of the inner steps, as the settings ask for it, and the arrays that hold its learned
//! hyper-parameters.

use crate::error;
use crate::outer::hyper::{Hyper, Learned};
use crate::outer::rule::{Rule, is_reached};
use crate::run::config::Config;
use autograd::prelude::*;

/// The optimiser of the inner steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Inner {
    /// What moves a learner's weights.
    pub rule: Rule,
    /// The optimiser's hyper-parameters, in its order.
    pub hyper: Vec<Hyper>,
}

impl Inner {
    /// The optimiser that settings ask for.
    pub fn of(config: &Config) -> Self {
        let rule = Rule {
            optimizer: config.inner_optimizer.0,
            rates: config.inner_rates,
        };
        let hyper = rule.optimizer.hyper().iter().map(|&(name, _)| Hyper {
            name,
            start: match name {
                "lr" => config.inner_lr,
                "momentum" => config.inner_momentum,
                "beta1" => config.inner_beta1,
                "beta2" | "decay" => config.inner_beta2,
                "eps" => config.inner_eps,
                _ => config.inner_weight_decay,
            },
            learned: if is_reached(rule.optimizer, name) {
                config.learn.of(name)
            } else {
                Learned::Fixed
            },
        });
        Self {
            rule,
            hyper: hyper.collect(),
        }
    }

    /// Stochastic gradient descent whose learning rate and momentum are learned for every step.
    pub fn momentum(lr: f64, momentum: f64) -> Self {
        let hyper = [("lr", lr), ("momentum", momentum)].map(|(name, start)| Hyper {
            name,
            start,
            learned: Learned::PerStep,
        });
        Self {
            rule: Optimizer::Momentum.into(),
            hyper: hyper.into(),
        }
    }

    fn learned(&self) -> impl Iterator<Item = Hyper> {
        let all = self.hyper.iter().copied();
        all.filter(|hyper| hyper.learned != Learned::Fixed)
    }

    /// The array in which a hyper-parameter is learned.
    fn spec(&self, hyper: Hyper, steps: usize, dtype: DType) -> ArraySpec {
        let shape = self.rule.shape(hyper.name);
        let shape = match hyper.learned {
            Learned::PerStep => [&[steps], shape].concat(),
            Learned::Shared | Learned::Fixed => shape.to_vec(),
        };
        ArraySpec::new(hyper.array(), dtype, shape)
    }

    /// The arrays that are learned for a training of so many steps.
    pub fn specs(&self, steps: usize, dtype: DType) -> impl Iterator<Item = ArraySpec> {
        self.learned()
            .map(move |hyper| self.spec(hyper, steps, dtype))
    }

    /// Writes the start values.
    ///
    /// # Errors
    /// If the device fails.
    pub fn start(&self, values: &mut Values, steps: usize) -> Result<()> {
        for hyper in self.learned() {
            let spec = self.spec(hyper, steps, F32);
            let start = hyper.to_array(hyper.start);
            values.set(&spec.name, &Array::full(F32, spec.shape, start))?;
        }
        Ok(())
    }

    /// Declares the hyper-parameters of a training: what is learned, and what stays as it is.
    pub fn declare<'f>(
        &self,
        mut training: Training<'f>,
        steps: usize,
        dtype: DType,
    ) -> Training<'f> {
        for &hyper in &self.hyper {
            let (array, shape) = (hyper.array(), self.rule.shape(hyper.name));
            // Rates by role that are the same at every step are a single row, which all steps share.
            let row = [&[1], shape].concat();
            training = match hyper.learned {
                Learned::Fixed if shape.is_empty() => training.hyper(hyper.name, move |s, _| {
                    Ok(s.tape().constant(hyper.start, dtype, []))
                }),
                Learned::Fixed => training.prepare(hyper.name, move |s| {
                    Ok(s.tape().constant(hyper.start, dtype, &row[..]))
                }),
                _ => training.learned([self.spec(hyper, steps, dtype)]).prepare(
                    hyper.name,
                    move |s| {
                        let values = hyper.record(s[array.as_str()])?;
                        if hyper.learned == Learned::Shared && row.len() > 1 {
                            return values.reshape(&row[..]);
                        }
                        Ok(values)
                    },
                ),
            };
            if hyper.learned == Learned::PerStep || !shape.is_empty() {
                // Then trainings of fewer steps can use the same arrays.
                training = training.per_step([hyper.name]);
            }
        }
        training
    }

    /// The value of every hyper-parameter at every step, as they were learned: names and \[steps\], or \[steps, roles\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn values(&self, learned: &Values, steps: usize) -> Result<Vec<(&'static str, Array)>> {
        let numbers = |hyper: &Hyper| -> Result<_> {
            let values: Vec<f32> = if hyper.learned == Learned::Fixed {
                vec![hyper.start as f32]
            } else {
                let array = learned.get(&hyper.array())?;
                let numbers = array.as_f32().expect("it was made of f32").iter();
                numbers.map(|&x| hyper.value(x)).collect()
            };
            let shape = Shape::from([&[steps], self.rule.shape(hyper.name)].concat());
            let values: Vec<f32> = values.into_iter().cycle().take(shape.count()).collect();
            Ok((hyper.name, Array::new(shape, values)?))
        };
        self.hyper.iter().map(numbers).collect()
    }

    /// Refuses a learned hyper-parameter whose start has no logarithm or logit.
    pub(crate) fn check(&self) -> error::Result<()> {
        let undefined = self
            .learned()
            .find(|hyper| !hyper.to_array(hyper.start).is_finite());
        let Some(Hyper { name, start, .. }) = undefined else {
            return Ok(());
        };
        let message = format!("{name} is learned by its logarithm or logit, and starts at {start}");
        Err(error::Error::usage(message).hint("another start, or --learn without it"))
    }
}
