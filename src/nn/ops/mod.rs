//! The operators of three-dimensional networks, with gradients.
//!
//! # Shapes
//!
//! Volumes are `[batch, x, y, z, channel]`, the channel last; weights keep PyTorch's shapes.
//!
//! # Two backends behind one call
//!
//! [`Backend::Native`] consists of this crate's kernels over plain slices of `f32` on the CPU; their results have the same bits for
//! any number of threads. [`Backend::Portable`] is composed of candle's own tensor operations and runs on every device
//! and in `f64`. Each call uses the native kernel if there is one, and the portable implementation otherwise; gradients
//! use the backend of the values. [`with_backend`] overrides the choice, for comparisons.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use freetumor::nn::ops::{self, Activation, NormScope};
//!
//! let x = Tensor::randn(0f32, 1., (1, 8, 8, 8, 4), &Device::Cpu)?;
//! let weight = Tensor::randn(0f32, 1., (6, 4, 3, 3, 3), &Device::Cpu)?;
//! let y = ops::conv3d(&x, &weight, None, [2; 3], [1; 3])?;
//! let y = ops::normalize(&y, None, NormScope::Instance, 1e-5, Activation::LeakyRelu(0.01))?;
//! assert_eq!(y.dims(), [1, 4, 4, 4, 6]);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod activation;
mod add;
mod attention;
mod attention_geometry;
mod backend;
mod check;
mod concat;
mod conv;
mod linear;
mod moments;
mod native;
mod norm;
mod operator;
mod overwrite;
mod pool;
mod portable;
mod rows;
mod softmax;
mod upsample;

pub use activation::{gelu, leaky_relu, sigmoid, tanh};
pub use add::add;
pub use attention::{attention, attention_packed};
pub use backend::{Backend, with_backend};
pub use concat::concat;
pub use conv::{conv_transpose3d, conv3d};
pub use linear::linear;
pub use norm::{Activation, NormScope, layer_norm, normalize, normalize_owned};
pub use pool::max_pool3d;
pub use rows::{RowOrder, arrange_rows};
pub use softmax::softmax;
pub use upsample::upsample3d;
