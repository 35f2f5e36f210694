//! Which bytes of an object are there, and the bytes.
//!
//! What a process knows of a shelf is a copy of the directory, made anew when the time of the directory's last change is another.
//! So an entry that another process wrote is found by the next look, and one that it evicted is a miss.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::entry::{Header, SLOT_BYTES, Unreadable};
use super::key::ObjectKey;
use super::layout::{EntryName, Layout, Shelf};

/// A directory that changed so shortly before it was listed may change again without its time telling: file systems count in ticks
/// of some milliseconds.
const TICK: Duration = Duration::from_millis(50);

/// The shelves that this process has looked at.
#[derive(Debug, Default)]
pub(super) struct Index(Mutex<HashMap<Shelf, Arc<Mutex<Contents>>>>);

/// The entries of a shelf, as they were when the directory had this time.
#[derive(Debug, Default)]
struct Contents {
    changed: Option<SystemTime>,
    entries: Vec<Entry>,
    cover: Vec<Cover>,
}

#[derive(Debug, Clone)]
struct Entry {
    path: PathBuf,
    header: Arc<Header>,
}

/// Bytes of the object that an entry has. Ascending, and apart from each other.
#[derive(Debug)]
struct Cover {
    bytes: Range<u64>,
    entry: usize,
    /// The place of the first of them in the entry's data.
    at: u64,
}

/// A part of a range that is wanted.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    /// Once they are here.
    pub(super) bytes: Option<Bytes>,
}

/// What could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// A damaged entry, which is gone now.
    Damaged(PathBuf, &'static str),
    Io(PathBuf, io::Error),
}

/// Parts that are being looked for.
struct Search<'a> {
    layout: &'a Layout,
    key: &'a ObjectKey,
    done: Vec<Part>,
    faults: &'a mut Vec<Fault>,
}

impl Index {
    /// Fills in the parts that are there, and cuts those that are there partly. What cannot be read is as if it were not there.
    pub(super) fn fill(
        &self,
        layout: &Layout,
        key: &ObjectKey,
        parts: Vec<Part>,
        faults: &mut Vec<Fault>,
    ) -> Vec<Part> {
        let mut search = Search {
            layout,
            key,
            done: Vec::with_capacity(parts.len()),
            faults,
        };
        let mut open: Vec<Part> = Vec::new();
        let mut shelf: Option<Shelf> = None;
        for part in parts {
            if part.bytes.is_some() {
                search.done.push(part);
                continue;
            }
            for part in cut_at_slots(part.range) {
                let own = Shelf::of(key, part.range.start / SLOT_BYTES);
                if let Some(last) = shelf.filter(|last| *last != own) {
                    self.fill_from(last, std::mem::take(&mut open), &mut search);
                }
                shelf = Some(own);
                open.push(part);
            }
        }
        if let Some(last) = shelf {
            self.fill_from(last, open, &mut search);
        }
        // Those that were here already were passed by.
        search.done.sort_by_key(|part| part.range.start);
        search.done
    }

    /// Looks for parts on one shelf.
    fn fill_from(&self, shelf: Shelf, parts: Vec<Part>, search: &mut Search<'_>) {
        let contents = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(shelf)
            .or_default()
            .clone();
        let mut reads: HashMap<usize, Vec<(usize, u64)>> = HashMap::new();
        let entries = {
            let mut contents = contents.lock().unwrap_or_else(PoisonError::into_inner);
            contents.refresh(&search.layout.shelf(shelf), search.key, search.faults);
            for part in parts {
                contents.split(part.range, |range, found| {
                    if let Some((entry, at)) = found {
                        reads.entry(entry).or_default().push((search.done.len(), at));
                    }
                    search.done.push(Part { range, bytes: None });
                });
            }
            contents.entries.clone()
        };
        for (entry, mut wanted) in reads {
            wanted.sort_by_key(|(_, at)| *at);
            let place = |(part, at): &(usize, u64)| {
                let range = &search.done[*part].range;
                *at..*at + (range.end - range.start)
            };
            let places: Vec<_> = wanted.iter().map(place).collect();
            match read(&entries[entry], &places) {
                Ok(bytes) => {
                    for ((part, _), bytes) in wanted.iter().zip(bytes) {
                        search.done[*part].bytes = Some(bytes);
                    }
                }
                Err(error) => {
                    let path = &entries[entry].path;
                    contents.lock().unwrap_or_else(PoisonError::into_inner).forget(path);
                    report(path, error, search.faults);
                }
            }
        }
    }
}

/// Reads places of an entry, and notes that it was used.
fn read(entry: &Entry, places: &[Range<u64>]) -> Result<Vec<Bytes>, Unreadable> {
    let file = File::open(&entry.path)?;
    let bytes = entry.header.read_data(&file, places)?;
    // The time of the last change is that of the last use: that of the last access is kept by few file systems. Entries of
    // another user stay as they are.
    let _ = file.set_modified(SystemTime::now());
    Ok(bytes)
}

