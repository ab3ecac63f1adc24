//! Convolution and transposed convolution.

use candle_core::{Result, Shape, Tensor, bail};

use super::check;
use super::operator::{BackwardInputs, Native, Operator, Slices, apply};
use super::portable::{conv as portable, rows, sum_rows};
use crate::nn::kernel::{self, Accuracy, Class, Geometry};

/// Convolves a volume with a kernel. Kernel size, stride and padding can differ between axes.
///
/// # Shapes
///
/// `x` `[batch, x, y, z, c_in]`, `weight` `[c_out, c_in, kx, ky, kz]`, `bias` `[c_out]`; returns
/// `[batch, x', y', z', c_out]` with `x' = (x + 2 · padding − kx) / stride + 1`, rounded down.
///
/// # Errors
///
/// If the shapes are incompatible, a stride is zero, or the kernel is larger than the padded volume.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let x = Tensor::ones((1, 5, 5, 5, 2), candle_core::DType::F32, &Device::Cpu)?;
/// let weight = Tensor::ones((1, 2, 3, 3, 3), candle_core::DType::F32, &Device::Cpu)?;
/// let y = ops::conv3d(&x, &weight, None, [2; 3], [1; 3])?;
/// assert_eq!(y.dims(), [1, 3, 3, 3, 1]);
/// assert_eq!(y.max_all()?.to_scalar::<f32>()?, 54.);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn conv3d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: [usize; 3],
    padding: [usize; 3],
) -> Result<Tensor> {
    let conv = Conv3d::new(x, weight, bias, stride, padding)?;
    match bias {
        Some(bias) => apply(conv, &[x, weight, bias]),
        None => apply(conv, &[x, weight]),
    }
}

/// The geometry of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv3d {
    pub batch: usize,
    pub c_in: usize,
    pub c_out: usize,
    pub size: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub padding: [usize; 3],
    pub out: [usize; 3],
    /// The accuracy of the native kernels: faster and less accurate if no gradient is required.
    pub accuracy: Accuracy,
}

impl Conv3d {
    fn new(
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: [usize; 3],
        padding: [usize; 3],
    ) -> Result<Self> {
        let [batch, nx, ny, nz, c_in] = check::volume("conv3d", x)?;
        let (size, (c_out, kernel)) = ([nx, ny, nz], Self::weight("conv3d", weight, c_in)?);
        if let Some(bias) = bias {
            check::dims("conv3d", "bias", bias, &[c_out])?;
        }
        let (mut stride, mut out) = (stride, [0; 3]);
        for axis in 0..3 {
            let (k, s, p) = (kernel[axis], stride[axis], padding[axis]);
            let padded = p.checked_mul(2).and_then(|p| p.checked_add(size[axis])).filter(|&n| n <= isize::MAX as usize);
            out[axis] = match padded {
                _ if s == 0 => bail!("conv3d: expected strides of at least 1, got {stride:?}"),
                Some(padded) if padded >= k => (padded - k) / s + 1,
                _ => bail!(
                    "conv3d: expected a kernel within the padded volume, got kernel {kernel:?}, volume {size:?}, padding {padding:?}"
                ),
            };
            if out[axis] == 1 {
                stride[axis] = 1; // one position: the stride is never used, and may exceed all memory
            }
        }
        let trained = [Some(x), Some(weight), bias].into_iter().flatten().any(Tensor::track_op);
        let accuracy = if trained { Accuracy::Training } else { Accuracy::Inference };
        Ok(Self { batch, c_in, c_out, size, kernel, stride, padding, out, accuracy })
    }

    fn weight(op: &str, weight: &Tensor, c_in: usize) -> Result<(usize, [usize; 3])> {
        match *weight.dims() {
            [c_out, c, kx, ky, kz] if c == c_in && weight.elem_count() > 0 => Ok((c_out, [kx, ky, kz])),
            ref got => bail!("{op}: expected a weight of shape [c_out, {c_in}, kx, ky, kz], got {got:?}"),
        }
    }

    fn correlation(&self) -> portable::Correlation {
        let start = self.padding.map(|p| -(p as isize));
        portable::Correlation { kernel: self.kernel, stride: self.stride, start, out: self.out }
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            batch: self.batch,
            input: self.size,
            channels_in: self.c_in,
            channels_out: self.c_out,
            kernel: self.kernel,
            // For a single position, a stride that leaves no room for a second position.
            stride: std::array::from_fn(|axis| match self.out[axis] {
                1 => self.size[axis] + 2 * self.padding[axis],
                _ => self.stride[axis],
            }),
            padding: self.padding,
        }
    }
}

impl Native for Conv3d {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let geometry = self.geometry();
        let mut y = kernel::zeros(geometry.output_len());
        let bias = inputs.get(2).copied();
        kernel::conv3d(Class::current(), self.accuracy, &geometry, inputs[0], inputs[1], bias, &mut y);
        Ok(y)
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let (class, geometry, [x, weight]) = (Class::current(), self.geometry(), [call.inputs[0], call.inputs[1]]);
        Ok(call.gradients(|input, gradient| match input {
            // No activation follows an input's gradient, so that rounding cannot flip a sign: the fastest accuracy suffices.
            0 => kernel::conv3d_input_gradient(class, Accuracy::Inference, &geometry, call.grad, weight, gradient),
            1 => kernel::conv3d_weight_gradient(class, &geometry, x, call.grad, gradient),
            _ => kernel::bias_gradient(call.grad, gradient),
        }))
    }
}

