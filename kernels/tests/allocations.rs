//! Programs allocate nothing while they run: neither on the caller's thread nor on the device's.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator that counts")]

mod common;

use common::{Layout, device, every};
use kernels::{Operand, Program, Slot};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all work is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: what the caller promises.
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, block: Block) {
        // SAFETY: what the caller promises.
        unsafe { System.dealloc(memory, block) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Every kind of kernel in one program, each with slots of its own in one buffer.
#[test]
fn programs_allocate_nothing() {
    let (mut slots, mut steps, mut contents): (Vec<Slot>, Vec<_>, Vec<Vec<u8>>) =
        Default::default();
    for (_, kernel, inputs) in every::kernels() {
        let Layout {
            slots: own,
            mut step,
        } = Layout::new(kernel);
        let first = slots.len();
        let operands = step.inputs.iter_mut().chain(&mut step.outputs);
        operands
            .chain(&mut step.workspace)
            .for_each(|Operand { slot, .. }| *slot += first);
        contents.extend(inputs);
        contents.resize(first + own.len(), Vec::new());
        slots.extend(own);
        steps.push(step);
    }
    let device = device(3);
    let memory: Vec<_> = slots
        .iter()
        .zip(&contents)
        .map(|(slot, content)| {
            let buffer = device.alloc(slot.bytes).unwrap();
            buffer.write(0, content).unwrap();
            buffer
        })
        .collect();
    let views: Vec<_> = memory
        .iter()
        .map(|buffer| buffer.view(0, buffer.bytes()))
        .collect();
    let program = Program::new(slots, steps).unwrap();
    // Threads make their queues when they first take part.
    (0..5).for_each(|_| program.run(&device, &views).unwrap());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..10).for_each(|_| program.run(&device, &views).unwrap());
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}
