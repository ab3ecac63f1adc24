//! Synthetic tumors: site, shape, texture, difference, blend.
//!
//! This module owns the synthesis of candidates, by rules ([`Rules`]) or by a network ([`Generator`]), and the priors of each organ. Each
//! attempt is a function of the scan, the organ mask, the settings with their weights, and an [`AttemptKey`].
//!
//! All computations run in the tumor's box on the scan's grid, in HU. Voxels outside the box are neither changed nor copied. See
//! [`Synthesize`] for the interface of a stage.

pub mod blend;
mod boundary;
pub mod classes;
mod config;
mod contrast;
mod difference;
mod directions;
mod displaced_row;
mod domain;
mod fine_grid;
mod generator;
mod growth;
mod host;
mod inner_structure;
mod interpolation;
mod level;
mod marching;
mod mass_effect;
pub mod measure;
mod noise;
pub mod organ;
pub mod prior;
mod profile;
mod reference;
mod reference_sites;
mod rules;
pub mod shape;
mod site;
mod steering;
pub mod texture;
mod tissue;
mod tissue_noise;
mod tumor;
mod tumor_numbers;

use serde::{Deserialize, Serialize};

pub(crate) use boundary::boundary_distance_mm;
pub use config::{Differences, RulesConfig, Sites, Sizes, Textures};
pub use difference::TEXTURE_MEAN;
pub(crate) use domain::exterior_fraction;
pub use fine_grid::FineGrid;
pub use generator::{DifferenceActivation, Generator, GeneratorConfig};
pub use inner_structure::SampledStructure;
pub use rules::Rules;
pub use steering::Steering;
pub use tumor_numbers::{RealNumbers, TumorNumbers, TumorsPerScan};

use std::path::PathBuf;

use crate::error::Fault;
use crate::id::{CandidateDigest, FieldHasher};
use crate::inference::Inference;
use crate::mask::{MaskedScan, Organ};
use crate::random::Key;
use crate::volume::{Array3, Region};

/// Position and size of a tumor. Lengths are in mm, world coordinates in RAS+.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// `tiny`, `small`, `medium` or `large`: by equivalent diameter (<8, 8–16, 16–32, ≥32 mm), or the sampled class.
    pub size_class: String,
    /// The voxel nearest to the centre, [x, y, z] on the scan's grid.
    pub site_voxel: [usize; 3],
    /// The centre in RAS+ mm.
    pub site_mm: [f64; 3],
    /// Semi-axes before deformation, descending.
    pub radii_mm: [f64; 3],
    /// Volume of the labeled voxels.
    pub volume_mm3: f64,
    /// Diameter of the ball of the same volume.
    pub diameter_mm: f64,
    /// π^⅓ (6V)^⅔ / A of the labeled voxels' surface; see `synth::measure`.
    pub sphericity: f64,
    /// Share of the sampled shape that was clipped because it is outside the healthy organ.
    pub clipped_fraction: f64,
    /// Distance from the centre to the nearest voxel outside the organ; 0 if the centre is outside.
    pub boundary_distance_mm: f64,
    /// Share of the tumor's surface that does not face its organ.
    #[serde(default)]
    pub exterior_fraction: f64,
    /// Volume of the voxels that the tumor may change: the tumor and the tissue that it displaces.
    #[serde(default)]
    pub support_mm3: f64,
    /// Share of its radius by which the tumor displaces its surroundings where no bone or air is near.
    #[serde(default)]
    pub mass_effect: f64,
    /// Whether vessels continue into the tumor.
    #[serde(default)]
    pub infiltrating: bool,
    /// Change of HU that the rules sampled for the solid tumor, before texture and soft edge; `None` if a network or program decides.
    #[serde(default)]
    pub drawn_contrast_hu: Option<f64>,
    /// The factor by which steering sampled tumors of this size and contrast more often; `None` without steering.
    #[serde(default)]
    pub steering_factor: Option<f64>,
    /// The inner structure that was sampled.
    #[serde(default)]
    pub structure: SampledStructure,
}

