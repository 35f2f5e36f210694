//! A lane as the driver sees it: the windows that it will be asked for, and what of its row groups is here.
//!
//! What a lane has of a row group is a run. A run that is small is fetched whole; one that is not comes in slices, each for the
//! windows that are wanted next, so that of a row group of any size only slices are in memory. A run is decoded forwards, by
//! one decoder: a page that two slices need stays in it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use squall_dataset::Piece;
use squall_schema::{Error, Result};

use crate::budget::Permit;
use crate::fetch::Fetched;
use crate::order::Segment;
use crate::plan::Pass;
use crate::row_set::RowSet;
use crate::slice::{Next, Pages, Slice};
use crate::window::Window;
use crate::work::{Cursor, Part, Run};

/// How the runs of a dataset are cut into slices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slicing {
    /// Bytes of a slice, about. A run of no more is fetched whole.
    pub(crate) bytes: u64,
    /// Rows that are decoded at a time.
    pub(crate) rows: u64,
}

pub(crate) struct Lane {
    pub(crate) pass: Arc<Pass>,
    lane: u64,
    slicing: Slicing,
    /// Windows to decode, in order, each with what its rows will take.
    queue: VecDeque<(Arc<Window>, Permit)>,
    /// Runs that the queue and the window behind it need, in order.
    runs: VecDeque<Pending>,
    /// `None` while a job has it.
    cursor: Option<Cursor>,
    /// The end of the last window that was opened.
    opened: u64,
    /// The first window that cannot be decoded, by its first row, and why. The lane stops there.
    failed: Option<(u64, Error)>,
}

/// A run that is fetched or being fetched.
struct Pending {
    /// Its rows, counted in the lane.
    rows: Range<u64>,
    piece: Piece,
    set: RowSet,
    samples: Range<u64>,
    /// Rows that its decoder will give, if they are counted one by one.
    len: u64,
    is_sliced: bool,
    /// Rows of the decoder that windows need, that were asked for, and that are here.
    needed: u64,
    asked: u64,
    arrived: u64,
    /// The pages that were fetched; `None` while a fetch is under way.
    pages: Option<Pages>,
    /// `None` until something of it is here.
    run: Option<Arc<Run>>,
    /// Why no more of it comes.
    error: Option<Error>,
}

/// A fetch that is to be made.
pub(crate) struct Ask {
    /// The lane's row where the run begins.
    pub(crate) start: u64,
    pub(crate) piece: Piece,
    pub(crate) next: Next,
    /// What is known of the run, from its first slice on.
    pub(crate) run: Option<Arc<Run>>,
    /// Its rows in the row group, where it is the first slice.
    pub(crate) stored: Vec<Range<u64>>,
    /// About how many bytes it will bring.
    pub(crate) bytes: u64,
}

/// A slice that is here.
pub(crate) struct Arrived {
    pub(crate) slice: Slice,
    /// The first one of a run.
    pub(crate) fetched: Option<Fetched>,
}

/// A window that can be decoded.
pub(crate) struct Ready {
    pub(crate) window: Arc<Window>,
    pub(crate) permit: Permit,
    pub(crate) cursor: Cursor,
    pub(crate) parts: Vec<Part>,
}

impl Lane {
    pub(crate) fn new(pass: Arc<Pass>, lane: u64, slicing: Slicing) -> Self {
        Self {
            pass,
            lane,
            slicing,
            queue: VecDeque::new(),
            runs: VecDeque::new(),
            cursor: Some(Cursor::default()),
            opened: 0,
            failed: None,
        }
    }

