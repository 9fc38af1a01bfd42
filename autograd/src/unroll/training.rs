//! The user's program: a training whose gradient is wanted, as named arrays and functions of them.

use crate::error::{Error, Result};
use crate::optim::Optimizer;
use crate::spec::ArraySpec;
use crate::tape::{Tape, Var};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Index;
use tensor::{Array, DType};

/// The arrays that a closure of a [`Training`] may read, by name. What a name stands for depends on the closure: in
/// [`Training::prepare`] whole arrays; in the losses the current weights, and of arrays that are declared
/// [`Training::per_step`] or [`Training::per_outer`] the row of that step or outer loss.
pub struct Scope<'t> {
    tape: &'t Tape,
    vars: Vec<(String, Vec<Var<'t>>)>,
    places: HashMap<String, usize>,
    weights: Vec<Var<'t>>,
    buffers: Vec<Var<'t>>,
    /// Which names were read.
    read: Vec<Cell<bool>>,
    /// The first name that was asked for and does not exist. It is reported when the closure returns.
    missing: RefCell<Option<String>>,
    nothing: Var<'t>,
}

/// A single array by its name. A name that does not exist is an error once the closure returns.
impl<'t> Index<&str> for Scope<'t> {
    type Output = Var<'t>;

    fn index(&self, name: &str) -> &Var<'t> {
        let [var] = self.list(name) else {
            self.miss(format!("`{name}` is a list of arrays: read it with `list`"));
            return &self.nothing;
        };
        var
    }
}

impl<'t> Scope<'t> {
    pub(super) fn new(tape: &'t Tape) -> Self {
        Self {
            tape,
            vars: Vec::new(),
            places: HashMap::new(),
            weights: Vec::new(),
            buffers: Vec::new(),
            read: Vec::new(),
            missing: RefCell::default(),
            nothing: tape.constant(0.0, DType::F32, []),
        }
    }

    /// Adds arrays under a name; they hide earlier ones of that name.
    pub(super) fn add(&mut self, name: &str, vars: Vec<Var<'t>>) {
        self.places.insert(name.to_owned(), self.vars.len());
        self.vars.push((name.to_owned(), vars));
        self.read.push(Cell::new(false));
    }

    /// Adds the learner: its weights and buffers.
    pub(super) fn add_learner(
        &mut self,
        training: &Training<'_>,
        weights: &[Var<'t>],
        buffers: &[Var<'t>],
    ) {
        let specs = training.weights.iter().chain(&training.buffers);
        for (spec, var) in specs.zip(weights.iter().chain(buffers)) {
            self.add(&spec.name, vec![*var]);
        }
        self.weights = weights.to_vec();
        self.buffers = buffers.to_vec();
    }

    /// All arrays of a name, such as the weights of a generator, in the order of their declaration.
    pub fn list(&self, name: &str) -> &[Var<'t>] {
        if let Some(&at) = self.places.get(name) {
            self.read[at].set(true);
            return &self.vars[at].1;
        }
        let mut names: Vec<&str> = self.places.keys().map(String::as_str).collect();
        names.sort_unstable();
        self.miss(format!(
            "there is no array `{name}` here, but {}",
            names.join(", ")
        ));
        &[]
    }

    /// The learner's weights θ, in the order of their declaration.
    pub fn weights(&self) -> &[Var<'t>] {
        &self.weights
    }

    /// The learner's buffers, such as running means.
    pub fn buffers(&self) -> &[Var<'t>] {
        &self.buffers
    }

    /// The tape that is recorded on.
    pub fn tape(&self) -> &'t Tape {
        self.tape
    }

    /// Whether an array of that name may be read here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The names that were read.
    pub(super) fn read(&self) -> impl Iterator<Item = &str> {
        let read = self.vars.iter().zip(&self.read);
        read.filter(|(_, read)| read.get())
            .map(|((name, _), _)| name.as_str())
    }

    fn miss(&self, reason: String) {
        self.missing.borrow_mut().get_or_insert(reason);
    }

    /// What a closure recorded, unless it read what is not there.
    pub(super) fn checked<T>(&self, what: &str, recorded: Result<T>) -> Result<T> {
        match self.missing.take() {
            Some(reason) => Err(Error::Setting(format!("{what}: {reason}"))),
            None => recorded,
        }
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.vars.iter().map(|(name, vars)| (name, vars)))
            .finish()
    }
}

