//! The memory of an unrolled training, and where in it the array of a key lies.

use super::Losses;
use super::drive::At;
use super::plans::{Place, Slice, Source};
use super::prepared::Prepared;
use super::records::Records;
use super::values::Values;
use crate::error::{Error, Result};
use crate::plan::{self, Bound};
use crate::spec::ArraySpec;
use kernels::{Buffer, Device, View};
use std::sync::Arc;

/// Everything that the driver holds; a mere training has no records of most of it.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) device: Device,
    pub(super) prepared: Arc<Prepared>,
    state_specs: Vec<ArraySpec>,
    steps: usize,
    pub(super) states: Records,
    pub(super) cotangents: Records,
    /// Activations, or buffers.
    pub(super) kept: Records,
    /// Results of preludes.
    pub(super) preludes: Records,
    /// The arrays that are prepared, and their gradients: one record each.
    own: Records,
    own_gradients: Records,
    /// The meta-gradient.
    pub(super) gradients: Values,
    /// One of every inner step, then those of the outer losses.
    losses: Records,
    arena: Buffer,
}

/// How much of everything.
pub(super) struct Sizes<'a> {
    pub(super) steps: usize,
    pub(super) outer: usize,
    pub(super) state: &'a [ArraySpec],
    pub(super) states: usize,
    pub(super) cotangents: &'a [ArraySpec],
    pub(super) kept: (&'a [ArraySpec], usize),
    pub(super) preludes: (&'a [ArraySpec], usize),
    pub(super) learned: &'a [ArraySpec],
    pub(super) own_gradients: &'a [ArraySpec],
    pub(super) arena: usize,
}

/// The description of a loss.
pub(super) fn loss_spec(state: &[ArraySpec]) -> ArraySpec {
    ArraySpec::new("loss", state[0].dtype, [])
}

/// The caller's arrays of a training, found by their names.
#[derive(Debug)]
pub(super) struct Given<'a> {
    learned: Vec<View<'a>>,
    fixed: Vec<View<'a>>,
    /// For every array of the state: where it starts, if values say so.
    starts: Vec<Option<View<'a>>>,
}

/// Memory of a device, and memory there that was used and is free again.
pub(super) struct Pool<'a> {
    pub(super) device: &'a Device,
    free: Vec<Buffer>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(device: &'a Device, free: Vec<Buffer>) -> Self {
        Self { device, free }
    }

    /// Takes so many bytes: the smallest free memory that has them and is at most twice as large. Before new memory is
    /// taken the largest that is free goes back, so that there is never much more than one training needs.
    fn take(&mut self, bytes: usize) -> Result<Buffer> {
        let fits = |buffer: &Buffer| (bytes..=bytes.saturating_mul(2)).contains(&buffer.bytes());
        self.free.sort_by_key(Buffer::bytes);
        if let Some(at) = self.free.iter().position(fits) {
            return Ok(self.free.remove(at));
        }
        self.free.pop();
        Ok(self.device.alloc(bytes)?)
    }
}

impl Memory {
    pub(super) fn new(
        pool: &mut Pool<'_>,
        prepared: &Arc<Prepared>,
        sizes: &Sizes<'_>,
    ) -> Result<Self> {
        let device = pool.device;
        // The largest first, while there is choice.
        let arena = pool.take(sizes.arena)?;
        let mut records = |specs: &[ArraySpec], count| {
            Records::new(specs.to_vec(), count, |bytes| pool.take(bytes))
        };
        let losses = [loss_spec(sizes.state)];
        Ok(Self {
            kept: records(sizes.kept.0, sizes.kept.1)?,
            preludes: records(sizes.preludes.0, sizes.preludes.1)?,
            states: records(sizes.state, sizes.states)?,
            cotangents: records(sizes.cotangents, 1)?,
            own: records(&prepared.own, 1)?,
            own_gradients: records(sizes.own_gradients, 1)?,
            losses: records(&losses, sizes.steps + sizes.outer)?,
            gradients: Values::zeros(device, sizes.learned)?,
            arena,
            state_specs: sizes.state.to_vec(),
            steps: sizes.steps,
            prepared: prepared.clone(),
            device: device.clone(),
        })
    }

    /// The memory, for another training.
    pub(super) fn into_buffers(self) -> Vec<Buffer> {
        let records = [
            self.kept,
            self.preludes,
            self.states,
            self.cotangents,
            self.own,
            self.own_gradients,
            self.losses,
        ];
        let buffers = records.into_iter().map(Records::into_buffer);
        buffers.chain([self.arena]).collect()
    }

