//! Organs, and suspected real tumors, from a network.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::BitVolume;
use super::{Mask, Organ, OrganMask, merged_organs};
use crate::error::{ConfigError, Fault};
use crate::inference::{Inference, NetworkConfig};
use crate::ingest::Scan;
use crate::volume::{Array3, Connectivity};

/// Organs, and suspected real tumors, from a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentorMaskConfig {
    /// The segmentor. It looks at all windows of the scan, whatever `windows` says.
    pub network: NetworkConfig,
    /// Its classes for each organ that is wanted, as [organ, tumor]: `{ liver = [1, 2] }`.
    pub classes: BTreeMap<String, [usize; 2]>,
    /// Ids in the merged label map, as [organ, tumor], for organs that shall not have the customary ones.
    #[serde(default)]
    pub merged_ids: BTreeMap<String, [u8; 2]>,
    /// What is called tumor and connected counts as a suspected real tumor from this volume on, in mm³; smaller parts are organ.
    #[serde(default = "smallest_tumor")]
    pub suspected_from_mm3: f64,
    /// What is called organ and connected is left out below this volume, in ml.
    #[serde(default = "smallest_organ")]
    pub min_organ_ml: f64,
}

fn smallest_tumor() -> f64 {
    50.0
}

fn smallest_organ() -> f64 {
    1.0
}

/// The stage; see [`SegmentorMaskConfig`].
///
/// Suspected real tumors carry the tumor label of their organ: no synthetic tumor is put into them, their volume is logged, and trainers
/// see them as tumor.
#[derive(Debug)]
pub struct SegmentorMask {
    viewer: Inference,
    organs: Arc<[Organ]>,
    classes: Vec<[usize; 2]>,
    suspected_from_mm3: f64,
    min_organ_ml: f64,
}

impl SegmentorMask {
    /// Checks the settings against the network that was opened for them.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(config: SegmentorMaskConfig, viewer: Inference) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        let count = viewer.classes();
        let mut taken: BTreeMap<usize, &str> = BTreeMap::new();
        for (name, ids) in &config.classes {
            for &id in ids {
                let field = format!("classes.{name}");
                if id == 0 || id >= count {
                    let message =
                        format!("expected one of the network's classes, 1 to {}, got {id}", count.saturating_sub(1));
                    complaints.push(ConfigError::new(field, message));
                } else if let Some(other) = taken.insert(id, name) {
                    complaints.push(ConfigError::new(field, format!("the class {id} is that of the {other}, too")));
                }
            }
        }
        for (field, value) in [("suspected_from_mm3", config.suspected_from_mm3), ("min_organ_ml", config.min_organ_ml)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                complaints.push(ConfigError::new(field, format!("expected 0 or more, got {value}")));
            }
        }
        let names: Vec<&str> = config.classes.keys().map(String::as_str).collect();
        let organs = merged_organs(&names, &config.merged_ids).unwrap_or_else(|wrong| {
            let to_classes = |field: String| if field == "organs" { "classes".to_owned() } else { field };
            complaints.extend(wrong.into_iter().map(|it| ConfigError { field: to_classes(it.field.clone()), ..it }));
            Arc::default()
        });
        if !complaints.is_empty() {
            return Err(complaints);
        }
        let classes = organs.iter().map(|organ| config.classes[&organ.name]).collect();
        let SegmentorMaskConfig { suspected_from_mm3, min_organ_ml, .. } = config;
        Ok(Self { viewer, organs, classes, suspected_from_mm3, min_organ_ml })
    }

    /// Keeps of the voxels of `label` only what is connected and at least `least_mm3` large; the rest becomes `otherwise`. Gives the volume
    /// kept.
    fn keep_large(labels: &mut Array3<u8>, label: u8, otherwise: u8, least_mm3: f64, voxel_mm3: f64) -> f64 {
        let shape = labels.shape();
        let set = BitVolume::from_fn(shape, |voxel| labels[voxel] == label);
        let components = set.components(Connectivity::Faces);
        let voxels = components.voxels();
        let is_large = |component: usize| voxels[component] as f64 * voxel_mm3 >= least_mm3;
        for run in components.runs().filter(|run| !is_large(run.component)) {
            labels.row_mut(run.y, run.z)[run.from..run.to].fill(otherwise);
        }
        (0..voxels.len()).filter(|&it| is_large(it)).map(|it| voxels[it] as f64 * voxel_mm3).sum()
    }
}

impl Mask for SegmentorMask {
    fn viewer(&self) -> Option<&Inference> {
        Some(&self.viewer)
    }

    fn organs(&self) -> Arc<[Organ]> {
        Arc::clone(&self.organs)
    }

    fn mask(&self, scan: &Scan) -> Result<OrganMask, Fault> {
        let mut merged = vec![0u8; self.viewer.classes()];
        for (organ, [of_organ, of_tumor]) in self.organs.iter().zip(&self.classes) {
            (merged[*of_organ], merged[*of_tumor]) = (organ.label, organ.tumor_label);
        }
        let mut labels = self.viewer.segment(&scan.volume)?.map(|&id| merged[usize::from(id)]);
        let voxel_mm3 = scan.volume.grid.voxel_volume_mm3();
        for organ in self.organs.iter() {
            let least_mm3 = self.suspected_from_mm3;
            let suspected_mm3 = Self::keep_large(&mut labels, organ.tumor_label, organ.label, least_mm3, voxel_mm3);
            Self::keep_large(&mut labels, organ.label, 0, 1000.0 * self.min_organ_ml, voxel_mm3);
            if suspected_mm3 > 0.0 {
                let scan_id = scan.entry.scan_id;
                tracing::warn!(%scan_id, organ = organ.name, suspected_mm3, "a real tumor is suspected, and left alone");
            }
        }
        Ok(OrganMask { labels, organs: Arc::clone(&self.organs) })
    }
}
