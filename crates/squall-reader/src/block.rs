//! Rows of fixed width, one after the other.
//!
//! A batch takes a few rows of each of many windows. Column by column that is a cache miss a cell; here the cells of a row lie
//! side by side, so that it is one or two a row. The rows of a window lie in the order in which batches take them: a batch
//! reads each window forwards, and what is written here and there is one window, which fits in a processor's own cache, and
//! not those of all lanes. Columns of other types stay columns, in stored order.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Schema as ArrowSchema};
use squall_schema::{Error, Result};

/// Widest value, in bytes, that is laid out in rows. Copying a larger one costs more than missing the cache for it.
const MAX_WIDTH: usize = 256;

/// Rows are whole numbers of words, so that they are copied word by word.
const WORD: usize = 8;

/// Bytes of the rows that are laid out or read together, so that they stay in the first cache for all columns.
const TILE_BYTES: usize = 16 << 10;

/// Where the columns of a batch lie in a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// For each column; `None` for one that stays a column.
    cells: Vec<Option<Cell>>,
    /// Bytes of a row.
    stride: usize,
    /// Where the bits stand that say which values are null.
    nulls: usize,
}

#[derive(Debug, Clone)]
struct Cell {
    at: usize,
    width: usize,
    /// Its bit among those of the nulls, if the column may have some.
    null_bit: Option<usize>,
    data_type: DataType,
}

/// Bytes of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    at: usize,
    width: usize,
}

/// Rows of a layout.
#[derive(Debug, Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// For each column whether there is a null in it; none has where it is empty.
    has_nulls: Vec<bool>,
}

/// A row of a block that a batch takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Which block.
    pub(crate) window: u32,
    /// The row's place there.
    pub(crate) at: u32,
    /// Its place in the batch.
    pub(crate) out: u32,
}

impl Layout {
    /// The layout of these columns; those named in `neighbours` lie side by side, in this order.
    pub(crate) fn new(schema: &ArrowSchema, neighbours: &[usize]) -> Self {
        Self::of_widths(schema, neighbours, MAX_WIDTH)
    }

    /// A layout in which values of any fixed width are in rows: of rows that are read many times, and written once.
    pub(crate) fn of_any_width(schema: &ArrowSchema, neighbours: &[usize]) -> Self {
        Self::of_widths(schema, neighbours, usize::MAX)
    }

    fn of_widths(schema: &ArrowSchema, neighbours: &[usize], most: usize) -> Self {
        let mut layout = Self {
            cells: vec![None; schema.fields().len()],
            stride: 0,
            nulls: 0,
        };
        let mut bits = 0;
        let others = (0..schema.fields().len()).filter(|column| !neighbours.contains(column));
        for column in neighbours.iter().copied().chain(others) {
            let field = &schema.fields()[column];
            if let Some(width) = width_of(field.data_type()).filter(|width| (1..=most).contains(width)) {
                layout.cells[column] = Some(Cell {
                    at: layout.stride,
                    width,
                    null_bit: field.is_nullable().then_some(bits),
                    data_type: field.data_type().clone(),
                });
                layout.stride += width;
                bits += usize::from(field.is_nullable());
            }
        }
        // Behind all values, so that those of neighbours are not parted.
        layout.nulls = layout.stride;
        layout.stride = (layout.stride + bits.div_ceil(8)).next_multiple_of(WORD);
        layout
    }

    /// A layout in which all columns stay columns.
    pub(crate) fn of_columns(n: usize) -> Self {
        Self {
            cells: vec![None; n],
            stride: 0,
            nulls: 0,
        }
    }

    /// Whether a column is laid out in rows.
    pub(crate) fn has(&self, column: usize) -> bool {
        self.cells[column].is_some()
    }

    /// Bytes of a row.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The columns that stay columns.
    pub(crate) fn beside(&self) -> Vec<usize> {
        (0..self.cells.len()).filter(|column| !self.has(*column)).collect()
    }

