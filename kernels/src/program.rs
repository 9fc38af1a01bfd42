//! Programs: kernels in order, over slots of memory.

use crate::bound::Bound;
use crate::device::Ready;
use crate::{Device, Lap, ProgramError, Slot, Step, View};
use std::sync::{Arc, Mutex, PoisonError};

/// A checked list of steps, for any device.
///
/// ```
/// use kernels::{Device, Float, Kernel, MatMul, Operand, Program, Slot, Step};
/// let square = MatMul {
///     float: Float::F64,
///     batch: 1,
///     m: 2,
///     n: 2,
///     k: 2,
///     transpose_a: false,
///     transpose_b: true,
///     accumulate: false,
/// };
/// let (input, output) = (Operand { slot: 0, offset: 0 }, Operand { slot: 1, offset: 0 });
/// let step = Step {
///     kernel: Kernel::MatMul(square),
///     inputs: vec![input, input],
///     outputs: vec![output],
///     workspace: None,
/// };
/// let slots = vec![Slot { bytes: 32, writable: false }, Slot { bytes: 32, writable: true }];
/// let program = Program::new(slots, vec![step])?;
///
/// let device = Device::cpu(None)?;
/// let (a, c) = (device.alloc(32)?, device.alloc(32)?);
/// a.write(0, bytemuck::cast_slice(&[1.0f64, 2.0, 3.0, 4.0]))?;
/// program.run(&device, &[a.view(0, 32), c.view(0, 32)])?;
/// let mut product = [0.0f64; 4];
/// c.read(0, bytemuck::cast_slice_mut(&mut product))?;
/// assert_eq!(product, [5.0, 11.0, 11.0, 25.0]); // A·Aᵀ
/// # Ok::<(), kernels::ProgramError>(())
/// ```
#[derive(Debug)]
pub struct Program {
    slots: Vec<Slot>,
    /// For each slot, the bytes that its view's address must be a multiple of: the size of its largest
    /// element.
    alignments: Vec<usize>,
    steps: Vec<Step>,
    bound: Vec<Bound>,
    /// What the last device made of it, for the next run on that device.
    ready: Mutex<Option<Arc<Ready>>>,
}

impl Program {
    /// Checks everything that running relies on: every array lies inside its slot and is aligned, only
    /// writable slots are written to, and no step writes where it still reads.
    pub fn new(slots: Vec<Slot>, steps: Vec<Step>) -> Result<Self, ProgramError> {
        let bind = |(at, step): (usize, &Step)| {
            let Step { kernel, .. } = step;
            let sound = kernel.check();
            let sound = sound.map_err(|reason| format!("{}: {reason}", kernel.name()));
            sound
                .and_then(|()| Bound::new(&slots, step, kernel.workspace()))
                .map_err(|reason| ProgramError::Step { step: at, reason })
        };
        let bound = steps
            .iter()
            .enumerate()
            .map(bind)
            .collect::<Result<Vec<_>, _>>()?;
        let mut alignments = vec![1; slots.len()];
        for array in bound.iter().flat_map(Bound::arrays) {
            let alignment = &mut alignments[array.slot];
            *alignment = array.alignment.max(*alignment);
        }
        Ok(Self {
            slots,
            alignments,
            steps,
            bound,
            ready: Mutex::default(),
        })
    }

    /// Makes it ready for a device: writes machine code for its maps, or makes a CUDA graph of its launches.
    /// It stays ready until it is made so for another device; CPU devices of the same level of vector
    /// instructions count as one.
    pub fn prepare(&self, device: &Device) -> Result<(), ProgramError> {
        self.ready(device).map(|_| ())
    }

    /// Runs the steps in order, on one view per slot. A view is as large as its slot or larger. It starts at
    /// a multiple of the size of the slot's largest element: 4 bytes if all arrays are f32, so that a view
    /// may be any row of a larger array; 8 bytes for a workspace. The view of a writable slot must not
    /// overlap any other.
    ///
    /// A program that is not ready for the device is made so first, see [`Program::prepare`]. On a CUDA
    /// device the run is queued, and this returns before it is done; what goes wrong in it is reported by the
    /// next call that reads a buffer.
    pub fn run(&self, device: &Device, views: &[View<'_>]) -> Result<(), ProgramError> {
        self.check_views(device, views)?;
        self.ready(device)?.run(device, &self.bound, views)
    }

    /// As [`Program::run`], with a lap for every step, in their order; returns when all are done. For finding
    /// out where time goes.
    ///
    /// A CUDA device launches kernel by kernel between events, for a graph cannot be looked into. A step then
    /// also takes what the host needs for a launch, where that is longer than the kernel.
    pub fn time(&self, device: &Device, views: &[View<'_>]) -> Result<Vec<Lap>, ProgramError> {
        self.check_views(device, views)?;
        self.ready(device)?.time(device, &self.bound, views)
    }

    fn ready(&self, device: &Device) -> Result<Arc<Ready>, ProgramError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = ready.as_ref().filter(|made| made.is_for(device)) {
            return Ok(made.clone());
        }
        let made = device.prepare(self.slots.len(), &self.steps, &self.bound)?;
        Ok(ready.insert(Arc::new(made)).clone())
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The memory it works on.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn check_views(&self, device: &Device, views: &[View<'_>]) -> Result<(), ProgramError> {
        let refuse = |slot, reason| Err(ProgramError::Binding { slot, reason });
        if views.len() != self.slots.len() {
            let reason = format!("{} views for {} slots", views.len(), self.slots.len());
            return refuse(views.len().min(self.slots.len()), reason);
        }
        for (at, (view, slot)) in views.iter().zip(&self.slots).enumerate() {
            if !view.is_on(device.gpu()) {
                return refuse(at, format!("{view:?} cannot be reached by {device:?}"));
            }
            if view.bytes() < slot.bytes {
                return refuse(
                    at,
                    format!("a view of {} bytes; {} needed", view.bytes(), slot.bytes),
                );
            }
            let alignment = self.alignments[at];
            if !view.address().is_multiple_of(alignment) {
                let reason = format!("the view does not start at a multiple of {alignment} bytes");
                return refuse(at, reason);
            }
        }
        for (at, _) in self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.writable)
        {
            let mut others = views.iter().enumerate().filter(|&(other, _)| other != at);
            if let Some((other, _)) = others.find(|(_, other)| other.overlaps(&views[at])) {
                return refuse(
                    at,
                    format!("writable, and its view overlaps that of slot {other}"),
                );
            }
        }
        Ok(())
    }
}
