//! The statistics that a normalization keeps from its forward to its backward pass.

/// Mean and inverse standard deviation of each channel of one group.
pub(super) struct Moments {
    pub mean: Vec<f64>,
    pub inverse: Vec<f64>,
}
