//! The files of a ledger: what each rank wrote, and in which order the runs were.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use squall_schema::{Error, ErrorKind, Result};

use super::{LedgerMismatch, LedgerReport};
use crate::ledger::{Header, Line, VERSION, remainder_name};
use crate::share::{Remainder, Share};

/// Most bytes of a ledger's line: files come from many machines.
const MAX_LINE: u64 = 1 << 24;

/// What one rank wrote down between one begin and the next.
pub(super) struct Segment {
    pub(super) file: PathBuf,
    /// The line of the header, from 1.
    pub(super) line: usize,
    pub(super) header: Header,
    pub(super) lines: Vec<(usize, Line)>,
    /// Where the same rank began anew later, at the earliest: what it delivered from there on was rolled back.
    pub(super) until: Option<(u64, u64)>,
}

pub(super) fn ledger_files(path: &Path) -> Result<Vec<PathBuf>> {
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

pub(super) fn read_file(path: &Path, segments: &mut Vec<Segment>, report: &mut LedgerReport) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Storage, "cannot read the ledger")
            .at("file", path.display())
            .with_source(error)
    };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut own: Vec<Segment> = Vec::new();
    // A line that is none: it may be one within which a process was killed.
    let mut torn: Option<Error> = None;
    for number in 1.. {
        let at = |error: Error| error.at("line", number).at("file", path.display());
        let mut line = Vec::new();
        let read = (&mut file)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if read == 0 {
            break;
        }
        if read as u64 == MAX_LINE {
            return Err(at(Error::corrupt(format!(
                "a line of more than {MAX_LINE} bytes in a ledger"
            ))));
        }
        let damaged = |error: serde_json::Error| at(Error::corrupt("not a line of a ledger").with_source(error));
        let is_header = line.starts_with(b"{\"ledger\":");
        if let Some(error) = torn.take() {
            // Whoever goes on begins with a header.
            if !is_header {
                return Err(error);
            }
            report.torn.push(path.to_owned());
        }
        if is_header {
            match serde_json::from_slice::<Header>(&line) {
                Ok(header) if header.ledger == VERSION => own.push(Segment {
                    file: path.to_owned(),
                    line: number,
                    header,
                    lines: Vec::new(),
                    until: None,
                }),
                Ok(header) => {
                    return Err(at(Error::unsupported(format!(
                        "a ledger of version {}: expected {VERSION}",
                        header.ledger
                    ))));
                }
                Err(error) => torn = Some(damaged(error)),
            }
            continue;
        }
        match serde_json::from_slice::<Line>(&line) {
            Ok(entry) if line.ends_with(b"\n") => {
                let segment = own.last_mut();
                let segment = segment.ok_or_else(|| at(Error::corrupt("a ledger that does not say whose it is")))?;
                segment.lines.push((number, entry));
            }
            // Whole, but for its end: nobody knows.
            Ok(_) => torn = Some(at(Error::corrupt("a line of a ledger without its end"))),
            Err(error) => torn = Some(damaged(error)),
        }
    }
    match torn {
        Some(error) if own.is_empty() => return Err(error),
        Some(_) => report.torn.push(path.to_owned()),
        None => {}
    }
    let mut until: Option<(u64, u64)> = None;
    for segment in own.iter_mut().rev() {
        segment.until = until;
        let start = segment.start();
        until = Some(until.map_or(start, |until| until.min(start)));
    }
    segments.extend(own);
    Ok(())
}

/// What ranks of one world size did from a start.
pub(super) struct Run {
    /// The epoch and sample where it began.
    pub(super) start: (u64, u64),
    pub(super) world_size: u64,
    pub(super) started: u64,
    pub(super) segments: Vec<Segment>,
}

/// The segments by start and world size, in the order in which they ran.
///
/// Time tells it, but clocks differ: a run that begins at a state comes behind one that has come to this state, whatever the
/// clocks say. In one file, that of a rank, the order is that of the lines.
pub(super) fn in_order(segments: Vec<Segment>) -> Vec<Run> {
    let mut runs: BTreeMap<((u64, u64), u64), Run> = BTreeMap::new();
    for segment in segments {
        let header = &segment.header;
        let run = runs.entry((segment.start(), header.world_size)).or_insert_with(|| Run {
            start: segment.start(),
            world_size: header.world_size,
            started: header.started,
            segments: Vec::new(),
        });
        run.started = run.started.min(header.started);
        run.segments.push(segment);
    }
    let mut left: Vec<_> = runs.into_values().collect();
    left.sort_by_key(|run| (run.started, run.start));
    let begin = left.iter().map(|run| run.start).min().unwrap_or_default();
    let mut reached: BTreeSet<(u64, u64)> = BTreeSet::from([begin]);
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let next = left.iter().position(|run| reached.contains(&run.start)).unwrap_or(0);
        let run = left.remove(next);
        for (_, line) in run.segments.iter().flat_map(|segment| &segment.lines) {
            reached.insert((line.epoch, line.samples.end));
            // Its end may be that of the epoch.
            reached.insert((line.epoch.saturating_add(1), 0));
        }
        ordered.push(run);
    }
    ordered
}

/// Notes and leaves out the lines of a rank that do not follow the ones before them.
pub(super) fn drop_strays(segment: &mut Segment, len: u64, report: &mut LedgerReport) -> Result<()> {
    let share = segment.share()?;
    let start = segment.start();
    let mut next = start;
    let file = segment.file.clone();
    segment.lines.retain(|(line, entry)| {
        if share.steps(len, next.1) == 0 {
            next = (next.0.saturating_add(1), 0);
        }
        let follows = (entry.epoch, entry.samples.start) == next;
        if !follows {
            report.mismatches.push(LedgerMismatch {
                file: file.clone(),
                line: *line,
                what: format!(
                    "expected to go on at sample {} of epoch {}, found sample {} of epoch {}",
                    next.1, next.0, entry.samples.start, entry.epoch
                ),
            });
        }
        // A line that is lost is a gap of its own, and one that comes again doubles its rows. Others tell of nothing.
        let place = (entry.epoch, entry.samples.start);
        let tells = entry.epoch <= next.0.saturating_add(1)
            && place >= start
            && entry.samples.start < entry.samples.end
            && entry.samples.end <= len;
        if tells && place >= next {
            next = (entry.epoch, entry.samples.end);
        }
        tells
    });
    Ok(())
}

impl Segment {
    /// The epoch and sample where it begins.
    pub(super) fn start(&self) -> (u64, u64) {
        (self.header.state.epoch, self.header.state.next)
    }

    pub(super) fn share(&self) -> Result<Share> {
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
