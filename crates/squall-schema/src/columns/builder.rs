//! A canonical column from values that come one by one.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray};
use arrow_buffer::{MutableBuffer, NullBufferBuilder};

use super::build::{column_from_values, elements_from_buffer};
use crate::arrow::item_field;
use crate::{Error, Field, Result, Tensor, Value};

/// Makes a canonical column of values that come one by one: what [`column_from_values`](super::column_from_values) makes of all of
/// them. Tensors of fixed shape are copied to the column at once, so that they can be dropped, or written over.
#[derive(Debug)]
pub struct ColumnBuilder {
    field: Field,
    values: Values,
    rows: usize,
}

#[derive(Debug)]
enum Values {
    /// Tensors of one size, in bytes; a null is as many zeros.
    Dense {
        size: usize,
        bytes: MutableBuffer,
        validity: NullBufferBuilder,
    },
    Any(Vec<Value>),
}

impl ColumnBuilder {
    /// A column of this field, without values yet.
    pub fn new(field: &Field, rows: usize) -> Self {
        let dims = field.shape.as_fixed().filter(|dims| !dims.is_empty());
        let size = dims.zip(field.dtype.item_size());
        let size = size.and_then(|(dims, item)| dims.iter().try_fold(item, |size, dim| size.checked_mul(*dim)));
        Self {
            values: match size {
                Some(size) => Values::Dense {
                    size,
                    bytes: MutableBuffer::new(0),
                    validity: NullBufferBuilder::new(rows),
                },
                None => Values::Any(Vec::with_capacity(rows)),
            },
            field: field.clone(),
            rows,
        }
    }

    /// Adds a value. One of another dtype or shape may be refused here, or by [`finish`](Self::finish); the error names the row.
    pub fn push(&mut self, value: Value) -> Result<()> {
        if let Values::Dense { size, bytes, validity } = &mut self.values {
            let row = validity.len();
            match &value {
                Value::Tensor(tensor) if is_of(tensor, &self.field) => {
                    if bytes.is_empty() {
                        // The size is real: there is a value that has it.
                        bytes.reserve(
                            size.saturating_mul(self.rows.saturating_sub(row))
                                .min(RESERVE.max(*size)),
                        );
                    }
                    bytes.extend_from_slice(tensor.data());
                    validity.append_non_null();
                    return Ok(());
                }
                Value::Null if self.field.nullable => {
                    bytes.resize(bytes.len() + *size, 0);
                    validity.append_null();
                    return Ok(());
                }
                Value::Null => {
                    let error = Error::invalid(format!("null where {} has none", self.field));
                    return Err(error.at("row", row).at("column", &self.field.name));
                }
                // Numbers that come as a list, one by one.
                Value::List(_) => self.values = Values::Any(self.taken_apart()?),
                other => {
                    let error = Error::invalid(format!("expected {}, found {}", self.field, other.kind()));
                    return Err(error.at("row", row).at("column", &self.field.name));
                }
            }
        }
        if let Values::Any(values) = &mut self.values {
            values.push(value);
        }
        Ok(())
    }

    /// The column.
    pub fn finish(self) -> Result<ArrayRef> {
        let field = &self.field;
        let (bytes, mut validity) = match self.values {
            Values::Any(values) => return column_from_values(field, &values.iter().collect::<Vec<_>>()),
            Values::Dense { bytes, validity, .. } => (bytes, validity),
        };
        let (rows, nulls) = (validity.len(), validity.finish());
        let column = || {
            let length = field.shape.element_count().and_then(|count| i32::try_from(count).ok());
            let length = length.ok_or_else(|| Error::unsupported("a tensor of more than 2^31 elements"))?;
            let elements = elements_from_buffer(field.dtype, bytes.into())?;
            FixedSizeListArray::try_new_with_length(Arc::new(item_field(field)), length, elements, nulls, rows)
                .map_err(|error| Error::internal("values do not make a column").with_source(error))
        };
        let column = column().map_err(|error| error.at("column", &field.name))?;
        Ok(Arc::new(column))
    }

    /// The values so far.
    fn taken_apart(&mut self) -> Result<Vec<Value>> {
        let Values::Dense { size, bytes, validity } = &mut self.values else {
            return Err(Error::internal("a column is taken apart twice"));
        };
        let (rows, nulls) = (validity.len(), validity.finish());
        let all = arrow_buffer::Buffer::from(std::mem::take(bytes));
        let dims = self.field.shape.as_fixed().unwrap_or_default();
        let value = |row: usize| match nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            true => Ok(Value::Null),
            false => {
                let own = all.slice_with_length(row * *size, *size);
                Ok(Value::Tensor(Tensor::new(self.field.dtype, dims.clone(), own)?))
            }
        };
        (0..rows).map(value).collect()
    }
}

/// Most bytes that are reserved ahead.
const RESERVE: usize = 64 << 20;

fn is_of(tensor: &Tensor, field: &Field) -> bool {
    tensor.dtype() == field.dtype && field.shape.accepts(tensor.shape())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{DType, Shape};

    fn value() -> impl Strategy<Value = Value> {
        let tensor = |shape: &'static [usize]| {
            let elements = prop::collection::vec(any::<i16>(), shape.iter().product::<usize>());
            elements.prop_map(move |elements| Value::Tensor(Tensor::from_vec(shape, elements).expect("a tensor")))
        };
        let items = prop::collection::vec(
            prop_oneof![4 => (-9i64..9).prop_map(Value::Int), 1 => Just(Value::Null)],
            6,
        );
        prop_oneof![
            20 => tensor(&[2, 3]),
            2 => Just(Value::Null),
            1 => tensor(&[3, 2]),
            1 => items.prop_map(|items| Value::nested(items, &[2, 3])),
            1 => Just(Value::Bool(true)),
        ]
    }

    proptest! {
        #[test]
        fn one_by_one_is_all_at_once(values in prop::collection::vec(value(), 0..12), nullable in any::<bool>()) {
            let field = Field::new("x", DType::Int16, Shape::fixed(&[2, 3])).with_nullable(nullable);
            let at_once = column_from_values(&field, &values.iter().collect::<Vec<_>>());
            let mut builder = ColumnBuilder::new(&field, values.len());
            let pushed = values.iter().try_for_each(|value| builder.push(value.clone()));
            match (pushed.and_then(|()| builder.finish()), at_once) {
                (Ok(one_by_one), Ok(at_once)) => prop_assert_eq!(&*one_by_one, &*at_once),
                (Err(one_by_one), Err(_)) => prop_assert_eq!(one_by_one.place("column"), Some("x")),
                (one_by_one, at_once) => prop_assert!(false, "{one_by_one:?} {at_once:?}"),
            }
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_named() {
        let field = Field::new("x", DType::Int16, Shape::fixed(&[2]));
        let mut builder = ColumnBuilder::new(&field, 3);
        let fit = Tensor::from_vec(&[2], vec![1i16, 2]).expect("a tensor");
        builder.push(fit.into()).expect("a value");
        let wrong = Tensor::from_vec(&[2], vec![1i32, 2]).expect("a tensor");
        for value in [wrong.into(), Value::Null, Value::Int(1)] {
            let error = builder.push(value).expect_err("no value");
            assert_eq!((error.place("row"), error.place("column")), (Some("1"), Some("x")));
        }
        assert_eq!(builder.finish().expect("a column").len(), 1);
    }
}
