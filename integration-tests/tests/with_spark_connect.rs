//! A real Spark Connect server runs plans that are made here and writes what they give; Squall commits it and reads it.
//!
//! Needs `SQUALL_PYSPARK_PYTHON`, a Python with pyspark 4, and a Java. `cargo xtask test` sets both up.

mod server;

mod keys;
mod secure;
mod versions;
mod with_petastorm;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use squall::convert::spark::spark_connect::functions::{expr, when};
use squall::convert::spark::spark_connect::{
    Column, DataFrame, Expression, LiteralExpression, SparkSession, UnresolvedFunction,
};
use squall::convert::spark::{connect, convert_spark_sources};
use squall::convert::{
    BloomFilter, Compression, Converted, Converter, FloatPrecision, ImageRule, Petastorm, Statistics,
};
use squall::{
    ByteSize, DType, Error, ErrorKind, Row, Schema, Value, VerifyOptions, field, make_reader, verify_dataset,
};

use self::server::{Server, server, spark_home};

/// A column of each type, nulls everywhere but in the first; what differs between rows differs in each.
const EVERY_TYPE: &str = "
SELECT id,
    if(id % 5 = 3, NULL, id % 2 = 0) AS flag,
    if(id % 5 = 3, NULL, CAST(id % 256 - 128 AS TINYINT)) AS tiny,
    if(id % 5 = 3, NULL, CAST(id * 300 - 30000 AS SMALLINT)) AS short,
    if(id % 5 = 3, NULL, CAST(id * 20000000 - 2000000000 AS INT)) AS int,
    if(id % 5 = 3, NULL, (id - 100) * 90000000000000000) AS long,
    if(id % 5 = 3, NULL, CAST(id / 3 AS FLOAT)) AS float,
    if(id % 5 = 3, NULL, CAST(id / 3 AS DOUBLE)) AS double,
    if(id % 5 = 3, NULL, CAST(id / 100 AS DECIMAL(9, 2))) AS price,
    if(id % 5 = 3, NULL, CAST('12345678901234567890123.45678' AS DECIMAL(30, 5)) + id) AS big,
    if(id % 5 = 3, NULL, concat('Zürich ', id)) AS text,
    if(id % 5 = 3, NULL, CAST(concat('bytes ', id) AS BINARY)) AS blob,
    if(id % 5 = 3, NULL, date_add(DATE'1581-12-30', CAST(id * 3000 AS INT))) AS day,
    if(id % 5 = 3, NULL, TIMESTAMP'1899-12-31 23:59:59.123456 UTC' + make_dt_interval(CAST(id * 777 AS INT))) AS at,
    if(id % 5 = 3, NULL, TIMESTAMP_NTZ'0001-01-01 01:02:03.000001' + make_dt_interval(CAST(id * 3000 AS INT))) AS wall,
    if(id % 5 = 3, NULL, array(CAST(id AS FLOAT), 0.5F, -1F)) AS fixed,
    if(id % 5 = 3, NULL, sequence(1, CAST(id % 4 AS INT) + 1)) AS ragged,
    if(id % 5 = 3, NULL, array('a', NULL, concat('w', id))) AS words,
    if(id % 5 = 3, NULL, array(array(id, 1L), array(2L))) AS matrix,
    if(id % 5 = 3, NULL, named_struct('x', id, 'y', if(id % 2 = 0, NULL, 'why'))) AS point,
    if(id % 5 = 3, NULL, map('a', id, concat('k', id), NULL)) AS table
FROM range(0, 200, 1, 3)";

/// What Spark says of the same rows: a JSON object each.
const AS_JSON: &str = "to_json(struct(*), map('ignoreNullFields', 'false', 'timeZone', 'UTC',
    'timestampFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSS\\'Z\\'',
    'timestampNTZFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSS', 'dateFormat', 'yyyy-MM-dd'))";

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

fn session() -> SparkSession {
    run(connect(&server().url())).expect("a session")
}

fn convert(rows: &DataFrame, converter: Converter) -> squall::Result<Converted> {
    run(converter.convert_spark(rows))
}

