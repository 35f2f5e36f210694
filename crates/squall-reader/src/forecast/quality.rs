//! How well an epoch is shuffled, and which rows come when: batches are laid out row by row, all of them or an even sample.
//!
//! A batch is judged by where its rows are stored. The stored order is cut into equal strata; the counts of a batch's rows in
//! them are compared with those of a random sample without replacement by Pearson's chi-square. Its mean over the batches,
//! divided by what a random permutation gives, is the design effect (L. Kish, "Survey Sampling", 1965; for chi-square: J. N.
//! K. Rao and A. J. Scott, "The Analysis of Categorical Data From Complex Sample Surveys", 1981). A batch of `B` rows tells as
//! much of the data as `B / deff` random rows.

use std::collections::HashMap;
use std::ops::Range;

use super::batches::{Batches, walk};
use super::strata::{Stored, Strata};
use super::{Coverage, DeliveryMap, Party, Quality};
use crate::random::Permutation;

/// Rows that are laid out of a batch; of larger ones every n-th is.
const BATCH_ROWS: u64 = 1 << 20;
/// Rows of an epoch that is laid out whole.
const EPOCH_ROWS: u64 = 1 << 22;
/// The work on a sampled epoch, in nanoseconds by rough estimates of a row and of a shuffled window.
const WORK: u64 = 400_000_000;
const ROW_WORK: u64 = 30;
const WINDOW_WORK: u64 = 500;
const ENTRY_WORK: u64 = 8;
/// The work on a batch of a rank, in rows.
pub(crate) const RANK_WORK: u64 = 8;
/// Where an epoch has fewer batches than this, those that follow are judged too, so many of them, until the standard error of
/// the quality is this.
const BATCHES: u64 = 64;
const ERROR: f64 = 0.01;
const EPOCHS: Range<u64> = 8..512;
/// Windows that are shuffled as a table; see `random`.
const TABLE_ROWS: u64 = 4096;
/// Windows that are kept from batch to batch.
const KEPT_WINDOWS: usize = 4096;

/// What is known of the quality, epoch by epoch.
#[derive(Default)]
pub(crate) struct Verdict {
    strata: u64,
    epochs: u64,
    /// Design effects of global batches, and the mean ones of the batches of their ranks.
    global: Effect,
    own: Effect,
    row_groups: Mean,
    random: Mean,
    /// Batches of the first epoch that were laid out, and all of them.
    taken: Option<Coverage>,
}

impl Verdict {
    /// Judges an epoch, and draws its map where one is wanted.
    pub(crate) fn add(&mut self, parties: &[Party], stored: &Stored, n_ranks: u64, map: Option<&mut DeliveryMap>) {
        let steps = parties.iter().map(|party| party.batches.steps).max().unwrap_or(0);
        // Batches of equal size are compared; where there is none, the short ones.
        let full = parties.iter().map(|party| party.batches.full()).min().unwrap_or(0);
        let judged = if full > 0 { full } else { steps };
        let taken = batches_to_take(parties, steps);
        let mut judge = Judge {
            stored,
            layouts: parties.iter().map(|party| Layout::new(&party.batches)).collect(),
            seen: vec![0; stored.starts.len()],
            rows: Vec::new(),
        };
        let (mut global, mut own) = (Mean::default(), Mean::default());
        let mut map = map;
        for i in 0..taken {
            let batch = (u128::from(i) * u128::from(steps) / u128::from(taken)) as u64;
            let (mut all, mut ranks) = (Strata::default(), Mean::default());
            let (mut distinct, mut size) = (0u64, 0);
            for (p, party) in parties.iter().enumerate() {
                if batch >= party.batches.steps {
                    continue;
                }
                let thinned = judge.lay_out(p, batch, &party.pieces);
                let laid = judge.rows.len() as u64;
                let samples = party.batches.samples(batch);
                size += samples.end - samples.start;
                for rank in 0..party.batches.share.world_size {
                    let mine = party.batches.mine(batch, rank);
                    let place = |offset: u64| (offset.div_ceil(thinned)).min(laid) as usize;
                    let rows = &judge.rows[place(mine.start)..place(mine.end)];
                    let mut strata = Strata::default();
                    for (piece, row) in rows {
                        strata.add(stored.stratum(*piece, *row));
                        let seen = &mut judge.seen[*piece as usize];
                        distinct += u64::from(*seen != i + 1);
                        *seen = i + 1;
                        if let Some(map) = &mut map {
                            let bin = u128::from(*piece) * map.rows as u128 / stored.starts.len() as u128;
                            let bucket = u128::from(batch) * map.columns as u128 / u128::from(steps);
                            let group = u128::from(party.first_rank + rank) * map.groups as u128 / u128::from(n_ranks);
                            map.add(bin as usize, bucket as usize, group as usize);
                        }
                    }
                    if batch < judged {
                        ranks.add(strata.design_effect(stored, thinned));
                        all.merge(&strata, thinned);
                    }
                }
            }
            if batch < judged {
                global.add(all.design_effect(stored, all.thinned));
                own.add(ranks.value());
                self.row_groups.add(Some(distinct as f64));
                self.random.add(Some(stored.random_row_groups(size)));
            }
        }
        self.strata = stored.strata;
        self.epochs += 1;
        self.global.add(&global);
        self.own.add(&own);
        self.taken.get_or_insert(Coverage { taken, of: steps });
    }

