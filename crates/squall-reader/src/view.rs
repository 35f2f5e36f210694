//! Which columns of a dataset are read, by name, by pattern, with or without structs taken apart, decoded or as they are
//! stored.

use std::fmt;
use std::sync::Arc;

use squall_dataset::{Dataset, UnsupportedColumn};
use squall_schema::codec::Codec;
use squall_schema::{Error, Field, Result, Schema, Shape, name_patterns};

use crate::pack::Pack;

/// The columns that were asked for; all of them by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) names: Option<Vec<String>>,
    pub(crate) patterns: Option<Vec<String>>,
    pub(crate) flatten: bool,
    pub(crate) encoded: Encoded,
    pub(crate) shapes: Vec<(String, Vec<usize>)>,
    pub(crate) packs: Vec<Pack>,
}

type Keep = dyn Fn(&Field) -> bool + Send + Sync;

/// Whose cells stay encoded: those of no field by default.
#[derive(Clone, Default)]
pub(crate) struct Encoded(pub(crate) Option<Arc<Keep>>);

impl Encoded {
    fn keep(&self, field: &Field) -> bool {
        // A vector of Spark ML is no cell.
        let in_cells = !matches!(field.codec, None | Some(Codec::SparkVector));
        in_cells && self.0.as_ref().is_some_and(|keep| keep(field))
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Encoded(some)"
        } else {
            "Encoded(none)"
        })
    }
}

impl View {
    /// Whether any was given.
    pub(crate) fn is_given(&self) -> bool {
        let Self {
            names,
            patterns,
            flatten,
            encoded,
            shapes,
            packs,
        } = self;
        let given = names.is_some() || patterns.is_some() || *flatten || encoded.0.is_some();
        given || !shapes.is_empty() || !packs.is_empty()
    }

    /// All columns of the dataset, as this view shows them.
    pub(crate) fn all(&self, dataset: &Dataset) -> Result<Schema> {
        match self.flatten {
            true => dataset.schema().flattened(),
            false => Ok(dataset.schema().clone()),
        }
    }

    /// The columns that are read, in their order.
    pub(crate) fn schema(&self, dataset: &Dataset) -> Result<Schema> {
        let schema = self.select(dataset).map_err(|error| error.at("URL", dataset.url()))?;
        if let Some((name, _)) = self.shapes.iter().find(|(name, _)| schema.get(name).is_none()) {
            return Err(schema.unknown(name).at("URL", dataset.url()));
        }
        let fields = schema.fields().iter().map(|field| match self.encoded.keep(field) {
            true => Ok(field.stored()),
            false => self.shaped(field).map_err(|error| error.at("URL", dataset.url())),
        });
        Schema::new(fields.collect::<Result<_>>()?)
    }

    /// The field in the shape that was given for it. A list may take any; an array in a cell has dimensions of its own.
    fn shaped(&self, field: &Field) -> Result<Field> {
        let Some((_, dims)) = self.shapes.iter().find(|(name, _)| *name == field.name) else {
            return Ok(field.clone());
        };
        let is_list = field.codec.is_none() && field.shape.0.len() == 1 && field.shape.as_fixed().is_none();
        if dims.is_empty() || !(is_list || field.shape.accepts(dims)) {
            return Err(Error::invalid(format!("{field} cannot have the shape {dims:?}")));
        }
        Ok(Field {
            shape: Shape::fixed(dims),
            ..field.clone()
        })
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
        // The name of a pack stands for its columns.
        let members = |name: &String| match self.packs.iter().find(|pack| pack.name == *name) {
            Some(pack) => pack.columns.clone(),
            None => vec![name.clone()],
        };
        let names: Vec<_> = names.iter().flat_map(members).collect();
        let mut schema = dataset.schema().select(&names)?;
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
        "column {:?} cannot be read: {}; select the other columns",
        column.name, column.reason
    ))
}
