//! The next version of a dataset: appended to, or written anew.
//!
//! New files are written to a hidden directory inside the dataset, under names that no version had, and moved into place when
//! all of them are complete. The metadata, which say which files count, are then replaced by a rename, or by a put that fails if
//! somebody else replaced them meanwhile; that is tried again on what they are then. Until the metadata are replaced, and after
//! an append, a reader that has the version before open reads on. After an overwrite the files of the version before go.

use std::fs::File;
use std::time::Duration;

use arrow_schema::{Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use chrono::Utc;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use squall_dataset::{
    Dataset, DatasetUrl, OpenOptions, SEAL_KEY, Store, StoreOptions, WRITING_MARKER, key_values, storage_error,
    stored_metadata, unischema_name,
};
use squall_schema::metadata::{self, DatasetMetadata};
use squall_schema::petastorm::{INDEX_KEY, ROW_GROUPS_KEY, UNISCHEMA_KEY};
use squall_schema::{DType, Error, ErrorKind, Field, Result, Schema, Shape};

use crate::conform::Target;
use crate::draft::Draft;
use crate::error::store_error;
use crate::layout::Layout;
use crate::metadata_file::metadata_file;
use crate::moves::{Move, check_size, move_files};
use crate::petastorm::Petastorm;
use crate::scratch::{Scratch, nonce};
use crate::sync::{sync_files, synced};

/// What the names of the hidden directories begin with.
const PREFIX: &str = ".squall-write-";
/// After so long nobody writes to such a directory in a store any more.
const ABANDONED: Duration = Duration::from_secs(86_400);
/// How often the metadata may be replaced by others before this conversion gives up.
const ATTEMPTS: usize = 100;

/// What a conversion does where a dataset is already, by the names that Spark gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveMode {
    /// It is an error.
    #[default]
    ErrorIfExists,
    /// The rows come behind those that are there. Columns and directories must be the same.
    Append,
    /// The rows take the place of those that are there.
    Overwrite,
}

/// A dataset that is at the destination, and gets a next version.
pub(crate) struct Existing {
    store: Store,
    metadata: DatasetMetadata,
    mode: SaveMode,
}

