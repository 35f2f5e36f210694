//! Has a cluster convert, and sees to it that each unit is done once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field as ArrowField, Schema as ArrowSchema};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, StatisticsArgs, StatisticsContext};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use squall_dataset::Store;
use squall_schema::{Error, ErrorKind, Field, Result};
use tokio::time::{Instant, sleep};

use crate::commit::Staging;
use crate::conform::Target;
use crate::converted::Converted;
use crate::converter::Converter;
use crate::engine::{Output, plan_units};
use crate::error::query_error;
use crate::evidence::Evidence;
use crate::order::Order;
use crate::progress::{Meter, Phase};
use crate::records::remote;
use crate::scratch::nonce;
use crate::steady::wants_order;
use crate::sweep::sweep;

use super::client::{Client, Job};
use super::client_session::planner_for;
use super::cluster::{Cluster, FileWriter};
use super::fault::{self, Fault, Told};
use super::lease::Lease;
use super::node::UnitExec;
use super::place::{Place, seen_by_all, without_secrets};
use super::record::{self, Ledger, Record};
use super::repeat;
use super::session::for_cluster;
use super::stage;
use super::trials::Trials;
use super::unit::gathering_path;
use super::work::{Gathering, Rows, Task, Work};

/// Between two looks at a job.
const LOOK: Duration = Duration::from_millis(300);
/// How long units may take to end that are not wanted any more, and after how long a silence they have. One that takes longer
/// writes no more files.
const SETTLE: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(3);
/// Jobs in a row that may end without having done a unit.
const FRUITLESS: usize = 4;
/// How long a scheduler may give no answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing may happen where a unit failed on an executor that may hold it: another is free to take it.
const HELD: Duration = Duration::from_secs(2);
/// How often rows are written whose number is not that of another count.
const RECOUNTS: usize = 3;

/// Runs the plan of `rows` on a cluster, whose executors write what it gives.
pub(crate) async fn convert(
    converter: &mut Converter,
    cluster: &Cluster,
    rows: DataFrame,
    declared: &[Field],
) -> Result<Converted> {
    if converter.rules.has_closures() {
        return Err(Error::unsupported(
            "closures stay in their process: a cluster converts without them, in SQL or by rules",
        ));
    }
    let url = converter.url()?;
    let (mut state, query) = rows.into_parts();
    if let Some(planner) = planner_for(&state) {
        state = SessionStateBuilder::new_from_existing(state)
            .with_query_planner(planner)
            .build();
    }
    let local = (state.clone(), query.clone());
    let logical = remote::for_cluster(query, &converter.source.store).map_err(query_error)?;
    let config = for_cluster(state.config().clone());
    let state = SessionStateBuilder::new_from_existing(state)
        .with_config(config)
        .build();
    let stores = without_secrets(&converter.source.store);
    let plan = physical_plan(&state, &logical, &stores).await?;
    repeat::check(&plan)?;
    converter.layout.by_content = wants_order(&plan, &converter.layout);
    let steps = converter
        .rules
        .plan(&plan.schema(), declared, &converter.source.store)?;
    let (columns, existing) = converter.fit(&url, steps.schema()).await?;
    let target = Target::of_query(&columns, steps.declared(), converter.layout.petastorm.as_ref())?;
    converter.check(&target, &existing)?;
    let memory_limit = converter.memory()?.limit();
    let rows = Rows::new(
        (&plan.schema(), &columns),
        declared,
        (&converter.rules, &converter.layout),
        stores.clone(),
        memory_limit,
    )?;
    let conversion = nonce();
    let session = format!("squall-{conversion}");
    let client = Client::connect(&cluster.scheduler, session, state.config()).await?;
    let staging = converter.stage(&url, existing).await?;
    let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
    let total_rows = statistics.ok().and_then(|all| all.num_rows.get_value().copied());
    converter.meter.begin(total_rows.map(|rows| rows as u64));
    let written = async {
        // What units leave, and what is swept, is in a place of its own: where a dataset is already, it is none of theirs.
        let store = match staging.directory() {
            Some(directory) => Store::create_with(&staging.store().url().join(directory.as_ref()), &converter.store)?,
            None => staging.store().clone(),
        };
        let mut driver = Driver {
            client,
            place: Place::of(&store, &converter.store)?,
            lease: Lease::begin(&store, &conversion).await?,
            store,
            conversion,
            staging: &staging,
            meter: converter.meter.clone(),
            stall: cluster.stall,
            lost_after: cluster.lost_after,
        };
        let query = Query {
            local,
            state,
            logical,
            stores,
            plan,
            rows,
        };
        let written = driver.write_counted(&query, &target).await;
        let (mut output, writers) = driver.settle(written).await?;
        if let Some(directory) = staging.directory() {
            for file in &mut output.0 {
                file.entry.path = format!("{directory}/{}", file.entry.path);
            }
        }
        Ok((output, writers))
    };
    let (output, writers) = match written.await {
        Ok((output, writers)) => (Ok(output), writers),
        Err(error) => (Err(error), Vec::new()),
    };
    let converted = converter.finish(url, &target, staging, output).await?;
    Ok(converted.with_writers(writers))
}

