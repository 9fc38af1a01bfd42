//! `gtn bench kernels`: how fast kernels are by themselves, in the shapes of set-up B, and which share that is
//! of what the device was measured to do.

use crate::device::{DeviceChoice, PrecisionChoice, choose};
use ::kernels::{
    Binary, Buffer, Conv, ConvKind, Device, Float, Instr, Kernel, Load, Map, MatMul, Operand,
    Program, Slot, Step, Store, StoreKind, Unary, Window, WindowKind,
};
use anyhow::Result;
use serde::Serialize;
use std::time::Instant;
use tensor::DType;

/// Settings of `gtn bench kernels`.
#[derive(Clone, Debug, clap::Args)]
pub struct KernelsArgs {
    /// What is measured
    #[arg(long, value_enum, default_value_t)]
    device: DeviceChoice,
    /// How an NVIDIA GPU multiplies
    #[arg(long, value_enum, default_value_t)]
    precision: PrecisionChoice,
    /// Images of a batch
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// One JSON object as the last line of standard output
    #[arg(long)]
    json: bool,
}

/// How fast one kernel is.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    seconds: f64,
    gflops: f64,
    gbytes: f64,
    /// Of the matrix product's FLOP/s or the copy's bytes/s, whichever is nearer.
    share: f64,
}

/// A program of one kernel, with a buffer per array.
#[derive(Debug)]
pub struct Single {
    program: Program,
    buffers: Vec<Buffer>,
}

