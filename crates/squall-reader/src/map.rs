//! Rows by their index: what users of PyTorch call a map-style dataset.
//!
//! An index is the place of a row among the selected ones, in stored order. `layout` says how a row group is cut into runs of rows,
//! `cache` keeps what was read last, and `load` gets the rest; here rows are put in the order asked for, their cells decoded,
//! and the transform applied.

mod layout;

mod cache;

mod cut;
mod load;

mod assemble;

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use futures::{StreamExt, TryStreamExt, stream};
use squall_dataset::Dataset;
use squall_schema::arrow::schema_to_arrow;
use squall_schema::columns::value_at;
use squall_schema::{Error, Result, Row, RowId, Schema};

use crate::io::Io;
use crate::map::assemble::{Assembler, Picked};
use crate::map::load::Loader;
use crate::reader::SampleBatch;
use crate::source::Source;
use crate::transform::row_at;

pub use cache::MapStats;

/// Bytes that a [`MapDataset`] keeps of what it read, if no number is given.
pub const DEFAULT_CACHE_BYTES: u64 = 64 << 20;

/// Rows by their index, in any order, from any number of threads. Made by [`make_dataset`](crate::make_dataset).
///
/// Index `i` is the `i`-th of the selected rows in stored order. Of a row group only the pages that hold the rows are fetched, found
/// in the offset index of the file; of a file without one, whole column chunks. What was decoded last is kept, up to the
/// bytes of the cache, so that neighbours are decoded together: see [`cache_bytes`](crate::ReaderBuilder::cache_bytes).
///
/// A clone shares the cache. An error concerns one call; the next one may succeed.
#[derive(Clone)]
pub struct MapDataset {
    loader: Arc<Loader>,
    assembler: Arc<Assembler>,
    /// The index of the first row of each selected piece.
    starts: Arc<[u64]>,
    len: u64,
    names: Arc<[Arc<str>]>,
    epoch: u64,
    // Dropped last: the loader's work runs on it.
    io: Arc<Io>,
}

impl MapDataset {
    pub(crate) fn new(source: Source, io: Arc<Io>, seed: u64, workers: usize, cache_bytes: u64) -> Self {
        let mut len = 0;
        let start = |rows: u64| {
            len += rows;
            len - rows
        };
        Self {
            starts: source.selection.rows_per_piece().into_iter().map(start).collect(),
            len,
            names: source.schema.names().map(Arc::from).collect(),
            assembler: Arc::new(Assembler {
                source: source.clone(),
                seed,
                workers,
            }),
            loader: Arc::new(Loader::new(source, cache_bytes)),
            epoch: 0,
            io,
        }
    }

    /// Selected rows: indices are below it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no row, which [`build`](crate::ReaderBuilder::build) refuses.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The fields that are delivered.
    pub fn schema(&self) -> &Schema {
        &self.loader.source.schema
    }

    /// The dataset that is read.
    pub fn dataset(&self) -> &Dataset {
        &self.loader.source.dataset
    }

    /// What was read so far.
    pub fn stats(&self) -> MapStats {
        self.loader.stats()
    }

    /// The same rows with other random numbers for the transform: those of an epoch, from 0. It is the `set_epoch` of PyTorch's
    /// samplers; the cache is shared.
    #[must_use]
    pub fn at_epoch(&self, epoch: u64) -> Self {
        Self { epoch, ..self.clone() }
    }

    /// The row of an index, decoded and transformed.
    pub fn get(&self, index: u64) -> Result<Row> {
        let id = self.locate(index)?;
        let (place, source) = (self.place(index), &self.loader.source);
        let columns = match self.loader.cached(place, id.row) {
            Some(cached) => {
                // Most rows are neither decoded nor transformed: their values are taken out of the runs as they are.
                if !source.transform.is_given()
                    && !source.has_cells()
                    && let Some(cells) = cached.cells()
                {
                    return self.row(id, &cells);
                }
                cached.columns(&self.loader)?
            }
            None => {
                let batches = self.io.wait(self.loader.clone().rows(place, vec![id.row]))?;
                let [columns] = <[RecordBatch; 1]>::try_from(batches)
                    .map_err(|batches| Error::internal(format!("one row came in {} batches", batches.len())))?;
                columns
            }
        };
        let columns = self.assembler.row(columns, id)?;
        row_at(&columns, 0, id, &self.names, &source.schema)
    }

    /// The row of these values: for each column an array, and the place in it.
    fn row(&self, id: RowId, cells: &[(&ArrayRef, usize)]) -> Result<Row> {
        let cells = self.names.iter().zip(self.schema().fields()).zip(cells);
        let values = cells.map(|((name, field), (column, i))| Ok((name.clone(), value_at(column, field, *i)?)));
        Ok(Row::new(id, values.collect::<Result<_>>()?))
    }

