//! The stored order, cut into equal strata, and how many rows of a batch each of them has: the chi-square of one batch.

/// Into how many parts the stored order is cut, at most.
const STRATA: u64 = 64;
/// The selected rows as they are stored.
pub(crate) struct Stored {
    /// For each piece of the selection, the rows before it.
    pub(crate) starts: Vec<u64>,
    rows: u64,
    pub(crate) strata: u64,
    /// How many pieces there are of each size.
    sizes: Vec<(u64, u64)>,
}

impl Stored {
    /// Of pieces with so many rows each, for global batches of this size: a stratum is not smaller than a batch, so that rows
    /// which are stored side by side meet in it.
    pub(crate) fn new(rows_per_piece: &[u64], global_batch: u64) -> Self {
        let mut next = 0;
        let start = |rows: &u64| {
            let start = next;
            next += rows;
            start
        };
        let starts = rows_per_piece.iter().map(start).collect();
        let mut sorted = rows_per_piece.to_vec();
        sorted.sort_unstable();
        let sizes = sorted.chunk_by(|a, b| a == b);
        Self {
            starts,
            rows: next,
            strata: (next / global_batch.max(1)).clamp(2, STRATA).min(next).max(1),
            sizes: sizes.map(|same| (same[0], same.len() as u64)).collect(),
        }
    }

    /// How many pieces there are.
    pub(crate) fn pieces(&self) -> u64 {
        self.starts.len() as u64
    }

    pub(crate) fn stratum(&self, piece: u32, row: u64) -> usize {
        let position = self.starts[piece as usize] + row;
        match position.checked_mul(self.strata) {
            Some(product) => (product / self.rows) as usize,
            None => (u128::from(position) * u128::from(self.strata) / u128::from(self.rows)) as usize,
        }
    }

    /// Rows of a stratum.
    fn len(&self, stratum: u64) -> u64 {
        let start = |i: u64| (u128::from(i) * u128::from(self.rows)).div_ceil(u128::from(self.strata)) as u64;
        start(stratum + 1) - start(stratum)
    }

    /// Row groups that a random batch of this size is expected to have rows of.
    pub(crate) fn random_row_groups(&self, batch: u64) -> f64 {
        let expected = |(rows, pieces): &(u64, u64)| *pieces as f64 * (1.0 - self.missed(*rows, batch));
        self.sizes.iter().map(expected).sum()
    }

    /// The chance that a random batch has none of so many rows: a product of `min(rows, batch)` factors, of which the logarithm
    /// is summed, or integrated by the midpoint rule where there are many.
    fn missed(&self, rows: u64, batch: u64) -> f64 {
        const NODES: u64 = 64;
        let (few, many) = (rows.min(batch), rows.max(batch) as f64);
        let nodes = few.min(NODES);
        let step = few as f64 / nodes.max(1) as f64;
        let mut log = 0.0;
        for node in 0..nodes {
            // The factors are those of whole numbers from 0 on; a step covers those around its middle.
            let i = (node as f64 + 0.5) * step - 0.5;
            let left = self.rows as f64 - i;
            if left <= many {
                return 0.0;
            }
            log += step * (-many / left).ln_1p();
        }
        log.exp()
    }
}

/// How many rows of a batch are in each stratum.
pub(crate) struct Strata {
    counts: [u64; STRATA as usize],
    /// Of how many rows one was counted.
    pub(crate) thinned: u64,
}

impl Default for Strata {
    fn default() -> Self {
        Self {
            counts: [0; STRATA as usize],
            thinned: 1,
        }
    }
}

impl Strata {
    pub(crate) fn add(&mut self, stratum: usize) {
        self.counts[stratum] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self, thinned: u64) {
        (self.counts.iter_mut().zip(&other.counts)).for_each(|(own, other)| *own += other);
        self.thinned = self.thinned.max(thinned);
    }

    /// Chi-square over what a random sample without replacement is expected to give; `None` for a batch without rows.
    pub(crate) fn design_effect(&self, stored: &Stored, thinned: u64) -> Option<f64> {
        let (batch, rows) = (self.counts.iter().sum::<u64>() as f64, stored.rows as f64);
        if batch == 0.0 {
            return None;
        }
        let term = |(stratum, count): (u64, &u64)| {
            let expected = batch * stored.len(stratum) as f64 / rows;
            (*count as f64 - expected).powi(2) / expected
        };
        let chi2: f64 = (0..stored.strata).zip(&self.counts).map(term).sum();
        let random = (stored.strata as f64 - 1.0) * (rows - batch) / (rows - 1.0);
        // One stratum, or a batch of all rows, is what any order gives.
        let deff = if random > 0.0 { chi2 / random } else { 1.0 };
        // What rows have in common counts as often as they meet: with so many more of them in the whole batch.
        Some(if thinned > 1 {
            (1.0 + (deff - 1.0) * thinned as f64).max(0.0)
        } else {
            deff
        })
    }
}