/// The plan as a cluster runs it.
async fn physical_plan(
    state: &SessionState,
    query: &LogicalPlan,
    stores: &BTreeMap<String, String>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = state.create_physical_plan(query).await.map_err(query_error)?;
    seen_by_all(plan, stores).map_err(query_error)
}

/// What is converted.
struct Query {
    /// The session and the plan as they were given.
    local: (SessionState, LogicalPlan),
    state: SessionState,
    logical: LogicalPlan,
    /// How tables of the session are reached that are in stores.
    stores: BTreeMap<String, String>,
    plan: Arc<dyn ExecutionPlan>,
    rows: Rows,
}

impl Query {
    fn counted(&self) -> Result<LogicalPlan> {
        let none: [Expr; 0] = [];
        let counted = LogicalPlanBuilder::from(self.logical.clone()).aggregate(none, [count(lit(1))]);
        counted.and_then(LogicalPlanBuilder::build).map_err(query_error)
    }
}

struct Driver<'a> {
    client: Client,
    /// Where units write to, here and for executors.
    store: Store,
    place: Place,
    lease: Lease,
    /// Names its passes, and its lease.
    conversion: String,
    staging: &'a Staging,
    meter: Meter,
    stall: Duration,
    lost_after: Duration,
}

type Written = (Output, Vec<FileWriter>);

/// When an attempt was heard of: reading takes its time, and says nothing of the time after.
struct Heard {
    n: u64,
    /// When this number was first read, and when it was read last.
    since: Instant,
    at: Instant,
}

impl Heard {
    fn silence(&self) -> Duration {
        self.at.duration_since(self.since)
    }
}

/// How a job ended.
enum End {
    /// All units are done.
    Whole,
    /// Some are not, for this reason.
    Short(String),
    /// An executor failed where another may not, and whether others were at work.
    Faulty(Fault, bool),
    /// Nothing happened for so long.
    Stalled(Duration),
}

