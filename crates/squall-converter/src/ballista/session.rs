//! What the sessions of driver, scheduler and executors have in common.

use std::sync::Arc;

use ballista_core::config::{
    BALLISTA_ADAPTIVE_PLANNER_ENABLED, BALLISTA_CLIENT_GRPC_MAX_MESSAGE_SIZE,
    BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK,
};
use ballista_core::extension::SessionConfigExt;
use datafusion::common::Result;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use crate::engine::alone;

use super::place::Registry;
use super::stage::Conversion;

/// Bytes of a message between processes, at most: a plan names all files of a source.
pub(crate) const MESSAGE_BYTES: u32 = 256 << 20;

/// A configuration as a cluster needs it.
pub(crate) fn config() -> SessionConfig {
    for_cluster(SessionConfig::new())
}

/// The configuration of a session with what a cluster needs: plans that can be cut into stages, adaptive execution off, since with it
/// jobs hang that lose an executor, and one partition a task, so that no more is done again than was lost.
pub(crate) fn for_cluster(mut config: SessionConfig) -> SessionConfig {
    alone(&mut config);
    config
        .upgrade_for_ballista()
        .with_option_extension(Conversion::default())
        .set_bool(BALLISTA_ADAPTIVE_PLANNER_ENABLED, false)
        .set_usize(BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, 1)
        .set_usize(BALLISTA_CLIENT_GRPC_MAX_MESSAGE_SIZE, MESSAGE_BYTES as usize)
}

/// A runtime that finds stores by their places, and spills to this directory.
pub(crate) fn runtime(directory: Option<&str>) -> Result<Arc<RuntimeEnv>> {
    let builder = RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(Registry::default()));
    let builder = match directory {
        Some(directory) => builder.with_temp_file_path(directory),
        None => builder,
    };
    builder.build_arc()
}
