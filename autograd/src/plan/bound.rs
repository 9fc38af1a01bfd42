//! Plans whose arrays are known by keys of the caller: where each lies is decided when the plan runs.

use super::Plan;
use crate::error::{Error, Result};
use crate::spec::ArraySpec;
use crate::tape::{Id, Var};
use kernels::{Buffer, Device, View};

/// A plan with a key for every input and output. A key is what the caller calls an array: an enum, a number, a name.
#[derive(Debug)]
pub struct Bound<K> {
    plan: Plan,
    inputs: Vec<K>,
    outputs: Vec<K>,
}

impl<K: Copy + Eq> Bound<K> {
    /// Plans `wanted`, from `given`. What is given need not be an input of the tape: a result that is given is not
    /// computed. A result whose key is that of an array given is written over it, in place.
    ///
    /// # Errors
    /// If an input that is needed has no key, or a result does not fit the array of its key.
    pub fn new(given: &[(Var<'_>, K)], wanted: &[(Var<'_>, K)]) -> Result<Self> {
        Self::in_segments(given, wanted, 1)
    }

    /// As [`Bound::new`], in segments as [`Plan::in_segments`] has them.
    ///
    /// # Errors
    /// As [`Bound::new`].
    pub fn in_segments(
        given: &[(Var<'_>, K)],
        wanted: &[(Var<'_>, K)],
        segments: usize,
    ) -> Result<Self> {
        let mut inputs = Vec::new();
        let mut in_place = Vec::new();
        let vars: Vec<Var<'_>> = given.iter().map(|(var, _)| *var).collect();
        let outs: Vec<Var<'_>> = wanted.iter().map(|(var, _)| *var).collect();
        let keys: Vec<K> = wanted.iter().map(|(_, key)| *key).collect();
        let plan = Plan::build(&outs, &vars, segments, |specs, sources| {
            inputs = keys_of(given, specs, sources)?;
            in_place = donors(specs, &inputs, wanted)?;
            Ok(in_place.clone())
        })?;
        let own = keys.into_iter().zip(in_place);
        let outputs = own.filter(|(_, donor)| donor.is_none()).map(|(key, _)| key);
        Ok(Self {
            plan,
            outputs: outputs.collect(),
            inputs,
        })
    }

    /// As [`Bound::new`], in as few segments as keep the arena within `bytes`, and at most `segments`.
    pub(crate) fn within(
        given: &[(Var<'_>, K)],
        wanted: &[(Var<'_>, K)],
        (segments, bytes): (usize, usize),
    ) -> Result<Self> {
        let mut fewer = 1;
        while fewer < segments {
            let bound = Self::in_segments(given, wanted, fewer)?;
            if bound.plan.arena_bytes() <= bytes {
                return Ok(bound);
            }
            fewer *= 2;
        }
        Self::in_segments(given, wanted, segments)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The views of its inputs, then those of the outputs that are not written in place.
    pub(crate) fn views<'a>(&self, view: impl Fn(K) -> View<'a>) -> [Vec<View<'a>>; 2] {
        [&self.inputs, &self.outputs].map(|keys| keys.iter().map(|&key| view(key)).collect())
    }
}

/// The keys of a plan's inputs.
fn keys_of<K: Copy>(given: &[(Var<'_>, K)], specs: &[ArraySpec], sources: &[Id]) -> Result<Vec<K>> {
    let mut keys: Vec<(Id, K)> = given.iter().map(|(var, key)| (var.id, *key)).collect();
    keys.sort_by_key(|(id, _)| *id);
    let key = |(spec, source): (&ArraySpec, &Id)| {
        let found = keys.binary_search_by_key(source, |(id, _)| *id);
        let missing = || Error::Plan(format!("input `{}` is not given", spec.name));
        found.map(|at| keys[at].1).map_err(|_| missing())
    };
    specs.iter().zip(sources).map(key).collect()
}

/// For each result the input that it is written over.
fn donors<K: Eq>(
    specs: &[ArraySpec],
    inputs: &[K],
    wanted: &[(Var<'_>, K)],
) -> Result<Vec<Option<usize>>> {
    let donor = |(var, key): &(Var<'_>, K)| {
        let Some(input) = inputs.iter().position(|input| input == key) else {
            return Ok(None);
        };
        let spec = &specs[input];
        if spec.shape != var.shape() || spec.dtype != var.dtype() {
            let reason = format!("{var:?} cannot be written over input `{}`", spec.name);
            return Err(Error::Plan(reason));
        }
        Ok(Some(input))
    };
    let donors: Vec<Option<usize>> = wanted.iter().map(donor).collect::<Result<_>>()?;
    let mut taken = vec![false; specs.len()];
    for &input in donors.iter().flatten() {
        if std::mem::replace(&mut taken[input], true) {
            let name = &specs[input].name;
            let reason = format!("two results are to be written over input `{name}`");
            return Err(Error::Plan(reason));
        }
    }
    Ok(donors)
}

/// A bound plan with the memory that it works in, ready to run on a device.
///
/// ```
/// use autograd::Task;
/// use autograd::prelude::*;
/// #[derive(Clone, Copy, PartialEq, Eq)]
/// enum Key { X, Doubled }
/// let tape = Tape::new();
/// let x = tape.input("x", F32, [2])?;
/// let device = Device::cpu(None)?;
/// let task = Task::new(&device, &[(x, Key::X)], &[((x * 2.0)?, Key::Doubled)])?;
/// let values = Values::new(&device, [("x", &Array::full(F32, [2], 3.0)), ("doubled", &Array::zeros(F32, [2]))])?;
/// task.run(|key| match key {
///     Key::X => values.view("x"),
///     Key::Doubled => values.view("doubled"),
/// })?;
/// assert_eq!(values.get("doubled")?.to_f64_vec(), [6.0, 6.0]);
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Debug)]
pub struct Task<K> {
    bound: Bound<K>,
    device: Device,
    arena: Buffer,
}

impl<K: Copy + Eq> Task<K> {
    /// Plans as [`Bound::new`] and takes the arena's memory.
    ///
    /// # Errors
    /// As [`Bound::new`], or if there is too little memory.
    pub fn new(device: &Device, given: &[(Var<'_>, K)], wanted: &[(Var<'_>, K)]) -> Result<Self> {
        let bound = Bound::new(given, wanted)?;
        Ok(Self {
            arena: device.alloc(bound.plan.arena_bytes())?,
            device: device.clone(),
            bound,
        })
    }

    /// Runs on the arrays that the keys stand for. On a GPU the host does not wait.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run<'a>(&self, view: impl Fn(K) -> View<'a>) -> Result<()> {
        let [inputs, outputs] = self.bound.views(view);
        let arena = self.arena.view(0, self.arena.bytes());
        let plan = &self.bound.plan;
        plan.execute(&self.device, arena, &inputs, &outputs)
    }
}
