//! Spark writes the rows: with the options of the layout, to a place that nobody sees yet.

use std::thread;

use spark_connect::{DataFrame, SparkSession};
use squall_dataset::{DatasetUrl, Scheme};
use squall_schema::{Error, Result};

use super::error::spark_error;
use super::session::{Settings, blocking};
use crate::converter::Converter;
use crate::layout::{Compression, Layout, Statistics};
use crate::moves::check_size;
use crate::scratch::nonce;

/// Rows between two looks of Parquet's writer at the size of the row group, at least: with its own hundred, rows of a megabyte would make
/// row groups of a hundred.
const LOOK_ROWS: u32 = 10;
/// What Spark gives a task at least where nothing else is said.
const LEAST_TASK_BYTES: u64 = 1 << 20;

/// Refuses what Spark cannot be told.
pub(super) fn check(converter: &Converter, url: &DatasetUrl) -> Result<()> {
    let own = [
        (converter.memory_limit.is_some(), "memory limit"),
        (converter.spill_directory.is_some(), "spill directory"),
    ];
    if let Some((_, what)) = own.iter().find(|(is_set, _)| *is_set) {
        return Err(Error::unsupported(format!(
            "the {what} of a conversion is for the embedded engine: Spark's own memory and disks are set where its server starts"
        )));
    }
    if converter.layout.statistics != Statistics::Pages {
        return Err(Error::unsupported("Spark writes the statistics of pages always"));
    }
    check_size(url, converter.layout.file_bytes)
}

/// The name of a place as Spark has it: Hadoop knows S3 as `s3a`.
pub(super) fn place(url: &DatasetUrl) -> Result<String> {
    let text = url.to_string();
    Ok(match url.scheme() {
        Scheme::File => {
            let path = url.to_file_path().unwrap_or_default();
            format!("file://{}", path.display())
        }
        Scheme::S3 => match text.split_once("://") {
            Some((_, rest)) => format!("s3a://{rest}"),
            None => text,
        },
        Scheme::Gcs | Scheme::Azure | Scheme::Hdfs => text,
        _ => {
            let message = "Spark does not reach this store: expected a local path, s3, gs, az, abfss or hdfs";
            return Err(Error::unsupported(message).at("URL", url));
        }
    })
}

/// Writes all rows below a place that is there and empty.
///
/// # Cancel safety
///
/// Dropping the future tells Spark to stop; it may have begun files by then.
pub(super) async fn write(rows: DataFrame, layout: Layout, place: String) -> Result<()> {
    let running = Running::begin(rows.spark_session())?;
    let written = blocking(move || {
        let _settings = Settings::change(&rows.spark_session(), &settings(&rows.spark_session(), &layout)?)?;
        let mut writer = rows.write().format("parquet").mode("append");
        for (name, value) in options(&layout) {
            writer = writer.option(&name, &value);
        }
        if !layout.partition_by.is_empty() {
            writer = writer.partition_by(&layout.partition_by);
        }
        writer.save(Some(&place)).map_err(spark_error)
    });
    let written = written.await;
    running.end();
    written
}

/// What is to be set in the session while Spark writes, since no option of a writer says it.
fn settings(session: &SparkSession, layout: &Layout) -> Result<Vec<(&'static str, String)>> {
    let file_bytes = layout.file_bytes.min(i64::MAX as u64);
    let scan = "spark.sql.files.maxPartitionBytes";
    let scanned = session.conf().get_with_default(scan, None).map_err(spark_error)?;
    // Spark shows it as a number of bytes, with or without a unit.
    let scanned = scanned.and_then(|text| text.trim_end_matches(['b', 'B']).parse::<u64>().ok());
    Ok(vec![
        // 96 bits, which Spark writes otherwise, have no statistics.
        ("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS".to_owned()),
        ("spark.sql.parquet.datetimeRebaseModeInWrite", "CORRECTED".to_owned()),
        ("spark.sql.parquet.writeLegacyFormat", "false".to_owned()),
        // A file is what one task writes.
        ("spark.sql.adaptive.enabled", "true".to_owned()),
        ("spark.sql.adaptive.coalescePartitions.enabled", "true".to_owned()),
        (
            "spark.sql.adaptive.coalescePartitions.parallelismFirst",
            "false".to_owned(),
        ),
        (
            "spark.sql.adaptive.coalescePartitions.minPartitionSize",
            file_bytes.min(LEAST_TASK_BYTES).to_string(),
        ),
        (
            "spark.sql.adaptive.advisoryPartitionSizeInBytes",
            file_bytes.to_string(),
        ),
        (scan, scanned.unwrap_or(file_bytes).min(file_bytes).to_string()),
    ])
}

/// The options of Spark's writer, and of Parquet's behind it.
fn options(layout: &Layout) -> Vec<(String, String)> {
    let compression = match layout.compression {
        Compression::Zstd => "zstd",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4_raw",
        Compression::Gzip => "gzip",
        Compression::None => "none",
    };
    let mut options = vec![
        ("compression".to_owned(), compression.to_owned()),
        (
            "parquet.block.size".to_owned(),
            layout.row_group_bytes.min(i64::MAX as u64).to_string(),
        ),
        ("parquet.page.size.row.check.min".to_owned(), LOOK_ROWS.to_string()),
        // Times in directory names are read in this zone.
        ("timeZone".to_owned(), "UTC".to_owned()),
        // It tells a job without rows, which may leave no file, from one that wrote to another disk.
        (
            "mapreduce.fileoutputcommitter.marksuccessfuljobs".to_owned(),
            "true".to_owned(),
        ),
    ];
    for (column, is_on) in &layout.dictionary {
        options.push((format!("parquet.enable.dictionary#{column}"), is_on.to_string()));
    }
    for (column, filter) in &layout.bloom_filters {
        options.push((format!("parquet.bloom.filter.enabled#{column}"), "true".to_owned()));
        options.push((format!("parquet.bloom.filter.fpp#{column}"), filter.fpp.to_string()));
        if let Some(ndv) = filter.ndv {
            options.push((format!("parquet.bloom.filter.expected.ndv#{column}"), ndv.to_string()));
        }
    }
    options
}

/// A job of Spark's that is stopped when this is dropped before its end.
struct Running {
    session: Option<SparkSession>,
    tag: String,
}

impl Running {
    fn begin(session: SparkSession) -> Result<Self> {
        let tag = format!("squall-{}", nonce());
        session.add_tag(&tag).map_err(spark_error)?;
        Ok(Self {
            session: Some(session),
            tag,
        })
    }

    fn end(mut self) {
        if let Some(session) = self.session.take() {
            session.remove_tag(&self.tag);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        session.remove_tag(&self.tag);
        let tag = std::mem::take(&mut self.tag);
        // Whoever drops it may run on a thread of a runtime, which must not wait.
        thread::spawn(move || session.interrupt_tag(&tag).is_ok());
    }
}
