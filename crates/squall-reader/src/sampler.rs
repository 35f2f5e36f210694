//! Weighted and class-balanced sampling: which rows an epoch has, and how often.
//!
//! A sampler draws the rows of an epoch, no more; the order shuffles them as it does all rows. So what is drawn is read
//! piece by piece, and an epoch can be resumed, shared and asked as any other. The draw of an epoch is a function of seed and
//! epoch, in integers and in arithmetic that is the same on every machine.

use std::sync::Arc;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::Rng;
use squall_dataset::Dataset;
use squall_schema::{Error, Result, Schema};

use crate::random::{Domain, Permutation, below, stream};
use crate::row_set::{Drawn, RowSet};
use crate::scan::Scan;
use crate::select::{SelectedPiece, Selection};
use crate::values::{self, Classes};

/// Rows or draws that share a random stream.
const BLOCK: u64 = 4096;

/// Most samples of an epoch: a terabyte of draws.
const MAX_SAMPLES: u64 = 1 << 37;

/// Weights are whole multiples of the largest one, divided by this.
const WEIGHT_UNITS: f64 = (1u64 << 31) as f64;

/// Draws the rows of an epoch by a column's values. Each epoch draws anew.
///
/// ```
/// use squall_reader::{Sampler, make_reader};
///
/// // Each class equally often, whatever the dataset has of it; as many samples as there are rows.
/// let reader = make_reader("/data/train").sampler(Sampler::balanced("label"));
/// // A row with twice the weight is drawn twice as often: PyTorch's WeightedRandomSampler.
/// let reader = make_reader("/data/train").sampler(Sampler::weighted("weight").samples(100_000));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampler {
    kind: Kind,
    column: String,
    replacement: bool,
    samples: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Weighted,
    Balanced,
}

impl Sampler {
    /// Rows in proportion to a column of weights: finite numbers of at least 0, without nulls, taken to one part in 2^31 of
    /// the largest. They need not sum to 1.
    ///
    /// With replacement each sample is drawn by itself. Without, rows are drawn one after the other from those that are left
    /// (P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006), and the number of samples must be
    /// given.
    pub fn weighted(column: impl Into<String>) -> Self {
        Self::new(Kind::Weighted, column)
    }

    /// Each value of a column equally often; nulls are a value.
    ///
    /// With replacement the class of each sample is drawn first, then one of its rows: rare classes are seen more often than
    /// they are stored. Without, each class gives as many rows as the smallest has, drawn anew each epoch, or, where the
    /// number of samples is given, equal parts of it; what does not divide goes to classes that are drawn.
    pub fn balanced(column: impl Into<String>) -> Self {
        Self::new(Kind::Balanced, column)
    }

    fn new(kind: Kind, column: impl Into<String>) -> Self {
        Self {
            kind,
            column: column.into(),
            replacement: true,
            samples: None,
        }
    }

    /// Whether a row may come several times in an epoch; it may if nothing is said.
    #[must_use]
    pub fn replacement(mut self, replacement: bool) -> Self {
        self.replacement = replacement;
        self
    }

    /// Samples of an epoch; as many as there are selected rows if not given.
    #[must_use]
    pub fn samples(mut self, samples: u64) -> Self {
        self.samples = Some(samples);
        self
    }

    /// All that decides what is drawn, for the state.
    pub(crate) fn text(&self) -> String {
        let kind = match self.kind {
            Kind::Weighted => "weighted",
            Kind::Balanced => "balanced",
        };
        let (column, replacement, samples) = (&self.column, self.replacement, self.samples);
        format!("{kind} {column:?} {replacement} {samples:?}")
    }