fn function(name: &str, arguments: &[Expression]) -> Column {
    Column::new(Expression::UnresolvedFunction(UnresolvedFunction::new(
        name,
        arguments.to_vec(),
    )))
}

/// The rows as they are stored, from the first file to the last.
fn rows(converted: &Converted) -> Vec<Row> {
    let reader = make_reader(converted.url()).shuffle(squall::Shuffle::None).build();
    reader.expect("a reader").map(|row| row.expect("a row")).collect()
}

/// Whether a value is what Spark prints as this JSON.
fn is_same(value: &Value, json: &Json) -> bool {
    match (value, json) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(own), Json::Bool(other)) => own == other,
        (Value::Int(own), Json::Number(other)) => other.as_i64() == Some(*own),
        (Value::Float32(own), Json::Number(other)) => other.as_f64().map(|x| x as f32) == Some(*own),
        (Value::Float64(own), Json::Number(other)) => other.as_f64() == Some(*own),
        (Value::Str(own), Json::String(other)) => own == other,
        (Value::Bytes(own), Json::String(other)) => base64(own) == *other,
        (Value::Decimal(own), Json::String(other)) => own.to_string() == *other,
        (Value::List(own), Json::Array(other)) => {
            own.len() == other.len() && own.iter().zip(other).all(|(own, other)| is_same(own, other))
        }
        (Value::Tensor(own), Json::Array(other)) => {
            let own: Vec<f64> = match (own.as_slice::<f32>(), own.as_slice::<i32>(), own.as_slice::<f64>()) {
                (Ok(own), ..) => own.iter().map(|x| f64::from(*x)).collect(),
                (_, Ok(own), _) => own.iter().map(|x| f64::from(*x)).collect(),
                (.., Ok(own)) => own.to_vec(),
                _ => return false,
            };
            let other: Vec<_> = other.iter().filter_map(Json::as_f64).collect();
            own == other
        }
        (Value::Struct(own), Json::Object(other)) => {
            own.len() == other.len() && own.iter().all(|(name, own)| is_same(own, &other[name]))
        }
        // A map: entries of a key and a value.
        (Value::List(own), Json::Object(other)) => own.iter().all(|entry| match entry {
            Value::Struct(members) => match &members[..] {
                [(_, Value::Str(key)), (_, value)] => is_same(value, &other[key]),
                _ => false,
            },
            _ => false,
        }),
        (time, Json::String(other)) => {
            let (whole, utc) = match other.strip_suffix('Z') {
                Some(whole) => (whole, "Z"),
                None => (&other[..], ""),
            };
            let whole = match whole.contains('.') {
                true => whole.trim_end_matches('0').trim_end_matches('.'),
                false => whole,
            };
            let own = time.to_iso().unwrap_or_default();
            let own = match own.strip_suffix('Z').unwrap_or(&own) {
                own if own.contains('.') => own.trim_end_matches('0'),
                own => own,
            };
            format!("{own}{utc}") == format!("{whole}{utc}")
        }
        _ => false,
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The rows of Spark, by id, with decimals as text, which JSON's numbers do not hold.
fn collected(rows: &DataFrame) -> BTreeMap<i64, Json> {
    let columns = rows
        .columns()
        .expect("columns")
        .into_iter()
        .map(|name| match name.as_str() {
            "price" | "big" => expr(&format!("CAST({name} AS STRING) AS {name}")),
            "vector" => {
                let kind = Expression::Literal(LiteralExpression::string("float64"));
                let array = function("vector_to_array", &[expr("vector").expression().clone(), kind]);
                when(expr("vector IS NOT NULL"), array).alias("vector")
            }
            _ => expr(&format!("`{name}`")),
        });
    let lines = rows
        .select(columns.collect::<Vec<_>>())
        .select(vec![expr(AS_JSON)])
        .collect()
        .expect("rows");
    let line = |row: &squall::convert::spark::spark_connect::row::Row| {
        let text = row.get(0).and_then(|value| value.as_str()).expect("a text");
        let json: Json = serde_json::from_str(text).expect("JSON");
        (json["id"].as_i64().expect("an id"), json)
    };
    lines.iter().map(line).collect()
}

