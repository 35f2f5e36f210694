//! DataFrame to dataset.
//!
//! The files stand in the order of the data: `format` tells what the files of a source are; a [`SourceTable`] shows a
//! directory of Parquet files to DataFusion as a table, `records` one of CSV, JSON or Avro; a [`Converter`] runs a
//! `DataFrame`'s plan; `rules` and `conform` bring its columns to the types that a reader expects, and `evidence` keeps their
//! shapes; `order`, `run` and `bucket` put rows in order where one is asked for; `write` lays them out in files; `commit` makes
//! them visible at once, the metadata last; `cache` finds what was converted before.

mod error;

mod stored_path;

mod format;
mod records;
mod source;

#[cfg(feature = "delta")]
mod delta;

mod rules;

mod conform;
mod evidence;
mod petastorm;
mod progress;

mod layout;
mod memory;

mod scratch;
mod spill;
mod sweep;
mod sync;

mod order;

mod run;

mod bucket;

mod heap;
mod hive;
mod write;

mod engine;

mod marker;
mod metadata_file;

mod moves;

mod draft;
mod revision;

mod commit;

mod key;

mod lock;

mod cache;
mod checkpoint;

mod converted;
mod converter;
mod copy;
mod directory;
mod generate;
mod inference;
mod materialize;
mod steady;
mod stream;

#[cfg(feature = "spark")]
pub mod spark;

#[cfg(feature = "ballista")]
mod ballista;

#[cfg(feature = "ballista")]
pub use ballista::{Cluster, ExecutorOptions, FileWriter, SchedulerOptions, run_executor, run_scheduler};
pub use cache::{Cache, CacheEntry, Limits, Temporary};
pub use converted::Converted;
pub use converter::Converter;
pub use copy::{CopyOptions, copy_dataset};
pub use directory::{convert_directory, convert_sources, session};
pub use format::SourceFormat;
pub use generate::{GenerateOptions, Generated, generate_metadata};
pub use inference::{Inferred, infer_sources};
pub use layout::{BloomFilter, Compression, Statistics};
pub use petastorm::Petastorm;
pub use progress::{Phase, Progress};
pub use records::TextOptions;
pub use revision::SaveMode;
pub use rules::{FloatPrecision, ImageFormat, ImageRule};
pub use source::SourceTable;