    /// Room for so many rows; `None` if there is none. What is in it is to be written over.
    pub(crate) fn block(&self, rows: usize, mut used: Vec<u8>) -> Option<Block> {
        let bytes = rows.checked_mul(self.stride)?;
        used.try_reserve_exact(bytes.saturating_sub(used.len())).ok()?;
        used.resize(bytes, 0);
        Some(Block {
            bytes: used,
            has_nulls: Vec::new(),
        })
    }

    /// Lays out the rows of a batch; row `i` goes to place `places[i]` of the block.
    pub(crate) fn write(&self, batch: &RecordBatch, places: &[u32], block: &mut Block) -> Result<()> {
        if self.stride == 0 {
            return Ok(());
        }
        let mut columns = Vec::with_capacity(self.cells.len());
        let mut nulls = Vec::new();
        for (number, (cell, column)) in self.cells.iter().zip(batch.columns()).enumerate() {
            let Some(cell) = cell else { continue };
            columns.push((cell, Values::new(column, cell)?));
            if let (Some(bit), Some(own)) = (cell.null_bit, column.nulls().filter(|nulls| nulls.null_count() > 0)) {
                block.has_nulls.resize(self.cells.len(), false);
                block.has_nulls[number] = true;
                nulls.push((self.nulls + bit / 8, 1u8 << (bit % 8), own));
            }
        }
        let rows_of_tile = (TILE_BYTES / self.stride).max(1);
        let mut tile = vec![0; rows_of_tile.min(places.len()) * self.stride];
        for (n, places) in places.chunks(rows_of_tile).enumerate() {
            let tile = &mut tile[..places.len() * self.stride];
            for (cell, values) in &columns {
                values.put(n * rows_of_tile, cell, tile, self.stride);
            }
            for (row, place) in tile.chunks_exact(self.stride).zip(places) {
                let start = *place as usize * self.stride;
                let (to, _) = block.bytes[start..start + self.stride].as_chunks_mut::<WORD>();
                let (from, _) = row.as_chunks::<WORD>();
                for (to, from) in to.iter_mut().zip(from) {
                    *to = *from;
                }
            }
        }
        for (at, bit, nulls) in nulls {
            for (place, _) in places.iter().zip(nulls).filter(|(_, is_valid)| !is_valid) {
                block.bytes[*place as usize * self.stride + at] |= bit;
            }
        }
        Ok(())
    }

    /// Where a column lies in a row.
    pub(crate) fn span(&self, column: usize) -> Result<Span> {
        let Cell { at, width, .. } = *self.cell(column)?;
        Ok(Span { at, width })
    }

    /// Where columns lie that stand side by side.
    pub(crate) fn span_of(&self, columns: &[usize]) -> Result<Span> {
        let mut all = Span { at: 0, width: 0 };
        for (n, column) in columns.iter().enumerate() {
            let own = self.span(*column)?;
            if n == 0 {
                all.at = own.at;
            }
            if all.at + all.width != own.at {
                return Err(Error::internal("packed columns do not lie side by side"));
            }
            all.width += own.width;
        }
        Ok(all)
    }

    /// These bytes of each row that a batch takes, in the order of the batch. All of a row are read while it is in the first cache.
    pub(crate) fn bytes(&self, spans: &[Span], taken: &[Taken], blocks: &[&Block]) -> Vec<Buffer> {
        let empty = |span: &Span| MutableBuffer::from_len_zeroed(taken.len() * span.width);
        let mut buffers: Vec<_> = spans.iter().map(empty).collect();
        for taken in taken.chunks((TILE_BYTES / self.stride.max(1)).max(1)) {
            for (Span { at, width }, out) in spans.iter().zip(&mut buffers) {
                let out = out.as_slice_mut();
                match width {
                    1 => take::<1>(out, self.stride, *at, taken, blocks),
                    2 => take::<2>(out, self.stride, *at, taken, blocks),
                    4 => take::<4>(out, self.stride, *at, taken, blocks),
                    8 => take::<8>(out, self.stride, *at, taken, blocks),
                    16 => take::<16>(out, self.stride, *at, taken, blocks),
                    _ => take_wide(out, (self.stride, *width), *at, taken, blocks),
                }
            }
        }
        buffers.into_iter().map(Buffer::from).collect()
    }