fn assert_same(converted: &Converted, spark: &DataFrame) {
    let expected = collected(spark);
    let found = rows(converted);
    assert_eq!(found.len(), expected.len());
    for row in found {
        let id = row.int("id").expect("an id");
        for (name, value) in row.iter() {
            let other = &expected[&id][name];
            assert!(is_same(value, other), "row {id}, column {name}: {value:?} and {other}");
        }
    }
}

#[test]
fn a_data_frame_of_every_type_is_what_spark_collects() {
    let spark = session();
    let rows = spark.sql(EVERY_TYPE).expect("rows");
    let double = expr("array(CAST(id AS DOUBLE), 0.5D)").expression().clone();
    let vector = when(expr("id % 5 != 3"), function("array_to_vector", &[double]));
    let columns = vec![expr("*"), vector.alias("vector")];
    let rows = rows.select(columns);
    let directory = tempfile::tempdir().expect("a directory");
    let destination = directory.path().join("every type").display().to_string();
    let converter = Converter::new(&destination).floats(FloatPrecision::Keep);
    let converted = convert(&rows, converter).expect("a conversion");
    assert_eq!(converted.rows(), 200);
    assert_same(&converted, &rows);

    let shown = |name: &str| {
        converted
            .schema()
            .get(name)
            .map(|field| field.to_string())
            .unwrap_or_default()
    };
    assert!(shown("fixed").contains("float32[3]"), "{}", shown("fixed"));
    assert!(shown("vector").contains("float64[2]"), "{}", shown("vector"));
    assert!(shown("ragged").contains("int32[?]"), "{}", shown("ragged"));
    // Spark's own marks and checksums are not in the dataset, and nothing is left beside it.
    let names = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a directory");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().display().to_string())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(directory.path()), ["every type"]);
    let files = names(Path::new(&destination));
    assert_eq!(files.len(), converted.files().len() + 1, "{files:?}");
    assert!(
        files[1].starts_with("part-0000") && files[1].ends_with("-0000.parquet"),
        "{files:?}"
    );
    let report = verify_dataset(&converted.url(), &VerifyOptions::default()).expect("a report");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn doubles_become_floats_and_schemas_are_kept() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let to = |name: &str| Converter::new(directory.path().join(name).display().to_string());
    let rows = spark
        .sql("SELECT id, id / 3 AS x, array(id / 7, double('NaN'), double('Infinity')) AS v, array(array(id / 7)) AS m FROM range(10)")
        .expect("rows");
    let converted = convert(&rows, to("floats")).expect("a conversion");
    let shown: Vec<_> = converted
        .schema()
        .fields()
        .iter()
        .map(|field| field.to_string())
        .collect();
    assert_eq!(shown[..3], ["id: int64", "x: float32 nullable", "v: float32[3]"]);
    for row in self::rows(&converted) {
        let id = row.int("id").expect("an id") as f64;
        assert_eq!(row["x"], Value::Float32((id / 3.0) as f32));
    }

    let wanted = Schema::new(vec![field!("v": f32[3]), field!("id": u8)]).expect("a schema");
    let converted = convert(&rows, to("declared").schema(wanted)).expect("a conversion");
    assert_eq!(converted.schema().to_string(), "v: float32[3]\nid: uint8");
    assert_eq!(self::rows(&converted)[7]["id"], Value::Int(7));

    let error = |sql: &str, converter: Converter| {
        let rows = spark.sql(sql).expect("rows");
        convert(&rows, converter).expect_err("an error").to_string()
    };
    let text = error("SELECT CAST(1e300 AS DOUBLE) AS y FROM range(3)", to("infinite"));
    assert!(
        text.contains("float32 does not hold") && text.contains("\"y\""),
        "{text}"
    );
    let one = |own| Schema::new(vec![own]).expect("a schema");
    let text = error("SELECT 300 AS id", to("narrow").schema(one(field!("id": i8))));
    assert!(text.contains("a value of INT is not one of TINYINT"), "{text}");
    let text = error("SELECT 0.5D AS id", to("fraction").schema(one(field!("id": i64))));
    assert!(text.contains("not one of BIGINT"), "{text}");
    let text = error("SELECT array(1F) AS v", to("short").schema(one(field!("v": f32[3]))));
    assert!(text.contains("another length than 3"), "{text}");
    let text = error(
        "SELECT CAST(NULL AS INT) AS id",
        to("null").schema(one(field!("id": i32))),
    );
    assert!(text.contains("null where the schema has none"), "{text}");
    let text = error("SELECT 1 AS id", to("cells").image("id", ImageRule::new()));
    assert!(text.contains("not written by Spark"), "{text}");
    let text = error("SELECT 1 AS id", to("memory").memory_limit(ByteSize::mib(64)));
    assert!(text.contains("memory limit"), "{text}");
    let text = error("SELECT 1 AS id", to("statistics").statistics(Statistics::None));
    assert!(text.contains("statistics of pages"), "{text}");
    let text = error("SELECT 1 AS id, 2 AS id", to("twice"));
    assert!(text.contains("two columns"), "{text}");
    let text = error("SELECT id FROM range(0)", to("nothing"));
    assert!(text.contains("there is no row"), "{text}");
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("a directory").collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_second_conversion_is_a_hit_until_the_source_changes() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let rows = spark
        .sql("SELECT id, concat('row ', id) AS text FROM range(0, 1000, 1, 2)")
        .expect("rows");
    let source = place("source");
    rows.write().parquet(&source).expect("a source");
    let cached = || Converter::new(place("cache")).cached();
    let query = format!("SELECT *, id * 2 AS twice FROM parquet.`{source}` WHERE id >= 10");

    let began = Instant::now();
    let first = convert(&spark.sql(&query).expect("rows"), cached()).expect("a conversion");
    let took_first = began.elapsed();
    assert!(!first.is_hit());
    // Other sessions, which number columns and plans by themselves.
    let hit = || {
        let again = session().sql(&query).expect("rows");
        let began = Instant::now();
        let second = convert(&again, cached()).expect("a conversion");
        assert!(second.is_hit() && second.url() == first.url());
        began.elapsed()
    };
    // The other tests take the processors meanwhile: the best of some. Where all is so slow that even it takes a
    // second, it takes less than the conversion of these few rows did.
    let took = (0..5).map(|_| hit()).min().expect("hits");
    println!("a conversion took {took_first:?}, a cache hit {took:?}");
    assert!(
        took < took_first.max(Duration::from_secs(1)),
        "{took:?}, and {took_first:?} without the cache"
    );

    // A source is a view of the session that reads it.
    let url = server().url();
    let sql = Some("SELECT id FROM source WHERE text != 'row 7'");
    let of_source = || run(convert_spark_sources(&url, &[("source", &source)], cached(), sql)).expect("a conversion");
    assert!(!of_source().is_hit() && of_source().is_hit());

    // Rows in the plan are told by a hash of them, literals by themselves.
    let values = |text: &str| {
        spark
            .sql(&format!("SELECT * FROM VALUES (1, '{text}'), (2, 'b') AS t(id, x)"))
            .expect("rows")
    };
    let a = convert(&values("a"), cached()).expect("a conversion");
    assert!(convert(&values("a"), cached()).expect("a conversion").is_hit());
    let b = convert(&values("b"), cached()).expect("a conversion");
    assert!(!b.is_hit() && a.url() != b.url());
    let other = convert(&values("a"), cached().compression(Compression::Snappy)).expect("a conversion");
    assert!(!other.is_hit());

    rows.write().mode("append").parquet(&source).expect("more rows");
    // A session keeps its list of files until it is told that they changed.
    let third = convert(&session().sql(&query).expect("rows"), cached()).expect("a conversion");
    assert!(!third.is_hit() && third.rows() == 2 * first.rows());

    let refused = |sql: &str| {
        let rows = spark.sql(sql).expect("rows");
        convert(&rows, cached()).expect_err("an error").to_string()
    };
    assert!(
        refused("SELECT id, current_timestamp() AS at FROM range(3)")
            .contains("current_timestamp() gives something else")
    );
    assert!(refused("SELECT id, rand() AS x FROM range(3)").contains("gives something else"));
    let named = Converter::new(place("cache")).cache_key("mine");
    let rows = spark.sql("SELECT id, rand() AS x FROM range(3)").expect("rows");
    assert!(!convert(&rows, named.clone()).expect("a conversion").is_hit());
    assert!(convert(&rows, named).expect("a conversion").is_hit());
}

