//! Submits plans to a scheduler, and asks how they are.

use std::sync::Arc;
use std::time::Duration;

use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::execute_query_result;
use ballista_core::serde::protobuf::job_status::Status;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, CleanJobDataParams, ExecuteQueryParams, GetJobStatusParams, KeyValuePair, RemoveSessionParams,
};
use ballista_core::version::insert_version_header;
use datafusion::execution::config::SessionConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use squall_schema::{Error, ErrorKind, Result};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::error::query_error;

use super::codec::Codec;
use super::session::MESSAGE_BYTES;

/// How long a connection, and how long an answer may take.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);

/// How a job is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Job {
    /// It waits, or its tasks run.
    Going,
    /// The scheduler takes it for done.
    Done,
    /// It ended with this text.
    Failed(String),
}

/// A session of a scheduler.
pub(crate) struct Client {
    scheduler: SchedulerGrpcClient<Channel>,
    url: String,
    session: String,
    settings: Vec<KeyValuePair>,
}

impl Client {
    /// Connects to the scheduler at `url`; jobs run with the settings of `config`.
    pub(crate) async fn connect(url: &str, session: String, config: &SessionConfig) -> Result<Self> {
        let (host, port) = address(url)?;
        let refused = |error: tonic::transport::Error| {
            let why = std::error::Error::source(&error).map(ToString::to_string);
            Error::new(
                ErrorKind::Engine,
                "no scheduler answers there: start one by `squall scheduler`",
            )
            .at("scheduler", url)
            .with_source(why.unwrap_or_else(|| error.to_string()))
        };
        let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(refused)?;
        let channel = endpoint
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .connect()
            .await
            .map_err(refused)?;
        let entries = config.options().entries();
        let settings = entries.into_iter().map(|entry| KeyValuePair {
            key: entry.key,
            value: entry.value,
        });
        Ok(Self {
            scheduler: SchedulerGrpcClient::new(channel)
                .max_encoding_message_size(MESSAGE_BYTES as usize)
                .max_decoding_message_size(MESSAGE_BYTES as usize),
            url: url.to_owned(),
            session,
            settings: settings.collect(),
        })
    }

    /// Submits a plan with these settings beside those of the session; gives the job's name.
    pub(crate) async fn submit(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        settings: &[(String, String)],
    ) -> Result<String> {
        let own = settings.iter().map(|(key, value)| KeyValuePair {
            key: key.clone(),
            value: Some(value.clone()),
        });
        let settings = self.settings.iter().cloned().chain(own).collect();
        let plan = PhysicalPlanNode::try_from_physical_plan(plan, &Codec::default()).map_err(|error| {
            Error::unsupported("the plan of the query cannot be sent to a cluster").with_source(query_error(error))
        })?;
        let mut bytes = Vec::new();
        plan.try_encode(&mut bytes).map_err(query_error)?;
        if bytes.len() >= MESSAGE_BYTES as usize {
            return Err(Error::unsupported(format!(
                "the plan of the query has {} bytes, too many to send: tables in memory belong in files",
                bytes.len()
            )));
        }
        let mut request = Request::new(ExecuteQueryParams {
            session_id: self.session.clone(),
            settings,
            operation_id: self.session.clone(),
            query: Some(Query::PhysicalPlan(bytes)),
        });
        insert_version_header(request.metadata_mut());
        let answer = self
            .scheduler
            .execute_query(request)
            .await
            .map_err(|status| self.failed(&status))?;
        match answer.into_inner().result {
            Some(execute_query_result::Result::Success(job)) => Ok(job.job_id),
            other => Err(Error::new(ErrorKind::Engine, "the scheduler refuses the plan")
                .at("scheduler", &self.url)
                .with_source(format!("{other:?}"))),
        }
    }

    /// How a job is.
    pub(crate) async fn status(&mut self, job: &str) -> Result<Job> {
        let asked = GetJobStatusParams { job_id: job.to_owned() };
        let answer = self
            .scheduler
            .get_job_status(asked)
            .await
            .map_err(|status| self.failed(&status))?;
        Ok(match answer.into_inner().status.and_then(|status| status.status) {
            None | Some(Status::Queued(_) | Status::Running(_)) => Job::Going,
            Some(Status::Successful(_)) => Job::Done,
            Some(Status::Failed(failed)) => Job::Failed(failed.error),
        })
    }

    /// Ends a job, and has executors take its intermediate results away. It does not matter if that is not heard.
    pub(crate) async fn cancel(&mut self, job: &str) {
        let job_id = job.to_owned();
        let _ = self
            .scheduler
            .cancel_job(CancelJobParams { job_id: job_id.clone() })
            .await;
        let _ = self
            .scheduler
            .clean_job_data(CleanJobDataParams {
                job_id,
                remove_stage_ids: Vec::new(),
            })
            .await;
    }

    /// Ends the session. It does not matter if that is not heard.
    pub(crate) async fn end(&mut self) {
        let session_id = self.session.clone();
        let _ = self.scheduler.remove_session(RemoveSessionParams { session_id }).await;
    }

    fn failed(&self, status: &tonic::Status) -> Error {
        Error::new(ErrorKind::Engine, "the scheduler failed")
            .at("scheduler", &self.url)
            .with_source(status.message())
    }
}

/// Host and port of `df://host:port`, or of `host:port`.
pub(crate) fn address(url: &str) -> Result<(String, u16)> {
    let bare = url
        .strip_prefix("df://")
        .or_else(|| url.strip_prefix("http://"))
        .unwrap_or(url);
    let parts = bare.trim_end_matches('/').rsplit_once(':');
    match parts.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) if !host.is_empty() && !host.contains('/') => Ok((host.to_owned(), port)),
        _ => Err(Error::invalid(format!(
            "expected a scheduler as df://host:port, found {url:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_have_addresses() {
        for url in ["df://a:1", "a:1", "http://a:1/"] {
            assert_eq!(address(url).expect("an address"), ("a".to_owned(), 1));
        }
        for url in ["df://a", "a:x", "s3://a/b:1", ":1", ""] {
            assert!(address(url).is_err(), "{url}");
        }
    }
}
