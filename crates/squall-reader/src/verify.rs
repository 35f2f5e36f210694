//! Merges the ledgers of all ranks: was every row delivered once?
//!
//! A ledger says which samples a rank took part in, and has a digest of the rows that it gave. The order says which rows
//! these are, so a line whose digest is right is as good as the list of its rows. What runs delivered beyond the state that
//! the next one resumed was rolled back with the trainer, and does not count.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use squall_schema::{Error, ErrorKind, Result, RowId};

use crate::builder::ReaderBuilder;
use crate::gather::Picked;
use crate::ledger::{Header, Line, RowDigest, VERSION, remainder_name};
use crate::plan::{ReadPlan, Schedule};
use crate::questions::{EpochPlan, SampleOrigin};
use crate::reader::BatchReader;
use crate::share::{Remainder, Share};

/// Most bytes of a ledger's line: files come from many machines.
const MAX_LINE: usize = 1 << 24;

/// What the ledgers of a run say.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct LedgerReport {
    /// Files that were read.
    pub files: usize,
    /// Times that the run was started or resumed.
    pub runs: usize,
    /// Samples that were delivered, those of the padding not counted.
    pub delivered: u64,
    /// Samples that were padding.
    pub padded: u64,
    /// Bad rows that were replaced.
    pub substituted: u64,
    /// Samples that were delivered and rolled back, because the run was resumed from a state before them.
    pub rolled_back: u64,
    /// How far the run went: an epoch, and the first sample of it that no rank took.
    pub position: (u64, u64),
    /// Rows before the position that nobody got.
    pub missing: Vec<LedgerRow>,
    /// Rows that came more than once in an epoch.
    pub doubled: Vec<LedgerRow>,
    /// Lines whose rows are not those that the order says.
    pub mismatches: Vec<LedgerMismatch>,
    /// The last lines of files that end within a line, as those of killed processes may.
    pub torn: Vec<PathBuf>,
}

impl LedgerReport {
    /// Whether every row was delivered once, as the order says.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.doubled.is_empty() && self.mismatches.is_empty()
    }
}

/// A row of a ledger's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerRow {
    /// The epoch.
    pub epoch: u64,
    /// Where it is stored.
    #[serde(flatten)]
    pub origin: SampleOrigin,
}

/// A line of a ledger with other rows than those of the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerMismatch {
    /// The file of the ledger.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What was expected and found.
    pub what: String,
}

/// Reads the ledgers in a directory, or one file, and checks them against the order of a dataset.
///
/// `builder` opens the dataset with the options of the run that select and sample rows; seed and order options come from the
/// ledger. Nothing of the dataset is read but what selects rows.
pub fn verify_ledger(builder: ReaderBuilder<BatchReader>, ledger: impl AsRef<Path>) -> Result<LedgerReport> {
    let mut report = LedgerReport::default();
    let mut segments = Vec::new();
    for file in ledger_files(ledger.as_ref())? {
        read_file(&file, &mut segments, &mut report)?;
        report.files += 1;
    }
    let Some(first) = segments.first() else {
        return Err(Error::new(ErrorKind::NotFound, "the ledger has no line").at("file", ledger.as_ref().display()));
    };
    let (plan, _io) = builder.resume(first.header.state.clone()).into_options().plan()?;
    let identity = plan.identity();
    for segment in &segments {
        segment
            .header
            .state
            .check(&identity)
            .map_err(|error| error.at("line", segment.line).at("file", segment.file.display()))?;
    }
    let runs = runs(segments);
    report.runs = runs.len();
    for segment in runs.iter().flat_map(|run| &run.segments) {
        check_line_up(segment, plan.len(), &mut report)?;
    }
    let plan = Arc::new(plan);
    let lines = || {
        runs.iter()
            .flat_map(|run| &run.segments)
            .flat_map(|segment| &segment.lines)
    };
    let begin = runs.iter().map(|run| run.start).min().unwrap_or_default();
    let last = lines().map(|(_, line)| line.epoch).max().unwrap_or(0);
    // One epoch after the other, so that memory is that of one.
    for epoch in begin.0..=last {
        let mut audit = Audit::new(plan.clone(), epoch)?;
        for (place, run) in runs.iter().enumerate() {
            // What a later run began at or before was rolled back.
            let until = runs[place + 1..].iter().map(|later| later.start).min();
            for segment in &run.segments {
                audit.segment(segment, until, &mut report)?;
            }
        }
        let from = if epoch == begin.0 { begin.1 } else { 0 };
        audit.close(from, epoch == last, &mut report)?;
    }
    Ok(report)
}

/// What one rank wrote down between one begin and the next.
struct Segment {
    file: PathBuf,
    /// The line of the header, from 1.
    line: usize,
    header: Header,
    lines: Vec<(usize, Line)>,
}

