//! Simplifies the comparisons of a clause, and leaves what connects them as it is.
//!
//! DataFusion's simplifier combines lists across `AND` and `OR`, and forgets about nulls while it does: it makes true of
//! `x NOT IN (1) OR x NOT IN (2)`, which is unknown where `x` is null. So it is given comparisons alone. `NOT` is moved inwards by
//! De Morgan's laws, which hold for unknown too.

use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::{BinaryExpr, Expr, Operator, not};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;

/// The clause with simplified comparisons, without `NOT` above `AND` and `OR`, and without constants below them.
pub(super) fn simplify(simplifier: &ExprSimplifier, expression: Expr) -> Result<Expr, DataFusionError> {
    visit(simplifier, expression, false)
}

fn visit(simplifier: &ExprSimplifier, expression: Expr, negated: bool) -> Result<Expr, DataFusionError> {
    match expression {
        Expr::Not(inner) => visit(simplifier, *inner, !negated),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::And | Operator::Or),
            right,
        }) => {
            let left = visit(simplifier, *left, negated)?;
            let right = visit(simplifier, *right, negated)?;
            Ok(connect(left, (op == Operator::And) != negated, right))
        }
        leaf if negated => simplifier.simplify(not(leaf)),
        leaf => simplifier.simplify(leaf),
    }
}

/// Both, or one of them.
fn connect(left: Expr, both: bool, right: Expr) -> Expr {
    match (truth(&left), truth(&right)) {
        // What decides alone, whatever the other is; and what decides nothing.
        (Some(known), _) if known != both => left,
        (_, Some(known)) if known != both => right,
        (Some(_), _) => right,
        (_, Some(_)) => left,
        (None, None) => {
            let op = if both { Operator::And } else { Operator::Or };
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
    }
}

fn truth(expression: &Expr) -> Option<bool> {
    match expression {
        Expr::Literal(ScalarValue::Boolean(known), _) => *known,
        _ => None,
    }
}
