//! Running one kernel on host numbers.
#![allow(dead_code, reason = "every test uses a part of it")]

pub(crate) mod every;
pub(crate) mod maps;

use bytemuck::{Pod, cast_slice, pod_read_unaligned};
use kernels::{
    Binary, Buffer, Cpu, Device, Float, Instr, Kernel, Load, Map, Operand, Program, ProgramError,
    Simd, Slot, Step, Store, StoreKind,
};
use tensor::DType;

pub(crate) fn bytes<T: Pod>(numbers: &[T]) -> Vec<u8> {
    cast_slice(numbers).to_vec()
}

pub(crate) fn numbers<T: Pod>(bytes: &[u8]) -> Vec<T> {
    bytes
        .chunks_exact(size_of::<T>())
        .map(pod_read_unaligned)
        .collect()
}

pub(crate) fn device(threads: usize) -> Device {
    Device::cpu(Some(threads)).unwrap()
}

/// A device that is held to a level of vector instructions.
pub(crate) fn at_level(threads: usize, level: Simd) -> Device {
    Cpu::new(Some(threads), Some(level)).unwrap().into()
}

/// The levels that this machine has, from the least.
pub(crate) fn levels() -> impl Iterator<Item = Simd> {
    let all = Simd::ALL.into_iter();
    all.filter(|&level| level <= Simd::detected())
}

/// Where the arrays of a kernel lie: a slot each.
pub(crate) struct Layout {
    pub slots: Vec<Slot>,
    pub step: Step,
}

impl Layout {
    pub(crate) fn new(kernel: Kernel) -> Self {
        let mut slots = Vec::new();
        let mut slot = |bytes, writable| {
            slots.push(Slot { bytes, writable });
            Operand {
                slot: slots.len() - 1,
                offset: 0,
            }
        };
        let inputs = kernel
            .inputs()
            .iter()
            .map(|&(t, n)| slot(t.size() * n, false))
            .collect();
        let outputs = kernel
            .outputs()
            .iter()
            .map(|&(t, n)| slot(t.size() * n, true))
            .collect();
        let workspace = Some(slot(kernel.workspace(), true));
        Self {
            slots,
            step: Step {
                kernel,
                inputs,
                outputs,
                workspace,
            },
        }
    }

