//! Part of a dataset as another one, its cells passed on as they are.

use datafusion::common::DFSchema;
use squall_dataset::{Dataset, DatasetUrl, unischema_name};
use squall_schema::petastorm::index::Entries;
use squall_schema::{Error, Result};

use crate::converted::Converted;
use crate::converter::Converter;
use crate::directory::{convert_directory, session};
use crate::error::query_error;
use crate::petastorm::Petastorm;
use crate::rules::FloatPrecision;
use crate::source::SourceTable;

/// What of a dataset is copied: all of it, if nothing is said.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct CopyOptions {
    columns: Vec<String>,
    patterns: Vec<String>,
    not_null: Vec<String>,
    filter: Option<String>,
    n_files: Option<u64>,
}

impl CopyOptions {
    /// All of it.
    pub fn new() -> Self {
        Self::default()
    }

    /// These columns, in this order.
    pub fn columns<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.columns = names.into_iter().map(Into::into).collect();
        self
    }

    /// The columns whose whole names match one of these regular expressions, in the order of the dataset.
    pub fn columns_matching<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.patterns = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Only rows in which none of these columns is null.
    pub fn not_null<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.not_null = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Only rows of which this expression in DataFusion's SQL is true. It may name columns that are not copied.
    pub fn filter(mut self, sql: impl Into<String>) -> Self {
        self.filter = Some(sql.into());
        self
    }

    /// About so many files, by the bytes of the source; by bytes alone if not given.
    pub fn n_files(mut self, n: u64) -> Self {
        self.n_files = Some(n);
        self
    }

    /// The names of the columns that are copied; none for all.
    fn names(&self, dataset: &Dataset) -> Result<Option<Vec<String>>> {
        let schema = dataset.schema();
        if !self.columns.is_empty() && !self.patterns.is_empty() {
            return Err(Error::invalid(
                "expected names of columns or regular expressions, found both",
            ));
        }
        if !self.patterns.is_empty() {
            let found = schema.matching(&self.patterns)?;
            return Ok(Some(found.names().map(str::to_owned).collect()));
        }
        for name in &self.columns {
            schema.get(name).ok_or_else(|| schema.unknown(name))?;
        }
        Ok((!self.columns.is_empty()).then(|| self.columns.clone()))
    }

    /// The rows and columns that are asked for; `None` for all of them.
    fn sql(&self, table: &SourceTable, names: Option<&[String]>) -> Result<Option<String>> {
        let schema = table.dataset().schema();
        let mut conditions = Vec::new();
        for name in &self.not_null {
            schema.get(name).ok_or_else(|| schema.unknown(name))?;
            conditions.push(format!("{} IS NOT NULL", quoted(name)));
        }
        if let Some(filter) = &self.filter {
            let columns = datafusion::catalog::TableProvider::schema(table);
            let columns = DFSchema::try_from_qualified_schema("source", &columns).map_err(query_error)?;
            // One expression and nothing behind it: the query below is made of its text.
            session().parse_sql_expr(filter, &columns).map_err(query_error)?;
            conditions.push(format!("(\n{filter}\n)"));
        }
        if names.is_none() && conditions.is_empty() {
            return Ok(None);
        }
        let all: Vec<String> = schema.names().map(str::to_owned).collect();
        let names: Vec<_> = names.unwrap_or(&all).iter().map(|name| quoted(name)).collect();
        let rows = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        Ok(Some(format!("SELECT {} FROM source{rows}", names.join(", "))))
    }
}

/// Copies the dataset at `source`, or the part of it that `copy` says, to where the converter writes.
///
/// Cells are passed on as they are. Where the source is Petastorm's, or was written for it, the copy is too, with a Unischema of
/// the fields that it has and the row-group indexes of the source made anew; of a part of the fields its name ends in `_view`, as
/// Petastorm names it. Partition columns become ordinary ones.
///
/// # Cancel safety
///
/// As [`Converter::convert`].
pub async fn copy_dataset(source: &str, mut converter: Converter, copy: &CopyOptions) -> Result<Converted> {
    let url = DatasetUrl::parse(source)?;
    let table = SourceTable::open_with(&url, &converter.source).await?;
    let dataset = table.dataset();
    let at = |error: Error| error.at("URL", &url);
    let names = copy.names(dataset).map_err(at)?;
    let sql = copy.sql(&table, names.as_deref()).map_err(at)?;
    if converter.layout.petastorm.is_none()
        && let Some(name) = unischema_name(dataset.store()).await?
    {
        let is_copied = |column: &str| match &names {
            Some(names) => names.iter().any(|name| name == column),
            None => dataset.schema().get(column).is_some(),
        };
        let mut petastorm = Petastorm::new(match names {
            Some(_) if !name.ends_with("_view") => format!("{name}_view"),
            _ => name,
        });
        // Indexes that are stale or damaged tell of no row group; the copy has none then.
        for index in dataset.row_group_indexes().unwrap_or_default() {
            petastorm = match &index.entries {
                Entries::Values(_) if is_copied(&index.column) => petastorm.index(index.name, index.column),
                Entries::NotNull(_) if is_copied(&index.column) => petastorm.not_null_index(index.name, index.column),
                _ => petastorm,
            };
        }
        converter = converter.petastorm(petastorm);
    }
    if let Some(n) = copy.n_files {
        if n == 0 {
            return Err(Error::invalid("expected at least one file, found 0"));
        }
        let bytes: u64 = dataset.pieces().iter().map(|piece| piece.compressed_bytes).sum();
        converter = converter.file_bytes((bytes / n).max(1));
    }
    // A copy has the values of its source.
    converter = converter.floats(FloatPrecision::Keep);
    convert_directory(source, converter, sql.as_deref()).await
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