    /// Reads the column of all selected rows.
    pub(crate) fn prepare(&self, scan: &Scan, schema: &Schema, selection: &Arc<Selection>) -> Result<Draws> {
        if let Some(samples) = self.samples.filter(|samples| !(1..=MAX_SAMPLES).contains(samples)) {
            return Err(Error::invalid(format!(
                "expected a sampler of 1 to {MAX_SAMPLES} samples, found {samples}"
            )));
        }
        let field = schema.get(&self.column).ok_or_else(|| schema.unknown(&self.column));
        let at = |error: Error| error.at("URL", scan.dataset.url());
        let field = field.map_err(at)?;
        for piece in selection.pieces() {
            let rows = scan.dataset.pieces()[piece.piece as usize].rows;
            if u32::try_from(rows).is_err() {
                return Err(at(Error::unsupported(format!(
                    "a sampler takes row groups of at most 2^32 rows, found {rows}"
                ))
                .at("piece", piece.piece)));
            }
        }
        let rows = match self.kind {
            Kind::Weighted => {
                let weights = values::weights(scan, field, selection)?;
                self.weighted_rows(&weights).map_err(at)?
            }
            Kind::Balanced => self
                .balanced_rows(values::classes(scan, field, selection)?)
                .map_err(at)?,
        };
        let mut starts = vec![0];
        for piece in selection.pieces() {
            starts.push(starts[starts.len() - 1] + piece.rows.len());
        }
        let base = selection.pieces().iter().map(|piece| Arc::new(piece.rows.clone()));
        Ok(Draws {
            dataset: scan.dataset.clone(),
            selection: selection.clone(),
            base: base.collect(),
            starts,
            rows,
        })
    }

    fn weighted_rows(&self, weights: &[f64]) -> Result<Rows> {
        let largest = weights.iter().copied().fold(0.0, f64::max);
        let unit = |weight: &f64| (weight / largest * WEIGHT_UNITS).round() as u64;
        let n_rows = weights.iter().filter(|weight| **weight > 0.0).count() as u64;
        if n_rows == 0 {
            return Err(Error::invalid(format!(
                "no row has a weight above 0 in column {:?}",
                self.column
            )));
        }
        if self.replacement {
            // At least one unit: a row with a weight can be drawn.
            let unit = |weight: &f64| if *weight > 0.0 { unit(weight).max(1) } else { 0 };
            let cumulated: Vec<_> = weights
                .iter()
                .scan(0u64, |sum, weight| {
                    *sum += unit(weight);
                    Some(*sum)
                })
                .collect();
            return Ok(Rows::Weighted {
                cumulated,
                samples: self.samples.unwrap_or(weights.len() as u64),
            });
        }
        let samples = self.samples.ok_or_else(|| {
            Error::invalid("weighted sampling without replacement needs a number of samples: all rows have no weights")
        })?;
        if samples > n_rows {
            return Err(Error::invalid(format!(
                "expected at most {n_rows} samples, one for each row with a weight above 0, found {samples}"
            )));
        }
        Ok(Rows::WithoutReplacement {
            // So that the smallest of numbers do not lose their differences.
            weights: weights.iter().map(|weight| weight / largest).collect(),
            samples,
        })
    }

    fn balanced_rows(&self, classes: Classes) -> Result<Rows> {
        let n_classes = classes.counts().len() as u64;
        let smallest = classes.counts().iter().copied().min().unwrap_or(0);
        let samples = match (self.replacement, self.samples) {
            (true, samples) => samples.unwrap_or(classes.rows() as u64),
            (false, None) => n_classes * smallest,
            (false, Some(samples)) if samples.div_ceil(n_classes) <= smallest => samples,
            (false, Some(samples)) => {
                return Err(Error::invalid(format!(
                    "expected at most {} samples, {smallest} of each of {n_classes} classes, found {samples}",
                    n_classes * smallest
                )));
            }
        };
        Ok(Rows::Balanced {
            by_class: classes.by_class(),
            replacement: self.replacement,
            samples,
        })
    }
}

/// A sampler that knows its column: draws the rows of each epoch.
#[derive(Debug)]
pub(crate) struct Draws {
    dataset: Arc<Dataset>,
    selection: Arc<Selection>,
    /// The rows of each piece.
    base: Vec<Arc<RowSet>>,
    /// Selected rows before each piece, and all of them at the end.
    starts: Vec<u64>,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    Weighted {
        /// For each selected row the sum of the weights up to and with its own.
        cumulated: Vec<u64>,
        samples: u64,
    },
    WithoutReplacement {
        weights: Vec<f64>,
        samples: u64,
    },
    Balanced {
        /// The selected rows of each class.
        by_class: Vec<Vec<u64>>,
        replacement: bool,
        samples: u64,
    },
}

impl Draws {
    /// Samples of an epoch.
    pub(crate) fn samples(&self) -> u64 {
        match &self.rows {
            Rows::Weighted { samples, .. }
            | Rows::WithoutReplacement { samples, .. }
            | Rows::Balanced { samples, .. } => *samples,
        }
    }

