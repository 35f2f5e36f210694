//! What Petastorm needs beside the files: a Unischema, the number of row groups of each file, row-group indexes.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Array, ArrayRef, RecordBatch};
use serde::{Deserialize, Serialize};
use squall_schema::codec::decode_column;
use squall_schema::columns::{elements_from_bytes, value_at};
use squall_schema::metadata::FileEntry;
use squall_schema::petastorm::write::{IndexKeys, WrittenIndex, index_key, index_pickle, unischema_pickle};
use squall_schema::petastorm::{INDEX_KEY, ROW_GROUPS_KEY, UNISCHEMA_KEY};
use squall_schema::{DType, Error, Field, Result, Schema, Value};

use crate::conform::Target;

/// Says that Petastorm's readers open the dataset, and how: [`Converter::petastorm`](crate::Converter::petastorm).
///
/// Arrays are stored as npy cells, half floats as floats, times in microseconds; what Petastorm cannot read is refused. The
/// Unischema is pickled such that Petastorm 0.9 and later read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[must_use]
pub struct Petastorm {
    name: String,
    indexes: Vec<Indexer>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Indexer {
    name: String,
    column: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Kind {
    SingleField,
    NotNull,
}

impl Petastorm {
    /// A Unischema of this name, a Python identifier, and no index.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            indexes: Vec::new(),
        }
    }

    /// Adds a row-group index: the row groups that hold each value of a column, or each element of its arrays
    /// (`SingleFieldIndexer`).
    pub fn index(self, name: impl Into<String>, column: impl Into<String>) -> Self {
        self.with(name.into(), column.into(), Kind::SingleField)
    }

    /// Adds a row-group index: the row groups in which a column is not always null (`FieldNotNullIndexer`).
    pub fn not_null_index(self, name: impl Into<String>, column: impl Into<String>) -> Self {
        self.with(name.into(), column.into(), Kind::NotNull)
    }

    fn with(mut self, name: String, column: String, kind: Kind) -> Self {
        self.indexes.push(Indexer { name, column, kind });
        self
    }

    /// Refuses what cannot be written, before a query runs.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        unischema_pickle(&self.name, schema)?;
        let mut lower = BTreeSet::new();
        if let Some(name) = schema.names().find(|name| !lower.insert(name.to_lowercase())) {
            return Err(Error::unsupported(format!(
                "Spark takes the column {name:?} for another that differs in upper and lower case only: rename it in SQL"
            )));
        }
        for (i, index) in self.indexes.iter().enumerate() {
            if self.indexes[..i].iter().any(|earlier| earlier.name == index.name) {
                return Err(Error::invalid(format!(
                    "two row-group indexes have the name {:?}",
                    index.name
                )));
            }
            schema.get(&index.column).ok_or_else(|| schema.unknown(&index.column))?;
        }
        Ok(())
    }

    /// The keys and values of `_common_metadata`.
    pub(crate) fn key_values(
        &self,
        schema: &Schema,
        files: &[(&FileEntry, &[RowGroupKeys])],
    ) -> Result<Vec<(&'static str, String)>> {
        let counts = files
            .iter()
            .map(|(file, _)| (file.path.as_str(), file.row_groups.len()));
        let counts = serde_json::to_string(&counts.collect::<BTreeMap<_, _>>());
        let counts = counts.map_err(|error| Error::internal("row group counts are not JSON").with_source(error))?;
        let mut pairs = vec![
            (UNISCHEMA_KEY, unischema_pickle(&self.name, schema)?),
            (ROW_GROUPS_KEY, counts),
        ];
        if !self.indexes.is_empty() {
            let written = self.indexes.iter().enumerate().map(|(i, index)| {
                let row_groups = files.iter().flat_map(|(_, row_groups)| row_groups.iter()).zip(0u32..);
                let keys = match index.kind {
                    Kind::NotNull => {
                        let there = row_groups.filter(|(keys, _)| keys.0[i].not_null);
                        IndexKeys::NotNull(there.map(|(_, ordinal)| ordinal).collect())
                    }
                    Kind::SingleField => {
                        let mut values: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
                        for (keys, ordinal) in row_groups {
                            for key in &keys.0[i].values {
                                values.entry(key.clone()).or_default().insert(ordinal);
                            }
                        }
                        IndexKeys::Values(values)
                    }
                };
                WrittenIndex {
                    name: index.name.clone(),
                    column: index.column.clone(),
                    keys,
                }
            });
            pairs.push((INDEX_KEY, index_pickle(&written.collect::<Vec<_>>())));
        }
        Ok(pairs)
    }

    /// The columns of the row-group indexes.
    #[cfg(feature = "spark")]
    pub(crate) fn indexed(&self) -> impl Iterator<Item = &str> {
        self.indexes.iter().map(|index| index.column.as_str())
    }

    /// Notes what a row group holds. `rows` conform to the target.
    pub(crate) fn see(&self, target: &Target, rows: &RecordBatch, seen: &mut RowGroupKeys) -> Result<()> {
        seen.0.resize_with(self.indexes.len(), Default::default);
        for (index, seen) in self.indexes.iter().zip(&mut seen.0) {
            let (Some(field), Some(column)) = (target.schema.get(&index.column), rows.column_by_name(&index.column))
            else {
                return Err(target.schema.unknown(&index.column));
            };
            seen.not_null |= column.null_count() < column.len();
            if index.kind == Kind::SingleField {
                let at = |error: Error| error.at("row-group index", &index.name);
                // Cells that pass through are looked into.
                match target.declared(&index.column) {
                    Some(field) if field.codec.is_some() => see_values(&decode_column(column, field)?, field, seen),
                    _ => see_values(column, field, seen),
                }
                .map_err(at)?;
            }
        }
        Ok(())
    }
}

fn see_values(column: &ArrayRef, field: &Field, seen: &mut Seen) -> Result<()> {
    for row in 0..column.len() {
        see_value(&value_at(column, field, row)?, field.dtype, seen)
            .map_err(|error| error.at("column", &field.name))?;
    }
    Ok(())
}

fn see_value(value: &Value, dtype: DType, seen: &mut Seen) -> Result<()> {
    match value {
        Value::Null => {}
        Value::List(items) => return items.iter().try_for_each(|item| see_value(item, dtype, seen)),
        Value::Tensor(tensor) => {
            let elements = elements_from_bytes(dtype, tensor.data())?;
            return see_values(&elements, &Field::scalar("", dtype), seen);
        }
        scalar => {
            seen.values.insert(index_key(scalar, dtype)?);
        }
    }
    Ok(())
}

/// What the indexes know of one row group, in their order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RowGroupKeys(Vec<Seen>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    values: BTreeSet<String>,
    not_null: bool,
}
