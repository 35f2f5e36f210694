//! What Spark means by a column, where Parquet does not tell.

use parquet::basic::{ConvertedType, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use squall_schema::calendar::{HybridCalendar, HybridTimes};
use squall_schema::codec::Codec;
use squall_schema::spark::{ROW_METADATA, SparkType, StructType};
use squall_schema::{DType, Field, Shape};

/// The version of the Spark that wrote a file.
const VERSION: &str = "org.apache.spark.version";
/// There if a later Spark was told to count dates and times as an old one does.
const LEGACY_DATETIME: &str = "org.apache.spark.legacyDateTime";
/// There if it was told so for timestamps of 96 bits.
const LEGACY_INT96: &str = "org.apache.spark.legacyINT96";
/// The zone of the session that wrote a file in the old calendar.
const TIME_ZONE: &str = "org.apache.spark.timeZone";

/// Spark's own schema of a file, if Spark wrote it. One that cannot be read is none: it says little that Parquet does not.
pub(crate) fn schema(footer: &ParquetMetaData) -> Option<StructType> {
    let pairs = footer.file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == ROW_METADATA)?.value.as_deref()?;
    StructType::from_json(text).ok()
}

/// What a file counts in the calendar of an old Spark, by the rules of `DataSourceUtils.scala` of Spark 4.0. A file of Spark
/// without a version is by one that did not stamp its files yet, 2.4 or older.
pub fn calendar(footer: &ParquetMetaData) -> HybridCalendar {
    let empty = Vec::new();
    let pairs = footer.file_metadata().key_value_metadata().unwrap_or(&empty);
    let get = |key: &str| pairs.iter().find(|pair| pair.key == key);
    let version = get(VERSION).and_then(|pair| version(pair.value.as_deref()?));
    let hybrid = |first: (u32, u32), key: &str| {
        let old = match version {
            Some(version) => version < first,
            None => get(ROW_METADATA).is_some(),
        };
        old || get(key).is_some()
    };
    let columns = footer.file_metadata().schema_descr().columns();
    let int96 = columns.iter().any(|column| column.physical_type() == Type::INT96);
    let dates = hybrid((3, 0), LEGACY_DATETIME);
    // Spark writes one kind of timestamps in a file.
    let times = match if int96 { hybrid((3, 1), LEGACY_INT96) } else { dates } {
        false => HybridTimes::Gregorian,
        true => match get(TIME_ZONE).and_then(|pair| pair.value.as_deref()) {
            Some("UTC" | "Etc/UTC" | "GMT" | "Z" | "+00:00") => HybridTimes::Utc,
            zone => HybridTimes::Elsewhere(zone.map(str::to_owned)),
        },
    };
    HybridCalendar { dates, times }
}

/// The first column whose statistics say that it has dates or times which [`calendar`] changes. Timestamps of 96 bits have
/// no statistics.
pub(crate) fn old_column(footer: &ParquetMetaData) -> Option<String> {
    let calendar = calendar(footer);
    if calendar.is_gregorian() {
        return None;
    }
    // Spark 2 writes no other types of the logical kind than these.
    let old = |column: &&ColumnChunkMetaData| match (column.statistics(), column.column_descr().converted_type()) {
        (Some(Statistics::Int32(days)), ConvertedType::DATE) => {
            days.min_opt().is_some_and(|day| calendar.is_old_date(i64::from(*day)))
        }
        (Some(Statistics::Int64(times)), ConvertedType::TIMESTAMP_MICROS) => times
            .min_opt()
            .is_some_and(|time| calendar.is_old_time(time.div_euclid(86_400_000_000))),
        (Some(Statistics::Int64(times)), ConvertedType::TIMESTAMP_MILLIS) => times
            .min_opt()
            .is_some_and(|time| calendar.is_old_time(time.div_euclid(86_400_000))),
        _ => false,
    };
    let mut columns = footer.row_groups().iter().flat_map(|row_group| row_group.columns());
    columns.find(old).map(|column| column.column_path().string())
}

/// Whether it has timestamps of 96 bits that are counted in the old calendar where they are old.
pub(crate) fn has_old_int96(footer: &ParquetMetaData) -> bool {
    let columns = footer.file_metadata().schema_descr().columns();
    let int96 = columns.iter().any(|column| column.physical_type() == Type::INT96);
    int96 && calendar(footer).times != HybridTimes::Gregorian
}

/// Major and minor version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
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
    use parquet::file::metadata::{FileMetaData, KeyValue};
    use parquet::schema::parser::parse_message_type;
    use parquet::schema::types::SchemaDescriptor;
    use std::sync::Arc;

    #[test]
    fn the_footer_says_which_calendar_a_file_counts_in() {
        let (int96, int64) = ("int96 t", "int64 t (TIMESTAMP(MICROS,true))");
        let (utc, zurich) = ((TIME_ZONE, "UTC"), (TIME_ZONE, "Europe/Zurich"));
        let elsewhere = |zone: &str| HybridTimes::Elsewhere(Some(zone.to_owned()));
        for (column, pairs, dates, times) in [
            // Not of Spark.
            (int96, &[][..], false, HybridTimes::Gregorian),
            (int64, &[(VERSION, "3.0.0")][..], false, HybridTimes::Gregorian),
            (int96, &[(VERSION, "3.0.0"), utc], false, HybridTimes::Utc),
            (int96, &[(VERSION, "3.1.0-SNAPSHOT")], false, HybridTimes::Gregorian),
            (int96, &[(VERSION, "10.0")], false, HybridTimes::Gregorian),
            (int64, &[(VERSION, "2.4.8")], true, HybridTimes::Elsewhere(None)),
            (int64, &[(ROW_METADATA, "{}")], true, HybridTimes::Elsewhere(None)),
            (
                int96,
                &[(VERSION, "4.0.1"), (LEGACY_INT96, ""), zurich],
                false,
                elsewhere("Europe/Zurich"),
            ),
            (
                int64,
                &[(VERSION, "4.0.1"), (LEGACY_INT96, ""), zurich],
                false,
                HybridTimes::Gregorian,
            ),
            (
                int64,
                &[(VERSION, "4.0.1"), (LEGACY_DATETIME, ""), utc],
                true,
                HybridTimes::Utc,
            ),
        ] {
            let pair = |(key, value): &(&str, &str)| KeyValue::new((*key).to_owned(), Some((*value).to_owned()));
            let schema = parse_message_type(&format!("message m {{ required {column}; }}")).expect("a schema");
            let schema = Arc::new(SchemaDescriptor::new(Arc::new(schema)));
            let file = FileMetaData::new(2, 0, None, Some(pairs.iter().map(pair).collect()), schema, None);
            let found = calendar(&ParquetMetaData::new(file, Vec::new()));
            assert_eq!(found, HybridCalendar { dates, times }, "{column} {pairs:?}");
        }
    }

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
