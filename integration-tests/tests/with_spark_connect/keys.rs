//! What a cached conversion on Spark is known by: the files of subqueries too.

use squall::convert::spark::convert_spark_sources;
use squall::convert::{Converted, Converter};

use super::server::server;
use super::{convert, rows, run, session};

#[test]
fn a_file_that_only_a_subquery_reads_makes_another_dataset() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let (source, bound) = (place("source"), place("bound"));
    let write = |sql: &str, to: &str| {
        let rows = session().sql(sql).expect("rows");
        rows.write().mode("overwrite").parquet(to).expect("a source");
    };
    write("SELECT id FROM range(10)", &source);
    write("SELECT 3L AS most", &bound);
    let cached = || Converter::new(place("cache")).cached();
    let n_rows = |converted: &Converted| rows(converted).len();

    // By the views of the command.
    let url = server().url();
    let of_sources = |sql: &str| {
        let sources = [("source", &source[..]), ("bound", &bound[..])];
        run(convert_spark_sources(&url, &sources, cached(), Some(sql)))
    };
    let sql = "SELECT id, (SELECT max(most) FROM bound) AS most FROM source WHERE id < (SELECT max(most) FROM bound)";
    // And what WITH defines.
    let with = "WITH b AS (SELECT most FROM bound) SELECT id FROM source WHERE id < (SELECT max(most) FROM b)";
    for sql in [sql, with] {
        let first = of_sources(sql).expect("a conversion");
        assert!(!first.is_hit() && n_rows(&first) == 3, "{sql}");
        assert!(of_sources(sql).expect("a conversion").is_hit(), "{sql}");
    }
    // By views of a session of the caller's.
    let of_session = || {
        let spark = session();
        let view = |name: &str, path: &str| {
            let rows = spark.read().parquet(path);
            rows.create_or_replace_temp_view(name).expect("a view");
        };
        view("source", &source);
        view("bound", &bound);
        convert(&spark.sql(sql).expect("rows"), cached())
    };
    assert!(!of_session().expect("a conversion").is_hit());
    assert!(of_session().expect("a conversion").is_hit());

    write("SELECT 5L AS most", &bound);
    for sql in [sql, with] {
        let changed = of_sources(sql).expect("a conversion");
        assert!(!changed.is_hit() && n_rows(&changed) == 5, "{sql}");
    }
    let changed = of_session().expect("a conversion");
    assert!(!changed.is_hit() && n_rows(&changed) == 5);

    // No view is in between: refused, but by a name.
    let path = format!("SELECT id FROM parquet.`{source}` WHERE id < (SELECT max(most) FROM parquet.`{bound}`)");
    let error = convert(&session().sql(&path).expect("rows"), cached())
        .expect_err("an error")
        .to_string();
    assert!(
        error.contains("a subquery reads files") && error.contains("cache_key"),
        "{error}"
    );
    let named = Converter::new(place("cache")).cache_key("mine");
    assert_eq!(
        n_rows(&convert(&session().sql(&path).expect("rows"), named).expect("a conversion")),
        5
    );
    // Spark makes a join of this one.
    let joined = format!("SELECT id FROM parquet.`{source}` WHERE id IN (SELECT most FROM parquet.`{bound}`)");
    assert_eq!(
        n_rows(&convert(&session().sql(&joined).expect("rows"), cached()).expect("a conversion")),
        1
    );
    write("SELECT explode(array(6L, 7L)) AS most", &bound);
    assert_eq!(
        n_rows(&convert(&session().sql(&joined).expect("rows"), cached()).expect("a conversion")),
        2
    );
}