impl Existing {
    /// The dataset to append to or to overwrite; `None` if nothing is there, or if it would be an error.
    pub(crate) async fn find(url: &DatasetUrl, options: &StoreOptions, mode: SaveMode) -> Result<Option<Self>> {
        if mode == SaveMode::ErrorIfExists {
            return Ok(None);
        }
        let at = |error: Error| error.at("URL", url);
        let store = match Store::open_with(url, options).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            store => store?,
        };
        if let Some(mut metadata) = stored_metadata(&store).await.map_err(at)? {
            let is_nested = |field: &Field| field.codec.is_none() && field.dtype == DType::Nested;
            if mode == SaveMode::Append && metadata.schema.fields().iter().any(is_nested) {
                // Files tell the types of nested columns, and metadata do not.
                let open = OpenOptions::default().with_store(options.clone());
                metadata.schema = Dataset::open_with(url, &open).await?.schema().clone();
            }
            return Ok(Some(Self { store, metadata, mode }));
        }
        let is_written = store.head(&Path::from(WRITING_MARKER)).await.map_err(at)?.is_some();
        let is_empty = store.list().await.map_err(at)?.is_empty();
        match is_empty || is_written {
            true => Ok(None),
            false => Err(at(Error::new(
                ErrorKind::AlreadyExists,
                "what is there has no metadata of Squall's, so it is neither appended to nor overwritten: remove it, or describe it by `squall metadata generate`",
            ))),
        }
    }

    /// Fits a conversion to what is appended to: its nullability, its directories, its Unischema. Gives the columns of the query
    /// as they are written.
    pub(crate) async fn fit(&self, columns: &SchemaRef, layout: &mut Layout) -> Result<SchemaRef> {
        check_size(self.store.url(), layout.file_bytes)?;
        if self.mode == SaveMode::Overwrite {
            return Ok(columns.clone());
        }
        // Before any row is read: the types come later.
        let names = columns.fields().iter().map(|column| column.name().as_str());
        same_names(&self.metadata.schema, names).map_err(|error| error.at("URL", self.store.url()))?;
        self.fit_layout(layout).await?;
        let relax = |column: &std::sync::Arc<ArrowField>| {
            let before = self.metadata.schema.get(column.name());
            let nullable = column.is_nullable() || before.is_some_and(|field| field.nullable);
            column.as_ref().clone().with_nullable(nullable)
        };
        Ok(ArrowSchema::new(columns.fields().iter().map(relax).collect::<Vec<_>>()).into())
    }

    /// Fits a conversion to the directories and the Unischema of what is appended to.
    pub(crate) async fn fit_layout(&self, layout: &mut Layout) -> Result<()> {
        if self.mode == SaveMode::Overwrite {
            return Ok(());
        }
        let at = |error: Error| error.at("URL", self.store.url());
        if layout.partition_by.is_empty() {
            layout.partition_by = self.metadata.partition_by.clone();
        }
        if layout.partition_by != self.metadata.partition_by {
            return Err(at(Error::invalid(format!(
                "the dataset has directories by {:?}, the rows to append by {:?}",
                self.metadata.partition_by, layout.partition_by
            ))));
        }
        if let Some(name) = unischema_name(&self.store).await? {
            let pairs = key_values(&self.store).await?;
            if pairs.contains_key(INDEX_KEY.as_bytes()) {
                return Err(at(Error::unsupported(
                    "the dataset has row-group indexes, which cannot be appended to: convert it anew",
                )));
            }
            layout.petastorm = Some(Petastorm::new(name));
        } else if layout.petastorm.is_some() {
            return Err(at(Error::invalid(
                "the dataset that is appended to is not Petastorm's: describe it by `squall metadata generate --petastorm` first",
            )));
        }
        Ok(())
    }

    /// Refuses rows of other types before any is read; what their shapes are is seen later.
    pub(crate) fn check(&self, target: &Target) -> Result<()> {
        self.check_schema(&target.declare(target.schema.clone())?)
    }

    /// The same, of rows of these fields.
    pub(crate) fn check_schema(&self, schema: &Schema) -> Result<()> {
        match self.mode {
            SaveMode::Append => merged(&self.metadata.schema, schema)
                .map(|_| ())
                .map_err(|error| error.at("URL", self.store.url())),
            _ => Ok(()),
        }
    }

    /// A place for the new files.
    pub(crate) async fn begin(self) -> Result<Revision> {
        let nonce = nonce();
        let scratch = match self.store.url().to_file_path() {
            Some(path) => {
                let scratch = Scratch::begin(&path, PREFIX);
                Some(scratch.map_err(|error| {
                    Error::new(ErrorKind::Storage, "cannot write to the dataset")
                        .at("URL", self.store.url())
                        .with_source(error)
                })?)
            }
            None => {
                sweep(&self.store).await?;
                None
            }
        };
        let directory = match &scratch {
            Some(scratch) => scratch
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            None => format!("{PREFIX}{nonce}"),
        };
        Ok(Revision {
            store: self.store,
            mode: self.mode,
            directory: Path::from(directory),
            nonce,
            scratch,
            moved: Vec::new(),
        })
    }
}

/// Files that are to be part of a dataset.
pub(crate) struct Revision {
    pub(crate) store: Store,
    mode: SaveMode,
    /// Where files are written to, below the dataset.
    pub(crate) directory: Path,
    /// What tells the names of its files from those of all other versions.
    pub(crate) nonce: String,
    scratch: Option<Scratch>,
    /// Files that were moved into place.
    moved: Vec<Path>,
}

impl Revision {
    /// Moves the files into place and replaces the metadata.
    pub(crate) async fn commit(&mut self, draft: &mut Draft<'_>) -> Result<DatasetMetadata> {
        let _lock = self.lock().await?;
        self.move_files(draft).await?;
        for _ in 0..ATTEMPTS {
            let (before, version) = self.current().await?;
            if self.is_in(&before) {
                // A put of ours that the store answered with an error, and had done.
                self.moved.clear();
                return Ok(before);
            }
            let description = match self.mode {
                SaveMode::Append => draft.describe(Some(&before))?,
                _ => draft.describe(None)?,
            };
            let mut pairs = description.petastorm;
            if self.mode == SaveMode::Append {
                pairs.extend(self.keys_of_others().await?);
            }
            let file = metadata_file(description.columns, &description.metadata, pairs)?;
            let replaced = match self.replace(file, version).await {
                Err(error) if self.scratch.is_none() => {
                    // It may have been done, or be done later: files that metadata may name stay.
                    let moved = std::mem::take(&mut self.moved);
                    let (now, _) = self.current().await.map_err(|_| error)?;
                    self.moved = moved;
                    self.is_in(&now)
                }
                replaced => replaced?,
            };
            if replaced {
                self.moved.clear();
                if self.mode == SaveMode::Overwrite {
                    self.remove(&before, &description.metadata).await;
                }
                return Ok(description.metadata);
            }
        }
        Err(Error::new(
            ErrorKind::Storage,
            format!("others replaced the metadata {ATTEMPTS} times while this conversion tried to"),
        ))
    }

