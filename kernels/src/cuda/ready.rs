//! Programs on the device: lowered and made a CUDA graph once, then replayed.
//!
//! Kernels find their arrays through a table of slot addresses in device memory. A run writes the table by
//! one small kernel, whose parameters hold the addresses, and launches the graph: no waiting, no allocation,
//! and the order of the stream keeps runs apart.

use super::args::{BIND, BindArgs, place};
use super::device::{Cuda, CudaMemory};
use super::graph::Graph;
use super::lower::{Launch, Lowering, Scratch, Tables};
use super::merge::{Join, nodes};
use super::order::{Touched, dependencies};
use super::refused::{failed, lacks_memory};
use crate::bound::{Bound, Lap, Step};
use crate::memory::Gpu;
use crate::{DeviceError, ProgramError};
use cudarc::driver::{
    CudaEvent, CudaFunction, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg, sys,
};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Slots that the launching code adds to those of a program: its constants, the faults, the scratch memory.
const OWN_SLOTS: usize = 3;

/// Slots of a program, at most.
const MOST_SLOTS: usize = (1 << 16) - OWN_SLOTS;

/// Shared memory beyond which a function must be told so.
const PLAIN_SHARED: u32 = 48 << 10;

/// Parameters by value, with room for those of any kernel. The driver copies as much as the kernel declares.
#[repr(C, align(8))]
pub(super) struct Parameters([u8; 4096]);

// SAFETY: plain bytes, for kernels whose structs of parameters are plain words.
unsafe impl DeviceRepr for Parameters {}

impl Parameters {
    pub(super) fn new(args: &[u8]) -> Self {
        let mut parameters = [0; 4096];
        parameters[..args.len()].copy_from_slice(args);
        Self(parameters)
    }
}

/// A program made ready for one device.
pub(crate) struct Ready {
    cuda: Arc<Cuda>,
    graph: Option<Graph>,
    launches: Vec<Launch>,
    /// For each step, how many launches there are up to its end, and the steps that it waits for.
    ends: Vec<usize>,
    waits: Vec<Vec<usize>>,
    /// How often it has run.
    runs: u32,
    /// The table of slots, then the program's constants.
    memory: CudaMemory,
    slots: usize,
}

// SAFETY: the graph is used by one thread at a time (a program holds it in a mutex), and the driver's calls
// bind their context to the calling thread.
unsafe impl Send for Ready {}

impl Ready {
    pub(crate) fn new(
        cuda: &Arc<Cuda>,
        slots: usize,
        steps: &[Step],
        bound: &[Bound],
    ) -> Result<Self, ProgramError> {
        let Lowered {
            launches,
            ends,
            touched,
            constants: tables,
        } = lower(cuda, slots, steps, bound)?;
        let table_bytes = (8 * (slots + OWN_SLOTS)).next_multiple_of(256);
        let memory = CudaMemory::new(cuda, table_bytes + tables.len(), 0)?;
        let table = memory.address();
        let mut ready = Self {
            cuda: cuda.clone(),
            graph: None,
            launches,
            ends,
            waits: dependencies(&touched),
            runs: 0,
            memory,
            slots,
        };
        let constants = table + table_bytes as u64;
        cuda.write(constants, &tables)?;
        let own: [u64; OWN_SLOTS] = [constants, cuda.faults, cuda.scratch];
        cuda.write(table + 8 * slots as u64, bytemuck::cast_slice(&own))?;
        if cuda.graphs && !ready.launches.is_empty() {
            ready.make_graph(Join::Alike)?;
        } else {
            load_maps(cuda, &ready.launches)?;
        }
        Ok(ready)
    }

    /// Whether it was made for that device.
    pub(crate) fn is_for(&self, cuda: &Arc<Cuda>) -> bool {
        Arc::ptr_eq(&self.cuda, cuda)
    }

    fn make_graph(&mut self, join: Join) -> Result<(), DeviceError> {
        let nodes = nodes(&self.launches, &self.ends, &self.waits, join);
        load_maps(&self.cuda, nodes.iter().flat_map(|node| &node.launches))?;
        self.graph = Some(Graph::new(&self.cuda, &nodes, self.memory.address())?);
        Ok(())
    }

    /// Queues one run on memory at these addresses.
    pub(crate) fn run(&mut self, addresses: &[u64]) -> Result<(), DeviceError> {
        let joins = self.graph.is_some() && self.runs == self.cuda.join_after;
        self.runs = self.runs.saturating_add(1);
        if joins {
            self.join()?;
        }
        let _alone = self.cuda.queue();
        self.write_table(addresses)?;
        match &self.graph {
            Some(graph) => graph.launch(),
            None => self.queue_plain(0, self.launches.len()),
        }
    }

    /// Joins all launches that it can. Where there is no memory for that, the old graph stays: it does the same.
    fn join(&mut self) -> Result<(), DeviceError> {
        self.cuda.release_spare();
        match self.make_graph(Join::Any) {
            Err(error) if lacks_memory(&error) => Ok(()),
            made => made,
        }
    }

