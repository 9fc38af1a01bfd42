//! `benches depth`: the meta-gradient of a deep learner in four ways, from everything stored to
//! recomputation inside a step.
//!
//! A residual perceptron with two products per block takes T steps of SGD, with a learned rate for every
//! parameter (Meta-SGD, Li et al. 2017). `benches/peers/depth_jax.py` computes the same from the same numbers.

use crate::conditions::Conditions;
use crate::meta_grad::{planned, timed};
use crate::resident::Resident;
use autograd::optim::Optimizer;
use autograd::{ArraySpec, Forecast, Horizon, Mode, Schedule, Training, Values, Var};
use gtn::cli::{Outcome, say};
use gtn::error::{Error, Result};
use gtn::run::memory::check_values;
use gtn::run::values::count;
use kernels::Device;
use serde::Serialize;
use tensor::{Array, DType, Shape};

/// Settings of `benches depth`.
#[derive(Clone, Debug, clap::Args)]
pub struct DepthArgs {
    /// Residual blocks, with two products each
    #[arg(long, default_value_t = 64, value_parser = count())]
    pub blocks: usize,
    /// Width of the learner
    #[arg(long, default_value_t = 128, value_parser = count())]
    pub width: usize,
    /// Inner and outer batch
    #[arg(long, default_value_t = 1024, value_parser = count())]
    pub batch: usize,
    /// Inner steps T
    #[arg(long, default_value_t = 2, value_parser = count())]
    pub steps: usize,
    /// Segments that a step's gradient is cut into in the last column
    #[arg(long, default_value_t = 16, value_parser = count())]
    pub segments: usize,
    /// Only these columns, counted from 1: reverse over reverse stored, with step checkpoint, forward over
    /// reverse with step checkpoint, and in segments
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=4))]
    pub columns: Vec<u8>,
    /// Where and how often
    #[command(flatten)]
    pub conditions: Conditions,
}

/// A learner and how long it trains.
#[derive(Clone, Copy, Debug)]
struct Deep {
    blocks: usize,
    width: usize,
    batch: usize,
    steps: usize,
}

const DTYPE: DType = DType::F32;
/// The rate that every parameter starts with.
const RATE: f64 = 0.01;

impl Deep {
    fn specs(self, kind: &str) -> Vec<ArraySpec> {
        let spec =
            |i: usize| ArraySpec::new(format!("{kind} {i}"), DTYPE, [self.width, self.width]);
        (0..2 * self.blocks).map(spec).collect()
    }

    /// A batch for each of some steps.
    fn data(self, names: [&str; 2], steps: usize) -> [ArraySpec; 2] {
        names.map(|name| ArraySpec::new(name, DTYPE, [steps, self.batch, self.width]))
    }

    fn training(self) -> Training<'static> {
        Training::new(Optimizer::Sgd)
            .weights(self.specs("weight"))
            .learned_list("rates", self.specs("rate"))
            .given(self.data(["x", "y"], self.steps))
            .given(self.data(["x_outer", "y_outer"], 1))
            .per_step(["x", "y"])
            .per_outer(["x_outer", "y_outer"])
            .hyper("lr", |s, weight| Ok(s.list("rates")[weight]))
            .loss(|s| loss(s.weights(), s["x"], s["y"]))
            .outer(|s| loss(s.weights(), s["x_outer"], s["y_outer"]))
    }

    /// Starting values that any program can reproduce, scaled so that activations keep their size.
    fn load(self, device: &Device) -> Result<Values> {
        check_values(device, &self.training())?;
        let mut values = Values::zeros(device, &[])?;
        for spec in self.specs("rate") {
            values.set(&spec.name, &Array::full(DTYPE, spec.shape, RATE))?;
        }
        for (i, spec) in self.specs("weight").into_iter().enumerate() {
            let scale = if i % 2 == 0 {
                (2.0 / self.width as f64).sqrt()
            } else {
                (1.0 / (self.width * self.blocks) as f64).sqrt()
            };
            values.set(&spec.name, &noise(&spec.shape, i, scale)?)?;
        }
        let inner = (self.data(["x", "y"], self.steps), 1000, self.steps);
        let outer = (self.data(["x_outer", "y_outer"], 1), 2000, 1);
        for (specs, first, steps) in [inner, outer] {
            for (field, spec) in specs.into_iter().enumerate() {
                let row: Shape = spec.shape[1..].into();
                values.reserve(spec.clone())?;
                for step in 0..steps {
                    let numbers = noise(&row, first + 2 * step + field, 1.0)?;
                    values.set_row(&spec.name, step, &numbers)?;
                }
            }
        }
        Ok(values)
    }
}

/// Uniform numbers of variance scale² from the mixed bits of (seed, index) (`SplitMix64`, Steele et al. 2014).
fn noise(shape: &Shape, seed: usize, scale: f64) -> Result<Array> {
    let value = |i: usize| {
        let mut z = ((seed as u64) << 32 | i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let unit = ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24);
        (12f64.sqrt() * scale * (unit - 0.5)) as f32
    };
    let values: Vec<f32> = (0..shape.count()).map(value).collect();
    Ok(Array::new(shape.clone(), values)?)
}