fn ledger_files(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Storage,
        };
        Error::new(kind, "cannot read the ledger")
            .at("file", path.display())
            .with_source(error)
    };
    if fs::metadata(path).map_err(failed)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, segments: &mut Vec<Segment>, report: &mut LedgerReport) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Storage, "cannot read the ledger")
            .at("file", path.display())
            .with_source(error)
    };
    let text = fs::read(path).map_err(failed)?;
    let mut own: Vec<Segment> = Vec::new();
    let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for (i, line) in lines.iter().enumerate() {
        let at = |error: Error| error.at("line", i + 1).at("file", path.display());
        if !line.ends_with(b"\n") && i + 1 == lines.len() {
            report.torn.push(path.to_owned());
            break;
        }
        if line.len() > MAX_LINE {
            return Err(at(Error::corrupt(format!(
                "a line of more than {MAX_LINE} bytes in a ledger"
            ))));
        }
        let damaged = |error: serde_json::Error| at(Error::corrupt("not a line of a ledger").with_source(error));
        match serde_json::from_slice::<Header>(line) {
            Ok(header) if header.ledger == VERSION => own.push(Segment {
                file: path.to_owned(),
                line: i + 1,
                header,
                lines: Vec::new(),
            }),
            Ok(header) => {
                return Err(at(Error::unsupported(format!(
                    "a ledger of version {}: expected {VERSION}",
                    header.ledger
                ))));
            }
            Err(_) => {
                let line: Line = serde_json::from_slice(line).map_err(damaged)?;
                let segment = own.last_mut();
                let segment = segment.ok_or_else(|| at(Error::corrupt("a ledger that does not say whose it is")))?;
                segment.lines.push((i + 1, line));
            }
        }
    }
    segments.extend(own);
    Ok(())
}

/// What the ranks did between a start and the next.
struct Run {
    /// The epoch and sample where it began.
    start: (u64, u64),
    started: u64,
    segments: Vec<Segment>,
}

/// Segments of different ranks that began at the same state, in the order of time. The second time that a rank begins at a
/// state is another run.
fn runs(segments: Vec<Segment>) -> Vec<Run> {
    let mut times: HashMap<(u64, u64, (u64, u64)), usize> = HashMap::new();
    let mut runs: BTreeMap<((u64, u64), u64, usize), Run> = BTreeMap::new();
    for segment in segments {
        let header = &segment.header;
        let start = (header.state.epoch, header.state.next);
        let time = times.entry((header.rank, header.world_size, start)).or_default();
        let run = runs.entry((start, header.world_size, *time)).or_insert_with(|| Run {
            start,
            started: header.started,
            segments: Vec::new(),
        });
        *time += 1;
        run.started = run.started.min(header.started);
        run.segments.push(segment);
    }
    let mut runs: Vec<_> = runs.into_values().collect();
    runs.sort_by_key(|run| (run.started, run.start));
    runs
}

/// Notes where the lines of a rank do not follow one another.
fn check_line_up(segment: &Segment, len: u64, report: &mut LedgerReport) -> Result<()> {
    let share = segment.share()?;
    let mut next = (segment.header.state.epoch, segment.header.state.next);
    for (line, entry) in &segment.lines {
        if share.steps(len, next.1) == 0 {
            next = (next.0.saturating_add(1), 0);
        }
        if (entry.epoch, entry.samples.start) != next {
            report.mismatches.push(LedgerMismatch {
                file: segment.file.clone(),
                line: *line,
                what: format!(
                    "expected to go on at sample {} of epoch {}, found sample {} of epoch {}",
                    next.1, next.0, entry.samples.start, entry.epoch
                ),
            });
        }
        next = (entry.epoch, entry.samples.end);
    }
    Ok(())
}

impl Segment {
    fn share(&self) -> Result<Share> {
        let header = &self.header;
        let at = |error: Error| error.at("line", self.line).at("file", self.file.display());
        let known = [Remainder::Keep, Remainder::Drop, Remainder::Pad];
        let remainder = known.into_iter().find(|own| remainder_name(*own) == header.remainder);
        let share = Share {
            rank: header.rank,
            world_size: header.world_size,
            global_batch: header.global_batch,
            remainder: remainder
                .ok_or_else(|| at(Error::corrupt(format!("unknown remainder {:?}", header.remainder))))?,
        };
        share.validate().map_err(at)?;
        Ok(share)
    }
}

/// One epoch, and its samples that were seen so far.
struct Audit {
    plan: Arc<ReadPlan>,
    epoch: u64,
    seen: Vec<u64>,
    /// The samples that somebody should have got: the end of the epoch for the last run that took part in it.
    end: u64,
    /// The first sample behind all batches that somebody took part in.
    furthest: u64,
    /// The schedule of the last share, which serves all ranks.
    schedule: Option<(Share, Schedule)>,
}

impl Audit {
    fn new(plan: Arc<ReadPlan>, epoch: u64) -> Result<Self> {
        let words = usize::try_from(plan.len().div_ceil(64));
        let words = words.map_err(|_| Error::unsupported("a ledger of more samples than fit memory"))?;
        Ok(Self {
            end: plan.len(),
            plan,
            epoch,
            seen: vec![0; words],
            furthest: 0,
            schedule: None,
        })
    }

