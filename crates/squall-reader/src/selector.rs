//! Row groups that are read, by the row-group indexes that Petastorm keeps in the metadata.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use squall_dataset::{TimeZone, partition};
use squall_schema::petastorm::index::{Entries, RowGroupIndex};
use squall_schema::{DType, Error, Field, Result, TimeUnit, Value};

use crate::equal::Key;

/// Most digits of a decimal.
const MAX_DIGITS: u8 = 76;

/// Which row groups are read, by their row-group indexes: Petastorm's selectors.
///
/// Row groups are read whole: a row group with a value has rows without it too. Nothing is read beside the metadata. A
/// dataset whose indexes are stale is refused.
///
/// ```
/// use squall_reader::{RowGroupSelector, make_reader};
///
/// let cats = RowGroupSelector::single("by_label", ["cat", "lion"]);
/// let dark = RowGroupSelector::single("by_light", [0, 1]);
/// let reader = make_reader("/data/animals").row_group_selector(RowGroupSelector::intersect([cats, dark]));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct RowGroupSelector(Node);

#[derive(Debug, Clone)]
enum Node {
    Single { index: String, values: Values },
    Intersect(Vec<RowGroupSelector>),
    Union(Vec<RowGroupSelector>),
}

#[derive(Debug, Clone)]
enum Values {
    Typed(Vec<Value>),
    Text(Vec<String>),
}

impl RowGroupSelector {
    /// The row groups that hold one of these values, by the index of this name. Numbers are compared by value, whatever
    /// their dtypes. An index of missing values gives the row groups with a value that is not missing, whatever
    /// `values` are.
    pub fn single<V: Into<Value>>(index: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        Self(Node::Single {
            index: index.into(),
            values: Values::Typed(values.into_iter().map(Into::into).collect()),
        })
    }

    /// [`RowGroupSelector::single`] of values as text, in whatever dtype the index has: `7`, `0.5`, `true`, `2024-01-31`,
    /// `2024-01-31 12:00:00`. For command lines and configuration.
    pub fn single_from_text<S: Into<String>>(index: impl Into<String>, values: impl IntoIterator<Item = S>) -> Self {
        Self(Node::Single {
            index: index.into(),
            values: Values::Text(values.into_iter().map(Into::into).collect()),
        })
    }

    /// The row groups that all of these select.
    pub fn intersect(selectors: impl IntoIterator<Item = Self>) -> Self {
        Self(Node::Intersect(selectors.into_iter().collect()))
    }

    /// The row groups that one of these selects.
    pub fn union(selectors: impl IntoIterator<Item = Self>) -> Self {
        Self(Node::Union(selectors.into_iter().collect()))
    }

