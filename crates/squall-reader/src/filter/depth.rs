//! How large and how deep a clause may be.
//!
//! In: an expression, as it was parsed or given. Out: the same, with chains of `AND` and `OR` as balanced trees: programs write
//! them with thousands of terms, and all that works on expressions, from planning to dropping, goes one call deeper for each
//! level. What is too large or still too deep is refused. Planning needs more of the stack a level than evaluation does, and
//! runs on a thread of its own.

use std::ops::ControlFlow;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::{BinaryExpr, Expr, Operator, binary_expr, lit};
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr, Value, VisitMut, VisitorMut};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::tokenizer::{Token, Tokenizer};
use squall_schema::{Error, Result};

/// Levels of an expression whose chains are balanced. An evaluation of so many fits the stack of any thread.
const MOST_LEVELS: usize = 100;

/// Levels of a syntax tree, where parentheses are some too.
const MOST_SQL_LEVELS: usize = 4 * MOST_LEVELS;

/// Nodes of an expression beside its constants, and words and signs of a text beside its constants and commas. A term such as
/// `a <> 5 AND` has three.
const MOST_NODES: usize = 40_000;

/// Stack of the thread that plans. A parser may leave as many levels as a text has words, which have to be dropped; of a stack
/// only what is used takes memory.
const STACK_BYTES: usize = 128 << 20;

/// Runs something that goes deep. A panic in it goes on in the caller.
pub(super) fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("squall-clause".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work);
        let thread =
            thread.map_err(|error| Error::internal("cannot start the thread that plans clauses").with_source(error))?;
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn too_large() -> String {
    format!(
        "has more than {MOST_NODES} columns, operators and functions: ask for many values of a column with IN (...), whose \
         constants do not count"
    )
}

fn too_deep() -> String {
    format!(
        "is nested more than {MOST_LEVELS} levels deep, where a chain of AND or OR counts as few: ask for many values of a \
         column with IN (...)"
    )
}

/// Refuses a text of which a tree of too many levels may come. A text that has no tokens is left to the parser, which says why.
pub(super) fn check_text(sql: &str) -> Result<(), String> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else {
        return Ok(());
    };
    let mut n_words = 0;
    let mut is_behind_comma = false;
    for token in tokens {
        match token {
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) => {}
            Token::Comma => is_behind_comma = true,
            // The word of a constant in a list, such as `date '2020-01-01'`, or its sign.
            _ if std::mem::take(&mut is_behind_comma) => {}
            _ => n_words += 1,
        }
    }
    match n_words > MOST_NODES {
        true => Err(too_large()),
        false => Ok(()),
    }
}

/// A parsed text with its chains balanced.
pub(super) fn balanced_sql(mut parsed: SqlExpr) -> Result<SqlExpr, String> {
    match parsed.visit(&mut SqlBounds { level: 0 }) {
        ControlFlow::Continue(()) => Ok(parsed),
        ControlFlow::Break(()) => Err(too_deep()),
    }
}

/// Balances the chains of a syntax tree on the way down, and goes no deeper than planning may.
struct SqlBounds {
    level: usize,
}

impl VisitorMut for SqlBounds {
    type Break = ();

    fn pre_visit_expr(&mut self, node: &mut SqlExpr) -> ControlFlow<()> {
        self.level += 1;
        if self.level > MOST_SQL_LEVELS {
            return ControlFlow::Break(());
        }
        if let SqlExpr::BinaryOp {
            op: op @ (BinaryOperator::And | BinaryOperator::Or),
            ..
        } = node
        {
            let op = op.clone();
            let chain = std::mem::replace(node, SqlExpr::value(Value::Null));
            let operands = flat(chain, |node| match node {
                SqlExpr::BinaryOp { left, op: own, right } if own == op => Taken::Apart(*left, *right),
                other => Taken::Operand(other),
            });
            let join = |left, right| SqlExpr::BinaryOp {
                left: Box::new(left),
                op: op.clone(),
                right: Box::new(right),
            };
            if let Some(balanced) = joined(operands, join) {
                *node = balanced;
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _node: &mut SqlExpr) -> ControlFlow<()> {
        self.level -= 1;
        ControlFlow::Continue(())
    }
}

/// An expression with its chains balanced.
pub(super) fn balanced(expression: Expr) -> Result<Expr, String> {
    let mut bounds = Bounds::default();
    let bounded = bounds.bounded(expression, 0);
    match bounds.refused {
        Some(reason) => Err(reason),
        None => Ok(bounded),
    }
}

/// All of these, as a balanced tree; true if there are none.
pub(super) fn conjunction(parts: Vec<Expr>) -> Expr {
    joined(parts, Expr::and).unwrap_or_else(|| lit(true))
}

#[derive(Default)]
struct Bounds {
    n_nodes: usize,
    refused: Option<String>,
}

impl Bounds {
    fn bounded(&mut self, node: Expr, level: usize) -> Expr {
        self.n_nodes += usize::from(!matches!(node, Expr::Literal(..)));
        if level > MOST_LEVELS || self.n_nodes > MOST_NODES {
            let reason = if level > MOST_LEVELS { too_deep } else { too_large };
            self.refused.get_or_insert_with(reason);
            dismantle(node);
            return lit(true);
        }
        if let Expr::BinaryExpr(BinaryExpr {
            op: op @ (Operator::And | Operator::Or),
            ..
        }) = node
        {
            let operands = flat(node, |node| match node {
                Expr::BinaryExpr(BinaryExpr { left, op: own, right }) if own == op => Taken::Apart(*left, *right),
                other => Taken::Operand(other),
            });
            let level = level + levels(operands.len());
            let bounded = operands.into_iter().map(|operand| self.bounded(operand, level));
            let join = |left, right| binary_expr(left, op, right);
            return joined(bounded.collect(), join).unwrap_or_else(|| lit(true));
        }
        let bounded = node.map_children(|child| Ok(Transformed::yes(self.bounded(child, level + 1))));
        match bounded {
            Ok(bounded) => bounded.data,
            Err(error) => {
                self.refused.get_or_insert_with(|| error.strip_backtrace());
                lit(true)
            }
        }
    }
}

/// Drops an expression of any depth.
fn dismantle(expression: Expr) {
    let mut left = vec![expression];
    while let Some(node) = left.pop() {
        let emptied = node.map_children(|child| {
            left.push(child);
            Ok(Transformed::yes(lit(true)))
        });
        drop(emptied);
    }
}

/// A node of a chain.
enum Taken<T> {
    Apart(T, T),
    Operand(T),
}

/// The operands of a chain, in order, which `split` takes one operation apart.
fn flat<T>(chain: T, split: impl Fn(T) -> Taken<T>) -> Vec<T> {
    let (mut left, mut operands) = (vec![chain], Vec::new());
    while let Some(node) = left.pop() {
        match split(node) {
            Taken::Apart(first, second) => left.extend([second, first]),
            Taken::Operand(operand) => operands.push(operand),
        }
    }
    operands
}

/// Levels of a balanced tree of so many operands.
fn levels(n_operands: usize) -> usize {
    n_operands.next_power_of_two().ilog2() as usize
}

/// A balanced tree of these, in order.
fn joined<T>(mut operands: Vec<T>, join: impl Fn(T, T) -> T) -> Option<T> {
    while operands.len() > 1 {
        let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
        let mut rest = operands.into_iter();
        while let Some(first) = rest.next() {
            pairs.push(match rest.next() {
                Some(second) => join(first, second),
                None => first,
            });
        }
        operands = pairs;
    }
    operands.pop()
}
