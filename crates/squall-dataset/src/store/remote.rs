//! Reads over a network: retried, cut off when they hang, made twice where that is wanted.
//!
//! Retries are Squall's, and object_store's are off here: it retries whole requests and does not see a body that hangs. A
//! request that fails behind some bytes is made again for the missing ones only, under the condition that the object is
//! still the same.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};
use squall_schema::Result;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

use super::backend::{self, Purpose};
use super::failure::{Cause, Failure};
use super::metrics::{Counters, add};
use super::options::StoreOptions;
use super::pool::Pool;
use super::ranges;
use super::reply::Reply;
use super::version::{ObjectVersion, Versions};
use crate::{DatasetUrl, Scheme};

/// How long the end of a body is awaited whose bytes are all here.
const MOST_FOR_END: Duration = Duration::from_millis(100);

/// The reading side of a store.
pub(super) struct Remote {
    url: DatasetUrl,
    prefix: Path,
    options: StoreOptions,
    current: RwLock<Current>,
    permits: Semaphore,
    pool: Arc<Pool>,
    versions: Arc<Versions>,
    counters: Arc<Counters>,
}

/// The store with the credentials of now.
#[derive(Clone)]
struct Current {
    /// Goes up when credentials are read anew.
    generation: u64,
    store: Arc<dyn ObjectStore>,
}

/// What is asked of an object, and what came of it.
struct Part<'a> {
    /// The bytes; the end is unknown where all of the object is wanted.
    wanted: Range<u64>,
    bytes: Sink<'a>,
    /// Only what the object is, no bytes.
    head: bool,
    /// Whether it must be the state of the object that was seen first.
    pinned: bool,
    version: Option<ObjectVersion>,
}

/// Where the bytes of a part go.
enum Sink<'a> {
    /// A piece of a buffer, and how much of it is filled.
    Piece(&'a mut [u8], usize),
    Own(Vec<u8>),
}

impl Sink<'_> {
    fn filled(&self) -> &[u8] {
        match self {
            Self::Piece(piece, filled) => &piece[..*filled],
            Self::Own(bytes) => bytes,
        }
    }

    /// Takes more bytes, no more than there is room for.
    fn extend(&mut self, bytes: &[u8]) {
        match self {
            Self::Piece(piece, filled) => {
                let n = bytes.len().min(piece.len() - *filled);
                piece[*filled..*filled + n].copy_from_slice(&bytes[..n]);
                *filled += n;
            }
            Self::Own(own) => own.extend_from_slice(bytes),
        }
    }

    fn truncate(&mut self, length: usize) {
        match self {
            Self::Piece(_, filled) => *filled = length,
            Self::Own(bytes) => bytes.truncate(length),
        }
    }
}

impl<'a> Part<'a> {
    fn new(wanted: Range<u64>, bytes: Sink<'a>) -> Self {
        Self {
            wanted,
            bytes,
            head: false,
            pinned: true,
            version: None,
        }
    }

    /// All of an object as it is now.
    fn now() -> Self {
        Self {
            pinned: false,
            ..Self::new(0..u64::MAX, Sink::Own(Vec::new()))
        }
    }

    fn n_filled(&self) -> usize {
        self.bytes.filled().len()
    }

    fn missing(&self) -> Range<u64> {
        self.wanted.start + self.n_filled() as u64..self.wanted.end
    }

    fn is_open(&self) -> bool {
        self.wanted.end == u64::MAX
    }

    /// A part of what is missing of this one.
    fn rest(&self) -> Part<'static> {
        Part {
            wanted: self.missing(),
            bytes: Sink::Own(Vec::new()),
            head: self.head,
            pinned: self.pinned,
            version: self.version.clone(),
        }
    }

    /// Takes what a [`Part::rest`] has in place of its own.
    fn take(&mut self, rest: &Part<'_>) {
        self.bytes.truncate((rest.wanted.start - self.wanted.start) as usize);
        self.bytes.extend(rest.bytes.filled());
        self.wanted.end = rest.wanted.end;
        self.version = rest.version.clone();
    }
}

impl Remote {
    pub(super) fn new(
        url: &DatasetUrl,
        options: &StoreOptions,
        prefix: Path,
        (versions, counters): (Arc<Versions>, Arc<Counters>),
    ) -> Result<Self> {
        let store = backend::build(url, options, Purpose::Reads)?;
        Ok(Self {
            url: url.clone(),
            current: RwLock::new(Current {
                generation: 0,
                store: Arc::new(PrefixStore::new(store, prefix.clone())),
            }),
            prefix,
            pool: Arc::default(),
            permits: Semaphore::new(options.concurrency.min(Semaphore::MAX_PERMITS)),
            options: options.clone(),
            versions,
            counters,
        })
    }

