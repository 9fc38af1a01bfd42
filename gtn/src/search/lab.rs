//! Where sources are computed for networks: several at once, each on a thread with a device of its own.

use super::estimator::{LATENCY, Measure, Source, Teaching};
use super::ledger::{Entry, Outcome};
use super::probe::{latency, naswot, synflow};
use super::structure::Structure;
use crate::data::Dataset;
use crate::device::size;
use crate::error::{Error, ErrorKind, Result};
use crate::eval::evaluate::{Course, TestSet, Trainee};
use crate::eval::report::FRESH;
use crate::eval::training_data::TrainingData;
use crate::eval::tuning::Recipe;
use crate::fit::{BATCH, Fit, RECIPE};
use crate::nn::{Code, Learner, Space};
use crate::outer::inner::Inner;
use crate::outer::rule::Rule;
use crate::outer::teacher::Teacher;
use crate::run::config::Config;
use crate::run::values::name_of;
use kernels::{Cpu, Device};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;
use tensor::Arrays;

/// Images in a batch of an evaluation.
const EVALUATED: usize = 500;

/// Lessons that a thread keeps on its device. With more, networks share more of them, and more memory is taken.
const KEPT: usize = 64;

/// Everything that a network is judged with.
#[derive(Debug)]
pub struct Lab<'a> {
    /// The settings of the run that teaches.
    pub config: &'a Config,
    /// The networks.
    pub space: &'a Space,
    /// Real images.
    pub data: &'a Dataset,
    /// Learners that are trained for every network; their results are averaged.
    pub seeds: usize,
    /// Validation images that judge.
    pub images: usize,
    /// Whether to judge after every quarter of the steps.
    pub area: bool,
    /// Whether the user wants to stop: asked at every step of a fit, which takes minutes.
    pub stopped: fn() -> bool,
    /// How real images teach, for every number of steps.
    pub recipes: HashMap<usize, Recipe>,
    /// The run's synthetic batches, for every number of steps and every learner.
    lessons: HashMap<usize, Vec<Arrays>>,
}

/// A source to compute for a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The network.
    pub code: Code,
    /// What is computed.
    pub source: Source,
}

impl<'a> Lab<'a> {
    /// Without lessons and recipes.
    pub fn new(
        config: &'a Config,
        space: &'a Space,
        data: &'a Dataset,
        [seeds, images]: [usize; 2],
        area: bool,
        stopped: fn() -> bool,
    ) -> Self {
        let (recipes, lessons) = (HashMap::new(), HashMap::new());
        Self {
            config,
            space,
            data,
            seeds,
            images,
            area,
            stopped,
            recipes,
            lessons,
        }
    }

    /// The numbers of the learners.
    fn numbers(&self) -> impl Iterator<Item = u64> {
        (FRESH..).take(self.seeds)
    }

    /// Inner steps of a training.
    pub fn steps(&self, teaching: Teaching) -> usize {
        teaching.steps.unwrap_or(self.config.inner_steps)
    }

    /// The settings of a training of so many steps.
    pub fn config_of(&self, steps: usize) -> Config {
        Config {
            inner_steps: steps,
            ..self.config.clone()
        }
    }

    /// Makes the run's synthetic batches, once for all networks; false if the user wants to stop.
    ///
    /// # Errors
    /// If the run has fewer steps, or there is not enough memory.
    pub fn prepare(
        &mut self,
        device: &Device,
        teacher: &Teacher,
        teaching: Teaching,
    ) -> Result<bool> {
        let steps = self.steps(teaching);
        if steps > self.config.inner_steps {
            let error = Error::usage(format!(
                "{} inner steps wanted, and the run teaches {}",
                steps, self.config.inner_steps
            ));
            return Err(error.hint("fewer after @, or a run with more --inner-steps"));
        }
        if !self.config.curriculum.generates() {
            let curriculum = name_of(&self.config.curriculum);
            return Err(Error::usage(format!(
                "a run with --curriculum {curriculum} makes no images to rank with"
            ))
            .hint("the estimator real"));
        }
        let config = self.config_of(steps);
        let optimizer = self.config.inner_optimizer.0;
        TrainingData::check_memory(&config, self.data.problem(), self.seeds).map_err(|error| {
            let place = format!("--seeds {}", self.seeds);
            error.at(place).hint("fewer seeds take less")
        })?;
        let mut lessons = Vec::new();
        for number in self.numbers() {
            if (self.stopped)() {
                return Ok(false);
            }
            let lesson = TrainingData::synthetic(device, &config, teacher, number)?;
            lessons.push(lesson.arrays(optimizer)?);
        }
        self.lessons.insert(steps, lessons);
        Ok(true)
    }

    /// The learner of a code, and its counts.
    ///
    /// # Errors
    /// If it does not fit the images.
    pub fn learner(&self, code: &Code) -> Result<(Learner, Structure)> {
        let problem = self.data.problem();
        let learner = self
            .space
            .network(code)?
            .learner(problem.image, problem.classes)?;
        let structure = Structure::of(&learner);
        Ok((learner, structure))
    }

