//! What a conversion wrote, as the metadata of a new dataset or of the next version of one.

use std::collections::BTreeMap;

use arrow_schema::SchemaRef;
use object_store::path::Path;
use squall_schema::metadata::{DatasetMetadata, FileEntry};
use squall_schema::{Error, Result, Schema};
use xxhash_rust::xxh3::Xxh3;

use crate::conform::Target;
use crate::evidence::Evidence;
use crate::layout::Layout;
use crate::petastorm::RowGroupKeys;
use crate::revision::merged;
use crate::write::{Written, file_columns};

/// Files that were written, and what they hold.
pub(crate) struct Draft<'a> {
    layout: &'a Layout,
    schema: Schema,
    columns: SchemaRef,
    written: Vec<Written>,
    /// Where files lie that are not yet where their entries say.
    lie_at: BTreeMap<String, Path>,
}

/// The metadata of a dataset, in the parts that its file is made of.
pub(crate) struct Description {
    pub(crate) metadata: DatasetMetadata,
    pub(crate) columns: SchemaRef,
    pub(crate) petastorm: Vec<(String, String)>,
}

impl<'a> Draft<'a> {
    /// Refuses files without a row.
    pub(crate) fn new(layout: &'a Layout, target: &Target, written: Vec<Written>, evidence: &Evidence) -> Result<Self> {
        let schema = target.declare(evidence.shapes(&target.schema)?)?;
        Self::of_files(layout, schema, file_columns(target, layout)?, written)
    }

    /// The same, of files whose fields and columns are known.
    pub(crate) fn of_files(
        layout: &'a Layout,
        schema: Schema,
        columns: SchemaRef,
        mut written: Vec<Written>,
    ) -> Result<Self> {
        if written.is_empty() {
            return Err(Error::invalid("there is no row: nothing is written"));
        }
        written.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        Ok(Self {
            layout,
            schema,
            columns,
            written,
            lie_at: BTreeMap::new(),
        })
    }

    /// Says where files lie, by the paths of their entries, which say where they will be.
    #[cfg(feature = "spark")]
    pub(crate) fn lying_at(self, lie_at: BTreeMap<String, Path>) -> Self {
        Self { lie_at, ..self }
    }

    /// The files, which may be moved, and where each lies if not where its entry says.
    pub(crate) fn entries(&mut self) -> impl Iterator<Item = (&mut FileEntry, Option<Path>)> {
        let lie_at = &self.lie_at;
        self.written.iter_mut().map(|file| {
            let lies_at = lie_at.get(&file.entry.path).cloned();
            (&mut file.entry, lies_at)
        })
    }

    /// What describes these files behind those of `before`, or alone.
    pub(crate) fn describe(&self, before: Option<&DatasetMetadata>) -> Result<Description> {
        let own = digest(&self.schema, &self.written)?;
        let (schema, mut files, fingerprint) = match before {
            Some(before) => {
                let mut both = Xxh3::new();
                both.update(before.fingerprint.as_bytes());
                both.update(&own.to_le_bytes());
                let schema = merged(&before.schema, &self.schema)?;
                (schema, before.files.clone(), both.digest128())
            }
            None => (self.schema.clone(), Vec::new(), own),
        };
        let n_before = files.len();
        files.extend(self.written.iter().map(|file| file.entry.clone()));
        let keys = (0..n_before).map(|_| &[][..]);
        let keys = keys.chain(self.written.iter().map(|file| &file.keys[..]));
        let petastorm = match &self.layout.petastorm {
            Some(petastorm) => {
                let files: Vec<(&FileEntry, &[RowGroupKeys])> = files.iter().zip(keys).collect();
                let pairs = petastorm.key_values(&schema, &files)?.into_iter();
                pairs.map(|(key, value)| (key.to_owned(), value)).collect()
            }
            None => Vec::new(),
        };
        Ok(Description {
            metadata: DatasetMetadata {
                created_by: concat!("squall ", env!("CARGO_PKG_VERSION")).to_owned(),
                fingerprint: format!("{fingerprint:032x}"),
                schema,
                partition_by: self.layout.partition_by.clone(),
                files,
            },
            columns: self.columns.clone(),
            petastorm,
        })
    }
}

/// A digest of schema and bytes, the same wherever the files lie.
fn digest(schema: &Schema, written: &[Written]) -> Result<u128> {
    let mut digest = Xxh3::new();
    let fields =
        serde_json::to_vec(schema).map_err(|error| Error::internal("a schema is not JSON").with_source(error))?;
    digest.update(&fields);
    for file in written {
        digest.update(file.name.as_bytes());
        digest.update(&file.entry.size.to_le_bytes());
        digest.update(&file.digest.to_le_bytes());
    }
    Ok(digest.digest128())
}