impl Single {
    /// All numbers are zero: none of the kernels takes longer for others.
    ///
    /// # Errors
    /// If the kernel makes no sense, or there is not enough memory.
    pub fn new(device: &Device, kernel: &Kernel) -> Result<Self> {
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
            // Pages that were never written to are all one page, and reading them is too fast.
            buffer.zero(0, bytes)?;
            buffers.push(buffer);
        }
        Ok(Self {
            program: Program::new(slots, vec![step])?,
            buffers,
        })
    }

    /// Runs it; on a GPU, queues a run.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(&self, device: &Device) -> Result<()> {
        let views: Vec<_> = self.buffers.iter().map(|b| b.view(0, b.bytes())).collect();
        Ok(self.program.run(device, &views)?)
    }

    /// Seconds of one run: the least of a few series, each long enough to be timed.
    fn time(&self, device: &Device) -> Result<f64> {
        let series = |count: u32| -> Result<f64> {
            device.wait()?;
            let start = Instant::now();
            for _ in 0..count {
                self.run(device)?;
            }
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
}

fn f32s(strides: &[usize]) -> Load {
    Load {
        dtype: DType::F32,
        strides: strides.to_vec(),
    }
}

fn map(extents: &[usize], loads: Vec<Load>, code: Vec<Instr>, kinds: Vec<StoreKind>) -> Kernel {
    let value = code.len() - 1;
    let store = |kind| Store {
        value,
        dtype: DType::F32,
        kind,
    };
    Kernel::Map(Map {
        float: Float::F32,
        extents: extents.to_vec(),
        loads,
        code,
        stores: kinds.into_iter().map(store).collect(),
    })
}

fn copy(count: usize) -> Kernel {
    map(
        &[count],
        vec![f32s(&[1])],
        vec![Instr::Load(0)],
        vec![StoreKind::Full],
    )
}

fn matmul(m: usize, n: usize, k: usize) -> Kernel {
    Kernel::MatMul(MatMul {
        float: Float::F32,
        batch: 1,
        m,
        n,
        k,
        transpose_a: false,
        transpose_b: true,
        accumulate: false,
    })
}

fn conv(kind: ConvKind, n: usize, side: usize, c: usize, out: usize) -> Kernel {
    Kernel::Conv(Conv {
        float: Float::F32,
        kind,
        n,
        h: side,
        w: side,
        c,
        out,
        window: [3, 3],
        stride: [1, 1],
        pad: [1; 4],
        accumulate: false,
    })
}

/// What a batch norm ends with: scale, shift, leaky rectifier.
fn normalise(pixels: usize, c: usize) -> Kernel {
    let code = vec![
        Instr::Load(0),
        Instr::Load(1),
        Instr::Binary(Binary::Mul, 0, 1),
        Instr::Load(2),
        Instr::Binary(Binary::Add, 2, 3),
        Instr::Const(0.1),
        Instr::Binary(Binary::Mul, 4, 5),
        Instr::Binary(Binary::Max, 4, 6),
    ];
    let loads = vec![f32s(&[c, 1]), f32s(&[0, 1]), f32s(&[0, 1])];
    map(&[pixels, c], loads, code, vec![StoreKind::Full])
}

fn sum(extents: [usize; 2], flags: [bool; 2]) -> Kernel {
    let code = vec![Instr::Load(0), Instr::Unary(Unary::PowI(2), 0)];
    let loads = vec![f32s(&[extents[1], 1])];
    map(&extents, loads, code, vec![StoreKind::Sum(flags.to_vec())])
}

fn pool(kind: WindowKind, n: usize) -> Kernel {
    let window = Window {
        kind,
        n,
        h: 28,
        w: 28,
        c: 64,
        window: [2, 2],
        stride: [2, 2],
        pad: [0; 4],
    };
    Kernel::Window(Float::F32, window)
}

fn all(n: usize) -> Vec<(&'static str, Kernel)> {
    use ConvKind::{Forward, Input, Weight};
    let pixels = n * 28 * 28;
    vec![
        ("matmul 128 x 1024 x 6272", matmul(n, 6272, 1024)),
        ("matmul 128 x 74 x 1024", matmul(n, 1024, 74)),
        ("matmul 128 x 128 x 10", matmul(n, 10, 128)),
        ("conv 28 x 28, 1 to 64", conv(Forward, n, 28, 1, 64)),
        ("conv 28 x 28, 128 to 64", conv(Forward, n, 28, 128, 64)),
        ("conv 14 x 14, 64 to 128", conv(Forward, n, 14, 64, 128)),
        ("conv-input 14 x 14", conv(Input, n, 14, 64, 128)),
        ("conv-weight 14 x 14", conv(Weight, n, 14, 64, 128)),
        ("scale, shift, leaky ReLU", normalise(pixels, 64)),
        ("sum of columns", sum([pixels, 64], [true, false])),
        ("sum of rows", sum([pixels, 64], [false, true])),
        ("sum of classes", sum([64 * n, 10], [false, true])),
        ("pool argmax", pool(WindowKind::ArgMax, n)),
        ("pool gather", pool(WindowKind::Gather, n)),
        ("pool scatter", pool(WindowKind::Scatter, n)),
    ]
}

/// Measures all, and tells.
pub(super) fn run(args: &KernelsArgs) -> Result<()> {
    let (device, line) = choose(args.device, args.precision, None)?;
    eprintln!("Device: {line}");
    let on_gpu = device.cuda_facts().is_some();
    let [numbers, side] = if on_gpu {
        [1 << 26, 4096]
    } else {
        [1 << 24, 1024]
    };
    let measure = |name, kernel: &Kernel, [flops, bytes]: [f64; 2]| -> Result<Row> {
        let seconds = Single::new(&device, kernel)?.time(&device)?;
        let (gflops, gbytes) = (
            kernel.flops() as f64 / seconds / 1e9,
            kernel.bytes() as f64 / seconds / 1e9,
        );
        let share = (gflops / flops).max(gbytes / bytes);
        let row = Row {
            name,
            seconds,
            gflops,
            gbytes,
            share,
        };
        eprintln!(
            "{name:<28} {:>10.1} us {gflops:>9.0} GFLOP/s {gbytes:>8.1} GB/s {:>5.0} %",
            seconds * 1e6,
            100.0 * share
        );
        Ok(row)
    };
    let unknown = [f64::INFINITY; 2];
    let ceilings = [
        measure("ceiling: matmul", &matmul(side, side, side), unknown)?,
        measure("ceiling: copy", &copy(numbers), unknown)?,
    ];
    let most = [ceilings[0].gflops, ceilings[1].gbytes];
    let mut rows: Vec<Row> = ceilings.into();
    for (name, kernel) in all(args.batch as usize) {
        rows.push(measure(name, &kernel, most)?);
    }
    if args.json {
        println!("{}", serde_json::to_string(&rows)?);
    }
    Ok(())
}
