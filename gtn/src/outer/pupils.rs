//! The learners of an outer step: drawn, their trainings planned, and plans kept for structures that come back.

use crate::data::Problem;
use crate::device::free_bytes;
use crate::nn::{Drawn, Learner, Network, init, stack};
use crate::outer::makers::Makers;
use crate::outer::order::Ranking;
use crate::outer::training::training;
use crate::run::config::Config;
use crate::run::derived::fitting;
use crate::seeds::{Draw, rng};
use autograd::Planned;
use autograd::prelude::*;
use std::ops::Range;
use std::thread::JoinHandle;

/// How many structures keep their plans. A plan takes a megabyte or two for its programs; their working
/// memory comes on top. With a GPU more are kept, since a new plan takes as long there as the work itself:
/// the preset `mnist` has 64 structures.
const KEPT: usize = 32;
const KEPT_BESIDE_GPU: usize = 64;

/// Fresh learners of one structure.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) drawn: Drawn,
    learner: Learner,
    /// Their weights, with a first axis for the learners if there are several.
    pub(super) theta: Vec<Array>,
    pub(super) extent: Extent,
}

/// The size of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Learners that are trained at once.
    pub(super) learners: usize,
    /// Inner steps.
    pub(super) steps: usize,
}

/// Draws learners of an outer step by their numbers. If the population is mixed, each has a structure of its
/// own; otherwise all have the same. Learners of one structure form a class, as far as they can be
/// [stacked](Config::most_stacked).
pub(super) fn draw(
    config: &Config,
    problem: Problem,
    ranking: Option<&Ranking>,
    outer_step: u64,
    numbers: Range<usize>,
) -> Result<Vec<Class>> {
    let several = config.population().is_mixed();
    let most = config.most_stacked();
    let mut classes: Vec<(Drawn, Learner, Vec<Vec<Array>>)> = Vec::new();
    for number in numbers.start as u64..numbers.end as u64 {
        let structure = if several { number } else { 0 };
        let (drawn, learner) = match ranking {
            Some(ranking) => {
                let rng = &mut rng(config.seed, Draw::Widths, outer_step, structure);
                fitting(problem, || ranking.draw(rng))?
            }
            None => config.drawn(problem, outer_step, structure)?,
        };
        let rng = &mut rng(config.seed, Draw::Learner, outer_step, number);
        let theta = init(learner.params(), F32, rng)?;
        let joins =
            |(other, _, thetas): &&mut (Drawn, _, Vec<_>)| *other == drawn && thetas.len() < most;
        match classes.iter_mut().find(joins) {
            Some((_, _, thetas)) => thetas.push(theta),
            None => classes.push((drawn, learner, vec![theta])),
        }
    }
    let class = |(drawn, learner, thetas): (Drawn, Learner, Vec<Vec<Array>>)| {
        Ok(Class {
            drawn,
            learner,
            theta: stack(&thetas)?,
            extent: Extent {
                learners: thetas.len(),
                steps: config.steps_at(outer_step),
            },
        })
    };
    classes.into_iter().map(class).collect()
}

impl Class {
    /// Whether they drop numbers at random.
    pub(super) fn drops(&self) -> bool {
        self.learner.drops()
    }

    fn subject(&self) -> Subject {
        Subject {
            structure: self.learner.network().structure(),
            extent: self.extent,
        }
    }

    /// Gives the learners' weights to a training.
    pub(super) fn start(&self, values: &mut Values) -> Result<()> {
        let names = self
            .learner
            .params()
            .iter()
            .map(|param| param.name.as_str());
        values.set_all(names.zip(&self.theta))
    }
}

/// What a plan is made for: a structure, how many learners train at once, and for how many steps.
#[derive(Clone, Debug, PartialEq)]
struct Subject {
    structure: Network,
    extent: Extent,
}

/// The training of learners of one structure, planned, with its memory.
#[derive(Debug)]
pub(super) struct Pupil {
    subject: Subject,
    pub(super) unroll: Unroll,
}

impl Pupil {
    /// How many learners it trains at once.
    pub(super) fn learners(&self) -> usize {
        self.subject.extent.learners
    }
}

/// The last training with its memory, and the plans of earlier ones, for structures that come back.
#[derive(Debug)]
pub(super) struct Pupils {
    device: Device,
    /// Free bytes before any training took some. Asked later, the memory that they hold themselves would be
    /// missing.
    free: Option<usize>,
    last: Option<Pupil>,
    /// In order of use, the most recent last.
    kept: Vec<(Subject, Planned)>,
    ahead: Option<Ahead>,
}

/// Trainings that a thread plans, while a GPU works on another.
#[derive(Debug)]
struct Ahead {
    subjects: Vec<Subject>,
    /// In the order of the subjects, as far as nothing failed.
    planning: JoinHandle<Vec<Planned>>,
}

/// What a training is planned from.
#[derive(Clone)]
struct Sources {
    device: Device,
    free: Option<usize>,
    config: Config,
    problem: Problem,
    makers: Makers,
}

impl Sources {
    /// Plans a training of learners.
    fn plan(&self, learner: &Learner, extent: Extent) -> Result<Planned> {
        let config = &Config {
            learners_per_step: extent.learners,
            learners_at_once: 0,
            ..self.config.clone()
        };
        let training = training(config, self.problem, &self.makers, learner);
        let horizon = config.horizon_of(extent.steps);
        Planned::new(&training, &horizon.free_bytes(self.free))
    }

    /// Plans trainings and prepares the plans, up to the first failure. Whoever needs the failed one plans it
    /// again and gets the error.
    fn plan_all(&self, classes: Vec<(Learner, Extent)>) -> Vec<Planned> {
        let plan = |(learner, extent): (Learner, Extent)| {
            let planned = self.plan(&learner, extent).ok()?;
            planned.prepare(&self.device).ok()?;
            Some(planned)
        };
        classes.into_iter().map_while(plan).collect()
    }
}

