//! Three-dimensional networks: operators, layers, networks, weights, sliding windows and the device.
//!
//! This module owns all computation of candle and the CPU kernels, and is independent of CT. On CPUs of one class of kernels, results
//! have the same bits for any number of threads. Files of weights are untrusted: nothing in them is executed,
//! and every size is checked before memory is allocated.
//!
//! # Shapes
//!
//! Inside this module a tensor is `[batch, x, y, z, channel]`, channels last: the kernels read and write whole channel
//! vectors, and layer norm, softmax and linear layers work on the last axis anyway. A network's `forward` takes and returns
//! `[batch, channel, x, y, z]`, as other programs do. Weights keep PyTorch's names and shapes.

pub mod device;
mod failure;
pub mod fill;
pub mod kernel;
pub mod layers;
pub mod network;
pub mod ops;
pub mod optimize;
pub mod parameters;
pub mod predictor;
pub mod service;
pub mod swin_unetr;
pub mod unet3d;
pub mod weights;
pub mod windows;

pub(crate) use failure::failed;
