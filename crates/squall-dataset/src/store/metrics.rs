//! What reads of a store cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::failure::Cause;

/// What was read of a store, and how it went. Times are sums over requests that run side by side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreMetrics {
    /// Requests, retries and hedges among them; of local files the reads.
    pub requests: u64,
    /// Bytes of bodies that came, those that were thrown away too.
    pub bytes: u64,
    /// Requests that were made again, by why.
    pub retries: Retries,
    /// Second requests that were sent because the first was slow.
    pub hedges_sent: u64,
    /// Those whose answer was taken.
    pub hedges_won: u64,
    /// How often credentials were read anew.
    pub renewals: u64,
    /// Time that requests took.
    pub in_requests: Duration,
    /// Time that reads waited: for their turn, and before a retry.
    pub waited: Duration,
}

/// Requests that were made again, by why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retries {
    /// The store asked for fewer requests: 429, 503.
    pub throttled: u64,
    /// The store failed: 5xx.
    pub server: u64,
    /// No byte came for the read timeout.
    pub timeout: u64,
    /// No connection, or one that was reset.
    pub connection: u64,
    /// A body that was shorter than it should be.
    pub truncated: u64,
    /// Credentials had expired, or could not be had.
    pub credentials: u64,
}

impl Retries {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.throttled + self.server + self.timeout + self.connection + self.truncated + self.credentials
    }
}

/// The counters behind [`StoreMetrics`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) hedges_sent: AtomicU64,
    pub(super) hedges_won: AtomicU64,
    pub(super) renewals: AtomicU64,
    throttled: AtomicU64,
    server: AtomicU64,
    timeout: AtomicU64,
    connection: AtomicU64,
    truncated: AtomicU64,
    credentials: AtomicU64,
    in_requests_nanos: AtomicU64,
    waited_nanos: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn retried(&self, cause: Cause) {
        let counter = match cause {
            Cause::Throttled => &self.throttled,
            Cause::Timeout => &self.timeout,
            Cause::Connection => &self.connection,
            Cause::Truncated => &self.truncated,
            Cause::Expired | Cause::NoCredentials => &self.credentials,
            _ => &self.server,
        };
        add(counter, 1);
    }

    pub(super) fn took(&self, time: Duration) {
        add(&self.in_requests_nanos, nanos(time));
    }

    pub(super) fn waited(&self, time: Duration) {
        add(&self.waited_nanos, nanos(time));
    }

    pub(super) fn read(&self) -> StoreMetrics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreMetrics {
            requests: of(&self.requests),
            bytes: of(&self.bytes),
            retries: Retries {
                throttled: of(&self.throttled),
                server: of(&self.server),
                timeout: of(&self.timeout),
                connection: of(&self.connection),
                truncated: of(&self.truncated),
                credentials: of(&self.credentials),
            },
            hedges_sent: of(&self.hedges_sent),
            hedges_won: of(&self.hedges_won),
            renewals: of(&self.renewals),
            in_requests: Duration::from_nanos(of(&self.in_requests_nanos)),
            waited: Duration::from_nanos(of(&self.waited_nanos)),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
