//! The inner loop's optimisers in the outer loop: they move named arrays along their gradients.

use super::Optimizer;
use crate::error::{Error, Result};
use crate::plan::Task;
use crate::spec::ArraySpec;
use crate::tape::{Tape, Var};
use crate::unroll::{Losses, Unroll, Values};
use kernels::View;
use tensor::{Array, DType};

/// Where an array of the plans lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Parameter(usize),
    Gradient(usize),
    State(usize),
    Hyper(usize),
    Norm,
}

/// Moves parameters along their gradients by an [`Optimizer`], on the device where they lie.
///
/// ```
/// use autograd::prelude::*;
/// let device = Device::cpu(None)?;
/// let values = Values::new(&device, [("w", &Array::full(F32, [2], 1.0))])?;
/// let gradients = Values::new(&device, [("w", &Array::new([2], vec![3.0f32, 4.0])?)])?;
/// let descent = Descent::new(&gradients, Optimizer::Sgd, &[("lr", 0.1)])?;
/// assert_eq!(descent.norm(&gradients)?, 5.0);
/// descent.step(&values, &gradients)?;
/// assert_eq!(values.get("w")?.as_f32(), Some(&[0.7, 0.6][..]));
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Debug)]
pub struct Descent {
    optimizer: Optimizer,
    parameters: Vec<ArraySpec>,
    update: Task<Key>,
    norm: Task<Key>,
    state: Values,
    hyper: Values,
}

/// A factor on all gradients, beside the optimiser's own hyper-parameters.
const SCALE: &str = "scale";
const NORM: &str = "norm";

impl Descent {
    /// For parameters that have these gradients: names, types and shapes are taken from them. Hyper-parameters that are
    /// not named have their customary values.
    ///
    /// # Errors
    /// If the optimiser has no such hyper-parameter, or there is too little memory.
    pub fn new(gradients: &Values, optimizer: Optimizer, hyper: &[(&str, f64)]) -> Result<Self> {
        let parameters: Vec<ArraySpec> = gradients.specs().cloned().collect();
        let Some(dtype) = parameters.first().map(|spec| spec.dtype) else {
            return Err(Error::Setting("descent: there is nothing to move".into()));
        };
        let device = gradients.device();
        let names = optimizer.hyper().iter().map(|(name, _)| *name);
        let names = names.chain([SCALE, NORM]);
        let scalars: Vec<ArraySpec> = names.map(|name| ArraySpec::new(name, dtype, [])).collect();
        let descent = Self {
            update: plan_update(gradients, optimizer, &parameters, dtype)?,
            norm: plan_norm(gradients, &parameters)?,
            state: Values::zeros(device, &state_specs(optimizer, &parameters))?,
            hyper: Values::zeros(device, &scalars)?,
            parameters,
            optimizer,
        };
        let customary = optimizer.hyper().iter().copied();
        for (name, value) in customary.chain([(SCALE, 1.0)]).chain(hyper.iter().copied()) {
            descent.set(name, value)?;
        }
        Ok(descent)
    }

