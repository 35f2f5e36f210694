//! How rows are laid out: the sizes of row groups and files, compression, and what readers skip by.

use std::collections::BTreeMap;

use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression as Codec, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use squall_schema::codec::Codec as Cell;
use squall_schema::{Error, Field, Result, Schema};

use crate::conform::Target;
use crate::error::write_error;
use crate::hive;
use crate::memory::Memory;
use crate::petastorm::Petastorm;

/// Bytes of a row group when nothing else is said: enough for sequential reads, small beside memory.
pub(crate) const DEFAULT_ROW_GROUP_BYTES: u64 = 32 << 20;
/// Bytes of a file when nothing else is said.
pub(crate) const DEFAULT_FILE_BYTES: u64 = 512 << 20;
/// The share of values that are not there and that a bloom filter lets pass, when nothing else is said.
const DEFAULT_FPP: f64 = 0.01;

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Compression {
    /// Small, and fast to decompress.
    #[default]
    Zstd,
    /// What Spark writes.
    Snappy,
    /// Faster than Snappy.
    Lz4,
    /// What everything reads; slow.
    Gzip,
    /// Not at all.
    None,
}

impl Compression {
    fn codec(self) -> Codec {
        match self {
            Self::Zstd => Codec::ZSTD(ZstdLevel::default()),
            Self::Snappy => Codec::SNAPPY,
            Self::Lz4 => Codec::LZ4_RAW,
            Self::Gzip => Codec::GZIP(GzipLevel::default()),
            Self::None => Codec::UNCOMPRESSED,
        }
    }
}

/// For what the least and the greatest value are kept. Readers skip by them what a where-clause rules out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Statistics {
    /// Row groups and pages.
    #[default]
    Pages,
    /// Row groups.
    RowGroups,
    /// Nothing.
    None,
}

/// A bloom filter for each row group of a column: `column = value` skips those that do not have the value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct BloomFilter {
    pub(crate) fpp: f64,
    pub(crate) ndv: Option<u64>,
}

impl Default for BloomFilter {
    fn default() -> Self {
        Self {
            fpp: DEFAULT_FPP,
            ndv: None,
        }
    }
}

impl BloomFilter {
    /// The share of values that are not there and yet pass, between 0 and 1; 0.01 if not given.
    pub fn fpp(mut self, fpp: f64) -> Self {
        self.fpp = fpp;
        self
    }

    /// How many distinct values a row group has at most. If not given, room for a million is taken while a row group is
    /// written, and given back where they are fewer.
    pub fn ndv(mut self, ndv: u64) -> Self {
        self.ndv = Some(ndv);
        self
    }
}

/// How rows are laid out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) row_group_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) compression: Compression,
    pub(crate) statistics: Statistics,
    pub(crate) bloom_filters: BTreeMap<String, BloomFilter>,
    pub(crate) dictionary: BTreeMap<String, bool>,
    /// The columns whose values stand in directory names, outermost first.
    pub(crate) partition_by: Vec<String>,
    /// The columns that order all rows.
    pub(crate) sort_by: Vec<String>,
    /// The seed of a random order of all rows.
    pub(crate) shuffle: Option<u64>,
    /// Whether the query gives rows in another order each time, so that what decides is what they hold.
    pub(crate) by_content: bool,
    /// Whether Petastorm must read it.
    pub(crate) petastorm: Option<Petastorm>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            row_group_bytes: DEFAULT_ROW_GROUP_BYTES,
            file_bytes: DEFAULT_FILE_BYTES,
            compression: Compression::default(),
            statistics: Statistics::default(),
            bloom_filters: BTreeMap::new(),
            dictionary: BTreeMap::new(),
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            shuffle: None,
            by_content: false,
            petastorm: None,
        }
    }
}

impl Layout {
    /// Refuses what cannot be meant, before a query runs.
    pub(crate) fn check(&self, target: &Target) -> Result<()> {
        let cells: Vec<_> = target.cells().map(|field| field.name.as_str()).collect();
        self.check_schema(&target.schema, &cells)
    }

