//! Max pooling.

use candle_core::{Result, Shape, Tensor, bail};

use super::check;
use super::operator::{BackwardInputs, Native, Operator, apply};
use super::portable::pool as portable;

/// Returns the maximum of each 2 × 2 × 2 voxels; an odd last plane is ignored, as in PyTorch.
///
/// The gradient goes to the first maximal voxel in the order x, y, z.
///
/// # Shapes
///
/// `x` `[batch, x, y, z, channel]`; returns `[batch, x / 2, y / 2, z / 2, channel]`.
///
/// # Errors
///
/// If the volume is thinner than two voxels.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::ops;
///
/// let x = Tensor::arange(0f32, 16., &Device::Cpu)?.reshape((1, 2, 2, 4, 1))?;
/// assert_eq!(ops::max_pool3d(&x)?.flatten_all()?.to_vec1::<f32>()?, [13., 15.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn max_pool3d(x: &Tensor) -> Result<Tensor> {
    let [batch, nx, ny, nz, channels] = check::volume("max_pool3d", x)?;
    if nx.min(ny).min(nz) < 2 {
        bail!("max_pool3d: expected at least two voxels along each axis, got {:?}", [nx, ny, nz])
    }
    apply(MaxPool3d { batch, size: [nx, ny, nz], channels }, &[x])
}

/// The geometry of one pooling.
pub(super) struct MaxPool3d {
    pub batch: usize,
    pub size: [usize; 3],
    pub channels: usize,
}

impl Operator for MaxPool3d {
    const NAME: &'static str = "max_pool3d";

    fn shape(&self) -> Shape {
        let [x, y, z] = self.size;
        Shape::from((self.batch, x / 2, y / 2, z / 2, self.channels))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        portable::max_pool(&inputs[0])
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        call.gradients(|_| portable::max_pool_backward(&call.inputs[0], &call.output, &call.grad))
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