    /// The bytes of ranges within the object, of the state that was seen first.
    pub(super) async fn ranges(&self, path: &Path, wanted: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        let joined = ranges::join(wanted, self.options.coalesce_gap, self.options.max_request);
        let fetched = try_join_all(joined.iter().map(|range| self.range(path, range))).await?;
        Ok(ranges::cut(wanted, &joined, &fetched))
    }

    /// All bytes of an object.
    pub(super) async fn whole(&self, path: &Path) -> Result<Bytes, Failure> {
        let mut part = Part::now();
        self.read(path, &mut part).await?;
        match part.bytes {
            Sink::Own(bytes) => Ok(bytes.into()),
            Sink::Piece(..) => Err(Failure::new(Cause::Other, "the bytes went elsewhere")),
        }
    }

    /// What the object is now.
    pub(super) async fn head(&self, path: &Path) -> Result<ObjectVersion, Failure> {
        let mut part = Part::now();
        part.head = true;
        self.read(path, &mut part).await?;
        part.version.ok_or_else(|| Failure::new(Cause::Other, "no answer"))
    }

    /// All objects. A listing that breaks off goes on where it stood, where the store lists in the order of names.
    pub(super) async fn list(&self) -> Result<Vec<ObjectMeta>, Failure> {
        let is_ordered = matches!(self.url.scheme(), Scheme::S3 | Scheme::Gcs | Scheme::Azure);
        let mut found: Vec<ObjectMeta> = Vec::new();
        let mut patience = Patience::new(&self.options);
        loop {
            let current = self.current();
            let mut objects = match found.last() {
                Some(last) => current.store.list_with_offset(None, &last.location),
                None => current.store.list(None),
            };
            let before = found.len();
            let failure = loop {
                match timeout(self.options.read_timeout, objects.next()).await {
                    Ok(Some(Ok(object))) => found.push(object),
                    Ok(Some(Err(error))) => break Failure::of(&error, &Reply::default()),
                    Ok(None) => return Ok(found),
                    Err(_) => break self.hung(),
                }
            };
            drop(objects);
            if found.len() > before {
                // Pages come one by one: a long listing takes its time.
                patience = Patience::new(&self.options);
            }
            if !is_ordered {
                found.clear();
            }
            self.wait(&mut patience, failure, current.generation).await?;
        }
    }

    async fn range(&self, path: &Path, range: &Range<u64>) -> Result<Bytes, Failure> {
        let mut buffer = self.pool.take((range.end - range.start) as usize);
        // Parts side by side fill one buffer, each its own piece of it.
        let mut rest = buffer.as_mut();
        let mut parts = Vec::new();
        for wanted in ranges::split(range, self.options.max_request) {
            let (piece, behind) = rest.split_at_mut((wanted.end - wanted.start) as usize);
            parts.push(Part::new(wanted, Sink::Piece(piece, 0)));
            rest = behind;
        }
        let read = parts.iter_mut().map(|part| self.read(path, part));
        try_join_all(read).await?;
        Ok(buffer.freeze())
    }

    async fn read(&self, path: &Path, part: &mut Part<'_>) -> Result<(), Failure> {
        let mut began: Option<Patience<'_>> = None;
        loop {
            let permit = self.permit().await;
            // Who waits for others has not begun to read.
            let patience = began.get_or_insert_with(|| Patience::new(&self.options));
            let generation = self.current().generation;
            let before = part.n_filled();
            let tried = timeout(patience.left(), self.hedged(path, part)).await;
            drop(permit);
            let mut failure = match tried {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(patience.end(None)),
            };
            if part.n_filled() > before {
                patience.failures = 0;
            }
            if part.head && failure.is_silent_refusal() {
                match self.first_byte(path).await {
                    Ok(version) => {
                        part.version = Some(version);
                        return Ok(());
                    }
                    // An empty object has no first byte.
                    Err(said) if said.cause != Cause::Outside => failure = said,
                    Err(_) => {}
                }
            }
            if failure.cause == Cause::Outside {
                // An object that was replaced may be shorter.
                failure = self.replaced(path, failure).await;
            } else if failure.cause == Cause::Replaced && failure.found.is_none() {
                failure.found = self.look(path).await;
            }
            self.wait(patience, failure, generation).await?;
        }
    }

    /// Waits until the next try, or gives the failure back where there is none.
    async fn wait(&self, patience: &mut Patience<'_>, failure: Failure, generation: u64) -> Result<(), Failure> {
        if patience.tried(failure.cause) >= failure.cause.retries(self.options.retries) {
            return Err(patience.last(failure));
        }
        if failure.cause == Cause::Expired && !patience.renewed {
            patience.renewed = true;
            self.renew(generation)?;
        }
        let wait = patience.next(&failure);
        if wait >= patience.left() {
            return Err(patience.end(Some(failure)));
        }
        self.counters.retried(failure.cause);
        tracing::debug!(url = %self.url, ?wait, why = %failure.text(), "a request is made again");
        patience.why = Some(failure);
        sleep(wait).await;
        self.counters.waited(wait);
        Ok(())
    }

