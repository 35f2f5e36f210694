//! The rows of a batch, picked from the windows of its lanes.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_data::ArrayData;
use arrow_schema::DataType;
use arrow_select::concat::concat;
use arrow_select::interleave::interleave;
use squall_schema::arrow::{field_to_arrow, schema_to_arrow};
use squall_schema::codec::{Codec, decode_column};
use squall_schema::{Error, Field, Result, RowId, Schema};

use crate::block::{Block, Layout, Taken, array_of};
use crate::budget::Permit;
use crate::cells;
use crate::metrics::{Counters, Part as Work};
use crate::order::{Segment, Shuffle};
use crate::pack::{Output, packed_values};
use crate::plan::{Pass, PlannedBatch};
use crate::random::Permutation;
use crate::row_set::RowSet;
use crate::source::Source;
use crate::transform::record_batch;

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
    block: Block,
    /// The place in stored order of each row of a window; empty where nothing is laid out.
    stored: Vec<u32>,
    /// The place in the block of each row that is still to come; empty where that is its place in stored order.
    places: Vec<u32>,
    /// The other columns, in stored order.
    beside: Vec<RecordBatch>,
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
    fn locate(&self, stored: u64) -> (usize, usize) {
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

/// Rows of a window, by their places in the lane.
pub(crate) struct Pick {
    pub(crate) window: Arc<Window>,
    /// The place of its stretch in the batch.
    pub(crate) stretch: usize,
    pub(crate) rows: Range<u64>,
}

/// What is made of the columns of the windows, and how they lie there.
#[derive(Debug, Clone)]
pub(crate) struct Gathering {
    pub(crate) layout: Layout,
    /// For each field of a batch the columns that it is made of.
    pub(crate) outputs: Vec<Output>,
}

impl Gathering {
    /// How batches with the fields `decoded` are made of samples with the fields `stored`; each is one of these where
    /// `outputs` are not as many.
    pub(crate) fn new(stored: &Schema, decoded: &Schema, outputs: Vec<Output>, shuffle: Shuffle) -> Result<Self> {
        let n = stored.fields().len();
        let outputs = match decoded.fields().len() == outputs.len() {
            true => outputs,
            false => (0..n).map(Output::Column).collect(),
        };
        let packed = outputs.iter().filter_map(|output| match output {
            Output::Packed(columns) => Some(columns),
            Output::Column(_) => None,
        });
        let neighbours: Vec<_> = packed.flatten().copied().collect();
        let layout = match shuffle {
            // Rows that stay in their order are slices of the columns.
            Shuffle::None => Layout::of_columns(n),
            _ => Layout::new(&*schema_to_arrow(stored)?, &neighbours),
        };
        Ok(Self { layout, outputs })
    }

    /// The fields `schema` of rows that are given in their stored columns.
    pub(crate) fn decode(&self, stored: &RecordBatch, schema: &Schema) -> Result<RecordBatch> {
        let columns = self
            .outputs
            .iter()
            .zip(schema.fields())
            .map(|(output, field)| match output {
                Output::Column(place) if field.codec.is_none() => Ok(stored.column(*place).clone()),
                Output::Column(place) => decode_column(stored.column(*place), field).map_err(cells::in_batch),
                Output::Packed(places) => {
                    let columns: Vec<_> = places.iter().map(|place| stored.column(*place)).collect();
                    let bytes = packed_values(&columns).map_err(|error| error.at("column", &field.name));
                    tensor_column(bytes?, stored.num_rows(), field)
                }
            });
        record_batch(schema, columns.collect::<Result<_>>()?, stored.num_rows())
    }
}

/// Which row of which window each row of a batch is.
pub(crate) struct Picked<'a> {
    windows: Vec<&'a Window>,
    /// The rows, window after window.
    taken: Vec<Taken>,
    /// For each row of the batch its place in the stored order of its window.
    stored: Vec<u64>,
    /// For each row of the batch its place among the selected rows of its row group. Empty where no dataset is kept in memory.
    places: Vec<u64>,
    pub(crate) ids: Vec<RowId>,
}

