//! Makes a dataset visible at once.
//!
//! On a file system the files are written to a hidden directory beside the destination, which is renamed when all is
//! there. Where directories cannot be renamed they are written in place: first a marker, which keeps readers and other
//! conversions away, then the files, then the metadata by a put that fails if it exists, then the marker goes. Whatever
//! fails before the end takes away what was written; what a killed conversion could not take away is removed by the next one to the
//! same place.

use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use squall_dataset::{DatasetUrl, Store, StoreOptions, WRITING_MARKER, storage_error, stored_metadata};
use squall_schema::metadata::{self, DatasetMetadata};
use squall_schema::{Error, ErrorKind, Result};

use crate::checkpoint::{self, Checkpoint, Durability};
use crate::draft::{Description, Draft};
use crate::error::{file_problem, store_error};
use crate::marker::{Lease, Marker};
use crate::metadata_file::metadata_file;
use crate::revision::{Existing, Revision};
use crate::scratch::{Scratch, nonce, prefix};
use crate::sync::{sync_directory, synced};
use crate::write::FILE_PREFIX;

/// A place for files that are not visible yet.
pub(crate) struct Staging {
    url: DatasetUrl,
    store: Store,
    place: Place,
    /// What is done already, where that is recorded.
    pub(crate) checkpoint: Option<Checkpoint>,
}

#[expect(clippy::large_enum_variant, reason = "there is one of it for a conversion")]
enum Place {
    /// Renamed to the destination; removed when it is dropped before that.
    Beside {
        staged: Option<Scratch>,
        destination: PathBuf,
        /// The directories above it that were made for it, innermost first; taken away with it.
        made: Vec<PathBuf>,
    },
    /// Written in place under a marker; `None` once it is taken away.
    Marked { marker: Option<Marker>, nonce: String },
    /// Written inside a dataset that gets a next version.
    Within(Box<Revision>),
}

impl Staging {
    /// Refuses a destination where something is.
    ///
    /// In a directory, what a killed conversion left is taken over if it was known by `mark`, and away if it was not.
    pub(crate) async fn begin(
        url: &DatasetUrl,
        options: &StoreOptions,
        lease: Lease,
        mark: Option<&str>,
    ) -> Result<Self> {
        let Some(destination) = url.to_file_path() else {
            return Self::marked(url, options, lease).await;
        };
        let mut staging = Self::beside(url, destination, mark)?;
        if let Some(mark) = mark {
            staging.checkpoint = Some(Checkpoint::open(&staging.store, mark, Durability::Disk).await?);
        }
        Ok(staging)
    }

    /// Writes the next version of a dataset.
    pub(crate) async fn within(url: &DatasetUrl, existing: Existing) -> Result<Self> {
        let revision = existing.begin().await?;
        Ok(Self {
            url: url.clone(),
            store: revision.store.clone(),
            place: Place::Within(Box::new(revision)),
            checkpoint: None,
        })
    }

