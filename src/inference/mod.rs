//! How networks look at scans.
//!
//! A network sees windows of a fixed size, on a grid of its own spacing, in 0..1. A [`Viewer`] is a network with the frame in which it
//! looks and the device on which it runs. A [`Field`] is an organ's surroundings on the viewer's grid, in HU: made once an organ, with
//! every [`Change`] that a tumor makes to it added where it is. A [`Layout`] says which windows are looked at for one tumor, and [`Seen`] is
//! what came of it.
//!
//! # Source
//! FreeTumor's `generate` looks at all windows of the organ's box, in groups, for each attempt; see [`Windows`] for what is done instead.

mod back;
mod field;
mod layout;
mod settings;
mod viewer;

pub use back::OnScan;
pub use field::{Change, Field, box_on};
pub use layout::Layout;
pub use settings::{MOST_VOXELS, NetworkConfig, Windows};
pub use viewer::{Effort, Networks, Phase, Seen, Viewer};
