//! Merges the ledgers of all ranks: was every row delivered once?
//!
//! A ledger says which samples a rank took part in, and has a digest of the rows that it gave. The order says which rows
//! these are, so a line whose digest is right is as good as the list of its rows. What runs delivered beyond the state that
//! the next one resumed was rolled back with the trainer, and does not count.

mod files;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use squall_schema::{Error, ErrorKind, Result, RowId};

use self::files::{Run, Segment, drop_strays, in_order, ledger_files, read_file};
use crate::builder::ReaderBuilder;
use crate::ledger::{Line, RowDigest};
use crate::picked::Picked;
use crate::plan::{ReadPlan, Schedule};
use crate::questions::{EpochPlan, SampleOrigin};
use crate::reader::BatchReader;
use crate::share::Share;

/// Most rows that are named.
const MAX_NAMED: usize = 1_000_000;

/// What the ledgers of a run say.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct LedgerReport {
    /// Files that were read.
    pub files: usize,
    /// Times that the run was started or resumed, on another world size or from another state.
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
    /// How many rows before the position nobody got.
    pub n_missing: u64,
    /// These rows, a million of them at most.
    pub missing: Vec<LedgerRow>,
    /// How many rows came once more than they should in an epoch.
    pub n_doubled: u64,
    /// These rows, a million of them at most.
    pub doubled: Vec<LedgerRow>,
    /// Runs of epochs, the last one left out, of which no rank wrote anything, though there are later ones.
    pub gaps: Vec<(u64, u64)>,
    /// Lines whose rows are not those that the order says.
    pub mismatches: Vec<LedgerMismatch>,
    /// The last lines of files that end within a line, as those of killed processes may.
    pub torn: Vec<PathBuf>,
}

impl LedgerReport {
    /// Whether every row was delivered once, as the order says.
    pub fn is_exact(&self) -> bool {
        self.n_missing == 0 && self.n_doubled == 0 && self.gaps.is_empty() && self.mismatches.is_empty()
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
    if segments.iter().all(|segment| segment.lines.is_empty()) {
        return Err(Error::new(ErrorKind::NotFound, "the ledger has no batch").at("file", ledger.as_ref().display()));
    }
    for segment in &mut segments {
        let next = segment.header.state.next;
        if next > plan.len() {
            return Err(Error::corrupt(format!(
                "expected a ledger to begin with one of the {} samples of an epoch, found {next}",
                plan.len()
            ))
            .at("line", segment.line)
            .at("file", segment.file.display()));
        }
        drop_strays(segment, plan.len(), &mut report)?;
    }
    let runs = in_order(segments);
    report.runs = runs.len();
    let replicas = runs
        .iter()
        .flat_map(|run| &run.segments)
        .map(|segment| segment.header.replica);
    let replicas: BTreeSet<_> = replicas.collect();
    let plan = Arc::new(plan);
    for replica in replicas {
        audit(&plan, &runs, replica, &mut report)?;
    }
    Ok(report)
}

/// Checks what the ranks delivered that stand in this place of their groups.
fn audit(plan: &Arc<ReadPlan>, runs: &[Run], replica: u64, report: &mut LedgerReport) -> Result<()> {
    let own = |run: &'_ Run| {
        run.segments
            .iter()
            .filter(move |segment| segment.header.replica == replica)
            .count()
            > 0
    };
    let begin = runs
        .iter()
        .filter(|run| own(run))
        .map(|run| run.start)
        .min()
        .unwrap_or_default();
    let lines = runs
        .iter()
        .flat_map(|run| &run.segments)
        .flat_map(|segment| &segment.lines);
    let epochs: BTreeSet<_> = lines
        .map(|(_, line)| line.epoch)
        .filter(|epoch| *epoch >= begin.0)
        .collect();
    let Some(last) = epochs.last().copied() else {
        return Ok(());
    };
    let mut expected = begin.0;
    // One epoch after the other, so that memory is that of one.
    for epoch in epochs {
        if epoch > expected {
            report.gaps.push((expected, epoch));
        }
        expected = epoch.saturating_add(1);
        let mut audit = Audit::new(plan.clone(), epoch)?;
        for (place, run) in runs.iter().enumerate() {
            // What a later run began at or before was rolled back; of the same ranks, each for itself.
            let later = runs[place + 1..]
                .iter()
                .filter(|later| later.world_size != run.world_size);
            let until = later.map(|later| later.start).min();
            for segment in run.segments.iter().filter(|segment| segment.header.replica == replica) {
                let until = until.into_iter().chain(segment.until).min();
                audit.segment(segment, until, report)?;
            }
        }
        let from = if epoch == begin.0 { begin.1 } else { 0 };
        audit.close(from, epoch == last, report)?;
    }
    Ok(())
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
        report.n_doubled += twice.len() as u64;
        twice.truncate(MAX_NAMED.saturating_sub(report.doubled.len()));
        report.doubled.extend(self.name(&twice)?);
        Ok(())
    }

    /// Names what nobody got: of the last epoch, in the batches that somebody took part in and before them.
    fn close(self, from: u64, is_last: bool, report: &mut LedgerReport) -> Result<()> {
        let to = if is_last { self.furthest } else { self.end };
        let is_seen = |sample: &u64| self.seen[(sample / 64) as usize] >> (sample % 64) & 1 == 1;
        let mut missing = Vec::new();
        for sample in (from..to).filter(|sample| !is_seen(sample)) {
            report.n_missing += 1;
            if report.missing.len() + missing.len() < MAX_NAMED {
                missing.push(sample);
            }
        }
        report.missing.extend(self.name(&missing)?);
        if is_last {
            report.position = report.position.max((self.epoch, to));
        }
        Ok(())
    }

    fn name(&self, samples: &[u64]) -> Result<Vec<LedgerRow>> {
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        let epoch = EpochPlan::new(self.plan.clone(), self.epoch, 0);
        let row = |origin| LedgerRow {
            epoch: self.epoch,
            origin,
        };
        Ok(epoch.origins(samples)?.into_iter().map(row).collect())
    }
}
