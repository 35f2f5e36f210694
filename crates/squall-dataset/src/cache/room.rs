//! Room for new entries: the limit, and what goes to keep it.
//!
//! The bytes of all entries, those that are being written included, stand in the file `usage`, which is read and written under its
//! lock. An entry is counted before it is written and as long as its file is there, so that what is on disk is never more
//! than what is counted, whoever dies when. What is counted too much is found when the directory is walked: at each opening, and
//! when room is made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_64;

use super::foresight::Worth;
use super::layout::{EntryName, Layout, Shelf, unique};

/// Files take whole blocks of this size.
const DISK_BLOCK: u64 = 4096;

/// The directory is walked again when so large a part of the limit was evicted since.
const PART_OF_WALK: u64 = 16;

/// What an entry's name and file say of it.
#[derive(Debug, Clone)]
pub(super) struct Stored<'a> {
    pub(super) path: &'a Path,
    pub(super) shelf: Shelf,
    pub(super) name: EntryName,
    pub(super) used: SystemTime,
}

/// Says what an entry is worth.
pub(super) trait Appraise {
    fn appraise(&self, entry: &Stored<'_>) -> Worth;
}

/// What was evicted to make room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Evicted {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Room {
    layout: Layout,
    /// The limit, or less where the disk is full.
    limit: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    usage: File,
    /// Those worth the least at the last walk, the least at the end.
    victims: Vec<Victim>,
    /// Bytes that room was wanted for since.
    since_walk: u64,
}

#[derive(Debug)]
struct Victim {
    worth: Worth,
    path: PathBuf,
    shelf: Shelf,
    name: EntryName,
}

/// The lock on the file `usage`, of this process and of all.
struct Held<'a> {
    state: MutexGuard<'a, State>,
    /// `None` where the file does not say.
    bytes: Option<u64>,
}

/// A file that is being written. It goes when it is dropped before it is an entry.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    room: &'a Room,
    pub(super) file: File,
    path: PathBuf,
    bytes: u64,
    kept: bool,
}

impl Room {
    pub(super) fn open(layout: &Layout, limit: u64, appraise: &dyn Appraise) -> io::Result<Self> {
        let usage = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(layout.usage())?;
        let room = Self {
            layout: layout.clone(),
            limit: AtomicU64::new(limit),
            state: Mutex::new(State {
                usage,
                victims: Vec::new(),
                since_walk: 0,
            }),
        };
        let mut held = room.hold()?;
        held.walk(&room.layout, limit, appraise)?;
        held.write()?;
        drop(held);
        room.sweep_claims();
        Ok(room)
    }

    /// A file of `len` bytes to write an entry to, and what was evicted for it; `None` if all that would have to go is worth as
    /// much as the new entry, or more.
    pub(super) fn draft(
        &self,
        len: u64,
        worth: Worth,
        appraise: &dyn Appraise,
    ) -> io::Result<(Option<Draft<'_>>, Evicted)> {
        let (bytes, limit) = (on_disk(len), self.limit.load(Ordering::Relaxed));
        let mut evicted = Evicted::default();
        if bytes > limit {
            return Ok((None, evicted));
        }
        let mut held = self.hold()?;
        let mut walked = held.state.since_walk <= limit / PART_OF_WALK && !held.state.victims.is_empty();
        held.state.since_walk += bytes;
        if held.bytes.is_none() {
            held.walk(&self.layout, limit, appraise)?;
            walked = true;
        }
        while held.bytes.is_none_or(|used| used + bytes > limit) {
            let Some(victim) = held.state.victims.pop() else {
                if walked {
                    held.write()?;
                    return Ok((None, evicted));
                }
                held.walk(&self.layout, limit, appraise)?;
                walked = true;
                continue;
            };
            let now = victim.now(appraise);
            let Some((now, size)) = now else {
                continue;
            };
            if now <= worth {
                // It was used since the walk, and others are worth less now; or nothing is.
                if !walked {
                    held.walk(&self.layout, limit, appraise)?;
                    walked = true;
                    continue;
                }
                held.state.victims.push(victim);
                held.write()?;
                return Ok((None, evicted));
            }
            match fs::remove_file(&victim.path) {
                Ok(()) => {
                    held.bytes = held.bytes.map(|used| used.saturating_sub(size));
                    evicted.entries += 1;
                    evicted.bytes += size;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    held.write()?;
                    return Err(error);
                }
            }
        }
        held.bytes = held.bytes.map(|used| used + bytes);
        // Counted first: a crash leaves too much counted, never too little.
        held.write()?;
        let path = self.layout.tmp().join(unique());
        let file = create(&path).and_then(|file| {
            file.lock()?;
            // Its size is that of the whole entry from now on, for whoever walks the directory.
            file.set_len(len)?;
            Ok(file)
        });
        match file {
            Ok(file) => Ok((
                Some(Draft {
                    room: self,
                    file,
                    path,
                    bytes,
                    kept: false,
                }),
                evicted,
            )),
            Err(error) => {
                let _ = fs::remove_file(&path);
                held.bytes = held.bytes.map(|used| used.saturating_sub(bytes));
                held.write()?;
                Err(error)
            }
        }
    }

    /// No more than what is there now: the disk is full.
    pub(super) fn is_full(&self) -> io::Result<u64> {
        let held = self.hold()?;
        let limit = self.limit.load(Ordering::Relaxed).min(held.bytes.unwrap_or(0));
        self.limit.store(limit, Ordering::Relaxed);
        Ok(limit)
    }

