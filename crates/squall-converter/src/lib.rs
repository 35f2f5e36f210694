//! DataFrame to dataset.
//!
//! The files stand in the order of the data: a [`SourceTable`] shows a directory of Parquet files to DataFusion as a
//! table; a [`Converter`] runs a `DataFrame`'s plan; `conform` brings its columns to the types that a reader expects and
//! collects evidence of their shapes; `write` lays them out in files; `commit` makes them visible at once, the metadata
//! last.

mod error;

mod source;

mod conform;
mod evidence;
mod petastorm;
mod write;

mod commit;

mod converter;
mod directory;
mod materialize;

pub use converter::{Compression, Converted, Converter};
pub use directory::{convert_directory, session};
pub use petastorm::Petastorm;
pub use source::SourceTable;
