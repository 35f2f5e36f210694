//! Signs of life of the tasks below units: those of a query's first stages, which leave no records.

use std::fmt;
use std::sync::Arc;

use ballista_core::serde::protobuf::{RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport};
use ballista_executor::execution_engine::QueryStageExecutor;
use datafusion::common::config::ConfigExtension;
use datafusion::common::{DataFusionError, Result, extensions_options};
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::physical_plan::metrics::MetricsSet;
use squall_schema::{Error, ErrorKind};

use crate::progress::Meter;

use super::doubt::is_doubtful;
use super::fault;
use super::hex;
use super::lease::Watch;
use super::life::Life;
use super::node::Runner;
use super::place::Place;
use super::record::Ledger;
use super::unit::token;

/// The number that stands for tasks which are no unit.
pub(crate) const NO_UNIT: usize = 99_999;

extensions_options! {
    /// What tasks of a conversion know of it: it travels as settings of the job.
    pub(crate) struct Conversion {
        /// The staging place, as JSON in hexadecimal digits.
        pub staging: String, default = String::new()
        /// The pass that the task is of.
        pub pass: String, default = String::new()
    }
}

impl ConfigExtension for Conversion {
    const PREFIX: &'static str = "squall";
}

/// The settings of a job by which its tasks know where to give signs of life.
pub(crate) fn settings(staging: &Place, pass: &str) -> [(String, String); 2] {
    let place = serde_json::to_vec(staging).unwrap_or_default();
    let key = |name| format!("{}.{name}", Conversion::PREFIX);
    [(key("staging"), hex::encode(&place)), (key("pass"), pass.to_owned())]
}

/// A task that says that it lives while it runs, and ends when nobody wants it any more.
#[derive(Debug)]
pub(crate) struct Attended {
    task: Arc<dyn QueryStageExecutor>,
    staging: Place,
    pass: String,
    runner: Runner,
}

impl Attended {
    /// The task, attended if it is one of a conversion.
    pub(crate) fn of(
        task: Arc<dyn QueryStageExecutor>,
        config: &SessionConfig,
        runner: &Runner,
    ) -> Arc<dyn QueryStageExecutor> {
        let conversion = config.options().extensions.get::<Conversion>();
        let staging = conversion.and_then(|own| serde_json::from_slice(&hex::decode(&own.staging)?).ok());
        match (staging, conversion) {
            (Some(staging), Some(own)) => Arc::new(Self {
                task,
                staging,
                pass: own.pass.clone(),
                runner: runner.clone(),
            }),
            _ => task,
        }
    }
}

impl Attended {
    fn told(&self, error: &Error) -> DataFusionError {
        let by = is_doubtful(error.kind()).then(|| {
            self.runner.doubts.add(&self.pass);
            (self.runner.by.executor.clone(), NO_UNIT)
        });
        fault::to_engine(error, by)
    }
}

impl fmt::Display for Attended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.fmt(f)
    }
}

#[async_trait::async_trait]
impl QueryStageExecutor for Attended {
    async fn execute_query_stage(&self, task: usize, context: Arc<TaskContext>) -> Result<Vec<ShuffleWritePartition>> {
        let told = |error: Error| self.told(&error);
        self.runner
            .doubts
            .wait((&self.pass, NO_UNIT), &self.staging)
            .await
            .map_err(told)?;
        let store = self.staging.open().map_err(told)?;
        let ledger = Ledger::new(&store, &self.pass);
        let token = token(NO_UNIT);
        let life = Life::begin(
            &self.runner.threads,
            (ledger.clone(), Watch::of(&self.pass)),
            (NO_UNIT, token.clone()),
            Meter::default(),
        );
        let done = tokio::select! {
            done = self.task.execute_query_stage(task, context) => done,
            // What it has is on the executor's own disk, and goes with the job.
            () = life.unwanted() => Ok(Vec::new()),
        };
        match life.end(&ledger, (NO_UNIT, &token)).await {
            Some(unwanted) => Err(fault::to_engine(&unwanted, None)),
            // A source that this executor cannot read another may.
            None => done.map_err(|error| match error.find_root() {
                DataFusionError::ObjectStore(_) => {
                    told(Error::new(ErrorKind::Storage, "the query failed").with_source(error))
                }
                _ => error,
            }),
        }
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.task.collect_plan_metrics()
    }

    fn collect_runtime_stats_reports(&self) -> Vec<RuntimeStatsReport> {
        self.task.collect_runtime_stats_reports()
    }

    fn collect_window_state_reports(&self) -> Result<Vec<WindowStateReport>> {
        self.task.collect_window_state_reports()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.task.collect_column_stats()
    }
}
