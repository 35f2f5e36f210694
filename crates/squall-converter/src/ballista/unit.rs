//! One attempt at one unit, on an executor.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, RecordBatch};
use ballista_core::error::BallistaError;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use squall_dataset::Store;
use squall_schema::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use crate::bucket;
use crate::error::limited;
use crate::order::Order;
use crate::progress::Meter;
use crate::run::scatter;
use crate::stream::ruled;
use crate::write::Writer;

use super::doubt::is_doubtful;
use super::fault;
use super::guard::guarded;
use super::lease::Watch;
use super::life::Life;
use super::node::Runner;
use super::record::{self, DIRECTORY, Ledger, Record};
use super::work::{Gathering, Rows, Task, Work};

/// After how long a silence of another attempt this one begins.
const SILENCE: Duration = Duration::from_secs(6);
/// How often one that waits for another looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Where runs are, each attempt's in a directory of its own.
pub(crate) const RUNS: &str = "runs";

/// Where the driver tells what the units of the second pass read.
pub(crate) fn gathering_path(pass: &str) -> Path {
    Path::from(DIRECTORY).join(format!("{pass}.json"))
}

/// What names an attempt.
pub(crate) fn token(unit: usize) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let token = RandomState::new().hash_one((now.as_nanos(), std::process::id(), unit));
    format!("{token:016x}")
}

/// An attempt at a unit.
pub(crate) struct Attempt {
    work: Arc<Work>,
    unit: usize,
    runner: Runner,
    token: String,
    meter: Meter,
    /// What the engine said, where it has to hear that again.
    told: Arc<Mutex<Option<DataFusionError>>>,
    /// Whether a store did not give what the query reads.
    lacks_source: Arc<AtomicBool>,
}

impl Attempt {
    pub(crate) fn new(work: Arc<Work>, unit: usize, runner: Runner) -> Self {
        Self {
            work,
            unit,
            runner,
            token: token(unit),
            meter: Meter::default(),
            told: Arc::default(),
            lacks_source: Arc::default(),
        }
    }

