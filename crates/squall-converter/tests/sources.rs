//! Sources that are not Parquet: what is read, and what is said of what cannot be.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_avro::writer::AvroWriter;
use squall_converter::{Converted, Converter, SourceFormat, TextOptions, convert_directory, convert_sources};
use squall_schema::{DType, Error, ErrorKind, Field, Result, Schema, Shape};
use tempfile::TempDir;

use crate::{Destination, run};

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
    directory
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn convert_with(source: &Path, sql: Option<&str>, with: impl FnOnce(Converter) -> Converter) -> Result<Converted> {
    let destination = Destination::new();
    let converted = run(convert_directory(
        text(source),
        with(Converter::new(destination.url())),
        sql,
    ));
    if converted.is_err() {
        assert_eq!(destination.entries(), [""; 0]);
    }
    converted
}

fn convert(source: &Path, sql: Option<&str>) -> Result<Converted> {
    convert_with(source, sql, |converter| converter)
}

/// The rows of a query over a source, as one batch.
fn rows(source: &Path, sql: &str, with: impl FnOnce(Converter) -> Converter) -> RecordBatch {
    let destination = Destination::new();
    let converted = run(convert_directory(
        text(source),
        with(Converter::new(destination.url())),
        Some(sql),
    ));
    converted.expect("a conversion");
    let mut batches = Vec::new();
    let mut files: Vec<_> = fs::read_dir(destination.url())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    for file in files.iter().filter(|file| !text(file).ends_with("_common_metadata")) {
        let file = fs::File::open(file).expect("a file");
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1 << 20).expect("Parquet");
        batches.extend(reader.map(|batch| batch.expect("a batch")));
    }
    arrow_select::concat::concat_batches(&batches[0].schema(), &batches).expect("batches of one schema")
}

fn ints(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    let column = batch.column_by_name(name).expect("a column");
    let column = arrow_cast::cast(column, &arrow_schema::DataType::Int64).expect("integers");
    column
        .as_any()
        .downcast_ref::<Int64Array>()
        .expect("integers")
        .iter()
        .collect()
}

fn strings(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(name).expect("a column");
    let column = column.as_any().downcast_ref::<StringArray>().expect("text");
    column.iter().map(|text| text.map(str::to_owned)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(bytes).expect("compression");
    writer.finish().expect("compression")
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    writer.write_all(bytes).expect("compression");
    writer.finish().expect("compression")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("compression")
}

#[test]
fn csv_is_typed_from_all_its_values_and_its_directories() {
    let source = directory(&[
        (
            "day=2024-01-01/a.csv",
            b"\xef\xbb\xbfid,x,name\n1,1,\"a, \"\"b\"\"\nc\"\n2,,\n",
        ),
        ("day=2024-01-02/b.csv", b"id,x,name\r\n3,2.5,NA\r\n"),
        ("day=2024-01-02/empty.csv", b""),
        ("_SUCCESS", b""),
    ]);
    let converted = convert(source.path(), None).expect("a conversion");
    let fields = converted.schema().to_string();
    assert_eq!(
        fields,
        "id: int64 nullable\nx: float32 nullable\nname: str nullable\nday: datetime64[D]"
    );
    let null = |converter: Converter| converter.text(TextOptions::default().with_null("NA"));
    let batch = rows(source.path(), "SELECT id, name, day, x FROM source ORDER BY id", null);
    assert_eq!(ints(&batch, "id"), [Some(1), Some(2), Some(3)]);
    assert_eq!(strings(&batch, "name"), [Some("a, \"b\"\nc".to_owned()), None, None]);
    assert_eq!(ints(&batch, "x"), [Some(1), None, Some(2)]);
}

#[test]
fn csv_takes_delimiters_names_and_types_that_are_given() {
    let source = directory(&[("a.tsv", b"1\t'x\ty'\n2\tz\n")]);
    let schema = Schema::new(vec![
        Field::scalar("small", DType::Int8),
        Field::scalar("word", DType::Str).with_nullable(true),
    ]);
    let options = TextOptions::default()
        .with_header(false)
        .with_quote(b'\'')
        .with_schema(schema.expect("a schema"));
    let converted =
        convert_with(source.path(), None, |converter| converter.text(options.clone())).expect("a conversion");
    assert_eq!(converted.schema().to_string(), "small: int8\nword: str nullable");
    let batch = rows(source.path(), "SELECT * FROM source", |converter| {
        converter.text(options)
    });
    assert_eq!(strings(&batch, "word"), [Some("x\ty".to_owned()), Some("z".to_owned())]);
}

#[test]
fn whole_files_may_be_compressed() {
    let line = b"{\"id\": 1, \"x\": [1.5, 2]}\n";
    let csv = b"id,x\n7,8\n";
    for (files, format) in [
        (
            [
                ("a.jsonl.gz", gzip(&[line, &line[..]].concat())),
                ("b.json", line.to_vec()),
            ],
            "x: float32[2] nullable",
        ),
        (
            [
                ("a.ndjson.zst", zstd(&[line, &line[..]].concat())),
                ("b.json.bz2", bzip2(line)),
            ],
            "x: float32[2] nullable",
        ),
        // Two members, as `cat a.gz b.gz` makes them.
        (
            [
                ("a.csv.gz", [gzip(csv), gzip(b"9,10\n")].concat()),
                ("b.csv.bz2", bzip2(csv)),
            ],
            "x: int64 nullable",
        ),
    ] {
        let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        let source = directory(&files);
        let converted = convert(source.path(), None).expect("a conversion");
        assert_eq!(
            (converted.rows(), converted.schema().to_string()),
            (3, format!("id: int64 nullable\n{format}"))
        );
    }
}

#[test]
fn json_keeps_nulls_lists_and_takes_structs_apart_in_sql() {
    let source = directory(&[(
        "part-00000",
        b"{\"id\": 1, \"at\": {\"y\": 2}}\n\n{\"id\": 2.5, \"words\": [\"a\", \"b\"], \"at\": {\"y\": null}}\n",
    )]);
    let error = convert(source.path(), None).expect_err("nested");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let sql = "SELECT id, words, source.at['y'] AS y FROM source";
    let converted = convert(source.path(), Some(sql)).expect("a conversion");
    let schema = converted.schema().to_string();
    assert_eq!(
        schema,
        "id: float32 nullable\nwords: str[2] nullable\ny: int64 nullable"
    );
}

fn avro(ids: std::ops::Range<i64>) -> Vec<u8> {
    let lists = ListArray::from_iter_primitive::<arrow_array::types::Float64Type, _, _>(
        ids.clone().map(|id| Some([Some(id as f64), Some(0.5)])),
    );
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone())) as ArrayRef),
        (
            "x",
            Arc::new(Float64Array::from_iter_values(ids.clone().map(|id| id as f64))) as ArrayRef,
        ),
        ("v", Arc::new(lists) as ArrayRef),
    ])
    .expect("a batch");
    let mut writer = AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).expect("a writer");
    writer.write(&batch).expect("a batch");
    writer.finish().expect("a file");
    writer.into_inner()
}

