//! The fields of a dataset whose files describe themselves, or which Petastorm describes.
//!
//! In: the footers of all files, merged by `merge`; a Unischema, where there is one. Out: the fields that a reader may read, and
//! the columns that it cannot.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow_schema::{Field as ArrowField, Fields};
use object_store::ObjectMeta;
use object_store::path::Path;
use squall_schema::arrow::field_from_arrow;
use squall_schema::petastorm::unischema::Unischema;
use squall_schema::spark::StructType;
use squall_schema::{Error, Field, Result};

use crate::footer::{self, Footer};
use crate::merge::merge;
use crate::{UnsupportedColumn, spark};

/// The fields that Petastorm declares, over the columns that are stored. A field that cannot be read is an error only when
/// it is asked for.
pub(crate) fn declared_fields(
    unischema: &Unischema,
    stored: &FileFields,
    partitions: &[Field],
) -> Result<(Vec<Field>, Vec<UnsupportedColumn>)> {
    let (mut fields, mut unsupported) = (Vec::new(), Vec::new());
    for declared in &unischema.fields {
        let mut columns = stored.fields.iter().chain(partitions);
        let column = columns.find(|field| field.name == declared.name);
        let field = match column {
            Some(column) => declared.field(column),
            None => declared.missing(),
        };
        match field {
            Ok(field) => {
                if let (false, Some(file)) = (field.nullable, stored.lacking.get(&declared.name)) {
                    return Err(Error::corrupt(format!(
                        "the file has no column {:?}, which the Unischema declares without nulls",
                        declared.name
                    ))
                    .at("file", file));
                }
                fields.push(field);
            }
            Err(error) => unsupported.push(UnsupportedColumn {
                name: declared.name.clone(),
                reason: error.message().to_owned(),
            }),
        }
    }
    Ok((fields, unsupported))
}

/// What the files have, taken together.
pub(crate) struct FileFields {
    pub(crate) fields: Vec<Field>,
    pub(crate) unsupported: Vec<UnsupportedColumn>,
    /// All of them, in Arrow's types.
    pub(crate) columns: Vec<ArrowField>,
    /// Of a column that some file lacks, the first such file.
    lacking: BTreeMap<String, Path>,
}

/// The columns of all files but those whose values stand in directory names: Spark gives the value in the name where a
/// file has a column of the same name.
pub(crate) fn file_fields(listed: &[ObjectMeta], footers: &[Footer], partitions: &[Field]) -> Result<FileFields> {
    let columns = |(file, footer): (&ObjectMeta, &Footer)| {
        let schema = footer::arrow_schema(&footer.metadata).map_err(|error| error.at("file", &file.location))?;
        let mut names = HashSet::with_capacity(schema.fields().len());
        for column in schema.fields() {
            if !names.insert(column.name()) {
                let twice = format!("the file has two columns {:?}", column.name());
                return Err(Error::unsupported(twice).at("file", &file.location));
            }
        }
        let in_file = |column: &&Arc<ArrowField>| partitions.iter().all(|field| field.name != *column.name());
        Ok(schema.fields().iter().filter(in_file).cloned().collect())
    };
    let columns: Vec<Fields> = listed.iter().zip(footers).map(columns).collect::<Result<_>>()?;
    let mut files = FileFields {
        fields: Vec::new(),
        unsupported: Vec::new(),
        columns: Vec::new(),
        lacking: BTreeMap::new(),
    };
    let mut meant: BTreeMap<usize, Option<StructType>> = BTreeMap::new();
    for merged in merge(&columns, |file| listed[file].location.to_string())? {
        match field_from_arrow(&merged.column) {
            Ok(field) => {
                // A file that has the column says what it means.
                let own = meant.entry(merged.file);
                let own = own.or_insert_with(|| spark::schema(&footers[merged.file].metadata));
                files.fields.push(spark::declared(field, own.as_ref()));
            }
            Err(_) => files.unsupported.push(UnsupportedColumn {
                name: merged.column.name().clone(),
                reason: format!("a {} is neither a scalar nor a tensor", merged.column.data_type()),
            }),
        }
        if let Some(file) = merged.lacking {
            let file = listed[file].location.clone();
            files.lacking.insert(merged.column.name().clone(), file);
        }
        files.columns.push(merged.column);
    }
    Ok(files)
}
