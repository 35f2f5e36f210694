//! The page index: which pages of a row group may hold a row.
//!
//! In: the parts of a clause that look at one column, and the row groups that bloom filters have left. Out: for each of these the rows
//! that stand in pages where the parts may be true. Only the indexes of such columns are fetched.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{ArrayRef, UInt64Array};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::schema::types::{SchemaDescriptor, Type as SchemaType};
use squall_dataset::{DataFile, Dataset};
use squall_schema::{Field, Result};

use super::conjunct::{Conjunct, Conjuncts};
use super::place::Place;
use super::statistics::{Bounds, FileColumns, Statistics};
use crate::fetch::range_in_file;
use crate::sparse::SparseBytes;

/// Rows of a row group beyond which a bitmap of them is not made on the word of a footer.
pub(super) const MOST_ROWS: u64 = 1 << 31;

/// The index of one column of a row group that is to be asked.
struct Indexed<'a> {
    row_group: usize,
    part: &'a Conjunct,
    field: &'a Field,
    leaf: usize,
    place: &'a Place,
    range: Range<u64>,
    rows: u64,
}

/// Of the row groups, each with its open parts, those that have pages without a row, with a bit for each row of the row
/// group; and the bytes that were fetched.
pub(super) async fn prune(
    dataset: &Dataset,
    file: &DataFile,
    columns: &FileColumns<'_>,
    row_groups: &[(usize, &[usize])],
    conjuncts: &Conjuncts,
) -> Result<(HashMap<usize, BooleanBuffer>, u64)> {
    let mut wanted = Vec::new();
    for (row_group, open) in row_groups {
        for part in *open {
            wanted.extend(indexed(columns, *row_group, &conjuncts.parts[*part], file.size));
        }
    }
    let mut ranges: Vec<_> = wanted.iter().map(|index| index.range.clone()).collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    ranges.dedup();
    let mut kept: HashMap<usize, BooleanBuffer> = HashMap::new();
    if ranges.is_empty() {
        return Ok((kept, 0));
    }
    let got = dataset.store().get_ranges(&file.path, &ranges).await?;
    let n_bytes = got.iter().map(|bytes| bytes.len() as u64).sum();
    let bytes = SparseBytes::new(ranges.iter().map(|range| range.start).zip(got).collect(), file.size);
    for index in &wanted {
        // The parsers of parquet panic on some damaged bytes.
        let rows = catch_unwind(AssertUnwindSafe(|| index.rows(columns, &bytes, conjuncts)));
        match rows {
            Ok(Ok(Some(rows))) => {
                let both = kept.get(&index.row_group).map(|own| own & &rows);
                kept.insert(index.row_group, both.unwrap_or(rows));
            }
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => tracing::warn!(
                file = %file.path, row_group = index.row_group, column = %index.field.name,
                "a page index cannot be read and is passed over"
            ),
        }
    }
    Ok((kept, n_bytes))
}

/// The index that can tell something of a part, if there is one that is smaller than its column.
fn indexed<'a>(
    columns: &'a FileColumns<'_>,
    row_group: usize,
    part: &'a Conjunct,
    file_size: u64,
) -> Option<Indexed<'a>> {
    let [field] = part.schema.fields() else { return None };
    part.prune.as_ref()?;
    let place = &columns.places[&field.name];
    let Place::Leaf { leaf, .. } = place else { return None };
    let metadata = columns.footer.metadata();
    let group = metadata.row_group(row_group);
    let rows = u64::try_from(group.num_rows()).ok().filter(|rows| *rows <= MOST_ROWS)?;
    let n_pages = metadata
        .offset_index()?
        .get(row_group)?
        .get(*leaf)?
        .page_locations()
        .len();
    let chunk = group.column(*leaf);
    let (offset, length) = (chunk.column_index_offset()?, chunk.column_index_length()?);
    let range = range_in_file(offset, i64::from(length), file_size).ok()?;
    let is_worth = n_pages > 1 && !range.is_empty() && i64::from(length) < chunk.compressed_size();
    is_worth.then_some(Indexed {
        row_group,
        part,
        field,
        leaf: *leaf,
        place,
        range,
        rows,
    })
}

