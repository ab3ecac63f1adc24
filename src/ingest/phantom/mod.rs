//! Procedural scans: abdomens and chests in HU, with organ labels of TotalSegmentator v2.
//!
//! A phantom needs no files and depends only on the seed of the source and its number. Build, pose and phase of the
//! contrast agent differ between patients as in an archive, so that a pipeline can be tested, measured and
//! trained on phantoms. Voxel axes run towards the patient's left, back and head (LPS), as scanners store them.

mod abdomen;
mod anatomy;
mod body;
mod chest;
mod field;
mod lesion;
mod noise;
mod patient;
mod scene;
mod shape;
mod trunk;
mod vessels;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Companions, Scan, ScanEntry, ScanHeader, Source, VersionHasher, content_digest};
use crate::error::{ConfigError, Fault, FaultKind, Result};
use crate::id::{FieldHasher, PatientKey, ScanId};
use crate::random::Key;
use crate::volume::{Affine, Array3, Grid, Labels, Volume, Voxels};
pub use lesion::LesionConfig;
use patient::{Build, Phase};

/// The name of the label file of a phantom.
const LABELS: &str = "labels.nii.gz";

/// Settings of the source kind `phantom`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PhantomConfig {
    /// Number of scans.
    pub count: u32,
    /// Part of the body in the scan.
    pub body: Body,
    /// Voxels along [x, y, z].
    pub shape: [u32; 3],
    /// Millimetres between neighbouring voxels along [x, y, z].
    pub spacing_mm: [f64; 3],
    /// Seed of all scans; equal seeds generate equal scans.
    pub seed: u64,
    /// Name of the data set in tables; by default the name of the source.
    pub dataset: Option<String>,
    /// Number of patients: scan n is of patient n modulo this number; by default every scan has its own patient.
    pub patients: Option<u32>,
    /// Noise relative to a routine scan: 2 is a low-dose scan, 0 a scan without noise.
    pub noise: f64,
    /// Tumors and cysts of the scans; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lesions: Option<LesionConfig>,
}

impl Default for PhantomConfig {
    fn default() -> Self {
        Self {
            count: 24,
            body: Body::Abdomen,
            shape: [128, 128, 96],
            spacing_mm: [3.0; 3],
            seed: 0,
            dataset: None,
            patients: None,
            noise: 1.0,
            lesions: None,
        }
    }
}

/// The part of the body in a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// From the lung bases to the pelvis.
    Abdomen,
    /// From the shoulders to the upper abdomen.
    Chest,
    /// Alternating abdomens and chests.
    Mixed,
}

/// An archive of phantoms.
pub struct PhantomSource {
    name: String,
    config: PhantomConfig,
}

