//! Trilinear doubling.

use candle_core::{Result, Shape, Tensor};

use super::check;
use super::operator::{BackwardInputs, Native, Operator, apply};
use super::portable::upsample as portable;

/// Doubles a volume by linear interpolation along each axis; voxel centres, not corners, are aligned.
///
/// # Shapes
///
/// `x` `[batch, x, y, z, channel]`; returns `[batch, 2x, 2y, 2z, channel]`.
///
/// # Errors
///
/// If `x` is not a volume.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let x = Tensor::new(&[0f32, 4.], &Device::Cpu)?.reshape((1, 1, 1, 2, 1))?;
/// let y = ops::upsample3d(&x)?;
/// assert_eq!(y.dims(), [1, 2, 2, 4, 1]);
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?[..4], [0., 1., 3., 4.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn upsample3d(x: &Tensor) -> Result<Tensor> {
    let [batch, nx, ny, nz, channels] = check::volume("upsample3d", x)?;
    apply(Upsample3d { batch, size: [nx, ny, nz], channels }, &[x])
}

/// The geometry of one doubling.
pub(super) struct Upsample3d {
    pub batch: usize,
    pub size: [usize; 3],
    pub channels: usize,
}

impl Operator for Upsample3d {
    const NAME: &'static str = "upsample3d";

    fn shape(&self) -> Shape {
        let [x, y, z] = self.size;
        Shape::from((self.batch, 2 * x, 2 * y, 2 * z, self.channels))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        (1..4).try_fold(inputs[0].clone(), |x, dim| portable::double(&x, dim))
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        call.gradients(|_| (1..4).rev().try_fold(call.grad.clone(), |grad, dim| portable::double_backward(&grad, dim)))
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