impl<'a> Picked<'a> {
    /// The rows of the batch in its order.
    pub(crate) fn new(batch: &'a PlannedBatch) -> Self {
        let rows = batch
            .picks
            .iter()
            .map(|pick| pick.rows.end - pick.rows.start)
            .sum::<u64>() as usize;
        // The batch says which picked row each of its rows is; what is wanted is where each picked row goes.
        let mut outs = vec![0; rows];
        batch
            .permutation
            .each(rows as u64, |out, row| outs[row as usize] = out as u32);
        let mut outs = outs.into_iter();
        let mut windows: Vec<&Window> = Vec::new();
        let mut segments = Vec::new();
        let mut taken = Vec::with_capacity(rows);
        let mut stored_of = vec![0; rows];
        let mut ids = vec![RowId::default(); rows];
        let is_resident = |pick: &Pick| pick.window.pass.resident.is_some();
        let mut places = match batch.picks.iter().any(is_resident) {
            true => vec![0; rows],
            false => Vec::new(),
        };
        for pick in &batch.picks {
            let window = &*pick.window;
            if windows.last().is_none_or(|last| !std::ptr::eq(*last, window)) {
                windows.push(window);
                segments = segments_of(window);
            }
            let (order, stretch) = (&window.pass.order, &batch.stretches[pick.stretch]);
            let table = window.decoded.get().map_or(&[][..], |decoded| &decoded.stored);
            let own = pick.rows.start - window.rows.start..pick.rows.end - window.rows.start;
            let mut put = |at: u64, stored: u64| {
                let out = outs.next().unwrap_or_default();
                taken.push(Taken {
                    window: windows.len() as u32 - 1,
                    at: at as u32,
                    out,
                });
                stored_of[out as usize] = stored;
                let identity = RowId {
                    epoch: batch.epoch,
                    sample: stretch.number((window.rows.start + at) * order.lanes() + window.lane),
                    padded: stretch.layer > 0,
                    ..RowId::default()
                };
                let (id, place) = row_at(window, &segments, stored, identity);
                ids[out as usize] = id;
                if let Some(own) = places.get_mut(out as usize) {
                    *own = place;
                }
            };
            match table.get(own.start as usize..own.end as usize) {
                Some(table) => own.zip(table).for_each(|(at, stored)| put(at, u64::from(*stored))),
                None => window.permutation.each_of(own, put),
            }
        }
        Self {
            windows,
            taken,
            stored: stored_of,
            places,
            ids,
        }
    }

    /// Rows of the window that a row is from.
    pub(crate) fn window_len(&self, row: usize) -> u64 {
        self.window_of(row)
            .map_or(0, |window| window.rows.end - window.rows.start)
    }

