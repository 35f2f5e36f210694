//! What each rank fetches in an epoch, by the rule of the pipeline.
//!
//! The pipeline fetches a lane's windows that a rank needs, each with the window behind it, and a fetch goes on to the end of
//! its row group or lane. So of a segment (what a lane has of a row group) a rank fetches nothing, or one run: from the
//! first row that is wanted to the end. Which row that is follows from the first place at or behind the window before the
//! segment that the rank takes, and that is found without walking the epoch.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use squall_schema::Result;

use super::batches::{Batches, part_of, walk};
use super::{Coverage, Sizes};
use crate::order::LaneWindows;

/// Places that are looked up before a forecast is content with a part of the row groups: about two seconds of work.
const PROBES: u64 = 1 << 25;

/// What a rank fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fetches {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) row_groups: u64,
}

/// What all ranks fetch.
pub(crate) struct AllFetches {
    pub(crate) ranks: Vec<Fetches>,
    /// Row groups of which some rank fetches something.
    pub(crate) row_groups: u64,
    pub(crate) coverage: Coverage,
}

/// A part of a row group that lies in one lane.
pub(crate) struct Segment {
    /// The row group's place in the epoch.
    place: usize,
    /// The row group, by its place in the selection.
    piece: u32,
    lane: u64,
    /// Its rows, counted in the lane.
    pub(crate) rows: Range<u64>,
    /// The row of the lane that is the row group's first selected row, if that were in the lane.
    first: i128,
}

impl Segment {
    /// Bytes that fetching it takes from this row of the lane on.
    pub(crate) fn bytes(&self, from: u64, sizes: &dyn Sizes) -> Result<u64> {
        let row = |row: u64| (i128::from(row) - self.first) as u64;
        sizes.fetch(self.piece, row(from)..row(self.rows.end))
    }
}

/// The lane that holds a position, and the lane's first position.
fn lane_at(batches: &Batches, position: u64) -> (u64, u64) {
    let lane = part_of(position, batches.order.len(), batches.order.lanes());
    (lane, batches.order.lane_start(lane))
}

/// The segments of the row group in this place of the epoch.
fn segments(batches: &Batches, place: usize) -> impl Iterator<Item = Segment> {
    let (piece, positions) = batches.order.piece_at(place);
    let mut at = positions.start;
    std::iter::from_fn(move || {
        if at == positions.end {
            return None;
        }
        let (lane, start) = lane_at(batches, at);
        let end = positions.end.min(start + batches.order.lane_len(lane));
        let rows = at - start..end - start;
        at = end;
        Some(Segment {
            place,
            piece,
            lane,
            rows,
            first: i128::from(positions.start) - i128::from(start),
        })
    })
}

/// The segment that holds a row of a lane.
pub(crate) fn segment_of(batches: &Batches, lane: u64, row: u64) -> Segment {
    let start = batches.order.lane_start(lane);
    let place = batches.order.place_of(start + row);
    let (piece, positions) = batches.order.piece_at(place);
    let end = positions.end.min(start + batches.order.lane_len(lane));
    Segment {
        place,
        piece,
        lane,
        rows: positions.start.max(start) - start..end - start,
        first: i128::from(positions.start) - i128::from(start),
    }
}

/// The rows of a segment because of which a rank may fetch some of it.
fn concern(windows: &LaneWindows, rows: &Range<u64>) -> Range<u64> {
    let (_, first) = windows.of(rows.start);
    let start = first.start.checked_sub(1).map_or(0, |row| windows.of(row).1.start);
    start..windows.of(rows.end - 1).1.end
}

/// The row of the lane from which on a rank fetches the segment, padding aside.
pub(crate) fn fetched_from(batches: &Batches, windows: &LaneWindows, segment: &Segment, rank: u64) -> Option<u64> {
    let place = batches.next_place(segment.lane, rank, &concern(windows, &segment.rows))?;
    Some(windows.of(place).1.start.max(segment.rows.start))
}

/// What each rank fetches; of very large epochs an estimate from row groups that are evenly spaced in the epoch.
pub(crate) fn fetches(batches: &Batches, sizes: &dyn Sizes) -> Result<AllFetches> {
    let n_pieces = batches.order.n_pieces();
    let mut all = Sums::new(batches.share.world_size);
    // Every 2^k-th row group, then those halfway between them, and so on as long as there is time.
    let mut stride = n_pieces.next_power_of_two();
    let mut visited = 0u64;
    loop {
        let first_time = stride >= n_pieces;
        for place in (0..n_pieces).step_by(stride) {
            if first_time || !(place / stride).is_multiple_of(2) {
                all.visit(batches, place, sizes)?;
                visited += 1;
            }
        }
        // The next turn costs as much as all before it.
        if stride == 1 || batches.probes() > PROBES / 2 {
            break;
        }
        stride /= 2;
    }
    let n_pieces = n_pieces as u64;
    let scale = |sum: u64, taken: u64, of: u64| match taken {
        0 => sum,
        taken => (u128::from(sum) * u128::from(of) / u128::from(taken)) as u64,
    };
    for RankSums { fetches, .. } in &mut all.ranks {
        *fetches = Fetches {
            rows: scale(fetches.rows, all.rows, batches.order.len()),
            bytes: scale(fetches.bytes, all.rows, batches.order.len()),
            row_groups: scale(fetches.row_groups, visited, n_pieces),
        };
    }
    let row_groups = scale(all.row_groups, visited, n_pieces);
    let mut ranks: Vec<_> = all.ranks.into_iter().map(|sums| sums.fetches).collect();
    if batches.steps > 0 && batches.rows(batches.steps - 1) > rows_without_padding(batches) {
        for (rank, fetches) in (0..).zip(&mut ranks) {
            Padding::new(batches, sizes, rank).add_to(fetches)?;
        }
    }
    Ok(AllFetches {
        ranks,
        row_groups,
        coverage: Coverage {
            taken: visited,
            of: n_pieces,
        },
    })
}