#[test]
fn rows_are_shuffled_sorted_and_laid_out_by_directories_as_their_content_says() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let to = |name: &str| Converter::new(directory.path().join(name).display().to_string());
    // Half of the rows come twice, and rows come in another order, from another number of tasks.
    let query = |tasks: usize, order: &str| {
        let twice = format!("SELECT id % 750 AS id, id % 750 % 7 AS digit FROM range(0, 1000, 1, {tasks})");
        spark.sql(&format!("SELECT * FROM ({twice}) {order}")).expect("rows")
    };
    let ids = |converted: &Converted| -> Vec<i64> {
        rows(converted)
            .iter()
            .map(|row| row.int("id").expect("an id"))
            .collect()
    };
    let one = ids(&convert(&query(3, ""), to("shuffled").shuffle(7)).expect("a conversion"));
    let again = ids(&convert(&query(5, "ORDER BY id DESC"), to("again").shuffle(7)).expect("a conversion"));
    assert_eq!(one, again);
    let other = ids(&convert(&query(3, ""), to("other").shuffle(8)).expect("a conversion"));
    assert_ne!(one, other);
    let mut sorted = one.clone();
    sorted.sort_unstable();
    let mut expected: Vec<i64> = (0..750).chain(0..250).collect();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    // Rows that are the same do not stand together.
    let beside = one.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(beside < 5, "{beside} pairs");

    let converted =
        convert(&query(4, ""), to("sorted").sort_by(["digit", "id"]).file_bytes(1024)).expect("a conversion");
    let found: Vec<_> = rows(&converted)
        .iter()
        .map(|row| (row.int("digit").expect("a digit"), row.int("id").expect("an id")))
        .collect();
    assert!(found.is_sorted(), "{found:?}");
    assert!(converted.files().len() > 1);

    let parts = spark
        .sql("SELECT id, if(id % 4 = 0, NULL, concat('a/b ', id % 4)) AS part, DATE'2024-01-01' AS day, TIMESTAMP'2024-01-01 12:00:00 UTC' AS at FROM range(0, 400, 1, 4)")
        .expect("rows");
    let converter = to("parts").partition_by(["part", "day", "at"]).sort_by(["id"]);
    let converted = convert(&parts, converter).expect("a conversion");
    assert_eq!(
        converted.schema().to_string(),
        "id: int64\npart: str nullable\nday: datetime64[D]\nat: datetime64[us, UTC]"
    );
    let mut last = BTreeMap::new();
    for row in rows(&converted) {
        let id = row.int("id").expect("an id");
        let part = match &row["part"] {
            Value::Null => 0,
            Value::Str(text) => text.trim_start_matches("a/b ").parse().expect("a number"),
            other => panic!("{other:?}"),
        };
        assert_eq!(part, id % 4);
        assert_eq!(row["at"].to_iso().expect("a time"), "2024-01-01T12:00:00Z");
        assert!(last.insert(part, id).is_none_or(|before| before < id));
    }
    assert_eq!(last.len(), 4);

    let empty = spark
        .sql("SELECT id, if(id = 1, '', 'x') AS part FROM range(3)")
        .expect("rows");
    let error = convert(&empty, to("empty").partition_by(["part"]))
        .expect_err("an error")
        .to_string();
    assert!(
        error.contains("no directory name holds") && error.contains("\"part\""),
        "{error}"
    );
}

