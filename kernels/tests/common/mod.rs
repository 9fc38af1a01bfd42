//! Running one kernel on host numbers.
#![allow(dead_code, reason = "every test uses a part of it")]

pub(crate) mod every;
pub(crate) mod maps;

use bytemuck::{Pod, cast_slice, pod_read_unaligned};
use kernels::{Buffer, Device, Kernel, Operand, Program, ProgramError, Slot, Step};
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

    /// Runs it; memory that it must write is full of garbage before. Gives the slots of the outputs.
    pub(crate) fn run(
        self,
        device: &Device,
        inputs: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, ProgramError> {
        let Self { slots, step } = self;
        let buffers: Vec<Buffer> = slots
            .iter()
            .map(|slot| device.alloc(slot.bytes).unwrap())
            .collect();
        for buffer in &buffers {
            buffer.write(0, &vec![0xa5; buffer.bytes()]).unwrap();
        }
        for (operand, input) in step.inputs.iter().zip(inputs) {
            let room = slots[operand.slot].bytes;
            let input = &input[..input.len().min(room)];
            buffers[operand.slot].write(operand.offset, input).unwrap();
        }
        let views: Vec<_> = buffers
            .iter()
            .map(|buffer| buffer.view(0, buffer.bytes()))
            .collect();
        let (outputs, sizes): (Vec<_>, Vec<_>) = (step.outputs.clone(), step.kernel.outputs());
        Program::new(slots, vec![step])?.run(device, &views)?;
        let read = |(operand, (dtype, count)): (&Operand, &(DType, usize))| {
            let mut bytes = vec![0; dtype.size() * count];
            buffers[operand.slot].read(operand.offset, &mut bytes)?;
            Ok(bytes)
        };
        outputs.iter().zip(&sizes).map(read).collect()
    }
}

pub(crate) fn run(device: &Device, kernel: Kernel, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    Layout::new(kernel).run(device, inputs).unwrap()
}

/// Runs with 1, 2 and 3 threads; the bits must agree.
pub(crate) fn run_all(kernel: &Kernel, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    use std::sync::LazyLock;
    static DEVICES: LazyLock<[Device; 3]> = LazyLock::new(|| [device(1), device(2), device(3)]);
    let [one, two, three] = DEVICES
        .each_ref()
        .map(|device| run(device, kernel.clone(), inputs));
    assert_eq!(one, two, "1 and 2 threads differ");
    assert_eq!(one, three, "1 and 3 threads differ");
    one
}

/// Two of a product in one kernel.
pub(crate) fn pair_of(single: &Kernel) -> Kernel {
    match *single {
        Kernel::MatMul(spec) => Kernel::MatMulPair(spec),
        Kernel::Conv(spec) => Kernel::ConvPair(spec),
        _ => panic!("{single:?} is no product"),
    }
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

/// Numbers in (-2, 2) that look random, some of them special.
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