impl Pupils {
    /// For one of `ranks` processes on this machine.
    pub(super) fn new(device: &Device, ranks: usize) -> Self {
        Self {
            device: device.clone(),
            free: free_bytes(device, ranks),
            last: None,
            kept: Vec::new(),
            ahead: None,
        }
    }

    fn sources(&self, config: &Config, problem: Problem, makers: &Makers) -> Sources {
        Sources {
            device: self.device.clone(),
            free: self.free,
            config: config.clone(),
            problem,
            makers: makers.clone(),
        }
    }

    /// The training of learners, planned before or now, in the memory of the one that was used last.
    pub(super) fn take(
        &mut self,
        class: &Class,
        config: &Config,
        problem: Problem,
        makers: &Makers,
    ) -> Result<Pupil> {
        let subject = class.subject();
        let last = match self.last.take() {
            Some(pupil) if pupil.subject == subject => return Ok(pupil),
            last => last,
        };
        if self.has_ahead(&subject) {
            self.keep_ahead();
        }
        let planned = if let Some(at) = self.kept.iter().position(|kept| kept.0 == subject) {
            self.kept.remove(at).1
        } else {
            let sources = self.sources(config, problem, makers);
            sources.plan(&class.learner, class.extent)?
        };
        let unroll = match last {
            Some(pupil) => {
                let (unroll, before) = pupil.unroll.turn_to(planned)?;
                self.kept.push((pupil.subject, before));
                unroll
            }
            None => self.first(planned, class, &self.sources(config, problem, makers))?,
        };
        self.forget();
        Ok(Pupil { subject, unroll })
    }

    /// Allocates memory for the first training. On a GPU it is enough for the widest learner and all steps,
    /// so later trainings fit in, because an allocation there stalls the work. On a processor pages are taken
    /// only when they are touched.
    fn first(&self, planned: Planned, class: &Class, sources: &Sources) -> Result<Unroll> {
        let widest = sources.config.widest(sources.problem)?;
        let extent = Extent {
            steps: sources.config.inner_steps,
            ..class.extent
        };
        let is_first = |widest: &Learner| *widest == class.learner && extent == class.extent;
        match &widest[..] {
            [widest] if self.device.as_cuda().is_some() && !is_first(widest) => {
                let widest = sources.plan(widest, extent)?;
                let (unroll, _) = Unroll::of(&self.device, widest)?.turn_to(planned)?;
                Ok(unroll)
            }
            _ => Unroll::of(&self.device, planned),
        }
    }

    /// Plans the next trainings on a thread of its own, while a GPU works on `busy`. On a processor this
    /// would only take time from the training.
    pub(super) fn plan_ahead(
        &mut self,
        next: &[Class],
        busy: &Pupil,
        config: &Config,
        problem: Problem,
        makers: &Makers,
    ) {
        if self.device.as_cuda().is_none() {
            return;
        }
        self.keep_ahead();
        let known = |subject: &Subject| {
            *subject == busy.subject || self.kept.iter().any(|kept| kept.0 == *subject)
        };
        let new: Vec<&Class> = next.iter().filter(|c| !known(&c.subject())).collect();
        if new.is_empty() {
            return;
        }
        let sources = self.sources(config, problem, makers);
        let classes: Vec<_> = new.iter().map(|c| (c.learner.clone(), c.extent)).collect();
        self.ahead = Some(Ahead {
            subjects: new.iter().map(|class| class.subject()).collect(),
            planning: std::thread::spawn(move || sources.plan_all(classes)),
        });
    }

    fn has_ahead(&self, subject: &Subject) -> bool {
        let ahead = self.ahead.as_ref();
        ahead.is_some_and(|ahead| ahead.subjects.contains(subject))
    }

    /// Waits for what is planned ahead, and keeps it.
    fn keep_ahead(&mut self) {
        let Some(Ahead { subjects, planning }) = self.ahead.take() else {
            return;
        };
        // A thread that panicked planned nothing. The main thread then plans again, where a panic is
        // reported.
        let planned = planning.join().unwrap_or_default();
        self.kept.extend(subjects.into_iter().zip(planned));
    }

    /// Drops the plans that were not used for the longest time, if there are too many.
    fn forget(&mut self) {
        let most = match self.device.as_cuda() {
            Some(_) => KEPT_BESIDE_GPU,
            None => KEPT,
        };
        let beyond = self.kept.len().saturating_sub(most);
        self.kept.drain(..beyond);
    }

    /// Keeps a training that was used.
    pub(super) fn keep(&mut self, pupil: Pupil) {
        self.last = Some(pupil);
    }

    /// The training that was used last.
    pub(super) fn last(&self) -> Option<&Pupil> {
        self.last.as_ref()
    }
}

/// Waits for the planning thread, so that none is left that uses the device.
impl Drop for Pupils {
    fn drop(&mut self) {
        self.keep_ahead();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Learners;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn all_structures_of_the_built_in_population_keep_their_plans() {
        let Learners::Population(mixed, _) = "mixed".parse().unwrap() else {
            panic!("mixed is a population")
        };
        let rng = &mut StdRng::seed_from_u64(1);
        let mut structures: Vec<Network> = Vec::new();
        for _ in 0..2000 {
            let structure = mixed.draw(rng).unwrap().network.structure();
            if !structures.contains(&structure) {
                structures.push(structure);
            }
        }
        let count = structures.len();
        assert!((20..=KEPT).contains(&count), "{count} structures");
    }
}
