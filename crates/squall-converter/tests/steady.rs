//! What is written the same each time, on all cores.

use squall_converter::{Compression, Converted, Converter, convert_directory, session};
use squall_dataset::{Dataset, DatasetUrl};

use crate::order::column;
use crate::{Destination, run};

const ROWS: i64 = 30_000;
const RUNS: usize = 3;

/// A dataset of several files with a number and a key that comes again.
fn source() -> (Destination, Converted) {
    let destination = Destination::new();
    let sql = format!(
        "SELECT value AS id, value * 7919 % 4001 AS k FROM generate_series(0, {})",
        ROWS - 1
    );
    let converted = run(async {
        let rows = session().sql(&sql).await.expect("a query");
        Converter::new(destination.url())
            .file_bytes(24 << 10)
            .convert(rows)
            .await
    });
    let converted = converted.expect("a dataset");
    assert!(converted.files().len() >= 8, "{} files", converted.files().len());
    (destination, converted)
}

fn convert(source: &Converted, sql: &str, with: impl Fn(Converter) -> Converter) -> (Destination, Converted) {
    let destination = Destination::new();
    let converter = with(Converter::new(destination.url()));
    let converted = run(convert_directory(&source.url(), converter, Some(sql)));
    (destination, converted.expect("a dataset"))
}

#[test]
fn groups_and_joins_are_in_the_same_order_each_time() {
    let (_kept, source) = source();
    let grouped = "SELECT k, count(*) AS n, sum(id) AS total, make_array(k, min(id)) AS m FROM source GROUP BY k";
    let joined = "SELECT a.id, a.k % 7 AS k, b.n FROM source a \
                  JOIN (SELECT k, count(*) AS n FROM source GROUP BY k) b ON a.k = b.k";
    type With = fn(Converter) -> Converter;
    let orders: [With; 4] = [
        |converter| converter,
        |converter| converter.shuffle(3),
        |converter| converter.sort_by(["n"]),
        |converter| converter.partition_by(["k"]).row_group_bytes(1 << 20),
    ];
    // Who has no partner comes from the partition that ends last; ties of a window come in the order of threads.
    let outer = "SELECT s.id AS k, a.id FROM (VALUES (1), (2), (-1), (-2)) AS s(id) LEFT JOIN source a ON a.k = s.id";
    let alone = "SELECT column1 AS k FROM (VALUES (1), (-1), (-2)) \
                 WHERE NOT EXISTS (SELECT 1 FROM source a WHERE a.k = column1)";
    let windowed = "SELECT k, id, row_number() OVER (PARTITION BY k % 9 ORDER BY k % 5, id) AS n FROM source";
    let partners = |k: i64| (0..ROWS).filter(|id| id * 7919 % 4001 == k).count() as u64;
    for (sql, rows, orders) in [
        (grouped, 4001, &orders[..3]),
        (joined, ROWS as u64, &orders[..]),
        (outer, partners(1) + partners(2) + 2, &orders[..2]),
        (alone, 2, &orders[..2]),
        (windowed, ROWS as u64, &orders[..2]),
    ] {
        for (i, order) in orders.iter().enumerate() {
            let (_first, first) = convert(&source, sql, order);
            assert_eq!(first.rows(), rows);
            for _ in 1..RUNS {
                let (_again, again) = convert(&source, sql, order);
                assert_eq!(again.fingerprint(), first.fingerprint(), "order {i} of {sql}");
            }
        }
    }
    // The seed decides still.
    let (_one, one) = convert(&source, grouped, |converter| converter.shuffle(1));
    let (_two, two) = convert(&source, grouped, |converter| converter.shuffle(2));
    assert_ne!(column(&one, "k"), column(&two, "k"));
}

#[test]
fn a_query_that_sorts_keeps_its_order() {
    let (_kept, source) = source();
    let sql = "SELECT k, sum(id) AS total FROM source GROUP BY k ORDER BY k DESC";
    let (_sorted, sorted) = convert(&source, sql, |converter| converter);
    assert!(column(&sorted, "k").into_iter().eq((0..4001).rev()));
}

#[test]
fn one_large_file_is_read_in_parts_and_stays_in_order() {
    let large = Destination::new();
    let rows = 1_500_000;
    let sql = format!(
        "SELECT value AS id, value * 2654435761 % 1000003 AS x FROM generate_series(0, {})",
        rows - 1
    );
    let converted = run(async {
        let rows = session().sql(&sql).await.expect("a query");
        let converter = Converter::new(large.url()).compression(Compression::None);
        converter
            .row_group_bytes(1 << 20)
            .dictionary("id", false)
            .convert(rows)
            .await
    });
    let one = converted.expect("a dataset");
    assert_eq!(one.files().len(), 1);
    let destination = Destination::new();
    let again = run(convert_directory(&one.url(), Converter::new(destination.url()), None)).expect("a dataset");
    assert!(
        again.files().len() > 1,
        "{} bytes were read by one",
        one.files()[0].size
    );
    assert!(column(&again, "id").into_iter().eq(0..rows));
    // Partitions are the user's to choose.
    let destination = Destination::new();
    let converter = Converter::new(destination.url()).partitions(std::num::NonZeroUsize::MIN);
    let single = run(convert_directory(&one.url(), converter, None)).expect("a dataset");
    assert_eq!(single.files().len(), 1);
    let dataset = run(Dataset::open(&DatasetUrl::parse(&single.url()).expect("a URL"))).expect("a dataset");
    assert_eq!(dataset.rows(), rows as u64);
}
