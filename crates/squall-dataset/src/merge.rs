//! One set of columns for files that differ, as Spark's `mergeSchema` makes it.
//!
//! In: the Arrow columns of each file, in the order of the files. Out: the columns of the dataset. Names count, not places:
//! the first file's columns come first, then those that later files add, in the order of the files. A column that a file
//! lacks is null there; of two types the one is taken that holds the values of both. Structs are merged member by member,
//! lists and maps by what they hold. Types that have nothing in common are an error: silence would lose values.

use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Fields};
use indexmap::IndexMap;
use squall_schema::arrow::{element_to_arrow, field_from_arrow};
use squall_schema::{DType, Error, Result, TimeUnit};

/// Digits that a merged decimal may have. More than Spark's decimals hold is not made.
const MAX_DECIMAL_DIGITS: i16 = 38;

/// A column of the dataset.
#[derive(Debug, Clone)]
pub(crate) struct Merged {
    /// Name, type and nullability over all files.
    pub(crate) column: ArrowField,
    /// The place of the first file that has it.
    pub(crate) file: usize,
    /// The place of the first file that lacks it.
    pub(crate) lacking: Option<usize>,
    /// The place of the last file that has it.
    last: usize,
}

/// Merges the columns of all files. `name` gives a file's name, for messages.
pub(crate) fn merge(files: &[Fields], name: impl Fn(usize) -> String) -> Result<Vec<Merged>> {
    let mut merged: IndexMap<&str, Merged> = IndexMap::new();
    for (file, columns) in files.iter().enumerate() {
        for column in columns {
            let Some(own) = merged.get_mut(column.name().as_str()) else {
                let new = Merged {
                    column: column.as_ref().clone(),
                    file,
                    lacking: (file > 0).then_some(0),
                    last: file,
                };
                merged.insert(column.name(), new);
                continue;
            };
            if own.lacking.is_none() && own.last + 1 < file {
                own.lacking = Some(own.last + 1);
            }
            own.last = file;
            if own.column == **column {
                continue;
            }
            own.column = merge_columns(&own.column, column).ok_or_else(|| {
                Error::unsupported(format!(
                    "column {:?}: expected {} as in {}, found {}, which no one type holds",
                    column.name(),
                    own.column.data_type(),
                    name(own.file),
                    column.data_type()
                ))
                .at("file", name(file))
            })?;
        }
    }
    let ended = |mut own: Merged| {
        if own.lacking.is_none() && own.last + 1 < files.len() {
            own.lacking = Some(own.last + 1);
        }
        if own.lacking.is_some() {
            own.column.set_nullable(true);
        }
        own
    };
    Ok(merged.into_values().map(ended).collect())
}

/// Two columns of the same name; `None` if nothing holds both. The shapes of tensors must agree.
fn merge_columns(a: &ArrowField, b: &ArrowField) -> Option<ArrowField> {
    if let (Ok(one), Ok(other)) = (field_from_arrow(a), field_from_arrow(b))
        && one.shape != other.shape
    {
        return None;
    }
    merge_fields(a, b)
}

/// The names inside lists and maps are the writer's taste: those of `a` stay.
fn merge_fields(a: &ArrowField, b: &ArrowField) -> Option<ArrowField> {
    let merged = a.clone().with_data_type(merge_types(a.data_type(), b.data_type())?);
    Some(merged.with_nullable(a.is_nullable() || b.is_nullable()))
}

fn merge_types(a: &DataType, b: &DataType) -> Option<DataType> {
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (DataType::Struct(a), DataType::Struct(b)) => Some(DataType::Struct(merge_members(a, b)?)),
        (DataType::List(a) | DataType::LargeList(a), DataType::List(b) | DataType::LargeList(b)) => {
            Some(DataType::List(Arc::new(merge_fields(a, b)?)))
        }
        (DataType::FixedSizeList(a, n), DataType::FixedSizeList(b, m)) if n == m => {
            Some(DataType::FixedSizeList(Arc::new(merge_fields(a, b)?), *n))
        }
        (DataType::Map(a, sorted), DataType::Map(b, also_sorted)) => {
            let (DataType::Struct(own), DataType::Struct(other)) = (a.data_type(), b.data_type()) else {
                return None;
            };
            if own.len() != other.len() {
                return None;
            }
            let entry = own.iter().zip(other).map(|(a, b)| merge_fields(a, b));
            let entry = DataType::Struct(entry.collect::<Option<_>>()?);
            let entries = a.as_ref().clone().with_data_type(entry);
            Some(DataType::Map(Arc::new(entries), *sorted && *also_sorted))
        }
        // Of pandas and pyarrow, where a file has nothing but nulls.
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (a, b) => Some(element_to_arrow(wider(scalar(a)?, scalar(b)?)?)),
    }
}

