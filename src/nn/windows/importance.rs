//! The weights of a window's voxels in the average of overlapping windows.

/// The weights of a window's voxels in the average of overlapping windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Importance {
    /// Equal weights.
    #[default]
    Constant,
    /// A Gaussian around the window's centre with a sigma of an eighth of the window along each axis, at least 0.001: predictions are
    /// least reliable at the window's edge.
    Gaussian,
}

impl Importance {
    /// Returns the weights of a window's voxels, z fastest; all are positive.
    ///
    /// ```
    /// use freetumor::nn::windows::Importance;
    /// let weights = Importance::Gaussian.weights([1, 1, 3]);
    /// assert_eq!(weights[1], 1.0);
    /// assert_eq!(weights[0], weights[2]);
    /// assert_eq!(Importance::Constant.weights([2, 1, 1]), [1.0, 1.0]);
    /// ```
    ///
    /// # Source
    /// `compute_importance_map` of MONAI, in f32 and in MONAI's order of operations.
    #[must_use]
    pub fn weights(self, window: [usize; 3]) -> Vec<f32> {
        if self == Self::Constant {
            return vec![1.0; window.iter().product()];
        }
        let [along_x, along_y, along_z] = window.map(gaussian);
        let mut weights = Vec::with_capacity(window.iter().product());
        for x in along_x {
            for y in &along_y {
                weights.extend(along_z.iter().map(|z| x * y * z));
            }
        }
        let lowest = weights.iter().copied().fold(f32::INFINITY, f32::min).max(1e-3);
        weights.iter_mut().for_each(|weight| *weight = weight.max(lowest));
        weights
    }
}

fn gaussian(size: usize) -> Vec<f32> {
    let sigma = size as f64 * 0.125;
    let divisor = (-2.0 * sigma * sigma) as f32;
    let middle = (size as f64 - 1.0) / 2.0;
    let at = |index: usize| (index as f64 - middle) as f32;
    (0..size).map(|index| libm::expf(at(index) * at(index) / divisor)).collect()
}
