//! Where the fields of a reader stand in a file: which of its leaves they need, and how to find them in what was decoded.

use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, make_array, new_null_array};
use arrow_buffer::NullBuffer;
use parquet::arrow::ProjectionMask;
use parquet::schema::types::SchemaDescriptor;
use squall_dataset::{Dataset, Origin};
use squall_schema::arrow::field_to_arrow;
use squall_schema::{Error, Field, Result, Schema};

/// The stored fields that are read, and where each stands.
#[derive(Debug)]
pub(crate) struct Columns {
    schema: Schema,
    /// For each field the names that lead to it in a file; `None` where its value stands in a directory name.
    paths: Vec<Option<Vec<String>>>,
    /// Whether each file has all of them.
    complete: bool,
}

impl Columns {
    /// The columns of `schema`, a selection of the dataset's.
    pub(crate) fn new(dataset: &Dataset, schema: Schema) -> Result<Self> {
        let path = |field: &Field| {
            if dataset.partition_fields().iter().any(|own| own.name == field.name) {
                return Ok(None);
            }
            match dataset.schema().locate(&field.name) {
                Some((_, path)) => Ok(Some(path)),
                None => Err(dataset.schema().unknown(&field.name)),
            }
        };
        Ok(Self {
            paths: schema.fields().iter().map(path).collect::<Result<_>>()?,
            // Squall gives every file every column; a file without one is damaged.
            complete: matches!(dataset.origin(), Origin::Squall(_)),
            schema,
        })
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The names that lead to the field in this place; `None` where its value stands in a directory name.
    #[cfg(feature = "filter")]
    pub(crate) fn path(&self, place: usize) -> Option<&[String]> {
        self.paths[place].as_deref()
    }

    /// Whether each file has all of the fields.
    #[cfg(feature = "filter")]
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether no field stands in a file.
    pub(crate) fn in_directories_only(&self) -> bool {
        self.paths.iter().all(Option::is_none)
    }

    /// The fields in these places alone.
    pub(crate) fn subset(&self, places: &[usize]) -> Result<Self> {
        let fields = places.iter().map(|place| self.schema.fields()[*place].clone());
        Ok(Self {
            schema: Schema::new(fields.collect())?,
            paths: places.iter().map(|place| self.paths[*place].clone()).collect(),
            complete: self.complete,
        })
    }

    /// The leaves of a file that the fields need.
    pub(crate) fn projection(&self, file: &SchemaDescriptor) -> Result<ProjectionMask> {
        Ok(ProjectionMask::leaves(file, self.leaves(file)?.into_iter().flatten()))
    }

    /// The leaves of a file that each field needs; none for one that the file does not have.
    pub(crate) fn leaves(&self, file: &SchemaDescriptor) -> Result<Vec<Vec<usize>>> {
        let mut by_root: HashMap<&str, Vec<usize>> = HashMap::new();
        for (leaf, column) in file.columns().iter().enumerate() {
            let root = column.path().parts().first().map_or("", String::as_str);
            by_root.entry(root).or_default().push(leaf);
        }
        let leaves_of = |path: &Option<Vec<String>>| {
            let Some(path) = path else { return Ok(Vec::new()) };
            let root = path.first().and_then(|root| by_root.get(root.as_str()));
            let below = |leaf: &usize| file.column(*leaf).path().parts().starts_with(path);
            let leaves: Vec<_> = root.into_iter().flatten().copied().filter(below).collect();
            if self.complete && leaves.is_empty() {
                return Err(Error::corrupt(format!(
                    "the file has no column {:?}, though the dataset has it",
                    path.join(".")
                )));
            }
            Ok(leaves)
        };
        self.paths.iter().map(leaves_of).collect()
    }

    /// The column of the field in this place, from what was decoded of a file: nulls where the file has none. `None` for a
    /// field that stands in a directory name.
    pub(crate) fn find(&self, place: usize, batch: &RecordBatch) -> Option<Result<ArrayRef>> {
        let path = self.paths[place].as_ref()?;
        let found = path.split_first().and_then(|(name, members)| {
            let column = batch.column_by_name(name)?.clone();
            members.iter().try_fold(column, |column, name| member(&column, name))
        });
        let field = &self.schema.fields()[place];
        Some(match found {
            Some(column) => Ok(column),
            None if field.nullable => {
                field_to_arrow(field).map(|own| new_null_array(own.data_type(), batch.num_rows()))
            }
            None => Err(Error::corrupt(format!(
                "the file has no column {:?}, which has no nulls",
                field.name
            ))),
        })
    }
}

/// The member of a struct column, null where the struct is.
fn member(column: &ArrayRef, name: &str) -> Option<ArrayRef> {
    let column = column.as_struct_opt()?;
    let member = column.column_by_name(name)?;
    if column.null_count() == 0 {
        return Some(member.clone());
    }
    let nulls = NullBuffer::union(column.nulls(), member.nulls());
    let data = member.to_data().into_builder().nulls(nulls).build().ok()?;
    Some(make_array(data))
}
