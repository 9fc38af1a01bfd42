//! Training without a meta-gradient: for evaluation, and for whoever wants the trained weights.

use super::inner::plan_advance;
use super::memory::{At, Memory, Sizes};
use super::prepared::Prepared;
use super::records::Records;
use super::source::Source;
use super::training::Training;
use super::values::Values;
use crate::error::{Error, Result};
use crate::plan::Bound;
use crate::spec::ArraySpec;
use kernels::{Device, View};
use std::sync::Arc;
use tensor::Array;

/// A training of T steps, planned, with its memory: trains, and differentiates nothing. It needs no outer loss.
///
/// ```
/// use autograd::prelude::*;
/// let given = [("w", &Array::full(F64, [1], 8.0)), ("lr", &Array::scalar(0.25, F64))];
/// let training = Training::new(Optimizer::Sgd)
///     .weights([given[0]])
///     .given([given[1]])
///     .loss(|s| s["w"].powi(2)?.sum_all());
/// let device = Device::cpu(None)?;
/// let values = Values::new(&device, given)?;
/// let mut trainer = Trainer::new(&device, &training, 3)?;
/// let mut path = Vec::new();
/// let losses = trainer.train(&values, |_, state| {
///     path.push(state.get("w")?.to_f64_vec()[0]);
///     Ok(())
/// })?;
/// assert_eq!((path, losses), (vec![8.0, 4.0, 2.0, 1.0], vec![64.0, 16.0, 4.0]));
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Debug)]
pub struct Trainer {
    memory: Memory,
    advance: Bound<Source>,
    specs: Vec<ArraySpec>,
    buffers: usize,
    steps: usize,
}

/// A learner at one step: its weights, the optimiser's arrays, buffers.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    trainer: &'a Trainer,
    record: usize,
}

impl Trainer {
    /// Plans `steps` inner steps and takes the memory for them.
    ///
    /// # Errors
    /// If the training cannot be recorded, or there is too little memory.
    pub fn new(device: &Device, training: &Training<'_>, steps: usize) -> Result<Self> {
        training.check()?;
        let prepared = Arc::new(Prepared::record(training, steps)?);
        let advance = plan_advance(training, &prepared)?;
        let specs = training.state_specs().specs;
        let prepare = prepared.prepare.as_ref();
        let prepare = prepare.map_or(0, |bound| bound.plan().arena_bytes());
        let memory = Memory::new(
            device,
            Vec::new(),
            &prepared,
            &Sizes {
                steps,
                outer: 0,
                state: &specs,
                states: 2,
                cotangents: &[],
                kept: (&[], 0),
                preludes: (&[], 0),
                learned: &[],
                own_gradients: &[],
                arena: advance.plan().arena_bytes().max(prepare),
            },
        )?;
        Ok(Self {
            memory,
            advance,
            specs,
            buffers: training.buffers.len(),
            steps,
        })
    }

    /// How many inner steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Trains. `observe` gets the learner before the first step and after each, with the number of steps
    /// done. Gives the inner loss at every step. Unless `observe` does, the host does not wait for a GPU
    /// before the last step.
    ///
    /// # Errors
    /// If a value is missing or has another type or shape, `observe` fails, or an inner loss was not finite: it names the
    /// step.
    pub fn train(
        &mut self,
        values: &Values,
        mut observe: impl FnMut(usize, State<'_>) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let given = &self.memory.given(values)?;
        let run = |bound: &Bound<Source>| self.memory.run(bound, given, At::default());
        self.memory.begin(given, run)?;
        let state = |record| State {
            trainer: self,
            record,
        };
        observe(0, state(0))?;
        for step in 0..self.steps {
            let at = At {
                step,
                from: step % 2,
                to: (step + 1) % 2,
                ..At::default()
            };
            self.memory.run(&self.advance, given, at)?;
            observe(step + 1, state(at.to))?;
        }
        Ok(self.memory.losses(&[])?.inner)
    }
}

impl<'a> State<'a> {
    fn states(&self) -> &'a Records {
        &self.trainer.memory.states
    }

    /// Copies an array out, when all work queued before is done: a weight by its name, one of the optimiser's arrays as in
    /// `w.u`, or a buffer.
    ///
    /// # Errors
    /// If there is no such array, or the device failed.
    pub fn get(&self, name: &str) -> Result<Array> {
        let at = self.trainer.specs.iter().position(|spec| spec.name == name);
        let missing = || Error::Plan(format!("the learner has no array `{name}`"));
        self.states().get(self.record, at.ok_or_else(missing)?)
    }

    /// Where the weights lie, in the order of their declaration.
    pub fn weights(&self) -> Vec<View<'a>> {
        let weights = self.trainer.memory.prepared.weights;
        (0..weights)
            .map(|at| self.states().view(self.record, at))
            .collect()
    }

    /// Where the buffers lie, in the order of their declaration.
    pub fn buffers(&self) -> Vec<View<'a>> {
        let count = self.trainer.specs.len();
        let buffers = count - self.trainer.buffers..count;
        buffers
            .map(|at| self.states().view(self.record, at))
            .collect()
    }
}