/// x ← x + relu(x·V)·W for each block; the mean squared error.
fn loss<'t>(theta: &[Var<'t>], mut x: Var<'t>, y: Var<'t>) -> autograd::Result<Var<'t>> {
    for block in theta.chunks(2) {
        x = (x + x.matmul(block[0])?.relu()?.matmul(block[1])?)?;
    }
    let error = (x - y)?;
    (error * error)?.mean_all()
}

/// What was measured of a column; keys of the JSON object.
#[derive(Debug, Serialize)]
struct Column {
    number: u8,
    name: &'static str,
    mode: &'static str,
    schedule: String,
    segments: usize,
    plan_s: f64,
    median_s: f64,
    min_s: f64,
    arena_bytes: usize,
    forecast_bytes: usize,
    peak_bytes: usize,
    peak_process_bytes: usize,
    flops: u64,
    loss: f64,
    rate_grad_norm: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    blocks: usize,
    width: usize,
    batch: usize,
    steps: usize,
    dtype: String,
    device: String,
    threads: usize,
    repeats: u64,
    columns: Vec<Column>,
}

pub(super) const NAMES: [&str; 4] = [
    "stored reverse over reverse",
    "+ step checkpoint",
    "forward over reverse + step checkpoint",
    "+ block remat",
];

impl DepthArgs {
    /// The columns asked for, or all. The leanest comes first: memory that a process once took would hide
    /// what a leaner column takes after it.
    pub(super) fn columns(&self) -> Vec<u8> {
        if self.columns.is_empty() {
            vec![4, 3, 2, 1]
        } else {
            self.columns.clone()
        }
    }

    fn deep(&self) -> Deep {
        Deep {
            blocks: self.blocks,
            width: self.width,
            batch: self.batch,
            steps: self.steps,
        }
    }

    fn horizon(&self, column: u8) -> Horizon {
        let horizon = Horizon::new(self.steps);
        match column {
            1 => horizon.mode(Mode::Reverse).schedule(Schedule::store_all()),
            2 => horizon.mode(Mode::Reverse),
            3 => horizon,
            _ => horizon.segments(self.segments),
        }
    }

    fn measure(&self, device: &Device, values: &Values, column: u8) -> Result<Column> {
        let horizon = self.horizon(column);
        // Plans once before measuring, so that memory taken for planning is not counted. For other engines,
        // compilation is not counted either.
        Forecast::new(&self.deep().training(), &horizon)?;
        let (resident, held) = (Resident::reset(), device.held_bytes());
        device.reset_peak();
        let (plan_s, mut unroll) = planned(device, &self.deep().training(), &horizon)?;
        let (seconds, loss) = timed(self.conditions.repeats, &mut unroll, values)?;
        let (peak_bytes, peak_process_bytes) = (device.peak_bytes() - held, resident.peak());
        let gradient = unroll.gradients().to_arrays()?;
        let numbers = gradient.values().flat_map(Array::to_f64_vec);
        let squares: f64 = numbers.map(|v| v * v).sum();
        let forecast = unroll.forecast();
        if peak_bytes != forecast.bytes {
            let forecast = forecast.bytes;
            let message = format!("{peak_bytes} bytes were taken, {forecast} forecast");
            return Err(Error::engine(message));
        }
        Ok(Column {
            number: column,
            name: NAMES[usize::from(column) - 1],
            mode: if column > 2 { "mixed" } else { "reverse" },
            schedule: unroll.schedule().to_string(),
            segments: unroll.segments(),
            plan_s,
            median_s: seconds[seconds.len() / 2],
            min_s: seconds[0],
            arena_bytes: forecast.arena_bytes,
            forecast_bytes: forecast.bytes,
            peak_bytes,
            peak_process_bytes,
            flops: forecast.flops,
            loss,
            rate_grad_norm: squares.sqrt(),
        })
    }
}

pub(super) fn run(args: &DepthArgs) -> Result<Outcome> {
    let device = args.conditions.machine.device()?;
    let values = args.deep().load(&device)?;
    let mut columns = Vec::new();
    for column in args.columns() {
        let measured = args.measure(&device, &values, column)?;
        measured.show();
        columns.push(measured);
    }
    args.conditions.machine.print(&Report {
        blocks: args.blocks,
        width: args.width,
        batch: args.batch,
        steps: args.steps,
        dtype: DTYPE.to_string(),
        device: device.name().to_string(),
        threads: device.threads(),
        repeats: args.conditions.repeats,
        columns,
    })?;
    Ok(Outcome::Done)
}

impl Column {
    fn show(&self) {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        say(&format!(
            "{} ({}, {} segments): {:.3} s (min {:.3}), planned in {:.3} s, {:.1} MiB (arena {:.1}; process {:.1}), {:.1} GFLOP; \
             loss {:.6}, rate gradient {:.6e}",
            self.name,
            self.schedule,
            self.segments,
            self.median_s,
            self.min_s,
            self.plan_s,
            mib(self.forecast_bytes),
            mib(self.arena_bytes),
            mib(self.peak_process_bytes),
            self.flops as f64 / 1e9,
            self.loss,
            self.rate_grad_norm
        ));
    }
}
