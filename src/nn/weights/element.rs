//! Element types and strided views of stored numbers, little endian, and their conversion to tensors.

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::tensor::Dtype;

use super::budget::Budget;
use super::names::DisplayShape;
use crate::error::{Error, Result};
use crate::nn::failed;

/// The type of the numbers of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl ElementType {
    /// Returns the size of one number in bytes.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Returns the size of one number in memory, in bytes: integers are converted to bytes or i64, which candle supports.
    fn bytes_in_memory(self) -> u64 {
        if matches!(self, Self::I32 | Self::I16 | Self::I8) { 8 } else { self.bytes() }
    }

    /// Returns the element type of a PyTorch storage class, such as `FloatStorage`, or `None` for any other class.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" | "UntypedStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Returns the element type of a PyTorch dtype, such as `float32`, or `None` for a dtype that is not supported.
    pub(super) fn of_dtype(name: &str) -> Option<Self> {
        Some(match name {
            "float64" | "double" => Self::F64,
            "float32" | "float" => Self::F32,
            "float16" | "half" => Self::F16,
            "bfloat16" => Self::Bf16,
            "int64" | "long" => Self::I64,
            "int32" | "int" => Self::I32,
            "int16" | "short" => Self::I16,
            "int8" => Self::I8,
            "uint8" => Self::U8,
            "bool" => Self::Bool,
            _ => return None,
        })
    }

    /// Returns the element type of a safetensors dtype, or `None` for a dtype that is not supported.
    pub(super) fn of_safetensors(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            _ => return None,
        })
    }
}

/// A strided view of stored numbers, as in PyTorch. Offset and strides are counted in numbers, not bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StridedView {
    pub(super) element: ElementType,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

impl StridedView {
    /// Returns the view of all numbers of a storage in row-major order.
    pub(super) fn contiguous(element: ElementType, shape: Vec<u64>) -> Self {
        let mut strides = vec![1u64; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
        }
        Self { element, offset: 0, shape, strides }
    }

    /// Returns the number of elements of the tensor; `None` if the product overflows 64 bits.
    pub(super) fn count(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |count, size| count.checked_mul(*size))
    }

    /// Returns the minimum number of elements of the storage; `None` if the sum overflows 64 bits.
    fn reach(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(self.offset);
        }
        let steps = self.shape.iter().zip(&self.strides);
        let last = steps.map(|(size, stride)| (size - 1).checked_mul(*stride));
        last.into_iter().try_fold(self.offset, |sum, step| sum.checked_add(step?))?.checked_add(1)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(size, stride)| {
            let fits = *size <= 1 || *stride == expected;
            expected = expected.saturating_mul(*size);
            fits
        })
    }

    /// Checks the view against a storage of `stored` numbers and against the remaining budget.
    ///
    /// # Errors
    /// If the tensor reaches beyond its storage, or exceeds the memory limit of its file.
    pub(super) fn check(&self, stored: u64, budget: &mut Budget) -> Result<()> {
        let fits = self.reach().is_some_and(|reach| reach <= stored);
        let (Some(count), true) = (self.count(), fits && self.strides.len() == self.shape.len()) else {
            return Err(Error::new(format!(
                "shape {}, strides {} and offset {} reach beyond the storage of {stored} numbers",
                DisplayShape(&self.shape),
                DisplayShape(&self.strides),
                self.offset
            )));
        };
        budget.spend(count.saturating_mul(self.element.bytes_in_memory()))
    }

    /// Reads the tensor, on the CPU, from a storage whose size [`check`](Self::check) has verified.
    ///
    /// # Errors
    /// If the storage is shorter than the checked size.
    pub(super) fn tensor(&self, storage: &[u8]) -> Result<Tensor> {
        let size = self.element.bytes() as usize;
        let count = self.count().unwrap_or(u64::MAX) as usize;
        let gathered;
        let bytes = if self.is_contiguous() || count == 0 {
            let start = if count == 0 { 0 } else { self.offset as usize * size };
            storage.get(start..start.saturating_add(count.saturating_mul(size)))
        } else {
            gathered = self.gather(storage, count);
            gathered.as_deref()
        };
        let bytes = bytes.ok_or_else(|| Error::new("the storage is shorter than its tensor"))?;
        let shape: Vec<usize> = self.shape.iter().map(|size| *size as usize).collect();
        match self.element {
            ElementType::F64 => tensor_of(bytes, f64::from_le_bytes, shape),
            ElementType::F32 => tensor_of(bytes, f32::from_le_bytes, shape),
            ElementType::F16 => tensor_of(bytes, f16::from_le_bytes, shape),
            ElementType::Bf16 => tensor_of(bytes, bf16::from_le_bytes, shape),
            ElementType::I64 => tensor_of(bytes, i64::from_le_bytes, shape),
            ElementType::I32 => tensor_of(bytes, |number| i64::from(i32::from_le_bytes(number)), shape),
            ElementType::I16 => tensor_of(bytes, |number| i64::from(i16::from_le_bytes(number)), shape),
            ElementType::I8 => tensor_of(bytes, |number| i64::from(i8::from_le_bytes(number)), shape),
            ElementType::U8 => tensor_of(bytes, u8::from_le_bytes, shape),
            ElementType::Bool => tensor_of(bytes, |[byte]: [u8; 1]| u8::from(byte != 0), shape),
        }
    }

    /// Copies the numbers of a strided view in row-major order.
    fn gather(&self, storage: &[u8], count: usize) -> Option<Vec<u8>> {
        let size = self.element.bytes() as usize;
        let mut bytes = Vec::with_capacity(count * size);
        let mut index = vec![0u64; self.shape.len()];
        for _ in 0..count {
            let steps = index.iter().zip(&self.strides).map(|(at, stride)| at * stride);
            let start = (self.offset + steps.sum::<u64>()) as usize * size;
            bytes.extend_from_slice(storage.get(start..start + size)?);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Some(bytes)
    }
}

/// Converts the bytes of numbers of `N` bytes to a tensor.
fn tensor_of<const N: usize, T: candle_core::WithDType>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> T,
    shape: Vec<usize>,
) -> Result<Tensor> {
    let (numbers, _) = bytes.as_chunks();
    let context = format!("cannot create a tensor of shape {shape:?}");
    Tensor::from_vec(numbers.iter().map(|bytes| number(*bytes)).collect::<Vec<_>>(), shape, &Device::Cpu)
        .map_err(failed(&context))
}
