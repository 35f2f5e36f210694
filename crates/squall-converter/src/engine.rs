//! The embedded engine: runs a plan's partitions side by side and writes what they give, in order where one is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::RecordBatch;
use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use squall_schema::{Error, Result, Schema};
use tokio::task::JoinSet;

use crate::bucket::{Bucket, buckets, rows, units};
use crate::checkpoint::Checkpoint;
use crate::error::{limited, query_error};
use crate::evidence::Evidence;
use crate::layout::Layout;
use crate::memory::Memory;
use crate::order::Order;
use crate::progress::{Meter, Phase};
use crate::rules::Steps;
use crate::run::{Chunk, scatter};
use crate::spill::Spill;
use crate::stream::ruled;
use crate::write::{Writer, Written};

/// Units that a dataset of some size is written in at least, the same on every machine, so that several can write.
const UNITS: u64 = 8;
/// Row groups in memory that a unit has at least: smaller ones make small files.
const UNIT_ROW_GROUPS: u64 = 4;

/// What writing gives: the files, and what was seen of shapes.
pub(crate) type Output = (Vec<Written>, Evidence);

/// The plan of a query, as it is run here: some partitions at a time.
///
/// # Cancel safety
///
/// Dropping the future ends the planning.
pub(crate) async fn plan(rows: DataFrame) -> Result<(Arc<dyn ExecutionPlan>, TaskContext)> {
    let (mut state, query) = rows.into_parts();
    alone(state.config_mut());
    let context = TaskContext::from(&state);
    let plan = state.create_physical_plan(&query).await.map_err(query_error)?;
    Ok((plan, context))
}

/// Has the partitions of a plan run without each other. For a dynamic filter the partitions of a join wait until all of them have read
/// their side, those too that have not begun; and one that is done with its files takes those of its neighbours, so that the same rows
/// are not in the same files each time.
pub(crate) fn alone(config: &mut SessionConfig) {
    let options = config.options_mut();
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.execution.enable_file_stream_work_stealing = false;
}

/// Runs the plan and writes its rows, behind the steps of the rules.
///
/// # Cancel safety
///
/// Dropping the future ends the plan and leaves files behind; the caller takes the whole staging place away.
pub(crate) async fn run(
    (plan, context): (Arc<dyn ExecutionPlan>, Arc<TaskContext>),
    steps: Steps,
    writer: Arc<Writer>,
    memory: Memory,
    spill: &Option<Spill>,
    checkpoint: Option<Checkpoint>,
) -> Result<Output> {
    let n = plan.output_partitioning().partition_count();
    let stop = Arc::new(AtomicBool::new(false));
    let execute = {
        let (context, stop, meter) = (context.clone(), stop.clone(), writer.meter.clone());
        move |partition| -> Result<_> {
            let limit = memory.limit();
            let rows = plan
                .execute(partition, context.clone())
                .map_err(|error| limited(error, limit))?;
            let stop = stop.clone();
            let rows = rows.map(move |rows| rows.map_err(|error| limited(error, limit)));
            let rows = rows.take_while(move |_| std::future::ready(!stop.load(Ordering::Relaxed)));
            Ok(ruled(rows, steps.clone(), meter.clone()).boxed())
        }
    };
    let execute = Arc::new(execute);
    if let (true, Some(spill)) = (writer.layout.is_ordered(), spill) {
        let order = Order::of(&writer.layout, &writer.target)?;
        writer.meter.enter(Phase::Sorting);
        let reserved = memory.reserve(&context, 0, true)?;
        let chunks = side_by_side(memory.scatterers(), n, &stop, |partition| {
            let (execute, writer, order) = (execute.clone(), writer.clone(), order.clone());
            let (store, sorted, stop) = (spill.store().clone(), spill.checkpoint.clone(), stop.clone());
            async move {
                let work = async {
                    let rows = execute(partition)?;
                    scatter(rows, partition, (&writer.target, &order), memory.run_bytes(), &store).await
                };
                once(&sorted, format!("sort-{partition:05}"), (&stop, &writer.meter), work).await
            }
        });
        let chunks = chunks.await?.into_iter().flatten().collect();
        drop((reserved, execute));
        return write_ordered(chunks, &order, writer, memory, spill, checkpoint).await;
    }
    let at_once = memory.writers();
    let _reserved = memory.reserve(&context, at_once.min(n), false)?;
    let done = side_by_side(at_once, n, &stop, |partition| {
        let (execute, writer, checkpoint, stop) = (execute.clone(), writer.clone(), checkpoint.clone(), stop.clone());
        async move {
            let work = async { writer.write(execute(partition)?, partition).await };
            once(
                &checkpoint,
                format!("write-{partition:05}"),
                (&stop, &writer.meter),
                work,
            )
            .await
        }
    });
    Ok(merge(done.await?, &writer.target.schema))
}

