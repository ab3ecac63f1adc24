//! Procedural scans: abdomens and chests in HU, with organs labelled as TotalSegmentator v2 labels them.
//!
//! A phantom needs no files. It is decided by the source's seed and its number alone: build, pose and phase of the
//! contrast agent differ from patient to patient as they do in an archive, so that a pipeline can be tried, measured and
//! trained on them. Voxels run towards the patient's left, back and head (LPS), as scanners store them.

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

use super::{Companions, Scan, ScanEntry, ScanHeader, Source, content_digest};
use crate::error::{ConfigError, Fault, FaultKind, Result};
use crate::id::{FieldHasher, PatientKey, ScanId};
use crate::random::Key;
use crate::volume::{Affine, Array3, Grid, Labels, Volume, Voxels};
pub use lesion::LesionConfig;
use patient::{Build, Phase};

/// The label file that phantoms have beside them.
const LABELS: &str = "labels.nii.gz";

/// Settings of the source kind `phantom`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PhantomConfig {
    /// Number of scans.
    pub count: u32,
    /// The part of the body in view.
    pub body: Body,
    /// Voxels along [x, y, z].
    pub shape: [u32; 3],
    /// Millimetres between neighbouring voxels along [x, y, z].
    pub spacing_mm: [f64; 3],
    /// What decides all of them; the same seed gives the same scans.
    pub seed: u64,
    /// The data set's name for tables; the source's name unless given.
    pub dataset: Option<String>,
    /// Number of patients: scan n is of patient n modulo this; one patient a scan unless given.
    pub patients: Option<u32>,
    /// Grain relative to that of an everyday scan: 2 is a low dose, 0 none at all.
    pub noise: f64,
    /// Tumors and cysts that they have; none unless given.
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

/// The part of the body in view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// From the lung bases to the pelvis.
    Abdomen,
    /// From the shoulders to the upper belly.
    Chest,
    /// Abdomens and chests in turn.
    Mixed,
}

/// An archive of phantoms.
pub struct PhantomSource {
    name: String,
    config: PhantomConfig,
}

impl PhantomSource {
    /// Phantoms under the source's `name`.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(config: PhantomConfig, name: &str) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        if config.shape.iter().any(|n| !(8..=1024).contains(n)) {
            let message = format!("expected 8 to 1024 voxels along each axis, got {:?}", config.shape);
            complaints.push(ConfigError::new("shape", message));
        }
        if config.spacing_mm.iter().any(|mm| !(0.3..=20.0).contains(mm)) {
            let message = format!("expected 0.3 to 20 mm along each axis, got {:?}", config.spacing_mm);
            complaints.push(ConfigError::new("spacing_mm", message));
        }
        if !(0.0..=10.0).contains(&config.noise) {
            complaints.push(ConfigError::new("noise", format!("expected 0 to 10, got {}", config.noise)));
        }
        if config.patients == Some(0) {
            complaints.push(ConfigError::new("patients", "expected at least one patient, got 0"));
        }
        for complaint in config.lesions.iter().flat_map(LesionConfig::complaints) {
            complaints.push(ConfigError { field: format!("lesions.{}", complaint.field), ..complaint });
        }
        if complaints.is_empty() { Ok(Self { name: name.to_owned(), config }) } else { Err(complaints) }
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
        // Phantoms are nobody: their ids need no secret.
        let scan = FieldHasher::new("phantom scan").field(&self.name).field(&key).finish();
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
        }
    }

    fn number_of(&self, entry: &ScanEntry) -> Result<u32, Fault> {
        let number = entry.key.parse().ok().filter(|number| *number < self.config.count);
        number.ok_or_else(|| {
            let message = format!("expected a phantom's number below {}, the source has no other", self.config.count);
            Fault::read(FaultKind::Missing, message)
        })
    }

    /// The middle of the view in the standard body.
    fn middle_mm(&self, number: u32) -> [f32; 3] {
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

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        self.number_of(entry)?;
        let grid = self.grid();
        let voxels = grid.voxels() as u64;
        // HU and the labels that stay beside them, and some slices of fields and noise.
        Ok(ScanHeader { grid, read_bytes: 3 * voxels + (2 << 20), volume_bytes: 2 * voxels })
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let number = self.number_of(entry)?;
        let seed = Key::root(self.config.seed).with("source", "phantom");
        let patient = seed.number("patient", u64::from(self.patient_of(number)));
        let scan = seed.number("scan", u64::from(number));
        let grid = self.grid();
        let build = Build::draw(&mut patient.draws("build"));
        let mut phase = scan.draws("phase");
        let enhancement = Phase::draw(&mut phase).enhancement(&mut phase);
        let scene = body::body(&build, enhancement, patient, scan);
        let mut pose = scan.draws("pose");
        let middle_mm = self.middle_mm(number).map(|mm| mm + pose.uniform(-7.0, 7.0) as f32);
        let (mut hu, mut labels) = scene.render(&grid, middle_mm, scan.draws("noise"), self.config.noise as f32);
        if let Some(lesions) = &self.config.lesions {
            lesions.grow(&mut hu, &mut labels, &grid, scan.with("purpose", "lesions"));
        }
        let volume = Volume { grid, voxels: Voxels::I16(hu) };
        let digest = content_digest(&volume);
        Ok(Scan { entry: entry.clone(), digest, volume, companions: Arc::new(PhantomLabels { grid, labels }) })
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
            let message = format!("phantoms have their labels in `{LABELS}`, and no other file beside them");
            return Err(Fault::mask(FaultKind::Missing, message));
        }
        Ok(Labels { grid: self.grid, ids: self.labels.map(|&id| u16::from(id)) })
    }
}