#[test]
fn the_layout_is_that_of_the_options_and_the_session_stays_as_it_was() {
    let spark = session();
    let directory = tempfile::tempdir().expect("a directory");
    let conf = spark.conf();
    conf.set("spark.sql.parquet.outputTimestampType", "INT96")
        .expect("a setting");
    let rows = spark
        .sql("SELECT id, sha2(CAST(id AS STRING), 256) AS text, TIMESTAMP'2024-01-01 00:00:00' AS at FROM range(0, 20000, 1, 1)")
        .expect("rows");
    let destination = directory.path().join("table").display().to_string();
    let converter = Converter::new(&destination)
        .row_group_bytes(256 << 10)
        .compression(Compression::Gzip)
        .bloom_filter("text", BloomFilter::default())
        .dictionary("text", false)
        .petastorm(Petastorm::new("Table").index("by_id", "id"));
    let converted = convert(&rows, converter).expect("a conversion");
    assert!(converted.n_row_groups() >= 4, "{}", converted.n_row_groups());
    assert!(converted.files().iter().all(|file| file.checksum.is_some()));
    let kept = conf.get("spark.sql.parquet.outputTimestampType").expect("a setting");
    assert_eq!(kept.as_deref(), Some("INT96"));
    // Times are 64 bits, whatever the session says: only they have statistics.
    let bytes = std::fs::read(Path::new(&destination).join(&converted.files()[0].path)).expect("a file");
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(has(b"parquet-mr") && !has(b"INT96"));
    let none = make_reader(converted.url())
        .filter("text = 'nothing of the kind'")
        .build();
    assert_eq!(none.map(|_| ()).expect_err("no row").kind(), ErrorKind::NoData);
    let selected = make_reader(converted.url()).filter("id = 7").build().expect("a reader");
    assert_eq!(
        selected
            .map(|row| row.expect("a row").int("id").expect("an id"))
            .collect::<Vec<_>>(),
        [7]
    );
}

