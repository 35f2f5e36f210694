//! The order of an epoch, as a pure value.
//!
//! From the selected rows of each piece, a seed, an epoch, lanes and a window comes a permutation of all samples with
//! random access in both directions of time: nothing is replayed. Who reads it (ranks, threads, machines) is not an
//! input. `docs/order.md` explains it with a picture.

mod samples;

use std::ops::Range;

use squall_schema::{Error, Result};

pub use self::samples::Samples;
use crate::random::{Domain, Permutation, below, stream, window_index};

/// Goes up when the same inputs give another order. It is part of a saved state.
pub const ORDER_VERSION: u32 = 1;

/// Most lanes of an order; see [`window_index`].
const MAX_LANES: u64 = 1 << 24;

/// How rows are shuffled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shuffle {
    /// Not at all: the rows come as they are stored.
    None,
    /// Pieces are shuffled, many lanes are read side by side, rows are shuffled inside windows of each lane.
    #[default]
    Windows,
    /// One permutation of all rows. For data that fits in memory: the whole selection is one window.
    Full,
}

/// What decides an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderOptions {
    /// How rows are shuffled.
    pub shuffle: Shuffle,
    /// Seed of all random choices.
    pub seed: u64,
    /// Places in the epoch that are read side by side. Used by [`Shuffle::Windows`].
    pub lanes: u64,
    /// Rows that are shuffled together in a lane. Used by [`Shuffle::Windows`].
    pub window: u64,
}

/// The order of one epoch: a permutation of the samples `0..len`.
#[derive(Debug, Clone)]
pub struct Order {
    shuffle: Shuffle,
    seed: u64,
    epoch: u64,
    lanes: u64,
    window: u64,
    /// Where each place in `pieces` has its piece from.
    permutation: Permutation,
    /// The pieces in the order of the epoch.
    pieces: Vec<u32>,
    /// Where each of them begins, and the number of all rows at the end.
    starts: Vec<u64>,
}

/// A run of rows of one piece, in the order of the epoch before windows are shuffled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The place of the piece in the selection.
    pub(crate) piece: u32,
    /// Which of the piece's selected rows.
    pub(crate) rows: Range<u64>,
}

