//! Stored rows of one row group, by their numbers: fetched, decoded and cut out.
//!
//! What is asked for comes from `map`; how a row group is cut comes from `layout`; what is here already from `cache`. What comes out
//! has the stored columns, cells still encoded.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_select::concat::concat;
use bytes::Bytes;
use futures::FutureExt;
use squall_dataset::Piece;
use squall_schema::{Error, Result, panic_text};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;

use crate::decode::{DECODE_ROWS, Decoder};
use crate::fetch::{Fetched, selection};
use crate::map::cache::{Asked, Cache, Entry, Key, MapStats, wait_for};
use crate::map::cut::{Cached, Runs, Segment};
use crate::map::layout::Layout;
use crate::metrics::nanos;
use crate::source::Source;
use crate::sparse::SparseBytes;
use crate::transform::record_batch;
use crate::work::guard;

/// Fetches that are under way at the same time.
const FETCHES: usize = 16;

/// Fewer rows are cut out on the spot: handing them to another thread costs more.
const FEW_ROWS: usize = 1024;

/// A dataset with what was read of it.
pub(crate) struct Loader {
    pub(crate) source: Source,
    cache: Cache,
    /// Of each piece of the selection, once it is needed.
    layouts: Vec<OnceCell<Arc<Layout>>>,
    fetches: Semaphore,
    fetched_bytes: AtomicU64,
    decoded_cells: AtomicU64,
    requests: AtomicU64,
    /// In nanoseconds.
    fetching: AtomicU64,
    decoding: AtomicU64,
}

impl Loader {
    pub(crate) fn new(source: Source, cache_bytes: u64) -> Self {
        Self {
            cache: Cache::new(cache_bytes),
            layouts: source.selection.pieces().iter().map(|_| OnceCell::new()).collect(),
            fetches: Semaphore::new(FETCHES),
            fetched_bytes: AtomicU64::new(0),
            decoded_cells: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            fetching: AtomicU64::new(0),
            decoding: AtomicU64::new(0),
            source,
        }
    }

    pub(crate) fn stats(&self) -> MapStats {
        let (cache_hits, cache_misses) = self.cache.counts();
        let time = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        MapStats {
            requests: self.requests.load(Ordering::Relaxed),
            fetching: time(&self.fetching),
            decoding: time(&self.decoding),
            cache_hits,
            cache_misses,
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            decoded_cells: self.decoded_cells.load(Ordering::Relaxed),
            cached_bytes: self.cache.bytes(),
        }
    }

    pub(crate) fn piece(&self, place: usize) -> Piece {
        self.source.dataset.pieces()[self.source.selection.pieces()[place].piece as usize]
    }

