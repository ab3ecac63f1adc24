//! Organs and suspected real tumors from a network.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::BitVolume;
use super::{IGNORE_LABEL, Mask, Organ, OrganMask, merged_organs};
use crate::error::{ConfigError, Fault};
use crate::inference::{Inference, NetworkConfig};
use crate::ingest::Scan;
use crate::volume::{Array3, Connectivity};

/// Settings of the mask kind `segmentor`: organs and suspected real tumors from a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentorMaskConfig {
    /// Segmentor network. Inference always covers all windows of the scan, independent of `windows`.
    pub network: NetworkConfig,
    /// Classes of the network for each organ, as [organ, tumor]: `{ liver = [1, 2] }`.
    pub classes: BTreeMap<String, [usize; 2]>,
    /// Ids in the merged label map that replace the default ids, as [organ, tumor].
    #[serde(default)]
    pub merged_ids: BTreeMap<String, [u8; 2]>,
    /// The label of suspected real tumors.
    #[serde(default)]
    pub suspected: SuspectedTumors,
    /// Minimum volume of a suspected real tumor, in mm³: smaller components of the tumor class become organ.
    #[serde(default = "default_min_tumor_mm3")]
    pub suspected_from_mm3: f64,
    /// Minimum volume of an organ, in ml: smaller components of the organ class become background.
    #[serde(default = "default_min_organ_ml")]
    pub min_organ_ml: f64,
}

/// The label of suspected real tumors in training sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuspectedTumors {
    /// Label 255: training and evaluation ignore the voxels of suspected tumors.
    #[default]
    Ignore,
    /// The tumor label of the organ: training learns suspected tumors as tumors.
    Tumor,
}

fn default_min_tumor_mm3() -> f64 {
    50.0
}

fn default_min_organ_ml() -> f64 {
    1.0
}

/// The mask stage with the settings of [`SegmentorMaskConfig`].
///
/// Suspected real tumors have [`IGNORE_LABEL`], or the tumor label of their organ with [`SuspectedTumors::Tumor`]. No synthetic tumor is
/// placed in them, and their volume is logged.
#[derive(Debug)]
pub struct SegmentorMask {
    inference: Inference,
    organs: Arc<[Organ]>,
    classes: Vec<[usize; 2]>,
    suspected: SuspectedTumors,
    suspected_from_mm3: f64,
    min_organ_ml: f64,
}

impl SegmentorMask {
    /// Creates a stage and checks its settings against the classes of the network.
    ///
    /// # Errors
    /// Returns every error in the settings.
    pub fn new(config: SegmentorMaskConfig, inference: Inference) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let count = inference.classes();
        let mut used: BTreeMap<usize, &str> = BTreeMap::new();
        for (name, ids) in &config.classes {
            for &id in ids {
                let field = format!("classes.{name}");
                if id == 0 || id >= count {
                    let message =
                        format!("expected one of the network's classes, 1 to {}, got {id}", count.saturating_sub(1));
                    errors.push(ConfigError::new(field, message));
                } else if let Some(other) = used.insert(id, name) {
                    errors
                        .push(ConfigError::new(field, format!("expected each class once, got {id} also in `{other}`")));
                }
            }
        }
        for (field, value) in [("suspected_from_mm3", config.suspected_from_mm3), ("min_organ_ml", config.min_organ_ml)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                errors.push(ConfigError::new(field, format!("expected 0 or more, got {value}")));
            }
        }
        let names: Vec<&str> = config.classes.keys().map(String::as_str).collect();
        let organs = merged_organs(&names, &config.merged_ids).unwrap_or_else(|more| {
            let to_classes = |field: String| if field == "organs" { "classes".to_owned() } else { field };
            errors
                .extend(more.into_iter().map(|error| ConfigError { field: to_classes(error.field.clone()), ..error }));
            Arc::default()
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        let classes = organs.iter().map(|organ| config.classes[&organ.name]).collect();
        let SegmentorMaskConfig { suspected, suspected_from_mm3, min_organ_ml, .. } = config;
        Ok(Self { inference, organs, classes, suspected, suspected_from_mm3, min_organ_ml })
    }

    /// Keeps the connected components of `label` of at least `min_mm3`; smaller components become `replacement`. Returns the kept
    /// volume.
    fn keep_large(labels: &mut Array3<u8>, label: u8, replacement: u8, min_mm3: f64, voxel_mm3: f64) -> f64 {
        let shape = labels.shape();
        let set = BitVolume::from_fn(shape, |voxel| labels[voxel] == label);
        let components = set.components(Connectivity::Faces);
        let voxels = components.voxels();
        let is_large = |component: usize| voxels[component] as f64 * voxel_mm3 >= min_mm3;
        for run in components.runs().filter(|run| !is_large(run.component)) {
            labels.row_mut(run.y, run.z)[run.start..run.end].fill(replacement);
        }
        (0..voxels.len())
            .filter(|&component| is_large(component))
            .map(|component| voxels[component] as f64 * voxel_mm3)
            .sum()
    }
}

impl Mask for SegmentorMask {
    fn inference(&self) -> Option<&Inference> {
        Some(&self.inference)
    }

    fn organs(&self) -> Arc<[Organ]> {
        Arc::clone(&self.organs)
    }

    fn may_ignore(&self) -> bool {
        self.suspected == SuspectedTumors::Ignore
    }

    fn mask(&self, scan: &Scan) -> Result<OrganMask, Fault> {
        let mut merged = vec![0u8; self.inference.classes()];
        for (organ, [of_organ, of_tumor]) in self.organs.iter().zip(&self.classes) {
            (merged[*of_organ], merged[*of_tumor]) = (organ.label, organ.tumor_label);
        }
        let mut labels = self.inference.segment(&scan.volume)?.map(|&id| merged[usize::from(id)]);
        let voxel_mm3 = scan.volume.grid.voxel_volume_mm3();
        for organ in self.organs.iter() {
            let min_mm3 = self.suspected_from_mm3;
            let suspected_mm3 = Self::keep_large(&mut labels, organ.tumor_label, organ.label, min_mm3, voxel_mm3);
            Self::keep_large(&mut labels, organ.label, 0, 1000.0 * self.min_organ_ml, voxel_mm3);
            if suspected_mm3 > 0.0 {
                let scan_id = scan.entry.scan_id;
                tracing::warn!(
                    %scan_id,
                    "the segmentor suspects a real tumor of {suspected_mm3:.0} mm³ in the {}: no synthetic tumor is placed in the suspected tumor",
                    organ.name
                );
            }
        }
        if self.suspected == SuspectedTumors::Ignore {
            let tumors: Vec<u8> = self.organs.iter().map(|organ| organ.tumor_label).collect();
            labels = labels.map(|label| if tumors.contains(label) { IGNORE_LABEL } else { *label });
        }
        Ok(OrganMask { labels, organs: Arc::clone(&self.organs), coverage: 1.0 })
    }
}