type LossFn<'f> = dyn for<'t> Fn(&Scope<'t>) -> Result<(Var<'t>, Vec<Var<'t>>)> + 'f;
type OuterFn<'f> = dyn for<'t> Fn(&Scope<'t>) -> Result<Var<'t>> + 'f;
type PrepareFn<'f> = dyn for<'t> Fn(&Scope<'t>) -> Result<Vec<Var<'t>>> + 'f;
type HyperFn<'f> = dyn for<'t> Fn(&Scope<'t>, usize) -> Result<Var<'t>> + 'f;

/// An array that is declared to a [`Training`]: by its description, or by a name and the array itself. Then
/// its numbers are among the [values](crate::Unroll::values).
#[derive(Clone, Debug)]
pub struct Declared<'f> {
    spec: ArraySpec,
    numbers: Option<&'f Array>,
}

impl From<ArraySpec> for Declared<'_> {
    fn from(spec: ArraySpec) -> Self {
        let numbers = None;
        Self { spec, numbers }
    }
}

impl From<&ArraySpec> for Declared<'_> {
    fn from(spec: &ArraySpec) -> Self {
        spec.clone().into()
    }
}

impl<'f> From<(&str, &'f Array)> for Declared<'f> {
    fn from((name, array): (&str, &'f Array)) -> Self {
        Self {
            spec: (name, array).into(),
            numbers: Some(array),
        }
    }
}

/// Arrays declared under one name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) specs: Vec<ArraySpec>,
}