fn merge_members(a: &Fields, b: &Fields) -> Option<Fields> {
    let own = a.iter().map(|member| match b.find(member.name()) {
        Some((_, other)) => merge_fields(member, other),
        None => Some(member.as_ref().clone().with_nullable(true)),
    });
    let new = b.iter().filter(|member| a.find(member.name()).is_none());
    let new = new.map(|member| Some(member.as_ref().clone().with_nullable(true)));
    own.chain(new).collect()
}

fn scalar(data_type: &DataType) -> Option<DType> {
    let field = field_from_arrow(&ArrowField::new("", data_type.clone(), true)).ok()?;
    (field.shape.is_scalar() && field.dtype != DType::Nested).then_some(field.dtype)
}

/// The dtype that holds every value of both, exactly.
fn wider(a: DType, b: DType) -> Option<DType> {
    if a == b {
        return Some(a);
    }
    match (a, b) {
        (DType::Decimal(p, s), DType::Decimal(q, t)) => {
            let digits = (i16::from(p) - i16::from(s)).max(i16::from(q) - i16::from(t));
            let scale = s.max(t);
            let precision = digits + i16::from(scale);
            let precision = (precision <= MAX_DECIMAL_DIGITS).then(|| u8::try_from(precision).ok());
            Some(DType::Decimal(precision??, scale))
        }
        // Instants and wall clock times are different things; of two units the finer holds both.
        (DType::Datetime { unit: a, utc }, DType::Datetime { unit: b, utc: other }) if utc == other => {
            let unit = if fineness(a) > fineness(b) { a } else { b };
            Some(DType::Datetime { unit, utc })
        }
        _ if holds(a, b) => Some(a),
        _ if holds(b, a) => Some(b),
        _ => None,
    }
}

