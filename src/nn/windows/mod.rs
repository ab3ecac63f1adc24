//! Sliding windows: a network for windows of a fixed size, applied to a volume of any size.
//!
//! [`WindowPlan`] is the geometry: the positions of windows, and the windows that overlap a box of interest. [`SlidingWindows`] runs
//! a predictor on windows and averages overlapping predictions. Predictions for whole volumes equal those of MONAI's
//! `sliding_window_inference`; the prediction for a box of interest has the same bits as that part of the prediction for the whole
//! volume, at the cost of the windows that overlap the box.
//!
//! # Shapes
//! Volumes and predictions are `[batch, channel, x, y, z]`; boxes are half-open ranges of voxels along `[x, y, z]`.
//!
//! # Source
//! MONAI 1.6, `monai/inferers/utils.py` and `monai/data/utils.py` (`dense_patch_slices`, `compute_importance_map`).

mod importance;
mod plan;
mod run;

pub use importance::Importance;
pub use plan::{VoxelBox, WindowPlan};
pub use run::{SlidingWindows, WindowGrouping};
