//! Which part of each image is read, and in which size: crops, sizes and flips by the names of torchvision.
//!
//! The steps of an [`ImageSpec`] are resolved, for an image's height and width, to one region of it, one size and one flip, before
//! its pixels are decoded; `squall_schema::codec::decode_views` does them at once. What is random is drawn from a generator of the
//! row: it is the same on any number of threads and ranks. All is pure here, but for the decoding in [`Images::decode`].

mod spec;

pub use spec::ImageSpec;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use squall_schema::codec::{decode_views, view_field};
use squall_schema::{Error, Field, Result, RowId, Schema};

use crate::cells::UsedMemory;
use crate::random::{Domain, stream};
use crate::transform::record_batch;

/// The columns of a reader whose images are shown in part.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    /// Place in the schema, the field of whole images, and what is shown of them.
    shown: Vec<(usize, Field, ImageSpec)>,
    /// The fields before: cells, where an image is shown in part.
    pub(crate) encoded: Schema,
    /// The fields behind.
    pub(crate) schema: Schema,
}

impl Images {
    /// Checks the specifications against the fields that are read.
    pub(crate) fn new(specs: &[(String, ImageSpec)], schema: &Schema) -> Result<Option<Self>> {
        if specs.is_empty() {
            return Ok(None);
        }
        let mut shown: Vec<(usize, Field, ImageSpec)> = Vec::new();
        let (mut encoded, mut behind) = (schema.fields().to_vec(), schema.fields().to_vec());
        for (name, spec) in specs {
            let place = schema.fields().iter().position(|field| field.name == *name);
            let place = place.ok_or_else(|| schema.unknown(name))?;
            if shown.iter().any(|(own, ..)| *own == place) {
                return Err(Error::invalid(format!(
                    "two views of the images {name:?} are asked for"
                )));
            }
            let field = &schema.fields()[place];
            let [height, width] = spec.size(field)?;
            behind[place] = view_field(field, height, width)?;
            encoded[place] = field.stored();
            shown.push((place, field.clone(), spec.clone()));
        }
        Ok(Some(Self {
            shown,
            encoded: Schema::new(encoded)?,
            schema: Schema::new(behind)?,
        }))
    }

    /// The batch with views in place of cells. An error names the row of the batch.
    pub(crate) fn decode(
        &self,
        batch: &RecordBatch,
        ids: &[RowId],
        seed: u64,
        used: &UsedMemory,
    ) -> Result<RecordBatch> {
        let mut columns = batch.columns().to_vec();
        for (place, field, spec) in &self.shown {
            let target = &self.schema.fields()[*place];
            let mut view = |row: usize, size| {
                let id = ids.get(row).copied().unwrap_or_default();
                // From its beginning for each field: an image and its depth get the same crop.
                spec.view(size, &mut stream(seed, id.epoch, Domain::Image, id.sample))
            };
            let column = cells(&columns[*place])?;
            let decoded = decode_views(&column, (field, target), &mut view, used);
            let decoded =
                decoded.map_err(
                    |error| match error.place("row").and_then(|row| row.parse::<usize>().ok()) {
                        Some(row) => error.without_place("row").at("batch row", row),
                        None => error,
                    },
                )?;
            columns[*place] = decoded;
        }
        record_batch(&self.schema, columns, batch.num_rows())
    }
}

/// The cells of a column of bytes.
fn cells(column: &ArrayRef) -> Result<Vec<Option<&[u8]>>> {
    let wrong = || Error::internal(format!("cells of images in a column of {}", column.data_type()));
    if let Some(cells) = column.as_binary_view_opt() {
        return Ok(cells.iter().collect());
    }
    let cells = column.as_binary_opt::<i32>().ok_or_else(wrong)?;
    Ok(cells.iter().collect())
}

#[cfg(test)]
mod tests;
