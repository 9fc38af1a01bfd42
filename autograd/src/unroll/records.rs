//! Arrays that belong together, in one buffer: a learner's state, a step's inputs, gradients.

use crate::error::{Error, Result};
use crate::plan::Port;
use kernels::{Buffer, Device, View};
use tensor::Array;

/// Alignment of every array, in bytes: a cache line.
const ALIGN: usize = 64;

/// A number of records of the same arrays, one record after another.
#[derive(Debug)]
pub struct Records {
    ports: Vec<Port>,
    offsets: Vec<usize>,
    stride: usize,
    count: usize,
    buffer: Buffer,
}

/// Bytes of one record of these arrays.
pub(super) fn record_bytes(ports: &[Port]) -> usize {
    ports
        .iter()
        .map(|port| port.bytes().next_multiple_of(ALIGN))
        .sum()
}

impl Records {
    /// `count` records of zeros.
    pub fn new(device: &Device, ports: Vec<Port>, count: usize) -> Result<Self> {
        let stride = record_bytes(&ports);
        let mut next = 0;
        let offsets = ports
            .iter()
            .map(|port| {
                next += port.bytes().next_multiple_of(ALIGN);
                next - port.bytes().next_multiple_of(ALIGN)
            })
            .collect();
        let bytes = stride.checked_mul(count).ok_or_else(|| {
            Error::Setting(format!(
                "{count} records of {stride} bytes are more than any memory"
            ))
        })?;
        Ok(Self {
            ports,
            offsets,
            stride,
            count,
            buffer: device.alloc(bytes)?,
        })
    }

    /// The arrays of a record.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> usize {
        self.stride * self.count
    }

    /// Array number `field` of record number `record`, for a plan to work on.
    pub fn view(&self, record: usize, field: usize) -> View<'_> {
        self.buffer.view(
            record * self.stride + self.offsets[field],
            self.ports[field].bytes(),
        )
    }

    /// The position of an array by its name.
    pub fn field(&self, name: &str) -> Option<usize> {
        self.ports.iter().position(|port| port.name == name)
    }

    /// Copies an array in.
    pub fn set(&self, record: usize, field: usize, array: &Array) -> Result<()> {
        let port = &self.ports[field];
        if array.dtype() != port.dtype || *array.shape() != port.shape {
            let (dtype, shape) = (array.dtype(), array.shape());
            let reason = format!(
                "`{}` is {} {}, not {dtype} {shape}",
                port.name, port.dtype, port.shape
            );
            return Err(Error::Plan(reason));
        }
        let at = record * self.stride + self.offsets[field];
        Ok(self.buffer.write(at, array.bytes())?)
    }

    /// Copies an array out, when all work queued before is done.
    pub fn get(&self, record: usize, field: usize) -> Result<Array> {
        let port = &self.ports[field];
        let mut bytes = vec![0; port.bytes()];
        self.buffer
            .read(record * self.stride + self.offsets[field], &mut bytes)?;
        Ok(Array::from_bytes(port.dtype, port.shape.clone(), &bytes)
            .expect("as many bytes as the port says"))
    }

    /// Array number `field` of every record, when all work queued before is done: the device is waited for
    /// once.
    pub fn column(&self, field: usize) -> Result<Vec<Array>> {
        let port = &self.ports[field];
        let mut bytes = vec![0; self.bytes()];
        self.buffer.read(0, &mut bytes)?;
        let array = |record: usize| {
            let at = record * self.stride + self.offsets[field];
            Array::from_bytes(port.dtype, port.shape.clone(), &bytes[at..][..port.bytes()])
                .expect("as many bytes as the port says")
        };
        Ok((0..self.count).map(array).collect())
    }

    /// Copies the bytes of a record out, when all work queued before is done.
    pub(super) fn read(&self, record: usize, bytes: &mut [u8]) -> Result<()> {
        Ok(self.buffer.read(record * self.stride, bytes)?)
    }

    /// Copies the bytes of a record in.
    pub(super) fn write(&self, record: usize, bytes: &[u8]) -> Result<()> {
        Ok(self.buffer.write(record * self.stride, bytes)?)
    }

    /// Copies bytes of an array out, when all work queued before is done.
    pub(super) fn read_part(
        &self,
        record: usize,
        field: usize,
        from: usize,
        bytes: &mut [u8],
    ) -> Result<()> {
        let at = self.part((record, field, from));
        Ok(self.buffer.read(at, bytes)?)
    }

    /// Copies bytes from records on the same device. A place is a record, an array of it, and a byte there.
    pub(super) fn copy_part(
        &self,
        to: (usize, usize, usize),
        from: &Self,
        source: (usize, usize, usize),
        bytes: usize,
    ) -> Result<()> {
        let (to, source) = (self.part(to), from.part(source));
        Ok(self.buffer.copy_from(to, &from.buffer, source, bytes)?)
    }

    fn part(&self, (record, field, byte): (usize, usize, usize)) -> usize {
        record * self.stride + self.offsets[field] + byte
    }

    /// Sets one record to zero.
    pub fn zero(&self, record: usize) -> Result<()> {
        Ok(self.buffer.zero(record * self.stride, self.stride)?)
    }

    /// Copies a whole record from records of the same arrays on the same device.
    pub fn copy(&self, record: usize, from: &Self, source: usize) -> Result<()> {
        debug_assert_eq!(self.ports, from.ports);
        let (to, source) = (record * self.stride, source * self.stride);
        Ok(self
            .buffer
            .copy_from(to, &from.buffer, source, self.stride)?)
    }
}
