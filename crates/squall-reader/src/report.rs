//! What it took to know which rows are read: counted while a reader is built.

use std::ops::AddAssign;

/// Where the rows of a where-clause came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SelectionSource {
    /// The clause was evaluated for this reader; or there was none.
    #[default]
    Evaluated,
    /// Another reader of this process had evaluated the same clause. What the clause adds to the counts is of that time.
    Shared,
    /// They were stored by [`selection_cache`](crate::ReaderBuilder::selection_cache). Nothing was read for the clause.
    Stored,
}

/// By which step each row group was ruled out, and what was read to know which rows are left. `docs/selection.md` has the
/// steps.
///
/// Each step looks only at what the steps before it have left. Every row group that has rows is counted once: in one of the
/// `pruned_by_…` (no rows are left of it, and no column of it was read to know that), in `scanned` or in `matched`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SelectionReport {
    /// Rows that are selected: those of an epoch on all ranks together.
    pub rows: u64,
    /// Row groups of the dataset that have rows.
    pub row_groups: u64,
    /// Row groups that the row-group selector left out.
    pub pruned_by_selector: u64,
    /// Row groups outside the ranges of rows.
    pub pruned_by_ranges: u64,
    /// Row groups of which splits by row have put every row into other subsets.
    pub pruned_by_split: u64,
    /// Row groups without a row, by a selection of the where-clause that was stored; see
    /// [`Stored`](SelectionSource::Stored).
    pub pruned_by_stored_selection: u64,
    /// Row groups without a row, by the values in their directory names: those of the where-clause and of predicates.
    pub pruned_by_partition: u64,
    /// Row groups without a row, by the least and greatest values and the null counts in the footers.
    pub pruned_by_statistics: u64,
    /// Row groups without a row, by their bloom filters.
    pub pruned_by_bloom_filters: u64,
    /// Row groups without a row, by the least and greatest values of their pages.
    pub pruned_by_page_index: u64,
    /// Row groups that are left without a column of them read: nothing was asked of values, or directory names, statistics
    /// or a stored selection had the answer. They may be left in part, by ranges and splits for example.
    pub matched: u64,
    /// Row groups of which columns were read, for the where-clause or for predicates and splits by column, whether any of
    /// their rows is left or not.
    pub scanned: u64,
    /// Of `matched` and `scanned`, row groups of which skip and take have left nothing.
    pub skipped: u64,
    /// Rows of the scanned row groups whose pages the page index ruled out.
    pub rows_pruned_by_page_index: u64,
    /// Footers that were loaded. The reader keeps them.
    pub footers: u64,
    /// Bytes of bloom filters, page indexes and pages that were fetched, for predicates and splits by column too; those of
    /// footers are not among them.
    pub bytes: u64,
    /// Whether all this was done for this reader.
    pub source: SelectionSource,
}

impl SelectionReport {
    /// What a where-clause did with the row groups that were matched before it: so many of them are left, and so many are not.
    #[cfg(feature = "filter")]
    pub(crate) fn add_clause(&mut self, clause: &Self, source: SelectionSource, (left, emptied): (u64, u64)) {
        self.source = source;
        if source == SelectionSource::Stored {
            self.pruned_by_stored_selection = emptied;
            self.matched = left;
            return;
        }
        self.matched = 0;
        // The clause counts those that were put before it.
        *self += Self {
            row_groups: 0,
            ..*clause
        };
    }

    /// Every row group that is left was read, and so many bytes of them.
    pub(crate) fn scan_matched(&mut self, bytes: u64) {
        self.scanned += std::mem::take(&mut self.matched);
        self.bytes += bytes;
    }
}

impl AddAssign for SelectionReport {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.row_groups += other.row_groups;
        self.pruned_by_selector += other.pruned_by_selector;
        self.pruned_by_ranges += other.pruned_by_ranges;
        self.pruned_by_split += other.pruned_by_split;
        self.pruned_by_stored_selection += other.pruned_by_stored_selection;
        self.pruned_by_partition += other.pruned_by_partition;
        self.pruned_by_statistics += other.pruned_by_statistics;
        self.pruned_by_bloom_filters += other.pruned_by_bloom_filters;
        self.pruned_by_page_index += other.pruned_by_page_index;
        self.matched += other.matched;
        self.scanned += other.scanned;
        self.skipped += other.skipped;
        self.rows_pruned_by_page_index += other.rows_pruned_by_page_index;
        self.footers += other.footers;
        self.bytes += other.bytes;
    }
}
