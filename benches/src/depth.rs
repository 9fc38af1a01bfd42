//! `benches depth`: the meta-gradient of a deep learner in four ways, from everything stored to
//! recomputation inside a step.
//!
//! A residual perceptron with two products per block takes T steps of SGD, with a learned rate for every
//! parameter (Meta-SGD, Li et al. 2017). `benches/peers/depth_jax.py` computes the same from the same numbers.

use crate::conditions::Conditions;
use crate::meta_grad::timed;
use crate::resident::Resident;
use anyhow::{Result, ensure};
use autograd::optim::Optimizer;
use autograd::{
    Forecast, Given, Horizon, Mode, Port, Records, Row, Schedule, Scope, Training, Unroll, Var,
};
use gtn::cli::Outcome;
use kernels::Device;
use serde::Serialize;
use tensor::{Array, DType, Shape};

/// Settings of `benches depth`.
#[derive(Clone, Debug, clap::Args)]
pub struct DepthArgs {
    /// Residual blocks, with two products each
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub blocks: usize,
    /// Width of the learner
    #[arg(long, default_value_t = 128, value_parser = at_least_one)]
    pub width: usize,
    /// Inner and outer batch
    #[arg(long, default_value_t = 1024, value_parser = at_least_one)]
    pub batch: usize,
    /// Inner steps T
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub steps: usize,
    /// Segments that a step's gradient is cut into in the last column
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub segments: usize,
    /// Only these columns, counted from 1: reverse over reverse stored, with step checkpoint, forward over
    /// reverse with step checkpoint, and in segments
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=4))]
    pub columns: Vec<u8>,
    /// Where and how often
    #[command(flatten)]
    pub conditions: Conditions,
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=1 << 20).contains(n));
    number.ok_or_else(|| "a number from 1 to 1048576 is needed".to_owned())
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
    fn training(self) -> Training<'static> {
        let port = |name: String, rows: usize| Port {
            name,
            dtype: DTYPE,
            shape: [rows, self.width].into(),
        };
        let weights = |kind: &str| -> Vec<Port> {
            let named = |i: usize| port(format!("{kind} {i}"), self.width);
            (0..2 * self.blocks).map(named).collect()
        };
        let data = || ["x", "y"].map(|name| port(name.into(), self.batch));
        let given = |port| Row {
            port,
            learned: false,
        };
        Training {
            theta: weights("weight"),
            buffers: Vec::new(),
            shared: weights("rate"),
            rows: data().map(given).into(),
            outer_rows: data().into(),
            optimizer: Optimizer::Sgd,
            precondition: Some(Box::new(|i, gradient, rates| rates[i] * gradient)),
            prepare: Box::new(|_, rates| Ok(rates.to_vec())),
            loss: Box::new(|scope: Scope<'_, '_>| Ok((loss(scope.theta, scope.rows)?, Vec::new()))),
            outer: Box::new(|scope: Scope<'_, '_>| loss(scope.theta, scope.rows)),
        }
    }

    /// Numbers that any program can make, scaled so that activations keep their size.
    fn records(
        self,
        device: &Device,
        ports: &[Port],
        first: usize,
        count: usize,
    ) -> Result<Records> {
        let records = Records::new(device, ports.to_vec(), count)?;
        for record in 0..count {
            for (field, port) in ports.iter().enumerate() {
                let seed = first + record * ports.len() + field;
                let scale = match port.name.split(' ').next() {
                    Some("weight") if field % 2 == 0 => (2.0 / self.width as f64).sqrt(),
                    Some("weight") => (1.0 / (self.width * self.blocks) as f64).sqrt(),
                    _ => 1.0,
                };
                records.set(record, field, &noise(&port.shape, seed, scale)?)?;
            }
        }
        Ok(records)
    }

    fn load(self, device: &Device) -> Result<Loaded> {
        let training = self.training();
        let shared = Records::new(device, training.shared.clone(), 1)?;
        for (i, port) in training.shared.iter().enumerate() {
            shared.set(0, i, &Array::full(DTYPE, port.shape.clone(), RATE))?;
        }
        let hyper = Records::new(device, training.hyper_ports(), self.steps)?;
        for step in 0..self.steps {
            hyper.set(step, 0, &Array::full(DTYPE, Shape::scalar(), 1.0))?;
        }
        let (start, rows) = (training.start_ports(), training.row_ports());
        Ok(Loaded {
            start: self.records(device, &start, 0, 1)?,
            shared,
            rows: self.records(device, &rows, 1000, self.steps)?,
            hyper,
            outer: self.records(device, &training.outer_rows, 2000, 1)?,
        })
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
fn loss<'t>(theta: &[Var<'t>], rows: &[Var<'t>]) -> autograd::Result<Var<'t>> {
    let mut x = rows[0];
    for block in theta.chunks(2) {
        x = (x + x.matmul(block[0])?.relu()?.matmul(block[1])?)?;
    }
    let error = (x - rows[1])?;
    (error * error)?.mean_all()
}

struct Loaded {
    start: Records,
    shared: Records,
    rows: Records,
    hyper: Records,
    outer: Records,
}

impl Loaded {
    fn given(&self) -> Given<'_> {
        Given {
            start: &self.start,
            shared: &self.shared,
            rows: &self.rows,
            hyper: &self.hyper,
            outer_rows: &self.outer,
        }
    }
}

