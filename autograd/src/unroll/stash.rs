//! Where the bits go that reversible momentum cannot hold any longer.
//!
//! How fast they grow follows from the momenta alone, so before a training it is known at which steps a word
//! of every parameter is taken out, and whether all of them have room.

use super::records::{Records, bytes_of};
use super::schedule::Schedule;
use super::script::Snapshots;
use crate::error::{Error, Result};
use crate::spec::ArraySpec;
use kernels::{Device, Ratio};
use tensor::DType;

/// Words of all parameters, taken out on the way forward and put in again on the way back.
#[derive(Debug)]
pub(super) struct Stash {
    words: Records,
    /// For every step: the word that is taken out before it.
    taken: Vec<Option<usize>>,
}

/// The arrays of one word: an element for every parameter.
pub(super) fn stash_specs(weights: &[ArraySpec]) -> Vec<ArraySpec> {
    let word = |spec: &ArraySpec| ArraySpec::new(&*spec.name, DType::U32, [spec.shape.count()]);
    weights.iter().map(word).collect()
}

/// How many words of 32 bits there is room for under a schedule.
pub(super) fn stash_words(schedule: Schedule, steps: usize) -> usize {
    match schedule.snapshots {
        Snapshots::Never { hundredths } => hundredths.saturating_mul(steps).div_ceil(3200),
        _ => 0,
    }
}

impl Stash {
    pub(super) fn new(device: &Device, specs: Vec<ArraySpec>, words: usize) -> Result<Self> {
        let buffer = device.alloc(bytes_of(&specs, words)?)?;
        Ok(Self {
            words: Records::new(specs, words, buffer),
            taken: Vec::new(),
        })
    }

    /// Finds out at which of the steps a word is taken out, from the start and the momentum of every step. Waits for the
    /// device: it reads the start.
    pub(super) fn plan(&mut self, states: &Records, momenta: &[f64]) -> Result<()> {
        let mut most = self.most_at_start(states)?;
        self.taken.clear();
        let mut words = 0;
        for (step, &momentum) in momenta.iter().enumerate() {
            let ratio = Ratio::new(momentum).ok_or_else(|| {
                Error::Setting(format!(
                    "the momentum of inner step {step} is {momentum}: reversible momentum is for 0 to 1"
                ))
            })?;
            let (take, next) = ratio.grow(most);
            self.taken.push(take.then_some(words));
            words += usize::from(take);
            most = next;
        }
        if words > self.words.count() {
            return Err(Error::Setting(format!(
                "the momenta of {} inner steps lose {words} words a parameter, and {} have room: use the \
                 schedule {}",
                momenta.len(),
                self.words.count(),
                Schedule::reversible((3200 * (words - 1) / momenta.len() + 1) as f64 / 100.0)
            )));
        }
        Ok(())
    }

    /// The greatest number that the lost bits of the start can be, which each array in fixed point stores.
    /// It is the same in all arrays that come from one training.
    fn most_at_start(&self, start: &Records) -> Result<u64> {
        let mut most = None;
        for field in self.fields() {
            let mut bytes = [0; 8];
            let whole = start.specs()[field].bytes();
            start.read_part(0, field, whole - bytes.len(), &mut bytes)?;
            let here = u64::from_le_bytes(bytes);
            if *most.get_or_insert(here) != here {
                return Err(Error::Setting(
                    "the start's arrays in fixed point are of different trainings".into(),
                ));
            }
        }
        Ok(most.unwrap_or(0))
    }

    /// The positions of the arrays in fixed point in a state: θ, then (u, fixed) of every weight.
    fn fields(&self) -> impl Iterator<Item = usize> + use<> {
        let weights = self.words.specs().len();
        (0..weights).map(move |i| weights + 2 * i + 1)
    }

    /// Before a step: keeps the low words of the state's bits, if the step is to shift them out.
    pub(super) fn take(&self, step: usize, states: &Records, record: usize) -> Result<()> {
        let Some(word) = self.taken[step] else {
            return Ok(());
        };
        for (i, field) in self.fields().enumerate() {
            let bytes = self.words.specs()[i].bytes();
            let low = (record, field, 4 * bytes);
            self.words.copy_part((word, i, 0), states, low, bytes)?;
        }
        Ok(())
    }

    /// After that step is undone: shifts the words in again.
    pub(super) fn put_back(&self, step: usize, states: &Records, record: usize) -> Result<()> {
        let Some(word) = self.taken[step] else {
            return Ok(());
        };
        for (i, field) in self.fields().enumerate() {
            let bytes = self.words.specs()[i].bytes();
            let (low, high) = ((record, field, 4 * bytes), (record, field, 5 * bytes));
            states.copy_part(high, states, low, bytes)?;
            states.copy_part(low, &self.words, (word, i, 0), bytes)?;
        }
        Ok(())
    }
}
