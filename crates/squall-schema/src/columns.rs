//! Columns of the canonical Arrow types, and the values in them.
//!
//! [`normalise`] brings a column of a file to the canonical type of its field, [`value_at`] reads one cell of a
//! canonical column and [`column_from_values`] builds one; a [`ColumnBuilder`] takes its values one by one.

mod nested;
mod normalise;
mod value;

mod build;
mod builder;

pub(crate) use build::elements_from_buffer;
pub use build::{column_from_values, elements_from_bytes};
pub use builder::ColumnBuilder;
pub use normalise::normalise;
pub use value::{element_bytes, value_at};

#[cfg(test)]
mod tests;
