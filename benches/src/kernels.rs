//! `benches kernels`: how fast single kernels are, in the shapes of set-up B, and what share of the device's
//! measured peak that is. The peak is of arithmetic (on the processor multiply-adds in registers, on a GPU a
//! large matrix product) or of memory (a copy or sum of as many bytes, which then lie in the same cache).
//!
//! FLOPs are those of the definition. The processor computes 3×3 convolutions with fewer multiplications (Winograd's,
//! at most 2.25 times fewer), so their share may exceed 100 %.

use ::kernels::{
    Binary, Buffer, Conv, ConvKind, Device, Float, Instr, Kernel, Load, Map, MatMul, Operand, Pair,
    Program, Slot, Step, Store, StoreKind, Unary, View, Window, WindowKind,
};
use gtn::cli::{Machine, Outcome, say};
use gtn::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tensor::{Array, DType};

/// Settings of `benches kernels`.
#[derive(Clone, Debug, clap::Args)]
pub struct KernelsArgs {
    /// Images of a batch
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// What `benches/torch_kernels.py` printed, to stand beside
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

/// A size that no cache holds.
const BEYOND_CACHES: u64 = 1 << 30;

/// How fast one kernel is.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    seconds: f64,
    gflops: f64,
    gbytes: f64,
    /// The share of the peak in FLOP/s or in bytes/s, whichever is greater.
    share: f64,
    /// Seconds of the same in another engine.
    beside: Option<f64>,
}

/// What another engine took.
#[derive(Debug, Deserialize)]
struct Beside {
    device: String,
    seconds: BTreeMap<String, f64>,
}

/// A program of one kernel, with a buffer per array.
#[derive(Debug)]
pub struct Single {
    program: Program,
    buffers: Vec<Buffer>,
}

impl Single {
    /// Its arrays hold random numbers: zeros take less power, so a GPU would be faster with them.
    ///
    /// # Errors
    /// If the kernel makes no sense, or there is not enough memory.
    pub fn new(device: &Device, kernel: &Kernel) -> Result<Self> {
        Self::repeated(device, kernel, 1)
    }

    /// A program that runs the kernel `times` times on the same arrays.
    fn repeated(device: &Device, kernel: &Kernel, times: usize) -> Result<Self> {
        let (inputs, outputs) = (kernel.inputs(), kernel.outputs());
        let sizes = inputs.iter().chain(&outputs).map(|(t, n)| t.size() * n);
        let sizes: Vec<usize> = sizes.chain([kernel.workspace()]).collect();
        let slot = |(i, &bytes)| Slot {
            bytes,
            writable: i >= inputs.len(),
        };
        let slots: Vec<Slot> = sizes.iter().enumerate().map(slot).collect();
        let operand = |slot| Operand { slot, offset: 0 };
        let step = Step {
            kernel: kernel.clone(),
            inputs: (0..inputs.len()).map(operand).collect(),
            outputs: (inputs.len()..slots.len() - 1).map(operand).collect(),
            workspace: Some(operand(slots.len() - 1)),
        };
        let mut buffers = Vec::new();
        for &bytes in &sizes {
            let buffer = device.alloc(bytes)?;
            // The system maps all pages that were never written to one page, which would be read too fast.
            buffer.zero(0, bytes)?;
            buffers.push(buffer);
        }
        for (buffer, &(dtype, _)) in buffers.iter().zip(&inputs) {
            fill(buffer, dtype)?;
        }
        Ok(Self {
            program: Program::new(slots, vec![step; times])?,
            buffers,
        })
    }

    /// Runs it; on a GPU, queues a run.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(&self, device: &Device) -> Result<()> {
        Ok(self.program.run(device, &self.views())?)
    }

    fn views(&self) -> Vec<View<'_>> {
        self.buffers.iter().map(|b| b.view(0, b.bytes())).collect()
    }

    fn time(&self, device: &Device) -> Result<f64> {
        timed(device, || self.run(device))
    }

    /// Seconds that the kernel takes, without the overhead of a program's run: the median of laps over about
    /// `seconds` seconds of runs.
    ///
    /// # Errors
    /// If the device fails.
    pub fn lap(device: &Device, kernel: &Kernel, seconds: f64) -> Result<f64> {
        let many = Self::repeated(device, kernel, 16)?;
        let begin = Instant::now();
        let mut times = Vec::new();
        // The first run warms up.
        while times.len() < 3 || begin.elapsed().as_secs_f64() < seconds {
            times.push(many.program.time(device, &many.views())?);
        }
        let laps = times[1..].iter().flatten();
        let mut laps: Vec<_> = laps.map(|lap| lap.time).collect();
        laps.sort_unstable();
        Ok(laps[laps.len() / 2].as_secs_f64())
    }
}

