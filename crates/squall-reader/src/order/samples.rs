//! Samples one after the other, from both ends, each window shuffled once.

use std::iter::FusedIterator;
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
    /// What is left.
    samples: Range<u64>,
    front: Lanes,
    back: Lanes,
}

/// Where the lanes stand that were met from one end.
#[derive(Debug, Clone)]
struct Lanes {
    /// The first sample of the range.
    first: u64,
    /// Lanes that the range meets: they take turns, so that a sample's turn names its lane.
    turns: u64,
    /// Empty until one is met.
    lanes: Vec<Option<Lane>>,
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
        let samples = samples.start.min(end)..end;
        let lanes = Lanes {
            first: samples.start,
            turns: self.lanes().min(samples.end - samples.start),
            lanes: Vec::new(),
        };
        Samples {
            order: self,
            samples,
            front: lanes.clone(),
            back: lanes,
        }
    }

    /// All samples of the epoch.
    pub fn iter(&self) -> Samples<'_> {
        self.samples(0..self.len())
    }
}

impl Lanes {
    fn locate(&mut self, order: &Order, sample: u64) -> (u32, u64) {
        if self.lanes.is_empty() {
            self.lanes.resize_with(self.turns as usize, || None);
        }
        let (lane, place) = order.lane_of(sample);
        let slot = &mut self.lanes[((sample - self.first) % self.turns) as usize];
        let own = match slot {
            Some(own) if own.window.contains(&place) => own,
            _ => {
                let (index, window) = order.windows(lane).of(place);
                slot.insert(Lane {
                    permutation: order.window_permutation(lane, index, &window),
                    start: order.lane_start(lane) + window.start,
                    window,
                    piece: 0,
                    positions: 0..0,
                })
            }
        };
        let position = own.start + own.permutation.get(place - own.window.start);
        if !own.positions.contains(&position) {
            (own.piece, own.positions) = order.piece_at(order.place_of(position));
        }
        (own.piece, position - own.positions.start)
    }
}

impl Iterator for Samples<'_> {
    type Item = (u32, u64);

    fn next(&mut self) -> Option<(u32, u64)> {
        let sample = self.samples.next()?;
        Some(self.front.locate(self.order, sample))
    }

    fn nth(&mut self, n: usize) -> Option<(u32, u64)> {
        let sample = self.samples.nth(n)?;
        Some(self.front.locate(self.order, sample))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.samples.size_hint()
    }
}

impl DoubleEndedIterator for Samples<'_> {
    fn next_back(&mut self) -> Option<(u32, u64)> {
        let sample = self.samples.next_back()?;
        Some(self.back.locate(self.order, sample))
    }

    fn nth_back(&mut self, n: usize) -> Option<(u32, u64)> {
        let sample = self.samples.nth_back(n)?;
        Some(self.back.locate(self.order, sample))
    }
}

impl FusedIterator for Samples<'_> {}

impl Samples<'_> {
    /// Samples that are left.
    pub fn len(&self) -> u64 {
        self.samples.end - self.samples.start
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}
