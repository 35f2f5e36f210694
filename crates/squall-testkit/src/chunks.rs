//! Where in a file values are stored.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use parquet::file::metadata::ParquetMetaDataReader;

/// The bytes of the column chunks of a Parquet file.
pub fn column_bytes(path: &Path) -> Vec<Range<u64>> {
    let file = File::open(path).expect("a file");
    let footer = ParquetMetaDataReader::new().parse_and_finish(&file).expect("a footer");
    let columns = footer.row_groups().iter().flat_map(|row_group| row_group.columns());
    let bytes = columns.map(|column| {
        let (start, length) = column.byte_range();
        start..start + length
    });
    bytes.collect()
}
