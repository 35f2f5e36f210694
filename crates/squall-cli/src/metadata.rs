//! `squall metadata generate` and `squall metadata show`

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use squall::convert::{GenerateOptions, generate_metadata};
use squall::petastorm::{Entries, RowGroupIndex};
use squall::{Dataset, DatasetUrl, Error, ErrorKind, OpenOptions, Schema, StoreOptions, key_values};

use crate::json::{self, Arrays};
use crate::options::Storage;
use crate::{Failure, Format};

/// Writes the metadata of a directory of Parquet files, or prints what a dataset's metadata hold.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall metadata generate /data/events --petastorm=Events\n  squall metadata show /data/events --index"
)]
pub(crate) struct Metadata {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(Generate),
    Show(Show),
}

impl Metadata {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Generate(command) => command.run(),
            Command::Show(command) => command.run(),
        }
    }
}

/// Writes _common_metadata for Parquet files that Spark, pandas or others wrote.
///
/// No data file is touched. The schema is the one that is given, or that of metadata which are there, Squall's or Petastorm's, or
/// that of the files. Where Petastorm's metadata are there, they are written anew too; keys of others are kept.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall metadata generate /data/events --petastorm=Events\n  squall metadata generate s3://bucket/events --schema schema.json --overwrite --checksums"
)]
struct Generate {
    /// The directory: a path or a URL
    url: String,
    /// A file with the schema in JSON, as `squall inspect --format json` prints it under "schema"
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Write Petastorm's metadata too: a Unischema of this name, the row-group map [default: as it is there]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "Schema")]
    petastorm: Option<String>,
    /// Replace metadata that are there
    #[arg(long)]
    overwrite: bool,
    /// Read all files for their checksums, by which `squall verify` finds any flipped bit
    #[arg(long)]
    checksums: bool,
    /// Petastorm's flag for a summary of all footers, which nothing needs any more
    #[arg(long, hide = true)]
    use_summary_metadata: bool,
    #[command(flatten)]
    storage: Storage,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Generate {
    fn run(self) -> Result<(), Failure> {
        if self.use_summary_metadata {
            let message =
                "--use-summary-metadata is obsolete: Squall's metadata and the row-group map tell of all row groups";
            return Err(Error::invalid(message).into());
        }
        let mut options = GenerateOptions::new().store(StoreOptions::default().with_options(self.storage.pairs()?));
        if let Some(file) = &self.schema {
            options = options.schema(read_schema(file)?);
        }
        if let Some(name) = &self.petastorm {
            options = options.petastorm(name);
        }
        if self.overwrite {
            options = options.overwrite();
        }
        if self.checksums {
            options = options.checksums();
        }
        let made = wait(generate_metadata(&self.url, &options))?;
        let (rows, row_groups) = made
            .metadata
            .files
            .iter()
            .flat_map(|file| &file.row_groups)
            .fold((0, 0), |sum, own| (sum.0 + own.rows, sum.1 + 1));
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => {
                let facts = json!({
                    "url": self.url,
                    "rows": rows,
                    "files": made.metadata.files.len(),
                    "row_groups": row_groups,
                    "fingerprint": made.metadata.fingerprint,
                    "petastorm": made.petastorm,
                    "schema": made.metadata.schema,
                    "notes": made.notes,
                });
                writeln!(out, "{facts}")?;
            }
            Format::Text => {
                writeln!(
                    out,
                    "{}: {rows} rows in {} files and {row_groups} row groups",
                    self.url,
                    made.metadata.files.len()
                )?;
                if let Some(name) = &made.petastorm {
                    writeln!(out, "Petastorm's Unischema {name}")?;
                }
                writeln!(out, "{}", made.metadata.schema)?;
                for note in &made.notes {
                    writeln!(out, "note: {note}")?;
                }
            }
        }
        Ok(())
    }
}

fn read_schema(file: &PathBuf) -> Result<Schema, Error> {
    let at = |error: Error| error.at("file", file.display());
    let text = fs::read(file)
        .map_err(|error| at(Error::new(ErrorKind::NotFound, "cannot read the schema").with_source(error)))?;
    serde_json::from_slice(&text).map_err(|error| at(Error::invalid("expected a schema in JSON").with_source(error)))
}

