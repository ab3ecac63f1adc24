//! Three-dimensional networks: operators, networks, weights and windows. Nothing here knows of CT.
//!
//! # Shapes
//!
//! Inside of this room a tensor is `[batch, x, y, z, channel]`, channels last: the kernels read and write whole channel
//! vectors, and layer norm, softmax and linear layers work on the last axis anyway. A network's `forward` takes and gives
//! `[batch, channel, x, y, z]`, as the rest of the world does. Weights keep the names and shapes that PyTorch gives them.

pub mod device;
mod failure;
pub mod fill;
pub mod kernel;
pub mod layers;
pub mod network;
pub mod ops;
pub mod optimise;
pub mod parameters;
pub mod predictor;
pub mod service;
pub mod swin_unetr;
pub mod unet3d;
pub mod weights;
pub mod windows;

pub(crate) use failure::failed;