    /// A column of the rows that a batch takes of these blocks, from its bytes.
    pub(crate) fn column(&self, column: usize, bytes: Buffer, taken: &[Taken], blocks: &[&Block]) -> Result<ArrayRef> {
        let cell = self.cell(column)?;
        let values = match cell.data_type {
            DataType::Boolean => BooleanBuffer::collect_bool(bytes.len(), |i| bytes[i] != 0).into_inner(),
            _ => bytes,
        };
        array_of(&cell.data_type, taken.len(), values, self.nulls(column, taken, blocks))
    }

    /// Refuses columns that have a null in a row that a batch takes, by its place there.
    pub(crate) fn no_nulls(&self, columns: &[usize], taken: &[Taken], blocks: &[&Block]) -> Result<()> {
        for column in columns {
            if let Some(nulls) = self.nulls(*column, taken, blocks)
                && let Some(row) = nulls.iter().position(|valid| !valid)
            {
                return Err(null_in_pack(row));
            }
        }
        Ok(())
    }

    fn cell(&self, column: usize) -> Result<&Cell> {
        let cell = self.cells.get(column).and_then(Option::as_ref);
        cell.ok_or_else(|| Error::internal("a column is not laid out in rows"))
    }

    fn nulls(&self, column: usize, taken: &[Taken], blocks: &[&Block]) -> Option<NullBuffer> {
        let bit = self.cells[column].as_ref()?.null_bit?;
        let has_nulls = |block: &&Block| block.has_nulls.get(column).copied().unwrap_or(false);
        if !blocks.iter().any(has_nulls) {
            return None;
        }
        let (at, bit) = (self.nulls + bit / 8, 1u8 << (bit % 8));
        let mut valid = vec![true; taken.len()];
        for row in taken {
            let block = &blocks[row.window as usize];
            // Where no value is null the bits were not written.
            let is_null = has_nulls(block) && block.bytes[row.at as usize * self.stride + at] & bit != 0;
            valid[row.out as usize] = !is_null;
        }
        Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0)
    }
}

/// The values of one width have a loop of their own, and are moved as arrays: slices would be copied by a call.
fn take<const WIDTH: usize>(out: &mut [u8], stride: usize, at: usize, taken: &[Taken], blocks: &[&Block]) {
    let (out, _) = out.as_chunks_mut::<WIDTH>();
    for row in taken {
        let bytes = &blocks[row.window as usize].bytes;
        let value = bytes[row.at as usize * stride + at..].first_chunk::<WIDTH>();
        if let Some(value) = value {
            out[row.out as usize] = *value;
        }
    }
}

/// Values of any width, sixteen bytes at a time.
fn take_wide(out: &mut [u8], (stride, width): (usize, usize), at: usize, taken: &[Taken], blocks: &[&Block]) {
    if width > MAX_WIDTH {
        for row in taken {
            let from = row.at as usize * stride + at;
            let value = &blocks[row.window as usize].bytes[from..from + width];
            out[row.out as usize * width..][..width].copy_from_slice(value);
        }
        return;
    }
    for row in taken {
        let from = row.at as usize * stride + at;
        let (to, rest) = out[row.out as usize * width..][..width].as_chunks_mut::<16>();
        let (values, left) = blocks[row.window as usize].bytes[from..from + width].as_chunks::<16>();
        for (to, value) in to.iter_mut().zip(values) {
            *to = *value;
        }
        for (to, value) in rest.iter_mut().zip(left) {
            *to = *value;
        }
    }
}

/// The values of a column as they lie in memory.
enum Values {
    Bytes(Buffer),
    Bits(BooleanBuffer),
}

