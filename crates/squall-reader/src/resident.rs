//! The selected rows of a dataset in memory: read once, cells decoded, served to every epoch.
//!
//! Rows come from a scan of the selection, before the first batch. They lie in parts of row groups, in stored order, those of fixed
//! width row after row, whatever the width. Batches are gathered from them as they are from windows, which nobody decodes then: order,
//! shares and states do not know of it. A cell that cannot be decoded stays as it is stored, and is decoded again for the batch that
//! has its row, which fails or skips it as any reader does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow_schema::{Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use arrow_select::interleave::interleave;
use arrow_select::take::take;
use squall_schema::arrow::{field_to_arrow, schema_to_arrow};
use squall_schema::codec::decode_column;
use squall_schema::{Error, Field, Result};

use crate::block::{Layout, Taken};
use crate::cells;
use crate::decode::DECODE_ROWS;
use crate::io::Io;
use crate::pack::Output;
use crate::plan::ReadPlan;
use crate::scan::Scan;
use crate::select::SelectedPiece;
use crate::source::Source;
use crate::window::{Decoded, held_bytes};

/// Bytes of a part of a row group that is read at a time: bounds, and the share of the budget that all of those on their way have.
const PART_BYTES: (u64, u64) = (1 << 20, 32 << 20);
const PARTS_OF_BUDGET: u64 = 16;

/// Bytes of decoded cells that are moved at a time, about.
const STEP_BYTES: u64 = 4 << 20;

/// About what the bookkeeping of a cell takes that cannot be decoded.
const BAD_CELL_BYTES: u64 = 128;

/// The rows of a dataset.
#[derive(Debug)]
pub(crate) struct Resident {
    layout: Layout,
    parts: Vec<Part>,
    /// For each piece of the dataset its first part, and the rows of each of its parts but the last.
    places: Vec<Option<(u32, u64)>>,
}

/// Rows of a piece that follow one another in the selection.
#[derive(Debug)]
struct Part {
    /// `None` until a row of it comes.
    decoded: Option<Decoded>,
    rows: u64,
    bad: BadCells,
}

/// By column and place in the part, the cells that cannot be decoded, as columns of one row.
type BadCells = BTreeMap<(usize, u32), ArrayRef>;

/// What is in memory of all datasets of a plan.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loaded {
    /// Bytes that are held.
    pub(crate) held: u64,
    /// Bytes that were fetched for it.
    pub(crate) fetched: u64,
}

/// Reads the datasets of a plan that are to be kept in memory.
pub(crate) fn load(plan: &mut ReadPlan, io: &Arc<Io>) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    if !plan.sources.iter().any(|source| source.in_memory) {
        return Ok(loaded);
    }
    let rows_of_batch = plan.share.global_batch.div_ceil(plan.share.world_size);
    let least = plan
        .sources
        .iter()
        .map(|source| source.least_memory(rows_of_batch, plan.slice_size).bytes());
    let room = Arc::new(Room {
        budget: plan.memory_budget,
        limit: plan.memory_budget.saturating_sub(least.fold(0, u64::saturating_add)),
        taken: AtomicU64::new(0),
    });
    let mut sources = plan.sources.to_vec();
    for source in sources.iter_mut().filter(|source| source.in_memory) {
        let scan = Scan {
            dataset: source.dataset.clone(),
            footers: source.footers.clone(),
            io: io.clone(),
            workers: plan.workers,
            bytes: Arc::default(),
        };
        let before = room.taken.load(Ordering::Relaxed);
        let resident = Resident::load(source, &scan, &room)?;
        // What rows took while they came was a guess where they have no fixed width.
        let held: u64 = resident.parts.iter().map(Part::bytes).sum();
        room.taken.store(before.saturating_add(held), Ordering::Relaxed);
        loaded.held = loaded.held.saturating_add(held);
        loaded.fetched += scan.bytes.load(Ordering::Relaxed);
        source.resident = Some(Arc::new(resident));
    }
    plan.sources = sources.into();
    Ok(loaded)
}

/// What the rows of all datasets may take.
struct Room {
    budget: u64,
    limit: u64,
    taken: AtomicU64,
}

impl Room {
    fn take(&self, bytes: u64, rows: u64) -> Result<()> {
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        match taken <= self.limit {
            true => Ok(()),
            false => Err(self.too_small(rows, format!("more than {}", self.limit))),
        }
    }

    fn too_small(&self, rows: u64, take: String) -> Error {
        Error::invalid(format!(
            "the {rows} selected rows do not fit in memory: decoded they take {take} bytes, and a memory budget of {} bytes leaves {} \
             for them; give more memory, fewer columns or rows, or read without in_memory",
            self.budget, self.limit
        ))
    }
}

