//! What becomes of columns, of streams, and what is said on the way.

use std::fs;
use std::sync::{Arc, Mutex};

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use futures::{StreamExt, stream};
use squall_converter::{Converter, FloatPrecision, ImageFormat, ImageRule, Phase, infer_sources, session};
use squall_schema::codec::{Codec, encode_value};
use squall_schema::{DType, Error, ErrorKind, Field, Result, Schema, Shape, Tensor, Value, field};
use tempfile::TempDir;

use crate::{Destination, open, run};

const FLOATS: &str = "SELECT value AS id, value * 0.5 AS x, [value * 0.5, 1.0] AS v FROM generate_series(1, 100)";

/// The schema that a query is written with.
fn convert(sql: &str, with: impl FnOnce(Converter) -> Converter) -> Result<Schema> {
    let destination = Destination::new();
    let converted = run(with(Converter::new(destination.url())).convert_sql(&session(), sql));
    if converted.is_err() {
        assert_eq!(destination.entries(), [""; 0]);
    }
    let converted = converted?;
    assert_eq!(open(&destination.url())?.schema(), converted.schema());
    Ok(converted.schema().clone())
}

fn dtypes(schema: &Schema) -> Vec<DType> {
    schema.fields().iter().map(|field| field.dtype).collect()
}

#[test]
fn doubles_become_floats_in_lists_too_unless_they_are_kept() {
    let of = |precision| dtypes(&convert(FLOATS, |converter| converter.floats(precision)).expect("a conversion"));
    assert_eq!(
        of(FloatPrecision::Float32),
        [DType::Int64, DType::Float32, DType::Float32]
    );
    assert_eq!(of(FloatPrecision::Keep), [DType::Int64, DType::Float64, DType::Float64]);
    let sql = "SELECT arrow_cast(value, 'Float32') AS x FROM generate_series(1, 3)";
    let wide = convert(sql, |converter| converter.floats(FloatPrecision::Float64)).expect("a conversion");
    assert_eq!(dtypes(&wide), [DType::Float64]);
    let sql = "SELECT CASE WHEN value = 70 THEN 1e300 ELSE 0.5 END AS x FROM generate_series(0, 99)";
    let error = convert(sql, |converter| converter).expect_err("too large");
    assert_eq!(
        (error.place("row"), error.place("column")),
        (Some("70"), Some("x")),
        "{error}"
    );
}

#[test]
fn a_declared_schema_says_what_is_written() {
    let schema = Schema::new(vec![
        field!("v": f32[2]).with_codec(Some(Codec::Ndarray)),
        field!("id": i16),
        Field::scalar("x", DType::Str).with_nullable(true),
    ]);
    let schema = schema.expect("a schema");
    let found = convert(FLOATS, |converter| converter.schema(schema.clone())).expect("a conversion");
    assert_eq!(found, schema);
    let check = |fields: Vec<Field>, sql: &str, part: &str, row: Option<&str>| {
        let schema = Schema::new(fields).expect("a schema");
        let error = convert(sql, |converter| converter.schema(schema)).expect_err("a misfit");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.place("row"), row, "{error}");
    };
    check(vec![field!("y": f32)], FLOATS, "\"y\" is no column of the result", None);
    check(vec![field!("x": i64)], FLOATS, "a fraction", Some("0"));
    check(vec![field!("v": f32[3])], FLOATS, "FixedSizeList", Some("0"));
    let sql = "SELECT CASE WHEN value = 7 THEN NULL ELSE value END AS id FROM generate_series(0, 9)";
    check(
        vec![field!("id": i64)],
        sql,
        "null where the schema has none",
        Some("7"),
    );
    let sql = "SELECT value * 100 AS id FROM generate_series(0, 999)";
    check(vec![field!("id": i16)], sql, "is not one of", Some("328"));
}

#[test]
fn closures_make_values_and_name_the_row_they_fail_at() {
    let one_hot = |value: Value| {
        let place = value
            .as_i64()
            .and_then(|id| usize::try_from(id % 4).ok())
            .unwrap_or_default();
        let mut hot = vec![0f32; 4];
        hot[place] = 1.0;
        Ok(Tensor::from_vec(&[4], hot)?.into())
    };
    let target = field!("any": f32[4]).with_codec(Some(Codec::Ndarray));
    let found = convert(FLOATS, |converter| converter.encode("id", target, one_hot)).expect("a conversion");
    assert_eq!(found.fields()[0].to_string(), "id: float32[4] as npy");
    let failing = |value: Value| match value {
        Value::Int(90) => Err(Error::invalid("not ninety")),
        Value::Int(95) => panic!("ninety-five"),
        other => Ok(other),
    };
    let error = convert(FLOATS, |converter| converter.encode("id", field!("id": i64), failing)).expect_err("a failure");
    assert_eq!(
        (error.message(), error.place("row")),
        ("not ninety", Some("89")),
        "{error}"
    );
    let panics = |_| panic!("oh no");
    let error = convert(FLOATS, |converter| converter.encode("id", field!("id": i64), panics)).expect_err("a panic");
    assert_eq!(error.kind(), ErrorKind::Transform, "{error}");
    let error = convert(FLOATS, |converter| converter.image("id", ImageRule::new())).expect_err("no image");
    assert!(
        error
            .to_string()
            .contains("expected images as bytes or paths, found Int64"),
        "{error}"
    );
}

