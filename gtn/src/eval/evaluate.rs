//! Evaluation: fresh learners trained on what the generator makes, and beside them on real images.

use crate::data::{CLASSES, Dataset, PIXELS, Split};
use crate::nn::layers::count_correct;
use crate::nn::{Learner, Statistics};
use crate::outer::curriculum::one_hot;
use crate::outer::routine::Routine;
use crate::outer::teacher::{CLASS, INPUT, LR, MOMENTUM, Teacher};
use crate::outer::training::{
    batch_ports, by_images, fresh, port, ports, put, put_real_batches, take,
};
use crate::run::config::{Config, IMAGE};
use crate::seeds::{Draw, rng};
use autograd::{Given, Horizon, Port, Records, Result, Schedule, Tape, Unroll};
use kernels::Device;
use tensor::{Array, DType, Shape};

/// Images in one run of the plan that counts.
const BATCH: usize = 500;

/// Labelled images on the device, for counting.
#[derive(Debug)]
pub struct Exam {
    batches: Records,
    /// How many of each batch the last learner named rightly.
    correct: Records,
    count: usize,
}

impl Exam {
    /// The first `count` images of a split (all, if it has fewer).
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(device: &Device, data: &Dataset, split: &Split, count: usize) -> Result<Self> {
        let count = count.min(split.len());
        let [h, w, c] = IMAGE;
        let labels = Port {
            name: "labels".into(),
            dtype: DType::I32,
            shape: [BATCH].into(),
        };
        let batches = Records::new(
            device,
            vec![port("x", [BATCH, h, w, c]), labels],
            count.div_ceil(BATCH),
        )?;
        for (record, first) in (0..count).step_by(BATCH).enumerate() {
            let chosen: Vec<usize> = (first..count.min(first + BATCH)).collect();
            let mut images = data.normalised(split, &chosen);
            images.resize(BATCH * PIXELS, 0.0);
            let mut labels: Vec<i32> = chosen.iter().map(|&i| i32::from(split.labels[i])).collect();
            // No class: never counted.
            labels.resize(BATCH, -1);
            put(&batches, record, 0, images)?;
            batches.set(
                record,
                1,
                &Array::new([BATCH], labels).expect("as many labels"),
            )?;
        }
        let correct = vec![port("correct", Shape::scalar())];
        Ok(Self {
            correct: Records::new(device, correct, batches.count())?,
            batches,
            count,
        })
    }
}

/// Marks one kind of learner on exams.
#[derive(Debug)]
pub struct Examiner {
    count: Routine,
}

impl Examiner {
    /// For learners of one structure.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(device: &Device, learner: &Learner) -> Result<Self> {
        let tape = Tape::new();
        let state = [ports(learner.params()), ports(learner.buffers())].concat();
        let state: Vec<_> = state
            .into_iter()
            .enumerate()
            .map(|(i, port)| tape.input(&i.to_string(), port.dtype, port.shape))
            .collect::<Result<_>>()?;
        let (theta, buffers) = state.split_at(learner.params().len());
        let [h, w, c] = IMAGE;
        let x = tape.input("x", DType::F32, [BATCH, h, w, c])?;
        let labels = tape.input("labels", DType::I32, [BATCH])?;
        let (logits, _) = learner.logits(theta, x, Statistics::Stored(buffers))?;
        let correct = count_correct(logits, labels)?;
        Ok(Self {
            count: Routine::new(device, &[correct])?,
        })
    }

    /// The fraction of the exam's images that the learner of a state names rightly. Arrays of the state's
    /// record: θ first, buffers last.
    ///
    /// # Errors
    /// If the device fails.
    pub fn accuracy(
        &self,
        learner: &Learner,
        state: &Records,
        record: usize,
        exam: &Exam,
    ) -> Result<f64> {
        let theta = learner.params().len();
        let skipped = state.ports().len() - theta - learner.buffers().len();
        for batch in 0..exam.batches.count() {
            let input = |name: &str| match name {
                "x" => exam.batches.view(batch, 0),
                "labels" => exam.batches.view(batch, 1),
                number => {
                    let i: usize = number.parse().expect("the state is numbered");
                    state.view(record, if i < theta { i } else { i + skipped })
                }
            };
            self.count.run(input, &[exam.correct.view(batch, 0)])?;
        }
        let correct = exam.correct.column(0)?;
        let correct: f64 = correct.iter().map(|batch| batch.to_f64_vec()[0]).sum();
        Ok(correct / exam.count as f64)
    }
}

/// A lesson: T labelled batches with the rates to train on them, a record per inner step.
#[derive(Debug)]
pub struct Lesson {
    rows: Records,
    rates: Records,
    /// The classes, \[T, B\].
    pub labels: Vec<u8>,
}

impl Lesson {
    fn empty(device: &Device, config: &Config) -> Result<Self> {
        let rates = ["lr", "momentum"].map(|name| port(name, Shape::scalar()));
        Ok(Self {
            rows: Records::new(device, batch_ports(config.inner_batch), config.inner_steps)?,
            rates: Records::new(device, rates.to_vec(), config.inner_steps)?,
            labels: Vec::new(),
        })
    }