    /// A request, and a second one where the first takes long and hedging is on. The first answer that is whole is taken.
    async fn hedged(&self, path: &Path, part: &mut Part<'_>) -> Result<(), Failure> {
        let Some(after) = self.options.hedge_after else {
            return self.request(path, part).await;
        };
        let mut rest = part.rest();
        let is_second = {
            let mut first = pin!(self.request(path, part));
            tokio::select! {
                biased;
                done = &mut first => return done,
                () = sleep(after) => add(&self.counters.hedges_sent, 1),
            }
            let mut second = pin!(async {
                let _permit = self.permit().await;
                self.request(path, &mut rest).await
            });
            tokio::select! {
                biased;
                done = &mut first => match done {
                    Ok(()) => false,
                    Err(failure) => second.await.map(|()| true).map_err(|_| failure)?,
                },
                done = &mut second => match done {
                    Ok(()) => true,
                    Err(_) => first.await.map(|()| false)?,
                },
            }
        };
        if is_second {
            add(&self.counters.hedges_won, 1);
            part.take(&rest);
        }
        Ok(())
    }

    /// One request for what is missing of the part.
    async fn request(&self, path: &Path, part: &mut Part<'_>) -> Result<(), Failure> {
        add(&self.counters.requests, 1);
        let _time = Timed(&self.counters, Instant::now());
        let known = match part.pinned {
            true => self.versions.get(path),
            false => part.version.clone(),
        };
        let reply = Arc::new(Reply::default());
        let mut options = GetOptions::default().with_head(part.head);
        options.extensions.insert(reply.clone());
        options.if_match = known.as_ref().and_then(|known| self.condition(known));
        let missing = part.missing();
        // All of an object is asked for without a range: an empty one has none.
        let is_whole = part.is_open() && missing.start == 0;
        if !(part.head || is_whole) {
            options.range = Some(GetRange::Bounded(missing));
        }
        let store = self.current().store;
        let got = match timeout(self.options.read_timeout, store.get_opts(path, options)).await {
            Ok(Ok(got)) => got,
            Ok(Err(error)) => return Err(Failure::of(&error, &reply)),
            Err(_) => return Err(self.hung()),
        };
        let found = ObjectVersion::of(&got.meta);
        let agrees = match (part.pinned, &known) {
            (true, _) => self.versions.see(path, found.clone()).is_ok(),
            (false, Some(known)) => known.agrees_with(&found),
            (false, None) => true,
        };
        part.version = Some(found.clone());
        if !agrees {
            let mut failure = Failure::new(Cause::Replaced, "the answer is of another version");
            failure.found = Some(found);
            return Err(failure);
        }
        if part.head {
            return Ok(());
        }
        if part.is_open() {
            part.wanted.end = found.size;
        }
        self.body(got, part, &reply).await
    }

    async fn body(&self, got: GetResult, part: &mut Part<'_>, reply: &Reply) -> Result<(), Failure> {
        let mut body = got.into_stream();
        loop {
            let missing = part.missing();
            let missing = missing.end.saturating_sub(missing.start);
            if missing == 0 {
                // The end is awaited so that the connection can be used again, but not needed.
                let _ = timeout(self.options.read_timeout.min(MOST_FOR_END), body.next()).await;
                return Ok(());
            }
            match timeout(self.options.read_timeout, body.next()).await {
                Ok(Some(Ok(bytes))) => {
                    add(&self.counters.bytes, bytes.len() as u64);
                    let n = bytes.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
                    part.bytes.extend(&bytes[..n]);
                }
                Ok(Some(Err(error))) => return Err(Failure::of(&error, reply)),
                Ok(None) => return Err(Failure::new(Cause::Truncated, format!("{missing} bytes are missing"))),
                Err(_) => return Err(self.hung()),
            }
        }
    }

    /// `If-Match`, where the version has an ETag that is compared byte by byte.
    fn condition(&self, known: &ObjectVersion) -> Option<String> {
        let tag = known.e_tag.as_ref().filter(|tag| !tag.starts_with("W/"))?;
        match self.url.scheme() {
            Scheme::Hdfs => None,
            _ if tag.starts_with('"') => Some(tag.clone()),
            // As Azure lists them.
            _ => Some(format!("\"{tag}\"")),
        }
    }