impl Driver<'_> {
    /// Writes the rows, and counts them in another way where there is one.
    async fn write_counted(&mut self, query: &Query, target: &Target) -> Result<Written> {
        let mut last = None;
        for generation in 0..RECOUNTS {
            let (records, rows) = self.write(query, target, generation).await?;
            let written: u64 = records.iter().map(|record| record.rows).sum();
            if written != rows {
                return Err(Error::internal(format!(
                    "{rows} rows were brought in order, and {written} written"
                )));
            }
            match self.recount(query, generation).await? {
                Some(counted) if counted != written => last = Some((counted, written)),
                _ => return Ok(merge(records, target)),
            }
        }
        let (counted, written) = last.unwrap_or_default();
        Err(Error::new(
            ErrorKind::Engine,
            format!(
                "a count of the query's rows gives {counted}, and {written} were written: is its source being changed?"
            ),
        ))
    }

    /// The records of the units that wrote files, and how many rows the query gave.
    async fn write(&mut self, query: &Query, target: &Target, generation: usize) -> Result<(Vec<Record>, u64)> {
        let rows = Box::new(query.rows.clone());
        if !rows.layout.is_ordered() {
            self.meter.enter(Phase::Writing);
            let records = self
                .pass(
                    pass_name(&self.conversion, generation, "write"),
                    Task::Write(rows),
                    &query.plan,
                )
                .await?;
            let total = records.iter().map(|record| record.rows).sum();
            return Ok((records, total));
        }
        self.meter.enter(Phase::Sorting);
        let scattered = self
            .pass(
                pass_name(&self.conversion, generation, "scatter"),
                Task::Scatter(rows.clone()),
                &query.plan,
            )
            .await?;
        let total = scattered.iter().map(|record| record.rows).sum();
        self.meter.begin_again();
        let chunks: Vec<_> = scattered.into_iter().flat_map(|record| record.chunks).collect();
        if chunks.is_empty() {
            return Ok((Vec::new(), total));
        }
        let order = Order::of(&rows.layout, target)?;
        let units = plan_units(&chunks, &order, &rows.layout, rows.memory()?);
        let n = units.len();
        let pass = pass_name(&self.conversion, generation, "gather");
        let gathering = Gathering {
            units,
            chunks: Arc::new(chunks),
        };
        record::write(&self.store, &gathering_path(&pass), &gathering).await?;
        let records = self.pass(pass, Task::Gather(rows), &numbers(n)?).await?;
        Ok((records, total))
    }

    /// How many rows the query has, found without what was written: from footers where it takes all rows of its sources, by
    /// another job where rows went from one executor to another. Otherwise a unit is what its partition gives, and nothing else.
    async fn recount(&mut self, query: &Query, generation: usize) -> Result<Option<u64>> {
        if repeat::is_scan(&query.plan) {
            let counted = DataFrame::new(query.local.0.clone(), query.local.1.clone())
                .count()
                .await;
            return Ok(Some(counted.map_err(query_error)? as u64));
        }
        if !repeat::has_stages(&query.plan) {
            return Ok(None);
        }
        let plan = physical_plan(&query.state, &query.counted()?, &query.stores).await?;
        let records = self
            .pass(pass_name(&self.conversion, generation, "count"), Task::Count, &plan)
            .await?;
        Ok(Some(records.iter().map(|record| record.rows).sum()))
    }

    /// Has all partitions of a plan done as units; submits jobs until each has a record.
    async fn pass(&mut self, pass: String, task: Task, input: &Arc<dyn ExecutionPlan>) -> Result<Vec<Record>> {
        let n = input.output_partitioning().partition_count();
        let ledger = Ledger::new(&self.store, &pass);
        let staging = self.place.clone();
        let settings = stage::settings(&staging, &pass);
        let prefix = self.staging.file_prefix();
        let work = Arc::new(Work {
            staging,
            pass,
            prefix,
            task,
        });
        let plan: Arc<dyn ExecutionPlan> = Arc::new(UnitExec::new(work, input.clone()));
        let mut records = BTreeMap::new();
        let mut fruitless = 0;
        let mut trials = Trials::default();
        loop {
            let before = records.len();
            let job = self.client.submit(plan.clone(), &settings).await?;
            let stall = match trials.is_any() {
                true => HELD.min(self.stall),
                false => self.stall,
            };
            let end = self.watch((&job, stall), &ledger, n, &mut records).await;
            if !matches!(end, Ok(End::Whole)) {
                self.client.cancel(&job).await;
            }
            if records.len() > before {
                trials.progress();
                fruitless = 0;
            }
            let why = match end? {
                End::Whole => return Ok(records.into_values().collect()),
                End::Faulty(fault, are_others_at_work) => {
                    trials.failed(fault, are_others_at_work)?;
                    continue;
                }
                End::Stalled(_) if trials.is_any() => {
                    trials.stalled()?;
                    continue;
                }
                End::Stalled(stall) => format!("nothing happened for {} s", stall.as_secs()),
                End::Short(why) => why,
            };
            if records.len() == before {
                fruitless += 1;
            }
            if fruitless >= FRUITLESS {
                let message = format!("the cluster did {} of {n} units and gets no further", records.len());
                return Err(Error::new(ErrorKind::Engine, message).with_source(why));
            }
        }
    }

    /// Follows a job until its units are done, or it gets no further.
    async fn watch(
        &mut self,
        (job, stall): (&str, Duration),
        ledger: &Ledger,
        n: usize,
        records: &mut BTreeMap<usize, Record>,
    ) -> Result<End> {
        let mut heard: HashMap<Path, Heard> = HashMap::new();
        let (mut moved, mut answered) = (Instant::now(), Instant::now());
        loop {
            // Asked before the records are listed: what is done then has left its record.
            let status = match self.client.status(job).await {
                Ok(status) => {
                    answered = Instant::now();
                    status
                }
                Err(error) if answered.elapsed() > PATIENCE => return Err(error),
                Err(_) => Job::Going,
            };
            let (done, beats) = ledger.list().await?;
            let new: Vec<_> = done.into_iter().filter(|unit| !records.contains_key(unit)).collect();
            for record in ledger.records(new).await? {
                records.insert(record.unit, record);
                moved = Instant::now();
            }
            if records.len() >= n {
                self.count(records, Vec::new());
                return Ok(End::Whole);
            }
            match status {
                Job::Going => {}
                Job::Done => return Ok(End::Short("the scheduler takes the job for done".to_owned())),
                Job::Failed(text) => {
                    return match fault::find(&text) {
                        Some(Told::Error(error)) => Err(error),
                        // The one that failed took its own sign of life away before it told.
                        Some(Told::Fault(fault)) => {
                            let others = ledger.heard(beats).await.into_values();
                            let mut others = others.filter(|(beat, _)| !records.contains_key(&beat.unit));
                            Ok(End::Faulty(fault, others.next().is_some()))
                        }
                        None => Ok(End::Short(text)),
                    };
                }
            }
            let mut counted = Vec::new();
            heard.retain(|path, _| beats.contains(path));
            for (path, (beat, at)) in ledger.heard(beats).await {
                if records.contains_key(&beat.unit) {
                    heard.remove(&path);
                    continue;
                }
                counted.push(beat.counted);
                let n = beat.n;
                let last = heard.entry(path).or_insert(Heard { n, since: at, at });
                if last.n != n {
                    (last.n, last.since) = (n, at);
                    moved = Instant::now();
                }
                last.at = at;
            }
            if heard.values().any(|last| last.silence() > self.lost_after) {
                // Whoever does the units anew need not wait for those that are as good as silent.
                let silent = heard.iter().filter(|(_, last)| last.silence() > self.lost_after / 2);
                for (path, _) in silent {
                    let _ = ledger.store.objects().delete(path).await;
                }
                return Ok(End::Short("an executor is lost".to_owned()));
            }
            self.count(records, counted);
            if moved.elapsed() > stall {
                return Ok(End::Stalled(stall));
            }
            sleep(LOOK).await;
        }
    }

    fn count(&self, records: &BTreeMap<usize, Record>, beats: Vec<[u64; 3]>) {
        let done = records.values().map(|record| {
            let bytes = record.files.iter().map(|file| file.entry.size).sum();
            [record.rows, bytes, record.files.len() as u64]
        });
        let add = |sum: [u64; 3], one: [u64; 3]| [sum[0] + one[0], sum[1] + one[1], sum[2] + one[2]];
        self.meter.set(done.chain(beats).fold([0; 3], add));
    }

    /// Ends units that still run, and takes away what no record names.
    async fn settle(&mut self, written: Result<Written>) -> Result<Written> {
        // A driver that was stopped for long may have lost the place to another conversion, whose lease and files are not ours.
        if let Err(lost) = self.staging.confirm().await {
            // What went wrong before is what to tell.
            return written.and(Err(lost));
        }
        self.lease.over().await;
        self.client.end().await;
        let store = &self.store;
        let (began, mut since, mut heard) = (Instant::now(), Instant::now(), Vec::new());
        while began.elapsed() < SETTLE {
            let mut now = Vec::new();
            for pass in passes(&self.conversion) {
                let ledger = Ledger::new(store, &pass);
                let beats = ledger.list().await.unwrap_or_default().1;
                now.extend(
                    ledger
                        .heard(beats)
                        .await
                        .into_iter()
                        .map(|(path, (beat, _))| (path, beat.n)),
                );
            }
            if now.is_empty() {
                break;
            }
            if now != heard {
                (heard, since) = (now, Instant::now());
            } else if since.elapsed() > SETTLED {
                break;
            }
            sleep(LOOK).await;
        }
        if let Ok(((files, _), _)) = &written {
            let files: HashSet<_> = files.iter().map(|file| file.entry.path.clone()).collect();
            self.staging.confirm().await?;
            sweep(store, &files).await?;
        }
        self.lease.end().await;
        written
    }
}