/// Fills a buffer with random numbers: floats from -1 to 1, and integers below 4, which are places in a 2×2
/// window. They repeat every 2¹⁸ numbers.
fn fill(buffer: &Buffer, dtype: DType) -> Result<()> {
    const DISTINCT: usize = 1 << 18;
    let range = if dtype.is_float() {
        [-1.0, 1.0]
    } else {
        [0.0, 4.0]
    };
    let numbers = Array::uniform(dtype, [DISTINCT], range, 0);
    let numbers = numbers.bytes();
    for offset in (0..buffer.bytes()).step_by(numbers.len()) {
        let count = numbers.len().min(buffer.bytes() - offset);
        buffer.write(offset, &numbers[..count])?;
    }
    Ok(())
}

/// Seconds of one run: the least of a few series, each long enough to be timed.
fn timed(device: &Device, run: impl Fn() -> Result<()>) -> Result<f64> {
    let series = |count: u32| -> Result<f64> {
        device.wait()?;
        let start = Instant::now();
        (0..count).try_for_each(|_| run())?;
        device.wait()?;
        Ok(start.elapsed().as_secs_f64() / f64::from(count))
    };
    series(1)?;
    let once = series(2)?;
    let count = (0.05 / once).clamp(1.0, 1000.0) as u32;
    (0..5)
        .map(|_| series(count))
        .try_fold(f64::INFINITY, |least, time| Ok(time?.min(least)))
}

/// An f32 operand of a map.
pub fn load(strides: &[usize]) -> Load {
    Load {
        dtype: DType::F32,
        strides: strides.to_vec(),
    }
}

/// An element-wise program in f32; each store has the number of the instruction that makes its value.
pub fn map(
    extents: &[usize],
    loads: Vec<Load>,
    code: Vec<Instr>,
    stores: Vec<(usize, StoreKind)>,
) -> Kernel {
    let store = |(value, kind)| Store {
        value,
        dtype: DType::F32,
        kind,
    };
    Kernel::Map(Map {
        float: Float::F32,
        extents: extents.to_vec(),
        loads,
        code,
        stores: stores.into_iter().map(store).collect(),
    })
}

fn copy(count: usize) -> Kernel {
    map(
        &[count],
        vec![load(&[1])],
        vec![Instr::Load(0)],
        vec![(0, StoreKind::Full)],
    )
}

/// A product \[m, k\]·\[k, n\] in f32, of transposed operands where asked.
pub fn matmul([m, n, k]: [usize; 3], [transpose_a, transpose_b]: [bool; 2]) -> Kernel {
    Kernel::MatMul(MatMul {
        float: Float::F32,
        batch: 1,
        m,
        n,
        k,
        transpose_a,
        transpose_b,
        accumulate: false,
    })
}

/// A dense layer's product: weights are \[units, inputs\].
fn dense(m: usize, n: usize, k: usize) -> Kernel {
    matmul([m, n, k], [false, true])
}

/// A convolution of n square images from c to out channels in f32, with \[window, stride, pad\] alike along both axes.
pub fn conv(
    kind: ConvKind,
    n: usize,
    [side, c, out]: [usize; 3],
    [window, stride, pad]: [usize; 3],
) -> Kernel {
    Kernel::Conv(Conv {
        float: Float::F32,
        kind,
        batch: 1,
        n,
        h: side,
        w: side,
        c,
        out,
        window: [window; 2],
        stride: [stride; 2],
        pad: [pad; 4],
        accumulate: false,
    })
}

/// A layer's convolution: 3×3 with a border of zeros.
fn layer(kind: ConvKind, n: usize, side: usize, c: usize, out: usize) -> Kernel {
    conv(kind, n, [side, c, out], [3, 1, 1])
}

/// The generator's convolution, which upsamples images as the transpose with respect to the input: 4×4, step 2.
fn upsample(kind: ConvKind, n: usize, side: usize, c: usize, out: usize) -> Kernel {
    conv(kind, n, [side, c, out], [4, 2, 1])
}

/// The sum of two such contractions: the tangent of one.
fn pair(kernel: Kernel) -> Kernel {
    kernel.paired().unwrap_or(kernel)
}

