//! From SQL text, or an expression of DataFusion's, to a checked and simplified one.
//!
//! In: what the user gave, and the stored columns of the dataset. Out: a [`Clause`], of which everything behind takes parts. Both kinds
//! of input go through the same checks: columns that are there, true or false, no function whose result changes, nothing
//! that needs more than one row.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, ExprSchemable, Volatility};
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::DFParser;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use squall_schema::arrow::schema_to_arrow;
use squall_schema::{Error, Result, Schema};

use super::FilterOptions;
use super::functions::Functions;

/// A where-clause that fits the columns of a dataset.
#[derive(Debug)]
pub(super) struct Clause {
    /// As the user gave it, for messages.
    pub(super) text: String,
    /// Coerced and simplified.
    pub(super) expression: Expr,
    /// The columns that it names, as they are stored.
    pub(super) schema: Schema,
    frame: Arc<DFSchema>,
    /// Whether its text says all about it: no function is the user's own.
    pub(super) is_portable: bool,
}

impl Clause {
    /// The clause of the options, of which at least one is given: both must hold. `schema` is that of the dataset with cells
    /// still encoded, which are binary to a clause.
    pub(super) fn parse(options: &FilterOptions, schema: &Schema) -> Result<Self> {
        let functions = Functions::new().map_err(|error| Error::internal("no functions").with_source(error))?;
        let all = DFSchema::try_from(schema_to_arrow(schema)?.as_ref().clone());
        let all = all.map_err(|error| Error::invalid("the columns have no names").with_source(error))?;
        let mut parts = Vec::new();
        if let Some(sql) = &options.sql {
            parts.push((sql.clone(), parse_sql(sql, &all, &functions)?));
        }
        if let Some(expression) = &options.expression {
            parts.push((expression.to_string(), expression.clone()));
        }
        let mut checked: Option<Self> = None;
        for (text, expression) in parts {
            let part = Self::check(text, expression, schema, &all, &functions)?;
            checked = Some(match checked {
                None => part,
                Some(first) => first.and(part, schema)?,
            });
        }
        checked.ok_or_else(|| Error::internal("no where-clause is given"))
    }

    fn check(text: String, expression: Expr, schema: &Schema, all: &DFSchema, functions: &Functions) -> Result<Self> {
        let wrong = |error: DataFusionError| misfit(&text, error);
        let is_portable = check_nodes(&expression, all, functions, &text)?;
        let (named, frame) = named(&expression, schema).map_err(|error| error.map_right(wrong))?;
        let simplifier = simplifier(&frame);
        let coerced = simplifier.coerce(expression, &frame).map_err(wrong)?;
        let found = coerced.get_type(frame.as_ref()).map_err(wrong)?;
        if !matches!(found, DataType::Boolean) {
            return Err(Error::invalid(format!(
                "the where-clause {text:?} is not true or false, but a {found}"
            )));
        }
        // Casts go from the column to the constant that it is compared with: times in microseconds need not fit nanoseconds.
        let simplified = simplifier.simplify(coerced).map_err(wrong)?;
        let expression = simplified.transform(canonical_literal).map_err(wrong)?.data;
        let clause = Self {
            text,
            expression,
            schema: named,
            frame,
            is_portable,
        };
        // What has no physical form is refused before anything is read.
        clause.physical(&clause.expression, &clause.schema)?;
        Ok(clause)
    }

    fn and(self, other: Self, schema: &Schema) -> Result<Self> {
        let text = format!("({}) AND ({})", self.text, other.text);
        let expression = self.expression.and(other.expression);
        let names: Vec<_> = schema
            .names()
            .filter(|name| self.schema.get(name).is_some() || other.schema.get(name).is_some())
            .collect();
        let schema = schema.project(&names)?;
        let frame = frame(&schema).map_err(|error| error.map_right(|error| misfit(&text, error)))?;
        Ok(Self {
            text,
            expression,
            schema,
            frame,
            is_portable: self.is_portable && other.is_portable,
        })
    }

    pub(super) fn simplify(&self, expression: Expr) -> Result<Expr> {
        let simplified = simplifier(&self.frame).simplify(expression);
        simplified.map_err(|error| misfit(&self.text, error))
    }

    /// The part of a clause, ready to be evaluated on batches with the columns of `schema`.
    pub(super) fn physical(&self, expression: &Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        let wrong = |error: DataFusionError| misfit(&self.text, error);
        let own = frame(schema).map_err(|error| error.map_right(wrong))?;
        let context = PhysicalPlanningContext::default();
        create_physical_expr(expression, &own, &ExecutionProps::new(), &context).map_err(wrong)
    }

    pub(super) fn failed(&self, error: DataFusionError) -> Error {
        Error::invalid(format!("cannot evaluate the where-clause {:?}", self.text)).with_source(error.strip_backtrace())
    }
}

/// Either of two errors on the way to a frame.
enum Unframed {
    Schema(Error),
    DataFusion(DataFusionError),
}

impl Unframed {
    fn map_right(self, wrong: impl Fn(DataFusionError) -> Error) -> Error {
        match self {
            Self::Schema(error) => error,
            Self::DataFusion(error) => wrong(error),
        }
    }
}

