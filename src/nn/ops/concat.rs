//! Concatenation of volumes.

use candle_core::{D, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::check;
use super::operator::{BackwardInputs, Native, Operator, Slices, apply};
use crate::nn::kernel::zeros;

/// Concatenates the channels of two volumes.
///
/// # Shapes
///
/// `a` `[batch, x, y, z, c]`, `b` `[batch, x, y, z, d]`; returns `[batch, x, y, z, c + d]`.
///
/// # Errors
///
/// If the volumes differ in another size than their channels.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::ops;
///
/// let a = Tensor::zeros((1, 2, 2, 2, 3), DType::F32, &Device::Cpu)?;
/// let b = Tensor::ones((1, 2, 2, 2, 1), DType::F32, &Device::Cpu)?;
/// let y = ops::concat(&a, &b)?;
/// assert_eq!(y.flatten_to(3)?.get(0)?.to_vec1::<f32>()?, [0., 0., 0., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn concat(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let [batch, x, y, z, first] = check::volume("concat", a)?;
    let second = match check::volume("concat", b)? {
        [n, i, j, k, second] if [n, i, j, k] == [batch, x, y, z] => second,
        got => bail!("concat: expected a volume of shape [{batch}, {x}, {y}, {z}, channels], got {got:?}"),
    };
    apply(Concat { shape: Shape::from((batch, x, y, z, first + second)), first, second }, &[a, b])
}

/// The operator of [`concat`].
#[derive(Clone, Debug)]
struct Concat {
    shape: Shape,
    first: usize,
    second: usize,
}

/// The number of voxels that one task copies.
const VOXELS: usize = 4096;

impl Native for Concat {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let (first, second) = (self.first, self.second);
        let mut y = zeros(self.shape.elem_count());
        y.par_chunks_mut(VOXELS * (first + second))
            .zip(inputs[0].par_chunks(VOXELS * first).zip(inputs[1].par_chunks(VOXELS * second)))
            .for_each(|(y, (a, b))| {
                let voxels = a.chunks_exact(first).zip(b.chunks_exact(second));
                for (y, (a, b)) in y.chunks_exact_mut(first + second).zip(voxels) {
                    y[..first].copy_from_slice(a);
                    y[first..].copy_from_slice(b);
                }
            });
        Ok(y)
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        Ok(call.gradients(|input, gradient| {
            let (from, count) = if input == 0 { (0, self.first) } else { (self.first, self.second) };
            let whole = self.first + self.second;
            gradient.par_chunks_mut(VOXELS * count).zip(call.grad.par_chunks(VOXELS * whole)).for_each(|(to, grad)| {
                for (to, grad) in to.chunks_exact_mut(count).zip(grad.chunks_exact(whole)) {
                    to.copy_from_slice(&grad[from..from + count]);
                }
            });
        }))
    }
}

impl Operator for Concat {
    const NAME: &'static str = "concat";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        Tensor::cat(inputs, D::Minus1)
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        call.gradients(|input| match input {
            0 => call.grad.narrow(D::Minus1, 0, self.first)?.contiguous(),
            _ => call.grad.narrow(D::Minus1, self.first, self.second)?.contiguous(),
        })
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
