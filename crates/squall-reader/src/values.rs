//! What a sampler needs of a column: a weight of each selected row, or its class.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use squall_schema::columns::value_at;
use squall_schema::{Error, Field, Result, Schema, Value};

use crate::columns::Columns;
use crate::scan::Scan;
use crate::select::{SelectedPiece, Selection};

/// The values of each selected row, in stored order, as `take` keeps them in one state a piece.
fn scan_column<S: Default + Send + 'static>(
    scan: &Scan,
    field: &Field,
    selection: &Selection,
    take: impl Fn(&mut S, &Value) -> std::result::Result<(), String> + Send + Sync + 'static,
) -> Result<Vec<S>> {
    if !field.shape.is_scalar() || field.codec.is_some() {
        return Err(
            Error::invalid(format!("a sampler takes a column of scalars, found {field}")).at("URL", scan.dataset.url()),
        );
    }
    let columns = Arc::new(Columns::new(&scan.dataset, Schema::new(vec![field.clone()])?)?);
    let own = field.clone();
    let start = |piece: &SelectedPiece| (S::default(), piece.rows.clone(), 0);
    let step = move |(state, rows, next): &mut (S, crate::row_set::RowSet, u64), batch: RecordBatch| {
        for i in 0..batch.num_rows() {
            let value = value_at(batch.column(0), &own, i)?;
            take(state, &value).map_err(|message| {
                Error::invalid(format!("column {:?}: {message}", own.name)).at("row", rows.nth(*next))
            })?;
            *next += 1;
        }
        Ok(())
    };
    let folded = scan.fold(selection.pieces(), &columns, start, step)?;
    Ok(folded.into_iter().map(|(state, ..)| state).collect())
}

/// The weight of each selected row.
pub(crate) fn weights(scan: &Scan, field: &Field, selection: &Selection) -> Result<Vec<f64>> {
    let take = |weights: &mut Vec<f64>, value: &Value| {
        let weight = value.as_f64().filter(|weight| weight.is_finite() && *weight >= 0.0);
        weights.push(weight.ok_or_else(|| format!("expected a weight of at least 0, found {value:?}"))?);
        Ok(())
    };
    Ok(scan_column(scan, field, selection, take)?.concat())
}

/// Rows by the value of a column.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// The class of each selected row.
    rows: Vec<u32>,
    counts: Vec<u64>,
}

impl Classes {
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The rows of each class, in stored order. Classes stand in the order of their first rows.
    pub(crate) fn by_class(&self) -> Vec<Vec<u64>> {
        let mut by_class: Vec<_> = self
            .counts
            .iter()
            .map(|count| Vec::with_capacity(*count as usize))
            .collect();
        for (row, class) in (0u64..).zip(&self.rows) {
            by_class[*class as usize].push(row);
        }
        by_class
    }
}

/// The values of a piece, each named once, and which of them each row has.
#[derive(Default)]
struct Named {
    names: Vec<String>,
    places: HashMap<String, u32>,
    rows: Vec<u32>,
}

/// The class of each selected row.
pub(crate) fn classes(scan: &Scan, field: &Field, selection: &Selection) -> Result<Classes> {
    let take = |named: &mut Named, value: &Value| {
        let name = name(value);
        let place = match named.places.get(&name) {
            Some(place) => *place,
            None => {
                let place = u32::try_from(named.names.len()).map_err(|_| "more than 2^32 classes".to_owned())?;
                named.places.insert(name.clone(), place);
                named.names.push(name);
                place
            }
        };
        named.rows.push(place);
        Ok(())
    };
    let mut classes = Classes::default();
    let mut places: HashMap<String, u32> = HashMap::new();
    for named in scan_column(scan, field, selection, take)? {
        let mut own = Vec::with_capacity(named.names.len());
        for name in named.names {
            let next = u32::try_from(places.len()).map_err(|_| Error::unsupported("more than 2^32 classes"))?;
            own.push(*places.entry(name).or_insert(next));
        }
        classes.counts.resize(places.len(), 0);
        for place in named.rows {
            let class = own[place as usize];
            classes.counts[class as usize] += 1;
            classes.rows.push(class);
        }
    }
    Ok(classes)
}

/// A text that values share that are the same: NaN is one class, and 0.0 and -0.0 are.
fn name(value: &Value) -> String {
    match value {
        Value::Float32(number) if *number == 0.0 => format!("{:?}", Value::Float32(0.0)),
        Value::Float64(number) if *number == 0.0 => format!("{:?}", Value::Float64(0.0)),
        other => format!("{other:?}"),
    }
}