/// One synthetic tumor in its box on the scan's grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The box: it contains every voxel whose HU or label differs from the scan's.
    pub region: Region,
    /// The box that contains every tumor of this candidate's site. A prediction on the original scan in this box is valid for all of them.
    pub site_box: Region,
    /// 1 in voxels whose HU or label may differ from the scan's: the tumor and the tissue that it displaces.
    pub support: Array3<u8>,
    /// HU of the box in the scan.
    pub before: Array3<f32>,
    /// HU of the box after synthesis: equal to `before` outside the support, integers if those of the scan are.
    pub after: Array3<f32>,
    /// Merged labels of the box after synthesis: labels move with displaced tissue, and the synthetic tumor has its organ's tumor label.
    pub labels: Array3<u8>,
    /// 1 in the synthetic tumor (a real tumor may have the same label).
    pub tumor: Array3<u8>,
    /// Position and size.
    pub geometry: Geometry,
}

impl Candidate {
    /// Returns the SHA-256 of the box, its voxels before and after, and its labels. Equal patches have equal digests.
    pub fn digest(&self) -> CandidateDigest {
        voxels_digest(self.region, &self.before, &self.after, &self.labels)
    }
}

/// Returns the digest of a candidate's box; see [`Candidate::digest`].
pub fn voxels_digest(
    region: Region,
    before: &Array3<f32>,
    after: &Array3<f32>,
    labels: &Array3<u8>,
) -> CandidateDigest {
    let hash = hash_voxels(FieldHasher::new("candidate"), region, before, after, labels);
    CandidateDigest::from_hash(&hash.finish())
}

/// Adds a box with its voxels before and after, and its labels to a hash.
pub(crate) fn hash_voxels(
    hasher: FieldHasher,
    region: Region,
    before: &Array3<f32>,
    after: &Array3<f32>,
    labels: &Array3<u8>,
) -> FieldHasher {
    let numbers = region.start.into_iter().chain(region.shape);
    let position: Vec<u8> = numbers.flat_map(|number| (number as u64).to_le_bytes()).collect();
    // Adding zero turns −0 into 0, so that float and integer HU have the same digest.
    let hu =
        |array: &Array3<f32>| -> Vec<u8> { array.as_slice().iter().flat_map(|hu| (hu + 0.0).to_le_bytes()).collect() };
    hasher.add_field(position).add_field(hu(before)).add_field(hu(after)).add_field(labels.as_slice())
}

/// The result of an attempt: a tumor, or the reason why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    /// A tumor to be scored.
    Candidate(Box<Candidate>),
    /// No tumor; `reason` is a short stable code such as `no_site` or `clipped`.
    Rejected {
        /// The reason.
        reason: String,
    },
}

/// A synthesis of tumors. Work that is the same for all attempts is done once, in [`Synthesize::site_plan`].
pub trait Synthesize: Send + Sync {
    /// Prepares one organ of one scan. The result is used for all variants and attempts.
    ///
    /// # Errors
    /// A [`Fault`] if no attempt is possible on this scan.
    fn site_plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault>;

    /// Returns the files and folders that the stage reads for every scan, beside its weights, which its digest covers.
    fn program_files(&self) -> &[PathBuf] {
        &[]
    }

    /// Returns the network of the synthesis, if it has one.
    fn inference(&self) -> Option<&Inference> {
        None
    }
}

/// The attempts in one organ of one scan.
pub trait Attempts: Send + Sync {
    /// Synthesizes the tumor of `key`.
    ///
    /// # Errors
    /// A [`Fault`] if the attempt could not be computed.
    fn attempt(&self, key: AttemptKey) -> Result<Attempt, Fault>;
}

/// The key of one attempt at one tumor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptKey {
    tumor: Key,
    number: u32,
}

impl AttemptKey {
    /// Creates the key of attempt `number` at the tumor of key `tumor`.
    pub fn new(tumor: Key, number: u32) -> Self {
        Self { tumor, number }
    }

    /// Returns the key of the random values of this attempt alone.
    pub fn attempt(self) -> Key {
        self.tumor.number("attempt", u64::from(self.number))
    }

    /// Returns the key of the values that `attempts` consecutive attempts share: size and site.
    ///
    /// ```
    /// use freetumor::random::Key;
    /// use freetumor::synth::AttemptKey;
    /// let key = |number| AttemptKey::new(Key::root(7), number);
    /// assert_eq!(key(3).site(1), key(3).attempt());
    /// assert_eq!(key(3).site(5), key(4).site(5));
    /// assert_ne!(key(4).site(5), key(5).site(5));
    /// ```
    pub fn site(self, attempts: u32) -> Key {
        match attempts {
            0 | 1 => self.attempt(),
            _ => self.tumor.number("site", u64::from(self.number / attempts)),
        }
    }
}
