//! The patients of the experiment, with tumors of a model that is independent of the synthesis.
//!
//! An experiment that measures the value of synthetic tumors requires real tumors with complete truth. The tumors of a population are made
//! by a model that shares neither code nor priors with `freetumor::synth`: shapes are star-shaped bodies of spherical harmonics, textures
//! are sums of random waves, tumors replace tissue instead of being subtracted from it, have separate models of rims, cores and margins,
//! and their number per patient is Poisson distributed. Patients are phantoms ([`Population`]), or scans that the caller provides
//! ([`ScanPopulation`]); they also have cysts and vessels, which are not tumors.
//!
//! A patient is a function of the seed of the population, its [`Role`] and its number only.

mod cyst;
mod harmonics;
mod labels;
mod patient;
mod positions;
mod scans;
mod tissue;
mod tumor;
mod waves;
mod write;

pub use labels::{LIVER, TUMOR};
pub use patient::{PatientSource, Population, Role};
pub use scans::{BaseScan, ScanPopulation};
pub use tumor::Diameters;
pub use write::write_patients;
