//! Arrays that belong together, in one buffer: a learner's state, a step's inputs, gradients.

use crate::error::{Error, Result};
use crate::plan;
use crate::spec::ArraySpec;
use kernels::{Buffer, View};
use tensor::Array;

/// Alignment of every array, in bytes: a cache line.
const ALIGN: usize = 64;

/// A number of records of the same arrays, one record after another.
#[derive(Debug)]
pub(super) struct Records {
    specs: Vec<ArraySpec>,
    offsets: Vec<usize>,
    stride: usize,
    count: usize,
    buffer: Buffer,
}

/// Bytes of one record of these arrays; `usize::MAX` where there are more.
pub(super) fn record_bytes(specs: &[ArraySpec]) -> usize {
    specs.iter().map(room).fold(0, usize::saturating_add)
}

/// Bytes of `count` records of these arrays.
///
/// # Errors
/// If there are more than any memory has.
pub(super) fn bytes_of(specs: &[ArraySpec], count: usize) -> Result<usize> {
    let stride = record_bytes(specs);
    stride.checked_mul(count).ok_or_else(|| {
        Error::Setting(format!(
            "{count} records of {stride} bytes are more than any memory"
        ))
    })
}

/// Bytes of an array and of the gap to the next.
fn room(spec: &ArraySpec) -> usize {
    let room = spec.bytes().checked_next_multiple_of(ALIGN);
    room.unwrap_or(usize::MAX)
}

impl Records {
    /// `count` records in a buffer that has room for them: see [`bytes_of`].
    pub(super) fn new(specs: Vec<ArraySpec>, count: usize, buffer: Buffer) -> Self {
        let stride = record_bytes(&specs);
        let mut next = 0_usize;
        let place = |spec: &ArraySpec| {
            let here = next;
            next = next.saturating_add(room(spec));
            here
        };
        let offsets = specs.iter().map(place).collect();
        Self {
            specs,
            offsets,
            stride,
            count,
            buffer,
        }
    }

    /// Their memory.
    pub(super) fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// The arrays of a record.
    pub(super) fn specs(&self) -> &[ArraySpec] {
        &self.specs
    }

    /// How many records there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of all records.
    pub(super) fn bytes(&self) -> usize {
        self.stride * self.count
    }

    /// Array number `field` of record number `record`, for a plan to work on.
    pub(super) fn view(&self, record: usize, field: usize) -> View<'_> {
        let at = self.part((record, field, 0));
        self.buffer.view(at, self.specs[field].bytes())
    }

    /// Copies an array out, when all work queued before is done.
    pub(super) fn get(&self, record: usize, field: usize) -> Result<Array> {
        plan::read(self.view(record, field), &self.specs[field])
    }

    /// Array number `field` of every record, when all work queued before is done: the device is waited for
    /// once.
    pub(super) fn column(&self, field: usize) -> Result<Vec<Array>> {
        let spec = &self.specs[field];
        let mut bytes = vec![0; self.bytes()];
        self.buffer.read(0, &mut bytes)?;
        let array = |record: usize| {
            let at = record * self.stride + self.offsets[field];
            Array::from_bytes(spec.dtype, spec.shape.clone(), &bytes[at..][..spec.bytes()])
                .expect("as many bytes as the spec says")
        };
        Ok((0..self.count).map(array).collect())
    }

    /// Copies the bytes of a record out, when all work queued before is done.
    pub(super) fn read(&self, record: usize, bytes: &mut [u8]) -> Result<()> {
        Ok(self.buffer.read(self.start(record), bytes)?)
    }

    /// Copies the bytes of a record in.
    pub(super) fn write(&self, record: usize, bytes: &[u8]) -> Result<()> {
        Ok(self.buffer.write(self.start(record), bytes)?)
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
        self.start(record) + self.offsets[field] + byte
    }

    /// Where a record begins.
    fn start(&self, record: usize) -> usize {
        assert!(record < self.count, "record {record} of {}", self.count);
        record * self.stride
    }

    /// Sets one record to zero.
    pub(super) fn zero(&self, record: usize) -> Result<()> {
        Ok(self.buffer.zero(self.start(record), self.stride)?)
    }

    /// Sets one array of a record to zero.
    pub(super) fn zero_field(&self, record: usize, field: usize) -> Result<()> {
        let at = self.part((record, field, 0));
        Ok(self.buffer.zero(at, self.specs[field].bytes())?)
    }
}