    /// One run, launched kernel by kernel; the steps' laps, when all is done.
    pub(crate) fn time(&self, addresses: &[u64]) -> Result<Vec<Lap>, DeviceError> {
        let fail = |error| failed("timing by events", error);
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = |_| self.cuda.context.new_event(timed).map_err(fail);
        let events = (0..=self.ends.len())
            .map(event)
            .collect::<Result<Vec<_>, _>>()?;
        // The graph may have maps joined to others.
        load_maps(&self.cuda, &self.launches)?;
        let _alone = self.cuda.queue();
        self.write_table(addresses)?;
        self.cuda.wait()?;
        let start = Instant::now();
        events[0].record(&self.cuda.stream).map_err(fail)?;
        let mut first = 0;
        for (&end, event) in self.ends.iter().zip(&events[1..]) {
            self.queue_plain(first, end)?;
            event.record(&self.cuda.stream).map_err(fail)?;
            first = end;
        }
        self.cuda.wait()?;
        let mut begin = start;
        let lap = |pair: &[CudaEvent]| {
            let milliseconds = pair[0].elapsed_ms(&pair[1]).map_err(fail)?;
            let time = Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3);
            let lap = Lap { begin, time };
            begin += time;
            Ok(lap)
        };
        events.windows(2).map(lap).collect()
    }

    /// Queues some of the launches.
    fn queue_plain(&self, first: usize, end: usize) -> Result<(), DeviceError> {
        let mut some = self.launches[first..end].iter();
        some.try_for_each(|one| launch(&self.cuda, one, self.memory.address()))
    }

    /// Queues the writing of the slots' addresses.
    fn write_table(&self, addresses: &[u64]) -> Result<(), DeviceError> {
        debug_assert_eq!(addresses.len(), self.slots);
        for (at, some) in addresses.chunks(BIND).enumerate() {
            let mut args = BindArgs {
                first: (at * BIND) as u64,
                count: some.len() as u64,
                bases: [0; BIND],
            };
            args.bases[..some.len()].copy_from_slice(some);
            let bind = Launch::new("bind_slots", 1, 64, &args);
            launch(&self.cuda, &bind, self.memory.address())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}

/// A program for the device.
struct Lowered {
    launches: Vec<Launch>,
    /// For each step, how many launches there are up to its end.
    ends: Vec<usize>,
    /// The memory that each step touches.
    touched: Vec<Touched>,
    constants: Vec<u8>,
}

/// All launches of a program, and its constants.
fn lower(
    cuda: &Cuda,
    slots: usize,
    steps: &[Step],
    bound: &[Bound],
) -> Result<Lowered, ProgramError> {
    let refuse = |step, reason| ProgramError::Step { step, reason };
    if slots > MOST_SLOTS {
        return Err(refuse(
            0,
            format!("{slots} slots; at most {MOST_SLOTS} on CUDA"),
        ));
    }
    let mut tables = Tables::new(slots);
    let faults = place(slots + 1, 0);
    let mut scratch = Scratch::new(slots + 2);
    let (mut launches, mut ends, mut touched) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (step, bound)) in steps.iter().zip(bound).enumerate() {
        let mut lowering = Lowering {
            bound,
            step: at,
            precision: cuda.precision,
            wgmma: cuda.wgmma,
            tables: &mut tables,
            faults,
            scratch: &mut scratch,
        };
        launches.extend(
            lowering
                .lower(&step.kernel)
                .map_err(|reason| refuse(at, reason))?,
        );
        ends.push(launches.len());
        touched.push(Touched::new(bound, scratch.taken.drain(..)));
    }
    Ok(Lowered {
        launches,
        ends,
        touched,
        constants: tables.bytes,
    })
}

/// Loads the code of launches' maps.
fn load_maps<'a>(
    cuda: &Cuda,
    launches: impl IntoIterator<Item = &'a Launch>,
) -> Result<(), DeviceError> {
    cuda.load_maps(launches.into_iter().filter_map(|one| one.maps.as_ref()))
}

/// The function of a launch, told how much shared memory it may have.
pub(super) fn prepare(cuda: &Cuda, one: &Launch) -> Result<CudaFunction, DeviceError> {
    let function = cuda.function(one)?;
    if one.shared > PLAIN_SHARED {
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
        function
            .set_attribute(SHARED, one.shared.cast_signed())
            .map_err(|error| failed("shared memory of a kernel", error))?;
    }
    Ok(function)
}

/// Queues one launch, with the table of slots at that address.
pub(super) fn launch(cuda: &Cuda, one: &Launch, slots: u64) -> Result<(), DeviceError> {
    queue(&cuda.stream, one, &prepare(cuda, one)?, slots)
}

fn queue(
    stream: &CudaStream,
    one: &Launch,
    function: &CudaFunction,
    slots: u64,
) -> Result<(), DeviceError> {
    let parameters = Parameters::new(&one.args);
    let config = LaunchConfig {
        grid_dim: (one.blocks, 1, 1),
        block_dim: (one.threads, 1, 1),
        shared_mem_bytes: one.shared,
    };
    let mut builder = stream.launch_builder(function);
    builder.arg(&slots).arg(&parameters);
    // SAFETY: the kernel takes these two parameters; `Program` has checked every array that it will reach.
    let launched = unsafe { builder.launch(config) };
    launched
        .map(|_| ())
        .map_err(|error| failed("kernel launch", error))
}