impl Order {
    /// The order of `epoch` over pieces with this many selected rows each.
    pub fn new(rows_per_piece: &[u64], options: &OrderOptions, epoch: u64) -> Result<Self> {
        let n_pieces = u64::from(
            u32::try_from(rows_per_piece.len()).map_err(|_| Error::unsupported("more than 2^32 row groups"))?,
        );
        let len = rows_per_piece.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows));
        let len = len
            .filter(|len| *len < 1 << 63)
            .ok_or_else(|| Error::unsupported("more than 2^63 rows"))?;
        let (lanes, window) = match options.shuffle {
            // Nothing is shuffled inside the windows; they are what is read ahead.
            Shuffle::None => (1, options.window),
            Shuffle::Windows => (options.lanes, options.window),
            Shuffle::Full => (1, len.max(1)),
        };
        if !(1..=MAX_LANES).contains(&options.lanes) {
            return Err(Error::invalid(format!(
                "expected 1 to {MAX_LANES} lanes, found {}",
                options.lanes
            )));
        }
        if options.window == 0 {
            return Err(Error::invalid("expected a window of at least one row, found 0"));
        }
        // A lane without a row holds no sample: leaving it out changes nothing.
        let lanes = lanes.min(len.max(1));
        let permutation = match options.shuffle {
            Shuffle::Windows => Permutation::new(n_pieces, &mut stream(options.seed, epoch, Domain::Pieces, 0)),
            Shuffle::None | Shuffle::Full => Permutation::Identity,
        };
        let pieces: Vec<u32> = (0..n_pieces).map(|i| permutation.get(i) as u32).collect();
        let mut starts = Vec::with_capacity(pieces.len() + 1);
        let mut next = 0;
        for piece in &pieces {
            starts.push(next);
            next += rows_per_piece[*piece as usize];
        }
        starts.push(next);
        Ok(Self {
            shuffle: options.shuffle,
            seed: options.seed,
            epoch,
            lanes,
            window,
            permutation,
            pieces,
            starts,
        })
    }

    /// Samples in the epoch.
    pub fn len(&self) -> u64 {
        self.starts[self.pieces.len()]
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    #[cfg(test)]
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn shuffles(&self) -> bool {
        self.shuffle != Shuffle::None
    }

    /// Lanes that are read side by side.
    pub fn lanes(&self) -> u64 {
        self.lanes
    }

    /// Rows of a lane. The first `len % lanes` lanes have one row more than the others.
    pub fn lane_len(&self, lane: u64) -> u64 {
        self.len() / self.lanes + u64::from(lane < self.len() % self.lanes)
    }

    /// The position of a lane's first row.
    pub(crate) fn lane_start(&self, lane: u64) -> u64 {
        lane * (self.len() / self.lanes) + lane.min(self.len() % self.lanes)
    }

    /// The lane of a sample, and its place there.
    pub(crate) fn lane_of(&self, sample: u64) -> (u64, u64) {
        (sample % self.lanes, sample / self.lanes)
    }

    /// Rows in a lane's first window. It is random so that the lanes do not come to their windows' ends together.
    fn first_window(&self, lane: u64) -> u64 {
        match self.shuffle {
            Shuffle::Windows => {
                1 + below(
                    &mut stream(self.seed, self.epoch, Domain::FirstWindow, lane),
                    self.window,
                )
            }
            Shuffle::None | Shuffle::Full => self.window,
        }
    }

    /// The windows of a lane.
    pub(crate) fn windows(&self, lane: u64) -> LaneWindows {
        LaneWindows {
            first: self.first_window(lane),
            window: self.window,
            len: self.lane_len(lane),
        }
    }

    /// How the rows of a window are shuffled.
    pub(crate) fn window_permutation(&self, lane: u64, window: u64, rows: &Range<u64>) -> Permutation {
        if !self.shuffles() {
            return Permutation::Identity;
        }
        let index = window_index(lane, window);
        Permutation::new(
            rows.end - rows.start,
            &mut stream(self.seed, self.epoch, Domain::Window, index),
        )
    }

    /// The run of a piece's rows that begins with row `row` of a lane and goes to the end of the piece or of the lane.
    pub(crate) fn segment_at(&self, lane: u64, row: u64) -> Segment {
        let at = self.lane_start(lane) + row;
        let place = self.place_of(at);
        let offset = self.starts[place];
        let end = self.starts[place + 1].min(self.lane_start(lane) + self.lane_len(lane));
        Segment {
            piece: self.pieces[place],
            rows: at - offset..end - offset,
        }
    }

    /// The pieces, those without a row included.
    pub(crate) fn n_pieces(&self) -> usize {
        self.pieces.len()
    }

    /// The place in the epoch of a piece.
    pub(crate) fn place_of_piece(&self, piece: u32) -> usize {
        self.permutation.inverse(u64::from(piece)) as usize
    }

    /// The piece in this place of the epoch, and its positions.
    pub(crate) fn piece_at(&self, place: usize) -> (u32, Range<u64>) {
        (self.pieces[place], self.starts[place]..self.starts[place + 1])
    }

    /// The place in `pieces` that holds this position.
    pub(crate) fn place_of(&self, position: u64) -> usize {
        self.starts.partition_point(|start| *start <= position) - 1
    }

    /// The piece, by its place in the selection, and which of its selected rows sample `sample` is.
    ///
    /// Takes O(log pieces) time, and that of a table where the window has at most 4,096 rows.
    pub fn locate(&self, sample: u64) -> Option<(u32, u64)> {
        if sample >= self.len() {
            return None;
        }
        let (lane, q) = self.lane_of(sample);
        let (window, rows) = self.windows(lane).of(q);
        let shuffled = rows.start + self.window_permutation(lane, window, &rows).get(q - rows.start);
        Some(self.locate_unshuffled(lane, shuffled))
    }

    /// Which sample is this row: [`Order::locate`] the other way round. `None` where there is no such row.
    ///
    /// Takes O(1) time, and that of a search in tables of at most 4,096 elements.
    pub fn sample_of(&self, piece: u32, row: u64) -> Option<u64> {
        if piece as usize >= self.pieces.len() {
            return None;
        }
        let place = self.permutation.inverse(u64::from(piece)) as usize;
        if row >= self.starts[place + 1] - self.starts[place] {
            return None;
        }
        let position = self.starts[place] + row;
        let lane = self.lane_at(position);
        let stored = position - self.lane_start(lane);
        let (window, rows) = self.windows(lane).of(stored);
        let q = rows.start
            + self
                .window_permutation(lane, window, &rows)
                .inverse(stored - rows.start);
        Some(q * self.lanes + lane)
    }

    /// The lane that holds this position.
    pub(crate) fn lane_at(&self, position: u64) -> u64 {
        let (short, longer) = (self.len() / self.lanes, self.len() % self.lanes);
        let in_longer = longer * (short + 1);
        match position.checked_sub(in_longer) {
            None => position / (short + 1),
            Some(beyond) => longer + beyond / short,
        }
    }

    /// The piece and row of a lane's row, before windows are shuffled.
    pub(crate) fn locate_unshuffled(&self, lane: u64, row: u64) -> (u32, u64) {
        let position = self.lane_start(lane) + row;
        let place = self.place_of(position);
        (self.pieces[place], position - self.starts[place])
    }
}

/// Where the windows of a lane begin and end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneWindows {
    first: u64,
    window: u64,
    len: u64,
}

impl LaneWindows {
    /// The window that holds row `q`, and its rows.
    pub(crate) fn of(&self, q: u64) -> (u64, Range<u64>) {
        if q < self.first {
            return (0, 0..self.first.min(self.len));
        }
        let window = 1 + (q - self.first) / self.window;
        let start = self.first + (window - 1) * self.window;
        (window, start..start.saturating_add(self.window).min(self.len))
    }
}

#[cfg(test)]
mod randomness;
#[cfg(test)]
mod tests;
