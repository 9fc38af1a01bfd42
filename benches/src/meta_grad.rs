//! `benches meta-grad`: time and memory of the meta-gradient of a fixed set-up, comparable with other
//! engines.

use crate::conditions::{Conditions, flag, or};
use crate::resident::Resident;
use crate::{DataKind, Problem, Setup};
use autograd::optim::Optimizer;
use autograd::{CotangentNorms, Forecast, Horizon, Phase, Training, Trouble, Unroll, Values};
use gtn::cli::{Outcome, say};
use gtn::error::{Error, Result};
use gtn::run::config::{Engine, ModeName};
use gtn::run::memory::check_values;
use gtn::run::values::{count_or_none, name_of};
use kernels::Device;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::Instant;
use tensor::{Array, Arrays, DType, Metadata, read_safetensors, write_safetensors};

/// Element types of the benchmark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FloatKind {
    /// 32-bit
    #[default]
    F32,
    /// 64-bit
    F64,
}

/// Optimisers of the benchmark; both learn a rate and a momentum for every step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OptimizerKind {
    /// Heavy ball
    #[default]
    Momentum,
    /// Heavy ball whose steps can be undone: for the schedule `reversible`
    ReversibleMomentum,
}

impl From<OptimizerKind> for Optimizer {
    fn from(kind: OptimizerKind) -> Self {
        match kind {
            OptimizerKind::Momentum => Self::Momentum,
            OptimizerKind::ReversibleMomentum => Self::ReversibleMomentum,
        }
    }
}

/// A fixed set-up of networks, and its sizes but the number of inner steps.
#[derive(Clone, Debug, clap::Args)]
pub struct SetupArgs {
    /// Which set-up: A (small MNIST), B (the paper's MNIST), C (perceptron), tiny, tinymlp
    #[arg(long, default_value = "A", hide_possible_values = true, value_parser = Setup::NAMES)]
    pub setup: String,
    /// Batches that the inner steps take in turn; 0: one for every step
    #[arg(long, default_value_t = 0, value_parser = count_or_none())]
    pub batches: usize,
    /// Inner batch B; 0 takes the set-up's
    #[arg(long, default_value_t = 0, value_parser = count_or_none())]
    pub batch: usize,
    /// What the inner steps train on
    #[arg(long, value_enum, default_value_t)]
    pub data: DataKind,
    /// What moves the learner
    #[arg(long, value_enum, default_value_t)]
    pub optimizer: OptimizerKind,
    /// Learners that train at once on the same batches; the meta-loss is their mean
    #[arg(id = "at_once", long = "at-once", value_name = "K", default_value_t = 1, value_parser = learners)]
    pub learners: usize,
    /// Batch norm after the learner's convolutions
    #[arg(long)]
    pub bn: bool,
    /// Element type
    #[arg(long, value_enum, default_value_t)]
    pub dtype: FloatKind,
}

/// Settings of `benches meta-grad`.
#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("schedule", |schedule| schedule.default_value("per-step")))]
pub struct MetaGradArgs {
    /// What is trained on what
    #[command(flatten)]
    pub setup: SetupArgs,
    /// Inner steps T; 0 takes the set-up's
    #[arg(long, default_value_t = 0, value_parser = count_or_none())]
    pub steps: usize,
    /// What is kept, and how steps are differentiated
    #[command(flatten)]
    pub engine: Engine,
    /// How many of the schedule's snapshots lie in a file
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count_or_none())]
    pub on_disk: usize,
    /// The folder of that file [default: that of the system's temporary files]
    #[arg(long, value_name = "DIR")]
    pub snapshot_dir: Option<PathBuf>,
    /// How many of the others lie in the host's memory instead of the device's
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count_or_none())]
    pub in_host: usize,
    /// Where and how often
    #[command(flatten)]
    pub conditions: Conditions,
    /// Starting values, as a safetensors file
    #[arg(long)]
    pub init: Option<PathBuf>,
    /// Write the meta-gradient to this safetensors file
    #[arg(long)]
    pub dump: Option<PathBuf>,
    /// Print the plans: their launches, work and memory
    #[arg(long)]
    pub plans: bool,
    /// Also measure the cotangent of the weights before every inner step
    #[arg(long)]
    pub cotangents: bool,
}

fn learners(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(count),
        _ => Err("from 1 to 1024".to_owned()),
    }
}

impl SetupArgs {
    /// The set-up with that many inner steps; 0 takes the set-up's.
    ///
    /// # Errors
    /// If there is no such set-up.
    pub fn problem(&self, steps: usize) -> Result<Problem> {
        let setup = Setup::parse(&self.setup, self.bn)?;
        let steps = or(steps, setup.steps);
        Ok(Problem {
            steps,
            rows: or(self.batches, steps).min(steps),
            batch: or(self.batch, setup.batch),
            data: self.data,
            learners: self.learners,
            dtype: match self.dtype {
                FloatKind::F32 => DType::F32,
                FloatKind::F64 => DType::F64,
            },
            optimizer: self.optimizer.into(),
            setup,
        })
    }