    /// Takes the next window, with the permit for its rows. `pieces` are those of the dataset.
    pub(crate) fn open(&mut self, window: Arc<Window>, permit: Permit, pieces: &[Piece]) {
        let order = &self.pass.order;
        // One window more than is needed now: its bytes are here when its turn comes.
        let (_, ahead) = order
            .windows(self.lane)
            .of(window.rows.end.min(order.lane_len(self.lane) - 1));
        let wanted = window.rows.start..ahead.end;
        // A decoder of slices does not pass over rows: what is not wanted in between was not fetched.
        if wanted.start > self.opened
            && let Some(last) = self.runs.back_mut()
            && last.is_sliced
            && !last.run.as_ref().is_some_and(|run| run.fetched.bytes.is_streamed())
        {
            last.rows.end = last.rows.end.min(self.opened);
            last.needed = last.needed.min(last.asked);
        }
        self.opened = window.rows.end;
        self.queue.push_back((window, permit));
        self.drop_decoder();
        let mut at = wanted.start.max(self.runs.back().map_or(0, |run| run.rows.end));
        while at < wanted.end {
            let Segment { piece, rows } = self.pass.order.segment_at(self.lane, at);
            let end = at + (rows.end - rows.start);
            let selected = &self.pass.selection.pieces()[piece as usize];
            let info = pieces[selected.piece as usize];
            let mut pending = Pending {
                rows: at..end,
                piece: info,
                set: selected.rows.clone(),
                len: 0,
                samples: rows,
                is_sliced: false,
                needed: 0,
                asked: 0,
                arrived: 0,
                pages: Some(Pages::default()),
                run: None,
                error: None,
            };
            pending.len = pending.decoded_before(end);
            pending.is_sliced = pending.bytes(pending.len) > self.slicing.bytes;
            self.runs.push_back(pending);
            at = end;
        }
        for run in &mut self.runs {
            // Of slices no more than is needed: they are large where windows are.
            let end = match run.is_sliced {
                true => self.opened,
                false => wanted.end,
            };
            let end = run.rows.end.min(end);
            if end > run.rows.start {
                let needed = match run.is_sliced {
                    true => run.decoded_before(end).next_multiple_of(self.slicing.rows).min(run.len),
                    false => run.len,
                };
                run.needed = run.needed.max(needed);
            }
        }
    }

    /// Drops a decoder that the next window does not go on with: it holds pages, and what was fetched for it.
    fn drop_decoder(&mut self) {
        if let (Some((window, _)), Some(cursor)) = (self.queue.front(), &mut self.cursor) {
            cursor.open.take_if(|open| !open.reaches(window.rows.start));
        }
    }

    /// The fetches that are to be made now, one a run at most.
    pub(crate) fn asks(&mut self) -> Vec<Ask> {
        let slicing = self.slicing;
        let ask = |run: &mut Pending| {
            if run.asked >= run.needed {
                return None;
            }
            let pages = run.pages.take()?;
            let from = run.asked;
            let is_first = from == 0;
            // Until it arrives nobody knows how far the slice will reach.
            run.asked = run.len;
            let rows = run.needed - from;
            Some(Ask {
                start: run.rows.start,
                piece: run.piece,
                bytes: run.bytes(rows).max(slicing.bytes.min(run.bytes(run.len - from))),
                stored: match is_first {
                    true => run.set.runs(&run.samples),
                    false => Vec::new(),
                },
                run: run.run.clone(),
                next: Next {
                    rows: from..run.needed,
                    len: run.len,
                    bytes: run.is_sliced.then_some(slicing.bytes),
                    unit: slicing.rows,
                    pages,
                },
            })
        };
        self.runs.iter_mut().filter_map(ask).collect()
    }

    /// Takes what a fetch brought for the run that begins at row `start`.
    pub(crate) fn arrive(&mut self, start: u64, result: Result<Arrived>) {
        let Some(pending) = self.runs.iter_mut().find(|run| run.rows.start == start) else {
            return;
        };
        match result {
            Ok(Arrived {
                slice: Slice { to, pages, .. },
                fetched,
            }) => {
                (pending.asked, pending.arrived, pending.pages) = (to, to, Some(pages));
                if let Some(fetched) = fetched {
                    pending.run = Some(Arc::new(Run {
                        rows: pending.rows.clone(),
                        piece: pending.piece,
                        set: pending.set.clone(),
                        samples: pending.samples.clone(),
                        is_sliced: pending.is_sliced,
                        fetched,
                    }));
                }
            }
            Err(error) => pending.error = Some(error),
        }
    }