/// Images of this height in png, and a list of their paths in CSV.
fn pictures(n: usize) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    fs::create_dir(directory.path().join("images")).expect("a directory");
    let mut list = "id,path\n".to_owned();
    for i in 0..n {
        let field = field!("image": u8[8, 6, 3]).with_codec(Some(Codec::Png));
        let tensor = Tensor::from_vec(&[8, 6, 3], vec![i as u8; 8 * 6 * 3]).expect("a tensor");
        let png = encode_value(&tensor.into(), &field).expect("a png image");
        fs::write(directory.path().join(format!("images/{i}.png")), png).expect("a file");
        let full = match i % 2 {
            0 => format!("{}/images/{i}.png", directory.path().display()),
            _ => format!("images/{i}.png"),
        };
        list.push_str(&format!("{i},{full}\n"));
    }
    fs::write(directory.path().join("list.csv"), list).expect("a file");
    directory
}

#[test]
fn images_are_read_by_their_paths_resized_and_encoded() {
    let pictures = pictures(150);
    let root = pictures.path().to_str().expect("UTF-8").to_owned();
    let list = format!("{root}/list.csv");
    let sql = "SELECT id, path AS image FROM source";
    let with = |rule: ImageRule, sql: &str| {
        let destination = Destination::new();
        let converter = Converter::new(destination.url()).image("image", rule);
        let converted = run(squall_converter::convert_directory(&list, converter, Some(sql)))?;
        converted
            .schema()
            .get("image")
            .map(|field| (field.to_string(), converted.rows()))
            .ok_or_else(|| Error::internal("gone"))
    };
    let (kept, rows) = with(ImageRule::new().root(&root), sql).expect("a conversion");
    assert_eq!((kept.as_str(), rows), ("image: uint8[?, ?, 3] as jpeg nullable", 150));
    let rule = ImageRule::new().root(&root).resize(4, 4).format(ImageFormat::Jpeg(90));
    let (resized, _) = with(rule.clone(), sql).expect("a conversion");
    assert_eq!(resized, "image: uint8[4, 4, 3] as jpeg(90) nullable");
    let check = |rule: ImageRule, sql: &str, part: &str| {
        let error = with(rule, sql).expect_err("no images");
        assert!(error.to_string().contains(part), "{error}");
    };
    check(ImageRule::new(), sql, "needs a root");
    check(
        rule.clone(),
        "SELECT '../list.csv' AS image FROM source",
        "not below the root",
    );
    check(
        rule.clone(),
        "SELECT '/etc/passwd' AS image FROM source",
        "not below the root",
    );
    check(
        rule.clone(),
        "SELECT 'images/none.png' AS image FROM source",
        "there is no such image",
    );
    check(rule, "SELECT 'list.csv' AS image FROM source", "row 0");
}

#[test]
fn a_stream_is_converted_a_batch_at_a_time() {
    let batch = |start: i64| {
        let ids = Arc::new(Int64Array::from_iter_values(start..start + 10)) as ArrayRef;
        RecordBatch::try_from_iter([("id", ids)]).expect("a batch")
    };
    let schema = batch(0).schema();
    let destination = Destination::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reports = seen.clone();
    let converter =
        Converter::new(destination.url()).progress(move |progress| reports.lock().expect("a lock").push(progress));
    let batches = stream::iter((0..100).map(|i| Ok(batch(i * 10))));
    let converted = run(converter.convert_stream(schema.clone(), batches)).expect("a conversion");
    assert_eq!(converted.rows(), 1000);
    let seen = seen.lock().expect("a lock");
    let phases: Vec<_> = seen.iter().map(|progress| progress.phase).collect();
    assert_eq!(
        (phases[0], phases[phases.len() - 2], phases[phases.len() - 1]),
        (Phase::Writing, Phase::Committing, Phase::Done)
    );
    let last = seen.last().expect("a report");
    let size: u64 = converted.files().iter().map(|file| file.size).sum();
    assert_eq!((last.rows, last.files, last.bytes), (1000, 1, size));

    let failing = stream::iter([Ok(batch(0)), Err(Error::invalid("no more"))]);
    let destination = Destination::new();
    let error = run(Converter::new(destination.url()).convert_stream(schema.clone(), failing)).expect_err("a failure");
    assert_eq!((error.message(), destination.entries().len()), ("no more", 0));
    let other = RecordBatch::try_from_iter([("x", batch(0).column(0).clone())]).expect("a batch");
    let other = stream::iter([Ok(other)]).boxed();
    let error = run(Converter::new(Destination::new().url()).convert_stream(schema, other)).expect_err("a misfit");
    assert!(error.message().starts_with("expected a batch of the schema"), "{error}");
}

#[test]
fn a_dry_run_shows_the_evidence_and_writes_nothing() {
    let source = TempDir::new().expect("a directory");
    fs::write(
        source.path().join("a.jsonl"),
        "{\"id\": 1, \"v\": [1, 2]}\n{\"id\": 2, \"v\": [3, 4]}\n",
    )
    .expect("a file");
    let destination = Destination::new();
    let url = source.path().to_str().expect("UTF-8");
    let (fields, rows) = run(infer_sources(
        &[("source", url)],
        &Converter::new(destination.url()),
        None,
    ))
    .expect("fields");
    assert_eq!((rows, fields.len(), destination.entries().len()), (2, 2, 0));
    assert_eq!(fields[1].field.shape, Shape::fixed(&[2]));
    assert!(
        fields[1].from.contains("the lists of all 2 rows have 2 elements"),
        "{}",
        fields[1].from
    );
}