impl Resident {
    fn load(source: &Source, scan: &Scan, room: &Arc<Room>) -> Result<Self> {
        let columns = Arc::new(Columns::new(source)?);
        let stride = columns.layout.stride() as u64;
        let n_rows = source.selection.rows();
        let fixed = n_rows.saturating_mul(stride);
        if room.taken.load(Ordering::Relaxed).saturating_add(fixed) > room.limit {
            let error = room.too_small(n_rows, format!("at least {fixed}"));
            return Err(error.at("URL", source.dataset.url()));
        }
        let at_once = (scan.workers as u64 + 1).saturating_mul(PARTS_OF_BUDGET);
        let part_bytes = (room.budget / at_once).clamp(PART_BYTES.0, PART_BYTES.1);
        let mut places = vec![None; source.dataset.pieces().len()];
        let mut selected = Vec::new();
        for piece in source.selection.pieces() {
            let (rows, bytes) = (
                piece.rows.len(),
                source.dataset.pieces()[piece.piece as usize].compressed_bytes,
            );
            let rows_of_part = rows.div_ceil(bytes.div_ceil(part_bytes).clamp(1, rows));
            let first = u32::try_from(selected.len()).map_err(|_| Error::unsupported("too many row groups to keep"))?;
            places[piece.piece as usize] = Some((first, rows_of_part));
            let mut start = 0;
            while start < rows {
                let part: Range<u64> = start..rows.min(start + rows_of_part);
                start = part.end;
                selected.push(SelectedPiece {
                    piece: piece.piece,
                    rows: piece.rows.part(&part),
                });
            }
        }
        let new_part = |selected: &SelectedPiece| Part {
            decoded: None,
            rows: selected.rows.len(),
            bad: BadCells::new(),
        };
        let (own, room) = (columns.clone(), room.clone());
        let push = move |part: &mut Part, batch: RecordBatch| own.push(&batch, part, &room, n_rows);
        let parts = scan.fold(&selected, &source.columns, new_part, push)?;
        Ok(Self {
            layout: columns.layout.clone(),
            parts,
            places,
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Lets the rows that a batch takes say where they are: in which of the parts that are returned, and where there. `place` tells
    /// for a row of the batch its piece, and its place among the selected rows of it.
    pub(crate) fn find(&self, taken: &mut [Taken], place: impl Fn(u32) -> (u32, u64)) -> Result<Found<'_>> {
        let nowhere = || Error::internal("a row is not in memory");
        let mut of_part = vec![u32::MAX; self.parts.len()];
        let mut parts = Vec::new();
        for row in taken {
            let (piece, place) = place(row.out);
            let (first, rows_of_part) = self.places.get(piece as usize).copied().flatten().ok_or_else(nowhere)?;
            let number = first as usize + (place / rows_of_part) as usize;
            let own = of_part.get_mut(number).ok_or_else(nowhere)?;
            if *own == u32::MAX {
                *own = parts.len() as u32;
                parts.push(&self.parts[number]);
            }
            row.window = *own;
            row.at = (place % rows_of_part) as u32;
        }
        Ok(Found { parts })
    }
}

/// The parts that a batch has rows of.
pub(crate) struct Found<'a> {
    parts: Vec<&'a Part>,
}

impl<'a> Found<'a> {
    pub(crate) fn decoded(&self) -> Vec<Option<&'a Decoded>> {
        self.parts.iter().map(|part| part.decoded.as_ref()).collect()
    }

    /// The error of the first row of the batch whose cell cannot be decoded.
    pub(crate) fn bad_cell(&self, column: usize, field: &Field, taken: &[Taken]) -> Option<Error> {
        if self.parts.iter().all(|part| part.bad.is_empty()) {
            return None;
        }
        let cell = |row: &Taken| {
            let cell = self.parts[row.window as usize].bad.get(&(column, row.at))?;
            Some((row.out, cell))
        };
        let (row, cell) = taken.iter().filter_map(cell).min_by_key(|(row, _)| *row)?;
        Some(match decode_column(cell, field).map_err(cells::in_batch) {
            Err(error) => error.replace_place("batch row", row),
            Ok(_) => Error::internal("a cell that could not be decoded can be now").at("batch row", row),
        })
    }
}

impl Part {
    fn bytes(&self) -> u64 {
        let mut seen = Default::default();
        let bad = self
            .bad
            .values()
            .map(|cell| held_bytes(cell, &mut seen) + BAD_CELL_BYTES);
        self.decoded.as_ref().map_or(0, Decoded::bytes) + bad.sum::<u64>()
    }
}

/// The columns that are kept.
#[derive(Debug)]
struct Columns {
    layout: Layout,
    schema: SchemaRef,
    beside: Vec<usize>,
    /// Those whose cells are decoded.
    cells: Vec<(usize, Field)>,
    /// Rows that are decoded at a time.
    step: u64,
}

