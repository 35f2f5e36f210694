//! Some columns of some rows, read once while a reader is built: what where-clauses, predicates, samplers and n-grams ask of
//! the data before the number of samples is known.
//!
//! Row groups are read side by side; of each only the pages that hold its rows. What a scan keeps is up to its caller, who
//! folds the batches of a row group into one value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use squall_dataset::{Dataset, Piece};
use squall_schema::columns::column_from_values;
use squall_schema::{Error, Field, Result, Value, panic_text};

use crate::columns::Columns;
use crate::decode::{DECODE_ROWS, Decoder};
use crate::fetch::{Footers, Wanted, fetch};
use crate::io::Io;
use crate::select::SelectedPiece;
use crate::transform::record_batch;

/// What scans of one dataset share.
#[derive(Clone)]
pub(crate) struct Scan {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) footers: Arc<Footers>,
    pub(crate) io: Arc<Io>,
    /// Row groups that are decoded at the same time.
    pub(crate) workers: usize,
    /// Bytes that folds have fetched, those of footers and page indexes aside.
    pub(crate) bytes: Arc<AtomicU64>,
}

impl Scan {
    /// For each piece, in order, the value that its rows are folded into. The batches have the stored columns, cells still
    /// encoded, and the selected rows in order.
    pub(crate) fn fold<S, Start, Step>(
        &self,
        pieces: &[SelectedPiece],
        columns: &Arc<Columns>,
        start: Start,
        step: Step,
    ) -> Result<Vec<S>>
    where
        S: Send + 'static,
        Start: Fn(&SelectedPiece) -> S + Send + Sync + 'static,
        Step: Fn(&mut S, RecordBatch) -> Result<()> + Send + Sync + 'static,
    {
        let fold = Arc::new((start, step));
        let work: Vec<_> = pieces
            .iter()
            .map(|selected| self.fold_piece(selected.clone(), columns.clone(), fold.clone()))
            .collect();
        // One more than there are workers, so that bytes arrive while they decode.
        let at_once = self.workers + 1;
        self.io
            .wait(async move { stream::iter(work).buffered(at_once).try_collect().await })
    }

    fn fold_piece<S, Start, Step>(
        &self,
        selected: SelectedPiece,
        columns: Arc<Columns>,
        fold: Arc<(Start, Step)>,
    ) -> impl Future<Output = Result<S>> + Send + use<S, Start, Step>
    where
        S: Send + 'static,
        Start: Fn(&SelectedPiece) -> S + Send + Sync + 'static,
        Step: Fn(&mut S, RecordBatch) -> Result<()> + Send + Sync + 'static,
    {
        let (dataset, footers) = (self.dataset.clone(), self.footers.clone());
        let bytes = self.bytes.clone();
        async move {
            let rows = selected.rows.len();
            if rows == 0 {
                return Ok(fold.0(&selected));
            }
            let piece = dataset.pieces()[selected.piece as usize];
            let fetched = fetch(Wanted {
                dataset: &dataset,
                footers: &footers,
                piece: &piece,
                rows: selected.rows.runs(&(0..rows)),
                columns: &columns,
            })
            .await?;
            bytes.fetch_add(fetched.bytes.held_bytes() as u64, Ordering::Relaxed);
            let partition = partition_values(&dataset, &piece);
            let work = move || {
                let mut decoder = Decoder::new(&fetched, 0, DECODE_ROWS, columns, partition)?;
                let mut state = fold.0(&selected);
                let mut left = rows;
                while left > 0 {
                    let now = left.min(DECODE_ROWS);
                    let mut batches = Vec::new();
                    decoder.take_all(now, &mut batches)?;
                    batches.into_iter().try_for_each(|batch| fold.1(&mut state, batch))?;
                    left -= now;
                }
                Ok(state)
            };
            blocking(work).await.map_err(|error| {
                error
                    .at("row group", piece.row_group)
                    .at("file", &dataset.file_of(&piece).path)
                    .at("URL", dataset.url())
            })
        }
    }

    /// One row with the values that the directory names of a piece give to these columns, nulls for the others. For columns
    /// that stand in directory names only, it stands for every row of the piece, and nothing is read.
    pub(crate) fn directory_row(&self, piece: u32, columns: &Columns) -> Result<RecordBatch> {
        let values = partition_values(&self.dataset, &self.dataset.pieces()[piece as usize]);
        let schema = columns.schema();
        let value = |field: &Field| {
            let value = values.iter().find(|(own, _)| own.name == field.name);
            column_from_values(field, &[value.map_or(&Value::Null, |(_, value)| value)])
        };
        record_batch(schema, schema.fields().iter().map(value).collect::<Result<_>>()?, 1)
    }
}

/// Runs work on a thread that may be blocked. A panic in it becomes an error.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(match error.try_into_panic() {
            Ok(panic) => Error::internal(format!("a scan panicked: {}", panic_text(&*panic))),
            Err(cancelled) => Error::internal("a scan was cancelled").with_source(cancelled),
        })
    })
}

/// The partition fields of a dataset with their values for a piece.
pub(crate) fn partition_values(dataset: &Dataset, piece: &Piece) -> Arc<[(Field, Value)]> {
    let values = dataset.file_of(piece).partition.iter().cloned();
    dataset.partition_fields().iter().cloned().zip(values).collect()
}