/// Removes an entry that is damaged; one that is not there is no fault, it was evicted.
fn report(path: &Path, error: Unreadable, faults: &mut Vec<Fault>) {
    match error {
        Unreadable::Io(error) if error.kind() == io::ErrorKind::NotFound => {}
        Unreadable::Io(error) => faults.push(Fault::Io(path.to_owned(), error)),
        Unreadable::Damaged(why) => {
            let _ = fs::remove_file(path);
            faults.push(Fault::Damaged(path.to_owned(), why));
        }
    }
}

impl Contents {
    /// Looks at the directory again, if it changed.
    fn refresh(&mut self, shelf: &Path, key: &ObjectKey, faults: &mut Vec<Fault>) {
        let changed = fs::metadata(shelf).and_then(|folder| folder.modified());
        let changed = match changed {
            Ok(changed) => changed,
            Err(error) => {
                *self = Self::default();
                if error.kind() != io::ErrorKind::NotFound {
                    faults.push(Fault::Io(shelf.to_owned(), error));
                }
                return;
            }
        };
        if self.changed == Some(changed) {
            return;
        }
        if let Err(error) = self.list(shelf, key, faults) {
            faults.push(Fault::Io(shelf.to_owned(), error));
        }
        let settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK);
        self.changed = settled.then_some(changed);
        self.cover();
    }

    fn list(&mut self, shelf: &Path, key: &ObjectKey, faults: &mut Vec<Fault>) -> io::Result<()> {
        let mut known: HashMap<PathBuf, Entry> = std::mem::take(&mut self.entries)
            .into_iter()
            .map(|entry| (entry.path.clone(), entry))
            .collect();
        let mut names: Vec<_> = fs::read_dir(shelf)?.collect::<io::Result<Vec<_>>>()?;
        names.sort_by_key(fs::DirEntry::file_name);
        for found in names {
            let path = found.path();
            if let Some(entry) = known.remove(&path) {
                self.entries.push(entry);
                continue;
            }
            let name = found.file_name();
            let Some(name) = name.to_str().and_then(EntryName::parse) else {
                continue;
            };
            let header = File::open(&path)
                .map_err(Unreadable::from)
                .and_then(|file| Header::read(&file));
            let slot = name.slot.saturating_mul(SLOT_BYTES)..name.slot.saturating_add(1).saturating_mul(SLOT_BYTES);
            let header = header.and_then(|header| {
                let inside = |run: &Range<u64>| slot.start <= run.start && run.end <= slot.end;
                match header.key == *key && header.runs.iter().all(inside) {
                    true => Ok(header),
                    false => Err(Unreadable::Damaged("it stands in the place of another entry")),
                }
            });
            match header {
                Ok(header) => self.entries.push(Entry {
                    path,
                    header: Arc::new(header),
                }),
                Err(error) => report(&path, error, faults),
            }
        }
        Ok(())
    }

    /// Finds out which entry serves which bytes. Where two have the same, one of them does.
    fn cover(&mut self) {
        let mut runs: Vec<_> = (self.entries.iter().enumerate())
            .flat_map(|(entry, Entry { header, .. })| {
                header.runs.iter().scan(0, move |at, run| {
                    let start = *at;
                    *at += run.end - run.start;
                    Some(Cover {
                        bytes: run.clone(),
                        entry,
                        at: start,
                    })
                })
            })
            .collect();
        runs.sort_by_key(|run| run.bytes.start);
        self.cover.clear();
        let mut end = 0;
        for mut run in runs {
            let served = end.max(run.bytes.start) - run.bytes.start;
            if run.bytes.start + served < run.bytes.end {
                run.bytes.start += served;
                run.at += served;
                end = run.bytes.end;
                self.cover.push(run);
            }
        }
    }

    /// Cuts a range into parts that an entry has, with the place in its data, and others.
    fn split(&self, range: Range<u64>, mut part: impl FnMut(Range<u64>, Option<(usize, u64)>)) {
        let mut at = range.start;
        let first = self.cover.partition_point(|cover| cover.bytes.end <= at);
        for cover in &self.cover[first..] {
            if cover.bytes.start >= range.end {
                break;
            }
            if at < cover.bytes.start {
                part(at..cover.bytes.start, None);
                at = cover.bytes.start;
            }
            let end = cover.bytes.end.min(range.end);
            part(at..end, Some((cover.entry, cover.at + (at - cover.bytes.start))));
            at = end;
        }
        if at < range.end {
            part(at..range.end, None);
        }
    }

    fn forget(&mut self, path: &Path) {
        self.entries.retain(|entry| entry.path != path);
        self.changed = None;
        self.cover();
    }
}

/// The range in parts that lie in one slot each.
fn cut_at_slots(range: Range<u64>) -> impl Iterator<Item = Part> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = (at / SLOT_BYTES + 1).saturating_mul(SLOT_BYTES).min(range.end);
        let part = (at < range.end).then_some(Part {
            range: at..end,
            bytes: None,
        });
        at = end;
        part
    })
}
