//! Struct columns taken apart: the member `b` of the column `a` is the column `a.b`, as in Spark's `select("a.b")`.
//!
//! Only structs are taken apart, however deep. Lists of structs and maps have many values a row and stay what they are.

use arrow_schema::{DataType, Field as ArrowField};

use crate::arrow::field_from_arrow;
use crate::{DType, Error, Field, Result, Schema};

impl Schema {
    /// The schema with the members of its structs in their place: `a` with members `b` and `c` becomes `a.b` and `a.c`. A
    /// member is nullable where it is, or where a struct around it is. Two columns of one name are an error.
    pub fn flattened(&self) -> Result<Self> {
        let mut fields = Vec::new();
        for field in self.fields() {
            flatten(field, &mut fields)?;
        }
        Self::new(fields)
    }

    /// The fields of these names, in the order asked for. `a.b` is the member `b` of the struct `a`, unless a column has
    /// that name.
    pub fn select<S: AsRef<str>>(&self, names: &[S]) -> Result<Self> {
        let field = |name: &S| match self.locate(name.as_ref()) {
            Some((field, _)) => Ok(field),
            None => Err(self.unknown(name.as_ref())),
        };
        Self::new(names.iter().map(field).collect::<Result<_>>()?)
    }

    /// The field or the member of a struct that has this name, and the names that lead to it: `["a", "b"]` for `a.b`.
    pub fn locate(&self, name: &str) -> Option<(Field, Vec<String>)> {
        if let Some(field) = self.get(name) {
            return Some((field.clone(), vec![name.to_owned()]));
        }
        // A name may have a dot in it, so that more than one column may be meant; the first is.
        self.fields().iter().find_map(|field| {
            let rest = name.strip_prefix(field.name.as_str())?.strip_prefix('.')?;
            let (member, mut path) = member(field, rest)?;
            path.insert(0, field.name.clone());
            Some((member, path))
        })
    }
}

/// The members of a struct column, each as a column; `None` of any other.
fn members(field: &Field) -> Option<Result<Vec<(String, Field)>>> {
    let (DType::Nested, Some(DataType::Struct(members))) = (field.dtype, &field.arrow) else {
        return None;
    };
    let column = |own: &std::sync::Arc<ArrowField>| {
        let column = own.as_ref().clone().with_name(format!("{}.{}", field.name, own.name()));
        let column = column.with_nullable(field.nullable || own.is_nullable());
        Ok((own.name().clone(), field_from_arrow(&column)?))
    };
    Some(members.iter().map(column).collect())
}

/// Parquet's own structs bound the depth: what was read as a file's schema is no deeper than its reader allows.
fn flatten(field: &Field, fields: &mut Vec<Field>) -> Result<()> {
    match members(field) {
        Some(members) => members?.iter().try_for_each(|(_, member)| flatten(member, fields)),
        None => {
            if fields.iter().any(|own| own.name == field.name) {
                return Err(Error::invalid(format!(
                    "two columns are named {:?} once structs are taken apart: select columns by name instead",
                    field.name
                )));
            }
            fields.push(field.clone());
            Ok(())
        }
    }
}

fn member(field: &Field, rest: &str) -> Option<(Field, Vec<String>)> {
    for (own, column) in members(field)?.ok()? {
        if own == rest {
            return Some((column, vec![own]));
        }
        let inner = rest.strip_prefix(own.as_str()).and_then(|rest| rest.strip_prefix('.'));
        if let Some((column, mut path)) = inner.and_then(|inner| member(&column, inner)) {
            path.insert(0, own);
            return Some((column, path));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow::schema_from_arrow;
    use arrow_schema::Schema as ArrowSchema;

    fn column(name: &str, data_type: DataType) -> ArrowField {
        ArrowField::new(name, data_type, false)
    }

    fn structure(members: Vec<ArrowField>) -> DataType {
        DataType::Struct(members.into())
    }

    fn schema(columns: Vec<ArrowField>) -> Schema {
        schema_from_arrow(&ArrowSchema::new(columns)).expect("a schema")
    }

    fn nested() -> Schema {
        let inner = structure(vec![column("x", DataType::Int32), column("y.z", DataType::Utf8)]);
        let list = DataType::List(column("element", inner.clone()).into());
        let middle = structure(vec![
            column("inner", inner).with_nullable(true),
            column("v", DataType::List(column("element", DataType::Float32).into())),
        ]);
        schema(vec![
            column("id", DataType::Int64),
            column("a", middle),
            column("l", list),
        ])
    }

    #[test]
    fn members_are_columns_and_nullable_as_what_is_around_them() {
        let flat = nested().flattened().expect("no clash").to_string();
        let lines: Vec<_> = flat.lines().collect();
        let expected = [
            "id: int64",
            "a.inner.x: int32 nullable",
            "a.inner.y.z: str nullable",
            "a.v: float32[?]",
        ];
        assert_eq!(lines[..4], expected);
        assert!(lines[4].starts_with("l: nested (List("), "{flat}");
        assert_eq!(
            nested()
                .flattened()
                .expect("flat")
                .flattened()
                .expect("flat")
                .to_string(),
            flat
        );
    }

    #[test]
    fn a_member_is_found_by_its_name() {
        let nested = nested();
        let path = |name: &str| nested.locate(name).map(|(field, path)| (field.name, path));
        let found = |name: &str, path: &[&str]| {
            let path = path.iter().map(|part| (*part).to_owned()).collect();
            Some((name.to_owned(), path))
        };
        assert_eq!(path("id"), found("id", &["id"]));
        assert_eq!(path("a.inner.y.z"), found("a.inner.y.z", &["a", "inner", "y.z"]));
        assert_eq!(path("a.inner"), found("a.inner", &["a", "inner"]));
        for name in ["a.inner.y", "a.", "a.none", "l.element", "l.x", "id.x", ".id", ""] {
            assert_eq!(path(name), None, "{name}");
        }
        let selected = nested.select(&["a.v", "id"]).expect("two columns");
        assert_eq!(selected.to_string(), "a.v: float32[?]\nid: int64");
        let error = nested.select(&["a.none"]).expect_err("no such member").to_string();
        assert_eq!(error, "no column \"a.none\": the columns are id, a, l");
    }

    #[test]
    fn names_that_clash_are_refused() {
        let columns = vec![
            column("a.b", DataType::Int32),
            column("a", structure(vec![column("b", DataType::Utf8)])),
        ];
        let schema = schema(columns);
        assert_eq!(schema.locate("a.b").expect("a column").0.dtype, DType::Int32);
        let error = schema.flattened().expect_err("a clash").to_string();
        assert!(error.starts_with("two columns are named \"a.b\""), "{error}");
    }
}