    /// What others keep in the metadata file, as far as it is text.
    async fn keys_of_others(&self) -> Result<Vec<(String, String)>> {
        let own = [metadata::KEY, SEAL_KEY, UNISCHEMA_KEY, ROW_GROUPS_KEY, INDEX_KEY];
        let pairs = key_values(&self.store).await?.into_iter();
        let text =
            pairs.filter_map(|(key, value)| Some((String::from_utf8(key).ok()?, String::from_utf8(value).ok()?)));
        Ok(text.filter(|(key, _)| !own.contains(&&key[..])).collect())
    }

    /// Whether metadata name a file of this conversion.
    fn is_in(&self, metadata: &DatasetMetadata) -> bool {
        let mark = format!("part-{}-", self.nonce);
        metadata.files.iter().any(|file| file.path.contains(&mark))
    }

    /// Takes away what was written, after a failure.
    pub(crate) async fn abort(&mut self) {
        let objects = self.store.objects();
        for path in self.moved.drain(..) {
            let _ = objects.delete(&path).await;
        }
        if self.scratch.is_none() {
            let left = objects.list(Some(&self.directory)).map_ok(|file| file.location);
            for path in left.try_collect::<Vec<_>>().await.unwrap_or_default() {
                let _ = objects.delete(&path).await;
            }
        }
    }

    /// On a file system, one commit at a time: the system gives the lock back when a process dies.
    async fn lock(&self) -> Result<Option<File>> {
        let Some(path) = self.store.url().to_file_path() else {
            return Ok(None);
        };
        let locked = tokio::task::spawn_blocking(move || {
            let file = File::open(path)?;
            file.lock()?;
            Ok(file)
        });
        let locked = locked
            .await
            .map_err(|error| Error::internal("the wait for a lock was given up").with_source(error))?;
        locked.map(Some).map_err(|error: std::io::Error| {
            Error::new(ErrorKind::Storage, "cannot lock the dataset").with_source(error)
        })
    }

    async fn move_files(&mut self, draft: &mut Draft<'_>) -> Result<()> {
        let mut moves = Vec::new();
        for (entry, lies_at) in draft.entries() {
            let written = written_path(&entry.path)?;
            let parts: Option<Vec<_>> = written.prefix_match(&self.directory).map(Iterator::collect);
            let Some(parts) = parts else {
                return Err(Error::internal("a file is not where it was written").at("file", &entry.path));
            };
            let to = Path::from_iter(parts);
            entry.path = to.to_string();
            moves.push(Move {
                from: lies_at.unwrap_or(written),
                to,
                size: entry.size,
            });
        }
        // Noted before they are moved, so that whatever ends this in the middle takes them away. No other has such
        // names.
        self.moved = moves.iter().map(|one| one.to.clone()).collect();
        move_files(&self.store, &moves).await?;
        if let Some(root) = self.store.url().to_file_path() {
            let paths: Vec<_> = self.moved.iter().map(|path| root.join(path.as_ref())).collect();
            synced(move || sync_files(&paths)).await?;
        }
        Ok(())
    }

    /// The metadata as they are now, and which version of their file that is.
    async fn current(&self) -> Result<(DatasetMetadata, UpdateVersion)> {
        let path = Path::from(metadata::FILE);
        let head = self.store.objects().head(&path).await.map_err(storage_error)?;
        // Another one may replace them between the two: then the put fails.
        let metadata = stored_metadata(&self.store).await?;
        let metadata = metadata.ok_or_else(|| Error::corrupt("the metadata went away meanwhile"))?;
        Ok((
            metadata,
            UpdateVersion {
                e_tag: head.e_tag,
                version: head.version,
            },
        ))
    }