#[test]
fn avro_is_read_by_the_schema_of_its_first_file() {
    let (a, b) = (avro(0..5000), avro(5000..20_000));
    let source = directory(&[("k=1/a.avro", &a), ("k=2/b.avro", &b)]);
    let converted = convert(source.path(), None).expect("a conversion");
    assert_eq!(converted.rows(), 20_000);
    assert_eq!(
        converted.schema().get("v").map(|field| field.shape.clone()),
        Some(Shape::fixed(&[2]))
    );
    let batch = rows(source.path(), "SELECT id, k FROM source", |converter| converter);
    let expected: Vec<_> = (0..20_000).map(Some).collect();
    assert_eq!(ints(&batch, "id"), expected);
    assert_eq!(ints(&batch, "k")[4999..5001], [Some(1), Some(2)]);
    let cut = directory(&[("a.avro", &b[..b.len() - 40])]);
    let error = convert(cut.path(), None).expect_err("cut short");
    assert_eq!(
        (error.kind(), error.place("file")),
        (ErrorKind::Corrupt, Some("a.avro")),
        "{error}"
    );
}

/// The places that an error names.
fn places(error: &Error) -> [Option<&str>; 3] {
    ["file", "line", "column"].map(|place| error.place(place))
}

#[test]
fn what_does_not_fit_is_named_with_file_and_line() {
    let mut good: Vec<u8> = b"id,x\n".to_vec();
    for id in 0..20_000 {
        good.extend(format!("{id},\"two\nlines\"\n").into_bytes());
    }
    let bad = [&good[..], b"oops,y\n"].concat();
    let source = directory(&[("a.csv", &good), ("b.csv", &bad)]);
    let first = |converter: Converter| converter.text(TextOptions::default().with_infer_rows(100));
    let error = convert_with(source.path(), None, first).expect_err("a value");
    assert_eq!(places(&error), [Some("b.csv"), Some("40002"), Some("id")], "{error}");
    assert!(error.message().contains("\"oops\""), "{error}");
    // Inferred from all rows it is text.
    let converted = convert(source.path(), None).expect("a conversion");
    assert_eq!(converted.schema().get("id").map(|field| field.dtype), Some(DType::Str));

    let check = |name: &str, bytes: &[u8], line: &str, part: &str| {
        let source = directory(&[(name, bytes)]);
        let first = |converter: Converter| converter.text(TextOptions::default().with_infer_rows(1));
        let error = convert_with(source.path(), None, first).expect_err("a line");
        assert_eq!(
            (error.kind(), error.place("line")),
            (ErrorKind::Corrupt, Some(line)),
            "{error}"
        );
        assert!(error.to_string().contains(part), "{error}");
    };
    check(
        "a.csv",
        b"a,b\n1,2\n3,4\n5\n",
        "4",
        "expected a record of 2 values, found one of 1",
    );
    check("a.json", b"{\"a\": 1}\n\n{\"a\": \"x\"}\n", "3", "");
    check("a.json", b"{\"a\": 1}\n{\"a\": \n", "2", "");
    check("a.json.gz", &gzip(b"{\"a\": 1}\n[1]\n"), "2", "");
}

