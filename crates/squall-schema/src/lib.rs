//! What a row is: dtypes, shapes, fields, rows, tensors, and the metadata bytes of a dataset.
//!
//! Everything here is a value or a function from bytes to a value. Nothing opens a file, spawns a thread or
//! reads a clock, so each part is tested with tables and properties.
//!
//! In reading order: an [`Error`] that all crates share; a [`DType`] and a [`Shape`] make a [`Field`], fields make
//! a [`Schema`]; [`arrow`] maps it to Arrow's types; a [`Tensor`] and a [`Value`] fill a [`Row`];
//! [`footer`] finds the key/value metadata in a Parquet footer and [`metadata`] is what Squall keeps there.

mod error;

mod byte_size;

mod dtype;
mod field;
mod flatten;
mod matching;
mod schema;

pub mod arrow;

mod tensor;
mod value;

pub mod calendar;
pub mod codec;
pub mod columns;

pub mod petastorm;
pub mod spark;

mod row;

mod deserialize;
mod serialize;

pub mod footer;
pub mod metadata;

pub use byte_size::ByteSize;
pub use dtype::{DType, TimeUnit};
pub use error::{Error, ErrorKind, Result, panic_text};
pub use field::{Field, FieldType, Shape};
pub use matching::name_patterns;
pub use row::{Row, RowId};
pub use schema::Schema;
pub use tensor::{Element, Tensor};
pub use value::{Decimal, Value};
