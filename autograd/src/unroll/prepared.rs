//! The arrays that steps and outer losses read: where each lies, how it is cut, and what is computed once per
//! meta-gradient to have it.

use super::source::{Place, Slice, Source};
use super::training::{Entry, Scope, Training};
use crate::error::{Error, Result, refuse};
use crate::plan::{Bound, spec_of};
use crate::spec::ArraySpec;
use crate::tape::{Tape, Var};
use crate::transform::is_zero;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// An array as a step or an outer loss sees it: whole, or one row.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) spec: ArraySpec,
    pub(super) place: Place,
    pub(super) slice: Slice,
    /// Rows of a sliced array.
    pub(super) rows: usize,
    /// Whether the meta-gradient flows through it.
    pub(super) learned: bool,
}

impl Seen {
    pub(super) fn array(&self) -> Source {
        Source::Array(self.place, self.slice)
    }

    pub(super) fn gradient(&self) -> Source {
        Source::Gradient(self.place, self.slice)
    }
}

/// Everything that is there before the first step.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The arrays by name.
    names: Vec<(String, Range<usize>)>,
    pub(super) seen: Vec<Seen>,
    /// How many arrays of the learner's state are weights.
    pub(super) weights: usize,
    /// For every array of the learner's state that is learned or prepared: where it starts from.
    pub(super) starts: Vec<Option<Place>>,
    pub(super) learned: Vec<ArraySpec>,
    pub(super) given: Vec<ArraySpec>,
    /// Arrays that are computed.
    pub(super) own: Vec<ArraySpec>,
    /// Their gradients; empty where the meta-gradient does not flow.
    pub(super) own_gradients: Vec<ArraySpec>,
    pub(super) prepare: Option<Bound<Source>>,
    pub(super) unprepare: Option<Bound<Source>>,
}

/// What is recorded of the preparation.
struct Recorded<'t> {
    tape: &'t Tape,
    learned: Vec<Var<'t>>,
    given: Vec<Var<'t>>,
    /// All arrays by name; a later one hides an earlier one.
    vars: Vec<(String, Vec<Var<'t>>)>,
    /// The names that preparing others read.
    read: HashSet<String>,
}

impl<'t> Recorded<'t> {
    fn new(training: &Training<'_>, tape: &'t Tape) -> Result<Self> {
        let mut scope = Scope::new(tape);
        let mut vars: Vec<(String, Vec<Var<'t>>)> = Vec::new();
        let mut inputs = |entries: &[Entry], scope: &mut Scope<'t>| -> Result<Vec<Var<'t>>> {
            let mut all = Vec::new();
            for entry in entries {
                let own = tape.inputs(&entry.specs)?;
                all.extend(&own);
                scope.add(&entry.name, own.clone());
                vars.push((entry.name.clone(), own));
            }
            Ok(all)
        };
        let learned = inputs(&training.learned, &mut scope)?;
        let given = inputs(&training.given, &mut scope)?;
        for (name, prepare) in &training.prepared {
            let made = scope.checked(&format!("preparing `{name}`"), prepare(&scope))?;
            let given = training.given.iter().any(|entry| entry.name == *name);
            if scope.has(name) && !given && !scope.read().any(|read| read == name) {
                let reason = format!("nobody reads `{name}`, which is prepared anew");
                return Err(Error::Setting(format!("training: {reason}")));
            }
            scope.add(name, made.clone());
            vars.retain(|(earlier, _)| earlier != name);
            vars.push((name.clone(), made));
        }
        Ok(Self {
            tape,
            learned,
            given,
            vars,
            read: scope.read().map(ToOwned::to_owned).collect(),
        })
    }

    /// Where an array lies, if it is not computed.
    fn place(&self, var: Var<'t>) -> Option<Place> {
        let at = |vars: &[Var<'t>]| vars.iter().position(|known| *known == var);
        let learned = at(&self.learned).map(Place::Learned);
        learned.or_else(|| at(&self.given).map(Place::Given))
    }
}

impl Prepared {
    pub(super) fn record(training: &Training<'_>, steps: usize) -> Result<Self> {
        let tape = Tape::new();
        let recorded = Recorded::new(training, &tape)?;
        check_names(training, &recorded.vars)?;
        let state = training.state_specs();
        let read = training.names_read(&recorded.vars)?;
        let mut places = Places::new(&recorded);
        let (mut names, mut seen) = (Vec::new(), Vec::new());
        let mut starts = vec![None; state.specs.len()];
        for (name, vars) in &recorded.vars {
            if let Some(at) = state.specs.iter().position(|spec| spec.name == *name) {
                starts[at] = Some(places.start(vars, &state.specs[at])?);
                continue;
            }
            if !read.contains(name) {
                if !recorded.read.contains(name) {
                    return Err(Error::Setting(format!("training: nobody reads `{name}`")));
                }
                continue;
            }
            let slice = training.slice(name, vars);
            if slice == Slice::Step && !training.per_step.contains(name) {
                expect_rows(name, vars[0], steps)?;
            }
            let first = seen.len();
            for &var in vars {
                seen.push(places.seen(name, var, slice)?);
            }
            names.push((name.clone(), first..seen.len()));
        }
        let prepare = (!places.made.is_empty())
            .then(|| places.plan())
            .transpose()?;
        let unprepare = places.plan_back(&seen, &starts)?;
        let own_gradients = places.gradients();
        Ok(Self {
            names,
            starts,
            weights: state.weights,
            learned: training.learned_specs().cloned().collect(),
            given: training.given_specs().cloned().collect(),
            own: places.made.iter().map(|var| spec_of(*var)).collect(),
            own_gradients,
            prepare,
            unprepare,
            seen,
        })
    }

    /// Inputs for the arrays that are seen, except for those cut as `other` says: a step does not see rows
    /// of outer losses, nor an outer loss rows of steps.
    pub(super) fn inputs<'t>(&self, tape: &'t Tape, other: Slice) -> Result<Vec<Option<Var<'t>>>> {
        let input = |seen: &Seen| {
            let spec = &seen.spec;
            (seen.slice != other)
                .then(|| tape.input(&spec.name, spec.dtype, spec.shape.clone()))
                .transpose()
        };
        self.seen.iter().map(input).collect()
    }