    /// The settings that differ from the defaults, in words for a file name: `at-once-4`. Those that name the
    /// set-up and its batches in turn are left out.
    ///
    /// # Errors
    /// If there is no such set-up.
    pub(super) fn variant(&self) -> Result<Vec<String>> {
        let own = Setup::parse(&self.setup, self.bn)?.batch;
        let batch = or(self.batch, own);
        let words = [
            (batch != own).then(|| format!("batch-{batch}")),
            (self.learners > 1).then(|| format!("at-once-{}", self.learners)),
            self.bn.then(|| "bn".to_owned()),
            (self.dtype != FloatKind::default()).then(|| name_of(&self.dtype)),
            (self.optimizer != OptimizerKind::default()).then(|| name_of(&self.optimizer)),
        ];
        Ok(words.into_iter().flatten().collect())
    }

    /// All of them by name, for a record.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "setup": self.setup, "batches": self.batches, "batch": self.batch, "data": self.data.name(),
            "optimizer": name_of(&self.optimizer), "at_once": self.learners, "bn": self.bn, "dtype": name_of(&self.dtype),
        })
    }

    /// Refuses what peers are not told of.
    ///
    /// # Errors
    /// If that is given.
    pub(super) fn suit_peers(&self) -> Result<()> {
        let other = [
            ("--batches", self.batches > 0),
            ("--at-once", self.learners > 1),
            ("--optimizer", self.optimizer != OptimizerKind::default()),
        ];
        let Some((flag, _)) = other.into_iter().find(|(_, given)| *given) else {
            return Ok(());
        };
        let why = format!(
            "peers train one learner by momentum and take every batch once, so {flag} cannot be given"
        );
        Err(Error::usage(why).hint("a sweep without --beside and --peers"))
    }

    /// Passes them on to another process of this program.
    pub(super) fn pass(&self, command: &mut std::process::Command) {
        flag(command, "--setup", &self.setup);
        flag(command, "--batches", &self.batches);
        flag(command, "--batch", &self.batch);
        flag(command, "--data", &self.data.name());
        flag(command, "--optimizer", &name_of(&self.optimizer));
        flag(command, "--at-once", &self.learners);
        flag(command, "--dtype", &name_of(&self.dtype));
        if self.bn {
            command.arg("--bn");
        }
    }
}

impl MetaGradArgs {
    fn horizon(&self, problem: &Problem) -> Horizon {
        let folder = self.snapshot_dir.clone();
        Horizon::new(problem.steps)
            .schedule(self.engine.schedule)
            .segments(self.engine.segments)
            .mode(self.engine.mode.into())
            .on_disk(self.on_disk, folder.unwrap_or_else(std::env::temp_dir))
            .in_host(self.in_host)
    }

    fn loaded(&self, device: &Device, problem: &Problem) -> Result<Values> {
        check_values(device, &problem.training())?;
        let arrays = match &self.init {
            Some(path) => read_safetensors(path).map_err(Error::data)?.0,
            None => problem.fresh(0)?,
        };
        problem.load(device, &arrays)
    }
}

/// What was measured; the keys of the JSON object.
#[derive(Debug, Serialize)]
struct Report {
    setup: String,
    data: &'static str,
    optimizer: &'static str,
    bn: bool,
    steps: usize,
    batches: usize,
    batch: usize,
    learners: usize,
    mode: ModeName,
    schedule: String,
    segments: usize,
    evaluations: u64,
    dtype: String,
    device: String,
    /// How a GPU multiplied.
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<&'static str>,
    threads: usize,
    repeats: usize,
    /// See [`planned`].
    plan_s: f64,
    median_s: f64,
    min_s: f64,
    /// The median, for each learner.
    learner_median_s: f64,
    forecast_bytes: usize,
    peak_bytes: usize,
    /// Of the peak, for each learner.
    learner_peak_bytes: usize,
    peak_process_bytes: usize,
    disk_bytes: usize,
    flops: u64,
    gflops: f64,
    loss: f64,
    meta_grad_norm: f64,
    meta_grad_sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cotangent_norms: Option<Vec<f64>>,
}

/// Makes a training ready to run, and gives the seconds that this took: to record, differentiate, plan and
/// compile, and to allocate memory.
pub(super) fn planned(
    device: &Device,
    training: &Training<'_>,
    horizon: &Horizon,
) -> autograd::Result<(f64, Unroll)> {
    let begin = Instant::now();
    let unroll = Unroll::new(device, training, horizon)?;
    Ok((begin.elapsed().as_secs_f64(), unroll))
}

/// Sorted seconds of every repeat except the first, which warms up; and the meta-loss.
pub(super) fn timed(repeats: u64, unroll: &mut Unroll, values: &Values) -> Result<(Vec<f64>, f64)> {
    let mut seconds = Vec::new();
    let mut loss = 0.0;
    for _ in 0..repeats + u64::from(repeats > 1) {
        let begin = Instant::now();
        loss = unroll.gradient(values)?.total();
        seconds.push(begin.elapsed().as_secs_f64());
    }
    if seconds.len() > 1 {
        seconds.remove(0);
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds, loss))
}

