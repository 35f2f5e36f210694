//! A clause taken apart: what must hold all at once, each part with what can be told of it without its columns.
//!
//! In: a [`Clause`], and the values that directory names give to its columns. Out: [`Conjuncts`], whose parts are ordered,
//! pruned with and evaluated one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::expr::InList;
use datafusion_expr::utils::split_conjunction_owned;
use datafusion_expr::{BinaryExpr, Expr, Like, Operator, lit, not};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_pruning::{PruningPredicate, PruningPredicateBuilder};
use squall_schema::arrow::schema_to_arrow;
use squall_schema::{Error, Result, Schema};

use super::evaluate::truth;
use super::parse::Clause;

/// Values of an `IN` list up to which least and greatest values are compared with each. Longer ones are left to the bloom filters.
const MAX_IN_LIST: usize = 64;

/// What a clause comes to where some columns are known.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// True for each row, or for none.
    Decided(bool),
    /// These must hold.
    Open(Arc<Conjuncts>),
}

/// Expressions that must all be true.
#[derive(Debug)]
pub(super) struct Conjuncts {
    /// As they were written.
    pub(super) parts: Vec<Conjunct>,
    /// The columns that some part holds below a number: their rows have no NaN, which is greater than all numbers.
    pub(super) bounded: BTreeSet<String>,
}

/// One of the expressions that must be true.
#[derive(Debug)]
pub(super) struct Conjunct {
    /// The columns that it names.
    pub(super) schema: Schema,
    pub(super) arrow: SchemaRef,
    pub(super) expression: Arc<dyn PhysicalExpr>,
    /// Whether it may be an error for some values: it may not be asked about rows that a part before it rules out.
    pub(super) may_fail: bool,
    /// Tells of least and greatest values, null counts and sets that no row can be true.
    pub(super) prune: Option<PruningPredicate>,
    /// Tells so of its opposite.
    pub(super) opposite: Option<Opposite>,
}

/// Something that is true where a conjunct is false, and neither true nor unknown where these columns have no nulls.
#[derive(Debug)]
pub(super) struct Opposite {
    pub(super) prune: PruningPredicate,
    pub(super) values: BTreeSet<String>,
}

impl Clause {
    /// The clause where these columns have these values.
    pub(super) fn with(&self, values: &[(String, ScalarValue)]) -> Result<Expr> {
        if values.is_empty() {
            return Ok(self.expression.clone());
        }
        let known = |node: Expr| {
            let value = match &node {
                Expr::Column(column) => values.iter().find(|(name, _)| *name == column.name),
                _ => None,
            };
            Ok(match value {
                Some((_, value)) => Transformed::yes(lit(value.clone())),
                None => Transformed::no(node),
            })
        };
        let expression = self.expression.clone().transform(known);
        self.simplify(expression.map_err(|error| self.failed(error))?.data)
    }

    /// What must hold for this part of the clause to be true.
    pub(super) fn conjuncts(&self, expression: Expr) -> Result<Known> {
        let mut parts = Vec::new();
        let mut bounded = BTreeSet::new();
        for part in split_conjunction_owned(expression) {
            if let Expr::Literal(value, _) = &part {
                match value {
                    ScalarValue::Boolean(Some(true)) => continue,
                    // Unknown is not true.
                    _ => return Ok(Known::Decided(false)),
                }
            }
            bounded.extend(bounded_column(&part));
            let part = Conjunct::new(self, part)?;
            if part.schema.fields().is_empty() {
                match part.holds_without_columns(self)? {
                    true => continue,
                    false => return Ok(Known::Decided(false)),
                }
            }
            parts.push(part);
        }
        Ok(match parts.is_empty() {
            true => Known::Decided(true),
            false => Known::Open(Arc::new(Conjuncts { parts, bounded })),
        })
    }
}

