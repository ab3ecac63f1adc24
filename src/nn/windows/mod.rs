//! Sliding windows: a network that sees a small box, applied to a volume of any size.
//!
//! [`WindowPlan`] is the geometry: where windows lie and which of them reach a box of interest. [`SlidingWindows`] runs
//! a predictor on them and averages what overlaps. Whole volumes come out as MONAI's `sliding_window_inference` gives
//! them; a box of interest has exactly the bits that the whole would have there, at the cost of the windows that reach
//! it.
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