    fn beside(url: &DatasetUrl, destination: PathBuf, mark: Option<&str>) -> Result<Self> {
        match std::fs::symlink_metadata(&destination) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_write(url, error)),
            Ok(found) if found.is_dir() => {
                let mut entries = std::fs::read_dir(&destination).map_err(|error| cannot_write(url, error))?;
                if entries.next().is_some() {
                    return Err(exists(url));
                }
            }
            Ok(_) => {
                let message = "the destination is a file or a link: expected an empty directory, or nothing";
                return Err(Error::new(ErrorKind::AlreadyExists, message).at("URL", url));
            }
        }
        let (Some(parent), Some(_)) = (destination.parent(), destination.file_name()) else {
            return Err(exists(url));
        };
        let made: Vec<_> = parent
            .ancestors()
            .take_while(|path| !path.exists())
            .map(PathBuf::from)
            .collect();
        std::fs::create_dir_all(parent).map_err(|error| cannot_write(url, error))?;
        let prefix = prefix(&destination);
        let left = mark.and_then(|mark| Scratch::resume(parent, &prefix, &checkpoint::directory(mark)));
        let staged = match left {
            Some(left) => left,
            None => Scratch::begin(parent, &prefix).map_err(|error| cannot_write(url, error))?,
        };
        let path = staged.path.clone();
        let place = Place::Beside {
            staged: Some(staged),
            destination,
            made,
        };
        let text = path
            .to_str()
            .ok_or_else(|| Error::unsupported(format!("the path {path:?} is not UTF-8")))?;
        Ok(Self {
            store: Store::create(&DatasetUrl::parse(text)?)?,
            url: url.clone(),
            place,
            checkpoint: None,
        })
    }

    async fn marked(url: &DatasetUrl, options: &StoreOptions, lease: Lease) -> Result<Self> {
        let store = Store::create_with(url, options)?;
        let at = |error: object_store::Error| storage_error(error).at("URL", url);
        let metadata = Path::from(metadata::FILE);
        let listed = store.objects().list_with_delimiter(None).await.map_err(at)?;
        let is_marked = listed
            .objects
            .iter()
            .any(|file| file.location.as_ref() == WRITING_MARKER);
        let is_complete = listed.objects.iter().any(|file| file.location == metadata);
        let is_empty = listed.objects.is_empty() && listed.common_prefixes.is_empty();
        if is_complete || !(is_marked || is_empty) {
            return Err(exists(url));
        }
        let marker = Marker::take(&store, lease).await?;
        // Another conversion may have begun and ended between the two, or left what it wrote.
        let files = store.objects().list(None).map_ok(|file| file.location);
        let files: Vec<_> = files.try_collect().await.map_err(at)?;
        let files: Vec<_> = files
            .into_iter()
            .filter(|file| file.as_ref() != WRITING_MARKER)
            .collect();
        if files.contains(&metadata) || !(files.is_empty() || marker.is_inherited) {
            marker.release().await?;
            return Err(exists(url));
        }
        for file in files {
            store.objects().delete(&file).await.map_err(at)?;
        }
        Ok(Self {
            url: url.clone(),
            store,
            place: Place::Marked {
                marker: Some(marker),
                nonce: nonce(),
            },
            checkpoint: None,
        })
    }

    /// Where files are written.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes sure that the place is still this conversion's.
    #[cfg(feature = "ballista")]
    pub(crate) async fn confirm(&self) -> Result<()> {
        match &self.place {
            Place::Marked {
                marker: Some(marker), ..
            } => marker.confirm().await,
            _ => Ok(()),
        }
    }

    /// The directory there that files are written to, if they are moved when all of them are complete.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Within(revision) => Some(&revision.directory),
            Place::Marked { .. } | Place::Beside { .. } => None,
        }
    }

    /// What the names of files begin with, in that directory if there is one.
    pub(crate) fn file_prefix(&self) -> String {
        match &self.place {
            Place::Within(revision) => format!("{FILE_PREFIX}{}-", revision.nonce),
            // What is still on its way from a conversion that lost its marker must not take the place of these.
            Place::Marked { nonce, .. } => format!("{FILE_PREFIX}{nonce}-"),
            Place::Beside { .. } => FILE_PREFIX.to_owned(),
        }
    }

    /// The directory, if there is one, and what the names of files begin with.
    pub(crate) fn prefix(&self) -> String {
        match self.directory() {
            Some(directory) => format!("{directory}/{}", self.file_prefix()),
            None => self.file_prefix(),
        }
    }

    /// Writes the metadata and makes the dataset, or its next version, visible.
    pub(crate) async fn commit(&mut self, mut draft: Draft<'_>) -> Result<DatasetMetadata> {
        if let Place::Within(revision) = &mut self.place {
            return revision.commit(&mut draft).await;
        }
        self.publish(draft.describe(None)?).await
    }

    /// Writes metadata and makes a dataset visible that is described already.
    async fn publish(&mut self, description: Description) -> Result<DatasetMetadata> {
        let file = metadata_file(description.columns, &description.metadata, description.petastorm)?;
        if let Place::Marked {
            marker: Some(marker), ..
        } = &self.place
        {
            marker.confirm().await?;
        }
        if let Err(error) = create(&self.store, metadata::FILE, file).await {
            self.judge(&description.metadata, error).await?;
        }
        match &mut self.place {
            Place::Beside {
                staged, destination, ..
            } => {
                let Some(from) = staged.take() else {
                    return Err(Error::internal("a conversion is committed twice"));
                };
                let path = from.path.clone();
                if let Err(error) = synced(move || sync_directory(&path)).await {
                    *staged = Some(from);
                    return Err(error);
                }
                // At the last moment: a conversion that is killed before it is gone on with.
                if let Some(checkpoint) = self.checkpoint.take()
                    && let Err(error) = checkpoint.end().await
                {
                    *staged = Some(from);
                    return Err(error);
                }
                std::fs::rename(&from.path, destination).map_err(|error| {
                    *staged = Some(from);
                    cannot_write(&self.url, error)
                })?;
            }
            Place::Marked { marker, .. } => match marker.take() {
                Some(marker) => marker.release().await?,
                None => return Err(Error::internal("a conversion is committed twice")),
            },
            Place::Within(_) => return Err(Error::internal("a next version is committed as a new dataset")),
        }
        Ok(description.metadata)
    }

    /// Whether the metadata are there though the store said that they could not be written: its answer to a put that was repeated,
    /// or none at all, does not tell. Where nobody can tell, all is left to the next conversion under its marker.
    async fn judge(&mut self, own: &DatasetMetadata, error: Error) -> Result<()> {
        let Place::Marked { marker, .. } = &mut self.place else {
            return Err(error);
        };
        match stored_metadata(&self.store).await {
            Ok(Some(found)) if found == *own => Ok(()),
            Ok(Some(_)) => Err(error),
            Ok(None) if error.kind() == ErrorKind::AlreadyExists => Err(error),
            _ => {
                // Without its beats it is taken over after its silence.
                drop(marker.take());
                Err(error)
            }
        }
    }

    /// Takes away what was written, after a failure.
    pub(crate) async fn abort(mut self) {
        if let Place::Within(revision) = &mut self.place {
            revision.abort().await;
        }
        if let Place::Marked { marker, nonce } = &mut self.place
            && let Some(marker) = marker.take()
        {
            // The failure that brought us here is the one to report.
            let objects = self.store.objects();
            let own = format!("{FILE_PREFIX}{nonce}-");
            // As long as the marker is ours all of the place is; else only what nobody else can have written.
            let is_ours = marker.confirm().await.is_ok();
            let listed: Vec<_> = objects
                .list(None)
                .filter_map(|file| async { file.ok() })
                .collect()
                .await;
            let is_own = |file: &&object_store::ObjectMeta| {
                let name = file.location.filename().unwrap_or_default();
                file.location.as_ref() != WRITING_MARKER && (is_ours || name.starts_with(&own))
            };
            for file in listed.iter().filter(is_own) {
                let _ = objects.delete(&file.location).await;
            }
            let _ = marker.release().await;
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Place::Beside {
            staged: Some(staged),
            made,
            ..
        } = &self.place
        {
            // Whatever remains is hidden, and named after its destination. A directory that others use by now stays.
            let _ = std::fs::remove_dir_all(&staged.path);
            for directory in made {
                let _ = std::fs::remove_dir(directory);
            }
        }
    }
}

async fn create(store: &Store, name: &str, bytes: Vec<u8>) -> Result<()> {
    let options = PutOptions::from(PutMode::Create);
    let put = store
        .objects()
        .put_opts(&Path::from(name), PutPayload::from(bytes), options)
        .await;
    put.map(|_| ())
        .map_err(|error| store_error(error).at("file", name).at("URL", store.url()))
}

fn exists(url: &DatasetUrl) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        "the destination exists already and is not empty",
    )
    .at("URL", url)
}

fn cannot_write(url: &DatasetUrl, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::DirectoryNotEmpty => return exists(url),
        _ => ErrorKind::Storage,
    };
    let what = match file_problem(&error) {
        Some(problem) => format!("cannot write to the destination: {problem}"),
        None => "cannot write to the destination".to_owned(),
    };
    Error::new(kind, what).at("URL", url).with_source(error)
}
