//! Processor time of the threads that load.
//!
//! Linux keeps it for each thread in `/proc/self/task`; it is read when somebody asks, so that the threads themselves do nothing
//! for it. A thread says when it begins and when it ends, for its time is gone from there afterwards.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a tick of `stat` is: the kernel shows hundredths of a second on every architecture (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// The threads of a reader, those that ended included.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By their numbers in the system.
    running: Vec<u64>,
    ended: Duration,
}

/// A thread that counts until this is dropped, on the thread itself.
pub(crate) struct OnThread(Arc<Threads>);

impl Drop for OnThread {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Threads {
    /// Counts the thread that calls.
    pub(crate) fn enter(self: &Arc<Self>) -> OnThread {
        self.begin();
        OnThread(self.clone())
    }

    /// Counts the thread that calls, until it says that it ends.
    pub(crate) fn begin(&self) {
        if let Some(own) = own_number() {
            self.known().running.push(own);
        }
    }

    /// The thread that calls ends.
    pub(crate) fn end(&self) {
        let Some(own) = own_number() else {
            return;
        };
        let time = time_of(own).unwrap_or_default();
        let mut known = self.known();
        if let Some(place) = known.running.iter().position(|thread| *thread == own) {
            known.running.swap_remove(place);
            known.ended += time;
        }
    }

    /// Processor time of all of them so far; `None` where the system does not tell.
    pub(crate) fn time(&self) -> Option<Duration> {
        process_time()?;
        let known = self.known();
        let running: Duration = known.running.iter().filter_map(|thread| time_of(*thread)).sum();
        Some(known.ended + running)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Processor time of the process, its ended threads included.
pub(crate) fn process_time() -> Option<Duration> {
    ticks(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The number of the thread that calls.
fn own_number() -> Option<u64> {
    let link = fs::read_link("/proc/thread-self").ok()?;
    link.file_name()?.to_str()?.parse().ok()
}

fn time_of(thread: u64) -> Option<Duration> {
    let directory = format!("/proc/self/task/{thread}");
    // In nanoseconds, but not in every kernel.
    if let Ok(text) = fs::read_to_string(format!("{directory}/schedstat"))
        && let Some(time) = text.split_ascii_whitespace().next().and_then(|time| time.parse().ok())
    {
        return Some(Duration::from_nanos(time));
    }
    ticks(&fs::read_to_string(format!("{directory}/stat")).ok()?)
}

/// User and system time of a `stat` file: its fields 14 and 15. The name in field 2 may hold anything, brackets included.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    TICK.checked_mul(user.checked_add(system)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_confuse() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 12 30 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(Duration::from_millis(420)));
        assert_eq!(ticks("7 (a S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_time_of_a_thread_stays_when_it_ends() {
        let threads = Arc::new(Threads::default());
        let worker = threads.clone();
        let run = move || {
            let _counted = worker.enter();
            let mut x = 0u64;
            while worker.time() < Some(Duration::from_millis(30)) {
                x = (0..100_000).fold(x, |x, i| std::hint::black_box(x ^ i));
            }
        };
        std::thread::spawn(run).join().expect("a thread");
        let ended = threads.time().expect("a time");
        assert!(ended >= Duration::from_millis(30), "{ended:?}");
        assert!(threads.known().running.is_empty());
        assert!(process_time().expect("a time") > Duration::ZERO);
    }
}
