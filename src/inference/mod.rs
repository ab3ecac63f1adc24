//! Inference of networks on scans: from HU on a scan's grid to tensors of a network, and from predictions to the scan's grid.
//!
//! This module owns the settings of a stage's network, the preprocessing of its input, the choice of its windows, and the resampling of its
//! output to the scan's grid. The number of windows that a device computes at once changes no result.
//!
//! A network is applied to windows of a fixed size, on a grid of fixed spacing, in 0..1. An [`Inference`] is a network with its
//! preprocessing and its device. A [`Roi`] is the region of interest around an organ on the network's grid, in HU: it is computed once for
//! an organ, and the [`RoiChange`] of each tumor is added to its voxels. A [`Layout`] lists the windows that are computed for one tumor,
//! and a [`Prediction`] holds the logits of a box.
//!
//! # Source
//! FreeTumor's `generate` computes all windows of the organ's box, in groups, for each attempt; see [`Windows`] for the alternatives.

mod layout;
mod networks;
mod roi;
mod scan_resampler;
mod settings;

pub use layout::Layout;
pub use networks::{Inference, InferenceCost, InferencePhase, Networks, Prediction};
pub use roi::{Roi, RoiChange, project_box};
pub use scan_resampler::ScanResampler;
pub use settings::{MAX_VOXELS, NetworkConfig, Windows};