    /// Sets a hyper-parameter of the optimiser, or `scale`: a factor on all gradients, for clipping.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn set(&self, name: &str, value: f64) -> Result<()> {
        let mut hyper = self.optimizer.hyper().iter();
        if name != SCALE && !hyper.any(|(known, _)| *known == name) {
            let optimizer = self.optimizer.name();
            return Err(Error::Setting(format!("{optimizer} has no `{name}`")));
        }
        let dtype = self.parameters[0].dtype;
        self.hyper.write(name, &Array::scalar(value, dtype))
    }

    /// What the optimiser keeps between steps: for a parameter `w`, say, `m.w` and `v.w`.
    pub fn state(&self) -> &Values {
        &self.state
    }

    /// Computes the norm of the gradient over all arrays. On a GPU the host does not wait: see [`Descent::measured`].
    ///
    /// # Errors
    /// If the device fails.
    pub fn measure(&self, gradients: &Values) -> Result<()> {
        let views = self.views(gradients)?;
        self.norm.run(|key| match key {
            Key::Gradient(i) => views[i],
            _ => self.hyper.view(NORM),
        })
    }

    /// The norm that was measured last. Waits until it is computed.
    ///
    /// # Errors
    /// If the device fails.
    pub fn measured(&self) -> Result<f64> {
        Ok(self.hyper.get(NORM)?.to_f64_vec()[0])
    }

    /// The norm of the gradient over all arrays.
    ///
    /// # Errors
    /// If the device fails.
    pub fn norm(&self, gradients: &Values) -> Result<f64> {
        self.measure(gradients)?;
        self.measured()
    }

    /// One outer step: computes the meta-gradient and moves what is learned. Gives the losses before the move.
    ///
    /// # Errors
    /// As [`Unroll::gradient`], and nothing is moved then; or as [`Descent::step`].
    pub fn descend(&self, unroll: &mut Unroll, values: &Values) -> Result<Losses> {
        let losses = unroll.gradient(values)?;
        self.step(values, unroll.gradients())?;
        Ok(losses)
    }

    /// Moves the parameters, in place. On a GPU the host does not wait.
    ///
    /// # Errors
    /// If a parameter or gradient is missing or has another type or shape, or the device fails.
    pub fn step(&self, values: &Values, gradients: &Values) -> Result<()> {
        let (parameters, gradients) = (self.views(values)?, self.views(gradients)?);
        self.update.run(|key| match key {
            Key::Parameter(i) => parameters[i],
            Key::Gradient(i) => gradients[i],
            Key::State(i) => self.state.at(i),
            Key::Hyper(i) => self.hyper.at(i),
            Key::Norm => self.hyper.view(NORM),
        })
    }

    fn views<'a>(&self, values: &'a Values) -> Result<Vec<View<'a>>> {
        let mut specs = self.parameters.iter();
        specs.try_fold(Vec::new(), |mut views, spec| {
            views.push(values.expect(spec)?);
            Ok(views)
        })
    }
}

/// The optimiser's arrays for every parameter in turn.
fn state_specs(optimizer: Optimizer, parameters: &[ArraySpec]) -> Vec<ArraySpec> {
    let of_one = |spec: &ArraySpec| {
        let slots = optimizer.state(&spec.shape, spec.dtype).into_iter();
        let named = slots.map(|slot| {
            let name = format!("{}.{}", slot.name, spec.name);
            slot.named(name)
        });
        named.collect::<Vec<_>>()
    };
    parameters.iter().flat_map(of_one).collect()
}

fn plan_update(
    gradients: &Values,
    optimizer: Optimizer,
    parameters: &[ArraySpec],
    dtype: DType,
) -> Result<Task<Key>> {
    let tape = Tape::new();
    let scalars = optimizer.hyper().len() + 1;
    let hyper: Vec<Var<'_>> = (0..scalars)
        .map(|_| tape.input("hyper-parameter", dtype, []))
        .collect::<Result<_>>()?;
    let mut given: Vec<(Var<'_>, Key)> = Vec::new();
    given.extend(
        hyper
            .iter()
            .enumerate()
            .map(|(i, var)| (*var, Key::Hyper(i))),
    );
    let (mut wanted, mut slots) = (Vec::new(), 0);
    for (i, spec) in parameters.iter().enumerate() {
        let parameter = tape.input(&spec.name, spec.dtype, spec.shape.clone())?;
        let gradient = tape.input(&spec.name, spec.dtype, spec.shape.clone())?;
        given.extend([(parameter, Key::Parameter(i)), (gradient, Key::Gradient(i))]);
        let state = tape.inputs(&optimizer.state(&spec.shape, spec.dtype))?;
        let scaled = (gradient * hyper[scalars - 1])?;
        let (moved, kept) = optimizer.update(parameter, scaled, &state, &hyper[..scalars - 1])?;
        wanted.push((moved, Key::Parameter(i)));
        for (old, new) in state.into_iter().zip(kept) {
            given.push((old, Key::State(slots)));
            wanted.push((new, Key::State(slots)));
            slots += 1;
        }
    }
    Task::new(gradients.device(), &given, &wanted)
}

fn plan_norm(gradients: &Values, parameters: &[ArraySpec]) -> Result<Task<Key>> {
    let tape = Tape::new();
    let arrays = tape.inputs(parameters)?;
    let keyed = arrays
        .iter()
        .enumerate()
        .map(|(i, array)| (*array, Key::Gradient(i)));
    let given: Vec<_> = keyed.collect();
    let norm = tape.norm_of(&arrays)?;
    Task::new(gradients.device(), &given, &[(norm, Key::Norm)])
}
