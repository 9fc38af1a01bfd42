//! CUDA graphs: the launches of a program, each of which waits for those that it depends on and no others.

use super::device::Cuda;
use super::lower::Launch;
use super::merge::Node;
use super::ready::{Parameters, prepare};
use super::refused::failed;
use crate::DeviceError;
use cudarc::driver::{DriverError, sys};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

/// A graph that can be launched.
pub(super) struct Graph {
    ready: sys::CUgraphExec,
    /// The graph's functions belong to its context.
    cuda: Arc<Cuda>,
}

/// A graph that grows, and is destroyed at the end.
struct Growing(sys::CUgraph);

impl Drop for Growing {
    fn drop(&mut self) {
        // SAFETY: made by `Graph::new`, and nobody has it any more. A drop has nobody to tell.
        let _ = unsafe { sys::cuGraphDestroy(self.0) };
    }
}

impl Graph {
    /// The graph of these nodes, whose launches find the table of slots at the address `slots`.
    pub(super) fn new(cuda: &Arc<Cuda>, nodes: &[Node], slots: u64) -> Result<Self, DeviceError> {
        cuda.bind()?;
        let mut graph = ptr::null_mut();
        // SAFETY: the context is bound, and the call writes one handle.
        checked(unsafe { sys::cuGraphCreate(&raw mut graph, 0) })?;
        let graph = Growing(graph);
        // The last launch of each node; of one without launches, those that it waits for.
        let mut last: Vec<Vec<sys::CUgraphNode>> = Vec::with_capacity(nodes.len());
        for Node { launches, waits } in nodes {
            let mut before: Vec<_> = waits.iter().flat_map(|&node| last[node].clone()).collect();
            for one in launches {
                before = vec![add(cuda, &graph, one, &before, slots)?];
            }
            last.push(before);
        }
        let mut ready = ptr::null_mut();
        // SAFETY: the graph lives, and the call writes one handle.
        checked(unsafe { sys::cuGraphInstantiateWithFlags(&raw mut ready, graph.0, 0) })?;
        let graph = Self {
            ready,
            cuda: cuda.clone(),
        };
        // SAFETY: a graph that was just made.
        checked(unsafe { sys::cuGraphUpload(graph.ready, cuda.stream.cu_stream()) })?;
        Ok(graph)
    }

    /// Queues one run.
    pub(super) fn launch(&self) -> Result<(), DeviceError> {
        self.cuda.bind()?;
        // SAFETY: the graph lives as long as `self`, whose owner lets one thread in at a time.
        checked(unsafe { sys::cuGraphLaunch(self.ready, self.cuda.stream.cu_stream()) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: instantiated in `new`; the driver waits for runs that are queued. A drop has nobody to tell.
        let _ = unsafe { sys::cuGraphExecDestroy(self.ready) };
    }
}

/// Adds a launch that begins when the nodes before it are done.
fn add(
    cuda: &Cuda,
    graph: &Growing,
    one: &Launch,
    before: &[sys::CUgraphNode],
    slots: u64,
) -> Result<sys::CUgraphNode, DeviceError> {
    let function = prepare(cuda, one)?;
    let (mut slots, mut numbers) = (slots, Parameters::new(&one.args));
    let mut parameters: [*mut c_void; 2] = [(&raw mut slots).cast(), (&raw mut numbers).cast()];
    let node_parameters = sys::CUDA_KERNEL_NODE_PARAMS {
        func: function.cu_function(),
        gridDimX: one.blocks,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: one.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: one.shared,
        kernelParams: parameters.as_mut_ptr(),
        extra: ptr::null_mut(),
        kern: ptr::null_mut(),
        ctx: ptr::null_mut(),
    };
    let mut node = ptr::null_mut();
    // SAFETY: the kernel takes these two parameters, which the driver copies now; the nodes are the graph's.
    // `Program` has checked every array that the kernel will reach.
    checked(unsafe {
        sys::cuGraphAddKernelNode_v2(
            &raw mut node,
            graph.0,
            before.as_ptr(),
            before.len(),
            &raw const node_parameters,
        )
    })?;
    Ok(node)
}

fn checked(code: sys::CUresult) -> Result<(), DeviceError> {
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        code => Err(failed("graph", DriverError(code))),
    }
}