    /// Replaces the metadata; false if somebody else did meanwhile.
    async fn replace(&self, file: Vec<u8>, version: UpdateVersion) -> Result<bool> {
        let at = |error: Error| error.at("file", metadata::FILE).at("URL", self.store.url());
        let (objects, path) = (self.store.objects(), Path::from(metadata::FILE));
        if let Some(root) = self.store.url().to_file_path() {
            // Under the lock.
            let new = self.directory.clone().join(metadata::FILE);
            let put = objects.put(&new, PutPayload::from(file)).await;
            put.map_err(|error| at(store_error(error)))?;
            let written = root.join(new.as_ref());
            synced(move || sync_files(&[written])).await?;
            let renamed = objects.rename(&new, &path).await;
            renamed.map_err(|error| at(store_error(error)))?;
            return Ok(true);
        }
        let options = PutOptions::from(PutMode::Update(version));
        match objects.put_opts(&path, PutPayload::from(file), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => Err(at(
                Error::unsupported("this store cannot replace a file on condition: write to another destination"),
            )),
            Err(error) => Err(at(store_error(error))),
        }
    }

    /// Takes away the files of the version before, which no reader opens any more. What cannot be taken away is an orphan that
    /// `squall verify` shows.
    async fn remove(&self, before: &DatasetMetadata, after: &DatasetMetadata) {
        let gone = before.files.iter().filter(|file| {
            let is_same = |own: &&metadata::FileEntry| own.path == file.path;
            after.files.iter().find(is_same).is_none()
        });
        for file in gone {
            let Ok(path) = written_path(&file.path) else {
                continue;
            };
            let _ = self.store.objects().delete(&path).await;
            if let Some(root) = self.store.url().to_file_path() {
                // Directories of partitions, as far as they are empty.
                let file = root.join(path.as_ref());
                for directory in file.ancestors().skip(1).take_while(|above| **above != root) {
                    if std::fs::remove_dir(directory).is_err() {
                        break;
                    }
                }
            }
        }
    }
}

impl Drop for Revision {
    fn drop(&mut self) {
        if let Some(root) = self.store.url().to_file_path() {
            for path in &self.moved {
                let _ = std::fs::remove_file(root.join(path.as_ref()));
            }
        }
        if let Some(scratch) = &self.scratch {
            let _ = std::fs::remove_dir_all(&scratch.path);
        }
    }
}

/// A path as it was written down: what is escaped in it stays so.
fn written_path(path: &str) -> Result<Path> {
    Path::parse(path).map_err(|error| Error::corrupt("no path").at("file", path).with_source(error))
}

/// Takes away what killed conversions left in a store.
async fn sweep(store: &Store) -> Result<()> {
    let at = |error| storage_error(error).at("URL", store.url());
    let listed = store.objects().list_with_delimiter(None).await.map_err(at)?;
    let is_own = |path: &&Path| path.filename().is_some_and(|name| name.starts_with(PREFIX));
    for directory in listed.common_prefixes.iter().filter(is_own) {
        let files: Vec<_> = store.objects().list(Some(directory)).try_collect().await.map_err(at)?;
        let newest = files.iter().map(|file| file.last_modified).max();
        let is_old = |at: chrono::DateTime<Utc>| (Utc::now() - at).to_std().is_ok_and(|age| age > ABANDONED);
        if newest.is_some_and(is_old) {
            for file in files {
                let _ = store.objects().delete(&file.location).await;
            }
        }
    }
    Ok(())
}

fn same_names<'a>(before: &Schema, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let names: Vec<_> = names.collect();
    if before.names().eq(names.iter().copied()) {
        return Ok(());
    }
    let expected: Vec<_> = before.names().collect();
    Err(Error::invalid(format!(
        "expected rows with the columns {} to append, found {}",
        expected.join(", "),
        names.join(", ")
    )))
}

/// The schema of a dataset and of what is appended to it.
pub(crate) fn merged(before: &Schema, new: &Schema) -> Result<Schema> {
    same_names(before, new.names())?;
    let field = |(before, new): (&Field, &Field)| {
        let misfit = || Error::invalid(format!("expected {before} to append, found {new}"));
        // Metadata do not hold the types of nested columns: where they are known, they were compared before.
        let is_same_inside = before.arrow.is_none() || before.arrow == new.arrow;
        let is_same = before.dtype == new.dtype && before.codec == new.codec && is_same_inside;
        if !is_same || (new.nullable && !before.nullable) || before.shape.0.len() != new.shape.0.len() {
            return Err(misfit());
        }
        let dims = before.shape.0.iter().zip(&new.shape.0);
        let shape = Shape(dims.map(|(a, b)| if a == b { *a } else { None }).collect());
        Ok(Field {
            shape,
            ..before.clone()
        })
    };
    Schema::new(
        before
            .fields()
            .iter()
            .zip(new.fields())
            .map(field)
            .collect::<Result<_>>()?,
    )
}
