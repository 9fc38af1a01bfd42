//! The order of work of a schedule: which step is advanced from which state, and when each is reversed.
//!
//! All schedules are one walk with a stack of snapshots. If more steps than one stretch lie between the
//! last snapshot and the end of what is still to be reversed, another snapshot is taken; [`Snapshots`]
//! decide how far ahead. Otherwise that stretch is reversed at once, and the last snapshot leaves the
//! stack.
//!
//! Snapshots may lie away from the device. Those are the lowest on the stack, because they are needed last.
//!
//! Steps that are advanced again may keep the results of their preludes (`prelude.rs`). The first sweep
//! knows which steps those are.

use super::binomial;
use std::convert::Infallible;
use std::ops::Range;

/// One action of the driver. States and kept activations are named by the number of their record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Inner step `step` from one state to another.
    Advance {
        step: usize,
        from: usize,
        to: usize,
        how: Advance,
    },
    /// The outer loss after `step` steps, on that state, and its gradient.
    Outer { step: usize, state: usize },
    /// Backward through inner step `step`, from one state to another: what the step made is at hand, so
    /// nothing that only the update needs is computed again.
    Reverse {
        step: usize,
        from: usize,
        to: usize,
        kept: Option<usize>,
    },
    /// Puts a state away as the snapshot of that place.
    PutAway { place: usize, state: usize },
    /// The snapshot of that place will be fetched soon.
    Announce { place: usize },
    /// Brings the snapshot of that place back.
    Fetch { place: usize, state: usize },
    /// Backward through inner step `step`, given the state after it; finds the one that it started from.
    Undo {
        step: usize,
        from: usize,
        to: usize,
        kept: usize,
    },
    /// The start is put into a record again.
    Restart { state: usize },
}

/// What an advance keeps beside the state, or is given, and in which record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    Plain,
    /// Keeps the activations.
    Keep(usize),
    /// Keeps what its prelude makes.
    KeepPrelude(usize),
    /// Is given what its prelude made before.
    GivenPrelude(usize),
}

/// Where snapshots of the state are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Snapshots {
    /// Before every k-th step, and before every step of the k that are reversed.
    Every(usize),
    /// At most this many at a time, including that of the start, where they save the most work.
    Binomial(usize),
    /// Nowhere: every state is recomputed from the one after it. The room for bits that are lost is given
    /// in hundredths of a bit for every parameter and step.
    Never { hundredths: usize },
}

/// How T steps are swept and reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// T
    pub(super) steps: usize,
    /// The first step that is reversed: 0, unless the gradient is truncated.
    pub(super) begin: usize,
    pub(super) snapshots: Snapshots,
    /// The number of steps of a stretch whose activations are kept while it is reversed. If it is 0, none
    /// are kept, and every step is computed again as it is reversed.
    pub(super) kept: usize,
    /// Whether reruns of a step are given the stored results of its prelude.
    pub(super) prelude: bool,
    /// How many places of the stack, from the lowest on, lie away from the device.
    pub(super) away: usize,
}

/// A snapshot on the stack: the state before a step, and its record if it is on the device.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    at: usize,
    record: Option<usize>,
    /// Whether there is a copy of it away.
    away: bool,
    /// How many steps before it keep nothing of their preludes.
    skipped: usize,
}

impl Snapshot {
    fn new(at: usize, record: usize, skipped: usize) -> Self {
        Self {
            at,
            record: Some(record),
            away: false,
            skipped,
        }
    }
}

/// What a script takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Steps advanced.
    pub(super) advances: u64,
    /// Steps advanced or computed again as they are reversed.
    pub(super) evaluations: u64,
    /// Steps reversed.
    pub(super) reversals: u64,
    /// Advances that are given what the prelude made.
    pub(super) given: u64,
    /// Records of state.
    pub(super) states: usize,
    /// Records of kept activations.
    pub(super) kept: usize,
    /// Records of results of preludes.
    pub(super) preludes: usize,
    /// Snapshots that lie away from the device.
    pub(super) away: usize,
}

