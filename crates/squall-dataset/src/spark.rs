//! What Spark means by a column, where Parquet does not tell.

use parquet::file::metadata::ParquetMetaData;
use squall_schema::codec::Codec;
use squall_schema::{DType, Field, Shape};

/// The key of Spark's own schema, as JSON, in the footer.
const ROW_METADATA: &str = "org.apache.spark.sql.parquet.row.metadata";
/// The end of the class name of Spark ML's vectors, of spark.ml and of the older spark.mllib.
const VECTOR: &str = "linalg.VectorUDT";

/// The field, as Spark means it: vectors of Spark ML are vectors of doubles.
pub(crate) fn declared(field: Field, footer: &ParquetMetaData) -> Field {
    if is_vector(&field.name, footer) && field.dtype == DType::Nested {
        let vector = Field::new(&field.name, DType::Float64, Shape(vec![None])).with_codec(Some(Codec::SparkVector));
        return Field {
            nullable: field.nullable,
            arrow: field.arrow,
            ..vector
        };
    }
    field
}

fn is_vector(name: &str, footer: &ParquetMetaData) -> bool {
    let pairs = footer.file_metadata().key_value_metadata();
    let text = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == ROW_METADATA)?.value.as_deref());
    let schema: Option<serde_json::Value> = text.and_then(|text| serde_json::from_str(text).ok());
    let fields = schema.as_ref().and_then(|schema| schema.get("fields")?.as_array());
    let own = fields.and_then(|fields| fields.iter().find(|field| field["name"] == name));
    own.and_then(|field| field["type"]["class"].as_str())
        .is_some_and(|class| class.ends_with(VECTOR))
}
