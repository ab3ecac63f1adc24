//! What a file of weights says of the network in it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::read_metadata;
use crate::error::{Error, Result};

/// The metadata under which checkpoints of trainings say where they stand.
pub const STANDING: &str = "freetumor";

/// What `freetumor train` wrote into weights beside the numbers; nothing of it is known of weights from elsewhere.
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
/// let stated = WeightsMetadata::of(&path);
/// assert_eq!((stated.network.as_deref(), stated.spacing_mm), (Some("segmentor"), Some([4.0, 4.0, 5.0])));
/// assert_eq!(stated.window_hu, None, "a window from 250 to -175 HU is none");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightsMetadata {
    /// Which network it is: `segmentor`, `generator` or `discriminator`.
    pub network: Option<String>,
    /// Over what norms take their statistics: `instance` or `batch`.
    pub norm: Option<String>,
    /// HU that became 0 and 1.
    pub window_hu: Option<[f32; 2]>,
    /// Millimetres between voxels, along [x, y, z].
    pub spacing_mm: Option<[f64; 3]>,
    /// Voxels of a crop.
    pub patch_voxels: Option<[usize; 3]>,
    /// Whether it is no file of weights but the checkpoint of a training.
    pub is_checkpoint: bool,
}

impl WeightsMetadata {
    /// What a file says; nothing where it cannot be read, which is told when it is opened.
    pub fn of(path: &Path) -> Self {
        let said = read_metadata(path).unwrap_or_default();
        let window: Option<[f32; 2]> = number(&said, "window_hu");
        Self {
            network: said.get("network").cloned(),
            norm: said.get("norm").cloned(),
            window_hu: window.filter(|[low, high]| low.is_finite() && high.is_finite() && low < high),
            spacing_mm: number(&said, "spacing_mm"),
            patch_voxels: number(&said, "patch_voxels"),
            is_checkpoint: said.contains_key(STANDING),
        }
    }

    /// # Errors
    /// Where the file is a checkpoint.
    pub fn check_weights(&self, path: &Path) -> Result<()> {
        if !self.is_checkpoint {
            return Ok(());
        }
        let beside = path.parent().unwrap_or(Path::new(".")).join("weights");
        Err(Error::new(format!("{} is the checkpoint of a training, not a file of weights", path.display()))
            .with_hint(format!("the weights of that training lie in {}", beside.display())))
    }

    /// What is wrong with taking it for a `network`: it is said to be another.
    pub fn other_than(&self, network: &str) -> Option<String> {
        let said = self.network.as_deref().filter(|said| *said != network)?;
        Some(format!("expected the weights of a {network}, these are those of a {said}"))
    }

    /// What is wrong with showing it scans otherwise than in training, by the setting, and what it says itself.
    pub fn other_frame(&self, window_hu: [f32; 2], spacing_mm: [f64; 3]) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        if let Some(said) = self.window_hu.filter(|said| *said != window_hu) {
            let message = format!("the network was trained to see {said:?} HU, here it would see {window_hu:?}");
            found.push(("window_hu", message, format!("{said:?}")));
        }
        let differs = |said: &[f64; 3]| said.iter().zip(spacing_mm).any(|(said, here)| (said - here).abs() > 1e-6);
        if let Some(said) = self.spacing_mm.filter(differs) {
            let message = format!("the network was trained on voxels of {said:?} mm, here it would see {spacing_mm:?}");
            found.push(("spacing_mm", message, format!("{said:?}")));
        }
        found
    }
}

/// A number, or several, in JSON.
fn number<T: DeserializeOwned>(said: &BTreeMap<String, String>, name: &str) -> Option<T> {
    said.get(name).and_then(|text| serde_json::from_str(text).ok())
}
