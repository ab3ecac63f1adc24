//! The metadata of a file of weights: the network, and the preprocessing of its training.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::read_metadata;
use crate::error::{Error, Result};
use crate::id::{FieldHasher, PatientKey};

/// The metadata key of the hashes of the labeled patients that a network of several folds was not trained on.
pub const HELD_OUT_KEY: &str = "held_out_patients";

/// Returns a hash of a patient's key, so that a file of weights does not contain keys.
pub fn held_out_hash(patient: PatientKey) -> String {
    let hash = FieldHasher::new("held-out patient").add_field(patient.as_bytes()).finish();
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The metadata key under which checkpoints of training runs store their header.
pub const HEADER_KEY: &str = "freetumor";

/// The metadata that `freetumor train` writes into weights; all fields are `None` for weights of other programs.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::fs::File;
/// use freetumor::nn::weights::{Precision, WeightsMetadata, write_safetensors};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("segmentor.safetensors");
/// let about = [("network", "segmentor"), ("spacing_mm", "[4.0,4.0,5.0]"), ("window_hu", "[250.0,-175.0]")];
/// let about = about.map(|(name, text)| (name.to_owned(), text.to_owned()));
/// write_safetensors(&mut File::create(&path)?, &BTreeMap::new(), &about.into(), Precision::Single)?;
/// let metadata = WeightsMetadata::of(&path);
/// assert_eq!((metadata.network.as_deref(), metadata.spacing_mm), (Some("segmentor"), Some([4.0, 4.0, 5.0])));
/// assert_eq!(metadata.window_hu, None, "a window from 250 to -175 HU is invalid");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightsMetadata {
    /// The network: `segmentor`, `generator` or `discriminator`.
    pub network: Option<String>,
    /// The kind of the normalization layers: `instance` or `batch`.
    pub norm: Option<String>,
    /// The HU that were mapped to 0 and 1 in training.
    pub window_hu: Option<[f32; 2]>,
    /// The voxel spacing used in training, in millimetres, along [x, y, z].
    pub spacing_mm: Option<[f64; 3]>,
    /// The voxels of a training crop, along [x, y, z].
    pub patch_voxels: Option<[usize; 3]>,
    /// The hashes of the labeled patients that the network was not trained on; empty without folds.
    pub held_out_patients: Vec<String>,
    /// Whether the file is the checkpoint of a training run instead of a file of weights.
    pub is_checkpoint: bool,
}

impl WeightsMetadata {
    /// Reads the metadata of a file; empty if the file cannot be read, as the error is reported when the weights are opened.
    pub fn of(path: &Path) -> Self {
        let entries = read_metadata(path).unwrap_or_default();
        let window: Option<[f32; 2]> = parse(&entries, "window_hu");
        Self {
            network: entries.get("network").cloned(),
            norm: entries.get("norm").cloned(),
            window_hu: window.filter(|[low, high]| low.is_finite() && high.is_finite() && low < high),
            spacing_mm: parse(&entries, "spacing_mm"),
            patch_voxels: parse(&entries, "patch_voxels"),
            held_out_patients: parse(&entries, HELD_OUT_KEY).unwrap_or_default(),
            is_checkpoint: entries.contains_key(HEADER_KEY),
        }
    }

    /// Checks that the file is a file of weights.
    ///
    /// # Errors
    /// If the file is a checkpoint.
    pub fn check_weights(&self, path: &Path) -> Result<()> {
        if !self.is_checkpoint {
            return Ok(());
        }
        let weights = path.parent().unwrap_or(Path::new(".")).join("weights");
        Err(Error::new(format!("expected a weights file, got the checkpoint of a training run: {}", path.display()))
            .with_hint(format!("use the weights of that training run in {}", weights.display())))
    }

    /// Returns an error message if the metadata names another network than `network`, otherwise `None`.
    pub fn network_mismatch(&self, network: &str) -> Option<String> {
        let actual = self.network.as_deref().filter(|actual| *actual != network)?;
        Some(format!("expected the weights of a {network}, got those of a {actual}"))
    }

    /// Returns the settings of preprocessing that differ from training: the setting, an error message, and the value used in training.
    pub fn preprocessing_mismatches(
        &self,
        window_hu: [f32; 2],
        spacing_mm: [f64; 3],
    ) -> Vec<(&'static str, String, String)> {
        let mut mismatches = Vec::new();
        if let Some(trained) = self.window_hu.filter(|trained| *trained != window_hu) {
            let message = format!("expected the HU window used in training, {trained:?}, got {window_hu:?}");
            mismatches.push(("window_hu", message, format!("{trained:?}")));
        }
        let differs =
            |trained: &[f64; 3]| trained.iter().zip(spacing_mm).any(|(trained, mm)| (trained - mm).abs() > 1e-6);
        if let Some(trained) = self.spacing_mm.filter(differs) {
            let message = format!("expected the voxel spacing used in training, {trained:?} mm, got {spacing_mm:?}");
            mismatches.push(("spacing_mm", message, format!("{trained:?}")));
        }
        mismatches
    }
}

/// Parses one or several numbers in JSON; `None` if the entry is absent or malformed.
fn parse<T: DeserializeOwned>(entries: &BTreeMap<String, String>, name: &str) -> Option<T> {
    entries.get(name).and_then(|text| serde_json::from_str(text).ok())
}