    /// Whether another epoch is to be judged, where one is so much work: until enough batches were, and the quality is known
    /// well, as long as the work is bearable.
    pub(crate) fn wants_more(&self, rows: u64) -> bool {
        let batches = self.global.batches.n;
        // An epoch that has enough batches of its own speaks for itself.
        if batches == 0 || (self.epochs == 1 && batches >= BATCHES) {
            return false;
        }
        let known = |effect: &Effect| effect.error().is_some_and(|error| error <= ERROR);
        let enough = batches >= BATCHES && self.epochs >= EPOCHS.start && known(&self.global) && known(&self.own);
        !enough && self.epochs < EPOCHS.end && (self.epochs + 1).saturating_mul(rows.max(1)) <= EPOCH_ROWS
    }

    pub(crate) fn finish(self) -> (Quality, Coverage) {
        let quality = Quality {
            strata: self.strata,
            quality: self.global.quality(),
            design_effect: self.global.value(),
            standard_error: self.global.error(),
            rank_quality: self.own.quality(),
            rank_design_effect: self.own.value(),
            rank_standard_error: self.own.error(),
            epochs: self.epochs,
            batches: self.global.batches.n,
            row_groups_per_batch: self.row_groups.value().unwrap_or(0.0),
            row_groups_per_random_batch: self.random.value().unwrap_or(0.0),
        };
        (quality, self.taken.unwrap_or(Coverage { taken: 0, of: 0 }))
    }
}

/// A design effect, as batches and whole epochs show it.
#[derive(Default)]
struct Effect {
    batches: Mean,
    epochs: Mean,
}

impl Effect {
    fn add(&mut self, epoch: &Mean) {
        self.batches.merge(epoch);
        self.epochs.add(epoch.value());
    }

    fn value(&self) -> f64 {
        self.batches.value().unwrap_or(1.0)
    }

    fn quality(&self) -> f64 {
        let deff = self.value();
        if deff > 1.0 { 1.0 / deff } else { 1.0 }
    }

    /// The standard error of the quality before it is capped: that of the design effect over its square. Epochs are
    /// independent of each other. The batches of an epoch are nearly so where they are many; of two halves of an epoch one
    /// says nothing that the other does not.
    fn error(&self) -> Option<f64> {
        let variance = match self.epochs.n {
            0 | 1 if self.batches.n < EPOCHS.start => return None,
            0 | 1 => self.batches.variance()?,
            _ => self.epochs.variance()?,
        };
        Some(variance.sqrt() / self.value().max(1.0).powi(2))
    }
}

