//! Compression, bloom filters, dictionaries, statistics and directories, as the files have them.

use std::fs::File;
use std::path::Path;

use datafusion::parquet::basic::Compression as Stored;
use datafusion::parquet::file::properties::ReaderProperties;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use datafusion::parquet::file::serialized_reader::ReadOptionsBuilder;
use squall_converter::{
    BloomFilter, Compression, Converted, Converter, Petastorm, Statistics, convert_directory, session,
};
use squall_dataset::{Dataset, DatasetUrl, TimeZone, listing, partition};
use squall_schema::{ErrorKind, Result, Value};
use squall_testkit::{Layout, Table};

use crate::{Destination, open, run};

const ROWS: usize = 2000;

/// Rows of a number, a text of few values, one of many, and an array.
fn sql() -> String {
    format!(
        "SELECT value AS id, concat('c', value % 7) AS city, concat('x', value * 7919 % 104729) AS h, \
         make_array(value, value + 1) AS v FROM generate_series(1, {ROWS})"
    )
}

fn convert(sql: &str, converter: Converter) -> Result<Converted> {
    run(async { converter.convert(session().sql(sql).await.expect("a query")).await })
}

fn footers(converted: &Converted) -> Vec<SerializedFileReader<File>> {
    let directory = converted.url();
    let directory = directory.trim_start_matches("file://");
    let files = converted.files().iter();
    let open = |path: &str| SerializedFileReader::new(File::open(Path::new(directory).join(path)).expect("a file"));
    files.map(|file| open(&file.path).expect("a Parquet file")).collect()
}

#[test]
fn every_compression_is_written() {
    for (compression, stored) in [
        (Compression::Zstd, "ZSTD"),
        (Compression::Snappy, "SNAPPY"),
        (Compression::Lz4, "LZ4_RAW"),
        (Compression::Gzip, "GZIP"),
        (Compression::None, "UNCOMPRESSED"),
    ] {
        let destination = Destination::new();
        let converted = convert(&sql(), Converter::new(destination.url()).compression(compression)).expect("a dataset");
        let found = footers(&converted)[0].metadata().row_group(0).column(0).compression();
        assert!(format!("{found:?}").starts_with(stored), "{found:?}");
    }
}

#[test]
fn columns_are_written_as_asked() {
    let destination = Destination::new();
    let converter = Converter::new(destination.url())
        .bloom_filter("h", BloomFilter::default().fpp(0.001).ndv(ROWS as u64))
        .dictionary("city", false)
        .statistics(Statistics::RowGroups);
    let converted = convert(&sql(), converter).expect("a dataset");
    let file = &footers(&converted)[0];
    let row_group = file.metadata().row_group(0);
    let column = |name: &str| {
        let found = row_group.columns().iter();
        found
            .clone()
            .find(|column| column.column_path().parts()[0] == name)
            .expect("a column")
    };
    assert!(column("h").bloom_filter_offset().is_some() && column("id").bloom_filter_offset().is_none());
    assert!(column("city").dictionary_page_offset().is_none() && column("id").dictionary_page_offset().is_some());
    assert!(column("id").statistics().is_some() && column("id").column_index_offset().is_none());
    // Pages are found whatever the statistics.
    assert!(
        row_group
            .columns()
            .iter()
            .all(|column| column.offset_index_offset().is_some())
    );
    let place = row_group
        .columns()
        .iter()
        .position(|column| column.column_path().parts()[0] == "h");
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(properties).build();
    let path = Path::new(converted.url().trim_start_matches("file://")).join(&converted.files()[0].path);
    let file =
        SerializedFileReader::new_with_options(File::open(path).expect("a file"), options).expect("a Parquet file");
    let reader = file.get_row_group(0).expect("a row group");
    let filter = reader
        .get_column_bloom_filter(place.expect("a column"))
        .expect("a bloom filter");
    assert!(filter.check(&"x7919"), "a value that is there");
    let passed = (0..1000)
        .filter(|i| filter.check(&format!("absent {i}").as_str()))
        .count();
    assert!(passed < 20, "{passed} of 1000 that are not there");
}

#[test]
fn cells_that_are_compressed_are_stored_as_they_are() {
    let table = Table::write(&Layout::default());
    let destination = Destination::new();
    let converter = Converter::new(destination.url()).petastorm(Petastorm::new("T"));
    let converted = run(convert_directory(&table.url(), converter, None)).expect("a dataset");
    let file = &footers(&converted)[0];
    for column in file.metadata().row_group(0).columns() {
        let is_cells = column.column_path().parts()[0] == "x";
        assert_eq!(
            column.dictionary_page_offset().is_none(),
            is_cells,
            "{}",
            column.column_path()
        );
        assert!(matches!(column.compression(), Stored::ZSTD(_)));
    }
}

