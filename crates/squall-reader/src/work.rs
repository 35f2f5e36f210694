//! What a worker does with a job: it decodes a window, or builds a batch.
//!
//! Jobs come from `pipeline` and their results go back there as events. A worker has no state of its own: a lane's decoder
//! travels with the job.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::RecordBatch;
use squall_dataset::Piece;
use squall_schema::{Error, Field, Result, RowId, Value, panic_text};
use tokio::sync::Semaphore;

use crate::bad_rows::{BadRow, OnBadRow};
use crate::budget::{Budget, Permit};
use crate::expand::{Expander, Samples};
use crate::fetch::Fetched;
use crate::gather::interleave_batches;
use crate::lane::Arrived;
use crate::metrics::{Counters, Part as Work, bytes_of};
use crate::picked::Picked;
use crate::plan::{PlannedBatch, ReadPlan};
use crate::row_set::RowSet;
use crate::source::Source;
use crate::trace;
use crate::window::{BlockPool, Decoded, Window};

/// Fetches that are under way at the same time.
pub(crate) const FETCHES: usize = 16;

/// A batch as the pipeline delivers it.
#[derive(Debug, Clone)]
pub(crate) struct Delivered {
    pub(crate) epoch: u64,
    pub(crate) step: u64,
    pub(crate) samples: Range<u64>,
    pub(crate) ids: Vec<RowId>,
    pub(crate) columns: RecordBatch,
    pub(crate) bad: Vec<BadRow>,
    /// The epoch and sample that come after it.
    pub(crate) after: (u64, u64),
    /// Until it is handed out.
    pub(crate) _permit: Arc<Permit>,
}

/// The number of a pass, and a lane of it.
pub(crate) type LaneKey = (u64, u64);

pub(crate) enum Job {
    Decode {
        lane: LaneKey,
        window: Arc<Window>,
        permit: Permit,
        cursor: Cursor,
        parts: Vec<Part>,
    },
    Build {
        seq: u64,
        batch: PlannedBatch,
        permit: Permit,
    },
}

pub(crate) enum Event {
    Fetched {
        lane: LaneKey,
        start: u64,
        result: Result<Arrived>,
    },
    Decoded {
        lane: LaneKey,
        /// The first row of the window.
        start: u64,
        cursor: Cursor,
        result: Result<()>,
    },
    Built {
        seq: u64,
        result: Result<Delivered>,
    },
    /// Bytes of the budget were given back.
    Freed,
    Stop,
}

/// Where a lane's decoder stands between two jobs.
#[derive(Default)]
pub(crate) struct Cursor {
    pub(crate) open: Option<Open>,
}

/// A decoder that is not at its end.
pub(crate) struct Open {
    decoder: Box<Expander>,
    /// The lane's row where its run begins, and the row that it gives next.
    start: u64,
    next: u64,
    is_streamed: bool,
    /// For the pages that it holds.
    _permit: Permit,
}

impl Open {
    /// Whether it can give this row of its run next. A decoder of streamed columns passes over rows: a new one would look for
    /// its place from their beginning.
    pub(crate) fn reaches(&self, row: u64) -> bool {
        self.next == row || (self.is_streamed && self.next < row)
    }
}

/// A part of a window: rows of a lane that lie in one fetched run.
pub(crate) struct Part {
    pub(crate) run: Arc<Run>,
    pub(crate) rows: Range<u64>,
}

/// A fetched run of rows of a lane, to the end of its piece or of the lane.
pub(crate) struct Run {
    /// Its rows, counted in the lane.
    pub(crate) rows: Range<u64>,
    pub(crate) piece: Piece,
    /// The samples of the piece, and which of them these are.
    pub(crate) set: RowSet,
    pub(crate) samples: Range<u64>,
    /// Whether its slices are forgotten behind the decoder.
    pub(crate) is_sliced: bool,
    pub(crate) fetched: Fetched,
}

/// What all jobs read and none changes.
pub(crate) struct Context {
    pub(crate) plan: Arc<ReadPlan>,
    /// Limits how many fetches are under way.
    pub(crate) fetches: Arc<Semaphore>,
    /// For each dataset and each file of it the partition fields that are read, with their values.
    partitions: Vec<Vec<PartitionValues>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) budget: Arc<Budget>,
    blocks: Arc<BlockPool>,
}