    /// Finds the caller's arrays. They must have the names, types and shapes that the training declares.
    pub(super) fn given<'a>(&self, values: &'a Values) -> Result<Given<'a>> {
        let Prepared {
            learned,
            given,
            starts,
            ..
        } = &*self.prepared;
        let find = |spec: &ArraySpec| values.expect(spec);
        let start = |(at, spec): (usize, &ArraySpec)| {
            let needed = self.is_weight(at) && starts[at].is_none();
            let there = starts[at].is_none() && values.has(&spec.name);
            (needed || there).then(|| find(spec)).transpose()
        };
        let state = self.state_specs.iter().enumerate();
        Ok(Given {
            learned: learned.iter().map(find).collect::<Result<_>>()?,
            fixed: given.iter().map(find).collect::<Result<_>>()?,
            starts: state.map(start).collect::<Result<_>>()?,
        })
    }

    /// Weights come first in a state.
    fn is_weight(&self, at: usize) -> bool {
        at < self.prepared.weights
    }

    /// Computes what is prepared, and puts the start into state record 0.
    pub(super) fn begin(
        &self,
        given: &Given<'_>,
        run: impl FnOnce(&Bound<Source>) -> Result<()>,
    ) -> Result<()> {
        self.prepared.prepare.as_ref().map(run).transpose()?;
        self.start(given, 0)
    }

    /// Puts the start into a state record. What is not given starts at zero: buffers, and the optimiser's arrays.
    pub(super) fn start(&self, given: &Given<'_>, record: usize) -> Result<()> {
        for at in 0..self.state_specs.len() {
            let to = self.states.view(record, at);
            let whole = |place| self.array(place, given);
            match self.prepared.starts[at].map(whole).or(given.starts[at]) {
                Some(from) => to.copy_from(from)?,
                None => self.states.zero_field(record, at)?,
            }
        }
        Ok(())
    }

    /// Sets all gradients to zero.
    pub(super) fn clear_gradients(&self) -> Result<()> {
        self.own_gradients.zero(0)?;
        self.cotangents.zero(0)?;
        self.gradients.clear()
    }

    /// The values of an array that every step sees, when all work queued before is done: a number for each step.
    pub(super) fn per_step(&self, seen: usize, given: &Given<'_>) -> Result<Vec<f64>> {
        let seen = &self.prepared.seen[seen];
        let spec = self.prepared.spec(seen.place);
        let numbers = plan::read(self.array(seen.place, given), spec)?.to_f64_vec();
        Ok((0..self.steps)
            .map(|step| numbers[step % numbers.len()])
            .collect())
    }

    /// The losses, when everything is done. The first that is not finite is an error.
    pub(super) fn losses(&self, outer_steps: &[usize]) -> Result<Losses> {
        let losses = self.losses.column(0)?;
        let mut inner: Vec<f64> = losses.iter().map(|loss| loss.to_f64_vec()[0]).collect();
        let outer = inner.split_off(self.steps);
        for (step, loss) in inner.iter().enumerate() {
            finite(*loss, "inner loss", step)?;
            if let Ok(at) = outer_steps.binary_search(&(step + 1)) {
                finite(outer[at], "outer loss", step + 1)?;
            }
        }
        Ok(Losses { inner, outer })
    }

    /// The arena of a plan.
    pub(super) fn arena(&self, bound: &Bound<Source>) -> View<'_> {
        self.arena.view(0, bound.plan().arena_bytes())
    }

    /// Runs a plan.
    pub(super) fn run(&self, bound: &Bound<Source>, given: &Given<'_>, at: At) -> Result<()> {
        let [inputs, outputs] = bound.views(|source| self.view(source, given, at));
        let plan = bound.plan();
        plan.execute(&self.device, self.arena(bound), &inputs, &outputs)
    }

    /// Where the array of a key lies.
    pub(super) fn view<'a>(&'a self, source: Source, given: &Given<'a>, at: At) -> View<'a> {
        match source {
            Source::State(i) => self.states.view(at.from, i),
            Source::NewState(i) => self.states.view(at.to, i),
            Source::Cotangent(i) => self.cotangents.view(0, i),
            Source::Array(place, slice) => self.cut(self.array(place, given), place, slice, at),
            Source::Gradient(place, slice) => {
                let whole = match place {
                    Place::Learned(i) => self.gradients.at(i),
                    Place::Prepared(i) => self.own_gradients.view(0, i),
                    Place::Given(_) => unreachable!("what is given has no gradient"),
                };
                self.cut(whole, place, slice, at)
            }
            Source::Loss => self.losses.view(at.step, 0),
            Source::OuterLoss => self.losses.view(self.steps + at.outer, 0),
            Source::Kept(i) => self.kept.view(at.kept, i),
            Source::Prelude(i) => self.preludes.view(at.kept, i),
        }
    }

    fn array<'a>(&'a self, place: Place, given: &Given<'a>) -> View<'a> {
        match place {
            Place::Learned(i) => given.learned[i],
            Place::Given(i) => given.fixed[i],
            Place::Prepared(i) => self.own.view(0, i),
        }
    }

    /// The row that a step or an outer loss sees.
    fn cut<'a>(&'a self, whole: View<'a>, place: Place, slice: Slice, at: At) -> View<'a> {
        let spec = self.prepared.spec(place);
        let row = match slice {
            Slice::Whole => return whole,
            Slice::Step => at.step % spec.rows(),
            Slice::Outer => at.outer % spec.rows(),
        };
        whole.part(row * spec.row_bytes(), spec.row_bytes())
    }
}

fn finite(loss: f64, what: &'static str, step: usize) -> Result<()> {
    if loss.is_finite() {
        Ok(())
    } else {
        Err(Error::NotFinite { what, step })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_memory_is_taken_again_and_never_hoarded() {
        let device = Device::cpu(Some(1)).expect("a processor");
        let alloc = |bytes| device.alloc(bytes).expect("memory");
        let mut pool = Pool::new(&device, [900, 100, 40].map(alloc).into());
        assert_eq!(pool.take(600).expect("memory").bytes(), 900);
        assert_eq!(pool.take(1000).expect("memory").bytes(), 1000);
        let left: Vec<usize> = pool.free.iter().map(Buffer::bytes).collect();
        assert_eq!(left, [40], "what is too small went back first");
        assert_eq!(pool.take(30).expect("memory").bytes(), 40);
    }
}
