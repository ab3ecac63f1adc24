//! Inference of networks on scans: between HU on a scan's grid and tensors of a network.
//!
//! This room owns the settings of a stage's network, the preprocessing of its input, the choice of its windows, and the way back to the
//! scan's grid. How many windows a device computes at once changes no result.
//!
//! A network is applied to windows of a fixed size, on a grid of its own spacing, in 0..1. A [`Inference`] is a network with its preprocessing
//! and its device. A [`Roi`] is an organ's surroundings on the network's grid, in HU: computed once for an organ, and every [`RoiChange`]
//! that a tumor makes is added to it where it is. A [`Layout`] lists the windows that are computed for one tumor, and [`Prediction`] is the
//! prediction.
//!
//! # Source
//! FreeTumor's `generate` computes all windows of the organ's box, in groups, for each attempt; see [`Windows`] for the alternatives.

mod back;
mod field;
mod layout;
mod settings;
mod viewer;

pub use back::ScanResampler;
pub use field::{Roi, RoiChange, box_on};
pub use layout::Layout;
pub use settings::{MOST_VOXELS, NetworkConfig, Windows};
pub use viewer::{Inference, InferenceCost, InferencePhase, Networks, Prediction};
