//! What is in a directory against what its metadata say: Squall's, Petastorm's, or none.

use std::collections::{BTreeMap, BTreeSet};

use object_store::path::Path;
use squall_dataset::{Dataset, Origin, Seal, Store, check_seal, listing, partition};
use squall_schema::footer::key_values_of_file;
use squall_schema::metadata::{self, DatasetMetadata, FileEntry};
use squall_schema::petastorm::index::Entries;
use squall_schema::petastorm::{INDEX_KEY, ROW_GROUPS_KEY, UNISCHEMA_KEY};
use squall_schema::{Error, Result};

use super::file::Expected;

/// A program that gives the metadata file new keys and keeps those that it had: pyarrow, as Petastorm's tools use it.
const PYARROW: &[u8] = b"parquet-cpp";

/// What was found out before a data file is opened.
#[derive(Default)]
pub(super) struct Directory {
    pub(super) files: Vec<Expected>,
    /// Whether Squall wrote the metadata.
    pub(super) is_squall: bool,
    /// Data files that the metadata do not know.
    pub(super) orphans: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) problems: Vec<Error>,
}

/// Reads the metadata files and lists the directory.
pub(super) async fn look(store: &Store) -> Result<Directory> {
    let mut directory = Directory::default();
    let stored = match store.only() {
        Some(_) => None,
        None => directory.read_metadata(store).await?,
    };
    let listed = match (&stored, store.only()) {
        (_, Some(only)) => {
            let head = store.head(only).await?;
            head.map(|found| (only.clone(), found.size)).into_iter().collect()
        }
        (stored, None) => match store.list().await {
            Ok(listed) => listed.into_iter().map(|file| (file.location, file.size)).collect(),
            // A web server without a listing: the files are asked for by their names.
            Err(error) if stored.is_some() => {
                let why = error.message();
                directory
                    .notes
                    .push(format!("files that are not in the metadata were not looked for: {why}"));
                heads(store, stored.as_ref()).await?
            }
            Err(error) => return Err(error),
        },
    };
    let listed: BTreeMap<Path, u64> = listed;
    match stored {
        Some(stored) => directory.compare(stored, &listed),
        None => {
            let is_only = |path: &Path| store.only() == Some(path);
            let data = listed
                .iter()
                .filter(|(path, _)| is_only(path) || !listing::is_hidden(path));
            let expected = data.map(|(path, size)| Expected {
                path: path.clone(),
                size: *size,
                entry: None,
                hadoop: hadoop(path, &listed),
            });
            directory.files = expected.collect();
            if directory.files.is_empty() {
                directory
                    .problems
                    .push(Error::corrupt("there is no Parquet file in the directory"));
            }
        }
    }
    Ok(directory)
}

/// The sizes of the files that the metadata name.
async fn heads(store: &Store, stored: Option<&DatasetMetadata>) -> Result<BTreeMap<Path, u64>> {
    let mut found = BTreeMap::new();
    for file in stored.into_iter().flat_map(|stored| &stored.files) {
        if let Ok(path) = Path::parse(&file.path)
            && let Some(head) = store.head(&path).await?
        {
            found.insert(path, head.size);
        }
    }
    Ok(found)
}

/// The file of Hadoop's checksums beside a file.
fn hadoop(path: &Path, listed: &BTreeMap<Path, u64>) -> Option<(Path, u64)> {
    let (directory, name) = path.as_ref().rsplit_once('/').unwrap_or(("", path.as_ref()));
    let sums = match directory {
        "" => Path::parse(format!(".{name}.crc")),
        directory => Path::parse(format!("{directory}/.{name}.crc")),
    };
    let sums = sums.ok()?;
    let size = *listed.get(&sums)?;
    Some((sums, size))
}

impl Directory {
    async fn read_metadata(&mut self, store: &Store) -> Result<Option<DatasetMetadata>> {
        let Some(bytes) = store.get(&Path::from(metadata::FILE)).await? else {
            return Ok(None);
        };
        let at = |error: Error| error.at("file", metadata::FILE);
        let pairs = match key_values_of_file(&bytes) {
            Ok(pairs) => pairs,
            Err(error) => {
                self.problems.push(at(error));
                return Ok(None);
            }
        };
        self.check_petastorm(store, &pairs).await?;
        let stored = pairs
            .get(metadata::KEY.as_bytes())
            .map(|text| DatasetMetadata::from_json(text));
        let stored = match stored {
            Some(Ok(stored)) => Some(stored),
            Some(Err(error)) => {
                self.is_squall = true;
                self.problems.push(at(error));
                None
            }
            None => None,
        };
        let has_checksums = stored
            .iter()
            .flat_map(|own| &own.files)
            .any(|file| file.checksum.is_some());
        let is_rewritten = bytes.windows(PYARROW.len()).any(|window| window == PYARROW);
        match check_seal(&bytes) {
            Seal::Whole => {}
            Seal::Absent if !has_checksums => {}
            _ if is_rewritten => self.notes.push(format!(
                "{} was written anew by pyarrow since: nothing tells whether its own bytes are whole",
                metadata::FILE
            )),
            Seal::Absent => self
                .problems
                .push(at(Error::corrupt("the metadata file has lost its own checksum"))),
            Seal::Broken => self.problems.push(at(Error::corrupt(
                "the metadata file is not the one that was written: its own checksum is another",
            ))),
        }
        self.is_squall |= stored.is_some();
        Ok(stored)
    }