    /// What the teacher gives the training number `number`.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn taught(
        device: &Device,
        config: &Config,
        teacher: &Teacher,
        data: &Dataset,
        number: u64,
    ) -> Result<Self> {
        if config.curriculum.generates() {
            return Self::synthetic(device, config, teacher, number);
        }
        let mut lesson = Self::empty(device, config)?;
        let batch = config.inner_batch;
        lesson.labels = put_real_batches(&lesson.rows, batch, data, config.seed, number)?;
        teacher.fill_rates(&lesson.rates)?;
        Ok(lesson)
    }

    /// What the teacher's generator makes for the training number `number`.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn synthetic(
        device: &Device,
        config: &Config,
        teacher: &Teacher,
        number: u64,
    ) -> Result<Self> {
        let mut lesson = Self::empty(device, config)?;
        let batch = config.inner_batch;
        let ports = vec![
            port("z", [batch, config.noise]),
            port("y", [batch, CLASSES]),
        ];
        let given = Records::new(device, ports, config.inner_steps)?;
        lesson.labels = teacher.fill_noise(config, &given, number)?;
        teacher.fill_rates(&lesson.rates)?;

        let tape = Tape::new();
        let inputs = |kind: &str, ports: &[Port]| {
            let input = |(i, port): (usize, &Port)| {
                tape.input(&format!("{kind} {i}"), port.dtype, port.shape.clone())
            };
            ports
                .iter()
                .enumerate()
                .map(input)
                .collect::<Result<Vec<_>>>()
        };
        let weights = inputs("weight", teacher.weights.ports())?;
        let rows = inputs("row", given.ports())?;
        let images =
            teacher
                .generator
                .images(&teacher.generator.prepare(&weights)?, rows[0], rows[1])?;
        let generate = Routine::new(device, &[images])?;
        for (step, classes) in lesson.labels.chunks(batch).enumerate() {
            let input = |name: &str| match name.split_once(' ').expect("named above") {
                ("weight", i) => teacher.weights.view(0, i.parse().expect("a number")),
                (_, i) => given.view(step, i.parse().expect("a number")),
            };
            generate.run(input, &[lesson.rows.view(step, INPUT)])?;
            put(&lesson.rows, step, CLASS, one_hot(classes))?;
        }
        Ok(lesson)
    }

    /// Real images drawn uniformly, with one learning rate and momentum for all steps.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn real(
        device: &Device,
        config: &Config,
        data: &Dataset,
        number: u64,
        [lr, momentum]: [f64; 2],
    ) -> Result<Self> {
        let mut lesson = Self::empty(device, config)?;
        let batch = config.inner_batch;
        lesson.labels = put_real_batches(&lesson.rows, batch, data, config.seed, number)?;
        for step in 0..config.inner_steps {
            put(&lesson.rates, step, LR, vec![lr as f32])?;
            put(&lesson.rates, step, MOMENTUM, vec![momentum as f32])?;
        }
        Ok(lesson)
    }

    /// The images, \[T, B, rows, columns, channels\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn images(&self) -> Result<Vec<f32>> {
        let images = (0..self.rows.count()).map(|step| take(&self.rows, step, 0));
        Ok(images.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// A learner of given widths, planned, that can take lessons.
#[derive(Debug)]
pub struct Pupil {
    device: Device,
    learner: Learner,
    unroll: Unroll,
    start: Records,
    outer_rows: Records,
    examiner: Examiner,
}

impl Pupil {
    /// Plans the training.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(device: &Device, config: &Config, learner: Learner, number: u64) -> Result<Self> {
        let training = by_images(&learner, config.inner_batch, 1);
        let start = fresh(
            device,
            &training,
            &learner,
            &mut rng(config.seed, Draw::Learner, number, 0),
        )?;
        let horizon = Horizon::new(config.inner_steps).schedule(Schedule::Binomial(1));
        let unroll = Unroll::new(device, &training, &horizon)?;
        let outer_rows = Records::new(device, training.outer_rows.clone(), 1)?;
        drop(training);
        let examiner = Examiner::new(device, &learner)?;
        Ok(Self {
            device: device.clone(),
            learner,
            unroll,
            start,
            outer_rows,
            examiner,
        })
    }

    /// Trains on a lesson from the same start every time. Gives the accuracy on the exam after the last
    /// step; and on `along`, if given, before the first step and after each.
    ///
    /// # Errors
    /// If the training runs away, or the device fails.
    pub fn take(
        &mut self,
        lesson: &Lesson,
        exam: &Exam,
        along: Option<&Exam>,
    ) -> Result<(f64, Vec<f64>)> {
        let shared = Records::new(&self.device, Vec::new(), 1)?;
        let Self {
            learner,
            unroll,
            start,
            outer_rows,
            examiner,
            ..
        } = self;
        let (mut accuracy, mut curve, last) = (0.0, Vec::new(), unroll.steps());
        if let Some(exam) = along {
            curve.push(examiner.accuracy(learner, start, 0, exam)?);
        }
        let given = Given {
            start,
            shared: &shared,
            rows: &lesson.rows,
            hyper: &lesson.rates,
            outer_rows,
        };
        unroll.train(given, |step, states, record| {
            if let Some(exam) = along {
                curve.push(examiner.accuracy(learner, states, record, exam)?);
            }
            if step == last {
                accuracy = examiner.accuracy(learner, states, record, exam)?;
            }
            Ok(())
        })?;
        Ok((accuracy, curve))
    }
}
