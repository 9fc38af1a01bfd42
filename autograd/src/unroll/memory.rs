//! The memory of an unrolled training, and where in it the array of a key lies.

use super::Losses;
use super::prepared::Prepared;
use super::records::{Records, bytes_of};
use super::source::{Place, Slice, Source};
use super::values::Values;
use crate::error::{Error, Result};
use crate::plan::{self, Bound};
use crate::spec::ArraySpec;
use kernels::{Buffer, Device, View};
use std::sync::Arc;

/// Everything that the driver holds. Most of it is empty for a training without a meta-gradient.
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
    /// The arrays that are prepared: one record.
    own: Records,
    /// Their gradients: one record.
    own_gradients: Records,
    /// The meta-gradient.
    pub(super) gradients: Values,
    /// One of every inner step, then those of the outer losses.
    losses: Records,
    arena: Buffer,
}

/// The arrays of each kind of record, and how many records there are.
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

/// Where the driver stands: the step, and the records in use; `kept` is that of the step's activations, or of its
/// prelude's results.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    pub(super) step: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) kept: usize,
    pub(super) outer: usize,
}

/// Memory of at least these sizes, in their order. A used buffer is taken for the size at its place if it
/// is large enough. In all, this is never more than the larger of what was held and what is needed; so over
/// many trainings it is never more than the largest needs. What is not used again is freed before anything
/// is allocated.
fn reuse(device: &Device, used: Vec<Buffer>, sizes: &[usize]) -> Result<Vec<Buffer>> {
    let needed = sizes.iter().copied().fold(0, usize::saturating_add);
    let held: usize = used.iter().map(Buffer::bytes).sum();
    let large = |(buffer, &size): (Buffer, &usize)| Some(buffer).filter(|b| b.bytes() >= size);
    let mut kept: Vec<Option<Buffer>> = used.into_iter().zip(sizes).map(large).collect();
    kept.resize_with(sizes.len(), || None);
    let beyond = |buffer: &Option<Buffer>, size: usize| {
        buffer.as_ref().map_or(0, |buffer| buffer.bytes() - size)
    };
    loop {
        let rest = kept.iter().zip(sizes).map(|(b, &size)| beyond(b, size));
        if needed.saturating_add(rest.sum()) <= held.max(needed) {
            break;
        }
        let most = (0..sizes.len()).max_by_key(|&i| beyond(&kept[i], sizes[i]));
        kept[most.expect("something is beyond its size")] = None;
    }
    let taken = |(buffer, &size): (Option<Buffer>, &usize)| match buffer {
        Some(buffer) => Ok(buffer),
        None => Ok(device.alloc(size)?),
    };
    kept.into_iter().zip(sizes).map(taken).collect()
}

impl Memory {
    /// Takes memory for a training; what another had is `used`: see [`Memory::into_buffers`].
    pub(super) fn new(
        device: &Device,
        used: Vec<Buffer>,
        prepared: &Arc<Prepared>,
        sizes: &Sizes<'_>,
    ) -> Result<Self> {
        let losses = [loss_spec(sizes.state)];
        let records = [
            (sizes.state, sizes.states),
            (sizes.cotangents, 1),
            sizes.kept,
            sizes.preludes,
            (&prepared.own, 1),
            (sizes.own_gradients, 1),
            (&losses, sizes.steps + sizes.outer),
        ];
        let mut bytes = vec![sizes.arena];
        for (specs, count) in records {
            bytes.push(bytes_of(specs, count)?);
        }
        let mut buffers = reuse(device, used, &bytes)?.into_iter();
        let mut next = || buffers.next().expect("as many as sizes");
        let arena = next();
        let [
            states,
            cotangents,
            kept,
            preludes,
            own,
            own_gradients,
            losses,
        ] = records.map(|(specs, count)| Records::new(specs.to_vec(), count, next()));
        Ok(Self {
            states,
            cotangents,
            kept,
            preludes,
            own,
            own_gradients,
            gradients: Values::zeros(device, sizes.learned)?,
            losses,
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
            self.states,
            self.cotangents,
            self.kept,
            self.preludes,
            self.own,
            self.own_gradients,
            self.losses,
        ];
        let buffers = records.into_iter().map(Records::into_buffer);
        std::iter::once(self.arena).chain(buffers).collect()
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

    /// The values of an array that has a number for every step. Waits until all queued work is done.
    pub(super) fn per_step(&self, seen: usize, given: &Given<'_>) -> Result<Vec<f64>> {
        let seen = &self.prepared.seen[seen];
        let spec = self.prepared.spec(seen.place);
        let numbers = plan::read(self.array(seen.place, given), spec)?.to_f64_vec();
        Ok((0..self.steps)
            .map(|step| numbers[step % numbers.len()])
            .collect())
    }

    /// The losses. Waits until everything is done. The first loss that is not finite is an error.
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
    fn used_memory_is_used_again_and_never_hoarded() {
        let device = Device::cpu(Some(1)).expect("a processor");
        let mut used = Vec::new();
        for (sizes, held) in [
            ([900, 100, 40], [900, 100, 40]),
            ([500, 100, 30], [900, 100, 40]),
            // What is furthest beyond its size goes back, until all is as much as before.
            ([800, 140, 20], [800, 140, 40]),
            ([1000, 150, 0], [1000, 150, 0]),
            ([1000, 120, 0], [1000, 150, 0]),
        ] {
            used = reuse(&device, used, &sizes).expect("memory");
            let bytes: Vec<usize> = used.iter().map(Buffer::bytes).collect();
            assert_eq!(bytes, held, "for {sizes:?}");
        }
    }
}