    /// The runs that hold a row, if all of them are in the cache.
    pub(crate) fn cached(&self, place: usize, row: u64) -> Option<Cached<'_>> {
        let layout = self.layouts[place].get()?;
        let starts = layout.groups.iter().map(|group| group.run_of(row).start);
        let keys = starts
            .clone()
            .enumerate()
            .map(|(group, start)| run_key(place, group, start));
        let run = |(start, entry)| match entry {
            Entry::Run(run) => Some(vec![(start, run)]),
            Entry::Bytes(_) => None,
        };
        let runs = starts.zip(self.cache.get_all(keys)?).map(run).collect::<Option<_>>()?;
        Some(Cached {
            layout,
            runs,
            place,
            row,
        })
    }

    /// These rows of a row group, which are ascending, each once.
    pub(crate) async fn rows(self: Arc<Self>, place: usize, rows: Vec<u64>) -> Result<Vec<RecordBatch>> {
        let loaded = AssertUnwindSafe(self.load_rows(place, rows)).catch_unwind().await;
        let piece = self.piece(place);
        loaded
            .unwrap_or_else(|panic| Err(Error::internal(format!("a fetch panicked: {}", panic_text(&*panic)))))
            .map_err(|error| {
                error
                    .at("row group", piece.row_group)
                    .at("file", &self.source.dataset.file_of(&piece).path)
                    .at("URL", self.source.dataset.url())
            })
    }

    async fn load_rows(self: &Arc<Self>, place: usize, rows: Vec<u64>) -> Result<Vec<RecordBatch>> {
        let source = &self.source;
        let load = || async {
            let piece = self.piece(place);
            let layout = Layout::load(&source.dataset, &source.footers, &piece, &source.columns).await?;
            Ok::<_, Error>(Arc::new(layout))
        };
        let layout = self.layouts[place].get_or_try_init(load).await?.clone();
        let mut left = &rows[..];
        let mut held = HashMap::new();
        let mut batches = Vec::new();
        while !left.is_empty() {
            let segment = Segment::first(&layout, left);
            left = &left[segment.rows.len()..];
            let runs = self.runs(place, &layout, &segment, &mut held).await?;
            let rows = segment.rows;
            batches.push(if rows.len() < FEW_ROWS {
                self.cut_out(place, &layout, rows, &runs)?
            } else {
                let (own, layout, rows) = (self.clone(), layout.clone(), rows.to_vec());
                blocking(move || own.cut_out(place, &layout, &rows, &runs)).await?
            });
        }
        Ok(batches)
    }

    /// The runs of a segment. What `held` has of them is not loaded again; behind it, it has what this segment needed.
    async fn runs(
        self: &Arc<Self>,
        place: usize,
        layout: &Arc<Layout>,
        segment: &Segment<'_>,
        held: &mut HashMap<Key, Entry>,
    ) -> Result<Runs> {
        let mut used = HashMap::new();
        let mut missing = Vec::new();
        for (group, runs) in segment.runs.iter().enumerate() {
            for rows in runs {
                let key = run_key(place, group, rows.start);
                match held.remove(&key) {
                    Some(entry) => drop(used.insert(key, entry)),
                    None => missing.push((group, rows.clone())),
                }
            }
        }
        while !missing.is_empty() {
            let key = |(group, rows): &(usize, Range<u64>)| run_key(place, *group, rows.start);
            let Asked {
                found,
                mut claim,
                others,
            } = self.cache.ask(&missing.iter().map(key).collect::<Vec<_>>());
            used.extend(found);
            if !claim.is_empty() {
                let mut own = vec![Vec::new(); layout.groups.len()];
                for run in missing.iter().filter(|run| claim.has(&key(run))) {
                    own[run.0].push(run.1.clone());
                }
                for (key, run) in self.load_runs(place, layout, own, held).await? {
                    claim.fulfil(key, Entry::Run(run.clone()), true);
                    used.insert(key, Entry::Run(run));
                }
            }
            drop(claim);
            let mut given_up = HashSet::new();
            for (key, waiting) in others {
                match wait_for(waiting).await {
                    Some(entry) => drop(used.insert(key, entry)),
                    None => drop(given_up.insert(key)),
                }
            }
            missing.retain(|run| given_up.contains(&key(run)));
        }
        let run = |group, rows: &Range<u64>| match used.get(&run_key(place, group, rows.start)) {
            Some(Entry::Run(run)) => Ok((rows.start, run.clone())),
            _ => Err(Error::internal("a run of rows is not there after it was loaded")),
        };
        let runs = segment.runs.iter().enumerate();
        let runs = runs.map(|(group, runs)| runs.iter().map(|rows| run(group, rows)).collect());
        let runs = runs.collect::<Result<_>>()?;
        // The bytes that this segment needed are there still; the next one may begin in the same pages.
        held.retain(|key, _| matches!(key, Key::Bytes { .. }));
        held.extend(used);
        Ok(runs)
    }

    /// Fetches and decodes runs, given for each group of columns.
    async fn load_runs(
        self: &Arc<Self>,
        place: usize,
        layout: &Arc<Layout>,
        runs: Vec<Vec<Range<u64>>>,
        held: &mut HashMap<Key, Entry>,
    ) -> Result<Vec<(Key, Arc<RecordBatch>)>> {
        let piece = self.piece(place);
        let mut ranges = Vec::new();
        for (group, runs) in layout.groups.iter().zip(&runs).filter(|(_, runs)| !runs.is_empty()) {
            ranges.extend(group.byte_ranges(&selection(runs, piece.rows)));
        }
        let bytes = self.bytes(place, ranges, held).await?;
        let (own, layout) = (self.clone(), layout.clone());
        blocking(move || {
            let mut decoded = Vec::new();
            let file_size = own.source.dataset.file_of(&piece).size;
            let bytes = SparseBytes::new(bytes, file_size);
            for (group, runs) in runs.into_iter().enumerate().filter(|(_, runs)| !runs.is_empty()) {
                let keys: Vec<_> = runs.iter().map(|rows| run_key(place, group, rows.start)).collect();
                let batches = own.decode(&piece, &layout, group, runs, bytes.clone())?;
                decoded.extend(keys.into_iter().zip(batches));
            }
            Ok(decoded)
        })
        .await
    }

    /// These parts of the file, ascending; what should be kept is, and what is kept already is not fetched.
    async fn bytes(
        &self,
        place: usize,
        mut ranges: Vec<(Range<u64>, bool)>,
        held: &mut HashMap<Key, Entry>,
    ) -> Result<Vec<(u64, Bytes)>> {
        // In a damaged file two columns may claim the same bytes.
        ranges.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        ranges.dedup_by_key(|(range, _)| range.start);
        let key = |start| Key::Bytes { piece: place, start };
        let mut here = HashMap::new();
        let mut missing: Vec<(Range<u64>, bool)> = Vec::new();
        for (range, keep) in ranges {
            match held.remove(&key(range.start)) {
                Some(entry) => drop(here.insert(key(range.start), entry)),
                None => missing.push((range, keep)),
            }
        }
        let piece = self.piece(place);
        while !missing.is_empty() {
            let kept = missing.iter().filter(|(_, keep)| *keep);
            let Asked {
                found,
                mut claim,
                others,
            } = self
                .cache
                .ask(&kept.map(|(range, _)| key(range.start)).collect::<Vec<_>>());
            here.extend(found);
            // A page that is not kept belongs to one run, and the run is claimed.
            let own = missing
                .iter()
                .filter(|(range, keep)| !keep || claim.has(&key(range.start)));
            let own: Vec<_> = own.cloned().collect();
            if !own.is_empty() {
                let permit = self.fetches.acquire().await;
                let ranges: Vec<_> = own.iter().map(|(range, _)| range.clone()).collect();
                let dataset = &self.source.dataset;
                let began = Instant::now();
                let fetched = dataset
                    .store()
                    .get_ranges(&dataset.file_of(&piece).path, &ranges)
                    .await?;
                drop(permit);
                self.requests.fetch_add(1, Ordering::Relaxed);
                self.fetching.fetch_add(nanos(began.elapsed()), Ordering::Relaxed);
                self.fetched_bytes.fetch_add(
                    ranges.iter().map(|range| range.end - range.start).sum(),
                    Ordering::Relaxed,
                );
                for ((range, keep), bytes) in own.into_iter().zip(fetched) {
                    // Ranges that were fetched as one share a buffer, which a part of it would keep in memory.
                    let bytes = if keep { Bytes::copy_from_slice(&bytes) } else { bytes };
                    claim.fulfil(key(range.start), Entry::Bytes(bytes.clone()), keep);
                    here.insert(key(range.start), Entry::Bytes(bytes));
                }
            }
            drop(claim);
            let mut given_up = HashSet::new();
            for (key, waiting) in others {
                match wait_for(waiting).await {
                    Some(entry) => drop(here.insert(key, entry)),
                    None => drop(given_up.insert(key)),
                }
            }
            missing.retain(|(range, _)| given_up.contains(&key(range.start)));
        }
        let mut chunks = Vec::with_capacity(here.len());
        for (key, entry) in &here {
            if let (Key::Bytes { start, .. }, Entry::Bytes(bytes)) = (key, entry) {
                chunks.push((*start, bytes.clone()));
            }
        }
        chunks.sort_by_key(|(start, _)| *start);
        *held = here;
        Ok(chunks)
    }

    /// The rows of each run in the stored columns of a group.
    fn decode(
        &self,
        piece: &Piece,
        layout: &Layout,
        group: usize,
        runs: Vec<Range<u64>>,
        bytes: SparseBytes,
    ) -> Result<Vec<Arc<RecordBatch>>> {
        let began = Instant::now();
        let group = &layout.groups[group];
        let fetched = Fetched {
            footer: layout.footer.clone(),
            projection: group.projection.clone(),
            row_group: piece.row_group as usize,
            rows: runs.clone(),
            bytes,
            calendar: squall_dataset::calendar(layout.footer.metadata()),
        };
        let mut decoder = Decoder::new(&fetched, 0, DECODE_ROWS, group.columns.clone(), Arc::default())?;
        let decode = |rows: &Range<u64>| {
            let mut parts = Vec::new();
            decoder.take_all(rows.end - rows.start, &mut parts)?;
            let cells = (rows.end - rows.start) * group.fields.len() as u64;
            self.decoded_cells.fetch_add(cells, Ordering::Relaxed);
            match &parts[..] {
                [whole] if runs.len() == 1 => Ok(Arc::new(whole.clone())),
                // A part of a larger batch would keep all of it in memory.
                parts => {
                    let column = |i| compact(parts.iter().map(|part| part.column(i).as_ref()));
                    let columns = (0..group.fields.len()).map(column).collect::<Result<_>>()?;
                    record_batch(group.columns.schema(), columns, (rows.end - rows.start) as usize).map(Arc::new)
                }
            }
        };
        let decoded = runs.iter().map(decode).collect();
        self.decoding.fetch_add(nanos(began.elapsed()), Ordering::Relaxed);
        decoded
    }
}

fn run_key(piece: usize, group: usize, start: u64) -> Key {
    Key::Run { piece, group, start }
}

/// The parts as one array that has nothing but their values.
pub(crate) fn compact<'a>(parts: impl Iterator<Item = &'a dyn Array>) -> Result<ArrayRef> {
    let mut parts: Vec<_> = parts.collect();
    // Of a single part nothing would be copied.
    let nothing = parts.first().map(|part| part.slice(0, 0));
    parts.extend(nothing.as_deref());
    concat(&parts).map_err(|error| Error::internal("cannot put rows together").with_source(error))
}

/// Runs work on a thread where it may take its time.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = spawn_blocking(|| guard(work)).await;
    done.map_err(|error| Error::internal("a worker died").with_source(error))?
}
