//! From the types that files have to the canonical ones.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, ListArray, UInt32Array};
use arrow_buffer::NullBuffer;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::DataType;

use super::nested::conform;
use crate::arrow::{element_to_arrow, field_to_arrow, item_field};
use crate::{DType, Error, Field, Result};

/// The column in the canonical type of `field`, without a copy where the layout is the same already.
///
/// A list whose length is not the field's, a null element of a tensor, a null where none may be and a number that
/// does not fit are errors that name the row, counted in this column.
pub fn normalise(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    normalise_inner(column, field).map_err(|error| error.at("column", &field.name))
}

fn normalise_inner(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if let (false, Some(nulls)) = (field.nullable, column.nulls())
        && let Some(row) = first(nulls, false)
    {
        return Err(Error::corrupt("a null in a column that is not nullable").at("row", row));
    }
    if field.dtype == DType::Nested {
        return conform(column, field_to_arrow(field)?.data_type());
    }
    if field.shape.is_scalar() {
        return cast(column, &element_to_arrow(field.dtype));
    }
    if let DataType::LargeList(item) = column.data_type() {
        return normalise_inner(&cast(column, &DataType::List(item.clone()))?, field);
    }
    match (column.data_type(), field.shape.as_fixed()) {
        (found @ DataType::Struct(_), None) if found == field_to_arrow(field)?.data_type() => Ok(column.clone()),
        (DataType::List(_), Some(_)) => list_to_tensor(column.as_list(), field),
        (DataType::FixedSizeList(..), Some(_)) => tensor_to_tensor(column.as_fixed_size_list(), field),
        (DataType::List(_), None) => {
            let list = column.as_list::<i32>();
            let values = cast(list.values(), &element_to_arrow(field.dtype))?;
            let item = Arc::new(item_field(field));
            let list = ListArray::try_new(item, list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(list.map_err(mismatch)?))
        }
        (found, _) => Err(Error::corrupt(format!(
            "expected lists for shape {}, found {found}",
            field.shape
        ))),
    }
}

pub(super) fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    // Strict: the lenient cast turns what does not fit into a null.
    let options = CastOptions {
        safe: false,
        ..Default::default()
    };
    cast_with_options(column, to, &options).map_err(mismatch)
}

pub(super) fn mismatch(error: arrow_schema::ArrowError) -> Error {
    Error::corrupt("the column does not fit its field").with_source(error)
}

/// The first position whose validity is `valid`.
fn first(nulls: &NullBuffer, valid: bool) -> Option<usize> {
    nulls.iter().position(|own| own == valid)
}

fn list_to_tensor(list: &ListArray, field: &Field) -> Result<ArrayRef> {
    let length = element_count(field)?;
    let offsets = list.value_offsets();
    for row in 0..list.len() {
        let found = (offsets[row + 1] - offsets[row]) as usize;
        if found != length && list.is_valid(row) {
            return Err(Error::corrupt(format!(
                "a list of {found} elements: expected {length} for shape {}",
                field.shape
            ))
            .at("row", row));
        }
    }
    let (first_offset, end) = (offsets[0] as usize, offsets[list.len()] as usize);
    let values = if list.null_count() == 0 {
        list.values().slice(first_offset, end - first_offset)
    } else if list.values().is_empty() {
        return Ok(arrow_array::new_null_array(
            field_to_arrow(field)?.data_type(),
            list.len(),
        ));
    } else {
        // A null row of a fixed-size list has elements too; any will do.
        let position = |row: usize| {
            (0..length).map(move |i| {
                if list.is_valid(row) {
                    offsets[row] as u32 + i as u32
                } else {
                    0
                }
            })
        };
        let positions = UInt32Array::from_iter_values((0..list.len()).flat_map(position));
        arrow_select::take::take(list.values(), &positions, None).map_err(mismatch)?
    };
    dense(values, list.nulls().cloned(), list.len(), field)
}

fn tensor_to_tensor(list: &FixedSizeListArray, field: &Field) -> Result<ArrayRef> {
    let length = element_count(field)?;
    // A list of lists holds the same elements in the same order as one flat list.
    let (mut values, mut per_row) = (list.values().clone(), list.value_length() as usize);
    while let DataType::FixedSizeList(_, inner) = values.data_type() {
        per_row *= *inner as usize;
        values = values.as_fixed_size_list().values().clone();
    }
    if per_row != length {
        return Err(Error::corrupt(format!(
            "lists of {per_row} elements: expected {length} for shape {}",
            field.shape
        )));
    }
    dense(values, list.nulls().cloned(), list.len(), field)
}

pub(super) fn dense(values: ArrayRef, nulls: Option<NullBuffer>, rows: usize, field: &Field) -> Result<ArrayRef> {
    let values = cast(&values, &element_to_arrow(field.dtype))?;
    let length = element_count(field)?;
    if let Some(own) = values.nulls()
        && let Some(at) =
            (0..values.len()).find(|i| own.is_null(*i) && nulls.as_ref().is_none_or(|n| n.is_valid(*i / length)))
    {
        return Err(Error::unsupported(format!("element {} of a tensor is null", at % length)).at("row", at / length));
    }
    let values = without_nulls(&values)?;
    let item = Arc::new(item_field(field));
    let length = i32::try_from(length).map_err(|_| Error::unsupported("a tensor of more than 2^31 elements"))?;
    let list = FixedSizeListArray::try_new_with_length(item, length, values, nulls, rows);
    Ok(Arc::new(list.map_err(mismatch)?))
}

/// The same values without a validity mask.
fn without_nulls(values: &ArrayRef) -> Result<ArrayRef> {
    if values.nulls().is_none() {
        return Ok(values.clone());
    }
    let data = values.to_data().into_builder().nulls(None);
    Ok(arrow_array::make_array(data.build().map_err(mismatch)?))
}

fn element_count(field: &Field) -> Result<usize> {
    let count = field.shape.element_count();
    count.ok_or_else(|| Error::internal(format!("shape {} has no fixed size", field.shape)))
}
