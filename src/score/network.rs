//! Inference for scores: predictions of a network around a tumor's site, before and after the synthesis. The prediction before is
//! cached for all attempts at the site.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Fault, Stage};
use crate::inference::{Inference, Layout, Prediction, Roi, RoiChange, project_box};
use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;
use crate::volume::{Array3, Region};

/// The inference of a network on the candidates of one organ of one scan.
pub(super) struct OrganInference<'scan> {
    inference: &'scan Inference,
    scan: &'scan MaskedScan,
    /// The region of interest around the organ on the network's grid; `None` if the scan does not contain the organ.
    roi: Option<Roi>,
    last: Mutex<Option<Arc<PredictionBefore>>>,
}

/// The prediction of a network on the original scan in the windows of a site.
pub(super) struct PredictionBefore {
    layout: Layout,
    /// The region covered by the windows.
    pub region: Region,
    /// The likeliest class of each voxel of the region.
    pub ids: Array3<u16>,
    /// The merged label of each voxel of the region.
    pub labels: Array3<u8>,
}

/// The prediction of a network on a candidate.
pub(super) struct PredictionAfter {
    /// The prediction in the requested region.
    pub prediction: Prediction,
    /// The mask of the synthetic tumor in the same region.
    pub tumor: Array3<u8>,
    /// The mask of all voxels that the candidate may have changed, in the same region.
    pub support: Array3<u8>,
}

impl<'scan> OrganInference<'scan> {
    /// Creates the inference for one organ of one scan.
    ///
    /// # Errors
    /// A fault if the scan cannot be resampled.
    pub fn new(inference: &'scan Inference, scan: &'scan MaskedScan, organ: &Organ) -> Result<Self, Fault> {
        let region = scan.mask.labels.extent(|&label| label == organ.label || label == organ.tumor_label);
        let roi = region.map(|region| Roi::new(&scan.scan.volume, region, inference.config()));
        let roi = roi.transpose().map_err(at_score)?;
        Ok(Self { inference, scan, roi, last: Mutex::default() })
    }

    /// Returns the volume of a voxel of the network's grid in cubic millimetres.
    pub fn voxel_mm3(&self) -> f64 {
        self.inference.config().spacing_mm.iter().product()
    }

    /// Returns the windows of a candidate's site.
    fn layout(&self, roi: &Roi, candidate: &Candidate) -> Result<Layout, Fault> {
        let site = roi.project_from_scan(&self.scan.scan.volume.grid, candidate.site_box);
        self.inference.layout(Stage::Score, roi, site)
    }

    /// Returns the prediction on the original scan around the candidate's site; `None` if the scan does not contain the organ.
    ///
    /// # Errors
    /// A fault if the inference fails.
    pub fn predict_before(&self, candidate: &Candidate) -> Result<Option<Arc<PredictionBefore>>, Fault> {
        let Some(roi) = &self.roi else { return Ok(None) };
        let layout = self.layout(roi, candidate)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = last.as_ref().filter(|before| before.layout == layout) {
            return Ok(Some(Arc::clone(before)));
        }
        let region = layout.bounding_box();
        let ids = self.inference.predict(Stage::Score, roi, &layout, None, region)?.ids();
        let grid = &self.scan.scan.volume.grid;
        let whole = Region { start: [0; 3], shape: region.shape };
        let scan_box = project_box(whole, &roi.grid.cut(region), grid).grown([1; 3], grid.shape);
        let labels =
            roi.resample_labels(grid, scan_box, &self.scan.mask.labels.cut(scan_box), region).map_err(at_score)?;
        let before = Arc::new(PredictionBefore { layout, region, ids, labels });
        *last = Some(Arc::clone(&before));
        Ok(Some(before))
    }

    /// Returns the prediction on a candidate in `region`, or in the box of its tumor if `None`.
    ///
    /// # Errors
    /// A fault if the inference fails.
    pub fn predict_after(
        &self,
        candidate: &Candidate,
        region: Option<Region>,
    ) -> Result<Option<PredictionAfter>, Fault> {
        let Some(roi) = &self.roi else { return Ok(None) };
        let grid = &self.scan.scan.volume.grid;
        let Some(inner) = candidate.tumor.extent(|&inside| inside != 0) else { return Ok(None) };
        let start = [0, 1, 2].map(|axis| candidate.region.start[axis] + inner.start[axis]);
        let tumor_box = roi.project_from_scan(grid, Region { start, shape: inner.shape });
        let region = region.unwrap_or(tumor_box);
        let layout = self.layout(roi, candidate)?;
        let mut delta_hu = candidate.after.clone();
        let voxels = delta_hu.as_mut_slice().iter_mut().zip(candidate.before.as_slice());
        voxels.for_each(|(after, before)| *after -= before);
        let change: RoiChange = roi.resample_change(grid, candidate.region, &delta_hu).map_err(at_score)?;
        let prediction = self.inference.predict(Stage::Score, roi, &layout, Some(&change), region)?;
        let resampled = |mask| roi.resample_labels(grid, candidate.region, mask, region).map_err(at_score);
        let (tumor, support) = (resampled(&candidate.tumor)?, resampled(&candidate.support)?);
        Ok(Some(PredictionAfter { prediction, tumor, support }))
    }
}

fn at_score(fault: Fault) -> Fault {
    fault.at(Stage::Score)
}
