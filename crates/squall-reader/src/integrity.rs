//! Whether a dataset is whole: what its metadata say against what is there, down to the last cell.
//!
//! `directory` reads the metadata and lists the files, `file` checks each from outside, `row_group` its pages and cells. Files
//! and row groups are read side by side, each a window at a time; all that is wrong is told, not the first alone.

mod directory;
mod file;
mod row_group;
mod source;

use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, stream};
use serde::Serialize;
use squall_dataset::{Dataset, DatasetUrl, OpenOptions, Store, StoreOptions};
use squall_schema::{Error, Result, Schema};

use self::directory::Directory;
use self::file::Expected;
use self::row_group::{Found, RowGroup};
use self::source::Source;
use crate::io::Io;
use crate::scan::blocking;

/// Problems that are listed when nothing else is said.
pub const DEFAULT_PROBLEMS: usize = 100;
/// Most files or row groups that are read at a time: each takes a thread that waits for others of the runtime.
const MOST_WORKERS: usize = 8;

/// How much of a dataset is read to verify it. Each depth does what those before it do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum VerifyDepth {
    /// Metadata, listing, footers and page indexes; no page.
    Files,
    /// The checksums of whole files too, and each page: its header, its own checksum, its compression.
    Pages,
    /// Each cell is decoded too.
    #[default]
    Cells,
}

/// How a dataset is verified.
#[derive(Clone)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// How much is read; [`VerifyDepth::Cells`] if not given.
    pub depth: VerifyDepth,
    /// Most problems that are listed; all are counted but those behind so many of one column. [`DEFAULT_PROBLEMS`] if not given.
    pub at_most: usize,
    /// Files or row groups that are read at a time; as many as there are processors, and 8 at most, if not given.
    pub workers: Option<usize>,
    /// How the store is reached.
    pub store: StoreOptions,
    /// Called after each row group.
    pub progress: Option<Arc<dyn Fn(VerifyProgress) + Send + Sync>>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            depth: VerifyDepth::default(),
            at_most: DEFAULT_PROBLEMS,
            workers: None,
            store: StoreOptions::default(),
            progress: None,
        }
    }
}

impl fmt::Debug for VerifyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyOptions")
            .field("depth", &self.depth)
            .field("at_most", &self.at_most)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Row groups that are done.
    pub row_groups: u64,
    /// Bytes of them as stored.
    pub bytes: u64,
    /// Bytes of all files.
    pub of_bytes: u64,
    /// Problems so far.
    pub problems: u64,
}

/// Something that is wrong with a dataset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, below the dataset's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The row group of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_group: Option<u64>,
    /// The column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The row of the row group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    fn of(error: Error) -> Self {
        let number = |place| error.place(place).and_then(|value| value.parse().ok());
        let text = |place| error.place(place).map(str::to_owned);
        let mut problem = Self {
            file: text("file"),
            row_group: number("row group"),
            column: text("column"),
            row: number("row"),
            message: String::new(),
        };
        let rest = ["file", "row group", "column", "row", "URL"];
        let error = rest.into_iter().fold(error, |error, place| error.without_place(place));
        problem.message = error.to_string().replace('\n', " ");
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            row_group,
            column,
            row,
            message,
        } = self;
        if let Some(file) = file {
            write!(f, "{file}: ")?;
        }
        if let Some(row_group) = row_group {
            write!(f, "row group {row_group}: ")?;
        }
        if let Some(column) = column {
            write!(f, "column {column}: ")?;
        }
        if let Some(row) = row {
            write!(f, "row {row}: ")?;
        }
        f.write_str(message)
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Data files that are there and should be.
    pub files: u64,
    /// Those of them that a checksum of all their bytes was compared for.
    pub checksums: u64,
    /// Row groups that were looked at.
    pub row_groups: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Pages that were read, where cells were not.
    pub pages: u64,
    /// Cells that were decoded: rows times columns.
    pub cells: u64,
    /// How many problems there are.
    pub n_problems: u64,
    /// These, by place, as many as were asked for.
    pub problems: Vec<Problem>,
    /// Data files that Squall's metadata do not name. No reader of Squall's reads them; others do.
    pub orphans: Vec<String>,
    /// What could not be checked, and what is unusual but not wrong.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.n_problems == 0
    }
}

/// Reads a dataset to find out whether it is whole: one that Squall wrote, one of Petastorm's, or any directory of Parquet
/// files. It is an error only where nothing can be said, as of a place that is not there.
///
/// Bytes that are read at a time do not depend on the size of files and row groups, but on that of pages.
pub fn verify_dataset(url: &str, options: &VerifyOptions) -> Result<VerifyReport> {
    let url = DatasetUrl::parse(url)?;
    let io = Io::new()?;
    io.wait(verify(&url, options))
}

