//! The columns of a batch, made of the rows that it picks from the windows of its lanes.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::{BooleanBuffer, Buffer};
use arrow_schema::DataType;
use arrow_select::concat::concat;
use arrow_select::interleave::interleave;
use squall_schema::arrow::{field_to_arrow, schema_to_arrow};
use squall_schema::codec::{Codec, decode_column};
use squall_schema::{Error, Field, Result, Schema};

use crate::block::{Block, Layout, Taken, array_of};
use crate::cells;
use crate::metrics::{Counters, Part as Work};
use crate::order::Shuffle;
use crate::pack::{Output, packed_values};
use crate::picked::Picked;
use crate::source::Source;
use crate::transform::record_batch;
use crate::window::Decoded;

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

impl Picked<'_> {
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
        let mut taken = Cow::from(&self.taken);
        if rows.len() < self.taken.len() {
            let own = self.taken_of(place).map(|row| Taken {
                out: rows.partition_point(|own| *own < row.out as usize) as u32,
                ..*row
            });
            taken = own.collect();
        }
        let undecoded = || Error::internal("a window is gathered before it is decoded");
        let (layout, decoded, found) = match &source.resident {
            Some(resident) => {
                let place = |out: u32| (self.ids[rows[out as usize]].piece, self.places[rows[out as usize]]);
                let found = resident.find(taken.to_mut(), place)?;
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
        let spans = gathering.outputs.iter().map(|output| match output {
            Output::Column(place) if layout.has(*place) => layout.span(*place).map(Some),
            Output::Packed(places) if places.iter().all(|place| layout.has(*place)) => layout.span_of(places).map(Some),
            _ => Ok(None),
        });
        let spans = spans.collect::<Result<Vec<_>>>()?;
        let own: Vec<_> = spans.iter().flatten().copied().collect();
        let mut bytes = counters
            .time(Work::Gather, || layout.bytes(&own, &taken, &blocks))
            .into_iter();
        let mut bytes: Vec<_> = spans.iter().map(|span| span.and_then(|_| bytes.next())).collect();
        let column = |place: usize, bytes: Option<Buffer>| match (bytes, &beside) {
            (Some(bytes), _) => layout.column(place, bytes, &taken, &blocks),
            (None, Some(beside)) => beside.column(place),
            (None, None) => Err(Error::internal("a column is neither in rows nor beside them")),
        };
        let is_cell = |field: &Field| !matches!(field.codec, None | Some(Codec::SparkVector));
        let output = |output: &Output, field: &Field, bytes: Option<Buffer>| {
            let at = |error: Error| error.at("column", &field.name);
            match output {
                Output::Column(place) if field.codec.is_none() => column(*place, bytes).map_err(at),
                // What is kept was decoded once, but for cells that cannot be.
                Output::Column(place) if found.is_some() => {
                    let bad = found.iter().find_map(|found| found.bad_cell(*place, field, &taken));
                    bad.map_or_else(|| column(*place, bytes), Err)
                }
                Output::Column(place) if !is_cell(field) => {
                    decode_column(&column(*place, bytes)?, field).map_err(cells::in_batch)
                }
                Output::Column(place) => match &beside {
                    Some(beside) => cells::decode(&beside.cells(*place)?, field, &source.used),
                    None => Err(Error::internal("a cell has a fixed width")),
                },
                Output::Packed(places) => {
                    let bytes = match bytes {
                        Some(bytes) => layout.no_nulls(places, &taken, &blocks).map(|()| bytes),
                        None => {
                            let columns = places
                                .iter()
                                .map(|place| column(*place, None))
                                .collect::<Result<Vec<_>>>()?;
                            packed_values(&columns.iter().collect::<Vec<_>>())
                        }
                    };
                    tensor_column(bytes.map_err(at)?, rows.len(), field)
                }
            }
        };
        let mut columns = vec![None; schema.fields().len()];
        for (part, cells) in [(Work::Gather, false), (Work::Cells, true)] {
            counters.time(part, || {
                let outputs = gathering
                    .outputs
                    .iter()
                    .zip(schema.fields())
                    .zip(&mut bytes)
                    .zip(&mut columns);
                for (((own, field), bytes), column) in outputs.filter(|(((_, field), _), _)| is_cell(field) == cells) {
                    *column = Some(output(own, field, bytes.take())?);
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
fn tensor_column(bytes: Buffer, rows: usize, field: &Field) -> Result<ArrayRef> {
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
