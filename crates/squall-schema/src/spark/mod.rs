//! Spark's schemas: the JSON that `StructType.json()` gives and every Parquet file of Spark has in its footer.
//!
//! In: text of the footer, untrusted. [`StructType`] is what it says, typed; `schema` makes a [`Schema`](crate::Schema) of
//! it and back. What Spark accepts is written by `StructType.fromJson` of pyspark and `DataType.fromJson` of Spark's
//! `types/DataType.scala`.

mod types;

mod json;
mod schema;

pub use schema::TensorLayout;
pub(crate) use schema::of_dtype;
pub use types::{SparkType, StructField, StructType};

/// The key of the JSON text in the footers of Spark's Parquet files.
pub const ROW_METADATA: &str = "org.apache.spark.sql.parquet.row.metadata";

/// What of a text a message repeats.
fn shown(text: &impl std::fmt::Display) -> String {
    const MOST: usize = 100;
    text.to_string().chars().take(MOST).collect()
}

#[cfg(test)]
mod tests;
