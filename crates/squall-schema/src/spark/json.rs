//! Spark's schemas from JSON and to JSON, key by key in Spark's order.

use serde_json::{Map, Value as Json, json};

use super::shown;
use super::types::{SparkType, StructField, StructType};
use crate::{Error, Result};

/// How deep types may nest. serde_json bounds the text itself; this bounds what walks over the types.
const MAX_DEPTH: usize = 64;

impl StructType {
    /// The schema in a text that `StructType.json()` gave.
    pub fn from_json(text: &str) -> Result<Self> {
        let json: Json = serde_json::from_str(text)
            .map_err(|error| Error::corrupt("the schema of Spark is no JSON").with_source(error))?;
        match parse(&json, 0)? {
            SparkType::Struct(row) => Ok(row),
            other => Err(Error::corrupt(format!(
                "the schema of Spark is a {}: expected a struct",
                shown(&other)
            ))),
        }
    }

    /// The text that `StructType.fromJson` reads.
    pub fn to_json(&self) -> String {
        struct_to_json(self).to_string()
    }
}

fn parse(json: &Json, depth: usize) -> Result<SparkType> {
    if depth > MAX_DEPTH {
        return Err(Error::corrupt(format!(
            "a type of Spark that nests deeper than {MAX_DEPTH}"
        )));
    }
    if let Some(name) = json.as_str() {
        return Ok(match name.parse() {
            Ok(plain) => plain,
            Err(never) => match never {},
        });
    }
    let text = |key: &str| json.get(key).and_then(Json::as_str);
    let kind = text("type").ok_or_else(|| Error::corrupt("a type of Spark without the key \"type\""))?;
    let inner = |key: &str| match json.get(key) {
        Some(inner) => Ok(Box::new(parse(inner, depth + 1)?)),
        None => Err(lacks(kind, key)),
    };
    let flag = |key: &str| match json.get(key) {
        Some(Json::Bool(flag)) => Ok(*flag),
        _ => Err(lacks(kind, key)),
    };
    Ok(match kind {
        "array" => SparkType::Array {
            element: inner("elementType")?,
            contains_null: flag("containsNull")?,
        },
        "map" => SparkType::Map {
            key: inner("keyType")?,
            value: inner("valueType")?,
            value_contains_null: flag("valueContainsNull")?,
        },
        "struct" => {
            let fields = json.get("fields").and_then(Json::as_array);
            let fields = fields.ok_or_else(|| lacks(kind, "fields"))?;
            let fields = fields.iter().map(|field| parse_field(field, depth + 1));
            SparkType::Struct(StructType {
                fields: fields.collect::<Result<_>>()?,
            })
        }
        "udt" => SparkType::Udt {
            class: text("class").map(str::to_owned),
            py_class: text("pyClass").map(str::to_owned),
            serialized_class: text("serializedClass").map(str::to_owned),
            sql_type: inner("sqlType")?,
        },
        other => {
            return Err(Error::corrupt(format!(
                "a type of Spark {:?} with parts: it has none",
                shown(&other)
            )));
        }
    })
}

fn parse_field(json: &Json, depth: usize) -> Result<StructField> {
    let name = json.get("name").and_then(Json::as_str);
    let name = name.ok_or_else(|| lacks("struct", "name of a field"))?;
    let data_type = json.get("type").ok_or_else(|| lacks("struct", "type of a field"));
    Ok(StructField {
        data_type: data_type
            .and_then(|own| parse(own, depth))
            .map_err(|error| error.at("column", name))?,
        // Spark's own reader takes what is not said to be not null as nullable.
        nullable: json.get("nullable").and_then(Json::as_bool).unwrap_or(true),
        metadata: json
            .get("metadata")
            .and_then(Json::as_object)
            .cloned()
            .unwrap_or_default(),
        name: name.to_owned(),
    })
}

fn lacks(kind: &str, key: &str) -> Error {
    Error::corrupt(format!("the {kind} of a schema of Spark lacks its {key}"))
}

fn struct_to_json(row: &StructType) -> Json {
    let field = |field: &StructField| {
        json!({
            "name": field.name,
            "type": to_json(&field.data_type),
            "nullable": field.nullable,
            "metadata": field.metadata,
        })
    };
    json!({ "type": "struct", "fields": row.fields.iter().map(field).collect::<Vec<_>>() })
}

fn to_json(own: &SparkType) -> Json {
    match own {
        SparkType::Array { element, contains_null } => {
            json!({ "type": "array", "elementType": to_json(element), "containsNull": contains_null })
        }
        SparkType::Map {
            key,
            value,
            value_contains_null,
        } => json!({
            "type": "map",
            "keyType": to_json(key),
            "valueType": to_json(value),
            "valueContainsNull": value_contains_null,
        }),
        SparkType::Struct(row) => struct_to_json(row),
        SparkType::Udt {
            class,
            py_class,
            serialized_class,
            sql_type,
        } => {
            let mut json = Map::from_iter([("type".to_owned(), json!("udt"))]);
            for (key, text) in [
                ("class", class),
                ("pyClass", py_class),
                ("serializedClass", serialized_class),
            ] {
                if let Some(text) = text {
                    json.insert(key.to_owned(), json!(text));
                }
            }
            json.insert("sqlType".to_owned(), to_json(sql_type));
            Json::Object(json)
        }
        plain => json!(plain.to_string()),
    }
}