impl Script {
    /// Visits the actions in their order. An outer loss stands after the steps for which `outer` says so.
    /// State record 0 holds the start.
    pub(super) fn walk<E>(
        &self,
        outer: impl Fn(usize) -> bool,
        visit: impl FnMut(Action) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walk = Walk {
            script: *self,
            outer,
            visit,
            free: Vec::new(),
            states: 1,
            after: None,
        };
        if matches!(self.snapshots, Snapshots::Never { .. }) {
            return walk.there_and_back();
        }
        let mut stack = vec![Snapshot::new(self.begin, walk.lead_in()?, self.begin)];
        let mut end = self.steps;
        while let Some(&Snapshot {
            at,
            record,
            skipped,
            ..
        }) = stack.last()
        {
            let place = stack.len() - 1;
            let record = match record {
                Some(record) => record,
                None => walk.fetch(place)?,
            };
            if end - at > self.stretch() {
                let to = at + self.ahead(end - at, stack.len());
                walk.put_away(place, record, &mut stack[place])?;
                let first = end == self.steps;
                let next =
                    walk.advance(at..to, record, |step| self.how(step, to, first, skipped))?;
                stack[place].record = walk.kept_near(place, record);
                // On the first sweep, the last stretch before a snapshot is skipped: see `how`.
                let skip = if first {
                    self.stretch().min(to - at)
                } else {
                    0
                };
                stack.push(Snapshot::new(to, next, skipped + skip));
            } else {
                walk.announce(&stack[..place])?;
                walk.reverse(at, end, record)?;
                stack.pop();
                end = at;
            }
        }
        Ok(())
    }

    /// What the walk takes, by formulas. Only if snapshots lie away, or stretches may not fit between
    /// snapshots, it walks.
    pub(super) fn count(&self) -> Count {
        let reversed = self.steps - self.begin;
        if self.kept > 0 && matches!(self.snapshots, Snapshots::Every(_)) {
            return self.walked();
        }
        if matches!(self.snapshots, Snapshots::Never { .. }) {
            return Count {
                advances: reversed as u64,
                evaluations: 2 * reversed as u64,
                reversals: reversed as u64,
                states: 2,
                kept: reversed,
                ..Count::default()
            };
        }
        let (evaluations, states, repeated) = match self.snapshots {
            Snapshots::Binomial(c) => (
                binomial::evaluations(reversed, c, self.kept),
                binomial::states(reversed, c, self.kept),
                binomial::repeated(reversed, c, self.kept),
            ),
            Snapshots::Every(k) => {
                // The last stretch is not advanced again, nor is the last step of any other.
                let others = reversed.div_ceil(k) - 1;
                let last = reversed - others * k;
                let advances = reversed + others * (k - 1);
                // Beside the snapshots: the last stretch's states; of another those before its steps, and
                // the state after it.
                let again = if others > 0 { others + k } else { 0 };
                let widest = (others + 1 + last).max(again);
                ((advances + reversed) as u64, widest, others * (k - 1))
            }
            Snapshots::Never { .. } => unreachable!("counted above"),
        };
        // Every step is evaluated as it is reversed, and, but for the last stretch, on the first sweep.
        let swept = reversed - self.kept.min(reversed);
        let preludes = if self.prelude { repeated } else { 0 };
        let given = if self.prelude {
            evaluations - (reversed + swept) as u64
        } else {
            0
        };
        let evaluations = evaluations + self.begin as u64;
        let again = if self.kept == 0 { reversed } else { 0 };
        Count {
            advances: evaluations - again as u64,
            evaluations,
            reversals: reversed as u64,
            given,
            states: states.max(if self.begin > 0 { 2 } else { 1 }),
            kept: self.kept,
            preludes,
            away: 0,
        }
        .with_away(self)
    }

