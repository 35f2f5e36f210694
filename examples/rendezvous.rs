//! A point where the ranks of the quickstart meet, and nothing of Squall.
//!
//! Unlike a barrier of the standard library it can be broken: a rank that fails would keep the others waiting for ever.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) struct Rendezvous<T> {
    ranks: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// What the ranks of this meeting have brought.
    sum: T,
    here: usize,
    /// What the last meeting came to, and how many there were.
    result: T,
    meetings: u64,
    broken: bool,
}

impl<T: Default + Clone> Rendezvous<T> {
    pub(crate) fn new(ranks: usize) -> Self {
        let state = State {
            sum: T::default(),
            here: 0,
            result: T::default(),
            meetings: 0,
            broken: false,
        };
        Self {
            ranks,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Adds what this rank brings, waits for the others, and returns what all have brought; `None` once it is broken.
    pub(crate) fn meet(&self, add: impl FnOnce(&mut T)) -> Option<T> {
        let mut state = self.lock();
        add(&mut state.sum);
        state.here += 1;
        if state.here == self.ranks {
            state.result = std::mem::take(&mut state.sum);
            state.here = 0;
            state.meetings += 1;
            self.changed.notify_all();
        } else {
            let meeting = state.meetings;
            while state.meetings == meeting && !state.broken {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        (!state.broken).then(|| state.result.clone())
    }

    /// Lets all ranks go, now and later.
    pub(crate) fn break_up(&self) {
        self.lock().broken = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