    /// Shows the arrays under their names.
    pub(super) fn show<'t>(&self, scope: &mut Scope<'t>, vars: &[Option<Var<'t>>]) {
        for (name, range) in &self.names {
            let vars: Vec<Var<'t>> = vars[range.clone()].iter().copied().flatten().collect();
            if vars.len() == range.len() {
                scope.add(name, vars);
            }
        }
    }

    /// The position of the single array of a name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let found = self.names.iter().find(|(known, _)| known == name);
        found.map(|(_, range)| range.start)
    }

    /// The whole array of a place, as it lies in memory.
    pub(super) fn spec(&self, place: Place) -> &ArraySpec {
        match place {
            Place::Learned(i) => &self.learned[i],
            Place::Given(i) => &self.given[i],
            Place::Prepared(i) => &self.own[i],
        }
    }
}

/// Where arrays lie, as they are found to be needed.
struct Places<'a, 't> {
    recorded: &'a Recorded<'t>,
    /// Whether the meta-gradient reaches an entry of the tape.
    learned: Vec<bool>,
    /// The arrays that are computed.
    made: Vec<Var<'t>>,
    /// Arrays that have a place already: one array may have several names.
    known: HashMap<usize, Place>,
}

impl<'a, 't> Places<'a, 't> {
    fn new(recorded: &'a Recorded<'t>) -> Self {
        let floats = recorded.learned.iter().copied();
        let floats: Vec<Var<'t>> = floats.filter(|var| var.dtype().is_float()).collect();
        Self {
            learned: recorded.tape.depends_on(&floats, recorded.tape.len() - 1),
            recorded,
            made: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Where an array lies. If steps see it under two names and the meta-gradient flows through it, it is
    /// copied for the second name, so that each has a gradient of its own.
    fn place(&mut self, var: Var<'t>) -> Place {
        let own = self.recorded.place(var);
        let twice = self.known.contains_key(&var.id) && self.learned[var.id];
        let known = self.known.get(&var.id).copied().or(own);
        let place = known.filter(|_| !twice).unwrap_or_else(|| {
            self.made.push(var);
            Place::Prepared(self.made.len() - 1)
        });
        self.known.insert(var.id, place);
        place
    }

    fn seen(&mut self, name: &str, var: Var<'t>, slice: Slice) -> Result<Seen> {
        let spec = ArraySpec::new(name, var.dtype(), var.shape());
        let rows = spec.rows();
        if slice != Slice::Whole && (spec.shape.is_empty() || rows == 0) {
            let shape = &spec.shape;
            return refuse("per step", format!("`{name}` is {shape}: it has no rows"));
        }
        Ok(Seen {
            spec: if slice == Slice::Whole {
                spec
            } else {
                spec.row()
            },
            place: self.place(var),
            slice,
            rows,
            learned: self.learned[var.id] && var.dtype().is_float(),
        })
    }

    /// Where the start of an array of the state lies. Its gradient is a cotangent of the state.
    fn start(&mut self, vars: &[Var<'t>], state: &ArraySpec) -> Result<Place> {
        match vars {
            [var] if var.shape() == state.shape && var.dtype() == state.dtype => {
                let place = self.recorded.place(*var);
                Ok(place.unwrap_or_else(|| {
                    self.made.push(*var);
                    Place::Prepared(self.made.len() - 1)
                }))
            }
            _ => {
                let starts = vars
                    .iter()
                    .map(|var| format!("{} {}", var.dtype(), var.shape()));
                let starts: Vec<String> = starts.collect();
                let (name, dtype, shape) = (&state.name, state.dtype, &state.shape);
                Err(Error::Setting(format!(
                    "training: `{name}` is {dtype} {shape} and cannot start as {}",
                    starts.join(" and ")
                )))
            }
        }
    }

    /// The plan of what is computed.
    fn plan(&self) -> Result<Bound<Source>> {
        let made = self.made.iter().enumerate();
        let wanted: Vec<(Var<'t>, Source)> = made
            .map(|(i, var)| (*var, Source::Array(Place::Prepared(i), Slice::Whole)))
            .collect();
        Bound::new(&self.given(), &wanted)
    }

    /// The inputs, and where they lie.
    fn given(&self) -> Vec<(Var<'t>, Source)> {
        let Recorded { learned, given, .. } = self.recorded;
        let learned = learned.iter().enumerate();
        let given = given.iter().enumerate();
        let learned = learned.map(|(i, var)| (*var, Place::Learned(i)));
        learned
            .chain(given.map(|(i, var)| (*var, Place::Given(i))))
            .map(|(var, place)| (var, Source::Array(place, Slice::Whole)))
            .collect()
    }

    /// The plan that takes the gradients of what was computed, and of starts, to what is learned.
    fn plan_back(&self, seen: &[Seen], starts: &[Option<Place>]) -> Result<Option<Bound<Source>>> {
        let tape = self.recorded.tape;
        let mut given = self.given();
        let mut seeds: Vec<(Var<'t>, Var<'t>)> = Vec::new();
        let mut seed = |var: Var<'t>, key: Source, given: &mut Vec<_>| -> Result<()> {
            let cotangent = tape.input("cotangent", var.dtype(), var.shape())?;
            given.push((cotangent, key));
            seeds.push((var, cotangent));
            Ok(())
        };
        let flows = |var: Var<'t>| self.learned[var.id] && var.dtype().is_float();
        let mut taken = HashSet::new();
        for one in seen.iter().filter(|one| one.learned) {
            if taken.insert(one.place) {
                let key = Source::Gradient(one.place, Slice::Whole);
                seed(self.var(one.place), key, &mut given)?;
            }
        }
        for (i, place) in starts.iter().enumerate() {
            if let Some(var) = place.map(|place| self.var(place)).filter(|var| flows(*var)) {
                seed(var, Source::Cotangent(i), &mut given)?;
            }
        }
        let learned = self.recorded.learned.iter().copied().enumerate();
        let learned: Vec<(usize, Var<'t>)> =
            learned.filter(|(_, var)| var.dtype().is_float()).collect();
        let wrt: Vec<Var<'t>> = learned.iter().map(|(_, var)| *var).collect();
        let mut wanted = Vec::new();
        for ((i, _), gradient) in learned.iter().zip(tape.vjp(&seeds, &wrt)?) {
            let key = Source::Gradient(Place::Learned(*i), Slice::Whole);
            // If the steps have already left the whole gradient there, nothing remains to be computed.
            let unchanged = given.iter().any(|&(var, at)| (var, at) == (gradient, key));
            if !unchanged && !is_zero(gradient) {
                wanted.push((gradient, key));
            }
        }
        let back = (!wanted.is_empty()).then(|| Bound::new(&given, &wanted));
        back.transpose()
    }

    fn var(&self, place: Place) -> Var<'t> {
        match place {
            Place::Learned(i) => self.recorded.learned[i],
            Place::Given(i) => self.recorded.given[i],
            Place::Prepared(i) => self.made[i],
        }
    }

    fn gradients(&self) -> Vec<ArraySpec> {
        let gradient = |var: &Var<'t>| {
            let spec = spec_of(*var);
            let flows = self.learned[var.id] && spec.dtype.is_float();
            let shape = if flows { spec.shape } else { [0].into() };
            ArraySpec { shape, ..spec }
        };
        self.made.iter().map(gradient).collect()
    }
}

/// Refuses a hyper-parameter that has one axis, but not a number for every step. A rate for every parameter is declared by
/// [`Training::hyper`], rates in turn by [`Training::per_step`].
fn expect_rows(name: &str, var: Var<'_>, steps: usize) -> Result<()> {
    let rows = var.shape()[0];
    if rows == steps {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "training: `{name}` has {rows} numbers for {steps} steps; declare it `per_step` if they are to be taken in turn"
    )))
}

