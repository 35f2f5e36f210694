//! A Delta table as a table of DataFusion: the files that its log says count, without the rows that it says are gone.
//!
//! The log is read by deltalake; where the table is not on a local disk through a [`Store`], so that URLs, credentials and retries
//! are those of every other source.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use deltalake_core::{DeltaTable, DeltaTableBuilder};
use squall_dataset::Store;
use squall_schema::{Error, ErrorKind, Result};
use url::Url;
use xxhash_rust::xxh3::xxh3_64;

/// One version of a Delta table.
#[derive(Debug)]
pub(crate) struct DeltaSource {
    table: DeltaTable,
    scan: Arc<dyn TableProvider>,
    /// Which table, in which version.
    identity: String,
}

impl DeltaSource {
    /// The newest version, or this one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub(crate) async fn open(store: &Store, version: Option<u64>) -> Result<Self> {
        let failed = |error: deltalake_core::DeltaTableError| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the Delta table cannot be read: {error}"),
            )
            .at("URL", store.url())
            .with_source(error)
        };
        let mut builder = match store.url().to_file_path() {
            // Of a file system deltalake knows that listings have no order; of all others it wants one.
            Some(path) => {
                let root = Url::from_directory_path(&path);
                DeltaTableBuilder::from_url(root.map_err(|()| Error::internal("a path makes no URL"))?)
                    .map_err(failed)?
            }
            // A root of its own for each: sessions find stores by scheme and host, and the store knows where the table lies.
            None => {
                let digest = xxh3_64(store.url().to_string().as_bytes());
                let root = Url::parse(&format!("memory://delta-{digest:016x}/"))
                    .map_err(|error| Error::internal("a number makes no URL").with_source(error))?;
                let builder = DeltaTableBuilder::from_url(root.clone()).map_err(failed)?;
                builder.with_storage_backend(store.objects().clone(), root)
            }
        };
        if let Some(version) = version {
            builder = builder.with_version(version);
        }
        let table = builder.load().await.map_err(failed)?;
        let snapshot = table.snapshot().map_err(failed)?;
        let identity = format!(
            "{} version {} of {}",
            store.url(),
            snapshot.version(),
            snapshot.metadata().id()
        );
        let scan = table.table_provider().await;
        let scan = scan.map_err(|error| failed(error.into()))?;
        Ok(Self { table, scan, identity })
    }

    /// A text that is another one for another table or version.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }
}

#[async_trait]
impl TableProvider for DeltaSource {
    fn schema(&self) -> SchemaRef {
        self.scan.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        self.scan.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let prepared = self.table.update_datafusion_session(state);
        prepared.map_err(|error| DataFusionError::External(Box::new(error)))?;
        self.scan.scan(state, projection, filters, limit).await
    }
}
