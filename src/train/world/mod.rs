//! Patients with tumors that the synthesis knows nothing of: what an experiment calls real.
//!
//! An experiment that asks what synthetic tumors are worth needs real ones, of which everything is known. Those of this
//! world are made by a model that shares neither code nor priors with `synth`: shapes are star-shaped bodies of spherical
//! harmonics, textures are sums of random waves, tumors replace tissue in place of being subtracted from it, have rims,
//! cores and margins of their own, and come a Poisson number a patient. Patients are phantoms ([`World`]), or scans that the
//! caller brings ([`ScanWorld`]); cysts and vessels lie beside the tumors and are none.
//!
//! A patient is decided by the world's seed, its [`Role`] and its number, and by nothing else.

mod cyst;
mod harmonics;
mod patient;
mod place;
mod scans;
mod tissue;
mod tumor;
mod waves;
mod write;

pub use patient::{Patient, Patients, Role, World, populate};
pub use scans::{Ground, ScanWorld};
pub use tumor::{Diameters, Tumor, TumorTraits};
pub use write::{write_decathlon, write_patients};

/// The id of the liver in a patient's labels.
pub const LIVER: u8 = 1;
/// The id of its tumors.
pub const TUMOR: u8 = 2;