impl Indexed<'_> {
    /// A bit for each row of the row group: whether its page may hold a row. `None` if all may.
    fn rows(
        &self,
        columns: &FileColumns<'_>,
        bytes: &SparseBytes,
        conjuncts: &Conjuncts,
    ) -> parquet::errors::Result<Option<BooleanBuffer>> {
        let metadata = columns.footer.metadata();
        let (Some(prune), Some(offsets), Place::Leaf { stored, has_bounds, .. }) =
            (&self.part.prune, metadata.offset_index(), self.place)
        else {
            return Ok(None);
        };
        let offsets = &offsets[self.row_group][self.leaf];
        let Some(pages) = pages(
            offsets.page_locations().iter().map(|page| page.first_row_index),
            self.rows,
        ) else {
            return Ok(None);
        };
        let alone = alone(metadata, self.row_group, self.leaf)?;
        let mut reader = ParquetMetaDataReader::new_with_metadata(alone)
            .with_column_index_policy(PageIndexPolicy::Required)
            .with_offset_index_policy(PageIndexPolicy::Skip);
        reader.read_page_indexes(bytes)?;
        let alone = reader.finish()?;
        let Some(index) = alone.column_index() else {
            return Ok(None);
        };
        let converter = StatisticsConverter::from_column_index(0, stored, alone.file_metadata().schema_descr())?;
        let (offsets, first) = (vec![vec![offsets.clone()]], [0usize]);
        let nulls = Arc::new(converter.data_page_null_counts(index, &offsets, &first)?) as ArrayRef;
        let bounds = match has_bounds {
            true => Bounds::new(
                self.field,
                Some(converter.data_page_mins(index, &offsets, &first)?),
                Some(converter.data_page_maxes(index, &offsets, &first)?),
                Some(nulls),
            ),
            false => Bounds::new(self.field, None, None, Some(nulls)),
        };
        let statistics = Statistics {
            rows: pages
                .iter()
                .map(|page| Some(page.end - page.start))
                .collect::<UInt64Array>(),
            columns: HashMap::from([(self.field.name.clone(), bounds)]),
        };
        // Statistics of another number of pages are refused by DataFusion.
        let may_hold = prune.prune(&statistics.view(Some(&conjuncts.bounded)));
        let may_hold = may_hold.map_err(|error| parquet::errors::ParquetError::External(Box::new(error)))?;
        if may_hold.len() != statistics.rows.len() || may_hold.iter().all(|may_hold| *may_hold) {
            return Ok(None);
        }
        let mut bits = BooleanBufferBuilder::new(self.rows as usize);
        for (page, may_hold) in pages.iter().zip(may_hold) {
            bits.append_n((page.end - page.start) as usize, may_hold);
        }
        Ok(Some(bits.finish()))
    }
}

/// The rows of each page; `None` if they do not follow each other through the row group.
fn pages(firsts: impl Iterator<Item = i64>, rows: u64) -> Option<Vec<Range<u64>>> {
    let mut edges = firsts
        .map(|first| u64::try_from(first).ok())
        .collect::<Option<Vec<_>>>()?;
    edges.push(rows);
    let in_order = edges[0] == 0 && edges.windows(2).all(|pair| pair[0] <= pair[1]);
    in_order.then(|| edges.windows(2).map(|pair| pair[0]..pair[1]).collect())
}

/// A footer of one column of one row group, so that parquet reads the index of no other.
fn alone(metadata: &ParquetMetaData, row_group: usize, leaf: usize) -> parquet::errors::Result<ParquetMetaData> {
    let file = metadata.file_metadata();
    let group = metadata.row_group(row_group);
    let chunk = group.column(leaf);
    let column = chunk.column_descr().self_type_ptr();
    let root = SchemaType::group_type_builder("schema")
        .with_fields(vec![column])
        .build()?;
    let schema = Arc::new(SchemaDescriptor::new(Arc::new(root)));
    let chunk = ColumnChunkMetaData::builder(schema.column(0))
        .set_column_index_offset(chunk.column_index_offset())
        .set_column_index_length(chunk.column_index_length())
        .build()?;
    let group = RowGroupMetaData::builder(schema.clone())
        .set_num_rows(group.num_rows())
        .set_column_metadata(vec![chunk])
        .build()?;
    let file = FileMetaData::new(file.version(), group.num_rows(), None, None, schema, None);
    Ok(ParquetMetaData::new(file, vec![group]))
}
