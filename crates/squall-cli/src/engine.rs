//! The flags of `squall convert` that say what runs the query and writes the files.

use std::num::{NonZeroU16, NonZeroUsize};

use clap::{Args, ValueEnum};
use squall::convert::{Converted, Converter, convert_sources};
use squall::{Error, Result};

/// Where Spark's own programs look for a server that no flag names.
#[cfg(feature = "spark")]
const SPARK_REMOTE: &str = "SPARK_REMOTE";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// In this process
    Datafusion,
    /// On the executors of a cluster of Ballista
    Ballista,
    /// On a Spark Connect server
    Spark,
}

#[derive(Args)]
pub(crate) struct EngineOptions {
    /// What runs the query and writes the files
    #[arg(long, value_enum, default_value = "datafusion")]
    engine: Engine,
    /// With --engine ballista: the scheduler that `squall scheduler` runs
    #[arg(long, value_name = "df://HOST:PORT")]
    scheduler: Option<String>,
    /// With --engine ballista and no --scheduler: how many executors are started on this machine, for this conversion [default: 2]
    #[arg(long, value_name = "N", conflicts_with = "scheduler")]
    executors: Option<NonZeroUsize>,
    /// With --engine ballista: seconds without a sign of life after which an executor is lost [default: 8]
    #[arg(long, value_name = "SECONDS")]
    lost_after: Option<NonZeroU16>,
    /// With --engine spark: the server, sc://host:15002 or sc://host:15002/;token=…;use_ssl=true; SPARK_REMOTE of the environment if
    /// not given, where no list of processes shows a token
    #[arg(long, value_name = "URL")]
    remote: Option<String>,
}

impl EngineOptions {
    /// Refuses what the engine does not do.
    pub(crate) fn check(&self, dry_run: bool) -> Result<()> {
        let is_cluster = self.scheduler.is_some() || self.executors.is_some() || self.lost_after.is_some();
        match self.engine {
            Engine::Datafusion | Engine::Spark if is_cluster => Err(Error::invalid(
                "--scheduler, --executors and --lost-after are for a cluster: add --engine ballista",
            )),
            Engine::Datafusion | Engine::Ballista if self.remote.is_some() => {
                Err(Error::invalid("--remote names a server of Spark: add --engine spark"))
            }
            Engine::Ballista | Engine::Spark if dry_run => {
                Err(Error::unsupported("a dry run is for the embedded engine"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn convert(
        &self,
        sources: &[(&str, &str)],
        converter: Converter,
        sql: Option<&str>,
    ) -> Result<Converted> {
        match self.engine {
            Engine::Datafusion => convert_sources(sources, converter, sql).await,
            Engine::Ballista => self.on_ballista(sources, converter, sql).await,
            Engine::Spark => self.on_spark(sources, converter, sql).await,
        }
    }

    #[cfg(feature = "ballista")]
    async fn on_ballista(
        &self,
        sources: &[(&str, &str)],
        converter: Converter,
        sql: Option<&str>,
    ) -> Result<Converted> {
        use std::time::Duration;

        use squall::convert::Cluster;

        use crate::cluster::Started;

        // What is started for this conversion ends with it.
        let (scheduler, _started) = match &self.scheduler {
            Some(scheduler) => (scheduler.clone(), None),
            None => {
                let two = NonZeroUsize::MIN.saturating_add(1);
                let started = Started::begin(self.executors.unwrap_or(two))?;
                (started.scheduler.clone(), Some(started))
            }
        };
        let mut cluster = Cluster::new(scheduler);
        if let Some(seconds) = self.lost_after {
            cluster = cluster.lost_after(Duration::from_secs(seconds.get().into()));
        }
        convert_sources(sources, converter.cluster(cluster), sql).await
    }

    #[cfg(not(feature = "ballista"))]
    async fn on_ballista(&self, _: &[(&str, &str)], _: Converter, _: Option<&str>) -> Result<Converted> {
        Err(Error::unsupported(
            "this program was built without Ballista: build squall-cli with --features ballista",
        ))
    }

    #[cfg(feature = "spark")]
    async fn on_spark(&self, sources: &[(&str, &str)], converter: Converter, sql: Option<&str>) -> Result<Converted> {
        let remote = self.remote.clone().or_else(|| std::env::var(SPARK_REMOTE).ok());
        let remote = remote.ok_or_else(|| {
            Error::invalid(format!(
                "--engine spark needs a server: --remote sc://host:15002, or {SPARK_REMOTE}"
            ))
        })?;
        squall::convert::spark::convert_spark_sources(&remote, sources, converter, sql).await
    }

    #[cfg(not(feature = "spark"))]
    async fn on_spark(&self, _: &[(&str, &str)], _: Converter, _: Option<&str>) -> Result<Converted> {
        Err(Error::unsupported(
            "this program was built without Spark: build squall-cli with --features spark",
        ))
    }
}