fn pass_name(conversion: &str, generation: usize, what: &str) -> String {
    format!("{conversion}-{generation}-{what}")
}

/// All names of passes.
fn passes(conversion: &str) -> impl Iterator<Item = String> {
    let names = ["write", "scatter", "gather", "count"];
    (0..RECOUNTS).flat_map(move |generation| names.map(|name| pass_name(conversion, generation, name)))
}

fn merge(records: Vec<Record>, target: &Target) -> Written {
    let (mut files, mut evidence, mut writers) = (Vec::new(), Evidence::new(&target.schema), Vec::new());
    for record in records {
        writers.extend(record.files.iter().map(|file| FileWriter {
            file: file.entry.path.clone(),
            executor: record.by.executor.clone(),
            process: record.by.process,
        }));
        files.extend(record.files);
        if let Some(seen) = &record.evidence {
            evidence.merge(seen);
        }
    }
    writers.sort_by(|a, b| a.file.cmp(&b.file));
    ((files, evidence), writers)
}

/// A plan of `n` partitions, each with its number as its only row. Ballista knows how to give a task its own of them.
fn numbers(n: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = Arc::new(ArrowSchema::new(vec![ArrowField::new("unit", DataType::Int64, false)]));
    let failed = |error| Error::internal("units have no numbers").with_source(query_error(error));
    let partition = |unit: usize| {
        let column = Arc::new(Int64Array::from(vec![unit as i64]));
        Ok(vec![RecordBatch::try_new(schema.clone(), vec![column])?])
    };
    let partitions: Vec<_> = (0..n)
        .map(partition)
        .collect::<datafusion::common::Result<_>>()
        .map_err(failed)?;
    Ok(MemorySourceConfig::try_new_exec(&partitions, schema.clone(), None).map_err(failed)?)
}
