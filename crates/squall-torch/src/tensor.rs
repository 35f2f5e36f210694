//! One host tensor as a libtorch tensor.
//!
//! The only file of this crate with unsafe code: a copy into memory that libtorch allocated. tch's safe constructors fill
//! the memory with zeros first, on all OpenMP threads, which costs 6 ms for 4 MiB where a copy takes 0.1 ms.
#![allow(unsafe_code)]

use squall_schema::{DType, Error, Result, Tensor as HostTensor};
use tch::{Device, Kind, TchError, Tensor};

/// The tensor, on the CPU, in memory of libtorch's own.
///
/// libtorch has no unsigned integers wider than 8 bits: `uint16` becomes `Int`, `uint32` `Int64`; `uint64` is refused.
pub(crate) fn to_torch(host: &HostTensor) -> Result<Tensor> {
    match host.dtype() {
        DType::UInt16 => copy(&host.map(|x: u16| i32::from(x))?, Kind::Int),
        DType::UInt32 => copy(&host.map(|x: u32| i64::from(x))?, Kind::Int64),
        dtype => copy(host, kind(dtype)?),
    }
}

fn kind(dtype: DType) -> Result<Kind> {
    Ok(match dtype {
        DType::Bool => Kind::Bool,
        DType::Int8 => Kind::Int8,
        DType::Int16 => Kind::Int16,
        DType::Int32 => Kind::Int,
        DType::Int64 => Kind::Int64,
        DType::UInt8 => Kind::Uint8,
        DType::Float16 => Kind::Half,
        DType::Float32 => Kind::Float,
        DType::Float64 => Kind::Double,
        DType::Complex64 => Kind::ComplexFloat,
        DType::Complex128 => Kind::ComplexDouble,
        other => {
            return Err(Error::unsupported(format!(
                "libtorch has no tensors of {other}: give the field another dtype in a TransformSpec"
            )));
        }
    })
}

fn copy(host: &HostTensor, kind: Kind) -> Result<Tensor> {
    let shape = host.shape().iter().map(|dim| i64::try_from(*dim));
    let shape: Vec<i64> = shape
        .collect::<Result<_, _>>()
        .map_err(|_| Error::internal("a dimension of more than 2^63"))?;
    let tensor = Tensor::f_empty(&shape, (kind, Device::Cpu)).map_err(torch_error)?;
    let bytes = host.data().as_slice();
    if bytes.len() != tensor.numel() * kind.elt_size_in_bytes() {
        return Err(Error::internal(format!(
            "{host:?} does not fill a tensor of {kind:?} and shape {shape:?}"
        )));
    }
    // SAFETY: `copy_nonoverlapping` of bytes asks for
    // - a source that is valid for reads of `bytes.len()`: it is a slice;
    // - a destination that is valid for writes of so many: `f_empty` gave a new contiguous CPU tensor with room for
    //   `numel` elements, compared with `bytes.len()` above; no other tensor shares its storage yet;
    // - alignment: both are bytes;
    // - no overlap: libtorch allocated the destination just now.
    // Any bit pattern is a valid element of these kinds; a bool is 0 or 1, as `Tensor` of squall-schema holds it.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), tensor.data_ptr().cast::<u8>(), bytes.len());
    }
    Ok(tensor)
}

/// What libtorch said, without the C++ stack that it adds.
pub(crate) fn torch_error(error: TchError) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().to_owned();
    Error::new(squall_schema::ErrorKind::Engine, "libtorch failed").with_source(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: squall_schema::Element>(elements: Vec<T>, kind: Kind)
    where
        f64: From<T>,
    {
        let expected: Vec<f64> = elements.iter().map(|x| f64::from(*x)).collect();
        let host = HostTensor::from_vec(&[2, 3], elements).expect("six elements");
        let tensor = to_torch(&host).expect("a tensor");
        assert_eq!((tensor.size(), tensor.kind()), (vec![2, 3], kind));
        let found: Vec<f64> = (0..6).map(|i| tensor.double_value(&[i / 3, i % 3])).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn elements_arrive_as_they_are() {
        check(vec![0i8, -1, 2, 3, 127, -128], Kind::Int8);
        check(vec![0u8, 1, 2, 3, 4, 255], Kind::Uint8);
        check(vec![0u16, 1, 2, 3, 4, 65535], Kind::Int);
        check(vec![0u32, 1, 2, 3, 4, u32::MAX], Kind::Int64);
        check(vec![0i32, 1, 2, 3, 4, i32::MIN], Kind::Int);
        check(vec![0.5f32, -1.0, 2.0, 3.0, 4.0, 1e30], Kind::Float);
        check(vec![0.5f64, -1.0, 2.0, 3.0, 4.0, 1e300], Kind::Double);
        let bools = HostTensor::new(DType::Bool, vec![2], vec![1u8, 0].into()).expect("two elements");
        assert_eq!(to_torch(&bools).expect("a tensor").int64_value(&[0]), 1);
        let empty = HostTensor::from_vec::<f32>(&[0, 4], Vec::new()).expect("no elements");
        assert_eq!(to_torch(&empty).expect("a tensor").size(), [0, 4]);
    }

    #[test]
    fn what_libtorch_lacks_is_refused() {
        let host = HostTensor::from_vec(&[1], vec![1u64]).expect("an element");
        assert!(
            to_torch(&host)
                .expect_err("no uint64")
                .to_string()
                .contains("no tensors of uint64")
        );
    }
}
