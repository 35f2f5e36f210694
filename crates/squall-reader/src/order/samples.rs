//! Samples one after the other, from both ends, each window shuffled once.

use std::collections::HashMap;
use std::ops::Range;

use super::Order;
use crate::random::Permutation;

/// A run of samples of an order, as [`Order::locate`] gives each of them: the piece, by its place in the selection, and which
/// of its selected rows. Made by [`Order::samples`].
///
/// It goes both ways, and what is skipped costs nothing.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    order: &'a Order,
    samples: Range<u64>,
    /// Where the lanes stand that were met from each end.
    front: HashMap<u64, Lane>,
    back: HashMap<u64, Lane>,
}

/// Where a lane stands.
#[derive(Debug, Clone)]
struct Lane {
    /// Its window, by the places in the lane, and how its rows are shuffled.
    window: Range<u64>,
    permutation: Permutation,
    /// The position of the window's first row.
    start: u64,
    /// The piece of the last row, and its positions.
    piece: u32,
    positions: Range<u64>,
}

impl Order {
    /// The samples in this range that the epoch has. Keeps a window for each lane that is met, a table of two bytes a row if
    /// the window has at most 4,096 rows.
    pub fn samples(&self, samples: Range<u64>) -> Samples<'_> {
        let end = samples.end.min(self.len());
        Samples {
            order: self,
            samples: samples.start.min(end)..end,
            front: HashMap::new(),
            back: HashMap::new(),
        }
    }

    /// All samples of the epoch.
    pub fn iter(&self) -> Samples<'_> {
        self.samples(0..self.len())
    }
}

fn locate(order: &Order, lanes: &mut HashMap<u64, Lane>, sample: u64) -> (u32, u64) {
    let (lane, place) = order.lane_of(sample);
    let new = || {
        let (index, window) = order.windows(lane).of(place);
        Lane {
            permutation: order.window_permutation(lane, index, &window),
            start: order.lane_start(lane) + window.start,
            window,
            piece: 0,
            positions: 0..0,
        }
    };
    let own = lanes.entry(lane).or_insert_with(new);
    if !own.window.contains(&place) {
        *own = new();
    }
    let position = own.start + own.permutation.get(place - own.window.start);
    if !own.positions.contains(&position) {
        (own.piece, own.positions) = order.piece_at(order.place_of(position));
    }
    (own.piece, position - own.positions.start)
}

impl Iterator for Samples<'_> {
    type Item = (u32, u64);

    fn next(&mut self) -> Option<(u32, u64)> {
        let sample = self.samples.next()?;
        Some(locate(self.order, &mut self.front, sample))
    }

    fn nth(&mut self, n: usize) -> Option<(u32, u64)> {
        let sample = self.samples.nth(n)?;
        Some(locate(self.order, &mut self.front, sample))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.samples.size_hint()
    }
}

impl DoubleEndedIterator for Samples<'_> {
    fn next_back(&mut self) -> Option<(u32, u64)> {
        let sample = self.samples.next_back()?;
        Some(locate(self.order, &mut self.back, sample))
    }

    fn nth_back(&mut self, n: usize) -> Option<(u32, u64)> {
        let sample = self.samples.nth_back(n)?;
        Some(locate(self.order, &mut self.back, sample))
    }
}