#[test]
fn unknown_columns_are_refused_before_the_query_runs() {
    let check = |converter: Converter, part: &str| {
        // It would fail when it ran.
        let sql = "SELECT value AS id, 1 / (value - 1) AS city, make_array(value) AS v FROM generate_series(1, 9)";
        let error = convert(sql, converter).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let new = || Converter::new("memory://never/there");
    check(new().bloom_filter("nope", BloomFilter::default()), "id");
    check(new().bloom_filter("nope", BloomFilter::default()), "city");
    check(new().dictionary("nope", true), "nope");
    check(new().partition_by(["nope"]), "city");
    check(new().sort_by(["nope"]), "city");
    check(new().sort_by(["v"]), "holds arrays");
    check(new().bloom_filter("v", BloomFilter::default()), "holds arrays");
    check(
        new().bloom_filter("id", BloomFilter::default().fpp(1.0)),
        "between 0 and 1",
    );
    check(new().partition_by(["id", "id"]), "twice");
    let all = convert("SELECT 1 AS id, 2 AS k", new().partition_by(["id", "k"])).expect_err("refused");
    assert!(all.to_string().contains("all columns"), "{all}");
    check(new().sort_by(["id"]).shuffle(1), "not both");
    check(
        new().partition_by(["id"]).bloom_filter("id", BloomFilter::default()),
        "directory names",
    );
}

#[test]
fn partitions_become_directories_and_are_read_back() {
    let sql = "SELECT value AS id, CASE value % 4 WHEN 0 THEN NULL WHEN 1 THEN 'a/b=ü' WHEN 2 THEN '7' ELSE 'x y' END AS city, \
               CAST(value % 3 AS SMALLINT) AS k, DATE '2024-01-31' AS day FROM generate_series(1, 1000)";
    let destination = Destination::new();
    let converter = Converter::new(destination.url()).partition_by(["city", "k"]);
    let converted = convert(sql, converter).expect("a dataset");
    assert_eq!((converted.rows(), converted.files().len()), (1000, 12));
    let names: Vec<_> = converted.files().iter().map(|file| file.path.as_str()).collect();
    assert!(
        names.iter().any(|name| name.starts_with("city=a%2Fb%3Dü/k=2/part-")),
        "{names:?}"
    );
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("city=__HIVE_DEFAULT_PARTITION__/k=0/")),
        "{names:?}"
    );
    for file in footers(&converted) {
        let columns = file.metadata().file_metadata().schema_descr();
        let columns: Vec<_> = columns
            .columns()
            .iter()
            .map(|column| column.name().to_owned())
            .collect();
        assert_eq!(columns, ["id", "day"]);
    }
    let dataset = open(&converted.url()).expect("a dataset");
    assert_eq!(
        dataset.schema().to_string(),
        "id: int64\ncity: str nullable\nk: int16\nday: datetime64[D]"
    );
    assert_eq!(dataset.partition_fields().len(), 2);
    // What the metadata says of the files is what their names say.
    for (file, entry) in dataset.files().iter().zip(converted.files()) {
        let named = partition::parse(file.path.as_ref());
        assert_eq!(named, entry.partition);
        for (field, value) in dataset.partition_fields().iter().zip(&file.partition) {
            let text = named[&field.name].as_deref();
            assert_eq!(
                partition::value(text, field, TimeZone::default()).expect("a value"),
                *value
            );
        }
    }
    assert!(
        dataset
            .files()
            .iter()
            .any(|file| file.partition == [Value::Null, Value::Int(0)])
    );
    let listed = run(async {
        let dataset = Dataset::open(&DatasetUrl::parse(&converted.url())?).await?;
        listing::data_files(dataset.store()).await
    });
    assert_eq!(listed.expect("a listing").len(), 12);
}

#[test]
fn values_that_no_directory_holds_are_refused() {
    let check = |value: &str, part: &str| {
        let sql = format!("SELECT value AS id, {value} AS p FROM generate_series(1, 9)");
        let destination = Destination::new();
        let error = convert(&sql, Converter::new(destination.url()).partition_by(["p"])).expect_err("refused");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(destination.entries(), [""; 0]);
    };
    check("''", "replace it in SQL (column p");
    check("'__HIVE_DEFAULT_PARTITION__'", "replace it in SQL");
    check("repeat('x', 300)", "300 bytes");
    check("CAST('x' AS BYTEA)", "directory names do not hold p");
}
