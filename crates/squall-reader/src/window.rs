//! Windows: the rows of a lane that are shuffled together, and where they lie once they are decoded.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_data::ArrayData;
use squall_schema::{Error, Result};

use crate::block::{Block, Layout};
use crate::budget::Permit;
use crate::plan::Pass;
use crate::random::Permutation;

/// A window of a lane: rows that are shuffled together.
pub(crate) struct Window {
    pub(crate) pass: Arc<Pass>,
    pub(crate) lane: u64,
    /// Its rows, counted in the lane.
    pub(crate) rows: Range<u64>,
    pub(crate) permutation: Permutation,
    /// Its rows, once they are decoded; never where the dataset is kept in memory.
    pub(crate) decoded: OnceLock<Decoded>,
}

impl Window {
    /// Whether batches can be made of it.
    pub(crate) fn is_here(&self) -> bool {
        self.pass.resident.is_some() || self.decoded.get().is_some()
    }
}

/// The rows of a window, or of a part of a row group that is kept in memory.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// The columns of fixed width, row after row: those of a window in the order of its permutation, others in stored order.
    pub(crate) block: Block,
    /// The place in stored order of each row of a window; empty where nothing is laid out.
    pub(crate) stored: Vec<u32>,
    /// The place in the block of each row that is still to come; empty where that is its place in stored order.
    places: Vec<u32>,
    /// The other columns, in stored order.
    pub(crate) beside: Vec<RecordBatch>,
    /// The first row of each of these batches.
    starts: Vec<u64>,
    /// Rows that were pushed.
    next: u64,
    pool: Weak<BlockPool>,
    permit: Option<Permit>,
}

impl Decoded {
    /// Room for so many rows, in `memory` that was used before.
    pub(crate) fn with_room(rows: u64, layout: &Layout, memory: Vec<u8>) -> Result<Self> {
        let mut block = Block::default();
        if layout.stride() > 0 {
            let too_large = || Error::unsupported(format!("{rows} rows together take more memory than there is"));
            let n = u32::try_from(rows).map_err(|_| too_large())?;
            block = layout.block(n as usize, memory).ok_or_else(too_large)?;
        }
        Ok(Self {
            block,
            stored: Vec::new(),
            places: Vec::new(),
            beside: Vec::new(),
            starts: Vec::new(),
            next: 0,
            pool: Weak::new(),
            permit: None,
        })
    }

    /// Room for the rows of a window. `blocks` has memory of blocks that are gone.
    pub(crate) fn of_window(window: &Window, layout: &Layout, blocks: &Arc<BlockPool>) -> Result<Self> {
        let rows = window.rows.end - window.rows.start;
        let memory = match layout.stride() {
            0 => Vec::new(),
            _ => blocks.take(),
        };
        let mut decoded = Self::with_room(rows, layout, memory)?;
        decoded.pool = Arc::downgrade(blocks);
        if layout.stride() > 0 {
            decoded.stored = Vec::with_capacity(rows as usize);
            decoded.places = vec![0; rows as usize];
            let (stored_of, places) = (&mut decoded.stored, &mut decoded.places);
            window.permutation.each(rows, |place, stored| {
                stored_of.push(stored as u32);
                places[stored as usize] = place as u32;
            });
        }
        Ok(decoded)
    }

    /// Adds the next rows in stored order. `beside` are the columns that the layout leaves.
    pub(crate) fn push(&mut self, batch: &RecordBatch, layout: &Layout, beside: &[usize]) -> Result<()> {
        let rows = batch.num_rows() as u64;
        if layout.stride() > 0 {
            let end = self.next + rows;
            let stored_order: Vec<u32>;
            let places = if self.places.is_empty() {
                stored_order = (self.next..end).map(|row| row as u32).collect();
                &stored_order[..]
            } else {
                let places = self.places.get(self.next as usize..end as usize);
                places.ok_or_else(|| Error::internal("more rows than the window has"))?
            };
            layout.write(batch, places, &mut self.block)?;
        }
        if !beside.is_empty() {
            let beside = batch.project(beside);
            let beside = beside.map_err(|error| Error::internal("cannot part columns").with_source(error))?;
            self.beside.push(beside);
        }
        self.starts.push(self.next);
        self.next += rows;
        Ok(())
    }

    /// Rows that were pushed.
    pub(crate) fn rows(&self) -> u64 {
        self.next
    }

    /// Bytes of the rows, with those that the pages they point into hold.
    pub(crate) fn bytes(&self) -> u64 {
        let mut seen = HashSet::new();
        let beside = self.beside.iter().flat_map(RecordBatch::columns);
        let beside: u64 = beside.map(|column| held_bytes(column, &mut seen)).sum();
        self.block.len() as u64 + 4 * self.stored.len() as u64 + beside
    }

    /// Gives the permit back when the rows go.
    pub(crate) fn with_permit(mut self, permit: Permit) -> Self {
        self.places = Vec::new();
        self.permit = Some(permit);
        self
    }

    /// The batch of columns that holds this stored row, and the row's place there.
    pub(crate) fn locate(&self, stored: u64) -> (usize, usize) {
        let batch = self.starts.partition_point(|start| *start <= stored) - 1;
        (batch, (stored - self.starts[batch]) as usize)
    }
}

impl Drop for Decoded {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give(std::mem::take(&mut self.block).into_bytes());
        }
    }
}

/// Memory of blocks that are gone. A window takes what one before it had: its pages are there already.
#[derive(Debug, Default)]
pub(crate) struct BlockPool(Mutex<Vec<Vec<u8>>>);

impl BlockPool {
    /// More are not kept: what is not needed at once is given back to the system.
    const MOST: usize = 8;

    fn take(&self) -> Vec<u8> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn give(&self, memory: Vec<u8>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.capacity() > 0 && free.len() < Self::MOST {
            free.push(memory);
        }
    }
}

/// Bytes of the buffers of a column that were not seen before: what a slice of it keeps in memory.
pub(crate) fn held_bytes(column: &ArrayRef, seen: &mut HashSet<usize>) -> u64 {
    fn add(data: &ArrayData, seen: &mut HashSet<usize>) -> u64 {
        let own = data
            .buffers()
            .iter()
            .filter(|buffer| seen.insert(buffer.data_ptr().as_ptr() as usize));
        let own: usize = own.map(|buffer| buffer.capacity()).sum();
        own as u64 + data.child_data().iter().map(|child| add(child, seen)).sum::<u64>()
    }
    add(&column.to_data(), seen)
}