/// The end of a batch norm: scale, shift, leaky rectifier.
fn normalise(pixels: usize, c: usize) -> Kernel {
    let code = vec![
        Instr::Load(0),
        Instr::Load(1),
        Instr::Binary(Binary::Mul, 0, 1),
        Instr::Load(2),
        Instr::Binary(Binary::Add, 2, 3),
        Instr::constant(0.1),
        Instr::Binary(Binary::Mul, 4, 5),
        Instr::Binary(Binary::Max, 4, 6),
    ];
    let loads = vec![load(&[c, 1]), load(&[0, 1]), load(&[0, 1])];
    map(&[pixels, c], loads, code, vec![(7, StoreKind::Full)])
}

fn sum(extents: [usize; 2], flags: [bool; 2]) -> Kernel {
    let code = vec![Instr::Load(0), Instr::Unary(Unary::PowI(2), 0)];
    let loads = vec![load(&[extents[1], 1])];
    let stores = vec![(1, StoreKind::Sum(flags.to_vec()))];
    map(&extents, loads, code, stores)
}

/// Pooling of 28×28 images by halves.
pub fn pool(kind: WindowKind, n: usize, c: usize) -> Kernel {
    let window = Window {
        float: Float::F32,
        kind,
        n,
        h: 28,
        w: 28,
        c,
        window: [2, 2],
        stride: [2, 2],
        pad: [0; 4],
    };
    Kernel::Window(window)
}

fn all(n: usize) -> Vec<(&'static str, Kernel)> {
    use ConvKind::{Forward, Input, Weight};
    let pixels = n * 28 * 28;
    vec![
        ("matmul 128 x 1024 x 6272", dense(n, 6272, 1024)),
        ("matmul 128 x 74 x 1024", dense(n, 1024, 74)),
        ("matmul 128 x 128 x 10", dense(n, 10, 128)),
        ("pair 128 x 784 x 128", pair(dense(n, 128, 784))),
        ("pair 128 x 3136 x 128", pair(dense(n, 128, 3136))),
        (
            "matmul 128 x 6272 x 1024 nn",
            matmul([n, 1024, 6272], [false, false]),
        ),
        (
            "matmul 6272 x 128 x 1024 tn",
            matmul([6272, 1024, n], [true, false]),
        ),
        ("conv 28 x 28, 1 to 64", layer(Forward, n, 28, 1, 64)),
        ("conv 28 x 28, 128 to 64", layer(Forward, n, 28, 128, 64)),
        ("conv 14 x 14, 64 to 128", layer(Forward, n, 14, 64, 128)),
        ("conv-input 14 x 14", layer(Input, n, 14, 64, 128)),
        ("conv-weight 14 x 14", layer(Weight, n, 14, 64, 128)),
        ("pair conv 14 x 14", pair(layer(Forward, n, 14, 64, 128))),
        ("conv-input 28 x 28, 64 to 1", layer(Input, n, 28, 1, 64)),
        ("pair conv-input 64 to 1", pair(layer(Input, n, 28, 1, 64))),
        ("conv-input 28 x 28, 64 to 3", layer(Input, n, 28, 3, 64)),
        ("conv-weight 28 x 28, 1 to 64", layer(Weight, n, 28, 1, 64)),
        ("conv step 2, 64 to 128", upsample(Forward, n, 14, 64, 128)),
        (
            "conv-input step 2, 128 to 64",
            upsample(Input, n, 14, 64, 128),
        ),
        (
            "conv-weight step 2, 64, 128",
            upsample(Weight, n, 14, 64, 128),
        ),
        ("conv-input step 2, 64 to 1", upsample(Input, n, 28, 1, 64)),
        ("conv-weight step 2, 1, 64", upsample(Weight, n, 28, 1, 64)),
        ("scale, shift, leaky ReLU", normalise(pixels, 64)),
        ("sum of columns", sum([pixels, 64], [true, false])),
        ("sum of rows", sum([pixels, 64], [false, true])),
        ("sum of classes", sum([64 * n, 10], [false, true])),
        ("pool argmax", pool(WindowKind::ArgMax, n, 64)),
        ("pool gather", pool(WindowKind::Gather, n, 64)),
        ("pool scatter", pool(WindowKind::Scatter, n, 64)),
    ]
}

