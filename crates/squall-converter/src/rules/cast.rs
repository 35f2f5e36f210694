//! Columns to other types, by rules that lose no value unseen.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::DataType;
use squall_schema::{Error, Result};

/// The column in another type. Text is parsed, numbers are rounded where both are floats; what has no such value, a finite number
/// that becomes infinite and a fraction that becomes an integer are errors that name the row.
pub(super) fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let done = once(column, to);
    let Err(error) = done else {
        return done;
    };
    let bad = (0..column.len()).find_map(|row| Some((row, once(&column.slice(row, 1), to).err()?)));
    Err(match bad {
        Some((row, error)) => error.at("row", row),
        None => error,
    })
}

fn once(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let done = cast_with_options(column, to, &strict).map_err(|error| {
        Error::invalid(format!("a value of {} is not one of {to}", column.data_type())).with_source(error.to_string())
    })?;
    let (from, into) = (innermost(column), innermost(&done));
    if into.data_type().is_integer() && from.data_type().is_floating() {
        let back = cast_with_options(&into, from.data_type(), &strict).ok();
        if back.is_none_or(|back| *back != *from) {
            return Err(Error::invalid(format!("a fraction where {to} is expected")));
        }
    }
    if from.data_type().is_numeric() && n_infinite(&into) > n_infinite(&from) {
        return Err(Error::invalid(format!(
            "a {} that {} does not hold: keep the precision, or scale it in SQL",
            from.data_type(),
            into.data_type()
        )));
    }
    Ok(done)
}

/// The elements of lists, those of the rows of the column.
fn innermost(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let (first, last) = (list.offsets()[0] as usize, list.offsets()[list.len()] as usize);
            innermost(&list.values().slice(first, last - first))
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            let (first, last) = (list.offsets()[0] as usize, list.offsets()[list.len()] as usize);
            innermost(&list.values().slice(first, last - first))
        }
        DataType::FixedSizeList(..) => innermost(column.as_fixed_size_list().values()),
        _ => column.clone(),
    }
}

fn n_infinite(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Float16 => column
            .as_primitive::<Float16Type>()
            .iter()
            .flatten()
            .filter(|x| x.is_infinite())
            .count(),
        DataType::Float32 => column
            .as_primitive::<Float32Type>()
            .iter()
            .flatten()
            .filter(|x| x.is_infinite())
            .count(),
        DataType::Float64 => column
            .as_primitive::<Float64Type>()
            .iter()
            .flatten()
            .filter(|x| x.is_infinite())
            .count(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Float64Type;
    use arrow_array::{Float64Array, ListArray, StringArray};
    use arrow_schema::Field;

    use super::*;

    #[test]
    fn what_another_type_does_not_hold_is_named_with_its_row() {
        let row = |column: ArrayRef, to: DataType| {
            cast(&column, &to)
                .err()
                .and_then(|error| error.place("row").map(str::to_owned))
        };
        let floats = |last: f64| Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None, Some(last)])) as ArrayRef;
        assert_eq!(row(floats(0.1), DataType::Float32), None);
        assert_eq!(row(floats(1e300), DataType::Float32).as_deref(), Some("2"));
        let fractions = |last: f64| Arc::new(Float64Array::from(vec![1.0, 2.0, last])) as ArrayRef;
        assert_eq!(row(fractions(3.0), DataType::Int16), None);
        assert_eq!(row(fractions(0.5), DataType::Int16).as_deref(), Some("2"));
        assert_eq!(row(fractions(1e9), DataType::Int16).as_deref(), Some("2"));
        let text = Arc::new(StringArray::from(vec!["1", "x"])) as ArrayRef;
        assert_eq!(row(text, DataType::Int64).as_deref(), Some("1"));
        let lists = [Some(vec![Some(1.0)]), None, Some(vec![Some(1e39), None])];
        let lists = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists)) as ArrayRef;
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        assert_eq!(row(lists, DataType::List(item)).as_deref(), Some("2"));
    }
}
