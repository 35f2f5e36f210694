//! What files say of the values in their row groups and pages, as far as it can be trusted.
//!
//! In: a file's footer, the fields of a clause. Out: [`Statistics`] of row groups or pages, which DataFusion's pruning asks. Bounds are
//! given in the type that the reader brings the column to, and only where that keeps their order.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, UInt64Array};
use arrow_schema::DataType;
use datafusion_common::{Column, ScalarValue};
use datafusion_pruning::PruningStatistics;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use squall_schema::columns::normalise;
use squall_schema::{DType, Field, Schema};

use super::floats::canonical;
use super::place::{Place, find, is_signed};
use crate::columns::Columns;

/// The fields of a clause in one file.
pub(super) struct FileColumns<'a> {
    pub(super) footer: &'a ArrowReaderMetadata,
    pub(super) schema: &'a Schema,
    pub(super) places: HashMap<String, Place>,
}

impl<'a> FileColumns<'a> {
    /// Finds the fields of `schema`, whose paths `columns` knows.
    pub(super) fn new(footer: &'a ArrowReaderMetadata, schema: &'a Schema, columns: &Columns) -> Self {
        let calendar = squall_dataset::calendar(footer.metadata());
        let place = |(place, field): (usize, &Field)| {
            let found = columns.path(place).map_or(Place::Elsewhere, |path| {
                find(footer, field, path, columns.is_complete(), &calendar)
            });
            (field.name.clone(), found)
        };
        Self {
            footer,
            schema,
            places: schema.fields().iter().enumerate().map(place).collect(),
        }
    }

    /// What the footer says of these row groups.
    pub(super) fn row_groups(&self, row_groups: &[usize]) -> Statistics {
        let metadata = self.footer.metadata();
        let groups = || row_groups.iter().map(|place| metadata.row_group(*place));
        let rows: UInt64Array = groups().map(|group| u64::try_from(group.num_rows()).ok()).collect();
        let mut columns = HashMap::new();
        for field in self.schema.fields() {
            let bounds = match &self.places[&field.name] {
                Place::Elsewhere => continue,
                Place::Missing => Bounds {
                    nulls: Some(Arc::new(rows.clone())),
                    ..Bounds::default()
                },
                Place::Leaf {
                    leaf,
                    stored,
                    has_bounds,
                } => {
                    let parquet = metadata.file_metadata().schema_descr();
                    let Ok(converter) = StatisticsConverter::from_column_index(*leaf, stored, parquet) else {
                        continue;
                    };
                    let converter = converter.with_missing_null_counts_as_zero(false);
                    let trusted = groups().all(|group| {
                        let statistics = group.column(*leaf).statistics();
                        statistics.is_none_or(|own| !own.is_min_max_deprecated() || is_signed(stored))
                    });
                    let nulls = converter.row_group_null_counts(groups()).ok();
                    let nulls = nulls.map(|nulls| Arc::new(nulls) as ArrayRef);
                    match *has_bounds && trusted {
                        true => Bounds::new(
                            field,
                            converter.row_group_mins(groups()).ok(),
                            converter.row_group_maxes(groups()).ok(),
                            nulls,
                        ),
                        false => Bounds {
                            nulls,
                            ..Bounds::default()
                        },
                    }
                }
            };
            columns.insert(field.name.clone(), bounds);
        }
        Statistics { rows, columns }
    }
}

/// Bounds of one column, an element for each row group or page; null where unknown.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    min: Option<ArrayRef>,
    max: Option<ArrayRef>,
    nulls: Option<ArrayRef>,
    /// Whether NaN, which statistics leave out, may be there: it is greater than all that is.
    may_be_nan: bool,
}

impl Bounds {
    /// Least and greatest values as a file has them, for a field as the reader has it.
    pub(super) fn new(field: &Field, min: Option<ArrayRef>, max: Option<ArrayRef>, nulls: Option<ArrayRef>) -> Self {
        let field = field.clone().with_nullable(true);
        // Bounds that do not fit the field, of text cut inside a letter for instance, are no bounds.
        let fit = |bounds: Option<ArrayRef>| Some(numbers(&canonical(&normalise(&bounds?, &field).ok()?)));
        Self {
            min: fit(min),
            max: fit(max),
            nulls,
            may_be_nan: matches!(field.dtype, DType::Float16 | DType::Float32 | DType::Float64),
        }
    }
}

/// The column with NaN as null: as a bound it says nothing.
fn numbers(column: &ArrayRef) -> ArrayRef {
    fn without<T: ArrowPrimitiveType>(column: &ArrayRef, is_nan: impl Fn(T::Native) -> bool) -> ArrayRef {
        let values = column.as_primitive::<T>().iter();
        Arc::new(
            values
                .map(|value| value.filter(|value| !is_nan(*value)))
                .collect::<PrimitiveArray<T>>(),
        )
    }
    match column.data_type() {
        DataType::Float32 => without::<Float32Type>(column, f32::is_nan),
        DataType::Float64 => without::<Float64Type>(column, f64::is_nan),
        _ => column.clone(),
    }
}

/// What is known of some row groups, or of the pages of one column of a row group.
#[derive(Debug)]
pub(super) struct Statistics {
    pub(super) rows: UInt64Array,
    pub(super) columns: HashMap<String, Bounds>,
}

impl Statistics {
    /// As pruning sees them where rows of the columns in `bounded` are not NaN.
    pub(super) fn view<'a>(&'a self, bounded: Option<&'a BTreeSet<String>>) -> View<'a> {
        View {
            statistics: self,
            bounded,
        }
    }

    /// Whether no row of this row group has a null in these columns.
    pub(super) fn has_no_nulls(&self, place: usize, columns: &BTreeSet<String>) -> bool {
        columns.iter().all(|name| {
            let nulls = self.columns.get(name).and_then(|bounds| bounds.nulls.as_ref());
            let nulls = nulls.and_then(|nulls| nulls.as_primitive_opt::<arrow_array::types::UInt64Type>());
            nulls.is_some_and(|nulls| nulls.is_valid(place) && nulls.value(place) == 0)
        })
    }
}

/// Statistics for the pruning of DataFusion.
pub(super) struct View<'a> {
    statistics: &'a Statistics,
    bounded: Option<&'a BTreeSet<String>>,
}

impl View<'_> {
    fn bounds(&self, column: &Column) -> Option<&Bounds> {
        self.statistics.columns.get(&column.name)
    }
}

impl PruningStatistics for View<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column)?.min.clone()
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let bounds = self.bounds(column)?;
        let has_nan = bounds.may_be_nan && self.bounded.is_none_or(|bounded| !bounded.contains(&column.name));
        bounds.max.clone().filter(|_| !has_nan)
    }

    fn num_containers(&self) -> usize {
        self.statistics.rows.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column)?.nulls.clone()
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.statistics.rows.clone()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