/// Writes rows of one stream, which may borrow.
///
/// # Cancel safety
///
/// As [`run`].
pub(crate) async fn write_stream<S>(
    rows: S,
    writer: Arc<Writer>,
    memory: Memory,
    spill: &Option<Spill>,
) -> Result<Output>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    if let (true, Some(spill)) = (writer.layout.is_ordered(), spill) {
        let order = Order::of(&writer.layout, &writer.target)?;
        writer.meter.enter(Phase::Sorting);
        let chunks = scatter(rows, 0, (&writer.target, &order), memory.run_bytes(), spill.store()).await?;
        return write_ordered(chunks, &order, writer, memory, spill, None).await;
    }
    writer.write(rows, 0).await
}

async fn write_ordered(
    chunks: Vec<Chunk>,
    order: &Order,
    writer: Arc<Writer>,
    memory: Memory,
    spill: &Spill,
    mut checkpoint: Option<Checkpoint>,
) -> Result<Output> {
    writer.meter.begin_again();
    let units = plan_units(&chunks, order, &writer.layout, memory);
    if let Some(checkpoint) = &mut checkpoint {
        keep_if_same(checkpoint, spill, &units).await?;
    }
    let chunks = Arc::new(chunks);
    let stop = Arc::new(AtomicBool::new(false));
    let done = side_by_side(memory.ordered_writers(), units.len(), &stop, |unit| {
        let rows = rows(units[unit].clone(), chunks.clone(), spill.store().clone());
        let (writer, stop, checkpoint) = (writer.clone(), stop.clone(), checkpoint.clone());
        async move {
            let work = async {
                let rows = rows.take_while(|_| std::future::ready(!stop.load(Ordering::Relaxed)));
                let rows = rows.inspect_ok(|rows| writer.meter.add_rows(rows.num_rows()));
                writer.write(std::pin::pin!(rows), unit).await
            };
            once(&checkpoint, format!("gather-{unit:05}"), (&stop, &writer.meter), work).await
        }
    });
    Ok(merge(done.await?, &writer.target.schema))
}

/// The buckets of the units, and of which runs they are.
#[derive(Serialize, Deserialize)]
struct Plan {
    spill: String,
    units: Vec<Vec<Bucket>>,
}

/// Forgets units of the second pass that were made of other runs.
async fn keep_if_same(checkpoint: &mut Checkpoint, spill: &Spill, units: &[Vec<Bucket>]) -> Result<()> {
    const PLAN: &str = "plan";
    let found: Option<Plan> = checkpoint.get(PLAN)?;
    if found.is_some_and(|found| found.spill == spill.name() && found.units == units) {
        return Ok(());
    }
    checkpoint.forget().await?;
    let plan = Plan {
        spill: spill.name(),
        units: units.to_vec(),
    };
    checkpoint.put(PLAN, Vec::new(), &plan).await
}

