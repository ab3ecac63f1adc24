//! The transformer: stages of blocks with attention within windows.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::windows::{RELATIVE_POSITIONS, WindowPartition, Windows};
use crate::nn::layers::{LayerNorm, Linear};
use crate::nn::ops::{self, Activation};

/// Two blocks, the second with shifted windows, then [`PatchMerging`].
#[derive(Clone, Debug)]
pub(super) struct Stage {
    blocks: Vec<Block>,
    merging: PatchMerging,
    /// The windows of the last volume, cached because consecutive volumes mostly have the same size.
    windows: Arc<Mutex<Option<Arc<Windows>>>>,
}

impl Stage {
    pub fn new(vb: VarBuilder, features: usize, heads: usize) -> Result<Self> {
        let block = |i: usize| Block::new(vb.pp("blocks").pp(i), features, heads, i % 2 == 1);
        let blocks = (0..2).map(block).collect::<Result<_>>()?;
        Ok(Self { blocks, merging: PatchMerging::new(vb.pp("downsample"), features)?, windows: Arc::default() })
    }

    /// Maps `[batch, x, y, z, c]` to `[batch, x/2, y/2, z/2, 2c]`.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let (batch, nx, ny, nz, features) = x.dims5()?;
        let windows = self.windows([nx, ny, nz], &x)?;
        let mut tokens = x.reshape((batch, nx * ny * nz, features))?;
        drop(x);
        for block in &self.blocks {
            tokens = block.forward(tokens, &windows)?;
        }
        let [nx, ny, nz] = windows.sides().map(|side| side / 2);
        let halved = self.merging.forward(ops::arrange_rows(&{ tokens }, windows.corners())?)?;
        halved.reshape((batch, nx, ny, nz, 2 * features))
    }

    fn windows(&self, sides: [usize; 3], like: &Tensor) -> Result<Arc<Windows>> {
        let mut last = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(windows) if windows.sides() == sides => Ok(Arc::clone(windows)),
            _ => Ok(Arc::clone(last.insert(Arc::new(Windows::new(sides, like.dtype(), like.device())?)))),
        }
    }
}

/// Attention within windows, then a small network for each token, both with a residual connection.
#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    attention: WindowAttention,
    norm2: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    shifted: bool,
}

impl Block {
    fn new(vb: VarBuilder, features: usize, heads: usize, shifted: bool) -> Result<Self> {
        let norm1 = LayerNorm::new(vb.pp("norm1"), features)?;
        let attention = WindowAttention::new(vb.pp("attn"), features, heads)?;
        let norm2 = LayerNorm::new(vb.pp("norm2"), features)?;
        let linear1 = Linear::new(vb.pp("mlp").pp("linear1"), features, 4 * features, true)?;
        let linear2 = Linear::new(vb.pp("mlp").pp("linear2"), 4 * features, features, true)?;
        Ok(Self { norm1, attention, norm2, linear1, linear2, shifted })
    }

    /// Applies the block; keeps the shape `[batch, token, features]`.
    fn forward(&self, x: Tensor, windows: &Windows) -> Result<Tensor> {
        let attended = self.attention.forward(self.norm1.forward(&x)?, windows, self.shifted)?;
        let x = ops::add(attended, x, Activation::None)?;
        let hidden = self.linear1.forward(&self.norm2.forward(&x)?)?;
        let hidden = ops::gelu(&{ hidden })?;
        ops::add(self.linear2.forward(&hidden)?, x, Activation::None)
    }
}

/// Attention of several heads within windows, with a learned bias for each relative position of two tokens.
#[derive(Clone, Debug)]
struct WindowAttention {
    relative_position_bias_table: Tensor,
    qkv: Linear,
    proj: Linear,
    heads: usize,
    scale: f64,
}

impl WindowAttention {
    fn new(vb: VarBuilder, features: usize, heads: usize) -> Result<Self> {
        let relative_position_bias_table = vb.get((RELATIVE_POSITIONS, heads), "relative_position_bias_table")?;
        let qkv = Linear::new(vb.pp("qkv"), features, 3 * features, true)?;
        let proj = Linear::new(vb.pp("proj"), features, features, true)?;
        let scale = 1.0 / ((features / heads) as f64).sqrt();
        Ok(Self { relative_position_bias_table, qkv, proj, heads, scale })
    }

    /// Computes the attention; keeps the shape `[batch, token, features]`. Padding contributes as tokens of zeros before `qkv`.
    fn forward(&self, x: Tensor, windows: &Windows, shifted: bool) -> Result<Tensor> {
        let (batch, _, features) = x.dims3()?;
        let WindowPartition { to_windows, to_volume, mask } = windows.partition(shifted);
        let (all, tokens) = (batch * windows.count(), windows.tokens());
        let x = ops::arrange_rows(&{ x }, to_windows)?;
        let qkv = self.qkv.forward(&{ x })?.reshape((all, tokens, 3, self.heads, features / self.heads))?;
        let bias = self.bias(windows)?;
        let y = ops::attention_packed(&{ qkv }, self.scale, Some(&bias), mask.as_ref())?;
        let y = ops::arrange_rows(&y.reshape((batch, windows.count() * tokens, features))?, to_volume)?;
        self.proj.forward(&y)
    }

    /// Returns the bias, `[head, token, token]`.
    fn bias(&self, windows: &Windows) -> Result<Tensor> {
        let by_head = self.relative_position_bias_table.t()?.contiguous()?;
        let pairs = by_head.index_select(&windows.relative_positions, 1)?;
        pairs.reshape((self.heads, windows.tokens(), windows.tokens()))
    }
}

/// Halves the volume: the features of each 2³ tokens are concatenated, normalized, and mapped to twice the features of one token.
#[derive(Clone, Debug)]
struct PatchMerging {
    norm: LayerNorm,
    reduction: Linear,
}

impl PatchMerging {
    fn new(vb: VarBuilder, features: usize) -> Result<Self> {
        let reduction = Linear::new(vb.pp("reduction"), 8 * features, 2 * features, false)?;
        Ok(Self { reduction, norm: LayerNorm::new(vb.pp("norm"), 8 * features)? })
    }

    /// Maps `[batch, 8 · token, c]`, with the eight tokens of a box one after another, to `[batch, token, 2c]`.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let (batch, tokens, features) = x.dims3()?;
        let concatenated = x.reshape((batch, tokens / 8, 8 * features))?;
        self.reduction.forward(&self.norm.forward(&{ concatenated })?)
    }
}