    /// The samples of an epoch, in stored order. Takes time in proportion to rows and samples.
    pub(crate) fn epoch(&self, seed: u64, epoch: u64) -> Result<Selection> {
        let mut rows = self.rows.draw(seed, epoch)?;
        rows.sort_unstable();
        let mut pieces = Vec::new();
        let mut left = &rows[..];
        for (place, piece) in self.selection.pieces().iter().enumerate() {
            let (start, end) = (self.starts[place], self.starts[place + 1]);
            let (own, behind) = left.split_at(left.partition_point(|row| *row < end));
            left = behind;
            pieces.push(SelectedPiece {
                piece: piece.piece,
                // Row groups of more rows were refused.
                rows: RowSet::Drawn(Drawn::new(
                    self.base[place].clone(),
                    own.iter().map(|row| (row - start) as u32).collect(),
                    1,
                )),
            });
        }
        Selection::new(&self.dataset, pieces, "a sampler of no sample draws no row")
    }
}

impl Rows {
    /// Selected rows, in any order.
    fn draw(&self, seed: u64, epoch: u64) -> Result<Vec<u64>> {
        match self {
            Self::Weighted { cumulated, samples } => {
                let total = cumulated.last().copied().unwrap_or(0);
                each(seed, epoch, *samples, |rng| {
                    let drawn = below(rng, total);
                    cumulated.partition_point(|sum| *sum <= drawn) as u64
                })
            }
            Self::WithoutReplacement { weights, samples } => {
                // The rows with the smallest of exponential times of the rates that the weights are.
                let mut uniform = each(seed, epoch, weights.len() as u64, |rng| rng.next_u64() >> 11)?.into_iter();
                let mut times: Vec<_> = (0u64..)
                    .zip(weights)
                    .filter_map(|(row, weight)| {
                        let drawn = uniform.next()?;
                        // Above 0 and at most 1.
                        let uniform = (drawn + 1) as f64 / (1u64 << 53) as f64;
                        (*weight > 0.0).then(|| (-libm::log(uniform) / weight, row))
                    })
                    .collect();
                let samples = *samples as usize;
                if samples < times.len() {
                    times.select_nth_unstable_by(samples, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    times.truncate(samples);
                }
                Ok(times.into_iter().map(|(_, row)| row).collect())
            }
            Self::Balanced {
                by_class,
                replacement: true,
                samples,
            } => each(seed, epoch, *samples, |rng| {
                let class = &by_class[below(rng, by_class.len() as u64) as usize];
                class[below(rng, class.len() as u64) as usize]
            }),
            Self::Balanced { by_class, samples, .. } => {
                let n_classes = by_class.len() as u64;
                let places = Permutation::new(n_classes, &mut stream(seed, epoch, Domain::Draw, 0));
                let mut rows = room_for(*samples)?;
                for (class, own) in (0u64..).zip(by_class) {
                    let one_more = places.get(class) < samples % n_classes;
                    let count = samples / n_classes + u64::from(one_more);
                    let order = Permutation::new(own.len() as u64, &mut stream(seed, epoch, Domain::Draw, class + 1));
                    rows.extend((0..count).map(|i| own[order.get(i) as usize]));
                }
                Ok(rows)
            }
        }
    }
}

/// Room for so many draws: an error where there is none, and not an end of the process.
fn room_for<T>(n: u64) -> Result<Vec<T>> {
    let mut room = Vec::new();
    let reserved = usize::try_from(n).ok().map(|n| room.try_reserve_exact(n));
    match reserved {
        Some(Ok(())) => Ok(room),
        _ => Err(Error::invalid(format!(
            "there is no memory for the draw of {n} samples"
        ))),
    }
}

/// So many draws, in blocks that have a random stream each.
fn each<T>(seed: u64, epoch: u64, n: u64, mut draw: impl FnMut(&mut ChaCha8Rng) -> T) -> Result<Vec<T>> {
    let mut drawn = room_for(n)?;
    for block in 0..n.div_ceil(BLOCK) {
        let mut rng = stream(seed, epoch, Domain::Draw, block);
        drawn.extend((0..BLOCK.min(n - block * BLOCK)).map(|_| draw(&mut rng)));
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests;