impl Operator for Conv3d {
    const NAME: &'static str = "conv3d";

    fn shape(&self) -> Shape {
        let [x, y, z] = self.out;
        Shape::from((self.batch, x, y, z, self.c_out))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let y = portable::correlate(&inputs[0], &inputs[1], &self.correlation(), portable::GATHERED_BYTES)?;
        match inputs.get(2) {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let (by, limit, grad) = (self.correlation(), portable::GATHERED_BYTES, &call.grad);
        let gradient = |i: usize| match i {
            0 => portable::grad_input(grad, &call.inputs[1], &by, self.size, limit),
            1 => portable::grad_weight(&call.inputs[0], grad, &by, limit),
            _ => sum_rows(&rows(grad)?),
        };
        call.gradients(gradient)
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}

/// Doubles a volume by a transposed convolution of kernel 2 and stride 2.
///
/// # Shapes
///
/// `x` `[batch, x, y, z, c_in]`, `weight` `[c_in, c_out, 2, 2, 2]`, `bias` `[c_out]`; returns
/// `[batch, 2x, 2y, 2z, c_out]`.
///
/// # Errors
///
/// If the shapes are incompatible.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::ops;
///
/// let x = Tensor::ones((1, 2, 3, 4, 5), DType::F32, &Device::Cpu)?;
/// let weight = Tensor::ones((5, 7, 2, 2, 2), DType::F32, &Device::Cpu)?;
/// let y = ops::conv_transpose3d(&x, &weight, None)?;
/// assert_eq!(y.dims(), [1, 4, 6, 8, 7]);
/// assert_eq!(y.min_all()?.to_scalar::<f32>()?, 5.);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn conv_transpose3d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let [batch, nx, ny, nz, c_in] = check::volume("conv_transpose3d", x)?;
    let c_out = match *weight.dims() {
        [c, c_out, 2, 2, 2] if c == c_in && c_out > 0 => c_out,
        ref got => bail!("conv_transpose3d: expected a weight of shape [{c_in}, c_out, 2, 2, 2], got {got:?}"),
    };
    let up = ConvTranspose3d { batch, c_in, c_out, size: [nx, ny, nz] };
    match bias {
        Some(bias) => {
            check::dims("conv_transpose3d", "bias", bias, &[c_out])?;
            apply(up, &[x, weight, bias])
        }
        None => apply(up, &[x, weight]),
    }
}

/// The geometry of one transposed convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvTranspose3d {
    pub batch: usize,
    pub c_in: usize,
    pub c_out: usize,
    pub size: [usize; 3],
}

impl ConvTranspose3d {
    /// Reshapes `[c_in, c_out, 2, 2, 2]` to `[c_in, 2·2·2·c_out]`.
    fn pack(&self, weight: &Tensor) -> Result<Tensor> {
        weight.permute((0, 2, 3, 4, 1))?.contiguous()?.reshape((self.c_in, 8 * self.c_out))
    }

    /// Returns the geometry of the strided convolution from the output to the input; this operator is the gradient of that convolution.
    fn strided_geometry(&self) -> Geometry {
        Geometry {
            batch: self.batch,
            input: self.size.map(|n| 2 * n),
            channels_in: self.c_out,
            channels_out: self.c_in,
            kernel: [2; 3],
            stride: [2; 3],
            padding: [0; 3],
        }
    }
}

impl Native for ConvTranspose3d {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let mut y = kernel::zeros(self.strided_geometry().input_len());
        let (channels, bias) = ([self.c_in, self.c_out], inputs.get(2).copied());
        kernel::conv_transpose3d(Class::current(), self.size, channels, inputs[0], inputs[1], bias, &mut y);
        Ok(y)
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let (class, geometry, [x, weight]) =
            (Class::current(), self.strided_geometry(), [call.inputs[0], call.inputs[1]]);
        Ok(call.gradients(|input, gradient| match input {
            0 => kernel::conv3d(class, Accuracy::Direct, &geometry, call.grad, weight, None, gradient),
            1 => kernel::conv3d_weight_gradient(class, &geometry, call.grad, x, gradient),
            _ => kernel::bias_gradient(call.grad, gradient),
        }))
    }
}

impl Operator for ConvTranspose3d {
    const NAME: &'static str = "conv_transpose3d";

    fn shape(&self) -> Shape {
        let [x, y, z] = self.size;
        Shape::from((self.batch, 2 * x, 2 * y, 2 * z, self.c_out))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let [x, y, z] = self.size;
        let product = rows(&inputs[0])?.matmul(&self.pack(&inputs[1])?)?;
        let y = portable::interleave(&product.reshape((self.batch, x, y, z, 8 * self.c_out))?)?;
        match inputs.get(2) {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let (x, weight) = (&call.inputs[0], &call.inputs[1]);
        let grad = rows(&portable::uninterleave(&call.grad)?)?;
        let gradient = |i: usize| match i {
            0 => grad.matmul(&self.pack(weight)?.t()?)?.reshape(x.shape()),
            1 => {
                let product = rows(x)?.t()?.matmul(&grad)?.reshape((self.c_in, 2, 2, 2, self.c_out))?;
                product.permute((0, 4, 1, 2, 3))?.contiguous()
            }
            _ => sum_rows(&rows(&call.grad)?),
        };
        call.gradients(gradient)
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