/// The norm of a gradient, and a hash of its bits.
fn fingerprint(gradient: &Arrays) -> (f64, String) {
    let mut hash = Sha256::new();
    gradient
        .values()
        .for_each(|array| hash.update(array.bytes()));
    let hex = |text: String, byte: &u8| format!("{text}{byte:02x}");
    let numbers = gradient.values().flat_map(Array::to_f64_vec);
    let squares: f64 = numbers.map(|v| v * v).sum();
    (
        squares.sqrt(),
        hash.finalize().iter().fold(String::new(), hex),
    )
}

/// The norms of the cotangents, from one more meta-gradient.
fn cotangents(unroll: &mut Unroll, values: &Values) -> Result<CotangentNorms> {
    unroll.watch_cotangents(true);
    unroll.gradient(values)?;
    Ok(unroll.cotangent_norms().cloned().unwrap_or_default())
}

/// About how many lines of cotangent norms are printed; steps between them are left out.
const LINES: usize = 20;

fn show_cotangents(norms: &CotangentNorms) {
    let last = norms.norms().len().saturating_sub(1);
    let every = (last / LINES).max(1);
    say("Length of the cotangent of the weights before each inner step, from the last back:");
    for (step, norm) in norms.norms().iter().enumerate().rev() {
        if (last - step).is_multiple_of(every) || step == 0 {
            say(&format!("{step:>6} {norm:.4e}"));
        }
    }
    if let Some(trouble) = norms.trouble(Trouble::FACTOR) {
        say(&trouble.to_string());
    }
}

pub(super) fn run(args: &MetaGradArgs) -> Result<Outcome> {
    let problem = args.setup.problem(args.steps)?;
    let device = args.conditions.machine.device()?;
    let values = args.loaded(&device, &problem)?;

    let (resident, held) = (Resident::reset(), device.held_bytes());
    device.reset_peak();
    let horizon = args.horizon(&problem);
    let (plan_s, mut unroll) = planned(&device, &problem.training(), &horizon)?;
    if args.plans {
        for Phase { name, plan, .. } in unroll.phases() {
            say(&format!("{name}\n{plan}\n"));
        }
    }
    let (seconds, loss) = timed(args.conditions.repeats, &mut unroll, &values)?;
    let (peak_bytes, peak_process_bytes) = (device.peak_bytes() - held, resident.peak());

    let gradient = problem.gradient(&unroll)?;
    let cotangents = args.cotangents.then(|| cotangents(&mut unroll, &values));
    let cotangents = cotangents.transpose()?;
    let (meta_grad_norm, meta_grad_sha256) = fingerprint(&gradient);
    if let Some(path) = &args.dump {
        let mut all = gradient;
        all.insert("loss".into(), Array::scalar(loss, problem.dtype));
        write_safetensors(path, &all, &Metadata::new()).map_err(Error::run)?;
    }
    let (forecast, median_s) = (unroll.forecast(), seconds[seconds.len() / 2]);
    let report = Report {
        setup: problem.setup.name.to_string(),
        data: problem.data.name(),
        optimizer: problem.optimizer.name(),
        bn: args.setup.bn,
        steps: problem.steps,
        batches: problem.rows,
        batch: problem.batch,
        learners: args.setup.learners,
        mode: args.engine.mode,
        schedule: unroll.schedule().to_string(),
        segments: unroll.segments(),
        evaluations: forecast.evaluations,
        dtype: problem.dtype.to_string(),
        device: device.name().to_string(),
        precision: device
            .as_cuda()
            .map(|_| args.conditions.machine.precision.name()),
        threads: device.threads(),
        repeats: seconds.len(),
        plan_s,
        median_s,
        min_s: seconds[0],
        learner_median_s: median_s / args.setup.learners as f64,
        forecast_bytes: forecast.bytes,
        peak_bytes,
        learner_peak_bytes: peak_bytes / args.setup.learners,
        peak_process_bytes,
        disk_bytes: forecast.disk_bytes,
        flops: forecast.flops,
        gflops: forecast.flops as f64 / median_s / 1e9,
        loss,
        meta_grad_norm,
        meta_grad_sha256,
        cotangent_norms: cotangents.as_ref().map(|norms| norms.norms().to_vec()),
    };
    report.show(&forecast);
    if let Some(norms) = &cotangents {
        show_cotangents(norms);
    }
    args.conditions.machine.print(&report)?;
    Ok(Outcome::Done)
}

impl Report {
    fn show(&self, forecast: &Forecast) {
        say(&format!(
            "{} {} T={} B={}: {:.4} s (min {:.4}), planned in {:.4} s, {:.1} GFLOP/s; {forecast}; loss {:.6}",
            self.setup,
            self.schedule,
            self.steps,
            self.batch,
            self.median_s,
            self.min_s,
            self.plan_s,
            self.gflops,
            self.loss
        ));
        if self.learners > 1 {
            say(&format!(
                "{} learners: {:.4} s and {:.1} MiB each",
                self.learners,
                self.learner_median_s,
                self.learner_peak_bytes as f64 / f64::from(1 << 20)
            ));
        }
    }
}
