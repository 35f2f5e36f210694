//! How the rows of a row group are cut into runs: what is fetched, decoded and kept together.
//!
//! It comes from the footer of the file, and `load` reads by it. A run lies inside of one page of each of its columns, so that a row
//! costs no more pages than it must. Columns whose runs are the same form a group and are decoded together; a table of
//! numbers and images has two groups or three: a page holds 20,000 numbers, but 50 images.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, RowSelection};
use parquet::file::page_index::offset_index::PageLocation;
use squall_dataset::{Dataset, Piece};
use squall_schema::{Error, Result};

use crate::columns::Columns;
use crate::decode::DECODE_ROWS;
use crate::fetch::{Chunk, Footers};

/// Bytes of a run before compression, about: a page with more of them is cut into several.
const RUN_BYTES: u64 = 4 << 20;

/// A row group and its runs.
pub(crate) struct Layout {
    pub(crate) footer: ArrowReaderMetadata,
    pub(crate) groups: Vec<Group>,
    /// The places of the columns that no page holds, and what they are: directory names, and columns that the file lacks.
    pub(crate) constant: (Vec<usize>, Columns),
}

/// Columns that are cut into the same runs.
pub(crate) struct Group {
    /// The places of its columns among all that are read.
    pub(crate) fields: Vec<usize>,
    pub(crate) columns: Arc<Columns>,
    pub(crate) projection: ProjectionMask,
    /// Whether several runs need the same page, so that it should be kept.
    pub(crate) is_cut: bool,
    /// Bytes of a row before compression, about.
    row_bytes: u64,
    /// The rows where pages begin; the first is 0.
    starts: Vec<u64>,
    rows: u64,
    /// Most rows of a run.
    run_rows: u64,
    leaves: Vec<Leaf>,
}

/// A column chunk.
struct Leaf {
    bytes: Range<u64>,
    dictionary: Option<Range<u64>>,
    pages: Vec<PageLocation>,
}

impl Layout {
    pub(crate) async fn load(dataset: &Dataset, footers: &Footers, piece: &Piece, columns: &Columns) -> Result<Self> {
        let footer = footers.get(dataset, piece).await?;
        let metadata = footer.metadata();
        let row_group = piece.row_group as usize;
        let offset_index = metadata.offset_index().and_then(|index| index.get(row_group));
        let schema = metadata.file_metadata().schema_descr();

        let mut constant = Vec::new();
        // For each way to cut the rows its fields with their leaves, and whether pages of theirs begin elsewhere too.
        let mut cuts: BTreeMap<Vec<u64>, Cut> = BTreeMap::new();
        for (place, leaves) in columns.leaves(schema)?.into_iter().enumerate() {
            if leaves.is_empty() {
                constant.push(place);
                continue;
            }
            let mut own = Vec::with_capacity(leaves.len());
            let mut all_starts = Vec::with_capacity(leaves.len());
            let mut bytes = 0u64;
            for leaf in leaves {
                let column = metadata.row_group(row_group).column(leaf);
                let pages = offset_index.and_then(|index| index.get(leaf));
                let chunk = Chunk::new(
                    column,
                    pages.map(|index| index.page_locations()),
                    dataset.file_of(piece).size,
                )?;
                all_starts
                    .push(starts(chunk.pages, piece.rows).map_err(|error| error.at("column", column.column_path()))?);
                bytes = bytes.saturating_add(u64::try_from(column.uncompressed_size()).unwrap_or(0));
                own.push(Leaf {
                    pages: chunk.pages.map(<[_]>::to_vec).unwrap_or_default(),
                    bytes: chunk.bytes,
                    dictionary: chunk.dictionary,
                });
            }
            // A struct has several leaves; those with the smallest pages lead.
            let differ = all_starts.iter().any(|starts| *starts != all_starts[0]);
            let lead = all_starts.into_iter().max_by_key(Vec::len);
            let cut = cuts.entry(lead.unwrap_or_default()).or_default();
            cut.fields.push(place);
            cut.leaves.extend(own);
            cut.bytes = cut.bytes.saturating_add(bytes);
            cut.differ |= differ;
        }
        let group = |(starts, cut): (Vec<u64>, Cut)| {
            let row_bytes = (cut.bytes / piece.rows.max(1)).max(1);
            let run_rows = (RUN_BYTES / row_bytes).clamp(1, DECODE_ROWS);
            let columns = columns.subset(&cut.fields)?;
            let ends = starts.iter().skip(1).copied().chain([piece.rows]);
            Ok(Group {
                projection: columns.projection(schema)?,
                is_cut: cut.differ || starts.iter().zip(ends).any(|(start, end)| end - start > run_rows),
                columns: Arc::new(columns),
                fields: cut.fields,
                leaves: cut.leaves,
                rows: piece.rows,
                row_bytes,
                run_rows,
                starts,
            })
        };
        let groups = cuts.into_iter().map(group).collect::<Result<_>>()?;
        let no_pages = columns.subset(&constant)?;
        Ok(Self {
            groups,
            constant: (constant, no_pages),
            footer,
        })
    }
}

#[derive(Default)]
struct Cut {
    fields: Vec<usize>,
    leaves: Vec<Leaf>,
    bytes: u64,
    differ: bool,
}

/// The rows where the pages begin, each once.
fn starts(pages: Option<&[PageLocation]>, rows: u64) -> Result<Vec<u64>> {
    let Some(pages) = pages else { return Ok(vec![0]) };
    let mut starts: Vec<_> = pages
        .iter()
        .filter_map(|page| u64::try_from(page.first_row_index).ok())
        .collect();
    starts.dedup();
    starts.retain(|start| *start < rows);
    match starts.first() {
        Some(0) => Ok(starts),
        first => Err(Error::corrupt(format!(
            "the offset index: expected the first page to begin at row 0, found {}",
            first.map_or("none".into(), u64::to_string)
        ))),
    }
}

impl Group {
    /// The run that holds a row of the row group.
    pub(crate) fn run_of(&self, row: u64) -> Range<u64> {
        let page = self.starts.partition_point(|start| *start <= row) - 1;
        let end = self.starts.get(page + 1).copied().unwrap_or(self.rows);
        let start = self.starts[page] + (row - self.starts[page]) / self.run_rows * self.run_rows;
        start..end.min(start + self.run_rows)
    }

    /// Bytes of these rows before compression, about.
    pub(crate) fn bytes_of(&self, rows: &Range<u64>) -> u64 {
        self.row_bytes.saturating_mul(rows.end - rows.start)
    }

    /// The bytes that the selected rows need, ascending, and whether each is worth keeping: dictionaries are, and pages that
    /// several runs need.
    pub(crate) fn byte_ranges(&self, selection: &RowSelection) -> Vec<(Range<u64>, bool)> {
        let mut ranges = Vec::new();
        for leaf in &self.leaves {
            if leaf.pages.is_empty() {
                ranges.push((leaf.bytes.clone(), self.is_cut));
                continue;
            }
            ranges.extend(leaf.dictionary.clone().map(|dictionary| (dictionary, true)));
            let pages = selection.scan_ranges(&leaf.pages);
            ranges.extend(pages.into_iter().map(|page| (page, self.is_cut)));
        }
        ranges.sort_by_key(|(range, _)| range.start);
        ranges
    }
}