#[test]
fn what_is_wrong_is_told_in_a_sentence() {
    let url = server().url();
    let refused = |url: &str| run(connect(url)).map(|_| ()).expect_err("an error");
    let error = refused("sc://127.0.0.1:1/;token=secret");
    assert!(
        error.to_string().contains("no Spark Connect server answers") && !error.to_string().contains("secret"),
        "{error}"
    );
    let error = refused(&url.replace("a-token", "another-token"));
    assert!(
        error.to_string().contains("does not take the token") && !error.to_string().contains("another-token"),
        "{error}"
    );
    let error = refused("sc://example.com/;token=secret");
    assert!(
        error.to_string().contains("use_ssl=true") && !error.to_string().contains("secret"),
        "{error}"
    );
    let error = refused("http://127.0.0.1/;token=secret");
    assert!(
        error.kind() == ErrorKind::InvalidInput && !error.to_string().contains("secret"),
        "{error}"
    );

    let directory = tempfile::tempdir().expect("a directory");
    let convert = |source: &str, sql: Option<&str>| -> Error {
        let destination = directory.path().join("none").display().to_string();
        let converter = Converter::new(destination);
        run(convert_spark_sources(&url, &[("source", source)], converter, sql)).expect_err("an error")
    };
    let missing = directory.path().join("missing").display().to_string();
    let error = convert(&missing, None);
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains("missing"),
        "{error}"
    );
    let table = directory.path().join("table.csv").display().to_string();
    std::fs::write(&table, "id,name\n1,a\n2,\"b, c\"\n").expect("a file");
    let error = convert(&table, Some("SELECT nam FROM source")).to_string();
    assert!(
        error.contains("UNRESOLVED_COLUMN") && error.contains("nam") && !error.contains("Project"),
        "{error}"
    );
    let error = convert(&table, Some("SELEC 1")).to_string();
    assert!(error.contains("expected a query"), "{error}");
    let error = convert(&table, Some("SELECT (id FROM source")).to_string();
    assert!(error.contains("PARSE_SYNTAX_ERROR"), "{error}");
    let error = convert(&table, Some("DROP TABLE source")).to_string();
    assert!(error.contains("expected a query"), "{error}");

    let destination = directory.path().join("converted").display().to_string();
    let converter = Converter::new(&destination);
    let sql = Some("SELECT id, upper(name) AS name FROM source");
    let converted = run(convert_spark_sources(&url, &[("source", &table)], converter, sql)).expect("a conversion");
    let names: Vec<_> = rows(&converted).iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, [Value::Str("A".into()), Value::Str("B, C".into())]);
    assert_eq!(
        converted.schema().get("id").map(|field| field.dtype),
        Some(DType::Int32)
    );
    let again = run(convert_spark_sources(
        &url,
        &[("source", &table)],
        Converter::new(&destination),
        None,
    ));
    assert_eq!(again.expect_err("an error").kind(), ErrorKind::AlreadyExists);
}

