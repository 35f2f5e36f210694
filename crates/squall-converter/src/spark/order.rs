//! Rows in an order of their own: sorted, shuffled, or laid out by directories.
//!
//! Spark gives rows that its sort finds equal in any order, and those that come over the network in another one each time. So what orders
//! rows here is their content: a sort goes on by a hash of all columns, and a shuffle sorts by a hash of seed, content and, among
//! equal rows, number. The same rows are in the same order, however many partitions, tasks or machines there are, and in whatever order
//! they came.

use spark_connect::DataFrame;
use spark_connect::functions::expr;
use squall_schema::spark::SparkType;
use squall_schema::{Error, Result};

use super::columns::{Columns, quoted};
use crate::layout::Layout;

/// Columns that are there while rows are put in order.
const CONTENT: [&str; 2] = ["squall_content_0", "squall_content_1"];
const KEY: &str = "squall_key";

/// The rows in the order of the layout. Spark puts as many of them in one task, and so in one file, as
/// `spark.sql.adaptive.advisoryPartitionSizeInBytes` says.
pub(super) fn order(columns: &Columns, layout: &Layout) -> Result<DataFrame> {
    let rows = &columns.rows;
    if !layout.is_ordered() {
        return Ok(rows.clone());
    }
    let taken = [CONTENT[0], CONTENT[1], KEY];
    if let Some(field) = columns
        .types
        .fields
        .iter()
        .find(|field| taken.contains(&field.name.as_str()))
    {
        return Err(Error::unsupported(format!(
            "the column {:?} has the name of one that ordering needs: rename it",
            field.name
        )));
    }
    let content = content(columns);
    let hashes = [
        "*".to_owned(),
        format!("xxhash64({content}) AS {}", CONTENT[0]),
        format!("hash({content}) AS {}", CONTENT[1]),
    ];
    let mut rows = select(rows, &hashes);
    // The directory first, nulls where Spark's writer wants them.
    let mut by: Vec<_> = layout
        .partition_by
        .iter()
        .map(|name| expr(&quoted(name)).asc())
        .collect();
    by.extend(layout.sort_by.iter().map(|name| expr(&quoted(name)).asc_nulls_last()));
    if let Some(seed) = layout.shuffle {
        let content = CONTENT.join(", ");
        let number = format!("row_number() OVER (PARTITION BY {content} ORDER BY {content})");
        // Spark's numbers have a sign.
        let seed = seed.cast_signed();
        let key = format!("xxhash64(CAST('{seed}' AS BIGINT), {content}, {number}) AS {KEY}");
        rows = select(&rows, &["*".to_owned(), key]);
        by.push(expr(KEY).asc());
    }
    by.extend(CONTENT.map(|name| expr(name).asc()));
    let by = by.iter().map(|column| column.expression().clone()).collect();
    Ok(rows.sort(by).drop(taken.to_vec()))
}

/// All columns, as arguments of a hash. A hash passes nulls over, so each is told of beside its value; of a map there is none but by
/// its text.
fn content(columns: &Columns) -> String {
    let hashed = columns.types.fields.iter().filter_map(|field| {
        let name = quoted(&field.name);
        let value = match &field.data_type {
            own if !has_hash(own) => return None,
            own if has_map(own) => format!("to_json({name})"),
            _ => name.clone(),
        };
        Some(format!("{name} IS NULL, {value}"))
    });
    hashed.collect::<Vec<_>>().join(", ")
}

fn has_hash(own: &SparkType) -> bool {
    !matches!(own, SparkType::Variant | SparkType::Other(_))
}

fn has_map(own: &SparkType) -> bool {
    match own {
        SparkType::Map { .. } => true,
        SparkType::Array { element, .. } => has_map(element),
        SparkType::Struct(row) => row.fields.iter().any(|field| has_map(&field.data_type)),
        _ => false,
    }
}

fn select(rows: &DataFrame, columns: &[String]) -> DataFrame {
    rows.select(columns.iter().map(|sql| expr(sql)).collect::<Vec<_>>())
}
