//! Scalar columns that are delivered as one tensor: `f0` to `f19` as `features` of shape `[20]`.

use arrow_array::{Array, ArrayRef};
use arrow_buffer::{Buffer, MutableBuffer};
use squall_schema::columns::element_bytes;
use squall_schema::{Error, Field, Result, Schema, Shape};

use crate::block::null_in_pack;

/// Columns of one dtype that are read as one: values side by side, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pack {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
}

/// A delivered column, by the stored columns that it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// One of them.
    Column(usize),
    /// Several, packed.
    Packed(Vec<usize>),
}

/// The fields behind packing, each pack in the place of its first column, and what each is made of.
pub(crate) fn pack(schema: &Schema, packs: &[Pack]) -> Result<(Schema, Vec<Output>)> {
    let mut owner: Vec<Option<usize>> = vec![None; schema.fields().len()];
    let mut fields_of = Vec::with_capacity(packs.len());
    for (n, pack) in packs.iter().enumerate() {
        let at = |error: Error| error.at("packed column", &pack.name);
        let mut places = Vec::with_capacity(pack.columns.len());
        let mut first: Option<&Field> = None;
        for name in &pack.columns {
            let place = schema.position(name).ok_or_else(|| at(schema.unknown(name)))?;
            let field = &schema.fields()[place];
            if !field.shape.is_scalar() || field.codec.is_some() || field.dtype.item_size().is_none() {
                return Err(at(Error::invalid(format!(
                    "only scalar numbers can be packed, found {field}"
                ))));
            }
            let first = first.get_or_insert(field);
            if first.dtype != field.dtype {
                return Err(at(Error::invalid(format!(
                    "packed columns have one dtype: {:?} is {}, {:?} is {}",
                    first.name, first.dtype, field.name, field.dtype
                ))));
            }
            if owner[place].replace(n).is_some() {
                return Err(at(Error::invalid(format!("column {name:?} is packed twice"))));
            }
            places.push(place);
        }
        let Some(first) = first else {
            return Err(at(Error::invalid("expected at least one column to pack, found none")));
        };
        let field = Field::new(&pack.name, first.dtype, Shape::fixed(&[places.len()]));
        fields_of.push((field, places));
    }
    let (mut fields, mut outputs) = (Vec::new(), Vec::new());
    for (place, field) in schema.fields().iter().enumerate() {
        match owner[place] {
            None => {
                fields.push(field.clone());
                outputs.push(Output::Column(place));
            }
            Some(n) => {
                let (packed, places) = &fields_of[n];
                if !outputs
                    .iter()
                    .any(|own| matches!(own, Output::Packed(own) if own == places))
                {
                    fields.push(packed.clone());
                    outputs.push(Output::Packed(places.clone()));
                }
            }
        }
    }
    Ok((Schema::new(fields)?, outputs))
}

/// The values of whole columns, row after row, a byte for each boolean. An error names the batch row that has none.
pub(crate) fn packed_values(columns: &[&ArrayRef]) -> Result<Buffer> {
    for column in columns {
        if let Some(nulls) = column.nulls()
            && let Some(row) = nulls.iter().position(|valid| !valid)
        {
            return Err(null_in_pack(row));
        }
    }
    let rows = columns.first().map_or(0, |column| column.len());
    let values = columns
        .iter()
        .map(|column| element_bytes(column))
        .collect::<Result<Vec<_>>>()?;
    let width = values.first().map_or(0, |values| values.len() / rows.max(1));
    let mut out = MutableBuffer::from_len_zeroed(rows * width * values.len());
    if width > 0 {
        for (n, values) in values.iter().enumerate() {
            let rows = out.chunks_exact_mut(width * columns.len());
            for (row, value) in rows.zip(values.chunks_exact(width)) {
                row[n * width..(n + 1) * width].copy_from_slice(value);
            }
        }
    }
    Ok(out.into())
}
