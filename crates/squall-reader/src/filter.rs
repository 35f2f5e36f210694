//! A where-clause, as the rows for which it is true.
//!
//! The number of selected rows is not in any footer, and equal steps need it. So the columns of the clause are read once,
//! row groups side by side, before anything else; what is kept is a bitmap per row group. A clause over partition columns
//! alone reads nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, DataFusionError, TableReference, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::registry::{FunctionRegistry, MemoryFunctionRegistry};
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF};
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::DFParser;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use squall_dataset::Dataset;
use squall_schema::arrow::schema_to_arrow;
use squall_schema::{Error, Result, Schema};

use crate::columns::Columns;
use crate::scan::Scan;
use crate::select::SelectedPiece;

/// Those of the rows of `pieces` for which `sql` is true. It may name the columns of `schema`, the dataset's as a whole or with its
/// structs taken apart.
pub(crate) fn select(
    scan: &Scan,
    pieces: Vec<SelectedPiece>,
    schema: &Schema,
    sql: &str,
) -> Result<Vec<SelectedPiece>> {
    // What is encoded in cells is binary to a where-clause.
    let predicate = Arc::new(Predicate::parse(sql, &schema.stored(), &scan.dataset)?);
    if predicate.columns.in_directories_only() {
        let mut kept = Vec::new();
        for piece in pieces {
            let holds = predicate.evaluate(&scan.directory_row(piece.piece, &predicate.columns)?)?;
            if holds.value(0) && holds.is_valid(0) {
                kept.push(piece);
            }
        }
        return Ok(kept);
    }
    let columns = predicate.columns.clone();
    let start = |piece: &SelectedPiece| BooleanBufferBuilder::new(piece.rows.len() as usize);
    let step = move |bits: &mut BooleanBufferBuilder, batch: RecordBatch| {
        let holds = predicate.evaluate(&batch)?;
        match holds.nulls() {
            // Unknown is not true.
            Some(known) => bits.append_buffer(&(holds.values() & known.inner())),
            None => bits.append_buffer(holds.values()),
        }
        Ok(())
    };
    let bits = scan.fold(&pieces, &columns, start, step)?;
    let narrowed = pieces.iter().zip(bits).map(|(piece, mut bits)| SelectedPiece {
        piece: piece.piece,
        rows: piece.rows.narrow(&bits.finish()),
    });
    Ok(narrowed.collect())
}

/// A where-clause, ready to be evaluated.
struct Predicate {
    sql: String,
    /// The columns that it names.
    columns: Arc<Columns>,
    expression: Arc<dyn PhysicalExpr>,
}

impl Predicate {
    fn parse(sql: &str, schema: &Schema, dataset: &Dataset) -> Result<Self> {
        let wrong = |error: DataFusionError| {
            // One sentence: DataFusion lists the valid fields on a line of their own, prints the syntax tree of what it does
            // not support, and asks for bug reports.
            let message = error.strip_backtrace().replace('\n', " ");
            let message = message.split(" {").next().unwrap_or_default();
            let message = message.split(" This issue was likely").next().unwrap_or_default();
            Error::invalid(format!("the where-clause {sql:?} does not fit the columns: {message}"))
        };
        let all = DFSchema::try_from(schema_to_arrow(schema)?.as_ref().clone()).map_err(wrong)?;
        let functions = Functions::new().map_err(wrong)?;
        let options = ParserOptions {
            // A column is written as it is named: Parquet's names have upper and lower case.
            enable_ident_normalization: false,
            ..ParserOptions::default()
        };
        let parsed = DFParser::parse_sql_into_expr(sql).map_err(wrong)?;
        let planner = SqlToRel::new_with_options(&functions, options);
        let logical = planner
            .sql_to_expr(parsed.expr, &all, &mut PlannerContext::new())
            .map_err(wrong)?;
        refuse_changing(&logical, sql)?;

        let named = logical.column_refs();
        let columns: Vec<_> = schema
            .names()
            .filter(|name| named.iter().any(|column| column.name == *name))
            .collect();
        let schema = schema.project(&columns)?;
        let own = DFSchema::try_from(schema_to_arrow(&schema)?.as_ref().clone()).map_err(wrong)?;
        let context = SimplifyContext::builder().with_schema(Arc::new(own.clone())).build();
        let simplifier = ExprSimplifier::new(context);
        let coerced = simplifier.coerce(logical, &own).map_err(wrong)?;
        // Casts go from the column to the constant that it is compared with: times in microseconds need not fit nanoseconds.
        let simplified = simplifier.simplify(coerced).map_err(wrong)?;
        let physical = create_physical_expr(
            &simplified,
            &own,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        );
        let expression = physical.map_err(wrong)?;
        let found = expression.data_type(own.as_arrow()).map_err(wrong)?;
        if found != DataType::Boolean {
            return Err(Error::invalid(format!(
                "the where-clause {sql:?} is not true or false, but a {found}"
            )));
        }
        Ok(Self {
            sql: sql.to_owned(),
            columns: Arc::new(Columns::new(dataset, schema)?),
            expression,
        })
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let failed = |error: DataFusionError| {
            Error::invalid(format!("cannot evaluate the where-clause {:?}", self.sql))
                .with_source(error.strip_backtrace())
        };
        let value = self.expression.evaluate(batch).map_err(failed)?;
        let array = value.into_array(batch.num_rows()).map_err(failed)?;
        let holds = array.as_boolean_opt().cloned();
        holds.ok_or_else(|| Error::internal(format!("a where-clause gave a {}", array.data_type())))
    }
}

/// The order is a function of its inputs: a clause that gives other rows tomorrow is none.
fn refuse_changing(expression: &Expr, sql: &str) -> Result<()> {
    use datafusion_common::tree_node::TreeNode;
    let changing = |expression: &Expr| {
        Ok(
            matches!(expression, Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable),
        )
    };
    match expression.exists(changing) {
        Ok(false) => Ok(()),
        _ => Err(Error::invalid(format!(
            "the where-clause {sql:?} calls a function whose result changes from call to call"
        ))),
    }
}

/// DataFusion's functions, for the planner of expressions. There are no tables: subqueries are refused.
struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Functions {
    fn new() -> Result<Self, DataFusionError> {
        let mut registry = MemoryFunctionRegistry::new();
        datafusion_functions::register_all(&mut registry)?;
        let names = registry.udfs();
        let scalar = names.into_iter().map(|name| Ok((name.clone(), registry.udf(&name)?)));
        Ok(Self {
            scalar: scalar.collect::<Result<_, DataFusionError>>()?,
            planners: vec![
                Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
                Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
                Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            ],
            options: ConfigOptions::default(),
        })
    }
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>, DataFusionError> {
        plan_err!("a where-clause has no tables, found {name}")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(&name.to_lowercase()).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
