//! What Spark means by a column, where Parquet does not tell.

use parquet::file::metadata::ParquetMetaData;
use squall_schema::codec::Codec;
use squall_schema::spark::{ROW_METADATA, SparkType, StructType};
use squall_schema::{DType, Field, Shape};

/// Spark's own schema of a file, if Spark wrote it. One that cannot be read is none: it says little that Parquet does not.
pub(crate) fn schema(footer: &ParquetMetaData) -> Option<StructType> {
    let pairs = footer.file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == ROW_METADATA)?.value.as_deref()?;
    StructType::from_json(text).ok()
}

/// The field, as Spark means it: vectors of Spark ML are vectors of doubles, and text is text where Parquet has bytes.
/// Whether a value may be null is for Parquet to tell, which has it by the bit.
pub(crate) fn declared(field: Field, schema: Option<&StructType>) -> Field {
    let Some(own) = schema.and_then(|schema| schema.get(&field.name)) else {
        return field;
    };
    match (&own.data_type, field.dtype) {
        (vector, DType::Nested) if vector.is_vector() => {
            let vector =
                Field::new(&field.name, DType::Float64, Shape(vec![None])).with_codec(Some(Codec::SparkVector));
            Field {
                nullable: field.nullable,
                arrow: field.arrow,
                ..vector
            }
        }
        (SparkType::String | SparkType::Char(_) | SparkType::Varchar(_), DType::Bytes) => Field {
            dtype: DType::Str,
            ..field
        },
        _ => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparks_types_decide_where_parquets_do_not() {
        let vector = r#"{"type":"udt","class":"org.apache.spark.mllib.linalg.VectorUDT","sqlType":"binary"}"#;
        let json = |own: &str| format!(r#"{{"type":"struct","fields":[{{"name":"c","type":{own}}}]}}"#);
        for (spark, parquet, expected) in [
            (r#""string""#, DType::Bytes, "c: str"),
            (r#""varchar(3)""#, DType::Bytes, "c: str"),
            (r#""binary""#, DType::Bytes, "c: bytes"),
            (r#""string""#, DType::Int32, "c: int32"),
            (vector, DType::Nested, "c: float64[?] as spark-vector"),
            (vector, DType::Bytes, "c: bytes"),
        ] {
            let schema = StructType::from_json(&json(spark)).expect("a schema of Spark");
            let declared = |schema| declared(Field::scalar("c", parquet), schema).to_string();
            assert_eq!(declared(Some(&schema)), expected, "{spark}");
            assert_eq!(declared(None), Field::scalar("c", parquet).to_string());
        }
    }
}
