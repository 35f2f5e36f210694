//! What the tests share: tables written through parquet, and damage done to them. Only ever a dev-dependency.
//!
//! With the feature `s3` there are servers too: `S3Server`, `WebServer`, and `FaultProxy`, which harms what passes it.

mod chunks;

#[cfg(feature = "s3")]
mod serve;

#[cfg(feature = "s3")]
mod proxy;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "s3")]
mod web;

pub use chunks::column_bytes;
#[cfg(feature = "s3")]
pub use proxy::{Fault, FaultOptions, FaultProxy};
#[cfg(feature = "s3")]
pub use s3::{ACCESS_KEY, S3Server, SECRET_KEY, options as s3_options};
#[cfg(feature = "s3")]
pub use web::{Gate, WebServer};

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Int8Type;
use arrow_array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use tempfile::TempDir;

/// How a table is laid out in files.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Rows of each file.
    pub files: Vec<usize>,
    /// Rows of a row group.
    pub row_group: usize,
    /// Rows of a data page.
    pub page: usize,
    /// Whether the files have a page index.
    pub page_index: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            files: vec![50, 30, 40],
            row_group: 16,
            page: 5,
            page_index: true,
        }
    }
}

/// A directory of Parquet files with rows `id = 0..n`, and other columns that are functions of the id: see
/// [`rows`].
#[derive(Debug)]
pub struct Table {
    directory: TempDir,
    rows: usize,
}

impl Table {
    /// Writes a table.
    pub fn write(layout: &Layout) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let mut next = 0;
        for (i, n) in layout.files.iter().enumerate() {
            let path = directory.path().join(format!("part-{i:05}.parquet"));
            write_file(&path, &rows(next..next + n), layout);
            next += n;
        }
        Self { directory, rows: next }
    }

    /// Writes a table with a file for each value of a partition column.
    pub fn write_partitioned(name: &str, values: &[&str], layout: &Layout) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let mut next = 0;
        for (value, n) in values.iter().zip(&layout.files) {
            let path = directory.path().join(format!("{name}={value}"));
            fs::create_dir(&path).expect("a new directory");
            write_file(&path.join("part-00000.parquet"), &rows(next..next + n), layout);
            next += n;
        }
        fs::write(directory.path().join("_SUCCESS"), "").expect("a new file");
        Self { directory, rows: next }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The directory, as a URL.
    pub fn url(&self) -> String {
        self.path().to_str().expect("a UTF-8 path").to_owned()
    }

    /// Rows in all files.
    pub fn n_rows(&self) -> usize {
        self.rows
    }

    /// The data files, by path.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(self.path(), &mut files);
        files.sort();
        files
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
}

/// The rows of these ids: `id` int32; `name` text, null for multiples of 7; `x` a list of three int8, all of them
/// `id mod 100` plus their place.
pub fn rows(ids: std::ops::Range<usize>) -> RecordBatch {
    let id = Int32Array::from_iter_values(ids.clone().map(|id| id as i32));
    let name = StringArray::from_iter(ids.clone().map(|id| (id % 7 != 0).then(|| format!("row {id}"))));
    let x = ListArray::from_iter_primitive::<Int8Type, _, _>(
        ids.map(|id| Some((0..3).map(move |i| Some((id % 100) as i8 + i)))),
    );
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int32, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("x", x_type(), false),
    ]);
    let columns: Vec<ArrayRef> = vec![Arc::new(id), Arc::new(name), Arc::new(x)];
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns of the schema")
}

fn x_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Int8, true)))
}

/// Writes a batch as a Parquet file.
pub fn write_file(path: &Path, batch: &RecordBatch, layout: &Layout) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(layout.row_group))
        .set_data_page_row_count_limit(layout.page)
        // The writer looks at its limits once a batch of this size.
        .set_write_batch_size(layout.page)
        .set_offset_index_disabled(!layout.page_index)
        .set_statistics_enabled(if layout.page_index {
            EnabledStatistics::Page
        } else {
            EnabledStatistics::None
        })
        .build();
    let file = File::create(path).expect("a new file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(batch).expect("rows written");
    writer.close().expect("a footer written");
}

/// Cuts a file in half.
pub fn truncate(path: &Path) {
    let size = fs::metadata(path).expect("a file").len();
    let file = File::options().write(true).open(path).expect("a file");
    file.set_len(size / 2).expect("a shorter file");
}
