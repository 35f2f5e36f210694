//! Where decoders put the values of a column.

use arrow_buffer::{Buffer, MutableBuffer};

/// Where columns take their memory from.
pub trait CellMemory {
    /// Memory that was used before, for a column of about so many bytes; what is in it is written over. Empty if there is none.
    fn take(&self, bytes: usize) -> MutableBuffer;

    /// The values of a column, the first `len` bytes of this memory.
    fn finish(&self, memory: MutableBuffer, len: usize) -> Buffer;
}

/// Memory that is new for each column, and goes with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct FreshMemory;

impl CellMemory for FreshMemory {
    fn take(&self, _: usize) -> MutableBuffer {
        MutableBuffer::new(0)
    }

    fn finish(&self, mut memory: MutableBuffer, len: usize) -> Buffer {
        memory.truncate(len);
        memory.into()
    }
}

use super::reserve;

/// The bytes of a column that is being made. Memory that was used before is written over, and not cleared first: for values of
/// some hundred kilobytes that would cost as much as fresh memory does.
#[derive(Debug)]
pub(super) struct Room {
    /// Behind the first `len` bytes are those of an earlier column.
    bytes: MutableBuffer,
    len: usize,
}

impl Room {
    pub(super) fn new(used: MutableBuffer) -> Self {
        Self { bytes: used, len: 0 }
    }

    /// Makes room for so many bytes more; `None` if there is none.
    pub(super) fn reserve(&mut self, more: usize) -> Option<()> {
        let missing = self.len.checked_add(more)?.saturating_sub(self.bytes.len());
        reserve(&mut self.bytes, missing)
    }

    /// The next bytes, all of which are to be written over; `None` if there is no memory for them.
    pub(super) fn next(&mut self, size: usize) -> Option<&mut [u8]> {
        self.reserve(size)?;
        let start = self.len;
        self.len += size;
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len, 0);
        }
        Some(&mut self.bytes.as_slice_mut()[start..self.len])
    }

    /// What was written.
    pub(super) fn written(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.len]
    }

    /// Keeps the first bytes only.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn finish(self, memory: &dyn CellMemory) -> Buffer {
        memory.finish(self.bytes, self.len)
    }
}

/// Memory full of what was there before.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Stale;

#[cfg(test)]
impl CellMemory for Stale {
    fn take(&self, bytes: usize) -> MutableBuffer {
        let mut memory = MutableBuffer::new(0);
        memory.resize(bytes + 100, 0xa5);
        memory
    }

    fn finish(&self, memory: MutableBuffer, len: usize) -> Buffer {
        FreshMemory.finish(memory, len)
    }
}
