//! The patients of the experiment: with tumors of a model that shares nothing with the synthesis.
//!
//! An experiment that measures the value of synthetic tumors needs real ones, of which everything is known. Those of this
//! world are made by a model that shares neither code nor priors with `freetumor::synth`: shapes are star-shaped bodies of
//! spherical harmonics, textures are sums of random waves, tumors replace tissue instead of being subtracted from it, have rims,
//! cores and margins of their own, and their number per patient is Poisson distributed. Patients are phantoms ([`World`]), or scans
//! that the caller provides ([`ScanWorld`]); cysts and vessels are beside the tumors and are no tumors.
//!
//! A patient is a function of the world's seed, its [`Role`] and its number, and of nothing else.

mod cyst;
mod harmonics;
mod labels;
mod patient;
mod place;
mod scans;
mod tissue;
mod tumor;
mod waves;
mod write;

pub use labels::{LIVER, TUMOR};
pub use patient::{Patients, Role, World};
pub use scans::{Ground, ScanWorld};
pub use tumor::Diameters;
pub use write::write_patients;
