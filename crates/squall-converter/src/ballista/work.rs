//! What a job has its executors do.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use serde::{Deserialize, Serialize};
use squall_dataset::StoreOptions;
use squall_schema::{ByteSize, Field, Result};

use crate::bucket::Bucket;
use crate::conform::Target;
use crate::layout::Layout;
use crate::memory::Memory;
use crate::rules::{Rules, Steps};
use crate::run::Chunk;

use super::columns;
use super::place::Place;

/// What the units of a job do, each with the rows of its partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Where files, records and signs of life are written.
    pub(crate) staging: Place,
    /// Names the records of the job, and of those that are submitted in its place.
    pub(crate) pass: String,
    /// What the names of files begin with.
    pub(crate) prefix: String,
    pub(crate) task: Task,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Adds up the numbers that come: a query counts its rows.
    Count,
    /// Writes rows to files in the order in which they come.
    Write(Box<Rows>),
    /// Brings rows in order, in runs.
    Scatter(Box<Rows>),
    /// Writes the rows of some buckets, which stand in the file of the [`Gathering`]; the number of the unit is the row that comes.
    Gather(Box<Rows>),
}

/// What becomes of the rows of a query.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rows {
    /// The columns of the query's result, as an Arrow IPC stream without batches.
    columns: String,
    /// The columns that the rules make of them, as they are written: those of an append fit what is there.
    written: String,
    declared: Vec<Field>,
    rules: Rules,
    pub(crate) layout: Layout,
    /// How images that are named by paths are reached.
    images: BTreeMap<String, String>,
    memory_limit: Option<u64>,
}

impl Rows {
    pub(crate) fn new(
        (columns, written): (&SchemaRef, &SchemaRef),
        declared: &[Field],
        (rules, layout): (&Rules, &Layout),
        images: BTreeMap<String, String>,
        memory_limit: Option<ByteSize>,
    ) -> Result<Self> {
        Ok(Self {
            columns: columns::to_text(columns)?,
            written: columns::to_text(written)?,
            declared: declared.to_vec(),
            rules: rules.clone(),
            layout: layout.clone(),
            images,
            memory_limit: memory_limit.map(|limit| limit.bytes()),
        })
    }

    /// The steps that the driver planned, and what comes out of them.
    pub(crate) fn plan(&self) -> Result<(Steps, Target)> {
        let images = StoreOptions::default().with_options(self.images.clone());
        let columns = columns::from_text(&self.columns)?;
        let steps = self.rules.plan(&columns, &self.declared, &images)?;
        let written = columns::from_text(&self.written)?;
        let target = Target::of_query(&written, steps.declared(), self.layout.petastorm.as_ref())?;
        Ok((steps, target))
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::new(self.memory_limit.map(ByteSize::new), self.layout.row_group_bytes)
    }
}

/// The buckets of all units, and the chunks that they are read from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Gathering {
    pub(crate) units: Vec<Vec<Bucket>>,
    pub(crate) chunks: Arc<Vec<Chunk>>,
}