    fn window_of(&self, row: usize) -> Option<&'a Window> {
        let taken = self.taken.iter().find(|taken| taken.out as usize == row)?;
        Some(self.windows[taken.window as usize])
    }

    /// Puts the next row of its window in a row's place, around the window's end.
    pub(crate) fn substitute(&mut self, row: usize) {
        let Some(taken) = self.taken.iter_mut().find(|taken| taken.out as usize == row) else {
            return;
        };
        let window = self.windows[taken.window as usize];
        let stored = (self.stored[row] + 1) % (window.rows.end - window.rows.start);
        taken.at = window.permutation.inverse(stored) as u32;
        self.stored[row] = stored;
        let (id, place) = row_at(window, &segments_of(window), stored, self.ids[row]);
        self.ids[row] = id;
        if let Some(own) = self.places.get_mut(row) {
            *own = place;
        }
    }

    /// The rows of the batch that come from a dataset of the plan.
    pub(crate) fn rows_of(&self, source: usize) -> Vec<usize> {
        let mut rows: Vec<_> = self.taken_of(source).map(|taken| taken.out as usize).collect();
        rows.sort_unstable();
        rows
    }

    fn taken_of(&self, source: usize) -> impl Iterator<Item = &Taken> {
        let own = move |taken: &&Taken| self.windows[taken.window as usize].pass.source == source;
        self.taken.iter().filter(own)
    }

    /// The rows of the batch that come from a dataset, cells decoded. `rows` are [`Picked::rows_of`] it. An error names the row
    /// of these.
    pub(crate) fn gather(
        &self,
        place: usize,
        rows: &[usize],
        source: &Source,
        counters: &Counters,
    ) -> Result<RecordBatch> {
        let (gathering, schema) = (&*source.gathering, &*source.decoded);
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(schema_to_arrow(schema)?));
        }
        let mut taken: Vec<_> = self.taken_of(place).copied().collect();
        if taken.len() < self.taken.len() {
            for row in &mut taken {
                row.out = rows.partition_point(|own| *own < row.out as usize) as u32;
            }
        }
        let undecoded = || Error::internal("a window is gathered before it is decoded");
        let (layout, decoded, found) = match &source.resident {
            Some(resident) => {
                let place = |out: u32| (self.ids[rows[out as usize]].piece, self.places[rows[out as usize]]);
                let found = resident.find(&mut taken, place)?;
                (resident.layout(), found.decoded(), Some(found))
            }
            None => {
                let decoded: Vec<_> = self.windows.iter().map(|window| window.decoded.get()).collect();
                (&gathering.layout, decoded, None)
            }
        };
        let none = Block::default();
        let blocks: Vec<_> = decoded
            .iter()
            .map(|decoded| decoded.map_or(&none, |decoded| &decoded.block))
            .collect();
        if taken.iter().any(|row| decoded[row.window as usize].is_none()) {
            return Err(undecoded());
        }
        let beside = match layout.beside() {
            columns if columns.is_empty() => None,
            columns => Some(Beside::new(columns, &decoded, &taken, |row| match &found {
                Some(_) => u64::from(row.at),
                None => self.stored[rows[row.out as usize]],
            })),
        };
        let column = |place: usize| match (layout.has(place), &beside) {
            (true, _) => layout.column(place, &taken, &blocks),
            (false, Some(beside)) => beside.column(place),
            (false, None) => Err(Error::internal("a column is nowhere")),
        };
        let is_cell = |field: &Field| !matches!(field.codec, None | Some(Codec::SparkVector));
        let output = |(output, field): (&Output, &Field)| {
            let at = |error: Error| error.at("column", &field.name);
            match output {
                Output::Column(place) if field.codec.is_none() => column(*place).map_err(at),
                // What is kept was decoded once, but for cells that cannot be.
                Output::Column(place) if found.is_some() => {
                    let bad = found.iter().find_map(|found| found.bad_cell(*place, field, &taken));
                    bad.map_or_else(|| column(*place), Err)
                }
                Output::Column(place) if !is_cell(field) => {
                    decode_column(&column(*place)?, field).map_err(cells::in_batch)
                }
                Output::Column(place) => match &beside {
                    Some(beside) => cells::decode(&beside.cells(*place)?, field),
                    None => Err(Error::internal("a cell has a fixed width")),
                },
                Output::Packed(places) => {
                    let bytes = if places.iter().all(|place| layout.has(*place)) {
                        layout.packed(places, &taken, &blocks)
                    } else {
                        let columns = places.iter().map(|place| column(*place)).collect::<Result<Vec<_>>>()?;
                        packed_values(&columns.iter().collect::<Vec<_>>())
                    };
                    tensor_column(bytes.map_err(at)?, rows.len(), field)
                }
            }
        };
        let mut columns = vec![None; schema.fields().len()];
        for (part, cells) in [(Work::Gather, false), (Work::Cells, true)] {
            counters.time(part, || {
                let outputs = gathering.outputs.iter().zip(schema.fields()).zip(&mut columns);
                for ((own, field), column) in outputs.filter(|((_, field), _)| is_cell(field) == cells) {
                    *column = Some(output((own, field))?);
                }
                Ok::<_, Error>(())
            })?;
        }
        record_batch(schema, columns.into_iter().flatten().collect(), rows.len())
    }
}

/// The columns that are not laid out in rows, and where the rows of a batch are in them.
struct Beside<'a> {
    /// Which columns they are.
    columns: Vec<usize>,
    batches: Vec<&'a RecordBatch>,
    /// For each row of the batch its batch of columns and its place there.
    places: Vec<(usize, usize)>,
}

impl<'a> Beside<'a> {
    fn new(
        columns: Vec<usize>,
        decoded: &[Option<&'a Decoded>],
        taken: &[Taken],
        stored: impl Fn(&Taken) -> u64,
    ) -> Self {
        let mut bases = Vec::with_capacity(decoded.len());
        let mut batches: Vec<&RecordBatch> = Vec::new();
        for decoded in decoded {
            bases.push(batches.len());
            batches.extend(decoded.iter().flat_map(|decoded| &decoded.beside));
        }
        let mut places = vec![(0, 0); taken.len()];
        for row in taken {
            let window = row.window as usize;
            if let Some(decoded) = decoded[window] {
                let (batch, place) = decoded.locate(stored(row));
                places[row.out as usize] = (bases[window] + batch, place);
            }
        }
        Self {
            columns,
            batches,
            places,
        }
    }

    fn arrays(&self, column: usize) -> Result<impl Iterator<Item = &'a ArrayRef>> {
        let place = self.columns.iter().position(|own| *own == column);
        let place = place.ok_or_else(|| Error::internal("a column is not beside the rows"))?;
        Ok(self.batches.iter().map(move |batch| batch.column(place)))
    }