/// A training loop whose gradient is wanted: what the learner is, what is learned about its training, what is given, and
/// the losses. Everything has a name, and names say who takes what:
///
/// * A [prepared](Training::prepare), learned or given array that is named as a hyper-parameter of the optimiser (`lr`) is
///   that hyper-parameter: a scalar for all steps, or an array \[T\] with a number for each.
/// * A prepared or learned array that is named as a weight or buffer is its start, and the meta-gradient reaches it.
///   Other weights start from the value of the same name; a missing one is an error.
///
/// The [front page](crate) has examples.
pub struct Training<'f> {
    pub(super) optimizer: Optimizer,
    pub(super) weights: Vec<ArraySpec>,
    pub(super) buffers: Vec<ArraySpec>,
    pub(super) learned: Vec<Entry>,
    pub(super) given: Vec<Entry>,
    pub(super) prepared: Vec<(String, Box<PrepareFn<'f>>)>,
    pub(super) per_step: Vec<String>,
    pub(super) per_outer: Vec<String>,
    pub(super) hyper: Vec<(String, Box<HyperFn<'f>>)>,
    pub(super) loss: Option<Box<LossFn<'f>>>,
    pub(super) outer: Option<Box<OuterFn<'f>>>,
    /// The numbers of arrays that were declared with them.
    pub(super) numbers: Vec<(String, &'f Array)>,
}

impl<'f> Training<'f> {
    /// A training by an optimiser, with nothing declared yet.
    pub fn new(optimizer: Optimizer) -> Self {
        Self {
            optimizer,
            weights: Vec::new(),
            buffers: Vec::new(),
            learned: Vec::new(),
            given: Vec::new(),
            prepared: Vec::new(),
            per_step: Vec::new(),
            per_outer: Vec::new(),
            hyper: Vec::new(),
            loss: None,
            outer: None,
            numbers: Vec::new(),
        }
    }

    fn declare<S: Into<Declared<'f>>>(
        &mut self,
        specs: impl IntoIterator<Item = S>,
    ) -> Vec<ArraySpec> {
        let mut declare = |one: S| {
            let Declared { spec, numbers } = one.into();
            let numbers = numbers.map(|array| (spec.name.clone(), array));
            self.numbers.extend(numbers);
            spec
        };
        specs.into_iter().map(&mut declare).collect()
    }

    /// The learner's weights θ: float arrays that the optimiser moves.
    #[must_use]
    pub fn weights<S: Into<Declared<'f>>>(mut self, specs: impl IntoIterator<Item = S>) -> Self {
        let specs = self.declare(specs);
        self.weights.extend(specs);
        self
    }

    /// Arrays that every step replaces by new values, such as running means: see [`Training::loss_and_buffers`]. Where
    /// they are not given, they start at zero.
    #[must_use]
    pub fn buffers<S: Into<Declared<'f>>>(mut self, specs: impl IntoIterator<Item = S>) -> Self {
        let specs = self.declare(specs);
        self.buffers.extend(specs);
        self
    }

    /// Arrays whose meta-gradient is wanted: rates, noise, a generator's weights, labels, initial weights.
    #[must_use]
    pub fn learned<S: Into<Declared<'f>>>(mut self, specs: impl IntoIterator<Item = S>) -> Self {
        let specs = self.declare(specs);
        self.learned.extend(entries(specs));
        self
    }

    /// As [`Training::learned`], read together by one name: [`Scope::list`].
    #[must_use]
    pub fn learned_list<S: Into<Declared<'f>>>(
        mut self,
        name: &str,
        specs: impl IntoIterator<Item = S>,
    ) -> Self {
        let specs = self.declare(specs);
        self.learned.push(Entry {
            name: name.into(),
            specs,
        });
        self
    }

    /// Arrays that are never differentiated: data, labels, keys of random numbers.
    #[must_use]
    pub fn given<S: Into<Declared<'f>>>(mut self, specs: impl IntoIterator<Item = S>) -> Self {
        let specs = self.declare(specs);
        self.given.extend(entries(specs));
        self
    }

    /// An array that is computed once per meta-gradient from learned and given ones, and from those prepared before:
    /// a rate from its logarithm, a batch picked from a data set, a normalised weight. It is recorded, so the
    /// meta-gradient flows through it. It may have the name of an array that it is made of, and hides it then.
    #[must_use]
    pub fn prepare(
        self,
        name: &str,
        f: impl for<'t> Fn(&Scope<'t>) -> Result<Var<'t>> + 'f,
    ) -> Self {
        self.prepare_list(name, move |scope| Ok(vec![f(scope)?]))
    }

    /// As [`Training::prepare`], with several arrays under one name: [`Scope::list`].
    #[must_use]
    pub fn prepare_list(
        mut self,
        name: &str,
        f: impl for<'t> Fn(&Scope<'t>) -> Result<Vec<Var<'t>>> + 'f,
    ) -> Self {
        self.prepared.push((name.into(), Box::new(f)));
        self
    }

    /// Arrays whose first axis is the inner steps: step t sees row t, and with fewer rows R than steps row t mod R.
    #[must_use]
    pub fn per_step<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.per_step.extend(names.into_iter().map(Into::into));
        self
    }

    /// Arrays whose first axis is the outer losses: outer loss i sees row i mod R of R.
    #[must_use]
    pub fn per_outer<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.per_outer.extend(names.into_iter().map(Into::into));
        self
    }

    /// A hyper-parameter of the optimiser for each weight, by its position: a scalar, or an array that stretches to the
    /// weight. A learned rate for every parameter, say, as in Meta-SGD (Li et al. 2017, arXiv 1707.09835). The closure reads
    /// what the steps read, but no weights and buffers.
    #[must_use]
    pub fn hyper(
        mut self,
        name: &str,
        f: impl for<'t> Fn(&Scope<'t>, usize) -> Result<Var<'t>> + 'f,
    ) -> Self {
        self.hyper.push((name.into(), Box::new(f)));
        self
    }

    /// The inner loss, a scalar: the only function that is differentiated twice.
    #[must_use]
    pub fn loss(self, f: impl for<'t> Fn(&Scope<'t>) -> Result<Var<'t>> + 'f) -> Self {
        self.loss_and_buffers(move |scope| Ok((f(scope)?, Vec::new())))
    }

    /// The inner loss, and the new values of the buffers.
    #[must_use]
    pub fn loss_and_buffers(
        mut self,
        f: impl for<'t> Fn(&Scope<'t>) -> Result<(Var<'t>, Vec<Var<'t>>)> + 'f,
    ) -> Self {
        self.loss = Some(Box::new(f));
        self
    }

    /// The outer loss of a trained learner, a scalar. It may read learned arrays, too: a shared encoder, a regulariser.
    #[must_use]
    pub fn outer(mut self, f: impl for<'t> Fn(&Scope<'t>) -> Result<Var<'t>> + 'f) -> Self {
        self.outer = Some(Box::new(f));
        self
    }

    /// The arrays that the meta-gradient is with respect to.
    pub fn learned_specs(&self) -> impl Iterator<Item = &ArraySpec> {
        self.learned.iter().flat_map(|entry| &entry.specs)
    }

    /// The arrays that are given and not differentiated; starts of weights are not among them.
    pub fn given_specs(&self) -> impl Iterator<Item = &ArraySpec> {
        self.given.iter().flat_map(|entry| &entry.specs)
    }

    /// The learner's weights.
    pub fn weight_specs(&self) -> &[ArraySpec] {
        &self.weights
    }

    /// What moves the weights.
    pub fn optimizer(&self) -> Optimizer {
        self.optimizer
    }

    /// Refuses a training that cannot be run.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Setting(format!("training: {reason}")));
        if self.weights.is_empty() {
            return refuse("it has no weights: call `weights`".into());
        }
        let narrow = |spec: &&ArraySpec| !matches!(spec.dtype, DType::F32 | DType::F64);
        for (kind, specs) in [("weight", &self.weights), ("buffer", &self.buffers)] {
            if let Some(ArraySpec { name, dtype, .. }) = specs.iter().find(narrow) {
                return refuse(format!("the {kind} `{name}` is {dtype}, not f32 or f64"));
            }
        }
        let learner = self.state_specs().specs;
        if let Some(name) = twice(learner.iter().map(|spec| &spec.name)) {
            return refuse(format!("two arrays of the learner are called `{name}`"));
        }
        let declared = self.learned.iter().chain(&self.given);
        if let Some(name) = twice(declared.map(|entry| &entry.name)) {
            return refuse(format!("`{name}` is declared twice"));
        }
        if let Some(name) = twice(self.hyper.iter().map(|(name, _)| name)) {
            return refuse(format!("the hyper-parameter `{name}` is given twice"));
        }
        let hyper = self.optimizer.hyper();
        for (name, _) in &self.hyper {
            if !hyper.iter().any(|(known, _)| known == name) {
                let names: Vec<&str> = hyper.iter().map(|(known, _)| *known).collect();
                let (optimizer, names) = (self.optimizer.name(), names.join(", "));
                return refuse(format!("{optimizer} has no `{name}`, but {names}"));
            }
        }
        Ok(())
    }
}

fn entries(specs: Vec<ArraySpec>) -> impl Iterator<Item = Entry> {
    specs.into_iter().map(|spec| Entry {
        name: spec.name.clone(),
        specs: vec![spec],
    })
}

/// The first name that comes twice.
fn twice<'a>(names: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    let mut names = names.map(String::as_str);
    names.find(|name| !seen.insert(*name))
}

impl fmt::Debug for Training<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (weights, optimizer) = (self.weights.len(), self.optimizer.name());
        let (learned, given) = (self.learned_specs().count(), self.given_specs().count());
        write!(
            f,
            "Training({weights} weights, {learned} arrays learned, {given} given, {optimizer})"
        )
    }
}
