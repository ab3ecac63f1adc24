//! Attention composed of batched matrix products, a few windows at a time.

use candle_core::{D, Result, Tensor};

use super::softmax;
use crate::nn::ops::attention_geometry::Attention;

/// The maximum number of bytes of scores in memory at a time, for one copy of the scores.
pub(in crate::nn::ops) const SCORE_BYTES: usize = 128 << 20;

impl Attention {
    /// Returns ranges (first, count) of windows whose scores stay under `limit` bytes, if those of one window do.
    fn parts(&self, size_of: usize, limit: usize) -> Vec<(usize, usize)> {
        let bytes = self.heads * self.tokens * self.tokens * size_of;
        let step = (limit / bytes.max(1)).max(1);
        (0..self.windows).step_by(step).map(|first| (first, step.min(self.windows - first))).collect()
    }

    /// Returns queries, keys and values of some windows, `[window, head, token, dim]` each.
    fn split(&self, qkv: &Tensor, (first, count): (usize, usize)) -> Result<[Tensor; 3]> {
        let qkv = qkv.narrow(0, first, count)?.permute((2, 0, 3, 1, 4))?.contiguous()?;
        Ok([qkv.get(0)?, qkv.get(1)?, qkv.get(2)?])
    }

    /// Separates the heads of `[window, token, head · dim]`: `[window, head, token, dim]`.
    fn heads(&self, y: &Tensor, (first, count): (usize, usize)) -> Result<Tensor> {
        let y = y.narrow(0, first, count)?.reshape((count, self.tokens, self.heads, self.dim))?;
        y.transpose(1, 2)?.contiguous()
    }

    /// Returns the attention weights of each pair of tokens: `[window, head, token, token]`.
    fn weights(&self, q: &Tensor, k: &Tensor, bias: Option<&Tensor>, (first, count): (usize, usize)) -> Result<Tensor> {
        let mut scores = q.affine(self.scale, 0.)?.matmul(&k.transpose(2, 3)?)?;
        if let Some(bias) = bias {
            scores = scores.broadcast_add(bias)?;
        }
        if let Some(mask) = &self.mask {
            let masks = mask.dim(0)? as u32;
            let used = (first as u32..(first + count) as u32).map(|w| w % masks);
            let used = Tensor::from_iter(used, mask.device())?;
            scores = scores.broadcast_add(&mask.index_select(&used, 0)?.unsqueeze(1)?)?;
        }
        softmax(&scores)
    }
}

/// Computes the attention in parts of at most `limit` bytes and returns the output, `[window, token, head · dim]`.
pub(in crate::nn::ops) fn attention(
    of: &Attention,
    qkv: &Tensor,
    bias: Option<&Tensor>,
    limit: usize,
) -> Result<Tensor> {
    let part = |part: (usize, usize)| {
        let [q, k, v] = of.split(qkv, part)?;
        let y = of.weights(&q, &k, bias, part)?.matmul(&v)?;
        y.transpose(1, 2)?.contiguous()?.reshape((part.1, of.tokens, of.heads * of.dim))
    };
    let parts = of.parts(qkv.dtype().size_in_bytes(), limit).into_iter().map(part).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 0)
}

/// Computes the gradients of queries, keys and values, and of the bias; the scores are computed again.
pub(in crate::nn::ops) fn attention_backward(
    of: &Attention,
    qkv: &Tensor,
    bias: Option<&Tensor>,
    output: &Tensor,
    grad: &Tensor,
    limit: usize,
) -> Result<(Tensor, Tensor)> {
    let mut parts = Vec::new();
    let mut bias_grad = Tensor::zeros((of.heads, of.tokens, of.tokens), qkv.dtype(), qkv.device())?;
    for part in of.parts(qkv.dtype().size_in_bytes(), limit) {
        let [q, k, v] = of.split(qkv, part)?;
        let (y, grad) = (of.heads(output, part)?, of.heads(grad, part)?);
        let weights = of.weights(&q, &k, bias, part)?;
        let v_grad = weights.transpose(2, 3)?.matmul(&grad)?;
        let along = (&y * &grad)?.sum_keepdim(D::Minus1)?;
        let score_grad = (weights * grad.matmul(&v.transpose(2, 3)?)?.broadcast_sub(&along)?)?;
        if bias.is_some() {
            bias_grad = (bias_grad + score_grad.sum(0)?)?;
        }
        let q_grad = score_grad.matmul(&k)?.affine(of.scale, 0.)?;
        let k_grad = score_grad.transpose(2, 3)?.matmul(&q)?.affine(of.scale, 0.)?;
        let all = Tensor::stack(&[q_grad, k_grad, v_grad], 0)?;
        parts.push(all.permute((1, 3, 0, 2, 4))?.contiguous()?);
    }
    Ok((Tensor::cat(&parts, 0)?, bias_grad))
}