    fn column(&self, column: usize) -> Result<ArrayRef> {
        let arrays: Vec<_> = self.arrays(column)?.map(|array| array.as_ref()).collect();
        let failed = |error| Error::internal("cannot mix rows").with_source(error);
        if arrays.iter().any(|array| *array.data_type() == DataType::BinaryView) {
            return binary_column(&self.cells(column)?);
        }
        if let Some(parts) = runs(&self.places) {
            // Rows that are not shuffled: nothing is copied where they lie in one batch.
            let parts: Vec<_> = parts
                .iter()
                .map(|(batch, rows)| arrays[*batch].slice(rows.start, rows.len()))
                .collect();
            return match &parts[..] {
                [whole] => Ok(whole.clone()),
                parts => concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>()).map_err(failed),
            };
        }
        interleave(&arrays, &self.places).map_err(failed)
    }

    /// The encoded cells of a column, where they lie.
    fn cells(&self, column: usize) -> Result<Vec<Option<&'a [u8]>>> {
        let arrays: Vec<_> = self.arrays(column)?.collect();
        let cell = |(batch, row): &(usize, usize)| {
            let array = arrays[*batch];
            if array.is_null(*row) {
                return Ok(None);
            }
            match array.data_type() {
                DataType::BinaryView => Ok(Some(array.as_binary_view().value(*row))),
                DataType::Binary => Ok(Some(array.as_binary::<i32>().value(*row))),
                other => Err(Error::internal(format!("a cell of {other}"))),
            }
        };
        self.places.iter().map(cell).collect()
    }
}

/// Cells that are delivered as they are stored.
fn binary_column(cells: &[Option<&[u8]>]) -> Result<ArrayRef> {
    let bytes: usize = cells.iter().flatten().map(|cell| cell.len()).sum();
    if i32::try_from(bytes).is_err() {
        return Err(Error::unsupported(format!(
            "a batch of {} cells with {bytes} bytes: expected less than 2^31; make smaller batches",
            cells.len()
        )));
    }
    let mut column = BinaryBuilder::with_capacity(cells.len(), bytes);
    cells.iter().for_each(|cell| column.append_option(*cell));
    Ok(Arc::new(column.finish()))
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

/// The places as a few runs of rows that follow one another, if they are that.
fn runs(places: &[(usize, usize)]) -> Option<Vec<(usize, Range<usize>)>> {
    /// More are mixed row by row.
    const MOST: usize = 8;
    let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
    for (batch, row) in places {
        let n = runs.len();
        match runs.last_mut() {
            Some((last, rows)) if last == batch && rows.end == *row => rows.end += 1,
            _ if n == MOST => return None,
            _ => runs.push((*batch, *row..*row + 1)),
        }
    }
    Some(runs)
}

/// A tensor column from the values of its rows, a byte for each boolean.
fn tensor_column(bytes: arrow_buffer::Buffer, rows: usize, field: &Field) -> Result<ArrayRef> {
    let arrow = field_to_arrow(field)?;
    let is_bool =
        matches!(arrow.data_type(), DataType::FixedSizeList(item, _) if *item.data_type() == DataType::Boolean);
    let values = match is_bool {
        true => BooleanBuffer::collect_bool(bytes.len(), |i| bytes[i] != 0).into_inner(),
        false => bytes,
    };
    array_of(arrow.data_type(), rows, values, None)
}

/// The rows at these places, batch and row, of batches with the columns of `schema`.
pub(crate) fn interleave_batches(
    schema: &Schema,
    batches: &[&RecordBatch],
    places: &[(usize, usize)],
) -> Result<RecordBatch> {
    let column = |i: usize| {
        let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(i).as_ref()).collect();
        interleave(&parts, places).map_err(|error| Error::internal("cannot mix rows").with_source(error))
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
    record_batch(schema, columns, places.len())
}

/// The pieces that a window has rows of: for each the first row of the window, in stored order, and its segment.
fn segments_of(window: &Window) -> Vec<(u64, Segment)> {
    let mut segments = Vec::with_capacity(2);
    let mut at = window.rows.start;
    while at < window.rows.end {
        let segment = window.pass.order.segment_at(window.lane, at);
        let next = at + (segment.rows.end - segment.rows.start);
        segments.push((at - window.rows.start, segment));
        at = next;
    }
    segments
}

/// What the row of a window is that stands in this place in stored order, and its place among the selected rows of its row group.
fn row_at(window: &Window, segments: &[(u64, Segment)], stored: u64, identity: RowId) -> (RowId, u64) {
    let segment = segments.partition_point(|(first, _)| *first <= stored) - 1;
    let (first, segment) = &segments[segment];
    let piece = &window.pass.selection.pieces()[segment.piece as usize];
    let n = segment.rows.start + (stored - first);
    let id = RowId {
        dataset: window.pass.source as u32,
        piece: piece.piece,
        row: piece.rows.nth(n),
        ..identity
    };
    let place = match &piece.rows {
        RowSet::Drawn(drawn) => drawn.first(n),
        _ => n,
    };
    (id, place)
}
