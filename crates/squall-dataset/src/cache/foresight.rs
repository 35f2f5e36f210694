//! What readers know of the future.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use super::entry::Header;
use super::key::ObjectKey;
use super::room::{Appraise, Stored};

/// When a part of an object is needed next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextUse {
    /// When so many samples more were delivered.
    After(u64),
    /// Never again in this run.
    Never,
}

/// Someone who knows when objects will be needed again: a reader, whose order is a function.
///
/// All ranks of a run should say the same at the same sample, so that none evicts what another keeps.
pub trait Foresight: Send + Sync {
    /// When a part of an object is needed next by anyone on this machine; `None` where that is not known, for another dataset
    /// say. `part` is the number that it was read with: what it means is for the reader to say, a row group of a
    /// file, say.
    fn next_use(&self, object: &ObjectKey, part: Option<u64>) -> Option<NextUse>;
}

/// How much an entry is worth. The largest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// Needed after so many samples: the later, the less worth.
    Needed(u64),
    /// Nobody here knows of it, but somebody used it since this cache was opened: another run on this machine, or a reader without
    /// an order.
    Used(Reverse<SystemTime>),
    /// Not needed again in this run. Another run may.
    Done,
    /// Left behind by earlier runs.
    Old(Reverse<SystemTime>),
    /// A newer version of the object is read.
    Replaced,
}

/// What this process knows: the objects behind the digests, which version of each is read, and who knows the future.
pub(super) struct Knowledge {
    opened: SystemTime,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    objects: HashMap<u128, Arc<ObjectKey>>,
    /// Which version is read, by store and path.
    current: HashMap<(String, String), u128>,
    foresights: Vec<(u64, Arc<dyn Foresight>)>,
    n_registered: u64,
}

/// A reader's foresight is asked as long as this lives.
#[must_use]
pub struct Registration {
    knowledge: Weak<Knowledge>,
    id: u64,
}

impl Knowledge {
    pub(super) fn new() -> Self {
        Self {
            opened: SystemTime::now(),
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(self: &Arc<Self>, foresight: Arc<dyn Foresight>) -> Registration {
        let mut known = self.known();
        known.n_registered += 1;
        let id = known.n_registered;
        known.foresights.push((id, foresight));
        Registration {
            knowledge: Arc::downgrade(self),
            id,
        }
    }

    /// Notes that this is the version of the object that is read.
    pub(super) fn reads(&self, key: &ObjectKey) {
        let mut known = self.known();
        known
            .objects
            .entry(key.digest())
            .or_insert_with(|| Arc::new(key.clone()));
        let place = (key.store().to_owned(), key.path().to_owned());
        known.current.insert(place, key.digest());
    }

    /// What an entry is worth that is used now.
    pub(super) fn worth(&self, key: &ObjectKey, part: Option<u64>, used: SystemTime) -> Worth {
        let (foresights, current) = {
            let known = self.known();
            let place = (key.store().to_owned(), key.path().to_owned());
            let foresights: Vec<_> = known.foresights.iter().map(|(_, own)| own.clone()).collect();
            (foresights, known.current.get(&place).copied())
        };
        if current.is_some_and(|current| current != key.digest()) {
            return Worth::Replaced;
        }
        match foresights.iter().filter_map(|own| own.next_use(key, part)).min() {
            Some(NextUse::After(samples)) => Worth::Needed(samples),
            Some(NextUse::Never) => Worth::Done,
            None if used >= self.opened => Worth::Used(Reverse(used)),
            None => Worth::Old(Reverse(used)),
        }
    }

    /// The object of an entry: other processes wrote entries of objects that this one never read.
    fn object(&self, entry: &Stored<'_>) -> Option<Arc<ObjectKey>> {
        let found = self.known().objects.get(&entry.shelf.object).cloned();
        found.or_else(|| {
            let header = File::open(entry.path).ok().and_then(|file| Header::read(&file).ok())?;
            let key = Arc::new(header.key);
            (key.digest() == entry.shelf.object).then(|| {
                self.known().objects.insert(key.digest(), key.clone());
                key
            })
        })
    }
}

impl Appraise for Knowledge {
    fn appraise(&self, entry: &Stored<'_>) -> Worth {
        match self.object(entry) {
            Some(key) => self.worth(&key, entry.name.part, entry.used),
            // It is damaged.
            None => Worth::Replaced,
        }
    }
}

impl fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Knowledge(of {} readers)", self.known().foresights.len())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(knowledge) = self.knowledge.upgrade() {
            knowledge.known().foresights.retain(|(id, _)| *id != self.id);
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({})", self.id)
    }
}
