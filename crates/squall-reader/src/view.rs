//! Which columns of a dataset are read, by name, by pattern, and with or without structs taken apart.

use squall_dataset::{Dataset, UnsupportedColumn};
use squall_schema::{Error, Result, Schema, name_patterns};

/// The columns that were asked for; all of them by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) names: Option<Vec<String>>,
    pub(crate) patterns: Option<Vec<String>>,
    pub(crate) flatten: bool,
}

impl View {
    /// All columns of the dataset, as this view shows them.
    pub(crate) fn all(&self, dataset: &Dataset) -> Result<Schema> {
        match self.flatten {
            true => dataset.schema().flattened(),
            false => Ok(dataset.schema().clone()),
        }
    }

    /// The columns that are read, in their order.
    pub(crate) fn schema(&self, dataset: &Dataset) -> Result<Schema> {
        self.select(dataset).map_err(|error| error.at("URL", dataset.url()))
    }

    fn select(&self, dataset: &Dataset) -> Result<Schema> {
        let unsupported = dataset.unsupported();
        if self.names.is_none() && self.patterns.is_none() {
            return match unsupported.first() {
                Some(column) => Err(refuse(column)),
                None => self.all(dataset),
            };
        }
        let names = self.names.as_deref().unwrap_or_default();
        if let Some(column) = unsupported.iter().find(|column| names.contains(&column.name)) {
            return Err(refuse(column));
        }
        let mut schema = dataset.schema().select(names)?;
        if self.flatten {
            schema = schema.flattened()?;
        }
        if let Some(patterns) = &self.patterns {
            let compiled = name_patterns(patterns)?;
            let matching = |column: &&UnsupportedColumn| compiled.iter().any(|own| own.is_match(&column.name));
            if let Some(column) = unsupported.iter().find(matching) {
                return Err(refuse(column));
            }
            let matching = self.all(dataset)?.matching(patterns)?;
            let new = matching
                .fields()
                .iter()
                .filter(|field| schema.get(&field.name).is_none());
            let new: Vec<_> = new.cloned().collect();
            schema = Schema::new(schema.fields().iter().cloned().chain(new).collect())?;
        }
        match schema.fields() {
            [] => Err(Error::invalid("no column is selected")),
            _ => Ok(schema),
        }
    }
}

fn refuse(column: &UnsupportedColumn) -> Error {
    Error::unsupported(format!(
        "column {:?} of type {} cannot be read as scalars or tensors: select the other columns",
        column.name, column.data_type
    ))
}
