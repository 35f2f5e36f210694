//! A dense n-dimensional array in C order.

use std::fmt;

use arrow_buffer::{ArrowNativeType, Buffer};
use half::f16;

use crate::{DType, Error, Result};

/// A Rust type that is the element of a tensor.
pub trait Element: ArrowNativeType {
    /// Its dtype.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($native:ty => $dtype:ident),*) => {
        $(impl Element for $native { const DTYPE: DType = DType::$dtype; })*
    };
}
elements!(i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64, u8 => UInt8, u16 => UInt16, u32 => UInt32,
    u64 => UInt64, f16 => Float16, f32 => Float32, f64 => Float64);

/// A dense array of one dtype: shape and a contiguous buffer in C order, little-endian, one byte for a bool.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Buffer,
}

impl Tensor {
    /// A tensor over bytes that are there already. Their number must be that of the shape.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Buffer) -> Result<Self> {
        let item = dtype
            .item_size()
            .ok_or_else(|| Error::unsupported(format!("a tensor cannot hold elements of dtype {dtype}")))?;
        let bytes = shape.iter().try_fold(item, |product, dim| product.checked_mul(*dim));
        if bytes != Some(data.len()) {
            return Err(Error::invalid(format!(
                "a tensor of dtype {dtype} and shape {shape:?} does not have {} bytes",
                data.len()
            )));
        }
        Ok(Self { dtype, shape, data })
    }

    /// A tensor of these elements, in C order.
    pub fn from_vec<T: Element>(shape: &[usize], elements: Vec<T>) -> Result<Self> {
        Self::new(T::DTYPE, shape.to_vec(), Buffer::from_vec(elements))
    }

    /// The dtype of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes, in C order.
    pub fn data(&self) -> &Buffer {
        &self.data
    }

    /// The same elements in other dimensions.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Self::new(self.dtype, shape.to_vec(), self.data.clone())
    }

    /// The elements, in C order. The dtype must be that of `T`.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if self.dtype != T::DTYPE {
            return Err(Error::invalid(format!(
                "the tensor's dtype is {}, not {}",
                self.dtype,
                T::DTYPE
            )));
        }
        if !self.data.as_ptr().cast::<T>().is_aligned() {
            return Err(Error::internal(format!(
                "a tensor of {} lies unaligned in memory",
                self.dtype
            )));
        }
        Ok(self.data.typed_data())
    }

    /// A tensor of the same shape with `f` of each element.
    ///
    /// ```
    /// # fn main() -> squall_schema::Result<()> {
    /// let pixels = squall_schema::Tensor::from_vec(&[2, 2], vec![0i8, 4, 8, 16])?;
    /// let scaled = pixels.map(|p: i8| f32::from(p) / 16.0)?;
    /// assert_eq!(scaled.as_slice::<f32>()?, [0.0, 0.25, 0.5, 1.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<T: Element, U: Element>(&self, f: impl Fn(T) -> U) -> Result<Self> {
        let elements = self.as_slice::<T>()?.iter().map(|x| f(*x));
        Self::from_vec(&self.shape, elements.collect())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}{:?}, {} bytes)", self.dtype, self.shape, self.data.len())
    }
}
