//! `squall inspect`

use std::io::Write;

use clap::Args;
use serde_json::json;
use squall::petastorm::{Entries, RowGroupIndex};
use squall::{Dataset, DatasetUrl, Error, OpenOptions, Origin, StoreOptions};

use crate::options::Storage;
use crate::{Failure, Format};

/// Prints what a dataset is: schema, rows, files, row groups.
#[derive(Args)]
#[command(after_help = "Example:\n  squall inspect /data/train --format json")]
pub(crate) struct Inspect {
    /// The dataset: a path or a URL
    url: String,
    #[command(flatten)]
    storage: Storage,
    /// How it is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let url = DatasetUrl::parse(&self.url)?;
        let store = StoreOptions::default().with_options(self.storage.pairs()?);
        let options = OpenOptions::default().with_store(store);
        let runtime = tokio::runtime::Runtime::new();
        let runtime = runtime.map_err(|error| Error::internal("cannot start the I/O threads").with_source(error))?;
        let dataset = runtime.block_on(Dataset::open_with(&url, &options))?;
        let (squall, written_by) = match dataset.origin() {
            Origin::Squall(by) => (true, Some(by.as_str())),
            Origin::Footers(by) => (false, by.as_deref()),
            Origin::Petastorm(_) => (false, Some("Petastorm")),
        };
        let bytes: u64 = dataset.files().iter().map(|file| file.size).sum();
        let row_groups = dataset.pieces();
        let rows = || row_groups.iter().map(|piece| piece.rows);
        let partitions: Vec<_> = dataset.partition_fields().iter().map(|field| &field.name).collect();
        let mut notes = dataset.notes().to_vec();
        let indexes = dataset.row_group_indexes().unwrap_or_else(|error| {
            notes.push(error.without_place("URL").to_string());
            Vec::new()
        });
        let mut out = std::io::stdout().lock();
        if self.format == Format::Json {
            let unsupported = dataset.unsupported().iter();
            let facts = json!({
                "url": url.to_string(),
                "rows": dataset.rows(),
                "files": dataset.files().len(),
                "row_groups": row_groups.len(),
                "rows_per_row_group": rows().collect::<Vec<_>>(),
                "bytes": bytes,
                "fingerprint": dataset.fingerprint(),
                "squall_metadata": squall,
                "written_by": written_by,
                "partition_by": partitions,
                "schema": dataset.schema(),
                "row_group_indexes": indexes.iter().map(index).collect::<Vec<_>>(),
                "notes": notes,
                "unsupported": unsupported.map(|column| json!({"name": column.name, "reason": column.reason})).collect::<Vec<_>>(),
            });
            writeln!(out, "{facts}")?;
            return Ok(());
        }
        writeln!(out, "{url}")?;
        writeln!(out, "  rows         {}", dataset.rows())?;
        writeln!(out, "  files        {} ({bytes} bytes)", dataset.files().len())?;
        let (least, most) = (rows().min().unwrap_or(0), rows().max().unwrap_or(0));
        writeln!(out, "  row groups   {} ({least} to {most} rows)", row_groups.len())?;
        writeln!(out, "  written by   {}", written_by.unwrap_or("unknown"))?;
        writeln!(
            out,
            "  metadata     {}",
            match dataset.origin() {
                Origin::Squall(_) => "Squall's".to_owned(),
                Origin::Footers(_) => "none of Squall's: read from all footers".to_owned(),
                Origin::Petastorm(name) => format!("Petastorm's, of the Unischema {name}, and all footers"),
            }
        )?;
        writeln!(out, "  fingerprint  {}", dataset.fingerprint())?;
        writeln!(out, "  columns")?;
        for field in dataset.schema().fields() {
            let place = if partitions.contains(&&field.name) {
                " (in directory names)"
            } else {
                ""
            };
            writeln!(out, "    {field}{place}")?;
        }
        for column in dataset.unsupported() {
            writeln!(out, "    {}: cannot be read: {}", column.name, column.reason)?;
        }
        for index in &indexes {
            let what = match &index.entries {
                Entries::Values(values) => format!("{} values", values.len()),
                Entries::NotNull(row_groups) => format!("not null in {} row groups", row_groups.len()),
                other => format!("{other:?}"),
            };
            writeln!(out, "  row-group index {} of {}: {what}", index.name, index.column)?;
        }
        for note in &notes {
            writeln!(out, "  note: {note}")?;
        }
        Ok(())
    }
}

fn index(index: &RowGroupIndex) -> serde_json::Value {
    let (class, values) = match &index.entries {
        Entries::Values(values) => ("SingleFieldIndexer", Some(values.len())),
        Entries::NotNull(_) => ("FieldNotNullIndexer", None),
        Entries::Unknown(class) => (class.as_str(), None),
        _ => ("unknown", None),
    };
    json!({"name": index.name, "column": index.column, "class": class, "values": values})
}
