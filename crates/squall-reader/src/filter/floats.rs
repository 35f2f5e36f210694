//! Floats as clauses see them: one NaN, greater than all numbers, and one zero.
//!
//! Arrow orders floats by their bits, where half of the NaNs are less than all numbers and -0 is less than 0; Spark and SQL know no
//! such difference, and neither do statistics. The sign of a NaN that arithmetic makes is another on each kind of CPU. So
//! constants and columns are brought to one form, and in expressions each result of arithmetic, a function or a cast.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType};
use arrow_schema::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DataFusionError, ScalarValue};
use datafusion_expr::expr::Cast;
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// The column with one NaN and one zero.
pub(super) fn canonical(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float16 => unary::<Float16Type>(column, |value| match value.is_nan() {
            true => Half::NAN,
            false => value + Half::ZERO,
        }),
        DataType::Float32 => unary::<Float32Type>(column, |value| if value.is_nan() { f32::NAN } else { value + 0.0 }),
        DataType::Float64 => unary::<Float64Type>(column, |value| if value.is_nan() { f64::NAN } else { value + 0.0 }),
        _ => column.clone(),
    }
}

fn unary<T: ArrowPrimitiveType>(column: &ArrayRef, own: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    Arc::new(column.as_primitive::<T>().unary::<_, T>(own))
}

/// The constant with one NaN and one zero.
fn canonical_scalar(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float16(Some(value)) if value.is_nan() => ScalarValue::Float16(Some(Half::NAN)),
        ScalarValue::Float32(Some(value)) if value.is_nan() => ScalarValue::Float32(Some(f32::NAN)),
        ScalarValue::Float64(Some(value)) if value.is_nan() => ScalarValue::Float64(Some(f64::NAN)),
        ScalarValue::Float16(Some(value)) => ScalarValue::Float16(Some(value + Half::ZERO)),
        ScalarValue::Float32(Some(value)) => ScalarValue::Float32(Some(value + 0.0)),
        ScalarValue::Float64(Some(value)) => ScalarValue::Float64(Some(value + 0.0)),
        other => other,
    }
}

/// A constant as the columns have it.
pub(super) fn canonical_literal(node: Expr) -> Result<Transformed<Expr>, DataFusionError> {
    Ok(match node {
        Expr::Literal(value, metadata) => Transformed::yes(Expr::Literal(canonical_scalar(value), metadata)),
        other => Transformed::no(other),
    })
}

/// The expression with each float in it brought to one form, before anything looks at it.
pub(super) fn canonical_results(expression: Expr, frame: &DFSchema) -> Result<Expr, DataFusionError> {
    let canonical = Arc::new(ScalarUDF::from(Canonical {
        signature: Signature::any(1, Volatility::Immutable),
    }));
    let own = |node: Expr| {
        if matches!(node, Expr::Literal(..)) {
            return canonical_literal(node);
        }
        let may_differ = match &node {
            Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::ScalarFunction(_) | Expr::TryCast(_) => true,
            // A wider float has the same NaN and zero, and a whole number gives neither. Pruning knows how to look through these.
            Expr::Cast(Cast { expr, field }) => {
                let from = expr.get_type(frame)?;
                let is_widened = is_float(&from) && from.primitive_width() <= field.data_type().primitive_width();
                !from.is_integer() && !is_widened
            }
            _ => false,
        };
        Ok(match may_differ && is_float(&node.get_type(frame)?) {
            true => Transformed::yes(canonical.call(vec![node])),
            false => Transformed::no(node),
        })
    };
    Ok(expression.transform_up(own)?.data)
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// [`canonical`] as a function of DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        "canonical_float"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        let [data_type] = types else {
            return Err(DataFusionError::Internal("a float has one type".into()));
        };
        Ok(data_type.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        match args.args.into_iter().next() {
            Some(ColumnarValue::Array(column)) => Ok(ColumnarValue::Array(canonical(&column))),
            Some(ColumnarValue::Scalar(value)) => Ok(ColumnarValue::Scalar(canonical_scalar(value))),
            None => Err(DataFusionError::Internal("a float is missing".into())),
        }
    }
}
