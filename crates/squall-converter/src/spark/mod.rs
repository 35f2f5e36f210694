//! Rows of a Spark `DataFrame`, through Spark Connect.
//!
//! Spark plans, orders and writes; what comes here are footers. `session` connects; `source` shows files to Spark;
//! `columns` makes expressions of the rules, and `order` of the layout; `write` has Spark write to a staging place;
//! `adopt` names the files and describes them; `key` finds conversions that were made before, by the text of a `plan`.
//! The client blocks: whatever asks Spark runs on a thread of its own.

mod error;
mod session;

mod source;

mod columns;
mod order;

mod write;

mod adopt;

mod plan;

mod key;

use futures::FutureExt;
use spark_connect::DataFrame;
use squall_schema::metadata::DatasetMetadata;
use squall_schema::{Error, Result};

use self::adopt::{Place, Planned, adopt};
use self::columns::Columns;
use self::order::order;
use self::session::blocking;
use crate::cache::{self, Keying};
use crate::commit::Staging;
use crate::converted::Converted;
use crate::converter::Converter;
use crate::key::Key;
use crate::progress::Phase;
use crate::revision::Existing;

/// The official client: [`SparkSession`](spark_connect::SparkSession), [`DataFrame`], functions.
pub use ::spark_connect;

pub use self::session::connect;
pub use self::source::convert_spark_sources;

impl Converter {
    /// Has Spark run the plan of `rows` and write what it gives, and makes a dataset of it. The destination must be one that the Spark
    /// server and this process see under the same path: a shared disk, or a store.
    ///
    /// Doubles become `float32` unless [`Converter::floats`] says otherwise, vectors of Spark ML arrays, arrays that all have one length
    /// tensors; structs, maps and arrays of arrays stay what they are. Cells of images and tensors, closures, a memory limit and
    /// statistics other than those of pages are refused. A file is what one task of Spark writes, of about [`Converter::file_bytes`] where
    /// Spark scans files, or brings rows in order. What orders rows is their content, so the same rows are in the same order each
    /// time. See `docs/spark-connect.md`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future tells Spark to stop what runs, also what others began in the same session meanwhile; nothing is visible at
    /// the destination.
    pub async fn convert_spark(self, rows: &DataFrame) -> Result<Converted> {
        convert_told(self, rows, None).await
    }
}

/// Converts rows of which a text tells, together with their plan, which they are.
async fn convert_told(mut converter: Converter, rows: &DataFrame, told: Option<String>) -> Result<Converted> {
    converter.check_mode()?;
    let Some(keying) = converter.keying.take() else {
        return convert_now(converter, rows).await;
    };
    let key = Key::of_options(&format!("spark {:?} {:?}", converter.layout, converter.rules), &[])?;
    let key = match keying {
        Keying::Plan => key::add(key, rows, told, &converter.source.store).await?,
        Keying::Name(name) => key.name(&name),
    };
    let rows = rows.clone();
    cache::take(converter, key, move |converter| {
        let rows = rows.clone();
        async move { convert_now(converter, &rows).await }.boxed()
    })
    .await
}

async fn convert_now(mut converter: Converter, rows: &DataFrame) -> Result<Converted> {
    let url = converter.url()?;
    write::check(&converter, &url)?;
    write::place(&url)?;
    let existing = Existing::find(&url, &converter.store, converter.mode).await?;
    if let Some(existing) = &existing {
        existing.fit_layout(&mut converter.layout).await?;
    }
    columns::check_names(&converter.layout.partition_by)?;
    let (planned, asked) = (converter.clone(), rows.clone());
    let columns = blocking(move || Columns::plan(&asked, &planned)).await?;
    let planned = Planned {
        schema: columns.schema()?,
        is_declared: columns.declared.is_some(),
    };
    converter.layout.check_schema(&planned.schema, &[])?;
    if let Some(petastorm) = &converter.layout.petastorm {
        if let Some(array) = planned.schema.fields().iter().find(|field| !field.shape.is_scalar()) {
            return Err(Error::unsupported(
                "Petastorm reads arrays from cells, which Spark does not write: convert what Spark wrote by the embedded \
                 engine, or not for Petastorm, whose make_batch_reader reads lists",
            )
            .at("column", &array.name));
        }
        petastorm.check(&planned.schema)?;
    }
    if let Some(existing) = &existing {
        existing.check_schema(&planned.schema)?;
    }
    let mut staging = converter.stage(&url, existing).await?;
    converter.meter.begin(None);
    match write_and_commit(&converter, (&columns, &planned), &mut staging).await {
        Ok(metadata) => {
            converter.meter.enter(Phase::Done);
            Ok(Converted::new(url, metadata, converter.store.clone()))
        }
        Err(error) => {
            staging.abort().await;
            Err(error.at("URL", &url))
        }
    }
}

async fn write_and_commit(
    converter: &Converter,
    (columns, planned): (&Columns, &Planned),
    staging: &mut Staging,
) -> Result<DatasetMetadata> {
    let layout = &converter.layout;
    let place = Place::of(staging, &converter.store)?;
    let rows = order(columns, layout)?;
    write::write(rows, layout.clone(), write::place(place.store.url())?).await?;
    converter.meter.enter(Phase::Committing);
    let mut draft = adopt(&place, (staging, &converter.store), planned, layout).await?;
    for (file, _) in draft.entries() {
        let rows: u64 = file.row_groups.iter().map(|row_group| row_group.rows).sum();
        converter.meter.add_file();
        converter
            .meter
            .add_bytes(usize::try_from(file.size).unwrap_or(usize::MAX));
        converter.meter.add_rows(usize::try_from(rows).unwrap_or(usize::MAX));
    }
    staging.commit(draft).await
}
