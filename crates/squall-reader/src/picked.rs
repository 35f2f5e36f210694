//! Which rows of which windows a batch takes.

use std::ops::Range;
use std::sync::Arc;

use squall_schema::RowId;

use crate::block::Taken;
use crate::order::Segment;
use crate::plan::PlannedBatch;
use crate::row_set::RowSet;
use crate::window::Window;

/// Rows of a window, by their places in the lane.
pub(crate) struct Pick {
    pub(crate) window: Arc<Window>,
    /// The place of its stretch in the batch.
    pub(crate) stretch: usize,
    pub(crate) rows: Range<u64>,
}

/// Which row of which window each row of a batch is.
pub(crate) struct Picked<'a> {
    pub(crate) windows: Vec<&'a Window>,
    /// The rows, window after window.
    pub(crate) taken: Vec<Taken>,
    /// For each row of the batch its place in the stored order of its window.
    pub(crate) stored: Vec<u64>,
    /// For each row of the batch its place among the selected rows of its row group. Empty where no dataset is kept in memory.
    pub(crate) places: Vec<u64>,
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

    pub(crate) fn taken_of(&self, source: usize) -> impl Iterator<Item = &Taken> {
        let own = move |taken: &&Taken| self.windows[taken.window as usize].pass.source == source;
        self.taken.iter().filter(own)
    }
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
