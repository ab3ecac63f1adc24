//! The real tumors of the scans.

use std::path::Path;
use std::sync::Arc;

use freetumor::error::Result;
use freetumor::ingest::Scan;
use freetumor::mask::BitVolume;
use freetumor::volume::{Array3, Connectivity, HuWindow, Picture, Region, before_and_after_row};

use super::{MARGIN_MM, PIXELS, failed, scans};

/// The minimum volume of a tumor; smaller parts of a label are errors of the label.
const MIN_MM3: f64 = 250.0;

/// A real tumor in its scan.
pub struct RealTumor {
    pub scan: Arc<Scan>,
    pub window: HuWindow,
    /// The box of the tumor.
    pub region: Region,
    /// 1 in the tumor.
    pub mask: Array3<u8>,
}

impl RealTumor {
    /// Draws the tumor as a row of a sheet.
    pub fn row(&self) -> Picture {
        let hu = self.scan.volume.voxels.hu_of(self.region);
        before_and_after_row(&self.scan.volume, self.region, &hu, &self.mask, self.window, MARGIN_MM, PIXELS)
    }
}

/// Returns the labeled tumors: one of the lung and one of soft tissue. No other scan of the folder has labels of its tumors.
pub fn tumors(root: &Path) -> Result<Vec<RealTumor>> {
    let chest = HuWindow { low_hu: -1000.0, high_hu: 500.0 };
    let mut all = Vec::new();
    for (file, labels, id, window) in [
        ("lung1_001/ct.nii.gz", "labels.nii.gz", 4, chest),
        ("sts_002/ct.nii.gz", "tumor.nii.gz", 1, HuWindow::ABDOMEN),
    ] {
        for scan in scans(root, file)? {
            let labels =
                scan.companions.labels(labels).and_then(|labels| labels.onto(&scan.volume.grid)).map_err(failed)?;
            let set = BitVolume::from_fn(labels.ids.shape(), |voxel| labels.ids[voxel] == id);
            all.extend(parts(&scan, &set, window));
        }
    }
    Ok(all)
}

/// Returns the connected parts of a set.
fn parts(scan: &Arc<Scan>, set: &BitVolume, window: HuWindow) -> Vec<RealTumor> {
    let components = set.components(Connectivity::Faces);
    let voxel_mm3 = scan.volume.grid.voxel_volume_mm3();
    let sizes = components.voxels();
    let is_tumor = |component: &usize| sizes[*component] as f64 * voxel_mm3 >= MIN_MM3;
    let tumor_of = |component: usize| {
        let mut mask = Array3::filled(set.shape(), 0u8);
        for run in components.runs().filter(|run| run.component == component) {
            mask.row_mut(run.y, run.z)[run.start..run.end].fill(1);
        }
        let region = mask.extent(|&inside| inside != 0)?;
        Some(RealTumor { scan: Arc::clone(scan), window, region, mask: mask.cut(region) })
    };
    (0..sizes.len()).filter(is_tumor).filter_map(tumor_of).collect()
}
