//! The geometry of a convolution.

/// The geometry of a convolution over `[batch, x, y, z, channel]`, which determines the shapes of the input and the output.
///
/// ```
/// use freetumor::nn::kernel::Geometry;
/// let geometry = Geometry {
///     batch: 1, input: [8, 8, 5], channels_in: 1, channels_out: 4, kernel: [3; 3], stride: [1, 1, 2], padding: [1; 3],
/// };
/// assert_eq!(geometry.output(), [8, 8, 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Samples.
    pub batch: usize,
    /// Voxels of the input along x, y, z.
    pub input: [usize; 3],
    /// Channels of the input.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// Taps of the kernel along x, y, z.
    pub kernel: [usize; 3],
    /// Steps between outputs, in voxels of the input.
    pub stride: [usize; 3],
    /// Zeros before and after each axis.
    pub padding: [usize; 3],
}

impl Geometry {
    /// Returns the number of output voxels along x, y, z. The kernel must fit into the padded input.
    pub fn output(&self) -> [usize; 3] {
        std::array::from_fn(|a| (self.input[a] + 2 * self.padding[a] - self.kernel[a]) / self.stride[a] + 1)
    }

    /// Returns the number of elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input.iter().product::<usize>() * self.channels_in
    }

    /// Returns the number of elements of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.output().iter().product::<usize>() * self.channels_out
    }

    /// Returns the number of taps of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Returns the number of elements of the weight, `[channels_out, channels_in, kx, ky, kz]`.
    pub fn weight_len(&self) -> usize {
        self.channels_out * self.channels_in * self.taps()
    }

    /// Returns the number of multiplications and additions of the direct algorithm.
    pub fn flops(&self) -> f64 {
        2.0 * self.output_len() as f64 * (self.channels_in * self.taps()) as f64
    }

    /// Returns whether every output depends only on the input voxel at the same position.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3] && self.stride == [1; 3] && self.padding == [0; 3]
    }
}
