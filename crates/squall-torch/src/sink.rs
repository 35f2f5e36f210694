//! Batches of tensors.

use std::ops::Index;

use arrow_array::ArrayRef;
use arrow_buffer::NullBuffer;
use indexmap::IndexMap;
use squall_loader::{Host, HostBatch, HostColumn, LoaderBuilder, Sink};
use squall_schema::{Error, Result, RowId, Tensor as HostTensor};
use tch::{Device, Tensor};

use crate::tensor::{to_torch, torch_error};

/// A batch on a device.
#[derive(Debug)]
pub struct TensorBatch {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The step in the epoch.
    pub step: u64,
    /// Which sample each row is.
    pub ids: Vec<RowId>,
    /// Dense fields, `[rows, …shape]`; of ragged ones the elements of all rows, end to end.
    pub tensors: IndexMap<String, Tensor>,
    /// For fields with nulls in this batch, a `Bool` tensor that is true where the row has a value.
    pub masks: IndexMap<String, Tensor>,
    /// For ragged fields, an `Int64` tensor: row `i` has the elements `offsets[i]..offsets[i + 1]`.
    pub offsets: IndexMap<String, Tensor>,
    /// Fields that no tensor holds, on the host.
    pub arrays: IndexMap<String, ArrayRef>,
}

impl TensorBatch {
    /// Rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Panics when there is no such tensor, as indexing does everywhere.
impl Index<&str> for TensorBatch {
    type Output = Tensor;

    fn index(&self, name: &str) -> &Tensor {
        match self.tensors.get(name) {
            Some(tensor) => tensor,
            None => {
                let known: Vec<_> = self.tensors.keys().map(String::as_str).collect();
                panic!("no tensor {name:?} in the batch: it has {}", known.join(", "));
            }
        }
    }
}

/// Makes tensors of batches and puts them on a device.
#[derive(Debug, Clone, Copy)]
pub struct TorchSink {
    device: Device,
}

impl TorchSink {
    /// A sink for this device. One that is not there is an error at once, not at the first batch.
    pub fn new(device: Device) -> Result<Self> {
        if let Device::Cuda(index) = device {
            let found = if tch::Cuda::is_available() {
                tch::Cuda::device_count()
            } else {
                0
            };
            if index as i64 >= found {
                return Err(Error::invalid(format!(
                    "no device cuda:{index}: libtorch finds {found} CUDA devices"
                )));
            }
        }
        Ok(Self { device })
    }

    fn put(&self, host: &HostTensor) -> Result<Tensor> {
        let tensor = to_torch(host)?;
        if self.device == Device::Cpu {
            return Ok(tensor);
        }
        // From pinned memory the device copies on its own. libtorch's allocator keeps the block until that is done.
        let pinned = tensor.f_pin_memory(self.device).map_err(torch_error)?;
        let (non_blocking, copy) = (true, false);
        pinned
            .f_to_device_(self.device, pinned.kind(), non_blocking, copy)
            .map_err(torch_error)
    }

    fn put_mask(&self, validity: &NullBuffer) -> Result<Tensor> {
        let bytes: Vec<u8> = validity.iter().map(u8::from).collect();
        self.put(&HostTensor::new(
            squall_schema::DType::Bool,
            vec![bytes.len()],
            bytes.into(),
        )?)
    }
}

impl Sink for TorchSink {
    type Batch = TensorBatch;

    fn put(&mut self, batch: HostBatch) -> Result<TensorBatch> {
        let mut out = TensorBatch {
            epoch: batch.epoch,
            step: batch.step,
            ids: batch.ids,
            tensors: IndexMap::new(),
            masks: IndexMap::new(),
            offsets: IndexMap::new(),
            arrays: IndexMap::new(),
        };
        for (name, column) in batch.columns {
            let at = |error: Error| error.at("column", &name);
            let validity = match column {
                HostColumn::Dense(dense) => {
                    out.tensors
                        .insert(name.clone(), Self::put(self, &dense.values).map_err(at)?);
                    dense.validity
                }
                HostColumn::Ragged {
                    values,
                    offsets,
                    validity,
                } => {
                    out.tensors.insert(name.clone(), Self::put(self, &values).map_err(at)?);
                    let offsets = HostTensor::from_vec(&[offsets.len()], offsets)?;
                    out.offsets.insert(name.clone(), Self::put(self, &offsets).map_err(at)?);
                    validity
                }
                HostColumn::Array(array) => {
                    out.arrays.insert(name, array);
                    continue;
                }
            };
            if let Some(validity) = validity {
                out.masks.insert(name.clone(), self.put_mask(&validity).map_err(at)?);
            }
        }
        Ok(out)
    }
}

/// A loader whose batches are tensors on a device.
pub trait ToDevice {
    /// Puts the batches on this device.
    fn to(self, device: Device) -> Result<LoaderBuilder<TorchSink>>;
}

impl ToDevice for LoaderBuilder<Host> {
    fn to(self, device: Device) -> Result<LoaderBuilder<TorchSink>> {
        Ok(self.sink(TorchSink::new(device)?))
    }
}
