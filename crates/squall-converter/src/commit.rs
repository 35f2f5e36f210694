//! Makes a dataset visible at once.
//!
//! On a file system the files are written to a hidden directory beside the destination, which is renamed when all is
//! there. Where directories cannot be renamed they are written in place: first a marker, which keeps readers and other
//! conversions away, then the files, then the metadata by a put that fails if it exists, then the marker goes. Whatever
//! fails before the end takes away what was written.

use std::path::PathBuf;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use squall_dataset::{DatasetUrl, Store, StoreOptions, WRITING_MARKER, storage_error};
use squall_schema::metadata::{self, DatasetMetadata};
use squall_schema::{Error, ErrorKind, Result};

use crate::conform::Target;
use crate::error::write_error;

/// A place for files that are not visible yet.
pub(crate) struct Staging {
    url: DatasetUrl,
    store: Store,
    place: Place,
}

enum Place {
    /// Renamed to the destination; removed when it is dropped before that.
    Beside {
        staged: Option<PathBuf>,
        destination: PathBuf,
        /// The directories above it that were made for it, innermost first; taken away with it.
        made: Vec<PathBuf>,
    },
    /// Written in place under a marker.
    Marked,
}

impl Staging {
    /// Refuses a destination where something is.
    pub(crate) async fn begin(url: &DatasetUrl, options: &StoreOptions) -> Result<Self> {
        match url.to_file_path() {
            Some(destination) => Self::beside(url, destination),
            None => Self::marked(url, options).await,
        }
    }

    fn beside(url: &DatasetUrl, destination: PathBuf) -> Result<Self> {
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
        let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
            return Err(exists(url));
        };
        let made: Vec<_> = parent
            .ancestors()
            .take_while(|path| !path.exists())
            .map(PathBuf::from)
            .collect();
        std::fs::create_dir_all(parent).map_err(|error| cannot_write(url, error))?;
        let nonce = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let staged = parent.join(format!(
            ".{}.squall-{}-{nonce}",
            name.to_string_lossy(),
            std::process::id()
        ));
        std::fs::create_dir(&staged).map_err(|error| cannot_write(url, error))?;
        let place = Place::Beside {
            staged: Some(staged.clone()),
            destination,
            made,
        };
        let text = staged
            .to_str()
            .ok_or_else(|| Error::unsupported(format!("the path {staged:?} is not UTF-8")))?;
        Ok(Self {
            store: Store::create(&DatasetUrl::parse(text)?)?,
            url: url.clone(),
            place,
        })
    }

    async fn marked(url: &DatasetUrl, options: &StoreOptions) -> Result<Self> {
        let store = Store::create_with(url, options)?;
        let listed = store
            .objects()
            .list_with_delimiter(None)
            .await
            .map_err(|error| storage_error(error).at("URL", url))?;
        if !listed.objects.is_empty() || !listed.common_prefixes.is_empty() {
            return Err(exists(url));
        }
        create(&store, WRITING_MARKER, Vec::new()).await?;
        // Another conversion may have begun and ended between the two.
        let mut files = store.objects().list(None);
        while let Some(file) = files.next().await {
            let file = file.map_err(|error| storage_error(error).at("URL", url))?;
            if file.location.as_ref() != WRITING_MARKER {
                store
                    .objects()
                    .delete(&Path::from(WRITING_MARKER))
                    .await
                    .map_err(storage_error)?;
                return Err(exists(url));
            }
        }
        drop(files);
        Ok(Self {
            url: url.clone(),
            store,
            place: Place::Marked,
        })
    }

    /// Where files are written.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Writes the metadata and makes the dataset visible.
    pub(crate) async fn commit(
        &mut self,
        target: &Target,
        dataset: &DatasetMetadata,
        petastorm: Vec<(&str, String)>,
    ) -> Result<()> {
        let file = metadata_file(target, dataset, petastorm)?;
        create(&self.store, metadata::FILE, file).await?;
        match &mut self.place {
            Place::Beside {
                staged, destination, ..
            } => {
                let Some(from) = staged.take() else {
                    return Err(Error::internal("a conversion is committed twice"));
                };
                let moved = sync(&from).and_then(|()| std::fs::rename(&from, destination));
                moved.map_err(|error| {
                    *staged = Some(from.clone());
                    cannot_write(&self.url, error)
                })
            }
            Place::Marked => {
                let marker = self.store.objects().delete(&Path::from(WRITING_MARKER)).await;
                marker.map_err(|error| storage_error(error).at("URL", &self.url))
            }
        }
    }

    /// Takes away what was written, after a failure.
    pub(crate) async fn abort(self) {
        if let Place::Marked = self.place {
            // The place was empty when the marker was put. The failure that brought us here is the one to report.
            let objects = self.store.objects();
            let listed: Vec<_> = objects
                .list(None)
                .filter_map(|file| async { file.ok() })
                .collect()
                .await;
            let (marker, files): (Vec<_>, Vec<_>) = listed
                .into_iter()
                .partition(|file| file.location.as_ref() == WRITING_MARKER);
            for file in files.iter().chain(&marker) {
                let _ = objects.delete(&file.location).await;
            }
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
            let _ = std::fs::remove_dir_all(staged);
            for directory in made {
                let _ = std::fs::remove_dir(directory);
            }
        }
    }
}

/// Brings the files of a directory to the disk: a rename must not survive a power loss that they do not.
fn sync(directory: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        std::fs::File::open(entry?.path())?.sync_all()?;
    }
    std::fs::File::open(directory)?.sync_all()
}

async fn create(store: &Store, name: &str, bytes: Vec<u8>) -> Result<()> {
    let options = PutOptions::from(PutMode::Create);
    let put = store
        .objects()
        .put_opts(&Path::from(name), PutPayload::from(bytes), options)
        .await;
    put.map(|_| ())
        .map_err(|error| storage_error(error).at("file", name).at("URL", store.url()))
}

/// A Parquet file without rows, with the description of the dataset in its footer.
///
/// Without the Arrow schema that files of rows have: Petastorm's tools, when they add a key, keep those that pyarrow shows as
/// the schema's metadata, and these are the footer's where no other schema is there.
fn metadata_file(target: &Target, dataset: &DatasetMetadata, petastorm: Vec<(&str, String)>) -> Result<Vec<u8>> {
    let own = (metadata::KEY, dataset.to_json()?);
    let pairs = petastorm.into_iter().chain([own]);
    let pairs = pairs.map(|(key, value)| KeyValue::new(key.to_owned(), value));
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(pairs.collect()))
        .build();
    let mut bytes = Vec::new();
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let writer = ArrowWriter::try_new_with_options(&mut bytes, target.columns.clone(), options);
    writer.and_then(ArrowWriter::close).map_err(write_error)?;
    Ok(bytes)
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
    Error::new(kind, "cannot write to the destination")
        .at("URL", url)
        .with_source(error)
}
