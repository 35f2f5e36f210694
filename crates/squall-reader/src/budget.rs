//! The bytes that a reader may hold at a time.
//!
//! A permit is taken before bytes come, travels with them and gives them back when it is dropped. Only the driver waits, and never
//! while it holds what others wait for; who learns late that something is larger than it was taken for goes into debt instead
//! of waiting, and the next one waits longer.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The budget of a reader.
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
    most: AtomicU64,
    /// Whether somebody waits to be told that bytes were given back.
    is_awaited: AtomicBool,
    tell: Mutex<Option<Tell>>,
}

type Tell = Box<dyn Fn() + Send>;

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            most: AtomicU64::new(0),
            is_awaited: AtomicBool::new(false),
            tell: Mutex::new(None),
        })
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are held now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Most bytes that were held at a time.
    pub(crate) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// Whom to tell when bytes are given back after [`Budget::wait`].
    pub(crate) fn on_freed(&self, tell: impl Fn() + Send + 'static) {
        *self.tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tell));
    }

    /// Takes these bytes if as many, and `room` more, are left; an eighth of the budget is left for what nobody counts, such as what
    /// an allocator keeps. Where nothing is held, anything fits: a value that is larger than
    /// the budget has it to itself.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: u64, room: u64) -> Option<Permit> {
        let fits = |used: u64| {
            let all = used.saturating_add(bytes).saturating_add(room);
            (used == 0 || all <= self.limit - self.limit / 8).then(|| used.saturating_add(bytes))
        };
        let before = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).ok()?;
        self.most.fetch_max(before.saturating_add(bytes), Ordering::Relaxed);
        Some(Permit {
            budget: self.clone(),
            bytes,
        })
    }

    /// Takes these bytes, left or not.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Permit {
        let mut permit = Permit {
            budget: self.clone(),
            bytes: 0,
        };
        permit.resize(bytes);
        permit
    }

    /// Asks to be told of the next bytes that are given back. Look once more behind it: some may have been just before.
    pub(crate) fn wait(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
    }

    fn free(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.is_awaited.swap(false, Ordering::SeqCst)
            && let Some(tell) = &*self.tell.lock().unwrap_or_else(PoisonError::into_inner)
        {
            tell();
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({} of {} bytes)", self.used(), self.limit)
    }
}

/// Bytes of a budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Permit {
    /// The bytes have become more, or fewer.
    pub(crate) fn resize(&mut self, bytes: u64) {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = self.budget.used.fetch_add(more, Ordering::AcqRel);
            self.budget.most.fetch_max(before + more, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.budget.free(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.free(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_waits_and_what_grows_does_not() {
        let budget = Budget::new(114);
        let mut first = budget.try_take(60, 0).expect("room");
        assert!(budget.try_take(41, 0).is_none());
        assert!(budget.try_take(30, 11).is_none());
        let second = budget.try_take(30, 10).expect("room");
        first.resize(90);
        assert_eq!((budget.used(), budget.most()), (120, 120));
        assert!(budget.try_take(1, 0).is_none());
        drop(first);
        assert_eq!((budget.used(), budget.most()), (30, 120));
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_value_above_the_budget_takes_all_of_it() {
        let budget = Budget::new(114);
        let large = budget.try_take(1000, 5).expect("nothing else is held");
        assert!(budget.try_take(1, 0).is_none());
        drop(large);
        assert!(budget.try_take(1, 0).is_some());
    }

    #[test]
    fn who_waits_is_told_once() {
        let budget = Budget::new(114);
        let (told, heard) = crossbeam_channel::unbounded();
        budget.on_freed(move || {
            let _ = told.send(());
        });
        let permits: Vec<_> = (0..4).map(|_| budget.try_take(25, 0).expect("room")).collect();
        budget.wait();
        drop(permits);
        assert_eq!(heard.try_iter().count(), 1);
    }
}