    /// Refuses what cannot be meant for rows of this schema, of which some columns come in cells.
    pub(crate) fn check_schema(&self, schema: &Schema, cells: &[&str]) -> Result<()> {
        if self.row_group_bytes == 0 || self.file_bytes == 0 {
            return Err(Error::invalid("row groups and files have at least one byte"));
        }
        if self.shuffle.is_some() && !self.sort_by.is_empty() {
            return Err(Error::invalid("rows are either shuffled or sorted, not both"));
        }
        let known = |name: &String| schema.get(name).ok_or_else(|| schema.unknown(name));
        for (option, names) in [("partition_by", &self.partition_by), ("sort_by", &self.sort_by)] {
            for (i, name) in names.iter().enumerate() {
                let field = known(name).map_err(|error| error.at("option", option))?;
                if names[..i].contains(name) {
                    return Err(Error::invalid(format!("the column {name:?} stands twice in {option}")));
                }
                if !field.shape.is_scalar() || cells.contains(&name.as_str()) {
                    return Err(Error::invalid(format!(
                        "{option} wants scalars, and {field} holds arrays"
                    )));
                }
            }
        }
        for name in &self.partition_by {
            hive::check(known(name)?)?;
        }
        if self.partition_by.len() == schema.fields().len() {
            return Err(Error::invalid(
                "all columns stand in partition_by: one at least must stay in the files",
            ));
        }
        for (name, filter) in &self.bloom_filters {
            let field = known(name).map_err(|error| error.at("option", "bloom_filter"))?;
            if self.partition_by.contains(name) {
                return Err(Error::invalid(format!(
                    "the column {name:?} stands in directory names: it has no bloom filter"
                )));
            }
            if !field.shape.is_scalar() {
                return Err(Error::invalid(format!(
                    "a bloom filter is for scalars, and {field} holds arrays"
                )));
            }
            if !(filter.fpp > 0.0 && filter.fpp < 1.0) {
                return Err(Error::invalid(format!(
                    "the false positive rate of a bloom filter lies between 0 and 1, found {}",
                    filter.fpp
                ))
                .at("column", name));
            }
        }
        for name in self.dictionary.keys() {
            known(name).map_err(|error| error.at("option", "dictionary"))?;
        }
        Ok(())
    }

    /// The fields of the partition columns.
    pub(crate) fn partition_fields(&self, schema: &Schema) -> Result<Vec<Field>> {
        Ok(schema.project(&self.partition_by)?.fields().to_vec())
    }

    /// Whether rows are brought in an order of their own before they are written.
    pub(crate) fn is_ordered(&self) -> bool {
        self.by_content || self.shuffle.is_some() || !self.sort_by.is_empty() || !self.partition_by.is_empty()
    }

    /// How the files are written. Row groups are closed by bytes, by the writer; the page index is written always.
    pub(crate) fn properties(&self, target: &Target, memory: &Memory) -> Result<WriterProperties> {
        let mut properties = WriterProperties::builder()
            .set_compression(self.compression.codec())
            .set_statistics_enabled(match self.statistics {
                Statistics::Pages => EnabledStatistics::Page,
                Statistics::RowGroups => EnabledStatistics::Chunk,
                Statistics::None => EnabledStatistics::None,
            })
            .set_offset_index_disabled(false)
            .set_max_row_group_row_count(None);
        let columns = ArrowSchemaConverter::new()
            .convert(&target.columns)
            .map_err(write_error)?;
        let cells: BTreeMap<_, _> = target.cells().map(|field| (field.name.as_str(), field)).collect();
        let in_dictionaries = columns.num_columns().saturating_sub(cells.len());
        if let Some(bytes) = memory.dictionary_bytes(in_dictionaries) {
            properties = properties.set_dictionary_page_size_limit(bytes);
        }
        for column in columns.columns() {
            let path = column.path();
            let Some(name) = path.parts().first() else {
                continue;
            };
            properties = self.column(properties, path, cells.get(name.as_str()).copied());
            if let Some(dictionary) = self.dictionary.get(name) {
                properties = properties.set_column_dictionary_enabled(path.clone(), *dictionary);
            }
            if let Some(filter) = self.bloom_filters.get(name) {
                properties = properties
                    .set_column_bloom_filter_enabled(path.clone(), true)
                    .set_column_bloom_filter_fpp(path.clone(), filter.fpp);
                if let Some(ndv) = filter.ndv {
                    properties = properties.set_column_bloom_filter_max_ndv(path.clone(), ndv);
                }
            }
        }
        Ok(properties.build())
    }

    fn column(
        &self,
        properties: WriterPropertiesBuilder,
        path: &ColumnPath,
        cells: Option<&Field>,
    ) -> WriterPropertiesBuilder {
        let Some(field) = cells else {
            return properties;
        };
        // No two cells are the same. What is compressed already only costs time to compress again.
        let properties = properties.set_column_dictionary_enabled(path.clone(), false);
        match field.codec {
            Some(Cell::Ndarray) => properties,
            _ => properties.set_column_compression(path.clone(), Codec::UNCOMPRESSED),
        }
    }
}
