//! The geometry of attention within windows, shared by both backends.

use candle_core::Tensor;

/// The geometry of one attention.
pub(super) struct Attention {
    pub windows: usize,
    pub tokens: usize,
    pub heads: usize,
    pub dim: usize,
    pub scale: f64,
    pub mask: Option<Tensor>,
}