/// Rows of the last batch that are no padding.
fn rows_without_padding(batches: &Batches) -> u64 {
    let samples = batches.samples(batches.steps - 1);
    samples.end - samples.start
}

struct RankSums {
    fetches: Fetches,
    /// The last row group that was counted.
    last: Option<usize>,
}

struct Sums {
    ranks: Vec<RankSums>,
    row_groups: u64,
    /// Rows of the row groups that were looked at.
    rows: u64,
}

impl Sums {
    fn new(world_size: u64) -> Self {
        let none = || RankSums {
            fetches: Fetches::default(),
            last: None,
        };
        Self {
            ranks: (0..world_size).map(|_| none()).collect(),
            row_groups: 0,
            rows: 0,
        }
    }

    fn visit(&mut self, batches: &Batches, place: usize, sizes: &dyn Sizes) -> Result<()> {
        let mut any = false;
        for segment in segments(batches, place) {
            self.rows += segment.rows.end - segment.rows.start;
            let windows = batches.order.windows(segment.lane);
            let regular = batches.ranks_of_lane(segment.lane);
            let end = concern(&windows, &segment.rows).end;
            let tail = batches.tail(segment.lane).filter(|(places, _)| places.start < end);
            let tail = tail.map_or(0..0, |(_, ranks)| ranks);
            let others = tail.filter(|rank| !regular.contains(rank));
            // Most ranks fetch the same rows.
            let mut last: Option<(u64, u64)> = None;
            for rank in regular.clone().chain(others) {
                let Some(from) = fetched_from(batches, &windows, &segment, rank) else {
                    continue;
                };
                let bytes = match last {
                    Some((same, bytes)) if same == from => bytes,
                    _ => segment.bytes(from, sizes)?,
                };
                last = Some((from, bytes));
                any = true;
                let sums = &mut self.ranks[rank as usize];
                sums.fetches.rows += segment.rows.end - from;
                sums.fetches.bytes += bytes;
                if sums.last != Some(place) {
                    sums.last = Some(place);
                    sums.fetches.row_groups += 1;
                }
            }
        }
        self.row_groups += u64::from(any);
        Ok(())
    }
}

/// What padding makes a rank fetch: it goes back to the first rows of the epoch, in passes of their own.
struct Padding<'a> {
    batches: &'a Batches<'a>,
    sizes: &'a dyn Sizes,
    rank: u64,
    /// The last window of each lane that this pass opened; `None` if it opened none.
    open: HashMap<u64, Option<Range<u64>>>,
    /// Whether the pass is another one than that of the rows before the padding.
    restarted: bool,
    places: HashSet<usize>,
    added: Fetches,
}

impl<'a> Padding<'a> {
    fn new(batches: &'a Batches<'a>, sizes: &'a dyn Sizes, rank: u64) -> Self {
        Self {
            batches,
            sizes,
            rank,
            open: HashMap::new(),
            restarted: false,
            places: HashSet::new(),
            added: Fetches::default(),
        }
    }

    fn add_to(mut self, fetches: &mut Fetches) -> Result<()> {
        let batches = self.batches;
        let mine = batches.mine(batches.steps - 1, self.rank);
        let (mut rows, total) = (rows_without_padding(batches), batches.rows(batches.steps - 1));
        while rows < total {
            let samples = 0..(total - rows).min(batches.order.len());
            let offsets = mine.start.saturating_sub(rows)..mine.end.saturating_sub(rows);
            let mut runs = Vec::new();
            walk(batches.order.lanes(), &samples, offsets, |lane, places| {
                runs.push((lane, places));
            });
            for (lane, places) in runs {
                let windows = batches.order.windows(lane);
                let mut at = places.start;
                while at < places.end {
                    let (_, window) = windows.of(at);
                    at = window.end;
                    self.open(lane, &windows, window)?;
                }
            }
            rows += samples.end;
        }
        for place in &self.places {
            let fetched = |segment: Segment| {
                let windows = batches.order.windows(segment.lane);
                fetched_from(batches, &windows, &segment, self.rank).is_some()
            };
            self.added.row_groups += u64::from(!segments(batches, *place).any(fetched));
        }
        fetches.rows += self.added.rows;
        fetches.bytes += self.added.bytes;
        fetches.row_groups += self.added.row_groups;
        Ok(())
    }

    fn open(&mut self, lane: u64, windows: &LaneWindows, window: Range<u64>) -> Result<()> {
        let before = || {
            let last = self.batches.last_place(lane, self.rank).filter(|_| !self.restarted);
            last.map(|place| windows.of(place).1)
        };
        let mut last = self.open.entry(lane).or_insert_with(before).clone();
        if last.as_ref() == Some(&window) {
            return Ok(());
        }
        if last.as_ref().is_some_and(|last| last.start > window.start) {
            self.restarted = true;
            self.open.clear();
            last = None;
        }
        let len = self.batches.order.lane_len(lane);
        let ahead = |window: &Range<u64>| windows.of(window.end.min(len - 1)).1.end;
        let here = last.map_or(0, |last| segment_of(self.batches, lane, ahead(&last) - 1).rows.end);
        let (mut at, end) = (here.max(window.start), ahead(&window));
        while at < end {
            let segment = segment_of(self.batches, lane, at);
            self.added.rows += segment.rows.end - at;
            self.added.bytes += segment.bytes(at, self.sizes)?;
            self.places.insert(segment.place);
            at = segment.rows.end;
        }
        self.open.insert(lane, Some(window));
        Ok(())
    }
}
