//! The ledger: what was delivered, written down where it is handed out.
//!
//! Each rank appends to a file of its own, a JSON object a line: first who it is and where it begins, then for each range of
//! steps which samples it took part in, and a digest of the rows that it gave, in their order. [`verify_ledger`](crate::verify_ledger)
//! merges the files of all ranks. A reader that resumes, or moves in its order, begins anew with a line of the first kind.

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use squall_schema::{Error, ErrorKind, Result, RowId};
use xxhash_rust::xxh3::Xxh3;

use crate::bad_rows::BadRow;
use crate::share::{Remainder, Share};
use crate::state::ReaderState;

/// Version of the files.
pub(crate) const VERSION: u32 = 1;

/// Where a reader writes down what it delivers.
///
/// ```no_run
/// # fn main() -> squall_schema::Result<()> {
/// use squall_reader::{Ledger, make_batch_reader};
///
/// let reader = make_batch_reader("/data/train").rank(0, 8).ledger(Ledger::new("/runs/7/ledger").every(100)).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Ledger {
    directory: PathBuf,
    every: u64,
}

impl Ledger {
    /// A ledger in a directory that all ranks of a run share, and the runs that resume it. It is made if it is not there.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            every: 1,
        }
    }

    /// Steps of an epoch that make one line; 1 if not given. The steps of a line that is not written yet when a process is
    /// killed count as not delivered.
    #[must_use]
    pub fn every(mut self, steps: u64) -> Self {
        self.every = steps;
        self
    }

    /// The ledger of one rank. Its file is made when the first batch is delivered.
    ///
    /// `member` is the process's rank and the number of processes where groups of ranks take the same samples, and its place in
    /// its group.
    pub(crate) fn open(&self, share: Share, member: Option<(u64, u64, u64)>) -> Result<LedgerWriter> {
        if self.every == 0 {
            return Err(Error::invalid(
                "expected a line of the ledger every 1 step or more, found 0",
            ));
        }
        let (rank, world_size, replica) = member.unwrap_or((share.rank, share.world_size, 0));
        let name = format!("rank-{rank:06}-of-{world_size:06}.jsonl");
        Ok(LedgerWriter {
            path: self.directory.join(name),
            every: self.every,
            share,
            replica,
            file: None,
            began: false,
            range: None,
        })
    }
}

/// Who writes, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) ledger: u32,
    pub(crate) rank: u64,
    pub(crate) world_size: u64,
    /// The place in its group where groups of ranks take the same samples; rank and world size are those of groups then.
    #[serde(default, skip_serializing_if = "is_first")]
    pub(crate) replica: u64,
    pub(crate) global_batch: u64,
    pub(crate) remainder: String,
    /// Milliseconds since 1970, to know which run went on from which.
    pub(crate) started: u64,
    pub(crate) state: ReaderState,
}

fn is_first(replica: &u64) -> bool {
    *replica == 0
}

/// A range of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) epoch: u64,
    /// Samples of the global batches, those of the padding left out.
    pub(crate) samples: Range<u64>,
    /// Rows that the rank gave.
    pub(crate) rows: u64,
    /// Of the rows, in their order.
    pub(crate) digest: String,
    /// Rows that took the place of bad ones: the sample, and piece and row of the substitute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) substitutes: Vec<(u64, u32, u64)>,
}

pub(crate) fn remainder_name(remainder: Remainder) -> &'static str {
    match remainder {
        Remainder::Keep => "keep",
        Remainder::Drop => "drop",
        Remainder::Pad => "pad",
    }
}

/// A digest of rows in their order.
#[derive(Default)]
pub(crate) struct RowDigest(Xxh3);

impl RowDigest {
    pub(crate) fn add(&mut self, row: &RowId) {
        self.0.write_u64(row.sample);
        self.0.write_u32(row.dataset);
        self.0.write_u32(row.piece);
        self.0.write_u64(row.row);
        self.0.write_u8(u8::from(row.padded));
    }

    pub(crate) fn text(&self) -> String {
        format!("{:016x}", self.0.digest())
    }
}

