//! `squall convert`

use std::io::Write;
use std::time::Instant;

use clap::Args;
use serde_json::json;
use squall::Error;
use squall::convert::{Converter, Inferred, Petastorm, SaveMode, infer_sources};

use crate::converted::print;
use crate::engine::EngineOptions;
use crate::layout::LayoutOptions;
use crate::options::Storage;
use crate::progress::{Show, reporter};
use crate::source::{Rules, Sources};
use crate::{Failure, Format};

/// Converts Parquet, CSV, JSON or Avro into a dataset.
///
/// The source may be what Spark wrote: hive partitions, several files, `_SUCCESS`. Text may be compressed as a whole: .gz, .zst,
/// .bz2. The destination is visible only when it is complete; after a failure nothing is there.
#[derive(Args)]
#[command(after_help = "Example:
  squall convert /data/events /data/train --sql \"SELECT * FROM source WHERE day < '2024-06-01'\"
  squall convert /data/events /data/train --shuffle 7 --memory-limit 1GiB
  squall convert /data/events s3://bucket/train --partition-by country,day --compression snappy --bloom-filter user
  squall convert s3://bucket/events s3://bucket/train --engine ballista --scheduler df://10.0.0.1:50050
  squall convert /data/labels.csv /data/train --csv-null NA --dry-run
  squall convert /data/list.csv /data/train --image path --image-root s3://bucket/photos --image-size 224x224
  squall convert /data/events /data/train --engine spark --remote sc://127.0.0.1:15002 --shuffle 7
  squall convert /data/a /data/train --source b=/data/b.jsonl.gz --sql \"SELECT * FROM source JOIN b USING (id)\"")]
pub(crate) struct Convert {
    /// Directory or file to convert: a path or a URL
    source: String,
    /// Where the dataset will be; nothing may be there yet, but with --overwrite and --append
    destination: String,
    /// What to convert, in the engine's SQL; the source is the table `source`
    #[arg(long, value_name = "QUERY")]
    sql: Option<String>,
    /// Take DESTINATION for a cache, the parent of a dataset for each conversion: what was converted before is found by query, options
    /// and the files that are read, and touched no more
    #[arg(long, conflicts_with_all = ["append", "overwrite"])]
    cache: bool,
    /// Put the rows behind those of the dataset that is there
    #[arg(long, conflicts_with = "overwrite")]
    append: bool,
    /// Put the rows in the place of those of the dataset that is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    engine: EngineOptions,
    #[command(flatten)]
    layout: LayoutOptions,
    /// Write what Petastorm's make_reader opens: arrays as npy cells, a Unischema of this name, the row-group map
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "Schema")]
    petastorm: Option<String>,
    /// With --petastorm: index the row groups by the values of a column (SingleFieldIndexer)
    #[arg(long, value_name = "[NAME=]COLUMN", requires = "petastorm")]
    row_group_index: Vec<String>,
    /// With --petastorm: index the row groups in which a column is not always null (FieldNotNullIndexer)
    #[arg(long, value_name = "[NAME=]COLUMN", requires = "petastorm")]
    not_null_index: Vec<String>,
    /// The zone of times in the source's directory names, as Spark's session had it: Europe/Zurich, +02:00
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    rules: Rules,
    /// Read everything and show the schema, and what each field was inferred from; write nothing
    #[arg(long)]
    dry_run: bool,
    /// How progress is shown, on standard error
    #[arg(long, value_enum, default_value = "auto")]
    progress: Show,
    /// Show no progress
    #[arg(long, short, conflicts_with = "progress")]
    quiet: bool,
    #[command(flatten)]
    storage: Storage,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Convert {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.engine.check(self.dry_run)?;
        let began = Instant::now();
        let converter = Converter::new(&self.destination)
            .time_zone(self.time_zone.parse()?)
            .storage_options(self.storage.pairs()?);
        let mut converter = self.layout.apply(converter);
        converter = converter.mode(match (self.append, self.overwrite) {
            (true, _) => SaveMode::Append,
            (_, true) => SaveMode::Overwrite,
            _ => SaveMode::ErrorIfExists,
        });
        if self.cache {
            converter = converter.cached();
        }
        if let Some(name) = &self.petastorm {
            let named = |index: &str| {
                let (name, column) = index.split_once('=').unwrap_or((index, index));
                (name.to_owned(), column.to_owned())
            };
            let mut petastorm = Petastorm::new(name);
            for index in &self.row_group_index {
                let (name, column) = named(index);
                petastorm = petastorm.index(name, column);
            }
            for index in &self.not_null_index {
                let (name, column) = named(index);
                petastorm = petastorm.not_null_index(name, column);
            }
            converter = converter.petastorm(petastorm);
        }
        let runtime = tokio::runtime::Runtime::new();
        let runtime =
            runtime.map_err(|error| Error::internal("cannot start the threads of the engine").with_source(error))?;
        converter = self.rules.apply(self.sources.apply(converter)?)?;
        let sources = self.sources.named(&self.source)?;
        if self.dry_run {
            let inferred = runtime.block_on(infer_sources(&sources, &converter, self.sql.as_deref()))?;
            return self.show(&inferred);
        }
        let show = if self.quiet { Show::None } else { self.progress };
        if let Some(report) = reporter(show) {
            converter = converter.progress(report);
        }
        let converted = runtime.block_on(self.engine.convert(&sources, converter, self.sql.as_deref()))?;
        print(&converted, began, self.format)
    }

    /// What a conversion would write.
    fn show(&self, (fields, rows): &(Vec<Inferred>, u64)) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => {
                let columns = fields
                    .iter()
                    .map(|inferred| json!({"field": inferred.field, "from": inferred.from}));
                let facts = json!({"rows": rows, "columns": columns.collect::<Vec<_>>()});
                writeln!(out, "{facts}")?;
            }
            Format::Text => {
                writeln!(out, "{rows} rows; nothing is written")?;
                for inferred in fields {
                    writeln!(out, "{}\n    from {}", inferred.field, inferred.from)?;
                }
            }
        }
        Ok(())
    }
}