impl PhantomSource {
    /// Creates the source `name` and checks its settings.
    ///
    /// # Errors
    /// Returns every error in the settings.
    pub fn new(config: PhantomConfig, name: &str) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if config.shape.iter().any(|n| !(8..=1024).contains(n)) {
            let message = format!("expected 8 to 1024 voxels along each axis, got {:?}", config.shape);
            errors.push(ConfigError::new("shape", message));
        }
        if config.spacing_mm.iter().any(|mm| !(0.3..=20.0).contains(mm)) {
            let message = format!("expected 0.3 to 20 mm along each axis, got {:?}", config.spacing_mm);
            errors.push(ConfigError::new("spacing_mm", message));
        }
        if !(0.0..=10.0).contains(&config.noise) {
            errors.push(ConfigError::new("noise", format!("expected 0 to 10, got {}", config.noise)));
        }
        if config.patients == Some(0) {
            errors.push(ConfigError::new("patients", "expected at least one patient, got 0"));
        }
        for error in config.lesions.iter().flat_map(LesionConfig::validate) {
            errors.push(ConfigError { field: format!("lesions.{}", error.field), ..error });
        }
        if errors.is_empty() { Ok(Self { name: name.to_owned(), config }) } else { Err(errors) }
    }

    fn grid(&self) -> Grid {
        let shape = self.config.shape.map(|n| n as usize);
        let [dx, dy, dz] = self.config.spacing_mm;
        let half = [0, 1, 2].map(|a| 0.5 * (shape[a] as f64 - 1.0) * self.config.spacing_mm[a]);
        let affine = Affine([[-dx, 0.0, 0.0, half[0]], [0.0, -dy, 0.0, half[1]], [0.0, 0.0, dz, -half[2]]]);
        Grid { shape, affine }
    }

    fn patient_of(&self, number: u32) -> u32 {
        self.config.patients.map_or(number, |patients| number % patients)
    }

    fn entry(&self, number: u32) -> ScanEntry {
        let key = format!("{number:06}");
        // Phantoms are not real patients: their ids need no secret.
        let scan = FieldHasher::new("phantom scan").add_field(&self.name).add_field(&key).finish();
        let patient = Sha256::new_with_prefix(b"phantom patient")
            .chain_update(self.config.seed.to_le_bytes())
            .chain_update(self.patient_of(number).to_le_bytes());
        ScanEntry {
            scan_id: ScanId::from_hash(&scan),
            source: self.name.clone(),
            key,
            dataset: self.config.dataset.clone().unwrap_or_else(|| self.name.clone()),
            patient_key: PatientKey::from_hash(&patient.finalize()),
            bytes: 2 * self.grid().voxels() as u64,
            modified_s: 0,
            // Phantoms never change; the default version is that of a scan whose graph changed.
            version: VersionHasher::new().add_text("scan", "phantom").finish(),
        }
    }

    fn number_of(&self, entry: &ScanEntry) -> Result<u32, Fault> {
        let number = entry.key.parse().ok().filter(|number| *number < self.config.count);
        number.ok_or_else(|| {
            let message = format!("expected the number of a phantom below {}, got another key", self.config.count);
            Fault::read(FaultKind::Missing, message)
        })
    }

    /// Returns the centre of the scan in the coordinates of the standard body.
    fn center_mm(&self, number: u32) -> [f32; 3] {
        let chest = match self.config.body {
            Body::Abdomen => false,
            Body::Chest => true,
            Body::Mixed => number % 2 == 1,
        };
        [0.0, 6.0, if chest { 66.0 } else { -95.0 }]
    }
}

impl Source for PhantomSource {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        Ok((0..self.config.count).map(|number| self.entry(number)).collect())
    }

    fn explain_empty(&self) -> String {
        "`count` is 0".to_owned()
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        self.number_of(entry)?;
        let grid = self.grid();
        let voxels = grid.voxels() as u64;
        // HU, labels, and some slices of random fields and noise.
        Ok(ScanHeader { grid, read_bytes: 3 * voxels + (2 << 20), volume_bytes: 2 * voxels })
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let number = self.number_of(entry)?;
        let seed = Key::root(self.config.seed).with("source", "phantom");
        let patient = seed.number("patient", u64::from(self.patient_of(number)));
        let scan = seed.number("scan", u64::from(number));
        let grid = self.grid();
        let build = Build::sample(&mut patient.stream("build"));
        let mut phase = scan.stream("phase");
        let enhancement = Phase::sample(&mut phase).enhancement(&mut phase);
        let scene = body::build_scene(&build, enhancement, patient, scan);
        let mut pose = scan.stream("pose");
        let center_mm = self.center_mm(number).map(|mm| mm + pose.uniform(-7.0, 7.0) as f32);
        let (mut hu, mut labels) = scene.render(&grid, center_mm, scan.stream("noise"), self.config.noise as f32);
        if let Some(lesions) = &self.config.lesions {
            lesions.add_to(&mut hu, &mut labels, &grid, scan.with("purpose", "lesions"));
        }
        let volume = Volume { grid, voxels: Voxels::I16(hu) };
        let digest = content_digest(&volume);
        Ok(Scan {
            acquisition: Default::default(),
            entry: entry.clone(),
            digest,
            volume,
            companions: Arc::new(PhantomLabels { grid, labels }),
        })
    }
}

/// The labels of a phantom, kept in memory.
struct PhantomLabels {
    grid: Grid,
    labels: Array3<u8>,
}

impl Companions for PhantomLabels {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        if pattern != LABELS {
            let message = format!("expected the label file `{LABELS}` of a phantom, got another pattern");
            return Err(Fault::mask(FaultKind::Missing, message));
        }
        Ok(Labels { grid: self.grid, ids: self.labels.map(|&id| u16::from(id)) })
    }
}
