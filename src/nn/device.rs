//! The device on which networks run.

use candle_core::Device;

use super::failed;
use crate::error::{Error, Result};

/// The kinds of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU, with all its threads.
    #[default]
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

impl DeviceKind {
    /// Opens the device.
    ///
    /// # Errors
    /// If this program was built without CUDA, or there is no GPU.
    ///
    /// ```
    /// use freetumor::nn::device::DeviceKind;
    /// assert!(DeviceKind::Cpu.device()?.is_cpu());
    /// # Ok::<(), freetumor::error::Error>(())
    /// ```
    pub fn device(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda if candle_core::utils::cuda_is_available() => Device::new_cuda(0).map_err(|error| {
                failed("cannot use the CUDA device")(error)
                    .with_hint("check with nvidia-smi that there is a GPU, or pass --device cpu")
            }),
            Self::Cuda => Err(Error::new("this freetumor was built without CUDA").with_hint(
                "build freetumor with cargo build --release --features cuda on a machine with nvcc, or pass --device cpu",
            )),
        }
    }
}
