//! What Petastorm keeps in a dataset's metadata, read without running it, and written so that Petastorm reads it.
//!
//! Petastorm describes its columns, and what it knows of its row groups, in pickled Python objects. [`pickle`] turns a pickle
//! into inert data: it knows how objects are put together and builds none. [`unischema`] and [`index`] find the fields and
//! the indexes in that data. [`mod@write`] makes pickles of constructor calls, in ASCII only.

pub mod pickle;

mod object;
mod scalar;

pub mod index;
pub mod unischema;

pub mod write;

/// The key of the pickled Unischema in `_common_metadata`.
pub const UNISCHEMA_KEY: &str = "dataset-toolkit.unischema.v1";
/// The key of the number of row groups in each file: a JSON object, by path below the dataset.
pub const ROW_GROUPS_KEY: &str = "dataset-toolkit.num_row_groups_per_file.v1";
/// The key of the pickled row-group indexes.
pub const INDEX_KEY: &str = "dataset-toolkit.rowgroups_index.v1";