    /// What the walk takes, by walking.
    fn walked(&self) -> Count {
        let mut count = Count {
            states: 1,
            ..Count::default()
        };
        let done: Result<(), Infallible> = self.walk(|_| false, |action| count.see(action));
        debug_assert!(done.is_ok());
        count
    }

    /// The steps that are reversed at once.
    fn stretch(&self) -> usize {
        self.kept.max(1)
    }

    /// How a step is advanced on the way to a snapshot before step `to`. The first sweep advances all
    /// steps. The steps of the last stretch before `to` will run only once more, when they are reversed.
    /// Those before that stretch will also be advanced again, so the results of their preludes are kept.
    fn how(&self, step: usize, to: usize, first: bool, skipped: usize) -> Advance {
        match (self.prelude, first) {
            (true, false) => Advance::GivenPrelude(step - skipped),
            (true, true) if step + self.stretch() < to => Advance::KeepPrelude(step - skipped),
            _ => Advance::Plain,
        }
    }

    /// How far from the last of `held` snapshots the next one is taken, `length` steps before the end.
    fn ahead(&self, length: usize, held: usize) -> usize {
        match self.snapshots {
            Snapshots::Every(k) if length > k => k,
            Snapshots::Every(_) | Snapshots::Never { .. } => 1,
            Snapshots::Binomial(c) => binomial::ahead(length, c + 1 - held, self.stretch()),
        }
    }
}

impl Count {
    /// Counts an action of a walk.
    fn see<E>(&mut self, action: Action) -> Result<(), E> {
        match action {
            Action::Advance { to, how, .. } => {
                self.advances += 1;
                self.evaluations += 1;
                self.states = self.states.max(to + 1);
                match how {
                    Advance::Plain => {}
                    Advance::Keep(record) => self.kept = self.kept.max(record + 1),
                    Advance::KeepPrelude(record) => self.preludes = self.preludes.max(record + 1),
                    Advance::GivenPrelude(_) => self.given += 1,
                }
            }
            Action::Reverse { kept, .. } => {
                self.reversals += 1;
                self.evaluations += u64::from(kept.is_none());
            }
            Action::Fetch { state, .. } => self.states = self.states.max(state + 1),
            Action::PutAway { place, .. } => self.away = self.away.max(place + 1),
            Action::Undo { .. } => self.reversals += 1,
            Action::Outer { .. } | Action::Announce { .. } | Action::Restart { .. } => {}
        }
        Ok(())
    }

    /// With the snapshots that lie away, and the states that are left on the device, found by walking.
    fn with_away(self, script: &Script) -> Self {
        if script.away == 0 {
            return self;
        }
        let Count { states, away, .. } = script.walked();
        Self {
            states,
            away,
            ..self
        }
    }
}

/// A walk under way.
struct Walk<O, V> {
    script: Script,
    outer: O,
    visit: V,
    /// Records of state that hold nothing, and how many there are in all.
    free: Vec<usize>,
    states: usize,
    /// The state after the next step to be reversed, if that step will not be advanced again before.
    after: Option<usize>,
}

impl<E, O: Fn(usize) -> bool, V: FnMut(Action) -> Result<(), E>> Walk<O, V> {
    /// A record that holds nothing.
    fn record(&mut self) -> usize {
        let record = self.free.pop().unwrap_or(self.states);
        self.states = self.states.max(record + 1);
        record
    }

    /// Copies a snapshot away before another is put on top of it, if its place lies away and there is no
    /// copy yet.
    fn put_away(&mut self, place: usize, state: usize, snapshot: &mut Snapshot) -> Result<(), E> {
        if place < self.script.away && !snapshot.away {
            (self.visit)(Action::PutAway { place, state })?;
            snapshot.away = true;
        }
        Ok(())
    }

    /// The record of a snapshot below another one: given up if it lies away.
    fn kept_near(&mut self, place: usize, record: usize) -> Option<usize> {
        if place < self.script.away {
            self.free.push(record);
            None
        } else {
            Some(record)
        }
    }

