//! A named column of tensors or scalars.

use std::fmt;

use arrow_schema::DataType;
use serde::{Deserialize, Serialize};

use crate::DType;
use crate::codec::Codec;

/// The dimensions of one value. Empty for a scalar; `None` is a dimension that differs from row to row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(pub Vec<Option<usize>>);

impl Shape {
    /// The shape of a scalar.
    pub fn scalar() -> Self {
        Self(Vec::new())
    }

    /// A shape without a free dimension.
    pub fn fixed(dims: &[usize]) -> Self {
        Self(dims.iter().copied().map(Some).collect())
    }

    /// Whether this is the shape of a scalar.
    pub fn is_scalar(&self) -> bool {
        self.0.is_empty()
    }

    /// The dimensions, if none is free.
    pub fn as_fixed(&self) -> Option<Vec<usize>> {
        self.0.iter().copied().collect()
    }

    /// Elements in one value, if no dimension is free and the product fits.
    pub fn element_count(&self) -> Option<usize> {
        self.0
            .iter()
            .try_fold(1usize, |product, dim| product.checked_mul((*dim)?))
    }

    /// Whether a value of these dimensions has this shape.
    pub fn accepts(&self, dims: &[usize]) -> bool {
        let fits = |(own, found): (&Option<usize>, &usize)| own.is_none_or(|own| own == *found);
        self.0.len() == dims.len() && self.0.iter().zip(dims).all(fits)
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Self::fixed(&dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            let lead = if i == 0 { "" } else { ", " };
            match dim {
                Some(dim) => write!(f, "{lead}{dim}")?,
                None => write!(f, "{lead}?")?,
            }
        }
        f.write_str("]")
    }
}

/// One column: a name, the dtype of its elements, the shape of one value, and whether a value may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The column's name.
    pub name: String,
    /// The type of one element.
    pub dtype: DType,
    /// The dimensions of one value.
    #[serde(default)]
    pub shape: Shape,
    /// Whether a value may be null.
    #[serde(default)]
    pub nullable: bool,
    /// How a value is encoded where it is stored as a binary cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
    /// The Arrow type of what is stored, where the dtype does not tell it: of nested values.
    #[serde(skip)]
    pub arrow: Option<DataType>,
}

impl Field {
    /// A field without nulls.
    pub fn new(name: impl Into<String>, dtype: DType, shape: Shape) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape,
            nullable: false,
            codec: None,
            arrow: None,
        }
    }

    /// The field as it is stored: a binary cell where it has a codec.
    pub fn stored(&self) -> Self {
        match self.codec {
            Some(Codec::SparkVector) => Self {
                arrow: self.arrow.clone(),
                ..Self::scalar(&self.name, DType::Nested).with_nullable(self.nullable)
            },
            Some(_) => Self::scalar(&self.name, DType::Bytes).with_nullable(self.nullable),
            None => self.clone(),
        }
    }

    /// How a value is encoded in a binary cell.
    #[must_use]
    pub fn with_codec(mut self, codec: Option<Codec>) -> Self {
        self.codec = codec;
        self
    }

    /// A scalar field without nulls.
    pub fn scalar(name: impl Into<String>, dtype: DType) -> Self {
        Self::new(name, dtype, Shape::scalar())
    }

    /// Whether a value may be null.
    #[must_use]
    pub fn with_nullable(mut self, nullable: bool) -> Self {
        self.nullable = nullable;
        self
    }
}

/// The Rust type of a field's elements, for the macro [`field!`](crate::field).
pub trait FieldType {
    /// Its dtype.
    const DTYPE: DType;
}

impl<T: crate::Element> FieldType for T {
    const DTYPE: DType = T::DTYPE;
}

impl FieldType for bool {
    const DTYPE: DType = DType::Bool;
}

impl FieldType for String {
    const DTYPE: DType = DType::Str;
}

/// A [`Field`] in the form that Rust writes fields: a name, the type of its elements and a fixed shape.
///
/// ```
/// use squall_schema::{DType, Field, Shape, field};
///
/// assert_eq!(field!("image": f32[28, 28]), Field::new("image", DType::Float32, Shape::fixed(&[28, 28])));
/// assert_eq!(field!("digit": i64), Field::scalar("digit", DType::Int64));
/// ```
#[macro_export]
macro_rules! field {
    ($name:literal : $element:ident $([$($dim:expr),+ $(,)?])?) => {
        $crate::Field::new(
            $name,
            <$element as $crate::FieldType>::DTYPE,
            $crate::Shape::fixed(&[$($($dim),+)?]),
        )
    };
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.dtype)?;
        if !self.shape.is_scalar() {
            write!(f, "{}", self.shape)?;
        }
        if let (DType::Nested, Some(arrow)) = (self.dtype, &self.arrow) {
            write!(f, " ({arrow})")?;
        }
        if let Some(codec) = &self.codec {
            write!(f, " as {codec}")?;
        }
        f.write_str(if self.nullable { " nullable" } else { "" })
    }
}