    /// Computes tasks on several threads. Passes every result to `done` as it comes, which may stop the work
    /// by returning `false`. Results do not depend on the number of threads, but their order does.
    ///
    /// # Errors
    /// Those of `done`, or if a device cannot be had.
    pub fn run(
        &self,
        device: &Device,
        workers: usize,
        tasks: &[Task],
        mut done: impl FnMut(Entry) -> Result<bool>,
    ) -> Result<()> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (send, receive) = mpsc::channel();
        let at_once = workers.clamp(1, tasks.len().max(1));
        let share = device.free_bytes().map(|free| free / at_once);
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                let (send, next, stop) = (send.clone(), &next, &stop);
                scope.spawn(move || {
                    // A GPU is shared by all workers; on a processor each worker has one thread.
                    let own = match device.as_cpu() {
                        Some(cpu) if workers > 1 => {
                            Cpu::new(Some(1), Some(cpu.simd())).map(Device::from)
                        }
                        _ => Ok(device.clone()),
                    };
                    let bench = own
                        .map_err(Error::from)
                        .and_then(|device| Bench::new(self, device, share));
                    let mut bench = match bench {
                        Ok(bench) => bench,
                        Err(error) => {
                            let _ = send.send(Err(error));
                            return;
                        }
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            return;
                        };
                        let Some(entry) = bench.entry(task) else {
                            return;
                        };
                        if send.send(Ok(entry)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            let mut result = Ok(());
            for found in receive {
                match found.and_then(&mut done) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

/// What a thread works with.
struct Bench<'a> {
    lab: &'a Lab<'a>,
    device: Device,
    glance: TestSet,
    /// This thread's share of the memory that was free before any began, in bytes.
    share: Option<usize>,
    /// Batches on this device.
    lessons: HashMap<(Teaching, u64), TrainingData>,
}

impl<'a> Bench<'a> {
    fn new(lab: &'a Lab<'a>, device: Device, share: Option<usize>) -> Result<Self> {
        let glance = TestSet::new(&device, lab.data, &lab.data.validation, lab.images)?;
        Ok(Self {
            lab,
            device,
            glance,
            share,
            lessons: HashMap::new(),
        })
    }

    /// Computes a source; `None` if the user asks to stop meanwhile. An error of a network is a result, too;
    /// one of the device says nothing about the network.
    fn entry(&mut self, task: &Task) -> Option<Entry> {
        let begin = Instant::now();
        let mut planning = 0.0;
        let outcome = match self.values(task, &mut planning) {
            Ok(values) if values.is_empty() => return None,
            Ok(values) => match values.iter().find(|(_, value)| !value.is_finite()) {
                Some((name, _)) => Outcome::Failed(format!("{name} is not finite")),
                None => Outcome::Values(values),
            },
            Err(error) if error.kind() == ErrorKind::Device => {
                Outcome::Postponed(error.to_string())
            }
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let seconds = begin.elapsed().as_secs_f64();
        Some(Entry {
            network: task.code.to_string(),
            source: task.source.name(),
            outcome,
            seconds,
            planning,
        })
    }

    /// Values by column; no column if the user asks to stop.
    fn values(&mut self, task: &Task, planning: &mut f64) -> Result<BTreeMap<String, f64>> {
        let begin = Instant::now();
        let (learner, _) = self.lab.learner(&task.code)?;
        let Lab { config, data, .. } = self.lab;
        let problem = data.problem();
        let single = |value| Ok(BTreeMap::from([(task.source.name(), value)]));
        match task.source {
            Source::Synflow => single(synflow(
                &self.device,
                &learner,
                problem.image,
                problem.classes,
                config.seed,
            )?),
            Source::Naswot => single(naswot(&self.device, &learner, data, config.seed)?),
            Source::Latency => Ok(BTreeMap::from([(
                LATENCY.to_owned(),
                latency(&self.device, &learner, problem)?,
            )])),
            Source::Fit(epochs) => {
                let fitted = self.fitted(&learner, epochs)?;
                Ok(fitted
                    .map(|accuracy| (task.source.name(), accuracy))
                    .into_iter()
                    .collect())
            }
            Source::Training(teaching) => {
                let mut sums: BTreeMap<String, f64> = BTreeMap::new();
                let numbers: Vec<u64> = self.lab.numbers().collect();
                self.check_memory(&learner)?;
                let mut trainee = self.trainee(&learner, teaching, numbers[0])?;
                *planning = begin.elapsed().as_secs_f64();
                for &number in &numbers {
                    trainee.begin(&learner, config.seed, number)?;
                    let course = self.follow(&mut trainee, teaching, number)?;
                    for (measure, value) in measures(&course, self.lab.area) {
                        *sums.entry(teaching.column(measure)).or_default() +=
                            value / numbers.len() as f64;
                    }
                }
                Ok(sums)
            }
        }
    }

    /// The accuracy on all validation images after a fit to all training images; none if the user wants to stop.
    fn fitted(&self, learner: &Learner, epochs: u64) -> Result<Option<f64>> {
        let Lab { config, data, .. } = *self.lab;
        let config = Config {
            inner_batch: BATCH.min(data.train.len()),
            ..config.clone()
        };
        let mut fit = Fit::new(&self.device, &config, data, (learner, None), RECIPE, epochs)?;
        while fit.epoch() < epochs {
            if fit.train(&mut || !(self.lab.stopped)())?.is_none() {
                return Ok(None);
            }
        }
        fit.average_statistics()?;
        Ok(Some(fit.judge(&self.device, &data.validation)?.accuracy))
    }

    /// Refuses a learner whose training would take more memory than this thread may take, by a rough count.
    fn check_memory(&self, learner: &Learner) -> Result<()> {
        let layers = learner
            .layers()
            .iter()
            .map(|layer| layer.shape.iter().product::<usize>());
        let (all, largest) = (layers.clone().sum::<usize>(), layers.max().unwrap_or(0));
        // Counts all activations of a batch, for the backward pass; the two largest of an evaluation's batch;
        // and weights with their start values, optimiser state and gradients.
        let numbers = self.lab.config.inner_batch * all
            + 2 * EVALUATED * largest
            + 6 * learner.parameter_count();
        let wanted = 4.0 * numbers as f64;
        // Memory that other threads hold is not free, but it is theirs: this thread's share stays the same.
        let free = self.device.free_bytes().into_iter().chain(self.share).min();
        match free.map(|free| free as f64) {
            Some(free) if wanted > free => {
                let [wanted, free] = [wanted, free].map(size);
                let message =
                    format!("its training takes about {wanted} of memory, and {free} are free");
                Err(Error::new(ErrorKind::Device, message))
            }
            _ => Ok(()),
        }
    }

    /// What moves the weights in a training.
    fn rule(&self, teaching: Teaching) -> Rule {
        match self.lab.recipes.get(&self.lab.steps(teaching)) {
            Some(recipe) if teaching.real => recipe.optimizer.into(),
            _ => Inner::of(self.lab.config).rule,
        }
    }

    fn trainee(&self, learner: &Learner, teaching: Teaching, number: u64) -> Result<Trainee> {
        let config = self.lab.config_of(self.lab.steps(teaching));
        Ok(Trainee::new(
            &self.device,
            &config,
            self.lab.data.problem(),
            learner,
            self.rule(teaching),
            number,
        )?)
    }

    fn follow(&mut self, trainee: &mut Trainee, teaching: Teaching, number: u64) -> Result<Course> {
        let steps = self.lab.steps(teaching);
        let lesson = match self.lessons.remove(&(teaching, number)) {
            Some(lesson) => lesson,
            None => self.lesson(teaching, number)?,
        };
        // What every network needs is kept, and not without limit: of many seeds no lesson comes again soon.
        if self.lessons.len() >= KEPT {
            self.lessons.clear();
        }
        let lesson = self.lessons.entry((teaching, number)).or_insert(lesson);
        let quarters: Vec<usize> = (1..=4)
            .map(|quarter| (steps * quarter).div_ceil(4))
            .collect();
        let at = if self.lab.area {
            &quarters[..]
        } else {
            &quarters[3..]
        };
        Ok(trainee.follow(lesson, &self.glance, at)?)
    }

    fn lesson(&self, teaching: Teaching, number: u64) -> Result<TrainingData> {
        let (lab, steps) = (self.lab, self.lab.steps(teaching));
        if teaching.real {
            let recipe = lab
                .recipes
                .get(&steps)
                .ok_or_else(|| Error::usage("real images without a recipe"))?;
            let hyper = recipe.hyper(steps);
            return Ok(TrainingData::real(
                &self.device,
                &lab.config_of(steps),
                lab.data,
                number,
                &hyper,
            )?);
        }
        let lessons = lab
            .lessons
            .get(&steps)
            .ok_or_else(|| Error::usage("a run's lesson that was not prepared"))?;
        Ok(TrainingData::from_arrays(
            &self.device,
            &lessons[(number - FRESH) as usize],
            Vec::new(),
        )?)
    }
}

/// The measures of a training; the area only if the learner was evaluated along the way.
fn measures(course: &Course, area: bool) -> Vec<(Measure, f64)> {
    let last = course.marks.last().expect("the last step is looked at");
    let mut found = vec![
        (Measure::Accuracy, last.accuracy),
        (Measure::Loss, -last.loss),
        (Measure::Speed, -course.losses.iter().sum::<f64>()),
    ];
    if area {
        let sum: f64 = course.marks.iter().map(|mark| mark.accuracy).sum();
        found.push((Measure::Area, sum / course.marks.len() as f64));
    }
    found
}
