//! Sources that Spark reads for itself, as views of a session.

use std::path::PathBuf;

use spark_connect::{DataFrame, SparkSession};
use squall_dataset::{DatasetUrl, Store};
use squall_schema::spark::{StructType, TensorLayout};
use squall_schema::{Error, ErrorKind, Result};

use super::columns::quoted;
use super::convert_told;
use super::error::spark_error;
use super::session::{blocking, connect};
use super::write::place;
use crate::converted::Converted;
use crate::converter::Converter;
use crate::format::SourceFormat;
use crate::records::TextOptions;

/// What a query that gives rows begins with. Spark would run others, `DROP TABLE` too.
const QUERIES: [&str; 6] = ["select", "with", "from", "values", "table", "("];

/// Converts sources that the Spark server at `remote` reads, each of them a temporary view of the name beside its URL: what `sql`
/// selects, or the only one whole. They are Parquet, CSV, JSON, or Avro where the server has Spark's package for it, at paths that the
/// server sees; what they are is looked up here where this process sees them too, and told by names otherwise.
///
/// # Cancel safety
///
/// As [`Converter::convert_spark`].
pub async fn convert_spark_sources(
    remote: &str,
    sources: &[(&str, &str)],
    converter: Converter,
    sql: Option<&str>,
) -> Result<Converted> {
    let sql = match (sql, sources) {
        (Some(sql), _) => checked(sql)?.to_owned(),
        (None, [(name, _)]) => format!("SELECT * FROM {}", quoted(name)),
        (None, _) => {
            return Err(Error::invalid(
                "several sources need SQL that says what is taken from each",
            ));
        }
    };
    let session = connect(remote).await?;
    let mut told = format!("{sql:?}");
    for (i, (name, source)) in sources.iter().enumerate() {
        if sources[..i].iter().any(|(other, _)| other == name) {
            return Err(Error::invalid(format!("two sources have the name {name:?}")));
        }
        let url = DatasetUrl::parse(source)?;
        let destination = converter.url()?;
        let resolved = |path: PathBuf| path.canonicalize().unwrap_or(path);
        if let (Some(from), Some(to)) = (url.to_file_path().map(resolved), destination.to_file_path())
            && to.starts_with(from)
        {
            return Err(Error::invalid("the destination lies inside the source").at("URL", &destination));
        }
        let format = format(&url, &converter).await?;
        told.push_str(&format!(
            " {name:?} {:?} {format:?} {:?}",
            url.to_string(),
            converter.text
        ));
        let rows = read(&session, &place(&url)?, format, &converter.text)?;
        let name = (*name).to_owned();
        let registered = blocking(move || rows.create_or_replace_temp_view(&name).map_err(spark_error)).await;
        registered.map_err(|error| error.at("URL", &url))?;
    }
    let rows = session.sql(&sql).map_err(spark_error)?;
    convert_told(converter, &rows, Some(told)).await
}

/// A query that gives rows, and nothing else.
fn checked(sql: &str) -> Result<&str> {
    let mut start = sql.trim_start();
    while let Some(comment) = start.strip_prefix("--") {
        start = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    let lower = start.to_lowercase();
    let is_query = |word: &str| {
        let rest = lower.strip_prefix(word);
        rest.is_some_and(|rest| word == "(" || !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    match QUERIES.iter().any(|word| is_query(word)) {
        true => Ok(sql),
        false => Err(Error::invalid(
            "expected a query that gives rows to convert, such as SELECT",
        )),
    }
}

async fn format(url: &DatasetUrl, converter: &Converter) -> Result<SourceFormat> {
    if let Some(format) = converter.source_format {
        return Ok(format);
    }
    let seen = match Store::open_with(url, &converter.source.store).await {
        Ok(store) => SourceFormat::detect(&store).await,
        Err(error) => Err(error),
    };
    match seen {
        // The server may see what this process does not; it says what is wrong otherwise.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Storage) => {
            let text = url.to_string();
            Ok(SourceFormat::of_name(&text.as_str().into()).unwrap_or(SourceFormat::Parquet))
        }
        seen => seen,
    }
}

fn read(session: &SparkSession, path: &str, format: SourceFormat, text: &TextOptions) -> Result<DataFrame> {
    text.check()?;
    let mut reader = session.read();
    let name = match format {
        SourceFormat::Parquet => "parquet",
        SourceFormat::Csv => "csv",
        SourceFormat::Json => "json",
        SourceFormat::Avro => "avro",
        SourceFormat::Delta => "delta",
    };
    if let SourceFormat::Csv | SourceFormat::Json = format {
        // A record that does not fit ends the conversion.
        reader = reader.option("mode", "FAILFAST");
        if text.infer_rows.is_some() {
            return Err(Error::unsupported(
                "Spark infers the columns of text from all rows, or takes a schema",
            ));
        }
        if let Some(schema) = &text.schema {
            reader = reader.schema(StructType::of_schema(schema, TensorLayout::Flat)?.to_json());
        }
    }
    if format == SourceFormat::Csv {
        let tab = path.to_ascii_lowercase().contains(".tsv");
        let delimiter = text.delimiter.unwrap_or(if tab { b'\t' } else { b',' });
        let one = |byte: u8| char::from(byte).to_string();
        reader = reader
            .option("sep", &one(delimiter))
            .option("header", if text.header { "true" } else { "false" })
            .option("quote", &one(text.quote))
            // A quote is doubled if nothing else is said; Spark's own choice is a backslash.
            .option("escape", &one(text.escape.unwrap_or(text.quote)))
            .option("multiLine", "true")
            .option("nullValue", text.null.as_deref().unwrap_or_default());
        if text.schema.is_none() {
            reader = reader.option("inferSchema", "true");
        }
    }
    Ok(reader.format(name).load(Some(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_queries_are_run() {
        for sql in [
            "SELECT 1",
            " -- all\nwith a as (select 1) select * from a",
            "(SELECT 1)",
            "from source",
        ] {
            assert!(checked(sql).is_ok(), "{sql}");
        }
        for sql in ["DROP TABLE x", "INSERT INTO x SELECT 1", "selected", "", "-- SELECT"] {
            assert!(checked(sql).is_err(), "{sql}");
        }
    }
}