impl Columns {
    fn new(source: &Source) -> Result<Self> {
        let stored = schema_to_arrow(&source.samples.schema)?;
        let mut fields: Vec<ArrowField> = stored.fields().iter().map(|field| field.as_ref().clone()).collect();
        let (mut cells, mut packed) = (Vec::new(), Vec::new());
        for (output, field) in source.gathering.outputs.iter().zip(source.decoded.fields()) {
            match output {
                Output::Packed(places) => packed.extend(places),
                Output::Column(place) if field.codec.is_some() => {
                    // A cell that cannot be decoded has no value.
                    fields[*place] = field_to_arrow(field)?.with_nullable(true);
                    cells.push((*place, field.clone()));
                }
                Output::Column(_) => {}
            }
        }
        let schema = Arc::new(ArrowSchema::new(fields));
        let layout = Layout::of_any_width(&schema, &packed);
        let row = (layout.stride() as u64).max(source.footprint.stored).max(1);
        Ok(Self {
            beside: layout.beside(),
            layout,
            schema,
            cells,
            step: (STEP_BYTES / row).clamp(1, DECODE_ROWS),
        })
    }

    /// Adds rows in their stored columns to a part.
    fn push(&self, batch: &RecordBatch, part: &mut Part, room: &Room, n_rows: u64) -> Result<()> {
        if part.decoded.is_none() {
            room.take(part.rows.saturating_mul(self.layout.stride() as u64), n_rows)?;
            part.decoded = Some(Decoded::with_room(part.rows, &self.layout, Vec::new())?);
        }
        let Part {
            decoded: Some(decoded),
            bad,
            ..
        } = part
        else {
            return Err(Error::internal("a part without room"));
        };
        let mut start = 0;
        while start < batch.num_rows() {
            let rows = (batch.num_rows() - start).min(self.step as usize);
            let first = decoded.rows() as u32;
            let mut columns = batch.slice(start, rows).columns().to_vec();
            let mut bytes = 0;
            for (place, field) in &self.cells {
                columns[*place] = decode_cells(&columns[*place], field, |row, cell| {
                    bytes += BAD_CELL_BYTES + cell.get_array_memory_size() as u64;
                    bad.insert((*place, first + row), cell);
                })?;
            }
            for place in &self.beside {
                columns[*place] = own(&columns[*place])?;
                bytes += columns[*place].get_array_memory_size() as u64;
            }
            room.take(bytes, n_rows)?;
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let step = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
            let step =
                step.map_err(|error| Error::internal("kept columns do not fit their schema").with_source(error))?;
            decoded.push(&step, &self.layout, &self.beside)?;
            start += rows;
        }
        Ok(())
    }
}

/// The values of cells. Those that cannot be decoded are handed to `bad`, with their rows, and have any value.
fn decode_cells(column: &ArrayRef, field: &Field, mut bad: impl FnMut(u32, ArrayRef)) -> Result<ArrayRef> {
    if let Ok(decoded) = decode_column(column, field) {
        return Ok(decoded);
    }
    let mut good = Vec::new();
    // Of each row the place of its value among the good ones.
    let mut places = Vec::with_capacity(column.len());
    for row in 0..column.len() {
        let cell = column.slice(row, 1);
        let is_good = decode_column(&cell, field).is_ok();
        places.push((0, if is_good { good.len() } else { 0 }));
        match is_good {
            true => good.push(row as u32),
            false => bad(row as u32, own(&cell)?),
        }
    }
    if good.is_empty() {
        return Ok(new_null_array(field_to_arrow(field)?.data_type(), column.len()));
    }
    let failed = |error| Error::internal("cannot part cells").with_source(error);
    let good = take(column, &UInt32Array::from(good), None).map_err(failed)?;
    let decoded = decode_column(&good, field)?;
    interleave(&[decoded.as_ref()], &places).map_err(failed)
}

/// The column, without the memory of rows that are not in it.
fn own(column: &ArrayRef) -> Result<ArrayRef> {
    use arrow_array::cast::AsArray;
    use arrow_schema::DataType;
    match column.data_type() {
        DataType::BinaryView => return Ok(Arc::new(column.as_binary_view().gc())),
        DataType::Utf8View => return Ok(Arc::new(column.as_string_view().gc())),
        _ => {}
    }
    let held = held_bytes(column, &mut Default::default());
    let own = column.to_data().get_slice_memory_size().unwrap_or(0) as u64;
    if held <= own + own / 4 {
        return Ok(column.clone());
    }
    let places: Vec<_> = (0..column.len()).map(|row| (0, row)).collect();
    let copied = interleave(&[column.as_ref()], &places);
    copied.map_err(|error| Error::internal("cannot copy a column").with_source(error))
}
