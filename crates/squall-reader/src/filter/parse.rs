//! From SQL text, or an expression of DataFusion's, to a checked and simplified one.
//!
//! In: what the user gave, and the stored columns of the dataset. Out: a [`Clause`], of which everything behind takes parts. Both kinds
//! of input go through the same checks: columns that are there, true or false, no function whose result changes, nothing
//! that needs more than one row.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_schema::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, ExprSchemable, Volatility};
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::DFParser;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::parser::ParserError;
use squall_schema::arrow::schema_to_arrow;
use squall_schema::{Error, ErrorKind, Result, Schema, panic_text};

use super::depth::{balanced, balanced_sql, check_text, conjunction};
use super::floats::{canonical_literal, canonical_results};
use super::functions::Functions;
use super::leaves;
use super::{FilterOptions, Given};

/// Characters of a clause that messages show.
const MOST_TEXT: usize = 500;

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
        for given in &options.given {
            let (text, expression) = match given {
                Given::Sql(sql) => {
                    let text = shortened(sql);
                    let parsed = guard(&text, || parse_sql(sql, &text, &all, &functions))?;
                    (text, parsed)
                }
                Given::Expression(Ok(expression)) => (shortened(&expression.to_string()), expression.clone()),
                Given::Expression(Err(reason)) => return Err(refused("given by filter_expr", reason)),
            };
            let check = || Self::check(text.clone(), expression, schema, &all, &functions);
            parts.push(guard(&text, check)?);
        }
        match parts.len() {
            0 => Err(Error::internal("no where-clause is given")),
            1 => Ok(parts.remove(0)),
            _ => Self::all(parts, schema),
        }
    }

    fn check(text: String, expression: Expr, schema: &Schema, all: &DFSchema, functions: &Functions) -> Result<Self> {
        let wrong = |error: DataFusionError| misfit(&text, error);
        let named_text = format!("{text:?}");
        let bounded = |expression| balanced(expression).map_err(|reason| refused(&named_text, &reason));
        let expression = bounded(expression)?;
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
        let coerced = canonical_results(coerced, &frame).map_err(wrong)?;
        let simplified = bounded(leaves::simplify(&simplifier, coerced).map_err(wrong)?)?;
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

    /// All of several clauses.
    fn all(parts: Vec<Self>, schema: &Schema) -> Result<Self> {
        let texts: Vec<_> = parts.iter().map(|part| format!("({})", part.text)).collect();
        let text = shortened(&texts.join(" AND "));
        let names: Vec<_> = schema
            .names()
            .filter(|name| parts.iter().any(|part| part.schema.get(name).is_some()))
            .collect();
        let schema = schema.project(&names)?;
        let frame = frame(&schema).map_err(|error| error.map_right(|error| misfit(&text, error)))?;
        let is_portable = parts.iter().all(|part| part.is_portable);
        let expression = conjunction(parts.into_iter().map(|part| part.expression).collect());
        let expression = balanced(expression).map_err(|reason| refused(&format!("{text:?}"), &reason))?;
        Ok(Self {
            text,
            expression,
            schema,
            frame,
            is_portable,
        })
    }

    pub(super) fn simplify(&self, expression: Expr) -> Result<Expr> {
        let simplified = leaves::simplify(&simplifier(&self.frame), expression);
        let simplified = simplified.map_err(|error| misfit(&self.text, error))?;
        balanced(simplified).map_err(|reason| refused(&format!("{:?}", self.text), &reason))
    }

    /// The part of a clause, ready to be evaluated on batches with the columns of `schema`.
    pub(super) fn physical(&self, expression: &Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        let wrong = |error: DataFusionError| misfit(&self.text, error);
        let own = frame(schema).map_err(|error| error.map_right(wrong))?;
        let context = PhysicalPlanningContext::default();
        create_physical_expr(expression, &own, &ExecutionProps::new(), &context).map_err(wrong)
    }

    pub(super) fn failed(&self, error: DataFusionError) -> Error {
        Error::invalid(format!("cannot evaluate the where-clause {:?}", self.text)).with_source(sentence(error))
    }

    /// Runs what may call a function of the user's.
    pub(super) fn guard<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        guard(&self.text, work)
    }
}

/// Runs what may call a function of the user's: a panic in it becomes an error that names the clause.
fn guard<T>(text: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(Error::new(
            ErrorKind::Transform,
            format!("the where-clause {text:?} panicked: {}", panic_text(&*panic)),
        ))
    })
}

/// The beginning of a clause, for messages: programs write long ones.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

fn refused(clause: &str, reason: &str) -> Error {
    Error::invalid(format!("the where-clause {clause} {reason}"))
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

fn misfit(text: &str, error: DataFusionError) -> Error {
    refused(
        &format!("{text:?}"),
        &format!("does not fit the columns: {}", sentence(error)),
    )
}

/// One sentence: DataFusion lists the valid fields on a line of their own, prints the syntax tree of what it does not support,
/// tells of an option that readers do not have, and asks for bug reports.
fn sentence(error: DataFusionError) -> String {
    let message = error.strip_backtrace().replace('\n', " ");
    let message = message.split(" {").next().unwrap_or_default();
    let message = message.split(" This issue was likely").next().unwrap_or_default();
    message.replace(
        " or disable the datafusion.sql_parser.enable_ident_normalization configuration",
        "",
    )
}

/// `text` is what messages name it by.
fn parse_sql(sql: &str, text: &str, all: &DFSchema, functions: &Functions) -> Result<Expr> {
    let wrong = |reason: String| refused(&format!("{text:?}"), &reason);
    check_text(sql).map_err(wrong)?;
    let options = ParserOptions {
        // A column is written as it is named: Parquet's names have upper and lower case.
        enable_ident_normalization: false,
        ..ParserOptions::default()
    };
    let parsed = DFParser::parse_sql_into_expr(sql).map_err(|error| {
        let reason = match error.find_root() {
            DataFusionError::SQL(parser, _) => match parser.as_ref() {
                ParserError::TokenizerError(reason) | ParserError::ParserError(reason) => reason.clone(),
                ParserError::RecursionLimitExceeded => "it has too many parentheses inside of one another".into(),
            },
            _ => sentence(error),
        };
        wrong(format!("is no SQL expression: {}", reason.replace('\n', " ")))
    })?;
    let parsed = balanced_sql(parsed.expr).map_err(wrong)?;
    let planner = SqlToRel::new_with_options(functions, options);
    let planned = planner.sql_to_expr(parsed, all, &mut PlannerContext::new());
    planned.map_err(|error| misfit(text, error))
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
