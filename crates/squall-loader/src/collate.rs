//! The columns of a batch, each in one contiguous buffer.

use std::ops::Index;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{Buffer, NullBuffer};
use indexmap::IndexMap;
use squall_reader::SampleBatch;
use squall_schema::columns::element_bytes;
use squall_schema::{DType, Element, Error, Field, Result, RowId, Schema, Tensor};

/// A batch on the host.
#[derive(Debug, Clone)]
pub struct HostBatch {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The step in the epoch.
    pub step: u64,
    /// Which sample each row is.
    pub ids: Vec<RowId>,
    /// The fields, in order.
    pub columns: IndexMap<String, HostColumn>,
}

/// A field of a batch.
#[derive(Debug, Clone)]
pub enum HostColumn {
    /// Numbers of one shape: `[rows, …shape]`.
    Dense(HostTensor),
    /// Vectors whose lengths differ.
    Ragged {
        /// The elements of all rows, end to end.
        values: Tensor,
        /// Row `i` has the elements `offsets[i]..offsets[i + 1]`.
        offsets: Vec<i64>,
        /// Which rows are not null, where some are.
        validity: Option<NullBuffer>,
    },
    /// What no tensor holds: text, bytes, decimals, dates, and vectors of them.
    Array(ArrayRef),
}

/// A dense field of a batch.
#[derive(Debug, Clone)]
pub struct HostTensor {
    /// `[rows, …shape]`. The elements of a null row may be anything.
    pub values: Tensor,
    /// Which rows are not null, where some are.
    pub validity: Option<NullBuffer>,
}

impl HostBatch {
    /// Rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The elements of a dense field without nulls, in C order.
    pub fn slice<T: Element>(&self, name: &str) -> Result<&[T]> {
        match self.columns.get(name) {
            Some(HostColumn::Dense(HostTensor { values, validity: None })) => values.as_slice(),
            Some(HostColumn::Dense(_)) => Err(Error::invalid(format!("column {name:?} has nulls in this batch"))),
            Some(_) => Err(Error::invalid(format!("column {name:?} is not dense"))),
            None => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let known: Vec<_> = self.columns.keys().map(String::as_str).collect();
        Error::invalid(format!("no column {name:?} in the batch: it has {}", known.join(", ")))
    }
}

/// Panics when there is no such column, as indexing does everywhere.
impl Index<&str> for HostBatch {
    type Output = HostColumn;

    fn index(&self, name: &str) -> &HostColumn {
        match self.columns.get(name) {
            Some(column) => column,
            None => panic!("{}", self.unknown(name)),
        }
    }
}

/// Lays out a batch: a copy only where Arrow's layout is not the tensor's, which is that of booleans.
pub fn collate(batch: SampleBatch, schema: &Schema) -> Result<HostBatch> {
    let columns = schema.fields().iter().zip(batch.columns.columns());
    let columns = columns.map(|(field, column)| {
        let column = host_column(column, field).map_err(|error| error.at("column", &field.name))?;
        Ok((field.name.clone(), column))
    });
    Ok(HostBatch {
        epoch: batch.epoch,
        step: batch.step,
        columns: columns.collect::<Result<_>>()?,
        ids: batch.ids,
    })
}

fn host_column(column: &ArrayRef, field: &Field) -> Result<HostColumn> {
    if field.dtype.item_size().is_none() {
        return Ok(HostColumn::Array(column.clone()));
    }
    let rows = column.len();
    let validity = column.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
    if let Some(dims) = field.shape.as_fixed() {
        let elements = match column.as_fixed_size_list_opt() {
            Some(list) => {
                let length = list.value_length() as usize;
                list.values().slice(list.value_offset(0) as usize, rows * length)
            }
            None => column.clone(),
        };
        let shape = [vec![rows], dims].concat();
        let values = Tensor::new(field.dtype, shape, aligned(&element_bytes(&elements)?, field.dtype))?;
        return Ok(HostColumn::Dense(HostTensor { values, validity }));
    }
    let list = column.as_list_opt::<i32>();
    let list =
        list.ok_or_else(|| Error::internal(format!("{} is not the canonical type of {field}", column.data_type())))?;
    let offsets = list.value_offsets();
    let (first, last) = (offsets[0], offsets[rows]);
    let elements = list.values().slice(first as usize, (last - first) as usize);
    if elements.null_count() > 0 {
        return Ok(HostColumn::Array(column.clone()));
    }
    let values = Tensor::new(
        field.dtype,
        vec![elements.len()],
        aligned(&element_bytes(&elements)?, field.dtype),
    )?;
    Ok(HostColumn::Ragged {
        values,
        offsets: offsets.iter().map(|offset| i64::from(offset - first)).collect(),
        validity,
    })
}

/// The buffer, copied where its start is not that of an element. Arrow aligns what it allocates itself.
fn aligned(bytes: &Buffer, dtype: DType) -> Buffer {
    let item = dtype.item_size().unwrap_or(1);
    if bytes.as_ptr().align_offset(item) == 0 {
        bytes.clone()
    } else {
        Buffer::from_slice_ref(bytes.as_slice())
    }
}