/// Refuses names that are to be cut and do not exist.
fn check_names(training: &Training<'_>, vars: &[(String, Vec<Var<'_>>)]) -> Result<()> {
    let cut = training.per_step.iter().chain(&training.per_outer);
    if let Some(name) = training
        .per_step
        .iter()
        .find(|name| training.per_outer.contains(name))
    {
        return Err(Error::Setting(format!(
            "training: `{name}` has rows for steps or for outer losses, not for both"
        )));
    }
    let mut unknown = cut.filter(|name| !vars.iter().any(|(known, _)| known == *name));
    if let Some(name) = unknown.next() {
        return Err(Error::Setting(format!(
            "training: `{name}` is to be cut into rows, and there is no such array"
        )));
    }
    Ok(())
}

impl Training<'_> {
    /// How steps or outer losses see an array: a hyper-parameter with one axis has a number for every step.
    fn slice(&self, name: &str, vars: &[Var<'_>]) -> Slice {
        let declared = |names: &[String]| names.iter().any(|known| known == name);
        let is_hyper = self
            .optimizer
            .hyper()
            .iter()
            .any(|(known, _)| *known == name);
        let one_axis = vars.first().is_some_and(|var| var.shape().len() == 1);
        if declared(&self.per_step) || is_hyper && one_axis {
            Slice::Step
        } else if declared(&self.per_outer) {
            Slice::Outer
        } else {
            Slice::Whole
        }
    }

    /// The names of the arrays that the losses and the optimiser read, found by recording them.
    fn names_read(&self, vars: &[(String, Vec<Var<'_>>)]) -> Result<HashSet<String>> {
        let mut read = HashSet::new();
        let state = self.state_specs();
        // A mere training has no outer loss.
        let readers = [Slice::Step, Slice::Outer];
        for own in readers
            .into_iter()
            .take(1 + usize::from(self.outer.is_some()))
        {
            let tape = Tape::new();
            let mut scope = Scope::new(&tape);
            for (name, arrays) in vars {
                let slice = self.slice(name, arrays);
                let starts = state.specs.iter().any(|spec| spec.name == *name);
                if starts || slice != own && slice != Slice::Whole {
                    continue;
                }
                let specs = arrays.iter().map(|var| {
                    let spec = ArraySpec::new(name, var.dtype(), var.shape());
                    if slice == own { spec.row() } else { spec }
                });
                scope.add(name, tape.inputs(&specs.collect::<Vec<_>>())?);
            }
            if own == Slice::Step {
                // As in a step: the learner is not there yet.
                self.record_hyper(&scope)?;
            }
            let weights = tape.inputs(&self.weights)?;
            let buffers = tape.inputs(&self.buffers)?;
            scope.add_learner(self, &weights, &buffers);
            if own == Slice::Step {
                self.record_loss(&scope)?;
            } else {
                self.record_outer(&scope)?;
            }
            read.extend(scope.read().map(ToOwned::to_owned));
        }
        Ok(read)
    }
}
