//! What it took to know which rows are read: counted while a reader is built.

use std::ops::AddAssign;

/// Where the rows of a where-clause came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SelectionSource {
    /// The clause was evaluated for this reader; or there was none.
    #[default]
    Evaluated,
    /// Another reader of this process had evaluated the same clause. The counts are those of that time.
    Shared,
    /// They were stored by [`selection_cache`](crate::ReaderBuilder::selection_cache). Nothing of the dataset was read.
    Stored,
}

/// Which row groups a where-clause kept, by what the others were ruled out, and what was read for it.
///
/// Each step looks only at what the steps before it have left: every row group is counted in one of
/// `pruned_by_partition`, `pruned_by_statistics`, `pruned_by_bloom_filters`, `pruned_by_page_index`, `matched` and `scanned`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SelectionReport {
    /// Rows that are selected: those of an epoch on all ranks together.
    pub rows: u64,
    /// Row groups that were in question.
    pub row_groups: u64,
    /// Row groups without a row, by the values in their directory names.
    pub pruned_by_partition: u64,
    /// Row groups without a row, by the least and greatest values and the null counts in the footers.
    pub pruned_by_statistics: u64,
    /// Row groups without a row, by their bloom filters.
    pub pruned_by_bloom_filters: u64,
    /// Row groups without a row, by the least and greatest values of their pages.
    pub pruned_by_page_index: u64,
    /// Row groups of which all rows are read, as directory names or statistics prove.
    pub matched: u64,
    /// Row groups whose columns were read.
    pub scanned: u64,
    /// Rows of the scanned row groups whose pages the page index ruled out.
    pub rows_pruned_by_page_index: u64,
    /// Footers that were loaded. The reader keeps them.
    pub footers: u64,
    /// Bytes of bloom filters, page indexes and pages that were fetched; those of footers are not among them.
    pub bytes: u64,
    /// Whether all this was done for this reader.
    pub source: SelectionSource,
}

impl AddAssign for SelectionReport {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.row_groups += other.row_groups;
        self.pruned_by_partition += other.pruned_by_partition;
        self.pruned_by_statistics += other.pruned_by_statistics;
        self.pruned_by_bloom_filters += other.pruned_by_bloom_filters;
        self.pruned_by_page_index += other.pruned_by_page_index;
        self.matched += other.matched;
        self.scanned += other.scanned;
        self.rows_pruned_by_page_index += other.rows_pruned_by_page_index;
        self.footers += other.footers;
        self.bytes += other.bytes;
    }
}
