//! The ordered fields of a dataset or of a transformed row.

use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;

use arrow_schema::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::{Error, Field, Result};

/// Fields in their order. Names are unique.
#[derive(Debug, Clone, Serialize, Default)]
#[serde(transparent)]
pub struct Schema {
    fields: Vec<Field>,
    /// Each batch asks for it again.
    #[serde(skip)]
    arrow: OnceLock<SchemaRef>,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

impl Eq for Schema {}

impl Schema {
    /// A schema of these fields; a name that stands twice is an error.
    pub fn new(fields: Vec<Field>) -> Result<Self> {
        let mut names = HashSet::with_capacity(fields.len());
        for field in &fields {
            if !names.insert(&field.name) {
                return Err(Error::invalid(format!(
                    "field {:?} stands twice in the schema",
                    field.name
                )));
            }
        }
        Ok(Self {
            fields,
            arrow: OnceLock::new(),
        })
    }

    /// The fields, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of this name.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The place of the field of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// The fields of these names, in the order asked for.
    pub fn project<S: AsRef<str>>(&self, names: &[S]) -> Result<Self> {
        let field = |name: &S| {
            let name = name.as_ref();
            self.get(name).cloned().ok_or_else(|| self.unknown(name))
        };
        Self::new(names.iter().map(field).collect::<Result<_>>()?)
    }

    /// The fields as they are stored: binary cells where they have a codec.
    pub fn stored(&self) -> Self {
        Self {
            fields: self.fields.iter().map(Field::stored).collect(),
            arrow: OnceLock::new(),
        }
    }

    /// What `make` gives, made once.
    pub(crate) fn arrow_or(&self, make: impl FnOnce() -> Result<SchemaRef>) -> Result<SchemaRef> {
        match self.arrow.get() {
            Some(arrow) => Ok(arrow.clone()),
            None => {
                let arrow = make()?;
                Ok(self.arrow.get_or_init(|| arrow).clone())
            }
        }
    }

    /// The error for a name that is not here: it lists those that are.
    pub fn unknown(&self, name: &str) -> Error {
        let known: Vec<_> = self.names().collect();
        Error::invalid(format!("no column {name:?}: the columns are {}", known.join(", ")))
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let fields = Vec::<Field>::deserialize(deserializer)?;
        Self::new(fields).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, field) in self.fields.iter().enumerate() {
            let lead = if i == 0 { "" } else { "\n" };
            write!(f, "{lead}{field}")?;
        }
        Ok(())
    }
}