/// Set where a test runs itself in another process, to be killed.
const TO_BE_KILLED: &str = "SQUALL_TEST_TO_BE_KILLED";
/// Rows that take their time: a tenth of a second each.
const SLOWLY: &str = "SELECT id, reflect('java.lang.Thread', 'sleep', 100L) AS slept FROM range(0, 200, 1, 2)";

#[test]
fn a_conversion_that_is_killed_or_dropped_leaves_nothing_visible() {
    if let Ok(wanted) = std::env::var(TO_BE_KILLED) {
        let (remote, destination) = wanted.split_once(' ').expect("a server and a place");
        let spark = run(connect(remote)).expect("a session");
        let _ = convert(&spark.sql(SLOWLY).expect("rows"), Converter::new(destination));
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let destination = directory.path().join("table");
    let wait = || {
        let began = Instant::now();
        // Spark has begun when its own directory is there.
        while !has_begun(directory.path()) {
            assert!(began.elapsed() < Duration::from_secs(60), "Spark does not begin");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let name = "with_spark_connect::a_conversion_that_is_killed_or_dropped_leaves_nothing_visible";
    let mut child = Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", name])
        .env(TO_BE_KILLED, format!("{} {}", server().url(), destination.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    wait();
    child.kill().expect("a process");
    child.wait().expect("a process");
    assert!(!destination.exists());
    assert!(make_reader(destination.display().to_string()).build().is_err());

    // The next one to the same place cleans up, and is dropped.
    let spark = session();
    let slow = spark.sql(SLOWLY).expect("rows");
    run(async {
        let conversion = Converter::new(destination.display().to_string()).convert_spark(&slow);
        let mut conversion = Box::pin(conversion);
        let began = Instant::now();
        loop {
            let part = tokio::time::timeout(Duration::from_millis(50), &mut conversion).await;
            assert!(part.is_err() && began.elapsed() < Duration::from_secs(60), "{part:?}");
            let staged = std::fs::read_dir(directory.path()).expect("a directory").flatten();
            if staged.filter(|entry| entry.path().join("_temporary").is_dir()).count() > 0
                && began.elapsed() > Duration::from_millis(500)
            {
                break;
            }
        }
    });
    assert!(!destination.exists());

    let quick = spark.sql("SELECT id FROM range(5)").expect("rows");
    let converted = convert(&quick, Converter::new(destination.display().to_string())).expect("a conversion");
    assert_eq!(converted.rows(), 5);
}

fn has_begun(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    entries
        .map(|entry| entry.path().join("_temporary"))
        .any(|path| path.is_dir())
}

/// The jar of Spark Connect for Spark 3.5 is not among those of pyspark, and comes from Maven: `SQUALL_SPARK35_CONNECT_JAR` says where it
/// is. `cargo xtask test` tells where it is not there.
#[test]
fn a_server_of_spark_3_5_writes_too() {
    let (Some(python), Some(jar)) = (
        std::env::var_os("SQUALL_PETASTORM_PYTHON"),
        std::env::var_os("SQUALL_SPARK35_CONNECT_JAR"),
    ) else {
        println!("NOT RUN: a server of Spark 3.5: SQUALL_SPARK35_CONNECT_JAR does not name its jar");
        return;
    };
    let server = Server::start(&spark_home(Path::new(&python)), Some(Path::new(&jar)));
    let spark = run(connect(&server.url())).expect("a session");
    let rows = spark.sql(EVERY_TYPE).expect("rows");
    let directory = tempfile::tempdir().expect("a directory");
    let destination = directory.path().join("table").display().to_string();
    let converter = Converter::new(&destination).floats(FloatPrecision::Keep);
    assert_same(&convert(&rows, converter).expect("a conversion"), &rows);
}
