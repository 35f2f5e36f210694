//! Gives memory that is free back to the system.
//!
//! The only file of this crate with unsafe code. The allocator of glibc keeps what was freed between what lives, and before 2.38 does not use
//! it again for arrays, which are aligned: runs and buckets of 100 MiB took 290, and with those of the pass before 350.
#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often memory is given back at most: it takes some milliseconds.
const EVERY: Duration = Duration::from_millis(200);

/// Has the allocator give back the pages that nothing lives in, unless it did a moment ago.
pub(crate) fn give_back() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < EVERY) {
        return;
    }
    *last = Some(Instant::now());
    drop(last);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and no pointer, may be called by any thread at any time, and moves nothing that lives.
    unsafe {
        libc::malloc_trim(0);
    }
}