/// Prints schema, row-group indexes, files and keys of a dataset's metadata.
///
/// Pickles are shown as the data that they are made of; nothing in them is executed.
#[derive(Args)]
#[command(after_help = "Example:\n  squall metadata show /data/train --index --format json")]
struct Show {
    /// The dataset: a path or a URL
    url: String,
    /// Print the schema alone
    #[arg(long)]
    schema: bool,
    /// Print the row-group indexes alone, each value with its number of row groups
    #[arg(long)]
    index: bool,
    /// With --index: print which row groups these are
    #[arg(long, requires = "index")]
    print_values: bool,
    /// With --index: leave out the values of these indexes
    #[arg(long, value_name = "NAMES", num_args = 1.., value_delimiter = ',', requires = "index")]
    skip_index: Vec<String>,
    #[command(flatten)]
    storage: Storage,
    /// How it is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let url = DatasetUrl::parse(&self.url)?;
        let store = StoreOptions::default().with_options(self.storage.pairs()?);
        let options = OpenOptions::default().with_store(store);
        let (dataset, pairs) = wait(async {
            let dataset = Dataset::open_with(&url, &options).await?;
            let pairs = key_values(dataset.store()).await?;
            Ok((dataset, pairs))
        })?;
        let all = !self.schema && !self.index;
        // Those that cannot be told are a fact, unless they were asked for.
        let (indexes, refused) = match dataset.row_group_indexes() {
            Ok(indexes) => (indexes, None),
            Err(error) if self.index => return Err(error.into()),
            Err(error) => (Vec::new(), Some(error.without_place("URL").to_string())),
        };
        let mut out = std::io::stdout().lock();
        if self.format == Format::Json {
            let mut facts = json!({ "url": url.to_string() });
            if all || self.schema {
                facts["schema"] = json!(dataset.schema());
            }
            if all || self.index {
                facts["row_group_indexes"] = indexes.iter().map(|index| self.index_json(index)).collect();
            }
            if all {
                facts["files"] = dataset.files().iter().zip(0..).map(|(file, place)| {
                    json!({"path": file.path.to_string(), "bytes": file.size, "row_groups": dataset.n_row_groups(place)})
                }).collect();
                facts["keys"] = pairs.iter().map(|(key, value)| {
                    json!({"key": String::from_utf8_lossy(key), "bytes": value.len(), "what": what(value)})
                }).collect();
                facts["notes"] = dataset.notes().iter().chain(&refused).cloned().collect();
            }
            writeln!(out, "{facts}")?;
            return Ok(());
        }
        if all || self.schema {
            writeln!(out, "schema")?;
            for field in dataset.schema().fields() {
                writeln!(out, "  {field}")?;
            }
        }
        if all || self.index {
            writeln!(out, "row-group indexes")?;
            for index in &indexes {
                self.print_index(&mut out, index)?;
            }
        }
        if all {
            writeln!(out, "files")?;
            for (file, place) in dataset.files().iter().zip(0..) {
                let row_groups = dataset.n_row_groups(place);
                writeln!(out, "  {} ({} bytes, {row_groups} row groups)", file.path, file.size)?;
            }
            writeln!(out, "keys")?;
            for (key, value) in &pairs {
                writeln!(
                    out,
                    "  {} ({} bytes, {})",
                    String::from_utf8_lossy(key),
                    value.len(),
                    what(value)
                )?;
            }
            for note in dataset.notes().iter().chain(&refused) {
                writeln!(out, "note: {note}")?;
            }
        }
        Ok(())
    }

    fn shows_values(&self, index: &RowGroupIndex) -> bool {
        self.index && !self.skip_index.contains(&index.name)
    }

    fn print_index(&self, out: &mut impl Write, index: &RowGroupIndex) -> std::io::Result<()> {
        match &index.entries {
            Entries::Values(values) => {
                writeln!(out, "  {} of {}: {} values", index.name, index.column, values.len())?;
                for (value, row_groups) in values.iter().filter(|_| self.shows_values(index)) {
                    let value = shown(value);
                    match self.print_values {
                        true => writeln!(out, "    {value}: {} {row_groups:?}", row_groups.len())?,
                        false => writeln!(out, "    {value}: {}", row_groups.len())?,
                    }
                }
                Ok(())
            }
            Entries::NotNull(row_groups) => {
                let which = if self.print_values && self.shows_values(index) {
                    format!(" {row_groups:?}")
                } else {
                    String::new()
                };
                writeln!(
                    out,
                    "  {} of {}: not null in {} row groups{which}",
                    index.name,
                    index.column,
                    row_groups.len()
                )
            }
            Entries::Unknown(class) => writeln!(
                out,
                "  {} of {}: of the class {class}, which is not known",
                index.name, index.column
            ),
            _ => writeln!(out, "  {} of {}", index.name, index.column),
        }
    }

    fn index_json(&self, index: &RowGroupIndex) -> Value {
        let mut facts = json!({"name": index.name, "column": index.column});
        match &index.entries {
            Entries::Values(values) => {
                facts["class"] = "SingleFieldIndexer".into();
                facts["n_values"] = values.len().into();
                if self.shows_values(index) {
                    let pair = |(value, row_groups): &(squall::Value, std::collections::BTreeSet<u32>)| json!({"value": shown(value), "row_groups": row_groups});
                    facts["values"] = values.iter().map(pair).collect();
                }
            }
            Entries::NotNull(row_groups) => {
                facts["class"] = "FieldNotNullIndexer".into();
                facts["row_groups"] = json!(row_groups);
            }
            Entries::Unknown(class) => facts["class"] = class.as_str().into(),
            _ => {}
        }
        facts
    }
}

/// A value of an index; a time outside the years of the ISO form says so.
fn shown(value: &squall::Value) -> Value {
    json::value(value, Arrays::Values).unwrap_or_else(|error| error.to_string().into())
}

/// What the bytes of a value are.
fn what(value: &[u8]) -> &'static str {
    match value {
        [0x80, ..] => "a pickle",
        [b'(' | b'c', ..] if value.ends_with(b".") => "a pickle in ASCII",
        [b'{' | b'[', ..] => "JSON",
        _ if std::str::from_utf8(value).is_ok() => "text",
        _ => "bytes",
    }
}

fn wait<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Runtime::new();
    let runtime = runtime.map_err(|error| Error::internal("cannot start the I/O threads").with_source(error))?;
    runtime.block_on(work)
}