    /// The version that is there now, if it can be had with one request.
    async fn look(&self, path: &Path) -> Option<ObjectVersion> {
        let store = self.current().store;
        let got = store.get_opts(path, GetOptions::default().with_head(true));
        let got = timeout(self.options.read_timeout, got).await.ok()?.ok()?;
        Some(ObjectVersion::of(&got.meta))
    }

    /// What the object is now, by a read of one byte. An answer to HEAD has no body that says why it is refused: the
    /// credentials may have expired, or an address may be signed for GET alone.
    async fn first_byte(&self, path: &Path) -> Result<ObjectVersion, Failure> {
        add(&self.counters.requests, 1);
        let reply = Arc::new(Reply::default());
        let mut options = GetOptions::default().with_range(Some(GetRange::Bounded(0..1)));
        options.extensions.insert(reply.clone());
        let store = self.current().store;
        match timeout(self.options.read_timeout, store.get_opts(path, options)).await {
            Ok(Ok(got)) => Ok(ObjectVersion::of(&got.meta)),
            Ok(Err(error)) => Err(Failure::of(&error, &reply)),
            Err(_) => Err(self.hung()),
        }
    }

    async fn replaced(&self, path: &Path, mut failure: Failure) -> Failure {
        let found = self.look(path).await;
        if let (Some(known), Some(found)) = (self.versions.get(path), found)
            && !known.agrees_with(&found)
        {
            failure.cause = Cause::Replaced;
            failure.found = Some(found);
        }
        failure
    }

    /// Reads credentials from where they come from, unless another read has done so since.
    fn renew(&self, generation: u64) -> Result<(), Failure> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.generation == generation {
            let built = backend::build(&self.url, &self.options, Purpose::Reads);
            let store = built.map_err(|error| Failure::new(Cause::Expired, error.to_string()))?;
            add(&self.counters.renewals, 1);
            *current = Current {
                generation: generation + 1,
                store: Arc::new(PrefixStore::new(store, self.prefix.clone())),
            };
        }
        Ok(())
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Some(permit);
        }
        let started = Instant::now();
        // It is never closed.
        let permit = self.permits.acquire().await.ok();
        self.counters.waited(started.elapsed());
        permit
    }

    fn hung(&self) -> Failure {
        let limit = self.options.read_timeout;
        Failure::new(Cause::Timeout, format!("no progress for {limit:?}"))
    }
}

/// How long a read may still go on.
struct Patience<'a> {
    options: &'a StoreOptions,
    started: Instant,
    /// Failures since the last byte.
    failures: u32,
    /// Credentials that failed, one after the other.
    refused: u32,
    retries: u32,
    renewed: bool,
    /// The last failure.
    why: Option<Failure>,
}

impl<'a> Patience<'a> {
    fn new(options: &'a StoreOptions) -> Self {
        Self {
            options,
            started: Instant::now(),
            failures: 0,
            refused: 0,
            retries: 0,
            renewed: false,
            why: None,
        }
    }

    fn left(&self) -> Duration {
        self.options.total_timeout.saturating_sub(self.started.elapsed())
    }

    /// How often it was tried in vain before this failure.
    fn tried(&mut self, cause: Cause) -> u32 {
        if !matches!(cause, Cause::Expired | Cause::NoCredentials) {
            self.refused = 0;
            return self.failures;
        }
        self.refused += 1;
        self.refused - 1
    }

    /// How long to wait before the next try: a random part of a time that doubles, and what the store asks for.
    fn next(&mut self, failure: &Failure) -> Duration {
        let most = self.options.backoff.saturating_mul(1u32 << self.failures.min(30));
        let most = most.min(self.options.max_backoff);
        self.failures += 1;
        self.retries += 1;
        // Not a choice that anything is reproduced from: the standard library's keys are random enough.
        let random = RandomState::new().hash_one(self.retries) >> 40;
        let part = most.mul_f64(random as f64 / (1u64 << 24) as f64);
        failure.retry_after.unwrap_or_default() + part
    }

    /// The last failure, as often as it was tried.
    fn last(&self, mut failure: Failure) -> Failure {
        if self.retries > 0 && failure.cause != Cause::Replaced {
            failure.detail = format!("gave up after {} retries: {}", self.retries, failure.detail);
        }
        failure
    }

    /// The time is over.
    fn end(&mut self, failure: Option<Failure>) -> Failure {
        let limit = self.options.total_timeout;
        let why = failure.or_else(|| self.why.take());
        let text = why.as_ref().map_or("the read is too slow".to_owned(), Failure::text);
        let cause = why.map_or(Cause::Timeout, |why| why.cause);
        Failure::new(
            cause,
            format!("gave up after {limit:?} and {} retries: {text}", self.retries),
        )
    }
}

/// Counts the time of a request, however it ends.
struct Timed<'a>(&'a Counters, Instant);

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.0.took(self.1.elapsed());
    }
}
