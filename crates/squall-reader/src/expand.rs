//! From the rows that are stored to the samples that are made of them.
//!
//! Most of the time a sample is a row, and this passes batches on. A row that was drawn several times is decoded once and
//! repeated; the rows of an n-gram are laid side by side, a column for each field of each of its steps.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_select::interleave::interleave;
use squall_schema::{Error, Result, Schema};

use crate::decode::{DECODE_ROWS, Decoder};
use crate::fetch::Fetched;
use crate::row_set::{Drawn, RowSet};
use crate::transform::record_batch;
use crate::work::PartitionValues;

/// The columns of a sample: for each the step of the sample whose row it is from, and the stored column.
#[derive(Debug, Clone)]
pub(crate) struct SampleColumns {
    pub(crate) schema: Arc<Schema>,
    pub(crate) from: Arc<[(u64, usize)]>,
}

/// Decodes the samples of one fetched run, in order, in as many calls as the caller likes.
pub(crate) struct Expander {
    decoder: Decoder,
    drawn: Option<Repeats>,
}

/// What is known of samples that are not simply rows.
struct Repeats {
    samples: Drawn,
    columns: SampleColumns,
    /// The sample that comes next.
    next: u64,
    /// The places in the row set of the rows that are decoded next, as runs.
    ahead: VecDeque<Range<u64>>,
    /// Decoded rows that samples may still need.
    held: Vec<RecordBatch>,
    /// The place of each of them in the row set, and where it is held.
    places: Vec<(u64, (usize, usize))>,
}

/// The samples of a piece that a run holds.
pub(crate) struct Samples<'a> {
    pub(crate) rows: &'a RowSet,
    /// The samples whose rows were fetched.
    pub(crate) fetched: Range<u64>,
    /// How many of them are passed over.
    pub(crate) skip: u64,
}

impl Expander {
    pub(crate) fn new(
        fetched: &Fetched,
        samples: Samples<'_>,
        columns: SampleColumns,
        rows_at_once: u64,
        stored: Arc<crate::columns::Columns>,
        partition: PartitionValues,
    ) -> Result<Self> {
        let Samples {
            rows,
            fetched: range,
            skip,
        } = samples;
        let RowSet::Drawn(drawn) = rows else {
            let decoder = Decoder::new(fetched, skip, rows_at_once, stored, partition)?.with_views();
            return Ok(Self { decoder, drawn: None });
        };
        let next = range.start + skip;
        let all = drawn.places(&range);
        let ahead = match next < range.end {
            true => drawn.places(&(next..range.end)),
            false => Vec::new(),
        };
        let count = |runs: &[Range<u64>]| runs.iter().map(|run| run.end - run.start).sum::<u64>();
        // What is passed over stands before what is not.
        let skip = count(&all) - count(&ahead);
        Ok(Self {
            decoder: Decoder::new(fetched, skip, rows_at_once, stored, partition)?,
            drawn: Some(Repeats {
                samples: drawn.clone(),
                columns,
                next,
                ahead: ahead.into(),
                held: Vec::new(),
                places: Vec::new(),
            }),
        })
    }

    /// Rows of the run that are decoded.
    pub(crate) fn decoded(&self) -> u64 {
        self.decoder.decoded()
    }

    /// The next `n` samples, in one or more batches.
    pub(crate) fn take(&mut self, n: u64, out: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        let Some(repeats) = &mut self.drawn else {
            return self.decoder.take(n, out);
        };
        let mut left = n;
        while left > 0 {
            let now = left.min(DECODE_ROWS);
            out(repeats.take(now, &mut self.decoder)?)?;
            left -= now;
        }
        Ok(())
    }
}

impl Repeats {
    fn take(&mut self, n: u64, decoder: &mut Decoder) -> Result<RecordBatch> {
        let samples = self.next..self.next + n;
        self.forget(self.samples.first(samples.start));
        let end = self.samples.first(samples.end - 1) + self.samples.span();
        self.decode_to(end, decoder)?;

        let mut columns = Vec::with_capacity(self.columns.from.len());
        let mut taken: Option<(u64, Vec<(usize, usize)>)> = None;
        for (step, column) in self.columns.from.iter() {
            if taken.as_ref().is_none_or(|(own, _)| own != step) {
                let places = samples
                    .clone()
                    .map(|sample| self.find(self.samples.first(sample) + step));
                taken = Some((*step, places.collect::<Result<_>>()?));
            }
            let parts: Vec<&dyn Array> = self.held.iter().map(|batch| batch.column(*column).as_ref()).collect();
            let places = taken.as_ref().map_or(&[][..], |(_, places)| places);
            let column = interleave(&parts, places);
            columns.push(column.map_err(|error| Error::internal("cannot lay out samples").with_source(error))?);
        }
        self.next = samples.end;
        record_batch(&self.columns.schema, columns, n as usize)
    }

    /// Forgets the batches that hold nothing at `first` or behind it.
    fn forget(&mut self, first: u64) {
        let gone = self.places.partition_point(|(place, _)| *place < first);
        let batches = self.places.get(gone).map_or(self.held.len(), |(_, (batch, _))| *batch);
        if batches == 0 {
            return;
        }
        self.held.drain(..batches);
        self.places
            .retain_mut(|(_, (batch, _))| match batch.checked_sub(batches) {
                Some(left) => {
                    *batch = left;
                    true
                }
                None => false,
            });
    }

    /// Decodes until every row before `end` that samples need is held.
    fn decode_to(&mut self, end: u64, decoder: &mut Decoder) -> Result<()> {
        let wanted: u64 = self
            .ahead
            .iter()
            .map(|run| run.end.min(end).saturating_sub(run.start))
            .sum();
        let mut batches = Vec::new();
        decoder.take_all(wanted, &mut batches)?;
        for batch in batches {
            for row in 0..batch.num_rows() {
                let run = self.ahead.front_mut();
                let run = run.ok_or_else(|| Error::internal("more rows were decoded than samples need"))?;
                self.places.push((run.start, (self.held.len(), row)));
                run.start += 1;
                if run.is_empty() {
                    self.ahead.pop_front();
                }
            }
            self.held.push(batch);
        }
        Ok(())
    }

    fn find(&self, place: u64) -> Result<(usize, usize)> {
        let found = self.places.binary_search_by_key(&place, |(own, _)| *own);
        let found = found.map_err(|_| Error::internal("a row of a sample was not decoded"))?;
        Ok(self.places[found].1)
    }
}
