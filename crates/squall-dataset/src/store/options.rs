//! How a store is reached, and how patient reads of it are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use squall_schema::{Error, Result};

/// Bytes between two ranges that are fetched as one request with them, if not given: on S3 a request takes as long as
/// a megabyte or more.
pub const DEFAULT_COALESCE_GAP: u64 = 1 << 20;
/// Bytes of the largest request, if not given. A longer range is fetched by several, side by side: one connection to S3
/// gives some 50 to 100 MB/s.
pub const DEFAULT_MAX_REQUEST: u64 = 8 << 20;
/// Requests of a store that run at the same time, if not given.
pub const DEFAULT_CONCURRENCY: usize = 32;
/// Retries of a request without progress, if not given.
pub const DEFAULT_RETRIES: u32 = 10;
/// How long a connection may take, if not given.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may make no progress, if not given.
pub const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a read may take with all its retries, if not given.
pub const DEFAULT_TOTAL_TIMEOUT: Duration = Duration::from_secs(180);
/// The longest wait before the first retry, if not given. It doubles with each.
pub const DEFAULT_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait before any retry, if not given.
pub const DEFAULT_MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Gives storage options anew: see [`StoreOptions::with_provider`].
type Provide = dyn Fn() -> Result<BTreeMap<String, String>> + Send + Sync;

/// Where storage options come from that change, as credentials do.
#[derive(Clone)]
pub struct Provider(
    #[cfg_attr(
        not(any(feature = "cloud", feature = "hdfs")),
        allow(dead_code, reason = "only stores on a network ask")
    )]
    Arc<Provide>,
);

/// How a store is reached. What is not given comes from the environment, or is a default; docs/stores.md has it all.
///
/// Its `Debug` names the storage options and not their values, which may be secrets.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Storage options by the names that the object_store crate gives them: `aws_access_key_id`, `endpoint`,
    /// `allow_http`, `skip_signature` (anonymous access), and so on. They come before the environment. A name that the
    /// store does not know is an error; local files and memory take none and ignore them.
    pub options: BTreeMap<String, String>,
    /// Gives more of them, which come before `options`: once when the store is opened, and again when it says that the
    /// credentials have expired. None if not given.
    pub provider: Option<Provider>,
    /// How long a connection may take to open; [`DEFAULT_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// How long a request may give no byte before it is cut and made again; [`DEFAULT_READ_TIMEOUT`].
    pub read_timeout: Duration,
    /// How long a read may take with all waits and retries before it is an error; [`DEFAULT_TOTAL_TIMEOUT`]. It bounds each
    /// request of a call: the parts of a large range run side by side.
    pub total_timeout: Duration,
    /// How often a request is made again that failed without giving a byte; [`DEFAULT_RETRIES`]. A failure behind new bytes
    /// starts the count anew: what is asked again is only what is missing.
    pub retries: u32,
    /// The longest wait before the first retry; it doubles with each, and each waits a random part of it (full jitter);
    /// [`DEFAULT_BACKOFF`].
    pub backoff: Duration,
    /// The longest wait before any retry, unless the store asks for more by `Retry-After`; [`DEFAULT_MAX_BACKOFF`].
    pub max_backoff: Duration,
    /// Requests that run at the same time; [`DEFAULT_CONCURRENCY`].
    pub concurrency: usize,
    /// Ranges with no more bytes than this between them are fetched as one; [`DEFAULT_COALESCE_GAP`].
    pub coalesce_gap: u64,
    /// Bytes of the largest request: ranges are not joined beyond it, and longer ones are split; [`DEFAULT_MAX_REQUEST`].
    pub max_request: u64,
    /// After so long a second request is sent for the same bytes, and the answer that is whole first is taken. Never if not
    /// given: it makes more requests, which cost money.
    pub hedge_after: Option<Duration>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            options: BTreeMap::new(),
            provider: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            read_timeout: DEFAULT_READ_TIMEOUT,
            total_timeout: DEFAULT_TOTAL_TIMEOUT,
            retries: DEFAULT_RETRIES,
            backoff: DEFAULT_BACKOFF,
            max_backoff: DEFAULT_MAX_BACKOFF,
            concurrency: DEFAULT_CONCURRENCY,
            coalesce_gap: DEFAULT_COALESCE_GAP,
            max_request: DEFAULT_MAX_REQUEST,
            hedge_after: None,
        }
    }
}

impl StoreOptions {
    /// Adds a storage option.
    #[must_use]
    pub fn with_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// Adds storage options.
    #[must_use]
    pub fn with_options<K: Into<String>, V: Into<String>>(mut self, options: impl IntoIterator<Item = (K, V)>) -> Self {
        let options = options.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.options.extend(options);
        self
    }

    /// Takes storage options from here too: when the store is opened, and again when its credentials have expired.
    #[must_use]
    pub fn with_provider(
        mut self,
        provide: impl Fn() -> Result<BTreeMap<String, String>> + Send + Sync + 'static,
    ) -> Self {
        self.provider = Some(Provider(Arc::new(provide)));
        self
    }

    /// Sets [`StoreOptions::connect_timeout`].
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`StoreOptions::read_timeout`].
    #[must_use]
    pub fn with_read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// Sets [`StoreOptions::total_timeout`].
    #[must_use]
    pub fn with_total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = timeout;
        self
    }

    /// Sets [`StoreOptions::retries`].
    #[must_use]
    pub fn with_retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets [`StoreOptions::backoff`] and [`StoreOptions::max_backoff`].
    #[must_use]
    pub fn with_backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = first;
        self.max_backoff = most;
        self
    }

    /// Sets [`StoreOptions::concurrency`].
    #[must_use]
    pub fn with_concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests;
        self
    }

    /// Sets [`StoreOptions::coalesce_gap`].
    #[must_use]
    pub fn with_coalesce_gap(mut self, bytes: u64) -> Self {
        self.coalesce_gap = bytes;
        self
    }

    /// Sets [`StoreOptions::max_request`].
    #[must_use]
    pub fn with_max_request(mut self, bytes: u64) -> Self {
        self.max_request = bytes;
        self
    }

    /// Sets [`StoreOptions::hedge_after`].
    #[must_use]
    pub fn with_hedge_after(mut self, after: Duration) -> Self {
        self.hedge_after = Some(after);
        self
    }

    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<()> {
        let positive = [
            ("concurrency", self.concurrency > 0),
            ("largest request", self.max_request > 0),
            ("connect timeout", !self.connect_timeout.is_zero()),
            ("read timeout", !self.read_timeout.is_zero()),
            ("total timeout", !self.total_timeout.is_zero()),
        ];
        match positive.into_iter().find(|(_, is_positive)| !is_positive) {
            Some((what, _)) => Err(Error::invalid(format!(
                "the {what} of a store is 0: expected more than that"
            ))),
            None => Ok(()),
        }
    }

    /// The storage options as they are now.
    #[cfg(any(feature = "cloud", feature = "hdfs"))]
    pub(super) fn current(&self) -> Result<BTreeMap<String, String>> {
        let mut options = self.options.clone();
        if let Some(Provider(provide)) = &self.provider {
            options.extend(provide()?);
        }
        Ok(options)
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("options", &self.options.keys())
            .field("provider", &self.provider)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("total_timeout", &self.total_timeout)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("max_backoff", &self.max_backoff)
            .field("concurrency", &self.concurrency)
            .field("coalesce_gap", &self.coalesce_gap)
            .field("max_request", &self.max_request)
            .field("hedge_after", &self.hedge_after)
            .finish()
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}
