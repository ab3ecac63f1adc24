//! What the scores of segmentors share: what a network says around a tumor's site before the synthesis, kept over its attempts.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Fault, Stage};
use crate::inference::{Inference, Layout, Prediction, Roi, RoiChange, box_on};
use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;
use crate::volume::{Array3, Region};

/// One organ's surroundings, as a network looks at its candidates.
pub(super) struct OrganInference<'scan> {
    viewer: &'scan Inference,
    scan: &'scan MaskedScan,
    /// The organ's surroundings on the viewer's grid; `None` where the scan does not show the organ.
    field: Option<Roi>,
    last: Mutex<Option<Arc<PredictionBefore>>>,
}

/// What a network says of the untouched scan in the windows of a site.
pub(super) struct PredictionBefore {
    layout: Layout,
    /// All that the windows show.
    pub region: Region,
    /// The likeliest class of each of its voxels.
    pub ids: Array3<u16>,
    /// The merged label of each of its voxels.
    pub labels: Array3<u8>,
}

/// What a network says of a candidate.
pub(super) struct PredictionAfter {
    /// What it says of the candidate, in the box that was asked for.
    pub seen: Prediction,
    /// Where that box's voxels are synthetic tumor.
    pub tumor: Array3<u8>,
}

impl<'scan> OrganInference<'scan> {
    /// # Errors
    /// A fault where the scan cannot be resampled.
    pub fn new(viewer: &'scan Inference, scan: &'scan MaskedScan, organ: &Organ) -> Result<Self, Fault> {
        let region = scan.mask.labels.extent(|&label| label == organ.label || label == organ.tumor_label);
        let field = region.map(|region| Roi::new(&scan.scan.volume, region, viewer.config()));
        let field = field.transpose().map_err(at)?;
        Ok(Self { viewer, scan, field, last: Mutex::default() })
    }

    /// Cubic millimetres of a voxel that the network sees.
    pub fn voxel_mm3(&self) -> f64 {
        self.viewer.config().spacing_mm.iter().product()
    }

    /// The windows of a candidate's site.
    fn layout(&self, field: &Roi, candidate: &Candidate) -> Result<Layout, Fault> {
        let site = field.box_of(&self.scan.scan.volume.grid, candidate.site_box);
        self.viewer.layout(Stage::Score, field, site)
    }

    /// What the network says of the untouched scan around the candidate's site; `None` where the scan has no such organ.
    ///
    /// # Errors
    /// A fault where the network cannot say.
    pub fn before(&self, candidate: &Candidate) -> Result<Option<Arc<PredictionBefore>>, Fault> {
        let Some(field) = &self.field else { return Ok(None) };
        let layout = self.layout(field, candidate)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = last.as_ref().filter(|before| before.layout == layout) {
            return Ok(Some(Arc::clone(before)));
        }
        let region = layout.bounding_box();
        let ids = self.viewer.predict(Stage::Score, field, &layout, None, region)?.ids();
        let grid = &self.scan.scan.volume.grid;
        let whole = Region { start: [0; 3], shape: region.shape };
        let on_scan = box_on(&field.grid.cut(region), whole, grid).grown([1; 3], grid.shape);
        let labels = field.labels(grid, on_scan, &self.scan.mask.labels.cut(on_scan), region).map_err(at)?;
        let before = Arc::new(PredictionBefore { layout, region, ids, labels });
        *last = Some(Arc::clone(&before));
        Ok(Some(before))
    }

    /// What the network says of a candidate: in `region`, or where `None` in the box of its tumor.
    ///
    /// # Errors
    /// A fault where the network cannot say.
    pub fn after(&self, candidate: &Candidate, region: Option<Region>) -> Result<Option<PredictionAfter>, Fault> {
        let Some(field) = &self.field else { return Ok(None) };
        let grid = &self.scan.scan.volume.grid;
        let Some(inner) = candidate.tumor.extent(|&inside| inside != 0) else { return Ok(None) };
        let start = [0, 1, 2].map(|axis| candidate.region.start[axis] + inner.start[axis]);
        let tumor_box = field.box_of(grid, Region { start, shape: inner.shape });
        let region = region.unwrap_or(tumor_box);
        let layout = self.layout(field, candidate)?;
        let mut delta_hu = candidate.after.clone();
        let voxels = delta_hu.as_mut_slice().iter_mut().zip(candidate.before.as_slice());
        voxels.for_each(|(after, before)| *after -= before);
        let change: RoiChange = field.change(grid, candidate.region, &delta_hu).map_err(at)?;
        let seen = self.viewer.predict(Stage::Score, field, &layout, Some(&change), region)?;
        let tumor = field.labels(grid, candidate.region, &candidate.tumor, region).map_err(at)?;
        Ok(Some(PredictionAfter { seen, tumor }))
    }
}

fn at(fault: Fault) -> Fault {
    fault.at(Stage::Score)
}