fn fineness(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

/// Whether each number of `narrow` is one of `wide`.
fn holds(wide: DType, narrow: DType) -> bool {
    use DType::{Float16, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    let narrower: &[DType] = match wide {
        Int16 => &[Int8, UInt8],
        Int32 => &[Int8, Int16, UInt8, UInt16],
        Int64 => &[Int8, Int16, Int32, UInt8, UInt16, UInt32],
        UInt16 => &[UInt8],
        UInt32 => &[UInt8, UInt16],
        UInt64 => &[UInt8, UInt16, UInt32],
        Float32 => &[Float16],
        Float64 => &[Float16, Float32, Int8, Int16, Int32, UInt8, UInt16, UInt32],
        _ => &[],
    };
    narrower.contains(&narrow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::DataType::{Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Utf8};
    use arrow_schema::TimeUnit::{Microsecond, Millisecond};

    fn field(name: &str, data_type: DataType) -> ArrowField {
        ArrowField::new(name, data_type, false)
    }

    fn members(members: &[(&str, DataType)]) -> DataType {
        DataType::Struct(members.iter().map(|(name, own)| field(name, own.clone())).collect())
    }

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(field("element", item)))
    }

    fn map(value: DataType) -> DataType {
        let entry = members(&[("key", Utf8), ("value", value)]);
        DataType::Map(Arc::new(field("key_value", entry)), false)
    }

    /// The merged columns, and which file lacks each; or the error.
    fn merged(files: &[&[(&str, DataType)]]) -> String {
        let columns = |columns: &&[(&str, DataType)]| -> Fields {
            columns.iter().map(|(name, own)| field(name, own.clone())).collect()
        };
        let files: Vec<_> = files.iter().map(columns).collect();
        match merge(&files, |file| format!("f{file}")) {
            Ok(columns) => {
                let text = |own: &Merged| {
                    let null = if own.column.is_nullable() { "?" } else { "" };
                    let lacking = own.lacking.map(|file| format!(" not in f{file}")).unwrap_or_default();
                    format!("{}: {}{null}{lacking}", own.column.name(), own.column.data_type())
                };
                columns.iter().map(text).collect::<Vec<_>>().join(", ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_count_and_later_columns_come_last() {
        let column = |name| match name {
            "a" => ("a", Int32),
            "b" => ("b", Utf8),
            _ => ("c", Int8),
        };
        let check = |files: &[&'static str], expected: &str| {
            let columns = |names: &&'static str| names.split_whitespace().map(column).collect::<Vec<_>>();
            let files: Vec<_> = files.iter().map(columns).collect();
            assert_eq!(merged(&files.iter().map(Vec::as_slice).collect::<Vec<_>>()), expected);
        };
        check(&["a b", "b a"], "a: Int32, b: Utf8");
        check(&["b", "a b", "c b"], "b: Utf8, a: Int32? not in f0, c: Int8? not in f0");
        check(&["a b", "a", "a b"], "a: Int32, b: Utf8? not in f1");
        check(&["a b", "a"], "a: Int32, b: Utf8? not in f1");
        check(&["", "a", "c"], "a: Int32? not in f0, c: Int8? not in f0");
        check(&[], "");
    }

    #[test]
    fn types_are_widened_where_one_holds_both() {
        let (micros, millis) = (
            DataType::Timestamp(Microsecond, None),
            DataType::Timestamp(Millisecond, None),
        );
        let instant = DataType::Timestamp(Microsecond, Some("UTC".into()));
        for (a, b, expected) in [
            (Int8, Int64, Some(Int64)),
            (Int16, Int32, Some(Int32)),
            (DataType::UInt32, Int64, Some(Int64)),
            (DataType::UInt32, Int32, None),
            (DataType::UInt64, Int64, None),
            (Float32, Float64, Some(Float64)),
            (Int32, Float64, Some(Float64)),
            (Int64, Float64, None),
            (Int16, Float32, None),
            (Utf8, LargeUtf8, Some(Utf8)),
            (Utf8, DataType::Binary, None),
            (Int32, Utf8, None),
            (Int32, DataType::Boolean, None),
            (Decimal128(5, 2), Decimal128(9, 2), Some(Decimal128(9, 2))),
            (Decimal128(5, 2), Decimal128(5, 4), Some(Decimal128(7, 4))),
            (Decimal128(38, 2), Decimal128(38, 4), None),
            (Date32, micros.clone(), None),
            (micros.clone(), millis, Some(micros.clone())),
            (micros, instant, None),
            (
                members(&[("x", Int32), ("y", Utf8)]),
                members(&[("y", Utf8), ("x", Int64), ("z", Date32)]),
                Some(DataType::Struct(
                    vec![
                        field("x", Int64),
                        field("y", Utf8),
                        field("z", Date32).with_nullable(true),
                    ]
                    .into(),
                )),
            ),
            (members(&[("x", Int32)]), members(&[("x", Utf8)]), None),
            (members(&[("x", Int32)]), Int32, None),
            (list(Int32), list(Int64), Some(list(Int64))),
            (list(Int32), list(Utf8), None),
            (list(Int32), Int32, None),
            (map(Int32), map(Int64), Some(map(Int64))),
            (map(Int32), map(list(Int64)), None),
        ] {
            let merge = |a: &DataType, b: &DataType| merge_columns(&field("c", a.clone()), &field("c", b.clone()));
            let types = |merged: Option<ArrowField>| merged.map(|merged| merged.data_type().clone());
            assert_eq!(types(merge(&a, &b)), expected, "{a} and {b}");
            if !matches!(a, DataType::Struct(_)) {
                assert_eq!(types(merge(&b, &a)), expected, "{b} and {a}");
            }
        }
    }

    #[test]
    fn what_no_type_holds_is_named() {
        let files: &[&[(&str, DataType)]] = &[&[("a", Int8), ("b", Utf8)], &[("a", Int64)], &[("b", list(Int32))]];
        let expected = "column \"b\": expected Utf8 as in f0, found List(non-null Int32, field: 'element'), which no one type holds (file f2)";
        assert_eq!(merged(files), expected);
    }
}