    /// The ordinals of the row groups.
    pub(crate) fn row_groups(&self, indexes: &[RowGroupIndex]) -> Result<BTreeSet<u32>> {
        match &self.0 {
            Node::Single { index, values } => {
                let found = indexes.iter().find(|own| own.name == *index);
                holding(found.ok_or_else(|| unknown(index, indexes))?, values)
            }
            Node::Intersect(selectors) | Node::Union(selectors) if selectors.is_empty() => Err(Error::invalid(
                "an intersection or union of row-group selectors has none: expected at least one",
            )),
            Node::Intersect(selectors) => {
                let mut all = selectors.iter().map(|selector| selector.row_groups(indexes));
                let first = all.next().transpose()?.unwrap_or_default();
                all.try_fold(first, |left, next| Ok(&left & &next?))
            }
            Node::Union(selectors) => {
                let all = selectors.iter().map(|selector| selector.row_groups(indexes));
                Ok(all.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
            }
        }
    }
}

/// The row groups that hold one of the values.
fn holding(index: &RowGroupIndex, values: &Values) -> Result<BTreeSet<u32>> {
    let Entries::Values(entries) = &index.entries else {
        // The value does not matter where nulls alone are told from others; other classes are refused.
        return index.row_groups(&Value::Null);
    };
    let meant: Vec<_> = match values {
        Values::Typed(values) => values.clone(),
        Values::Text(texts) => texts.iter().flat_map(|text| meanings(text)).collect(),
    };
    let keys = meant.iter().map(Key::all_of).collect::<Result<Vec<_>>>()?;
    let keys: HashSet<_> = keys.into_iter().flatten().collect();
    let mut row_groups = BTreeSet::new();
    for (value, holders) in entries {
        if Key::of(value)?.is_some_and(|key| keys.contains(&key)) {
            row_groups.extend(holders);
        }
    }
    Ok(row_groups)
}

/// What a text may stand for. The values of an index have one dtype, so that no more than one of them can be found.
fn meanings(text: &str) -> Vec<Value> {
    let n_decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let (unit, utc) = (TimeUnit::Microsecond, true);
    let dtypes = [
        DType::Bool,
        DType::Int64,
        DType::UInt64,
        DType::Float32,
        DType::Float64,
        DType::Decimal(MAX_DIGITS, i8::try_from(n_decimals).unwrap_or_default()),
        DType::Bytes,
        DType::Date,
        DType::Datetime { unit, utc },
    ];
    let values = dtypes.into_iter().filter_map(|dtype| {
        let field = Field::scalar("value", dtype);
        partition::value(Some(text), &field, TimeZone::default()).ok()
    });
    values.chain([Value::from(text)]).collect()
}

fn unknown(name: &str, indexes: &[RowGroupIndex]) -> Error {
    if indexes.is_empty() {
        return Error::invalid("the dataset has no row-group indexes, which a row-group selector needs");
    }
    let known: Vec<_> = indexes.iter().map(|index| index.name.as_str()).collect();
    Error::invalid(format!(
        "no row-group index {name:?}: the indexes are {}",
        known.join(", ")
    ))
}

impl fmt::Display for RowGroupSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name, selectors: &[Self]| {
            write!(f, "{name}(")?;
            for (i, selector) in selectors.iter().enumerate() {
                write!(f, "{}{selector}", if i > 0 { ", " } else { "" })?;
            }
            f.write_str(")")
        };
        match &self.0 {
            Node::Single { index, .. } => write!(f, "single({index})"),
            Node::Intersect(selectors) => list(f, "intersect", selectors),
            Node::Union(selectors) => list(f, "union", selectors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes() -> Vec<RowGroupIndex> {
        let index = |name: &str, entries| RowGroupIndex {
            name: name.into(),
            column: "x".into(),
            entries,
        };
        let values = |values: Vec<(Value, Vec<u32>)>| {
            let values = values
                .into_iter()
                .map(|(value, found)| (value, found.into_iter().collect()));
            Entries::Values(values.collect())
        };
        let (unit, utc) = (TimeUnit::Microsecond, false);
        let noon = Value::Datetime {
            value: 43_200_000_000,
            unit,
            utc,
        };
        vec![
            index(
                "int",
                values(vec![
                    (5.into(), vec![0, 2]),
                    (6.into(), vec![1, 2]),
                    (7.into(), vec![9]),
                ]),
            ),
            index("float", values(vec![(0.1f32.into(), vec![3])])),
            index("text", values(vec![("5".into(), vec![4]), ("a".into(), vec![2])])),
            index("day", values(vec![(Value::Date(0), vec![5])])),
            index("time", values(vec![(noon, vec![6])])),
            index("flag", values(vec![(true.into(), vec![7])])),
            index("present", Entries::NotNull([1].into())),
            index("other", Entries::Unknown("mine.Indexer".into())),
        ]
    }

    #[test]
    fn selectors_combine_row_groups() {
        let found = |selector: RowGroupSelector| selector.row_groups(&indexes()).map(Vec::from_iter);
        let single = RowGroupSelector::single::<Value>;
        let int = || single("int", vec![5.into(), 6.0.into()]);
        assert_eq!(found(int()).expect("row groups"), [0, 1, 2]);
        assert_eq!(found(single("int", vec![8.into()])).expect("row groups"), [0; 0]);
        assert_eq!(found(single("present", vec![])).expect("row groups"), [1]);
        let text = || single("text", vec!["a".into()]);
        assert_eq!(
            found(RowGroupSelector::intersect([int(), text()])).expect("row groups"),
            [2]
        );
        let nested = RowGroupSelector::union([
            RowGroupSelector::intersect([int(), text()]),
            single("flag", vec![1.into()]),
        ]);
        assert_eq!(
            nested.to_string(),
            "union(intersect(single(int), single(text)), single(flag))"
        );
        assert_eq!(found(nested).expect("row groups"), [2, 7]);

        let message = |selector, indexes: &[RowGroupIndex]| selector_error(&selector, indexes);
        assert!(message(int(), &[]).starts_with("the dataset has no row-group indexes"));
        assert!(
            message(single("nope", vec![]), &indexes())
                .starts_with("no row-group index \"nope\": the indexes are int, float")
        );
        assert!(message(single("other", vec![]), &indexes()).contains("mine.Indexer"));
        assert!(message(RowGroupSelector::intersect([]), &indexes()).contains("expected at least one"));
        assert!(message(RowGroupSelector::union([]), &indexes()).contains("expected at least one"));
    }

    fn selector_error(selector: &RowGroupSelector, indexes: &[RowGroupIndex]) -> String {
        selector.row_groups(indexes).expect_err("refused").to_string()
    }

    #[test]
    fn text_means_what_the_index_holds() {
        for (index, text, expected) in [
            ("int", "5", vec![0, 2]),
            ("int", "5.0", vec![0, 2]),
            ("float", "0.1", vec![3]),
            ("text", "5", vec![4]),
            ("day", "1970-01-01", vec![5]),
            ("time", "1970-01-01 12:00:00", vec![6]),
            ("flag", "true", vec![7]),
            ("flag", "no", vec![]),
        ] {
            let selector = RowGroupSelector::single_from_text(index, [text]);
            let found = selector.row_groups(&indexes()).expect("row groups");
            assert_eq!(Vec::from_iter(found), expected, "{index} {text}");
        }
    }
}