impl Values {
    fn new(column: &ArrayRef, cell: &Cell) -> Result<Self> {
        if let Some(booleans) = column.as_boolean_opt() {
            return Ok(Self::Bits(booleans.values().clone()));
        }
        let elements = match column.as_fixed_size_list_opt() {
            Some(list) => list
                .values()
                .slice(list.value_offset(0) as usize, list.len() * list.value_length() as usize),
            None => column.clone(),
        };
        let data = elements.to_data();
        let width = width_of(data.data_type()).unwrap_or(0);
        let found = data.buffers().first().map(|buffer| {
            let end = (data.offset() + data.len()) * width;
            buffer.slice_with_length(data.offset() * width, end - data.offset() * width)
        });
        match found {
            Some(bytes) if bytes.len() == column.len() * cell.width => Ok(Self::Bytes(bytes)),
            _ => Err(Error::internal(format!(
                "{} is not laid out as {}",
                column.data_type(),
                cell.data_type
            ))),
        }
    }

    /// Writes the values from row `first` on to the rows of the tile.
    fn put(&self, first: usize, cell: &Cell, tile: &mut [u8], stride: usize) {
        let at = cell.at;
        match self {
            Self::Bits(bits) => {
                for (i, row) in tile.chunks_exact_mut(stride).enumerate() {
                    row[at] = u8::from(bits.value(first + i));
                }
            }
            Self::Bytes(bytes) => {
                let bytes = &bytes[first * cell.width..];
                match cell.width {
                    1 => put::<1>(bytes, at, tile, stride),
                    2 => put::<2>(bytes, at, tile, stride),
                    4 => put::<4>(bytes, at, tile, stride),
                    8 => put::<8>(bytes, at, tile, stride),
                    16 => put::<16>(bytes, at, tile, stride),
                    width => {
                        for (row, value) in tile.chunks_exact_mut(stride).zip(bytes.chunks_exact(width)) {
                            row[at..at + width].copy_from_slice(value);
                        }
                    }
                }
            }
        }
    }
}

fn put<const WIDTH: usize>(values: &[u8], at: usize, tile: &mut [u8], stride: usize) {
    let (values, _) = values.as_chunks::<WIDTH>();
    for (row, value) in tile.chunks_exact_mut(stride).zip(values) {
        if let Some(cell) = row[at..].first_chunk_mut::<WIDTH>() {
            *cell = *value;
        }
    }
}

impl Block {
    /// Bytes of the rows.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The memory, for another block.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// An array from the bytes of its values.
pub(crate) fn array_of(
    data_type: &DataType,
    len: usize,
    values: Buffer,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let failed = |error| Error::internal("rows do not make a column").with_source(error);
    let array = |data_type: &DataType, len: usize, values, nulls| {
        ArrayData::builder(data_type.clone())
            .len(len)
            .add_buffer(values)
            .nulls(nulls)
            .build()
            .map_err(failed)
    };
    let data = match data_type {
        DataType::FixedSizeList(item, n) => {
            let items = array(item.data_type(), len * *n as usize, values, None)?;
            let list = ArrayData::builder(data_type.clone()).len(len).nulls(nulls);
            list.add_child_data(items).build().map_err(failed)?
        }
        scalar => array(scalar, len, values, nulls)?,
    };
    Ok(make_array(data))
}

pub(crate) fn null_in_pack(row: usize) -> Error {
    Error::corrupt("a packed column has a null: expected a number").at("batch row", row)
}

/// Bytes of a value of a type of which all have as many.
fn width_of(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        // A list of booleans is one of bits.
        DataType::FixedSizeList(item, _) if *item.data_type() == DataType::Boolean => None,
        DataType::FixedSizeList(item, n) if !item.is_nullable() => {
            width_of(item.data_type())?.checked_mul(usize::try_from(*n).ok()?)
        }
        other => other.primitive_width(),
    }
}

#[cfg(test)]
mod tests;
