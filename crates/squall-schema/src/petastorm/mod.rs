//! What Petastorm keeps in a dataset's metadata, read without running it.
//!
//! Petastorm describes its columns in a pickled Python object. [`pickle`] turns a pickle into inert data: it knows how
//! objects are put together and builds none. [`unischema`] finds the fields in that data.

pub mod pickle;
pub mod unischema;

/// The key of the pickled Unischema in `_common_metadata`.
pub const UNISCHEMA_KEY: &str = "dataset-toolkit.unischema.v1";