    /// Tells of the snapshot that will be wanted next, if it is not on the device.
    fn announce(&mut self, below: &[Snapshot]) -> Result<(), E> {
        if below.last().is_some_and(|next| next.record.is_none()) {
            let place = below.len() - 1;
            (self.visit)(Action::Announce { place })?;
        }
        Ok(())
    }

    fn fetch(&mut self, place: usize) -> Result<usize, E> {
        let state = self.record();
        (self.visit)(Action::Fetch { place, state })?;
        Ok(state)
    }

    fn step(&mut self, step: usize, from: usize, how: Advance) -> Result<usize, E> {
        let to = self.record();
        (self.visit)(Action::Advance {
            step,
            from,
            to,
            how,
        })?;
        Ok(to)
    }

    fn outer(&mut self, step: usize, state: usize) -> Result<(), E> {
        if (self.outer)(step) {
            (self.visit)(Action::Outer { step, state })?;
        }
        Ok(())
    }

    /// From the state before these steps, which stays held, to that after them.
    fn advance(
        &mut self,
        steps: Range<usize>,
        held: usize,
        how: impl Fn(usize) -> Advance,
    ) -> Result<usize, E> {
        let mut record = held;
        for step in steps {
            let next = self.step(step, record, how(step))?;
            if record != held {
                self.free.push(record);
            }
            record = next;
        }
        Ok(record)
    }

    /// Through the steps that are not reversed. Their outer losses count, but nothing flows from them.
    fn lead_in(&mut self) -> Result<usize, E> {
        let mut record = 0;
        for step in 0..self.script.begin {
            let next = self.step(step, record, Advance::Plain)?;
            self.free.push(record);
            record = next;
            self.outer(step + 1, record)?;
        }
        Ok(record)
    }

    /// Advances all steps between two records, and undoes them on the way back. What undoing a step cannot
    /// recover is kept. The start is not recovered but given again: its floats may have more digits than a
    /// state in fixed point.
    fn there_and_back(&mut self) -> Result<(), E> {
        let steps = self.script.steps;
        let record = |step: usize| step % 2;
        for step in 0..steps {
            (self.visit)(Action::Advance {
                step,
                from: record(step),
                to: record(step + 1),
                how: Advance::Keep(step),
            })?;
        }
        self.outer(steps, record(steps))?;
        for step in (1..steps).rev() {
            let (from, to) = (record(step + 1), record(step));
            (self.visit)(Action::Undo {
                step,
                from,
                to,
                kept: step,
            })?;
            self.outer(step, to)?;
        }
        (self.visit)(Action::Restart { state: 0 })?;
        (self.visit)(Action::Reverse {
            step: 0,
            from: 0,
            to: 1,
            kept: None,
        })
    }

    /// Reverses the steps from `at` to `end`, with a gradient of each outer loss as it is passed.
    fn reverse(&mut self, at: usize, end: usize, record: usize) -> Result<(), E> {
        let last = end == self.script.steps;
        let keep = self.script.kept > 0;
        let kept = |step: usize| keep.then_some(step - at);
        let mut states = vec![record];
        for step in at..end {
            // Without kept activations the stretch is one step. The last step of all is advanced here, for
            // the outer loss. For any other step, the state after it is there: the reversal before set out
            // from it.
            let how = kept(step).map_or(Advance::Plain, Advance::Keep);
            let after = match self.after.take() {
                Some(after) => after,
                None => self.step(step, states[step - at], how)?,
            };
            states.push(after);
        }
        if last {
            self.outer(end, states[end - at])?;
        }
        for step in (at..end).rev() {
            let (from, to) = (states[step - at], states[step - at + 1]);
            let kept = kept(step);
            (self.visit)(Action::Reverse {
                step,
                from,
                to,
                kept,
            })?;
            if step > self.script.begin {
                self.outer(step, from)?;
            }
        }
        if !keep {
            self.after = Some(states.remove(0));
        }
        self.free.append(&mut states);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
