//! Synthetic tumors: site, shape, texture, difference, blend.
//!
//! This room owns how a candidate is made, by rules ([`Rules`]) or by a network ([`Generator`]), and the priors of each organ. Each attempt is
//! a function of the scan, the organ mask, the settings with their weights, and an [`AttemptKey`].
//!
//! Everything is computed in the tumor's box on the scan's own grid, in HU; voxels outside the box are neither changed nor copied. See
//! [`Synthesize`] for the interface of a stage.

pub mod blend;
pub mod classes;
mod config;
mod difference;
mod generator;
mod level;
mod marching;
pub mod measure;
mod noise;
pub mod organ;
mod placed;
pub mod prior;
mod rules;
pub mod shape;
mod site;
pub mod texture;

use serde::{Deserialize, Serialize};

pub use config::{Differences, RulesConfig, Sites, Sizes, Textures};
pub use difference::TEXTURE_MEAN;
pub use generator::{Activation, Generator, GeneratorConfig};
pub use rules::Rules;
pub(crate) use site::boundary_distance_mm;

use crate::error::Fault;
use crate::id::{CandidateDigest, FieldHasher};
use crate::inference::Inference;
use crate::mask::{MaskedScan, Organ};
use crate::random::Key;
use crate::volume::{Array3, Region};

/// Where a tumor lies and how large it is. Lengths in mm, world coordinates RAS+.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// `tiny`, `small`, `medium` or `large`: by equivalent diameter (<8, 8–16, 16–32, ≥32 mm), or the drawn class.
    pub size_class: String,
    /// The voxel nearest to the centre, [x, y, z] on the scan's grid.
    pub site_voxel: [usize; 3],
    /// The centre in RAS+ mm.
    pub site_mm: [f64; 3],
    /// Semi-axes before deformation, descending.
    pub radii_mm: [f64; 3],
    /// Volume of the labelled voxels.
    pub volume_mm3: f64,
    /// Diameter of the ball of that volume.
    pub diameter_mm: f64,
    /// π^⅓ (6V)^⅔ / A of the labelled voxels' surface; see `synth::measure`.
    pub sphericity: f64,
    /// Share of the drawn shape that fell outside the healthy organ and was clipped away.
    pub clipped_fraction: f64,
    /// From the centre to the nearest voxel outside the organ.
    pub boundary_distance_mm: f64,
    /// Change of HU that the rules drew for the solid tumor, before texture and soft edge; `None` where a network or program decides.
    #[serde(default)]
    pub drawn_contrast_hu: Option<f64>,
}

/// One synthetic tumor in its box on the scan's grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The box: every voxel whose HU or label differs from the scan's lies inside.
    pub region: Region,
    /// The box in which every tumor of this candidate's site lies: what a network says of the untouched scan there holds for all of them.
    pub site_box: Region,
    /// HU of the box before, as in the scan.
    pub before: Array3<f32>,
    /// HU of the box after; equal to `before` outside the healthy organ, whole numbers where the scan's are.
    pub after: Array3<f32>,
    /// Merged labels of the box after: the synthetic tumor carries its organ's tumor label.
    pub labels: Array3<u8>,
    /// 1 where the label is the synthetic tumor (a real tumor may share the label).
    pub tumor: Array3<u8>,
    /// Where and how large.
    pub geometry: Geometry,
}

impl Candidate {
    /// SHA-256 of the box, its voxels before and after, and its labels: equal for equal patches.
    pub fn digest(&self) -> CandidateDigest {
        voxels_digest(self.region, &self.before, &self.after, &self.labels)
    }
}

/// The digest of a candidate's box; see [`Candidate::digest`].
pub fn voxels_digest(
    region: Region,
    before: &Array3<f32>,
    after: &Array3<f32>,
    labels: &Array3<u8>,
) -> CandidateDigest {
    let numbers = region.start.into_iter().chain(region.shape);
    let place: Vec<u8> = numbers.flat_map(|number| (number as u64).to_le_bytes()).collect();
    // Adding zero makes −0 the same as 0, as whole HU do.
    let hu =
        |array: &Array3<f32>| -> Vec<u8> { array.as_slice().iter().flat_map(|hu| (hu + 0.0).to_le_bytes()).collect() };
    let hash = FieldHasher::new("candidate").field(place).field(hu(before)).field(hu(after)).field(labels.as_slice());
    CandidateDigest::from_hash(&hash.finish())
}

/// What an attempt gives: a tumor, or a recorded reason why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    /// A tumor to be scored.
    Candidate(Box<Candidate>),
    /// No place for it; `reason` is a short stable code such as `no_site` or `clipped`.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// A way to make tumors. Work that does not change between attempts is done once, in [`Synthesize::site_plan`].
pub trait Synthesize: Send + Sync {
    /// Prepares one organ of one scan; kept over all variants and attempts.
    ///
    /// # Errors
    /// A [`Fault`] where this scan cannot be worked on at all.
    fn site_plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault>;

    /// The network that it looks with, where it does.
    fn viewer(&self) -> Option<&Inference> {
        None
    }
}

/// The attempts at one organ of one scan.
pub trait Attempts: Send + Sync {
    /// Makes the tumor that `key` defines.
    ///
    /// # Errors
    /// A [`Fault`] where the attempt could not be computed.
    fn attempt(&self, key: AttemptKey) -> Result<Attempt, Fault>;
}

/// What defines one attempt at one tumor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptKey {
    tumor: Key,
    number: u32,
}

impl AttemptKey {
    /// The attempt of that number at the tumor that `tumor` defines.
    pub fn new(tumor: Key, number: u32) -> Self {
        Self { tumor, number }
    }

    /// The key of all that is drawn for this attempt alone.
    pub fn attempt(self) -> Key {
        self.tumor.number("attempt", u64::from(self.number))
    }

    /// The key of what `attempts` attempts in a row share: their size and site.
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