    /// Runs it; memory that it must write is full of garbage before. Gives the outputs.
    pub(crate) fn run(
        self,
        device: &Device,
        inputs: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, ProgramError> {
        self.run_shifted(device, 0, inputs)
    }

    /// As `run`, on views that start that many elements after an address that is aligned for vectors.
    pub(crate) fn run_shifted(
        self,
        device: &Device,
        elements: usize,
        inputs: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, ProgramError> {
        let starts = self.element_sizes().into_iter().map(|size| size * elements);
        let starts: Vec<usize> = starts.collect();
        let Self { slots, step } = self;
        let buffers: Vec<Buffer> = slots
            .iter()
            .zip(&starts)
            .map(|(slot, start)| device.alloc(start + slot.bytes).unwrap())
            .collect();
        for buffer in &buffers {
            buffer.write(0, &vec![0xa5; buffer.bytes()]).unwrap();
        }
        for (operand, input) in step.inputs.iter().zip(inputs) {
            let room = slots[operand.slot].bytes;
            let input = &input[..input.len().min(room)];
            let at = starts[operand.slot] + operand.offset;
            buffers[operand.slot].write(at, input).unwrap();
        }
        let views: Vec<_> = buffers
            .iter()
            .zip(&starts)
            .map(|(buffer, &start)| buffer.view(start, buffer.bytes() - start))
            .collect();
        let (outputs, sizes): (Vec<_>, Vec<_>) = (step.outputs.clone(), step.kernel.outputs());
        Program::new(slots, vec![step])?.run(device, &views)?;
        let read = |(operand, (dtype, count)): (&Operand, &(DType, usize))| {
            let mut bytes = vec![0; dtype.size() * count];
            let at = starts[operand.slot] + operand.offset;
            buffers[operand.slot].read(at, &mut bytes)?;
            Ok(bytes)
        };
        outputs.iter().zip(&sizes).map(read).collect()
    }

    /// The size of the largest element of each slot.
    fn element_sizes(&self) -> Vec<usize> {
        let Step {
            kernel,
            inputs,
            outputs,
            workspace,
        } = &self.step;
        let operands = inputs.iter().chain(outputs).chain(workspace);
        let types = kernel.inputs().into_iter().chain(kernel.outputs());
        let sizes = types.map(|(dtype, _)| dtype.size()).chain([8]);
        let mut largest = vec![1; self.slots.len()];
        for (operand, size) in operands.zip(sizes) {
            largest[operand.slot] = size.max(largest[operand.slot]);
        }
        largest
    }
}

/// y[t] = x[t] · rate[t] · scale[t], and the sum of y[t], for all t: one program over rows of x, y \[T, n\] and
/// rate, sum \[T\] f32, and of scale \[T\] f16. Numbers are small and whole, so that all sums are exact.
pub(crate) fn check_rows(device: &Device, t: usize, n: usize) {
    let load = |dtype, stride| Load {
        dtype,
        strides: vec![stride],
    };
    let map = |loads, code: Vec<Instr>, kind| {
        let store = Store {
            value: code.len() - 1,
            dtype: DType::F32,
            kind,
        };
        Kernel::Map(Map {
            float: Float::F32,
            extents: vec![n],
            loads,
            code,
            stores: vec![store],
        })
    };
    let product = map(
        vec![
            load(DType::F32, 1),
            load(DType::F32, 0),
            load(DType::F16, 0),
        ],
        vec![
            Instr::Load(0),
            Instr::Load(1),
            Instr::Load(2),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Binary(Binary::Mul, 3, 2),
        ],
        StoreKind::Full,
    );
    let sum = map(
        vec![load(DType::F32, 1)],
        vec![Instr::Load(0)],
        StoreKind::Sum(vec![true]),
    );
    let rows = [4 * n, 4, 2, 4 * n, 4];
    let slot = |bytes, writable| Slot { bytes, writable };
    let mut slots: Vec<Slot> = (0..5).map(|i| slot(rows[i], i > 2)).collect();
    slots.push(slot(sum.workspace(), true));
    let at = |slot| Operand { slot, offset: 0 };
    let step = |kernel, inputs: &[usize], output| Step {
        kernel,
        inputs: inputs.iter().copied().map(at).collect(),
        outputs: vec![at(output)],
        workspace: Some(at(5)),
    };
    let steps = vec![step(product, &[0, 1, 2], 3), step(sum, &[3], 4)];
    let workspace = device.alloc(slots[5].bytes).unwrap();
    let arrays = rows.map(|row| device.alloc(t * row).unwrap());
    let x: Vec<f32> = (0..t * n).map(|i| (i % 7) as f32).collect();
    arrays[0].write(0, cast_slice(&x)).unwrap();
    let rate: Vec<f32> = (0..t).map(|i| i as f32 + 1.0).collect();
    arrays[1].write(0, cast_slice(&rate)).unwrap();
    let scale: Vec<u16> = (0..t).map(|i| [0x3c00, 0x4000][i % 2]).collect(); // 1, 2
    arrays[2].write(0, cast_slice(&scale)).unwrap();
    let program = Program::new(slots, steps).unwrap();
    for at in 0..t {
        let row = |i: usize| arrays[i].view(at * rows[i], rows[i]);
        let mut views = [0, 1, 2, 3, 4].map(row).to_vec();
        views.push(workspace.view(0, workspace.bytes()));
        program.run(device, &views).unwrap();
    }
    let read = |array: &Buffer| {
        let mut found = vec![0; array.bytes()];
        array.read(0, &mut found).unwrap();
        numbers::<f32>(&found)
    };
    let factor = |at: usize| rate[at] * (at % 2 + 1) as f32;
    let y: Vec<f32> = (0..t * n).map(|i| x[i] * factor(i / n)).collect();
    assert_eq!(read(&arrays[3]), y);
    let sums: Vec<f32> = y.chunks(n).map(|row| row.iter().sum()).collect();
    assert_eq!(read(&arrays[4]), sums);
}

pub(crate) fn run(device: &Device, kernel: Kernel, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    Layout::new(kernel).run(device, inputs).unwrap()
}

/// Runs with 1, 2 and 3 threads, on views that start at element 0, 1 and 2; the bits must agree.
pub(crate) fn run_all(kernel: &Kernel, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    use std::sync::LazyLock;
    static DEVICES: LazyLock<[Device; 3]> = LazyLock::new(|| [device(1), device(2), device(3)]);
    let [one, two, three] = [0, 1, 2].map(|i| {
        let layout = Layout::new(kernel.clone());
        layout.run_shifted(&DEVICES[i], i, inputs).unwrap()
    });
    assert_eq!(one, two, "1 and 2 threads differ");
    assert_eq!(one, three, "1 and 3 threads differ");
    one
}

/// What a pair computes, in three steps: each product by its own kernel, then one addition per element.
pub(crate) fn sum_of_products(device: &Device, single: &Kernel, inputs: &[Vec<u8>]) -> Vec<u8> {
    let [x, y] = [0, 2].map(|i| run(device, single.clone(), &inputs[i..i + 2]).remove(0));
    match single.outputs()[0].0 {
        DType::F64 => bytes(&add::<f64>(&x, &y)),
        _ => bytes(&add::<f32>(&x, &y)),
    }
}

fn add<T: Pod + std::ops::Add<Output = T>>(x: &[u8], y: &[u8]) -> Vec<T> {
    let pairs = numbers::<T>(x).into_iter().zip(numbers::<T>(y));
    pairs.map(|(x, y)| x + y).collect()
}

/// Numbers in [-2, 2) that look random.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (0..count)
        .map(|_| f64::from(draw() as u32) / f64::from(1 << 29) - 2.0)
        .collect()
}