/// What was measured of a column; keys of the JSON object.
#[derive(Debug, Serialize)]
struct Column {
    number: u8,
    name: &'static str,
    mode: &'static str,
    schedule: String,
    segments: usize,
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
    /// Those asked for, or all: the leanest first, for the process's memory of one hides that of a leaner one.
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
            1 => horizon.mode(Mode::Reverse).schedule(Schedule::StoreAll),
            2 => horizon.mode(Mode::Reverse),
            3 => horizon,
            _ => horizon.segments(self.segments),
        }
    }

    fn measure(&self, device: &Device, loaded: &Loaded, column: u8) -> Result<Column> {
        let horizon = self.horizon(column);
        // What planning takes from the system is not counted, as other engines' compilation is not.
        Forecast::new(&self.deep().training(), &horizon)?;
        let (resident, held) = (Resident::reset(), device.held_bytes());
        device.reset_peak();
        let mut unroll = Unroll::new(device, &self.deep().training(), &horizon)?;
        let (seconds, loss) = timed(self.conditions.repeats, &mut unroll, loaded.given())?;
        let (peak_bytes, peak_process_bytes) = (device.peak_bytes() - held, resident.peak());
        let gradient = unroll.shared_gradient();
        let mut squares = 0.0;
        for field in 0..gradient.ports().len() {
            let values = gradient.get(0, field)?.to_f64_vec();
            squares += values.iter().map(|v| v * v).sum::<f64>();
        }
        let forecast = unroll.forecast();
        ensure!(
            peak_bytes == forecast.bytes,
            "{peak_bytes} bytes were taken, {} forecast",
            forecast.bytes
        );
        Ok(Column {
            number: column,
            name: NAMES[usize::from(column) - 1],
            mode: if column > 2 { "mixed" } else { "reverse" },
            schedule: unroll.schedule().to_string(),
            segments: unroll.segments(),
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
    let loaded = args.deep().load(&device)?;
    let mut columns = Vec::new();
    for column in args.columns() {
        let measured = args.measure(&device, &loaded, column)?;
        measured.tell();
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
    fn tell(&self) {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        eprintln!(
            "{} ({}, {} segments): {:.3} s (min {:.3}), {:.1} MiB (arena {:.1}; process {:.1}), {:.1} GFLOP; \
             loss {:.6}, rate gradient {:.6e}",
            self.name,
            self.schedule,
            self.segments,
            self.median_s,
            self.min_s,
            mib(self.forecast_bytes),
            mib(self.arena_bytes),
            mib(self.peak_process_bytes),
            self.flops as f64 / 1e9,
            self.loss,
            self.rate_grad_norm
        );
    }
}