async fn verify(url: &DatasetUrl, options: &VerifyOptions) -> Result<VerifyReport> {
    let store = Store::open_with(url, &options.store).await?;
    let mut directory = directory::look(&store).await.map_err(|error| error.at("URL", url))?;
    let opened = Dataset::open_with(url, &OpenOptions::default().with_store(options.store.clone())).await;
    let (schema, unopened) = match opened {
        Ok(dataset) => {
            directory.describe(&dataset);
            (Some(Arc::new(dataset.schema().clone())), None)
        }
        Err(error) => (None, Some(error)),
    };
    let Directory {
        files,
        orphans,
        notes,
        problems,
        ..
    } = directory;
    let mut tally = Tally {
        bytes_done: 0,
        of_bytes: files.iter().map(|file| file.size).sum(),
        options,
        report: VerifyReport {
            files: files.len() as u64,
            orphans,
            notes,
            ..VerifyReport::default()
        },
    };
    tally.report.bytes = tally.of_bytes;
    tally.add(problems);
    let workers = options
        .workers
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let workers = workers.clamp(1, MOST_WORKERS);
    let reading = Reading {
        store,
        schema,
        depth: options.depth,
        at_most: options.at_most.max(1),
    };
    let opened = stream::iter(files)
        .map(|file| reading.file(file))
        .buffer_unordered(workers);
    let row_groups = opened.flat_map(|(checked, row_groups)| {
        let first = stream::iter([Step::File(checked)]);
        first.chain(stream::iter(row_groups.into_iter().map(Step::RowGroup)))
    });
    let mut done = row_groups.map(|step| reading.step(step)).buffer_unordered(workers);
    while let Some(step) = done.next().await {
        tally.take(step);
    }
    drop(done);
    if let Some(error) = unopened
        && tally.report.is_sound()
    {
        // What was found says why it cannot be opened, unless nothing was.
        tally.add([error]);
    }
    let mut report = tally.report;
    report.problems.sort();
    Ok(report)
}

struct Reading {
    store: Store,
    schema: Option<Arc<Schema>>,
    depth: VerifyDepth,
    at_most: usize,
}

enum Step {
    File(FileDone),
    RowGroup(RowGroup),
}

enum Done {
    File(FileDone),
    RowGroup { rows: u64, bytes: u64, found: Found },
}

struct FileDone {
    problems: Vec<Error>,
    has_checksum: bool,
}

impl Reading {
    async fn file(&self, file: Expected) -> (FileDone, Vec<RowGroup>) {
        let source = Source::new(&self.store, &file.path, file.size);
        let (store, path, with_bytes) = (self.store.clone(), file.path.clone(), self.depth >= VerifyDepth::Pages);
        let checked = blocking({
            let source = source.clone();
            move || Ok(file::check(&file, &source, &store, with_bytes))
        });
        let at = |error: Error| error.at("file", &path);
        match checked.await {
            Ok(checked) => {
                let row_group = |footer: &Arc<_>, ordinal| RowGroup {
                    source: source.clone(),
                    footer: Arc::clone(footer),
                    ordinal,
                    index_is_sane: checked.index_is_sane,
                    schema: self.schema.clone(),
                    at_most: self.at_most,
                };
                let row_groups = checked.footer.as_ref().map(|footer| {
                    let ordinals = 0..footer.num_row_groups();
                    ordinals.map(|ordinal| row_group(footer, ordinal)).collect()
                });
                let done = FileDone {
                    problems: checked.problems.into_iter().map(at).collect(),
                    has_checksum: checked.has_checksum,
                };
                (done, row_groups.unwrap_or_default())
            }
            Err(error) => {
                let done = FileDone {
                    problems: vec![at(error)],
                    has_checksum: false,
                };
                (done, Vec::new())
            }
        }
    }

    async fn step(&self, step: Step) -> Done {
        let row_group = match step {
            Step::File(done) => return Done::File(done),
            Step::RowGroup(row_group) => row_group,
        };
        let path = row_group.source.path().clone();
        let footer = row_group.footer.row_group(row_group.ordinal);
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        let (rows, bytes) = (count(footer.num_rows()), count(footer.compressed_size()));
        let depth = self.depth;
        let read = blocking(move || {
            Ok(match depth {
                VerifyDepth::Files => Found::default(),
                VerifyDepth::Pages => row_group.pages(),
                VerifyDepth::Cells => row_group.cells(),
            })
        });
        let mut found = read.await.unwrap_or_else(|error| Found {
            problems: vec![error],
            ..Found::default()
        });
        found.problems = found
            .problems
            .into_iter()
            .map(|error| error.at("file", &path))
            .collect();
        Done::RowGroup { rows, bytes, found }
    }
}

/// What is added up.
struct Tally<'a> {
    bytes_done: u64,
    of_bytes: u64,
    options: &'a VerifyOptions,
    report: VerifyReport,
}

impl Tally<'_> {
    fn add(&mut self, problems: impl IntoIterator<Item = Error>) {
        for error in problems {
            self.report.n_problems += 1;
            if self.report.problems.len() < self.options.at_most {
                self.report.problems.push(Problem::of(error));
            }
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::File(file) => {
                self.report.checksums += u64::from(file.has_checksum);
                self.add(file.problems);
            }
            Done::RowGroup { rows, bytes, found } => {
                let report = &mut self.report;
                report.row_groups += 1;
                report.rows = report.rows.saturating_add(rows);
                report.pages += found.pages;
                report.cells += found.cells;
                self.add(found.problems);
                self.tell(bytes);
            }
        }
    }

    fn tell(&mut self, bytes: u64) {
        self.bytes_done = self.bytes_done.saturating_add(bytes);
        if let Some(progress) = &self.options.progress {
            progress(VerifyProgress {
                row_groups: self.report.row_groups,
                bytes: self.bytes_done,
                of_bytes: self.of_bytes,
                problems: self.report.n_problems,
            });
        }
    }
}
