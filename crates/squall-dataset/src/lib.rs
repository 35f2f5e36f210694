//! Where rows live: from a URL to the pieces that a reader plans with.
//!
//! The files stand in the order of the data: a [`DatasetUrl`] names a directory, [`Store`] reaches it, [`listing`]
//! finds its files and the values in their directory names, [`footer`] loads what a Parquet file says of itself, and
//! [`Dataset::open`] puts schema and pieces together: from one stored file where Squall wrote the dataset, from all
//! footers otherwise. No data page is read here.

mod url;

pub mod cache;
mod checksum;

mod store;

pub mod listing;
pub mod partition;
mod zone;

mod described;
mod file_reader;
pub mod footer;
mod peek;
mod spark;

mod merge;

mod fields;

mod dataset;

pub use checksum::{Checksum, SEAL_KEY, Seal, UNSEALED, check_seal, checksum_text, is_known_checksum, seal};
pub use dataset::{DataFile, Dataset, OpenOptions, Origin, Piece, UnsupportedColumn, WRITING_MARKER, stored_metadata};
pub use described::{key_values, unischema_name};
pub use file_reader::FileReader;
pub use spark::calendar;
pub use store::{
    DEFAULT_BACKOFF, DEFAULT_COALESCE_GAP, DEFAULT_CONCURRENCY, DEFAULT_CONNECT_TIMEOUT, DEFAULT_MAX_BACKOFF,
    DEFAULT_MAX_REQUEST, DEFAULT_READ_TIMEOUT, DEFAULT_RETRIES, DEFAULT_TOTAL_TIMEOUT, ObjectVersion, Provider,
    Retries, Store, StoreMetrics, StoreOptions, storage_error,
};
pub use url::{DatasetUrl, Scheme};
pub use zone::TimeZone;
