//! What a conversion would write, and why, without writing it.

use arrow_schema::DataType;
use datafusion::physical_plan::ExecutionPlanProperties;
use futures::StreamExt;
use squall_schema::{Field, Result, Schema, Shape};

use crate::conform::Target;
use crate::converter::Converter;
use crate::directory::{open_sources, query};
use crate::error::query_error;
use crate::evidence::Evidence;
use crate::stream::ruled;

/// A field that a conversion would write.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inferred {
    /// The field, with the shape that was found.
    pub field: Field,
    /// What it was inferred from.
    pub from: String,
}

/// Finds what [`convert_sources`](crate::convert_sources) would write: the fields and what each was inferred from, and the number
/// of rows. All rows are read and ruled, so that shapes are those that a conversion finds, and its errors are found too; none is
/// kept.
///
/// # Cancel safety
///
/// Dropping the future ends the query; nothing is written.
pub async fn infer_sources(
    sources: &[(&str, &str)],
    converter: &Converter,
    sql: Option<&str>,
) -> Result<(Vec<Inferred>, u64)> {
    let (session, tables) = open_sources(sources, converter).await?;
    let (rows, declared) = query(&session, &tables, sql).await?;
    let context = std::sync::Arc::new(rows.task_ctx());
    let plan = rows.create_physical_plan().await.map_err(query_error)?;
    let result = plan.schema();
    let steps = converter.rules.plan(&result, &declared, &converter.source.store)?;
    let target = Target::of_query(steps.schema(), steps.declared(), converter.layout.petastorm.as_ref())?;
    let mut evidence = Evidence::new(&target.schema);
    let mut n_rows = 0;
    for partition in 0..plan.output_partitioning().partition_count() {
        let rows = plan.execute(partition, context.clone()).map_err(query_error)?;
        let rows = rows.map(|rows| rows.map_err(query_error));
        let mut rows = Box::pin(ruled(rows, steps.clone(), Default::default()));
        while let Some(rows) = rows.next().await {
            let rows = target.conform(&rows?)?;
            n_rows += rows.num_rows() as u64;
            evidence.see(&rows);
        }
    }
    let found = target.declare(evidence.shapes(&target.schema)?)?;
    let of = |field: &Field| {
        let own = declared.iter().find(|own| own.name == field.name);
        let column = result.field_with_name(&field.name).ok();
        let ruled = steps.schema().field_with_name(&field.name).ok();
        let mut from = match (own, column) {
            (Some(own), _) => format!("the source, where it is {}", what(own)),
            (None, Some(column)) => format!("the query, which gives {}", column.data_type()),
            (None, None) => "the query".to_owned(),
        };
        if column.map(|column| column.data_type()) != ruled.map(|column| column.data_type()) {
            from.push_str("; a rule of the conversion makes another type of it");
        }
        if let (Some(DataType::List(_)), false) = (ruled.map(|column| column.data_type()), field.shape.is_scalar()) {
            from.push_str(&lengths(&field.shape, n_rows));
        }
        Inferred {
            field: field.clone(),
            from,
        }
    };
    Ok((found.fields().iter().map(of).collect(), n_rows))
}

fn what(own: &Field) -> Schema {
    // A schema of one prints as a field does.
    Schema::new(vec![own.clone()]).unwrap_or_default()
}

fn lengths(shape: &Shape, n_rows: u64) -> String {
    match shape.as_fixed().as_deref() {
        Some(dims) => format!(
            "; the lists of all {n_rows} rows have {} elements",
            dims.iter().product::<usize>()
        ),
        None => format!("; the lists of {n_rows} rows differ in length, or have nulls"),
    }
}