/// What a ledger takes of a batch.
#[derive(Debug, Clone)]
pub struct LedgerEntry {
    pub(crate) epoch: u64,
    pub(crate) samples: Range<u64>,
    pub(crate) ids: Vec<RowId>,
    pub(crate) substitutes: Vec<(u64, u32, u64)>,
    /// Where the reader stood before the batch.
    pub(crate) before: ReaderState,
}

impl LedgerEntry {
    pub(crate) fn substitutes(bad: &[BadRow]) -> Vec<(u64, u32, u64)> {
        let substitute = |bad: &BadRow| (bad.row.sample, bad.substitute.piece, bad.substitute.row);
        bad.iter().map(substitute).collect()
    }
}

struct Open {
    epoch: u64,
    samples: Range<u64>,
    steps: u64,
    rows: u64,
    digest: RowDigest,
    substitutes: Vec<(u64, u32, u64)>,
}

/// The ledger of one rank.
pub struct LedgerWriter {
    path: PathBuf,
    every: u64,
    share: Share,
    replica: u64,
    file: Option<File>,
    /// Whether the header of what comes is written.
    began: bool,
    /// Steps that make no whole line yet.
    range: Option<Open>,
}

impl LedgerWriter {
    /// Writes down a batch that is handed out.
    pub fn write(&mut self, entry: LedgerEntry) -> Result<()> {
        if !self.began {
            self.begin(&entry.before)?;
        }
        let follows = |open: &Open| open.epoch == entry.epoch && open.samples.end == entry.samples.start;
        if self.range.as_ref().is_some_and(|open| !follows(open)) {
            self.flush()?;
        }
        let open = self.range.get_or_insert_with(|| Open {
            epoch: entry.epoch,
            samples: entry.samples.start..entry.samples.start,
            steps: 0,
            rows: 0,
            digest: RowDigest::default(),
            substitutes: Vec::new(),
        });
        open.samples.end = entry.samples.end;
        open.steps += 1;
        open.rows += entry.ids.len() as u64;
        entry.ids.iter().for_each(|row| open.digest.add(row));
        open.substitutes.extend(entry.substitutes);
        if open.steps >= self.every {
            self.flush()?;
        }
        Ok(())
    }

    /// The ledger of a reader that is given other batches before it has begun.
    pub(crate) fn rebatch(&mut self, share: Share) {
        self.share = share;
    }

    /// Says that what comes does not follow what came.
    pub fn restart(&mut self) -> Result<()> {
        self.flush()?;
        self.began = false;
        Ok(())
    }

    /// Writes the steps that make no whole line yet.
    pub fn flush(&mut self) -> Result<()> {
        let Some(open) = self.range.take() else {
            return Ok(());
        };
        self.append(&Line {
            epoch: open.epoch,
            samples: open.samples,
            rows: open.rows,
            digest: open.digest.text(),
            substitutes: open.substitutes,
        })
    }

    fn begin(&mut self, state: &ReaderState) -> Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let header = Header {
            ledger: VERSION,
            rank: self.share.rank,
            world_size: self.share.world_size,
            replica: self.replica,
            global_batch: self.share.global_batch,
            remainder: remainder_name(self.share.remainder).to_owned(),
            started: since.map_or(0, |since| since.as_millis() as u64),
            state: state.clone(),
        };
        self.append(&header)?;
        self.began = true;
        Ok(())
    }

    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Storage, "cannot write the ledger")
                .at("file", self.path.display())
                .with_source(error)
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(directory) = self.path.parent() {
                    fs::create_dir_all(directory).map_err(failed)?;
                }
                let file = OpenOptions::new().create(true).read(true).append(true).open(&self.path);
                let mut file = file.map_err(failed)?;
                end_line(&mut file).map_err(failed)?;
                self.file.insert(file)
            }
        };
        let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        // One write a line: what is there after a crash is whole lines, but for the last one.
        file.write_all(text.as_bytes()).map_err(failed)
    }
}

/// Ends the line within which a process was killed, so that what comes stands on lines of its own.
fn end_line(file: &mut File) -> std::io::Result<()> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    match last {
        [b'\n'] => Ok(()),
        _ => file.write_all(b"\n"),
    }
}

impl Drop for LedgerWriter {
    fn drop(&mut self) {
        // Nobody is left to tell; the steps then count as not delivered.
        let _ = self.flush();
    }
}