    /// The rows of these indices, decoded and transformed, in the order of the indices; an index may stand there several times.
    /// Of no index it is a batch without rows.
    ///
    /// Row groups are fetched and decoded side by side, on as many threads as there are
    /// [`workers`](crate::ReaderBuilder::workers). A closure over batches sees all rows at once.
    pub fn take(&self, indices: &[u64]) -> Result<RecordBatch> {
        Ok(self.take_samples(indices)?.columns)
    }

    /// [`MapDataset::take`] with the identity of each row: its sample is the index.
    pub fn take_samples(&self, indices: &[u64]) -> Result<SampleBatch> {
        let batch = |ids, columns| SampleBatch {
            epoch: self.epoch,
            step: 0,
            samples: 0..self.len,
            ids,
            columns,
            bad_rows: Vec::new(),
            substitutes: Vec::new(),
        };
        if let Some(index) = indices.iter().find(|index| **index >= self.len) {
            return Err(self.out_of_range(*index));
        }
        if indices.is_empty() {
            let none = RecordBatch::new_empty(schema_to_arrow(self.schema())?);
            return Ok(batch(Vec::new(), none));
        }
        let (requests, places) = self.requests(indices);
        let (ids, columns) = self.io.wait(self.read(requests, places, indices))?;
        Ok(batch(ids, columns))
    }

    fn out_of_range(&self, index: u64) -> Error {
        Error::invalid(format!(
            "expected an index below {}, the number of rows, found {index}",
            self.len
        ))
        .at("URL", self.dataset().url())
    }

    /// The selected piece that holds a row.
    fn place(&self, index: u64) -> usize {
        self.starts.partition_point(|start| *start <= index) - 1
    }

    fn locate(&self, index: u64) -> Result<RowId> {
        if index >= self.len {
            return Err(self.out_of_range(index));
        }
        let place = self.place(index);
        Ok(self.row_id(place, index))
    }

    fn row_id(&self, place: usize, index: u64) -> RowId {
        let piece = &self.loader.source.selection.pieces()[place];
        RowId {
            epoch: self.epoch,
            sample: index,
            dataset: 0,
            piece: piece.piece,
            row: piece.rows.nth(index - self.starts[place]),
            padded: false,
        }
    }

    /// For each piece that is needed its rows, ascending, each once; and for each index the place of its row among all of
    /// them.
    fn requests(&self, indices: &[u64]) -> (Vec<(usize, Vec<u64>)>, Vec<usize>) {
        let mut order: Vec<_> = (0..indices.len()).collect();
        order.sort_unstable_by_key(|i| indices[*i]);
        let mut requests: Vec<(usize, Vec<u64>)> = Vec::new();
        let mut places = vec![0; indices.len()];
        let mut n_rows = 0;
        let mut last = None;
        for i in order {
            let index = indices[i];
            if last != Some(index) {
                let known = requests.last().map(|(place, _)| *place);
                let inside = |place: &usize| self.starts.get(place + 1).is_none_or(|next| index < *next);
                let place = known.filter(inside).unwrap_or_else(|| self.place(index));
                if known != Some(place) {
                    requests.push((place, Vec::new()));
                }
                let row = self.row_id(place, index).row;
                if let Some((_, rows)) = requests.last_mut() {
                    rows.push(row);
                }
                n_rows += 1;
                last = Some(index);
            }
            places[i] = n_rows - 1;
        }
        (requests, places)
    }

    async fn read(
        &self,
        requests: Vec<(usize, Vec<u64>)>,
        places: Vec<usize>,
        indices: &[u64],
    ) -> Result<(Vec<RowId>, RecordBatch)> {
        let pieces = self.loader.source.selection.pieces();
        let mut stored = Vec::new();
        for (place, rows) in &requests {
            stored.extend(rows.iter().map(|row| (pieces[*place].piece, *row)));
        }
        let id = |(index, place): (&u64, &usize)| RowId {
            epoch: self.epoch,
            sample: *index,
            dataset: 0,
            piece: stored[*place].0,
            row: stored[*place].1,
            padded: false,
        };
        let ids: Vec<_> = indices.iter().zip(&places).map(id).collect();

        let work = requests
            .into_iter()
            .map(|(place, rows)| self.loader.clone().rows(place, rows));
        // One more than there are workers, so that bytes arrive while they decode.
        let batches: Vec<Vec<RecordBatch>> = stream::iter(work)
            .buffered(self.assembler.workers + 1)
            .try_collect()
            .await?;
        let batches: Vec<_> = batches.into_iter().flatten().collect();
        let rows = batches.iter().enumerate();
        let rows: Vec<_> = rows
            .flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)))
            .collect();
        let places = places.into_iter().map(|place| rows[place]).collect();
        let picked = Arc::new(Picked { batches, places, ids });
        let columns = self.assembler.batch(&picked).await?;
        // The last part may not have let go of it yet.
        let ids = Arc::try_unwrap(picked).map_or_else(|picked| picked.ids.clone(), |picked| picked.ids);
        Ok((ids, columns))
    }
}