fn frame(schema: &Schema) -> Result<Arc<DFSchema>, Unframed> {
    let columns = schema_to_arrow(schema).map_err(Unframed::Schema)?;
    let frame = DFSchema::try_from(columns.as_ref().clone()).map_err(Unframed::DataFusion)?;
    Ok(Arc::new(frame))
}

/// The columns that the expression names.
fn named(expression: &Expr, schema: &Schema) -> Result<(Schema, Arc<DFSchema>), Unframed> {
    let columns = expression.column_refs();
    let names: Vec<_> = schema
        .names()
        .filter(|name| columns.iter().any(|column| column.name == *name))
        .collect();
    let named = schema.project(&names).map_err(Unframed::Schema)?;
    let frame = frame(&named)?;
    Ok((named, frame))
}

fn simplifier(frame: &Arc<DFSchema>) -> ExprSimplifier {
    ExprSimplifier::new(SimplifyContext::builder().with_schema(frame.clone()).build())
}

/// One sentence: DataFusion lists the valid fields on a line of their own, prints the syntax tree of what it does not support,
/// and asks for bug reports.
fn misfit(text: &str, error: DataFusionError) -> Error {
    let message = error.strip_backtrace().replace('\n', " ");
    let message = message.split(" {").next().unwrap_or_default();
    let message = message.split(" This issue was likely").next().unwrap_or_default();
    Error::invalid(format!("the where-clause {text:?} does not fit the columns: {message}"))
}

fn parse_sql(sql: &str, all: &DFSchema, functions: &Functions) -> Result<Expr> {
    let options = ParserOptions {
        // A column is written as it is named: Parquet's names have upper and lower case.
        enable_ident_normalization: false,
        ..ParserOptions::default()
    };
    let parsed = DFParser::parse_sql_into_expr(sql).map_err(|error| misfit(sql, error))?;
    let planner = SqlToRel::new_with_options(functions, options);
    let planned = planner.sql_to_expr(parsed.expr, all, &mut PlannerContext::new());
    planned.map_err(|error| misfit(sql, error))
}

/// Refuses what no single row answers, and functions whose result changes from call to call: the order is a function of
/// its inputs, and a clause that gives other rows tomorrow is none. Tells whether all functions are DataFusion's own.
fn check_nodes(expression: &Expr, all: &DFSchema, functions: &Functions, text: &str) -> Result<bool> {
    let mut refused = None;
    let mut is_portable = true;
    let look = |node: &Expr| {
        let reason = match node {
            Expr::Column(column) => unknown(column, all),
            Expr::ScalarFunction(call) => {
                is_portable &= functions.has(&call.func);
                (call.func.signature().volatility != Volatility::Immutable)
                    .then(|| "calls a function whose result changes from call to call".to_owned())
            }
            Expr::AggregateFunction(_) | Expr::GroupingSet(_) => {
                Some("has an aggregate, which needs more than a row".into())
            }
            Expr::WindowFunction(_) => Some("has a window function, which needs more than a row".into()),
            Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_)
            | Expr::ScalarSubquery(_)
            | Expr::OuterReferenceColumn(..) => Some("has a subquery, but there are no tables".into()),
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => Some("has a variable without a value".into()),
            #[expect(deprecated, reason = "DataFusion has it still, and it names no column")]
            Expr::Wildcard { .. } => Some("has a wildcard in the place of a column".into()),
            Expr::Unnest(_) => Some("unnests a list, which gives more than a row".into()),
            _ => None,
        };
        refused = reason;
        Ok(match refused {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    };
    expression.apply(look).map_err(|error| misfit(text, error))?;
    match refused {
        Some(reason) => Err(Error::invalid(format!("the where-clause {text:?} {reason}"))),
        None => Ok(is_portable),
    }
}

fn unknown(column: &Column, all: &DFSchema) -> Option<String> {
    let there = column.relation.is_none() && all.fields().iter().any(|field| *field.name() == column.name);
    (!there).then(|| {
        let names: Vec<_> = all.fields().iter().map(|field| field.name().as_str()).collect();
        let name = match &column.relation {
            Some(relation) => format!("{relation}.{}", column.name),
            None => column.name.clone(),
        };
        format!(
            "does not fit the columns: there is no column {name:?}, only {}",
            names.join(", ")
        )
    })
}

/// A constant as the columns have it: see [`canonical`](super::evaluate::canonical).
fn canonical_literal(node: Expr) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::Literal(value, metadata) = node else {
        return Ok(Transformed::no(node));
    };
    let value = match value {
        ScalarValue::Float32(Some(value)) if value.is_nan() => ScalarValue::Float32(Some(f32::NAN)),
        ScalarValue::Float64(Some(value)) if value.is_nan() => ScalarValue::Float64(Some(f64::NAN)),
        ScalarValue::Float32(Some(value)) => ScalarValue::Float32(Some(value + 0.0)),
        ScalarValue::Float64(Some(value)) => ScalarValue::Float64(Some(value + 0.0)),
        other => other,
    };
    Ok(Transformed::yes(Expr::Literal(value, metadata)))
}
