//! A directory of Parquet files as a table of DataFusion.
//!
//! DataFusion's own listing table takes hive partition values as they stand in directory names. This one uses the
//! listing of squall-dataset, so that a query sees what a reader sees: values unescaped and typed as Spark does, and null
//! where Spark wrote null.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;
use squall_dataset::{Dataset, DatasetUrl, OpenOptions, footer};
use squall_schema::arrow::field_to_arrow;
use squall_schema::columns::column_from_values;
use squall_schema::{Error, Result};

/// A dataset as a table of DataFusion, with all its columns: those that a reader cannot read too, for a query may make
/// readable ones of them.
#[derive(Debug)]
pub struct SourceTable {
    dataset: Dataset,
    schema: TableSchema,
    /// How its store is reached.
    #[cfg(feature = "ballista")]
    options: squall_dataset::StoreOptions,
}

impl SourceTable {
    /// Opens the directory, or the file, at `url`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn open(url: &DatasetUrl) -> Result<Self> {
        Self::open_with(url, &OpenOptions::default()).await
    }

    /// Opens it with these options, as [`SourceTable::open`] does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the requests; nothing is kept.
    pub async fn open_with(url: &DatasetUrl, options: &OpenOptions) -> Result<Self> {
        let dataset = Dataset::open_with(url, options).await?;
        let Some(first) = dataset.files().first() else {
            return Err(Error::invalid("the dataset has no file").at("URL", url));
        };
        if let Some((file, column)) = dataset.old_column().await? {
            return Err(Error::unsupported(
                "dates or times in the calendar of an old Spark, which a conversion would change: write the file anew with Spark 3",
            )
            .at("column", column)
            .at("file", file)
            .at("URL", url));
        }
        let columns: Vec<_> = match dataset.columns() {
            // Where a file lacks a column, or has a narrower one, DataFusion fills in nulls and casts.
            Some(merged) => merged.iter().cloned().map(Arc::new).collect(),
            None => {
                let footer = footer::load(dataset.store(), &first.path, first.size, false).await?;
                footer::arrow_schema(&footer.metadata)?.fields().to_vec()
            }
        };
        let partitions = dataset.partition_fields();
        let in_file = |column: &&Arc<ArrowField>| partitions.iter().all(|field| field.name != *column.name());
        let column = |column: &Arc<ArrowField>| {
            // One file without nulls says nothing about the others.
            let nullable = dataset.schema().get(column.name()).is_none_or(|field| field.nullable);
            column.as_ref().clone().with_nullable(nullable)
        };
        let columns: Vec<_> = columns.iter().filter(in_file).map(column).collect();
        let partitions = partitions.iter().map(|field| Ok(Arc::new(field_to_arrow(field)?)));
        let schema = TableSchema::builder(Arc::new(ArrowSchema::new(columns)))
            .with_table_partition_cols(partitions.collect::<Result<Vec<_>>>()?)
            .build();
        Ok(Self {
            dataset,
            schema,
            #[cfg(feature = "ballista")]
            options: options.store.clone(),
        })
    }

    /// The dataset behind the table.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// A name of our own for the dataset's store, of which the session may have many.
    fn store_url(&self) -> Result<ObjectStoreUrl, DataFusionError> {
        // On a cluster the name is what others open the store by.
        #[cfg(feature = "ballista")]
        if let Some(url) = crate::ballista::store_url(self.dataset.store(), &self.options) {
            return url;
        }
        let digest = xxhash_rust::xxh3::xxh3_64(self.dataset.url().to_string().as_bytes());
        ObjectStoreUrl::parse(format!("squall://{digest:016x}"))
    }

    /// The files, those that lie next to each other in one group, so that the partitions laid end to end are the table.
    fn groups(&self, n: usize) -> Result<Vec<FileGroup>, DataFusionError> {
        let fields = self.dataset.partition_fields();
        let mut files = Vec::with_capacity(self.dataset.files().len());
        for file in self.dataset.files() {
            let value = |(field, value)| {
                let column =
                    column_from_values(field, &[value]).map_err(|error| DataFusionError::External(error.into()))?;
                ScalarValue::try_from_array(&column, 0)
            };
            let values = fields
                .iter()
                .zip(&file.partition)
                .map(value)
                .collect::<Result<Vec<_>, _>>()?;
            let object = ObjectMeta {
                location: file.path.clone(),
                last_modified: Default::default(),
                size: file.size,
                e_tag: None,
                version: None,
            };
            files.push(PartitionedFile::new_from_meta(object).with_partition_values(values));
        }
        let per_group = files.len().div_ceil(n.max(1)).max(1);
        Ok(files
            .chunks(per_group)
            .map(|files| FileGroup::new(files.to_vec()))
            .collect())
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        self.schema.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        // DataFusion filters the rows itself; what it pushes into the scan of its own accord prunes row groups.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let url = self.store_url()?;
        state
            .runtime_env()
            .register_object_store(url.as_ref(), self.dataset.store().objects().clone());
        let mut options = TableParquetOptions::default();
        // Of nanoseconds, DataFusion's own choice, 64 bits hold the years 1677 to 2262 and silently wrap around beyond.
        options.global.coerce_int96 = Some("us".to_owned());
        options.global.coerce_int96_tz = Some("UTC".to_owned());
        let source = ParquetSource::new(self.schema.clone()).with_table_parquet_options(options);
        let scan = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(self.groups(state.config().target_partitions())?)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            // A partition reads its own files, whichever thread is free: the same rows land in the same files each time.
            .with_preserve_order(true)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}
