//! Named values, and where they come from.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use crate::{Error, Result, Tensor, Value};

/// Which sample a row is, and where it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RowId {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The place in the global order of the epoch.
    pub sample: u64,
    /// The dataset, by its place in a mixture; 0 where one dataset is read.
    pub dataset: u32,
    /// The row group, by its ordinal in the dataset.
    pub piece: u32,
    /// The row inside the row group.
    pub row: u64,
    /// Whether it stands a second time in its epoch, to fill the last batch.
    pub padded: bool,
}

/// One row: a value for each name, in the order of the schema.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    id: RowId,
    values: Vec<(Arc<str>, Value)>,
}

impl Row {
    /// A row of these values.
    pub fn new(id: RowId, values: Vec<(Arc<str>, Value)>) -> Self {
        Self { id, values }
    }

    /// Which sample it is.
    pub fn id(&self) -> RowId {
        self.id
    }

    /// The names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (&**name, value))
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values
            .iter()
            .find(|(own, _)| &**own == name)
            .map(|(_, value)| value)
    }

    /// Puts a value under a name, old or new.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.values.iter_mut().find(|(own, _)| &**own == name) {
            Some((_, own)) => *own = value,
            None => self.values.push((Arc::from(name), value)),
        }
    }

    /// Takes a value, and leaves a null in its place. The name is looked for at `place` first, from 0.
    pub fn take(&mut self, name: &str, place: usize) -> Option<Value> {
        let own = match self.values.get(place) {
            Some((own, _)) if &**own == name => place,
            _ => self.values.iter().position(|(own, _)| &**own == name)?,
        };
        Some(std::mem::replace(&mut self.values[own].1, Value::Null))
    }

    /// Makes another row of it, in the memory that it has: with these names, and the value of each place.
    pub fn refill(&mut self, id: RowId, names: &[Arc<str>], value: impl Fn(usize) -> Result<Value>) -> Result<()> {
        self.id = id;
        self.values.truncate(names.len());
        for (place, name) in names.iter().enumerate() {
            let value = value(place)?;
            match self.values.get_mut(place) {
                Some((own, old)) => {
                    *old = value;
                    if !Arc::ptr_eq(own, name) {
                        *own = name.clone();
                    }
                }
                None => self.values.push((name.clone(), value)),
            }
        }
        Ok(())
    }

    /// Takes a value out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let place = self.values.iter().position(|(own, _)| &**own == name)?;
        Some(self.values.remove(place).1)
    }

    /// The tensor of this name, or an error that says what is there instead.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        let value = self.required(name)?;
        let tensor = value.as_tensor();
        tensor.ok_or_else(|| Error::invalid(format!("column {name:?} holds {}, not a tensor", value.kind())))
    }

    /// The integer of this name, or an error that says what is there instead.
    pub fn int(&self, name: &str) -> Result<i64> {
        let value = self.required(name)?;
        let int = value.as_i64();
        int.ok_or_else(|| Error::invalid(format!("column {name:?} holds {}, not an integer", value.kind())))
    }

    fn required(&self, name: &str) -> Result<&Value> {
        self.get(name).ok_or_else(|| {
            let known: Vec<_> = self.iter().map(|(name, _)| name).collect();
            Error::invalid(format!("no column {name:?} in the row: it has {}", known.join(", ")))
        })
    }
}

/// Panics when there is no such name, as indexing does everywhere. [`Row::get`] gives an `Option`.
impl Index<&str> for Row {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        match self.required(name) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "epoch {}, sample {}, row group {}, row {}",
            self.epoch, self.sample, self.piece, self.row
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_refilled_whatever_was_done_to_it() {
        let names: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        let id = |row| RowId {
            row,
            ..RowId::default()
        };
        let mut row = Row::default();
        for n in 0..5 {
            row.refill(id(n), &names, |place| Ok(Value::Int(n as i64 * 10 + place as i64)))
                .expect("values");
            let values = [0, 1, 2].map(|place| Value::Int(n as i64 * 10 + place));
            let fresh = Row::new(id(n), names.iter().cloned().zip(values).collect());
            assert_eq!(row, fresh);
            match n {
                0 => row.set("d", 5),
                1 => drop(row.remove("a")),
                2 => assert_eq!(row.take("c", 0), Some(Value::Int(22))),
                _ => row = Row::new(id(9), vec![("c".into(), Value::Null), ("b".into(), Value::Null)]),
            }
        }
        assert_eq!((row.take("c", 0), row.take("x", 1)), (Some(Value::Null), None));
    }
}
