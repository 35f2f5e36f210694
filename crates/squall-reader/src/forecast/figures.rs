//! What a forecast says. `docs/plan.md` defines the figures.

use serde::Serialize;

/// How much of what there is was looked at: all of it where the two numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// How many were looked at, evenly spaced.
    pub taken: u64,
    /// How many there are.
    pub of: u64,
}

impl Coverage {
    /// Whether the figures are of a part, and so estimates.
    pub fn is_sample(&self) -> bool {
        self.taken < self.of
    }
}

/// What one epoch takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Forecast {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Seed of the order.
    pub seed: u64,
    /// How rows are shuffled: `none`, `windows` or `full`.
    pub shuffle: &'static str,
    /// Places that are read side by side, of each rank by itself where row groups are partitioned.
    pub lanes: u64,
    /// Rows that are shuffled together in a lane.
    pub window: u64,
    /// The number of ranks.
    pub world_size: u64,
    /// The number of groups of ranks that take the same samples: those of the
    /// [topology](crate::ReaderBuilder::topology), or as many as there are ranks.
    pub groups: u64,
    /// Rows that all ranks take at a step; those of the ranks of a group are the same, and counted once.
    pub global_batch: u64,
    /// What happens to the rows at the end that do not fill a global batch: `keep`, `drop` or `pad`.
    pub remainder: &'static str,
    /// How the data is divided among the ranks: `even` or `row-groups`.
    pub partition: &'static str,
    /// Steps of the epoch; those of the rank that has most of them where row groups are partitioned.
    pub steps: u64,
    /// Selected rows.
    pub rows: u64,
    /// Selected rows that some rank gets, each once.
    pub delivered: u64,
    /// Rows that stand a second time in their epoch, on all groups of ranks together.
    pub padded: u64,
    /// Row groups that have selected rows.
    pub row_groups: u64,
    /// Of them those from which some rank fetches.
    pub row_groups_fetched: u64,
    /// Bytes of the selected rows and columns, each once.
    pub bytes: u64,
    /// Bytes that all ranks fetch together. Each rank of a group fetches for itself.
    pub bytes_fetched: u64,
    /// Rows that all ranks fetch together.
    pub rows_fetched: u64,
    /// `bytes_fetched` over `bytes`: how often the data is fetched.
    pub read_amplification: f64,
    /// Ranks whose row groups have no selected row, where row groups are partitioned. A reader of such a rank is refused.
    pub ranks_without_rows: Vec<u64>,
    /// What each rank does, in the order of the ranks.
    pub ranks: Vec<RankForecast>,
    /// How well the epoch is shuffled.
    pub quality: Quality,
    /// Row groups from which the fetched rows and bytes are known.
    pub row_groups_taken: Coverage,
    /// Steps at which memory was added up.
    pub memory_steps_taken: Coverage,
    /// Global batches that were laid out for the quality and the map.
    pub batches_taken: Coverage,
    /// Which rows come when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<DeliveryMap>,
}

/// What a rank does in an epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RankForecast {
    /// The rank, from 0.
    pub rank: u64,
    /// The group of ranks that take the same samples; the rank itself where there is no topology.
    pub group: u64,
    /// Its batches.
    pub steps: u64,
    /// Its rows, padding aside.
    pub rows: u64,
    /// Its rows that stand a second time in their epoch.
    pub padded: u64,
    /// Row groups from which it fetches.
    pub row_groups: u64,
    /// Rows that it fetches.
    pub rows_fetched: u64,
    /// Bytes that it fetches.
    pub bytes_fetched: u64,
    /// Memory for rows when it needs most.
    pub memory: Memory,
}

impl RankForecast {
    /// A rank that gets nothing.
    pub(crate) fn without_rows(rank: u64) -> Self {
        Self {
            rank,
            group: rank,
            ..Self::default()
        }
    }
}

/// Bytes of memory that a rank needs for rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Decoded windows, cells as they are stored.
    pub windows: u64,
    /// Fetched bytes that are not decoded to their end.
    pub fetched: u64,
    /// Batches in work, made, and with the trainer.
    pub batches: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.windows.saturating_add(self.fetched).saturating_add(self.batches)
    }
}

/// How well an epoch is shuffled; `docs/plan.md` defines it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    /// Equal parts of the stored order by which batches are judged.
    pub strata: u64,
    /// A global batch of `B` rows is as representative as `quality * B` random rows. 1 is a random permutation of all rows.
    pub quality: f64,
    /// Mean chi-square of the global batches over that of a random permutation. Below 1 they are more even than random.
    pub design_effect: f64,
    /// The standard error of `quality`, which is an estimate; `None` where too few batches were judged to know it.
    pub standard_error: Option<f64>,
    /// The same of the batches of single ranks.
    pub rank_quality: f64,
    /// The same of the batches of single ranks.
    pub rank_design_effect: f64,
    /// The same of the batches of single ranks.
    pub rank_standard_error: Option<f64>,
    /// Epochs that were judged: this one, and of those that follow as many as it takes to know the quality of small epochs.
    pub epochs: u64,
    /// Global batches that were judged, of all these epochs.
    pub batches: u64,
    /// Row groups that a global batch has rows of, on average.
    pub row_groups_per_batch: f64,
    /// Row groups that a random batch would have rows of.
    pub row_groups_per_random_batch: f64,
}

/// How fine a [`DeliveryMap`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MapSize {
    /// Parts of the row groups, in stored order.
    pub rows: usize,
    /// Parts of the steps.
    pub columns: usize,
    /// Parts of the ranks.
    pub groups: usize,
}

/// Which rows come when, and to whom: how many of the batches' rows are of which row groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryMap {
    /// Row groups in stored order, in so many equal parts.
    pub rows: usize,
    /// Steps, in so many equal parts.
    pub columns: usize,
    /// Ranks, in so many equal parts; where there is a topology its groups are, each as one rank.
    pub groups: usize,
    /// Rows that were counted, by row, then column, then group.
    pub counts: Vec<u64>,
}

impl DeliveryMap {
    pub(crate) fn new(size: MapSize) -> Self {
        let MapSize { rows, columns, groups } = size;
        Self {
            rows,
            columns,
            groups,
            counts: vec![0; rows * columns * groups],
        }
    }

    /// The counts of a cell by group of ranks.
    pub fn cell(&self, row: usize, column: usize) -> &[u64] {
        let start = (row * self.columns + column) * self.groups;
        &self.counts[start..start + self.groups]
    }

    pub(crate) fn add(&mut self, row: usize, column: usize, group: usize) {
        self.counts[(row * self.columns + column) * self.groups + group] += 1;
    }
}