    fn segment(&mut self, segment: &Segment, until: Option<(u64, u64)>, report: &mut LedgerReport) -> Result<()> {
        let share = segment.share()?;
        let at = |error: Error| error.at("line", segment.line).at("file", segment.file.display());
        share.validate_for(self.plan.len()).map_err(at)?;
        let epoch = self.epoch;
        for (line, entry) in segment.lines.iter().filter(|(_, entry)| entry.epoch == epoch) {
            let header = &segment.header.state;
            let first = if header.epoch == self.epoch { header.next } else { 0 };
            let steps = share.steps(self.plan.len(), first);
            let rows = steps.saturating_mul(share.global_batch);
            self.end = first.saturating_add(rows).min(self.plan.len());
            let mut mismatch = |what: String| {
                report.mismatches.push(LedgerMismatch {
                    file: segment.file.clone(),
                    line: *line,
                    what,
                });
            };
            let Some(rows) = self.expected(share, entry)? else {
                mismatch(format!(
                    "expected samples of an epoch of {} in batches of {}, found {:?}",
                    self.plan.len(),
                    share.global_batch,
                    entry.samples
                ));
                continue;
            };
            let mut digest = RowDigest::default();
            rows.iter().for_each(|row| digest.add(row));
            if digest.text() != entry.digest || rows.len() as u64 != entry.rows {
                mismatch(format!(
                    "expected {} rows with the digest {}, found {} with {}",
                    rows.len(),
                    digest.text(),
                    entry.rows,
                    entry.digest
                ));
                continue;
            }
            report.substituted += entry.substitutes.len() as u64;
            self.count(&rows, until, report)?;
            let until = until
                .filter(|until| until.0 <= epoch)
                .map(|until| if until.0 < epoch { 0 } else { until.1 });
            self.furthest = self
                .furthest
                .max(until.map_or(entry.samples.end, |until| entry.samples.end.min(until)));
        }
        Ok(())
    }

    /// The rows that a rank takes in these samples, bad ones replaced as the ledger says; `None` where they are no batches.
    fn expected(&mut self, share: Share, entry: &Line) -> Result<Option<Vec<RowId>>> {
        let same = |(own, _): &(Share, Schedule)| {
            Share {
                rank: share.rank,
                ..*own
            } == share
        };
        if !self.schedule.as_ref().is_some_and(same) {
            let plan = ReadPlan {
                share,
                epochs: None,
                ..ReadPlan::clone(&self.plan)
            };
            self.schedule = Some((share, Schedule::new(Arc::new(plan))));
        }
        let Some((_, schedule)) = &mut self.schedule else {
            return Ok(None);
        };
        let substitutes: HashMap<_, _> = entry
            .substitutes
            .iter()
            .map(|(sample, piece, row)| (*sample, (*piece, *row)))
            .collect();
        let mut rows = Vec::new();
        let mut next = entry.samples.start;
        while next < entry.samples.end {
            let Some(batch) = schedule.batch_at(share.rank, self.epoch, next)? else {
                return Ok(None);
            };
            for mut id in Picked::new(&batch).ids {
                if let Some((piece, row)) = substitutes.get(&id.sample) {
                    (id.piece, id.row) = (*piece, *row);
                }
                rows.push(id);
            }
            next = batch.samples.end;
        }
        Ok((next == entry.samples.end).then_some(rows))
    }

    fn count(&mut self, rows: &[RowId], until: Option<(u64, u64)>, report: &mut LedgerReport) -> Result<()> {
        let mut twice = Vec::new();
        for row in rows {
            if row.padded {
                report.padded += 1;
            } else if until.is_some_and(|until| (self.epoch, row.sample) >= until) {
                report.rolled_back += 1;
            } else {
                let word = &mut self.seen[(row.sample / 64) as usize];
                let bit = 1 << (row.sample % 64);
                match *word & bit {
                    0 => report.delivered += 1,
                    _ => twice.push(row.sample),
                }
                *word |= bit;
            }
        }
        twice.sort_unstable();
        report.doubled.extend(self.name(&twice)?);
        Ok(())
    }

    /// Names what nobody got: of the last epoch, in the batches that somebody took part in and before them.
    fn close(self, from: u64, is_last: bool, report: &mut LedgerReport) -> Result<()> {
        let to = if is_last { self.furthest } else { self.end };
        let is_seen = |sample: &u64| self.seen[(sample / 64) as usize] >> (sample % 64) & 1 == 1;
        let missing: Vec<_> = (from..to).filter(|sample| !is_seen(sample)).collect();
        report.missing.extend(self.name(&missing)?);
        if is_last {
            report.position = (self.epoch, to);
        }
        Ok(())
    }

    fn name(&self, samples: &[u64]) -> Result<Vec<LedgerRow>> {
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        let epoch = EpochPlan::new(self.plan.clone(), self.epoch);
        let row = |origin| LedgerRow {
            epoch: self.epoch,
            origin,
        };
        Ok(epoch.origins(samples)?.into_iter().map(row).collect())
    }
}