/// The partition fields of a file that are read, with their values.
pub(crate) type PartitionValues = Arc<[(Field, Value)]>;

fn partitions(source: &Source) -> Vec<PartitionValues> {
    let fields = source.dataset.partition_fields();
    let values = |file: &squall_dataset::DataFile| {
        let all = fields.iter().cloned().zip(file.partition.iter().cloned());
        all.filter(|(field, _)| source.columns.schema().get(&field.name).is_some())
            .collect()
    };
    source.dataset.files().iter().map(values).collect()
}

impl Context {
    pub(crate) fn new(plan: Arc<ReadPlan>, counters: Arc<Counters>, budget: Arc<Budget>) -> Self {
        Self {
            fetches: Arc::new(Semaphore::new(FETCHES)),
            partitions: plan.sources.iter().map(partitions).collect(),
            counters,
            budget,
            blocks: Arc::default(),
            plan,
        }
    }

    /// Does a job. A panic in it becomes an error.
    pub(crate) fn work(&self, job: Job) -> Event {
        match job {
            Job::Decode {
                lane,
                window,
                permit,
                mut cursor,
                parts,
            } => {
                let dataset = &self.plan.sources[window.pass.source].dataset;
                let first = parts.first().map(|part| &part.run.piece);
                let _span = trace::decode(dataset, first, &window).entered();
                let decode = || guard(|| self.decode((&window, permit), &mut cursor, &parts));
                let result = self.counters.time(Work::Decode, decode);
                let start = window.rows.start;
                Event::Decoded {
                    lane,
                    start,
                    cursor,
                    result,
                }
            }
            Job::Build { seq, batch, permit } => {
                let _span = trace::build(&batch).entered();
                Event::Built {
                    seq,
                    result: self.counters.time(Work::Build, || guard(|| self.build(&batch, permit))),
                }
            }
        }
    }

    fn decode(&self, (window, mut permit): (&Window, Permit), cursor: &mut Cursor, parts: &[Part]) -> Result<()> {
        let source = &self.plan.sources[window.pass.source];
        let layout = &source.gathering.layout;
        let beside = layout.beside();
        let mut decoded = Decoded::of_window(window, layout, &self.blocks)?;
        for part in parts {
            let file = source.dataset.file_of(&part.run.piece);
            let at = |error: Error| {
                error
                    .at("row group", part.run.piece.row_group)
                    .at("file", &file.path)
                    .at("URL", source.dataset.url())
            };
            let open = cursor.open.take();
            let is_streamed = part.run.fetched.bytes.is_streamed();
            let goes_on = |open: &Open| open.start == part.run.rows.start && open.reaches(part.rows.start);
            let passed = open
                .as_ref()
                .filter(|open| goes_on(open))
                .map(|open| part.rows.start - open.next);
            let (mut decoder, permit) = match open.filter(goes_on) {
                Some(open) => (open.decoder, open._permit),
                None => {
                    let skip = part.rows.start - part.run.rows.start;
                    let partition = self.partitions[window.pass.source][part.run.piece.file as usize].clone();
                    let rows_at_once = source.footprint.decode_rows;
                    let samples = Samples {
                        rows: &part.run.set,
                        fetched: part.run.samples.clone(),
                        skip,
                    };
                    let stored = source.columns.clone();
                    let columns = source.samples.clone();
                    let permit = self.budget.take(part.run.fetched.decoder_bytes());
                    let new = Expander::new(&part.run.fetched, samples, columns, rows_at_once, stored, partition);
                    (Box::new(new.map_err(at)?), permit)
                }
            };
            if let Some(passed) = passed.filter(|passed| *passed > 0) {
                decoder.take(passed, &mut |_| Ok(())).map_err(at)?;
            }
            let rows = part.rows.end - part.rows.start;
            decoder
                .take(rows, &mut |batch| decoded.push(&batch, layout, &beside))
                .map_err(at)?;
            if part.run.is_sliced {
                part.run.fetched.bytes.forget(decoder.decoded());
            }
            if part.rows.end < part.run.rows.end {
                cursor.open = Some(Open {
                    decoder,
                    start: part.run.rows.start,
                    next: part.rows.end,
                    is_streamed,
                    _permit: permit,
                });
            }
        }
        self.counters.decoded(decoded.bytes());
        permit.resize(decoded.bytes());
        let decoded = decoded.with_permit(permit);
        window
            .decoded
            .set(decoded)
            .map_err(|_| Error::internal("a window is decoded twice"))
    }