#[test]
fn damaged_and_mixed_sources_are_refused() {
    let check = |files: &[(&str, &[u8])], part: &str| {
        let source = directory(files);
        let error = convert(source.path(), None).expect_err("a source to refuse");
        assert!(error.to_string().contains(part), "{error}");
    };
    check(
        &[("a.csv", b"x\n1\n"), ("b.json", b"{}")],
        "a.csv is csv, b.json is json",
    );
    check(&[("a.parquet", b"PAR1"), ("_delta_log/0.json", b"{}")], "Delta table");
    check(
        &[("a.csv", b"x\n1\n"), ("b.csv", b"y\n1\n")],
        "expected the columns of the first file, x, found y",
    );
    check(&[("a.csv", b"x,x\n1,2\n")], "two columns have the name \"x\"");
    check(&[("a.csv", b"")], "all files of the source are empty");
    let mut cut = gzip(&b"x\n1\n".repeat(1000));
    cut.truncate(30);
    check(&[("a.csv.gz", &cut)], "a.csv.gz");
    check(&[("a.csv.zst", b"no frame at all")], "a.csv.zst");
    check(&[("k=1/a.csv", b"k\n1\n")], "stands in the files and in the names");
    let source = directory(&[("data", b"x;y\n1;2\n")]);
    let csv = |converter: Converter| {
        let converter = converter.source_format(SourceFormat::Csv);
        converter.text(TextOptions::default().with_delimiter(b';'))
    };
    assert_eq!(convert_with(source.path(), None, csv).expect("a conversion").rows(), 1);
}

#[test]
fn several_sources_are_joined() {
    let people = directory(&[("people.csv", b"id,name\n1,Ann\n2,Bo\n")]);
    let scores = directory(&[(
        "scores.jsonl",
        b"{\"id\": 2, \"score\": 7}\n{\"id\": 1, \"score\": 9}\n",
    )]);
    let destination = Destination::new();
    let sources = [("people", text(people.path())), ("scores", text(scores.path()))];
    let sql = "SELECT name, score FROM people JOIN scores USING (id)";
    let converted = run(convert_sources(&sources, Converter::new(destination.url()), Some(sql))).expect("a conversion");
    assert_eq!(
        (converted.rows(), converted.schema().names().collect::<Vec<_>>()),
        (2, vec!["name", "score"])
    );
    let error = run(convert_sources(
        &sources,
        Converter::new(Destination::new().url()),
        None,
    ))
    .expect_err("no SQL");
    assert!(error.message().contains("several sources need SQL"), "{error}");
}

/// A table that delta-rs wrote: rows were appended, deleted and compacted, and the files of before are still there.
#[cfg(feature = "delta")]
#[test]
fn of_a_delta_table_the_rows_that_count_are_read() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration-tests/fixtures/delta-1.6.6");
    let rows = |version: Option<u64>, sql: &str| {
        let version = |converter: Converter| match version {
            Some(version) => converter.delta_version(version),
            None => converter,
        };
        convert_with(&table, Some(sql), version).map(|converted| converted.rows())
    };
    let all = "SELECT * FROM source";
    assert_eq!(rows(None, all).expect("a conversion"), 50);
    for (version, expected) in [(0, 40), (1, 60), (2, 50)] {
        assert_eq!(rows(Some(version), all).expect("a conversion"), expected);
    }
    let odd = "SELECT id, name, x FROM source WHERE country = 'CH' AND id >= 10 AND x = id * 0.5";
    assert_eq!(rows(None, odd).expect("a conversion"), 25);
    assert_eq!(
        rows(None, "SELECT * FROM source WHERE name IS NULL").expect("a conversion"),
        7
    );
    let error = rows(Some(9), all).expect_err("no such version");
    assert!(error.to_string().contains("Delta table cannot be read"), "{error}");

    // A conversion is found again as long as the version is the same.
    let cache = Destination::new();
    let convert = |version| {
        let converter = Converter::new(cache.url()).cached().delta_version(version);
        run(convert_directory(text(&table), converter, None)).expect("a dataset")
    };
    assert_eq!(
        [convert(3).is_hit(), convert(3).is_hit(), convert(1).is_hit()],
        [false, true, false]
    );
}
