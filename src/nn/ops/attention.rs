//! Attention within windows.

use candle_core::{Result, Shape, Tensor, bail};

use super::attention_geometry::Attention;
use super::check;
use super::operator::{BackwardInputs, Native, Operator, apply};
use super::portable::attention as portable;

/// Computes attention within windows: `softmax(q · kᵀ · scale + bias + mask) · v` for each window and head.
///
/// The same as [`attention_packed`] with separate inputs, which are copied into one tensor first.
///
/// # Shapes
///
/// `q`, `k`, `v` `[window, head, token, dim]`, `bias` `[head, token, token]`, `mask` `[mask, token, token]`, of which
/// window `w` uses `w % mask`; returns `[window, head, token, dim]`. The mask has no gradient.
///
/// # Errors
///
/// If the shapes are incompatible.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let q = Tensor::zeros((1, 1, 2, 3), candle_core::DType::F32, &Device::Cpu)?;
/// let v = Tensor::arange(0f32, 6., &Device::Cpu)?.reshape((1, 1, 2, 3))?;
/// let y = ops::attention(&q, &q, &v, 1., None, None)?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [1.5, 2.5, 3.5, 1.5, 2.5, 3.5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    bias: Option<&Tensor>,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let [windows, heads, tokens, dim] = match *q.dims() {
        [w, h, t, d] if q.elem_count() > 0 => [w, h, t, d],
        ref got => bail!("attention: expected q of shape [window, head, token, dim], none of them 0, got {got:?}"),
    };
    check::dims("attention", "k", k, q.dims())?;
    check::dims("attention", "v", v, q.dims())?;
    check::same_type_and_device("attention", &[q, k, v])?;
    let qkv = Tensor::stack(&[q, k, v], 0)?.permute((1, 3, 0, 2, 4))?;
    let y = attention_packed(&qkv, scale, bias, mask)?;
    y.reshape((windows, tokens, heads, dim))?.transpose(1, 2)?.contiguous()
}

/// Computes attention within windows, from queries, keys and values in the layout of one linear layer's output.
///
/// # Shapes
///
/// `qkv` `[window, token, 3, head, dim]`, `bias` `[head, token, token]`, `mask` `[mask, token, token]`, of which window
/// `w` uses `w % mask`; returns `[window, token, head · dim]`. The mask has no gradient.
///
/// # Errors
///
/// If the shapes are incompatible.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let qkv = Tensor::ones((4, 27, 3, 2, 8), candle_core::DType::F32, &Device::Cpu)?;
/// let y = ops::attention_packed(&qkv, 0.5, None, None)?;
/// assert_eq!(y.dims(), [4, 27, 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn attention_packed(qkv: &Tensor, scale: f64, bias: Option<&Tensor>, mask: Option<&Tensor>) -> Result<Tensor> {
    let [windows, tokens, heads, dim] = match *qkv.dims() {
        [w, t, 3, h, d] if qkv.elem_count() > 0 => [w, t, h, d],
        ref got => {
            bail!("attention: expected qkv of shape [window, token, 3, head, dim], none of them 0, got {got:?}")
        }
    };
    if !scale.is_finite() {
        bail!("attention: expected a finite scale, got {scale}")
    }
    let mask = match mask {
        Some(mask) => {
            match *mask.dims() {
                [n, rows, columns] if n > 0 && rows == tokens && columns == tokens => {}
                ref got => bail!("attention: expected a mask of shape [mask, {tokens}, {tokens}], got {got:?}"),
            }
            check::same_type_and_device("attention", &[qkv, mask])?;
            Some(mask.detach().contiguous()?)
        }
        None => None,
    };
    let attention = Attention { windows, tokens, heads, dim, scale, mask };
    match bias {
        Some(bias) => {
            check::dims("attention", "bias", bias, &[heads, tokens, tokens])?;
            apply(attention, &[qkv, bias])
        }
        None => apply(attention, &[qkv]),
    }
}

impl Operator for Attention {
    const NAME: &'static str = "attention";

    fn shape(&self) -> Shape {
        Shape::from((self.windows, self.tokens, self.heads * self.dim))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        portable::attention(self, &inputs[0], inputs.get(1), portable::SCORE_BYTES)
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let (qkv, bias) = (&call.inputs[0], call.inputs.get(1));
        let (qkv_grad, bias_grad) =
            portable::attention_backward(self, qkv, bias, &call.output, &call.grad, portable::SCORE_BYTES)?;
        call.gradients(|i| Ok(if i == 0 { qkv_grad.clone() } else { bias_grad.clone() }))
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