/// What a unit gives: what it gave before, or what the work gives now, which is recorded.
async fn once<T>(
    checkpoint: &Option<Checkpoint>,
    unit: String,
    (stop, meter): (&AtomicBool, &Meter),
    work: impl Future<Output = Result<T>>,
) -> Result<T>
where
    T: Done + Serialize + DeserializeOwned,
{
    let Some(checkpoint) = checkpoint else {
        return work.await;
    };
    if let Some(done) = checkpoint.get::<T>(&unit)? {
        checkpoint.count();
        done.count(meter);
        return Ok(done);
    }
    let done = work.await?;
    // What was asked to stop ended early.
    if !stop.load(Ordering::Relaxed) {
        checkpoint.put(&unit, done.files(), &done).await?;
    }
    Ok(done)
}

/// What a unit gives.
trait Done {
    /// Its files and their bytes.
    fn files(&self) -> Vec<(String, u64)>;

    /// Counts what was done before.
    fn count(&self, meter: &Meter);
}

impl Done for Output {
    fn files(&self) -> Vec<(String, u64)> {
        let files = self.0.iter().map(|file| (file.entry.path.clone(), file.entry.size));
        files.collect()
    }

    fn count(&self, meter: &Meter) {
        for file in &self.0 {
            let rows: u64 = file.entry.row_groups.iter().map(|row_group| row_group.rows).sum();
            meter.add_rows(rows as usize);
            meter.add_bytes(file.entry.size as usize);
            meter.add_file();
        }
    }
}

impl Done for Vec<Chunk> {
    fn files(&self) -> Vec<(String, u64)> {
        // A run ends where its last chunk does.
        let runs = self.chunk_by(|a, b| a.path == b.path);
        let ends = runs.filter_map(|chunks| chunks.last());
        ends.map(|chunk| (chunk.path.to_string(), chunk.range.end)).collect()
    }

    fn count(&self, meter: &Meter) {
        meter.add_rows(self.iter().map(|chunk| chunk.rows as usize).sum());
    }
}

/// The buckets of each unit of the second pass.
pub(crate) fn plan_units(chunks: &[Chunk], order: &Order, layout: &Layout, memory: Memory) -> Vec<Vec<Bucket>> {
    let total: u64 = chunks.iter().map(|chunk| chunk.bytes).sum();
    let several = UNITS.min(total.div_ceil(layout.row_group_bytes.saturating_mul(UNIT_ROW_GROUPS)));
    let n = total.div_ceil(layout.file_bytes).max(several).max(1);
    let buckets = buckets(chunks, order.is_hash(), memory.bucket_bytes().min(total.div_ceil(n)));
    units(buckets, usize::try_from(n).unwrap_or(usize::MAX))
}

fn merge(done: Vec<Output>, schema: &Schema) -> Output {
    let mut written = Vec::new();
    let mut evidence = Evidence::new(schema);
    for (files, seen) in done {
        written.extend(files);
        evidence.merge(&seen);
    }
    (written, evidence)
}

/// Does `n` pieces of work, so many at the same time; what they give comes by their numbers. After a failure the others are
/// asked to stop, and awaited.
async fn side_by_side<T, F>(
    at_once: usize,
    n: usize,
    stop: &AtomicBool,
    mut work: impl FnMut(usize) -> F,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut found: Vec<Option<T>> = (0..n).map(|_| None).collect();
    let mut failure = None;
    let mut next = 0;
    loop {
        while next < n && tasks.len() < at_once.max(1) && failure.is_none() {
            let (i, piece) = (next, work(next));
            tasks.spawn(async move { (i, piece.await) });
            next += 1;
        }
        match tasks.join_next().await {
            None => break,
            Some(Ok((i, Ok(done)))) => found[i] = Some(done),
            Some(Ok((_, Err(error)))) => failure = failure.or(Some(error)),
            Some(Err(error)) => {
                failure = failure.or(Some(Error::internal("a writer panicked").with_source(error)));
            }
        }
        if failure.is_some() {
            // Not aborted: a store finishes in the background what an aborted task began, and would put a file back that is
            // taken away later.
            stop.store(true, Ordering::Relaxed);
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(found.into_iter().flatten().collect()),
    }
}