/// How many batches of the epoch are laid out: all, or as many as the work allows.
fn batches_to_take(parties: &[Party], steps: u64) -> u64 {
    let rows: u64 = parties.iter().map(|party| party.batches.order.len()).sum();
    if rows <= EPOCH_ROWS {
        return steps;
    }
    let work = |party: &Party| {
        let order = party.batches.order;
        let rows = party.batches.share.global_batch.min(BATCH_ROWS).min(order.len());
        let longest = order.windows(0).of(order.lane_len(0) / 2).1;
        let window = match longest.end - longest.start {
            table if table <= TABLE_ROWS => table * ENTRY_WORK,
            _ => WINDOW_WORK,
        };
        rows * ROW_WORK + order.lanes().min(rows) * window
    };
    let work: u64 = parties.iter().map(work).sum();
    (WORK / work.max(1)).clamp(2, 4096).min(steps)
}

#[derive(Default)]
struct Mean {
    sum: f64,
    squares: f64,
    n: u64,
}

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.squares += value * value;
            self.n += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
        self.squares += other.squares;
        self.n += other.n;
    }

    fn value(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }

    /// The variance of the mean.
    fn variance(&self) -> Option<f64> {
        let (mean, n) = (self.value()?, self.n as f64);
        (self.n > 1).then(|| (self.squares / n - mean * mean).max(0.0) / (n - 1.0))
    }
}

struct Judge<'a> {
    stored: &'a Stored,
    layouts: Vec<Layout<'a>>,
    /// The last batch, counted from 1, that had rows of a piece.
    seen: Vec<u64>,
    /// The rows of a batch, sorted by lane: piece and row in it.
    rows: Vec<(u32, u64)>,
}

impl Judge<'_> {
    /// Lays out the rows of a party's batch, without padding; of how many rows one is taken.
    fn lay_out(&mut self, party: usize, batch: u64, pieces: &Option<Vec<u32>>) -> u64 {
        self.rows.clear();
        let thinned = self.layouts[party].rows(batch, &mut self.rows);
        if let Some(pieces) = pieces {
            self.rows
                .iter_mut()
                .for_each(|(piece, _)| *piece = pieces[*piece as usize]);
        }
        debug_assert!(
            self.rows
                .iter()
                .all(|(piece, _)| (*piece as usize) < self.stored.starts.len())
        );
        thinned
    }
}

/// Which rows a batch has.
struct Layout<'a> {
    batches: &'a Batches<'a>,
    windows: HashMap<u64, Window>,
}

/// A window of a lane, and where its rows are stored.
struct Window {
    rows: Range<u64>,
    permutation: Permutation,
}

impl<'a> Layout<'a> {
    fn new(batches: &'a Batches<'a>) -> Self {
        Self {
            batches,
            windows: HashMap::new(),
        }
    }

    fn rows(&mut self, batch: u64, out: &mut Vec<(u32, u64)>) -> u64 {
        let order = self.batches.order;
        let samples = self.batches.samples(batch);
        let total = samples.end - samples.start;
        let thinned = total.div_ceil(BATCH_ROWS).max(1);
        if self.windows.len() > KEPT_WINDOWS {
            self.windows.clear();
        }
        let windows = &mut self.windows;
        // The offset of the next row that is taken, and that of the next lane's first one.
        let (mut wanted, mut offset) = (0, 0);
        walk(order.lanes(), &samples, 0..total, |lane, places| {
            let end = offset + (places.end - places.start);
            let bounds = (wanted < end).then(|| order.windows(lane));
            let mut segment = None;
            while let Some(bounds) = &bounds
                && wanted < end
            {
                let place = places.start + (wanted - offset);
                let window = windows.get(&lane).filter(|window| window.rows.contains(&place));
                if window.is_none() {
                    let (index, rows) = bounds.of(place);
                    let permutation = order.window_permutation(lane, index, &rows);
                    windows.insert(lane, Window { rows, permutation });
                }
                let Some(window) = windows.get(&lane) else {
                    return;
                };
                let row = window.rows.start + window.permutation.get(place - window.rows.start);
                let position = order.lane_start(lane) + row;
                let (piece, positions) = match segment.take() {
                    Some((piece, positions)) if Range::contains(&positions, &position) => (piece, positions),
                    _ => order.piece_at(order.place_of(position)),
                };
                out.push((piece, position - positions.start));
                segment = Some((piece, positions));
                wanted += thinned;
            }
            offset = end;
        });
        thinned
    }
}
