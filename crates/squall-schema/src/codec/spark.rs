//! Spark ML's vectors: a struct `{type, size, indices, values}`, as
//! <https://github.com/apache/spark/blob/master/mllib-local/src/main/scala/org/apache/spark/ml/linalg/Vectors.scala> and its
//! `VectorUDT` serialise them. Type 0 is sparse: `size`, and values at indices; type 1 is dense: all values.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int8Type, Int32Type};
use arrow_array::{Array, ArrayRef, StructArray};

use crate::columns::column_from_values;
use crate::{Error, Field, Result, Tensor, Value};

/// Most elements of a sparse vector: its size is a claim, and not bounded by its bytes.
const MAX_SIZE: i32 = 1 << 24;

/// The column of dense vectors.
pub(super) fn vectors(column: &StructArray, field: &Field) -> Result<ArrayRef> {
    let part = |name: &str| {
        let part = column.column_by_name(name);
        part.ok_or_else(|| Error::corrupt(format!("a vector of Spark ML without {name}")))
    };
    let wrong = || Error::corrupt("a vector of Spark ML whose parts have other types");
    let kinds = part("type")?.as_primitive_opt::<Int8Type>().ok_or_else(wrong)?;
    let sizes = part("size")?.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
    let indices = part("indices")?.as_list_opt::<i32>().ok_or_else(wrong)?;
    let values = part("values")?.as_list_opt::<i32>().ok_or_else(wrong)?;
    let vector = |row: usize| {
        if column.is_null(row) {
            return Ok(Value::Null);
        }
        let values = values.value(row);
        let values = values.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?.values();
        let dense = match kinds.value(row) {
            1 => values.to_vec(),
            0 => {
                let size = sizes.value(row);
                if !(0..=MAX_SIZE).contains(&size) {
                    return Err(Error::corrupt(format!(
                        "a sparse vector of {size} elements: expected at most {MAX_SIZE}"
                    )));
                }
                let indices = indices.value(row);
                let indices = indices.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?.values();
                let mut dense = vec![0.0; size as usize];
                for (index, value) in indices.iter().zip(values) {
                    let place = usize::try_from(*index).ok().and_then(|index| dense.get_mut(index));
                    *place.ok_or_else(|| Error::corrupt(format!("element {index} of a sparse vector of {size}")))? =
                        *value;
                }
                dense
            }
            kind => {
                return Err(Error::corrupt(format!(
                    "a vector of type {kind}: expected 0, sparse, or 1, dense"
                )));
            }
        };
        Ok(Value::Tensor(Tensor::from_vec(&[dense.len()], dense)?))
    };
    let vectors = (0..column.len()).map(|row| vector(row).map_err(|error| error.at("row", row)));
    let vectors = vectors.collect::<Result<Vec<_>>>()?;
    column_from_values(field, &vectors.iter().collect::<Vec<_>>())
}