    /// The next window, if its bytes are here and no job has the lane.
    pub(crate) fn ready(&mut self) -> Option<Ready> {
        let (Some((window, _)), Some(_), None) = (self.queue.front(), &self.cursor, &self.failed) else {
            return None;
        };
        // A rank that takes part of a lane may never need some window.
        while self.runs.front().is_some_and(|run| run.rows.end <= window.rows.start) {
            self.runs.pop_front();
        }
        let mut parts = Vec::new();
        let mut covered = 0;
        for pending in &mut self.runs {
            let rows = window.rows.start.max(pending.rows.start)..window.rows.end.min(pending.rows.end);
            if rows.start >= rows.end {
                break;
            }
            match &pending.run {
                Some(run) if pending.is_here(rows.end, self.slicing.rows) => {
                    covered += rows.end - rows.start;
                    parts.push(Part { run: run.clone(), rows });
                }
                _ => {
                    // What was here before the error is decoded; this window was not.
                    self.failed = pending.error.take().map(|error| (window.rows.start, error));
                    return None;
                }
            }
        }
        if covered < window.rows.end - window.rows.start {
            return None;
        }
        let ((window, permit), cursor) = (self.queue.pop_front()?, self.cursor.take()?);
        // The parts hold what the job needs; a run whose end is decoded is not needed again.
        while self.runs.front().is_some_and(|run| run.rows.end <= window.rows.end) {
            self.runs.pop_front();
        }
        Some(Ready {
            window,
            permit,
            cursor,
            parts,
        })
    }

    /// A job gives the decoder back; an error is that of the window that begins at `start`.
    pub(crate) fn decoded(&mut self, cursor: Cursor, start: u64, result: Result<()>) {
        self.cursor = Some(cursor);
        self.drop_decoder();
        if let Err(error) = result {
            self.failed = Some((start, error));
        }
    }

    /// Takes the error that keeps this window from being decoded. What failed behind it is no concern of it.
    pub(crate) fn take_failure(&mut self, window: &Window) -> Option<Error> {
        let failed = self.failed.take_if(|(start, _)| *start <= window.rows.start);
        failed.map(|(_, error)| error)
    }

    /// Whether it has nothing to do and holds nothing that it will need; `is_old` if no window will come any more.
    pub(crate) fn is_idle(&self, is_old: bool) -> bool {
        let Some(cursor) = &self.cursor else {
            return false;
        };
        let holds_nothing = cursor.open.is_none() && self.runs.is_empty();
        self.queue.is_empty() && self.failed.is_none() && (holds_nothing || is_old)
    }
}

impl Pending {
    /// Rows that the decoder gives for the samples before this row of the lane.
    fn decoded_before(&self, row: u64) -> u64 {
        let samples = self.samples.start..self.samples.start + (row - self.rows.start);
        match &self.set {
            RowSet::Drawn(drawn) => drawn.places(&samples).iter().map(|run| run.end - run.start).sum(),
            _ => samples.end - samples.start,
        }
    }

    /// Whether all is here that decoding takes up to this row of the lane.
    fn is_here(&self, row: u64, unit: u64) -> bool {
        match self.is_sliced {
            true => self.decoded_before(row).next_multiple_of(unit).min(self.len) <= self.arrived,
            false => self.arrived == self.len,
        }
    }

    /// About how many bytes so many rows are in the file.
    fn bytes(&self, rows: u64) -> u64 {
        let bytes = u128::from(self.piece.compressed_bytes) * u128::from(rows) / u128::from(self.piece.rows.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}
