//! What a conversion is known by: its plan, its options, and what the plan reads.

use std::io::Write;
use std::sync::Arc;

use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::catalog::{MemTable, TableProvider, default_table_source::source_as_provider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::listing::ListingTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use futures::TryStreamExt;
use squall_schema::{Error, ErrorKind, Field, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::error::query_error;
use crate::records::RecordTable;
use crate::source::SourceTable;

/// Goes up when what a conversion writes changes.
const VERSION: u32 = 1;

/// A digest of all that decides which rows a conversion writes, and how.
pub(crate) struct Key(Xxh3);

impl Key {
    /// That of options, in any text.
    pub(crate) fn of_options(options: &str, declared: &[Field]) -> Result<Self> {
        let mut key = Self(Xxh3::new());
        key.add(&VERSION.to_le_bytes());
        key.add(options.as_bytes());
        let declared = serde_json::to_vec(declared);
        key.add(&declared.map_err(|error| Error::internal("fields are not JSON").with_source(error))?);
        Ok(key)
    }

    /// Adds a name that the user vouches for.
    pub(crate) fn name(mut self, name: &str) -> Self {
        self.add(b"name");
        self.add(name.as_bytes());
        self
    }

    /// Adds a plan and what it reads: of files their paths, sizes, and ETags or times; of batches in memory their values. An error
    /// if the plan gives other rows each time, or reads what nobody can tell from its next version.
    pub(crate) async fn plan(mut self, rows: &DataFrame) -> Result<Self> {
        let (state, plan) = rows.clone().into_parts();
        let config = state.config_options();
        let partitions = state.config().target_partitions();
        self.add(format!("plan, {partitions} partitions, zone {:?}", config.execution.time_zone).as_bytes());
        for table in self.nodes(&plan)? {
            self.table(&table, &state).await?;
        }
        Ok(self)
    }

    /// Adds a text that another engine's plan, or what it reads, is known by.
    #[cfg(feature = "spark")]
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.add(text.as_bytes());
        self
    }

    /// The key as hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        format!("{:032x}", self.0.digest128())
    }

    /// Parts are told from each other by their lengths.
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds the nodes of a plan; gives the tables that it reads.
    fn nodes(&mut self, plan: &LogicalPlan) -> Result<Vec<Arc<dyn TableProvider>>> {
        let mut tables = Vec::new();
        let mut plans = vec![plan.clone()];
        while let Some(plan) = plans.pop() {
            let mut failed = None;
            let visit = |node: &LogicalPlan| {
                // The text of a node leaves out some rows of many, that of its expressions nothing.
                self.add(node.display().to_string().as_bytes());
                for field in node.schema().fields() {
                    self.add(format!("{} {} {}", field.name(), field.data_type(), field.is_nullable()).as_bytes());
                }
                node.apply_expressions(|expr| {
                    self.add(format!("{expr:?}").as_bytes());
                    if failed.is_none() {
                        failed = changing_function(expr);
                    }
                    Ok(TreeNodeRecursion::Continue)
                })?;
                if let LogicalPlan::TableScan(scan) = node {
                    let table = source_as_provider(&scan.source)?;
                    match table.get_logical_plan() {
                        Some(view) => plans.push(view.into_owned()),
                        None => tables.push(table),
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            };
            plan.apply_with_subqueries(visit).map_err(query_error)?;
            if let Some(function) = failed {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "{function}() gives something else each time, so no cache can tell whether a conversion was made: leave it out, or name the conversion by cache_key"
                    ),
                ));
            }
        }
        Ok(tables)
    }

    async fn table(&mut self, table: &Arc<dyn TableProvider>, state: &SessionState) -> Result<()> {
        if let Some(source) = table.downcast_ref::<SourceTable>() {
            let dataset = source.dataset();
            self.add(dataset.url().to_string().as_bytes());
            self.add(dataset.fingerprint().as_bytes());
            return Ok(());
        }
        #[cfg(feature = "delta")]
        if let Some(source) = table.downcast_ref::<crate::delta::DeltaSource>() {
            self.add(source.identity().as_bytes());
            return Ok(());
        }
        if let Some(source) = table.downcast_ref::<RecordTable>() {
            self.add(source.identity().as_bytes());
            return Ok(());
        }
        if let Some(memory) = table.downcast_ref::<MemTable>() {
            for partition in &memory.batches {
                let batches = partition.read().await;
                let written = StreamWriter::try_new(Digest(&mut self.0), &memory.schema()).and_then(|mut writer| {
                    batches.iter().try_for_each(|batch| writer.write(batch))?;
                    writer.finish()
                });
                written.map_err(|error| Error::internal("cannot digest batches").with_source(error))?;
            }
            return Ok(());
        }
        if let Some(files) = table.downcast_ref::<ListingTable>() {
            for url in files.table_paths() {
                let store = state.runtime_env().object_store(url).map_err(query_error)?;
                let listed = url
                    .list_all_files(state, &*store, &files.options().file_extension)
                    .await;
                let mut listed: Vec<_> = listed.map_err(query_error)?.try_collect().await.map_err(query_error)?;
                listed.sort_by(|a, b| a.location.cmp(&b.location));
                self.add(url.as_str().as_bytes());
                self.add(format!("{:?}", files.options().format).as_bytes());
                for file in listed {
                    let identity = match &file.e_tag {
                        Some(tag) => tag.clone(),
                        None => file.last_modified.to_rfc3339(),
                    };
                    self.add(format!("{} {} {identity}", file.location, file.size).as_bytes());
                }
            }
            return Ok(());
        }
        Err(Error::unsupported(
            "the query reads a table of which a cache cannot tell whether it changed: name the conversion by cache_key, and by another name when the table changed",
        ))
    }
}

/// The name of a function in an expression that gives something else each time, or each day.
fn changing_function(expr: &Expr) -> Option<String> {
    use datafusion::common::tree_node::TreeNode;
    let mut found = None;
    let look = expr.apply(|expr| {
        if let Expr::ScalarFunction(function) = expr
            && function.func.signature().volatility != Volatility::Immutable
        {
            found = Some(function.func.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    look.ok().and(found)
}

/// Digests what is written to it.
struct Digest<'a>(&'a mut Xxh3);

impl Write for Digest<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