/// The peak FLOP/s, measured.
fn peak_flops(device: &Device) -> Result<f64> {
    const ROUNDS: u64 = 1 << 16;
    if let Some(cpu) = device.as_cpu() {
        let flops = cpu.multiply_add(ROUNDS);
        let run = || {
            cpu.multiply_add(ROUNDS);
            Ok(())
        };
        return Ok(flops as f64 / timed(device, run)?);
    }
    let square = dense(4096, 4096, 4096);
    Ok(square.flops() as f64 / Single::new(device, &square)?.time(device)?)
}

/// The peak bytes/s, measured on kernels that move about `bytes` bytes.
fn peak_bytes(device: &Device, bytes: u64) -> Result<f64> {
    let count = (bytes as usize / 8).max(1);
    let mut most = 0.0_f64;
    for kernel in [copy(count), sum([1, 2 * count], [true, true])] {
        let seconds = Single::new(device, &kernel)?.time(device)?;
        most = most.max(kernel.bytes() as f64 / seconds);
    }
    Ok(most)
}

/// Floating-point operations by the definition, without those on a convolution's border of zeros.
fn work(kernel: &Kernel) -> f64 {
    let (Kernel::Conv(conv) | Kernel::ConvPair(Pair(conv))) = kernel else {
        return kernel.flops() as f64;
    };
    let inside = |size: usize, out: usize, axis: usize| {
        let (window, stride, pad) = (conv.window[axis], conv.stride[axis], conv.pad[2 * axis]);
        let taps = (0..out * window).map(|i| i / window * stride + i % window);
        let inside = taps.filter(|tap| (pad..pad + size).contains(tap)).count();
        inside as f64 / (out * window) as f64
    };
    let share = inside(conv.h, conv.out_h(), 0) * inside(conv.w, conv.out_w(), 1);
    share * kernel.flops() as f64
}

fn read_beside(path: &Path) -> Result<Beside> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, &e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::data(format!("not of torch_kernels.py: {e}")).at(path.display()))
}

fn show(row: &Row) {
    let beside = row.beside.map_or(String::new(), |seconds| {
        format!("{:>10.1} us {:>5.2}x", seconds * 1e6, seconds / row.seconds)
    });
    say(&format!(
        "{:<28} {:>10.1} us {:>9.0} GFLOP/s {:>8.1} GB/s {:>5.0} %{beside}",
        row.name,
        row.seconds * 1e6,
        row.gflops,
        row.gbytes,
        100.0 * row.share
    ));
}

/// Measures all kernels, and prints a line for each.
pub(super) fn run(args: &KernelsArgs) -> Result<Outcome> {
    let beside = args.beside.as_deref().map(read_beside).transpose()?;
    let kernels = all(args.batch as usize);
    if let Some(beside) = &beside {
        let known = |name: &String| kernels.iter().any(|(known, _)| known == name);
        if let Some(name) = beside.seconds.keys().find(|name| !known(name)) {
            return Err(Error::data(format!("no kernel is called `{name}`")));
        }
    }
    let device = args.machine.device()?;
    if let Some(beside) = &beside {
        say(&format!("Beside: {}", beside.device));
    }
    let flops = peak_flops(&device)?;
    say(&format!("Ceiling: {:.0} GFLOP/s", flops / 1e9));
    let far = peak_bytes(&device, BEYOND_CACHES)?;
    say(&format!(
        "Ceiling: {:.1} GB/s, beyond all caches",
        far / 1e9
    ));
    let mut rows = Vec::new();
    for (name, kernel) in kernels {
        let seconds = Single::new(&device, &kernel)?.time(&device)?;
        let (flop, bytes) = (kernel.flops() as f64, kernel.bytes() as f64);
        let near = peak_bytes(&device, kernel.bytes())?;
        let row = Row {
            name,
            seconds,
            gflops: flop / seconds / 1e9,
            gbytes: bytes / seconds / 1e9,
            share: (work(&kernel) / seconds / flops).max(bytes / seconds / near),
            beside: beside.as_ref().and_then(|b| b.seconds.get(name).copied()),
        };
        show(&row);
        rows.push(row);
    }
    let ceilings = [flops / 1e9, far / 1e9];
    args.machine
        .print(&serde_json::json!({ "ceilings": ceilings, "rows": rows }))?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_is_no_work() {
        // Along an axis of 14, two of 14 · 3 taps lie outside.
        let padded = layer(ConvKind::Forward, 2, 14, 3, 5);
        let inside = (40.0 / 42.0_f64).powi(2);
        assert!((work(&padded) / padded.flops() as f64 - inside).abs() < 1e-12);
    }
}
