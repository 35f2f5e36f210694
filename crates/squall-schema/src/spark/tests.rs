//! `types.json` is the text in the footers of the data sets that Spark 3.5.9 and 4.0.5 wrote for the integration tests, the
//! same of both; `pyspark.json` is what pyspark 4.0.5 prints for the types that those lack, its keys sorted.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::arrow::{field_to_arrow, schema_to_arrow};
use crate::codec::Codec;
use crate::{DType, Field, Schema, Shape, TimeUnit};

const TYPES: &str = include_str!("types.json");
const PYSPARK: &str = include_str!("pyspark.json");

fn refused(text: &str) -> String {
    Schema::from_spark_json(text).expect_err("an error").to_string()
}

/// A schema of one column of this type, in JSON.
fn one(data_type: &str) -> String {
    format!(r#"{{"type":"struct","fields":[{{"name":"c","type":{data_type},"nullable":true,"metadata":{{}}}}]}}"#)
}

#[test]
fn what_spark_wrote_is_read_and_written_to_the_byte() {
    let parsed = StructType::from_json(TYPES).expect("a schema");
    assert_eq!(parsed.to_json(), TYPES.trim_end());
    let parsed = StructType::from_json(PYSPARK).expect("a schema");
    let json = |text: &str| serde_json::from_str::<Json>(text).expect("JSON");
    assert_eq!(json(&parsed.to_json()), json(PYSPARK));
    let noted = parsed.get("noted").expect("a column");
    assert_eq!(
        (&noted.data_type, noted.declared_type()),
        (&SparkType::String, SparkType::Varchar(9))
    );
    let types: Vec<_> = parsed.fields.iter().map(|field| field.data_type.to_string()).collect();
    assert_eq!(types[..3], ["void", "char(8)", "varchar(8)"]);
    assert!(matches!(parsed.fields[4].data_type, SparkType::YearMonthInterval(_)));
    assert!(matches!(parsed.fields[6].data_type, SparkType::DayTimeInterval(_)));
    assert_eq!(parsed.fields[7].data_type, SparkType::Other("interval".to_owned()));
}

#[test]
fn a_schema_of_spark_becomes_fields() {
    let schema = Schema::from_spark_json(TYPES).expect("fields");
    let expected = r#"id: int64
flag: bool nullable
i8: int8 nullable
i16: int16 nullable
i32: int32 nullable
f32: float32 nullable
f64: float64 nullable
text: str nullable
blob: bytes nullable
dec9: decimal(9, 2) nullable
dec38: decimal(38, 18) nullable
day: datetime64[D] nullable
at: datetime64[us, UTC] nullable
at_ntz: datetime64[us] nullable
fixed: float32[?]
ragged: int32[?] nullable
nested: nested (List(List(Float32, field: 'element'), field: 'element')) nullable
point: nested (Struct("x": Float64, "y": Float64)) nullable
props: nested (Map("key_value": non-null Struct("key": non-null Utf8, "value": Int32), unsorted)) nullable
vec: float64[?] as spark-vector nullable"#;
    assert_eq!(schema.to_string(), expected);
    // Every column has a type in memory, and what is written of the fields is what was read.
    schema_to_arrow(&schema).expect("canonical types");
    let back = schema.to_spark_json(TensorLayout::Nested).expect("a schema of Spark");
    // A list without nulls is not told apart from one with nulls where no shape is fixed.
    let read = TYPES.trim_end().replacen(
        r#""elementType":"float","containsNull":false"#,
        r#""elementType":"float","containsNull":true"#,
        1,
    );
    assert_eq!(back, read);
}

#[test]
fn types_that_parquet_or_nobody_holds_are_named() {
    for (data_type, expected) in [
        (r#""void""#, "the type void of Spark is not known here (column c)"),
        (
            r#""interval""#,
            "the type interval of Spark is not known here (column c)",
        ),
        (r#""time(6)""#, "the type time(6) of Spark is not known here (column c)"),
        (
            r#""decimal(39,2)""#,
            "Spark has no decimal(39,2): expected at most 38 digits, none to all of them after the point (column c)",
        ),
        (
            r#"{"type":"udt","class":"org.apache.spark.ml.linalg.MatrixUDT","sqlType":"integer"}"#,
            "the type udt org.apache.spark.ml.linalg.MatrixUDT of Spark is not known here (column c)",
        ),
        (
            r#"{"type":"struct","fields":[{"name":"m","type":"void"}]}"#,
            "the type void of Spark is not known here (member m, column c)",
        ),
        (
            r#"{"type":"array","elementType":"long"}"#,
            "the array of a schema of Spark lacks its containsNull (column c)",
        ),
        (
            r#"{"type":"set"}"#,
            "a type of Spark \"set\" with parts: it has none (column c)",
        ),
        ("7", "a type of Spark without the key \"type\" (column c)"),
    ] {
        assert_eq!(refused(&one(data_type)), expected, "{data_type}");
    }
    assert_eq!(refused(r#""long""#), "the schema of Spark is a long: expected a struct");
    for (data_type, expected) in [
        (r#""interval day to second""#, "c: int64 nullable"),
        (r#""interval month""#, "c: int32 nullable"),
        (r#""decimal""#, "c: decimal(10, 0) nullable"),
        (r#""char(3)""#, "c: str nullable"),
        (
            r#""variant""#,
            "c: nested (Struct(\"value\": non-null Binary, \"metadata\": non-null Binary)) nullable",
        ),
    ] {
        let schema = Schema::from_spark_json(&one(data_type)).expect("a field");
        assert_eq!(schema.to_string(), expected, "{data_type}");
    }
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [
        (r#"{"type":"array","containsNull":true,"elementType":"#, "}"),
        (r#"{"type":"struct","fields":[{"name":"c","type":"#, "}]}"),
    ] {
        for depth in [100, 100_000] {
            let text = one(&format!("{}\"long\"{}", open.repeat(depth), close.repeat(depth)));
            assert!(StructType::from_json(&text).is_err());
        }
    }
}

#[test]
fn fields_become_a_schema_of_spark() {
    let datetime = |unit, utc| DType::Datetime { unit, utc };
    let scalar = |name: &str, dtype| Field::scalar(name, dtype);
    let fields = vec![
        scalar("u8", DType::UInt8),
        scalar("u16", DType::UInt16),
        scalar("u32", DType::UInt32),
        scalar("u64", DType::UInt64).with_nullable(true),
        scalar("f16", DType::Float16),
        scalar("at", datetime(TimeUnit::Millisecond, true)),
        scalar("wall", datetime(TimeUnit::Microsecond, false)),
        Field::new("image", DType::UInt8, Shape::fixed(&[4, 3])).with_codec(Some(Codec::Png)),
        Field::new("vector", DType::Float32, Shape::fixed(&[3])),
        Field::new("ragged", DType::Str, Shape(vec![None])).with_nullable(true),
        Field::new("matrix", DType::Float32, Shape::fixed(&[2, 3])),
        Field::new("frames", DType::UInt8, Shape(vec![None, Some(3)])),
        Field::new("ml", DType::Float64, Shape(vec![None])).with_codec(Some(Codec::SparkVector)),
    ];
    let schema = Schema::new(fields).expect("unique names");
    let types = |layout| -> Vec<String> {
        let json = schema.to_spark_json(layout).expect("a schema of Spark");
        let json: Json = serde_json::from_str(&json).expect("JSON");
        let fields = json["fields"].as_array().expect("fields").iter();
        fields.map(|field| field["type"].to_string()).collect()
    };
    let array =
        |element: &str, null: bool| format!(r#"{{"type":"array","elementType":{element},"containsNull":{null}}}"#);
    let flat = types(TensorLayout::Flat);
    assert_eq!(
        flat[..8],
        [
            r#""short""#,
            r#""integer""#,
            r#""long""#,
            r#""decimal(20,0)""#,
            r#""float""#,
            r#""timestamp""#,
            r#""timestamp_ntz""#,
            r#""binary""#
        ]
    );
    assert_eq!(
        flat[8..11],
        [
            array(r#""float""#, false),
            array(r#""string""#, true),
            array(r#""float""#, false)
        ]
    );
    let part = |name, own: String| format!(r#"{{"name":"{name}","type":{own},"nullable":false,"metadata":{{}}}}"#);
    let (data, shape) = (array(r#""short""#, true), array(r#""integer""#, false));
    let parts = [part("data", data), part("shape", shape)].join(",");
    assert_eq!(flat[11], format!(r#"{{"type":"struct","fields":[{parts}]}}"#));
    assert!(flat[12].starts_with(r#"{"type":"udt","class":"org.apache.spark.ml.linalg.VectorUDT","pyClass":"#));
    let nested = types(TensorLayout::Nested);
    assert_eq!(nested[..10], flat[..10]);
    assert_eq!(nested[10], array(&array(r#""float""#, false), false));
    assert_eq!(nested[11], array(&array(r#""short""#, true), false));

    let error = |field| {
        let schema = Schema::new(vec![field]).expect("one field");
        schema
            .to_spark_json(TensorLayout::Flat)
            .expect_err("an error")
            .to_string()
    };
    let nanos = error(scalar("t", datetime(TimeUnit::Nanosecond, true)));
    assert_eq!(nanos, "Spark has no times in nanoseconds (column t)");
    assert!(error(scalar("d", DType::Decimal(10, -2))).starts_with("Spark has no decimal(10,-2)"));
}

fn spark_type() -> impl Strategy<Value = SparkType> {
    let plain = prop::sample::select(vec![
        "boolean",
        "byte",
        "short",
        "integer",
        "long",
        "float",
        "double",
        "decimal(7,3)",
        "string",
        "char(3)",
        "varchar(4)",
        "binary",
        "date",
        "timestamp",
        "timestamp_ntz",
        "interval year",
        "interval day to hour",
        "variant",
    ]);
    let plain = plain.prop_map(|name: &str| name.parse().expect("any text is a type"));
    plain.prop_recursive(4, 16, 3, |inner| {
        let inner = inner.boxed();
        let array = (inner.clone(), any::<bool>());
        let map = (inner.clone(), inner.clone(), any::<bool>());
        let row = prop::collection::vec(("[a-c]{1,3}", inner.clone(), any::<bool>()), 1..4);
        prop_oneof![
            array.prop_map(|(element, contains_null)| SparkType::Array {
                element: Box::new(element),
                contains_null
            }),
            map.prop_map(|(key, value, value_contains_null)| SparkType::Map {
                key: Box::new(key),
                value: Box::new(value),
                value_contains_null
            }),
            row.prop_map(|row| {
                let fields = row
                    .into_iter()
                    .map(|(name, own, null)| StructField::new(name, own, null));
                SparkType::Struct(StructType {
                    fields: fields.collect(),
                })
            }),
            inner.prop_map(|own| SparkType::Udt {
                class: None,
                py_class: Some("a.b".to_owned()),
                serialized_class: Some("gASV".to_owned()),
                sql_type: Box::new(own),
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_schema_comes_back(types in prop::collection::vec((spark_type(), any::<bool>()), 0..5)) {
        let fields = types.into_iter().enumerate();
        let fields = fields.map(|(i, (own, null))| StructField::new(format!("c{i}"), own, null));
        let row = StructType { fields: fields.collect() };
        prop_assert_eq!(&StructType::from_json(&row.to_json()).expect("own text"), &row);
        // What becomes fields has Arrow types, and describes them to Spark again.
        if let Ok(schema) = row.to_schema() {
            for field in schema.fields() {
                field_to_arrow(field).expect("a canonical type");
            }
            let again = StructType::of_schema(&schema, TensorLayout::Nested).expect("types that Spark has");
            prop_assert_eq!(again.to_schema().expect("fields").to_string(), schema.to_string());
        }
    }

    #[test]
    fn no_text_panics(text in r#"[\[\]{}:,"a-z ]{0,60}"#, cut in 0..3000usize) {
        let _ = Schema::from_spark_json(&text);
        let _ = Schema::from_spark_json(TYPES.get(..cut).unwrap_or(TYPES));
    }
}