    fn build(&self, batch: &PlannedBatch, mut permit: Permit) -> Result<Delivered> {
        let mut picked = Picked::new(batch);
        let mut bad = Vec::new();
        let columns = match &*self.plan.sources {
            [_] => {
                let rows: Vec<_> = (0..picked.ids.len()).collect();
                self.build_rows(&mut picked, 0, &rows, &mut bad)?
            }
            sources => {
                let mut places = vec![(0, 0); picked.ids.len()];
                let mut parts = Vec::with_capacity(sources.len());
                for place in 0..sources.len() {
                    let rows = picked.rows_of(place);
                    rows.iter().enumerate().for_each(|(i, row)| places[*row] = (place, i));
                    parts.push(self.build_rows(&mut picked, place, &rows, &mut bad)?);
                }
                interleave_batches(&self.plan.schema, &parts.iter().collect::<Vec<_>>(), &places)?
            }
        };
        self.counters.built(&columns);
        permit.resize(bytes_of(&columns));
        Ok(Delivered {
            epoch: batch.epoch,
            step: batch.step,
            samples: batch.samples.clone(),
            columns,
            ids: picked.ids,
            bad,
            after: batch.after,
            _permit: Arc::new(permit),
        })
    }

    /// These rows of a batch, all of one dataset, decoded and transformed, bad ones replaced if that is wanted.
    fn build_rows(
        &self,
        picked: &mut Picked<'_>,
        place: usize,
        rows: &[usize],
        bad: &mut Vec<BadRow>,
    ) -> Result<RecordBatch> {
        let source = &self.plan.sources[place];
        // For each row that was replaced the row itself and how often.
        let mut replaced: BTreeMap<usize, (RowId, String, u64)> = BTreeMap::new();
        loop {
            let mut ids = Cow::from(&picked.ids);
            if rows.len() < ids.len() {
                ids = rows.iter().map(|row| picked.ids[*row]).collect();
            }
            let error = match self.try_rows(picked, place, rows, &ids) {
                Ok(batch) => {
                    bad.extend(replaced.into_iter().map(|(i, (row, error, _))| BadRow {
                        row,
                        substitute: ids[i],
                        error,
                    }));
                    return Ok(batch);
                }
                Err(error) => error,
            };
            let i = error.place("batch row").and_then(|row| row.parse::<usize>().ok());
            let error = name_row(error, source, &ids);
            let (OnBadRow::Skip { .. }, Some(i)) = (self.plan.on_bad_row, i.filter(|i| *i < ids.len())) else {
                return Err(error);
            };
            let (_, _, times) = replaced.entry(i).or_insert((ids[i], error.to_string(), 0));
            *times += 1;
            if *times >= picked.window_len(rows[i]) {
                return Err(error);
            }
            drop(ids);
            picked.substitute(rows[i]);
        }
    }

    fn try_rows(&self, picked: &Picked<'_>, place: usize, rows: &[usize], ids: &[RowId]) -> Result<RecordBatch> {
        let (source, counters) = (&self.plan.sources[place], &self.counters);
        let columns = picked.gather(place, rows, source, counters)?;
        counters.time(Work::Transform, || source.transform(columns, ids, self.plan.seed))
    }
}

/// Says which stored row the row of a batch is.
pub(crate) fn name_row(error: Error, source: &Source, ids: &[RowId]) -> Error {
    let row = error.place("batch row").and_then(|row| row.parse::<usize>().ok());
    let Some(id) = row.and_then(|row| ids.get(row)) else {
        return error;
    };
    let dataset = &source.dataset;
    let piece = &dataset.pieces()[id.piece as usize];
    error
        .at("epoch", id.epoch)
        .at("sample", id.sample)
        .at("row", id.row)
        .at("row group", piece.row_group)
        .at("file", &dataset.file_of(piece).path)
        .at("URL", dataset.url())
}

/// A panic in the work becomes an error.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        Err(Error::internal(format!("a worker panicked: {}", panic_text(&*panic))))
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}