    /// Petastorm's keys belong together: without the Unischema cells are bytes, without the rest Petastorm opens nothing.
    async fn check_petastorm(&mut self, store: &Store, pairs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
        let has = |key: &str| pairs.contains_key(key.as_bytes());
        let others = [ROW_GROUPS_KEY, INDEX_KEY].into_iter().find(|key| has(key));
        let message = match (has(UNISCHEMA_KEY), others) {
            (false, Some(other)) => format!("there is Petastorm's key {other:?} and no Unischema"),
            (true, _) if !has(ROW_GROUPS_KEY) && store.head(&Path::from("_metadata")).await?.is_none() => {
                "there is a Unischema, but neither Petastorm's row-group map nor a _metadata file".to_owned()
            }
            _ => return Ok(()),
        };
        self.problems.push(Error::corrupt(message).at("file", metadata::FILE));
        Ok(())
    }

    /// Squall's description against the listing.
    fn compare(&mut self, stored: DatasetMetadata, listed: &BTreeMap<Path, u64>) {
        let mut known = BTreeSet::new();
        for entry in stored.files {
            let at = |error: Error| error.at("file", &entry.path);
            let Ok(path) = Path::parse(&entry.path) else {
                self.problems
                    .push(at(Error::corrupt("the metadata have a file whose name is no path")));
                continue;
            };
            if !known.insert(path.clone()) {
                self.problems
                    .push(at(Error::corrupt("the metadata have the file twice")));
                continue;
            }
            self.problems.extend(misplaced(&entry, &stored.partition_by).map(at));
            match listed.get(&path) {
                Some(size) => self.files.push(Expected {
                    size: *size,
                    hadoop: hadoop(&path, listed),
                    path,
                    entry: Some(entry),
                }),
                None => self
                    .problems
                    .push(at(Error::corrupt("the file is gone, its metadata are there"))),
            }
        }
        let orphans = listed
            .keys()
            .filter(|path| !known.contains(*path) && !listing::is_hidden(path));
        self.orphans = orphans.map(Path::to_string).collect();
    }

    /// What the open dataset says of itself.
    pub(super) fn describe(&mut self, dataset: &Dataset) {
        self.problems.extend(dataset.notes().iter().map(Error::corrupt));
        for column in dataset.unsupported() {
            let note = format!("column {:?} is not read: {}", column.name, column.reason);
            self.notes.push(note);
        }
        if let (Origin::Petastorm(name), Some(columns)) = (dataset.origin(), dataset.columns()) {
            let partitions = dataset.partition_fields();
            for field in dataset.schema().fields() {
                let in_files = columns.iter().any(|column| *column.name() == field.name);
                if !in_files && partitions.iter().all(|own| own.name != field.name) {
                    let message = format!("the Unischema {name} has the field {:?}, and no file does", field.name);
                    self.problems.push(Error::corrupt(message));
                }
            }
            for column in columns {
                if dataset.schema().get(column.name()).is_none()
                    && dataset.unsupported().iter().all(|own| own.name != *column.name())
                {
                    let message = format!(
                        "the files have the column {:?}, and the Unischema {name} does not",
                        column.name()
                    );
                    self.notes.push(message);
                }
            }
        }
        match dataset.row_group_indexes() {
            Ok(indexes) => {
                for index in indexes {
                    let at = |error: Error| error.at("row-group index", &index.name);
                    if dataset.schema().get(&index.column).is_none() {
                        let message = format!("it is of the column {:?}, which there is not", index.column);
                        self.problems.push(at(Error::corrupt(message)));
                    }
                    let last = match &index.entries {
                        Entries::Values(values) => values.iter().filter_map(|(_, own)| own.last()).max().copied(),
                        Entries::NotNull(row_groups) => row_groups.last().copied(),
                        _ => None,
                    };
                    let row_groups = dataset.pieces().len();
                    if last.is_some_and(|last| last as usize >= row_groups) {
                        let last = last.unwrap_or_default();
                        let message = format!("it tells of row group {last}, but there are {row_groups}");
                        self.problems.push(at(Error::corrupt(message)));
                    }
                }
            }
            // The stale map behind it is told already.
            Err(_) if !dataset.notes().is_empty() => {}
            Err(error) => self.problems.push(error.without_place("URL")),
        }
    }
}

/// The values of the partition against the directories that the file lies in.
fn misplaced(entry: &FileEntry, partition_by: &[String]) -> Option<Error> {
    let found = partition::parse(&entry.path);
    let differs = partition_by
        .iter()
        .find(|name| found.get(*name) != entry.partition.get(*name))?;
    let shown = |value: Option<&Option<String>>| format!("{:?}", value.cloned().flatten());
    Some(Error::corrupt(format!(
        "the directories say {} of the partition field {differs:?}, the metadata {}",
        shown(found.get(differs)),
        shown(entry.partition.get(differs))
    )))
}