    /// Most bytes of all files.
    #[cfg(test)]
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    fn release(&self, bytes: u64) -> io::Result<()> {
        let mut held = self.hold()?;
        held.bytes = held.bytes.map(|used| used.saturating_sub(bytes));
        held.write()
    }

    fn hold(&self) -> io::Result<Held<'_>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.usage.lock()?;
        let mut found = [0; 16];
        let read = state.usage.read_exact_at(&mut found, 0);
        let word = |at: usize| std::array::from_fn(|i| found[at + i]);
        let (number, sum) = (word(0), u64::from_le_bytes(word(8)));
        let sound = read.is_ok() && sum == xxh3_64(&number);
        Ok(Held {
            state,
            bytes: sound.then(|| u64::from_le_bytes(number)),
        })
    }

    /// Removes the claims of those who died.
    fn sweep_claims(&self) {
        for entry in fs::read_dir(self.layout.claims()).into_iter().flatten().flatten() {
            remove_if_abandoned(&entry.path());
        }
    }
}

impl Held<'_> {
    fn write(&self) -> io::Result<()> {
        let number = self.bytes.unwrap_or(0).to_le_bytes();
        let mut both = [0; 16];
        both[..8].copy_from_slice(&number);
        both[8..].copy_from_slice(&xxh3_64(&number).to_le_bytes());
        self.state.usage.write_all_at(&both, 0)
    }

    /// Counts what is there, removes what is left of the dead, and finds out what is worth the least.
    fn walk(&mut self, layout: &Layout, limit: u64, appraise: &dyn Appraise) -> io::Result<()> {
        let mut total = 0;
        for draft in fs::read_dir(layout.tmp())? {
            let draft = draft?;
            if !remove_if_abandoned(&draft.path()) {
                total += draft.metadata().map_or(0, |file| on_disk(file.len()));
            }
        }
        let mut victims = Vec::new();
        for folder in fs::read_dir(layout.objects())? {
            for shelf in fs::read_dir(folder?.path())? {
                let path = shelf?.path();
                let shelf = path.file_name().and_then(|name| name.to_str()).and_then(Shelf::parse);
                let Ok(entries) = fs::read_dir(&path) else {
                    continue;
                };
                let mut entries = entries.peekable();
                if entries.peek().is_none() {
                    // Whoever is about to put an entry here makes it anew.
                    let _ = fs::remove_dir(&path);
                }
                for entry in entries {
                    let entry = entry?;
                    let name = entry.file_name();
                    let name = name.to_str().and_then(EntryName::parse);
                    let Ok(file) = entry.metadata() else {
                        // It was removed as damaged.
                        continue;
                    };
                    let size = on_disk(file.len());
                    total += size;
                    if let (Some(shelf), Some(name), Ok(used)) = (shelf, name, file.modified()) {
                        let path = entry.path();
                        let worth = appraise.appraise(&Stored {
                            path: &path,
                            shelf,
                            name,
                            used,
                        });
                        victims.push((
                            size,
                            Victim {
                                worth,
                                path,
                                shelf,
                                name,
                            },
                        ));
                    }
                }
            }
        }
        self.bytes = Some(total);
        self.state.since_walk = 0;
        // Paths break ties: so the ranks agree on who goes.
        victims.sort_by(|(_, a), (_, b)| (b.worth, &b.path).cmp(&(a.worth, &a.path)));
        let (mut kept, excess) = (0, total.saturating_sub(limit));
        let n = victims.iter().take_while(|(size, _)| {
            kept += size;
            kept - size <= excess + limit / PART_OF_WALK
        });
        let n = n.count();
        victims.truncate(n);
        self.state.victims = victims.into_iter().rev().map(|(_, victim)| victim).collect();
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // It ends with the process at the latest.
        let _ = self.state.usage.unlock();
    }
}

impl Victim {
    /// What it is worth now, and its bytes; `None` if it is gone.
    fn now(&self, appraise: &dyn Appraise) -> Option<(Worth, u64)> {
        let file = fs::metadata(&self.path).ok()?;
        let worth = appraise.appraise(&Stored {
            path: &self.path,
            shelf: self.shelf,
            name: self.name,
            used: file.modified().ok()?,
        });
        Some((worth, on_disk(file.len())))
    }
}

impl Draft<'_> {
    /// Makes it an entry.
    pub(super) fn keep(mut self, path: &Path) -> io::Result<()> {
        // The file system's own clock is coarser.
        self.file.set_modified(SystemTime::now())?;
        let shelf = path.parent().unwrap_or(path);
        let mut tries = 0;
        loop {
            fs::create_dir_all(shelf)?;
            match fs::rename(&self.path, path) {
                // The empty directory was just swept.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 3 => tries += 1,
                other => {
                    self.kept = other.is_ok();
                    return other;
                }
            }
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept && fs::remove_file(&self.path).is_ok() {
            // Counted too much until the next walk otherwise.
            let _ = self.room.release(self.bytes);
        }
    }
}

/// Creates a file, and its directory where somebody removed it.
fn create(path: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            File::create_new(path)
        }
        created => created,
    }
}

/// Whether a file of somebody who died was removed: nobody holds the lock on it.
fn remove_if_abandoned(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) if file.try_lock().is_ok() => fs::remove_file(path).is_ok(),
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn on_disk(len: u64) -> u64 {
    len.next_multiple_of(DISK_BLOCK)
}