    /// Does the work of the unit, unless it is done, and puts its record.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves files behind, which no record names; the driver takes them away. A put that is under way then may
    /// come after that.
    pub(crate) async fn run(self, rows: SendableRecordBatchStream) -> Result<(), DataFusionError> {
        let doubts = &self.runner.doubts;
        let done = async {
            doubts.wait((&self.work.pass, self.unit), &self.work.staging).await?;
            let store = self.work.staging.open()?;
            let ledger = Ledger::new(&store, &self.work.pass);
            let mut watch = Watch::of(&self.work.pass);
            watch.look(&store).await?;
            if self.is_done_by_another(&ledger, &mut watch).await? {
                return Ok(());
            }
            let life = Life::begin(
                &self.runner.threads,
                (ledger.clone(), Watch::of(&self.work.pass)),
                (self.unit, self.token.clone()),
                self.meter.clone(),
            );
            let done = self.work_off(&store, rows, &life).await;
            match (life.end(&ledger, (self.unit, &self.token)).await, done) {
                (Some(unwanted), _) => Err(unwanted),
                // A file that was not to be put any more is no failure of the store.
                (None, Err(error)) => Err(watch.look(&store).await.map_or_else(Error::from, |()| error)),
                (None, Ok(())) => {
                    doubts.clear(&self.work.pass);
                    Ok(())
                }
            }
        };
        done.await.map_err(|error| {
            if let Some(told) = self.told.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return told;
            }
            let is_doubtful = is_doubtful(error.kind()) || self.lacks_source.load(Ordering::Relaxed);
            let by = is_doubtful.then(|| {
                doubts.add(&self.work.pass);
                (self.runner.by.executor.clone(), self.unit)
            });
            fault::to_engine(&error, by)
        })
    }

    /// Whether the unit is done; waits for another attempt that is on it, as one that was cancelled is without knowing.
    async fn is_done_by_another(&self, ledger: &Ledger, watch: &mut Watch) -> Result<bool> {
        let mut heard: Vec<(String, u64)> = Vec::new();
        let mut since = Instant::now();
        loop {
            if ledger.has(self.unit).await? {
                return Ok(true);
            }
            let (_, beats) = ledger.list().await?;
            let own = format!("{:05}-", self.unit);
            let mut now = Vec::new();
            for path in beats
                .iter()
                .filter(|path| path.filename().is_some_and(|name| name.starts_with(&own)))
            {
                if let Some(beat) = ledger.beat_at(path).await {
                    now.push((beat.token, beat.n));
                }
            }
            if now.is_empty() {
                return Ok(false);
            }
            if now != heard {
                (heard, since) = (now, Instant::now());
            } else if since.elapsed() > SILENCE {
                return Ok(false);
            }
            watch.look(&ledger.store).await?;
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn work_off(&self, place: &Store, rows: SendableRecordBatchStream, life: &Life) -> Result<()> {
        let pass = &self.work.pass;
        let store = &guarded(place, place, pass);
        let mut record = Record {
            unit: self.unit,
            by: self.runner.by.clone(),
            rows: 0,
            files: Vec::new(),
            evidence: None,
            chunks: Vec::new(),
        };
        match &self.work.task {
            Task::Count => record.rows = self.count(rows).await?,
            Task::Write(own) => {
                let (steps, _) = own.plan()?;
                let rows = ruled(self.rows(rows, own, life), steps, self.meter.clone());
                let (files, evidence) = self.writer(own, store)?.write(Box::pin(rows), self.unit).await?;
                (record.files, record.evidence) = (files, Some(evidence));
            }
            Task::Scatter(own) => {
                let (steps, target) = own.plan()?;
                let order = Order::of(&own.layout, &target)?;
                let memory = own.memory()?;
                let rows = ruled(self.rows(rows, own, life), steps, self.meter.clone());
                let directory = format!("{DIRECTORY}/{RUNS}/{:05}-{}", self.unit, self.token);
                Watch::of(pass).look(place).await?;
                let runs = guarded(&self.work.staging.below(&directory).make()?, place, pass);
                let chunks = scatter(Box::pin(rows), self.unit, (&target, &order), memory.run_bytes(), &runs).await?;
                record.chunks = chunks;
                for chunk in &mut record.chunks {
                    chunk.path = Path::from(format!("{directory}/{}", chunk.path));
                }
                record.rows = self.meter.counted()[0];
            }
            Task::Gather(own) => {
                let rows = self.gathered(place, rows, life).await?;
                let rows = rows.inspect_ok(|rows: &RecordBatch| self.meter.add_rows(rows.num_rows()));
                let (files, evidence) = self.writer(own, store)?.write(Box::pin(rows), self.unit).await?;
                (record.files, record.evidence) = (files, Some(evidence));
            }
        }
        if life.is_unwanted()() {
            self.take_away(place, &record).await;
            return Err(Error::new(ErrorKind::Cancelled, "the unit is not wanted any more"));
        }
        if !record.files.is_empty() {
            let row_groups = record.files.iter().flat_map(|file| &file.entry.row_groups);
            record.rows = row_groups.map(|row_group| row_group.rows).sum();
        }
        // Once a record was put, though with an error, its files are the driver's.
        if !Ledger::new(store, pass).put(&record).await? {
            self.take_away(place, &record).await;
        }
        Ok(())
    }

    fn writer(&self, own: &Rows, store: &Store) -> Result<Writer> {
        let (_, target) = own.plan()?;
        let writer = Writer::new(&target, (&own.layout, &own.memory()?), store, &self.work.prefix)?;
        Ok(writer.with_suffix(format!("-{}", self.token)).with_meter(&self.meter))
    }

    /// The rows that the engine gives, until they are not wanted any more.
    fn rows(
        &self,
        rows: SendableRecordBatchStream,
        own: &Rows,
        life: &Life,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
        let (told, stop, lacks_source) = (self.told.clone(), life.is_unwanted(), self.lacks_source.clone());
        let limit = own.memory().ok().and_then(|memory| memory.limit());
        let rows = rows.map(move |rows| {
            rows.map_err(|error| match is_for_the_engine(&error) {
                true => {
                    let text = error.to_string();
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Error::new(ErrorKind::Storage, text)
                }
                false => {
                    if matches!(error.find_root(), DataFusionError::ObjectStore(_)) {
                        lacks_source.store(true, Ordering::Relaxed);
                    }
                    limited(error, limit)
                }
            })
        });
        rows.take_while(move |_| std::future::ready(!stop()))
    }

    async fn count(&self, mut rows: SendableRecordBatchStream) -> Result<u64> {
        let mut total = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| limited(error, None))?;
            let counts = batch.column(0).as_primitive_opt::<Int64Type>();
            let counts = counts.ok_or_else(|| Error::internal("a count is no number"))?;
            total += counts.iter().flatten().sum::<i64>();
        }
        u64::try_from(total).map_err(|_| Error::internal("a negative count"))
    }

    async fn gathered(
        &self,
        store: &Store,
        mut unit: SendableRecordBatchStream,
        life: &Life,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        // Whoever restricts the plan to a partition restricts what comes, so the number is that of this unit.
        while let Some(batch) = unit.next().await {
            let batch = batch.map_err(|error| limited(error, None))?;
            let numbers = batch.column(0).as_primitive_opt::<Int64Type>();
            let same = |numbers: &Int64Array| {
                numbers
                    .iter()
                    .flatten()
                    .all(|n| usize::try_from(n).is_ok_and(|n| n == self.unit))
            };
            if !numbers.is_some_and(same) {
                return Err(Error::internal("a unit was given the rows of another"));
            }
        }
        let found: Option<Gathering> = record::read(store, &gathering_path(&self.work.pass)).await?;
        let mut all = found.ok_or_else(|| Error::new(ErrorKind::Cancelled, "the conversion is over"))?;
        if self.unit >= all.units.len() {
            return Err(Error::internal("a unit that nobody planned"));
        }
        let stop = life.is_unwanted();
        let rows = bucket::rows(all.units.swap_remove(self.unit), all.chunks, store.clone());
        Ok(rows.take_while(move |_| std::future::ready(!stop())))
    }

    async fn take_away(&self, store: &Store, record: &Record) {
        let files = record.files.iter().map(|file| Path::from(file.entry.path.as_str()));
        let runs = record.chunks.iter().map(|chunk| chunk.path.clone());
        let mut paths: Vec<_> = files.chain(runs).collect();
        paths.dedup();
        for path in paths {
            let _ = store.objects().delete(&path).await;
        }
    }
}

/// Errors by which Ballista learns that a stage must run again, and those of the network: they go on as they came.
fn is_for_the_engine(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::IoError(_) => true,
        DataFusionError::External(cause) => cause.is::<BallistaError>(),
        _ => false,
    }
}