impl Conjunct {
    fn new(clause: &Clause, part: Expr) -> Result<Self> {
        let named = part.column_refs();
        let names: Vec<_> = clause
            .schema
            .names()
            .filter(|name| named.iter().any(|column| column.name == *name))
            .collect();
        let schema = clause.schema.project(&names)?;
        let arrow = schema_to_arrow(&schema)?;
        let predicate = |weak: &Expr| {
            let physical = clause.physical(weak, &schema)?;
            let builder = PruningPredicateBuilder::new().with_max_in_list_size(MAX_IN_LIST);
            let predicate = builder.with_file_schema(arrow.clone()).try_build(physical);
            // What DataFusion cannot prune with is evaluated.
            Ok::<_, Error>(predicate.ok().filter(|predicate| !predicate.always_true()))
        };
        let weak = clause.simplify(weakened(part.clone()))?;
        let against = clause.simplify(weakened(clause.simplify(not(part.clone()))?))?;
        let opposite = predicate(&against)?.map(|prune| {
            let values = value_columns(&against);
            values.map(|values| Opposite { prune, values })
        });
        Ok(Self {
            prune: predicate(&weak)?,
            opposite: opposite.transpose().map_err(|error| clause.failed(error))?,
            may_fail: !is_plain(&part),
            expression: clause.physical(&part, &schema)?,
            schema,
            arrow,
        })
    }

    fn holds_without_columns(&self, clause: &Clause) -> Result<bool> {
        let one = arrow_array::RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(self.arrow.clone(), Vec::new(), &one);
        let row = row.map_err(|error| Error::internal("a row without columns").with_source(error))?;
        Ok(truth(&self.expression, &row, clause)?.value(0))
    }
}

/// The expression with what pruning is not trusted with taken as true: anything but comparisons of a bare column with
/// constants. Casts and arithmetic have borders (overflow, rounding) where bounds of the column are none of the result.
/// `NOT` stands before columns only in what is simplified.
fn weakened(expression: Expr) -> Expr {
    match expression {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::And | Operator::Or),
            right,
        }) => Expr::BinaryExpr(BinaryExpr {
            left: Box::new(weakened(*left)),
            op,
            right: Box::new(weakened(*right)),
        }),
        plain if is_plain(&plain) => plain,
        _ => lit(true),
    }
}

/// Whether it is true, false or unknown for any value of its columns, never an error, and a comparison of bare columns with
/// constants that are not null, or made of such by `AND` and `OR`.
fn is_plain(expression: &Expr) -> bool {
    let column = |side: &Expr| matches!(side, Expr::Column(_));
    let constant = |side: &Expr| matches!(side, Expr::Literal(value, _) if !value.is_null());
    match expression {
        Expr::Column(_) => true,
        Expr::Literal(value, _) => !value.is_null(),
        Expr::Not(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) => column(inner),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And | Operator::Or => is_plain(left) && is_plain(right),
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                (column(left) && constant(right)) || (constant(left) && column(right))
            }
            _ => false,
        },
        Expr::InList(InList { expr, list, .. }) => column(expr) && list.iter().all(constant),
        Expr::Like(Like {
            expr,
            pattern,
            escape_char: None,
            case_insensitive: false,
            ..
        }) => column(expr) && matches!(pattern.as_ref(), Expr::Literal(ScalarValue::Utf8(Some(_)), _)),
        _ => false,
    }
}

/// The columns whose values, not only their being null, an expression made of plain ones looks at.
fn value_columns(expression: &Expr) -> Result<BTreeSet<String>, DataFusionError> {
    let mut names = BTreeSet::new();
    expression.apply(|node| {
        Ok(match node {
            Expr::IsNull(_) | Expr::IsNotNull(_) => TreeNodeRecursion::Jump,
            Expr::Column(column) => {
                names.insert(column.name.clone());
                TreeNodeRecursion::Continue
            }
            _ => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(names)
}

/// The column that is below a number where this is true.
fn bounded_column(part: &Expr) -> Option<String> {
    let number = |side: &Expr| match side {
        Expr::Literal(ScalarValue::Float32(Some(value)), _) => !value.is_nan(),
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => !value.is_nan(),
        _ => false,
    };
    let column = |side: &Expr| side.try_as_col().map(|column| column.name.clone());
    match part {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Eq if number(right) => column(left),
            Operator::Eq if number(left) => column(right),
            Operator::Lt | Operator::LtEq if number(right) => column(left),
            Operator::Gt | Operator::GtEq if number(left) => column(right),
            // `x = 1 OR x = 2`, as DataFusion writes a short list.
            Operator::Or => bounded_column(left).filter(|name| bounded_column(right).as_ref() == Some(name)),
            // Of a part of an OR.
            Operator::And => bounded_column(left).or_else(|| bounded_column(right)),
            _ => None,
        },
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) if list.iter().all(number) => column(expr),
        _ => None,
    }
}
