//! The sources of synthetic tumors of a segmentor, and crops with a tumor of them.

use std::sync::Arc;

use super::TumorMaker;
use crate::random::RandomStream;
use crate::synth::Candidate;
use crate::train::data::{Case, Cases, Crop, TumorSampler, TumorSampling, crop_around};
use crate::volume::{Array3, HuWindow, Region};

/// A source of synthetic tumors.
#[derive(Clone)]
pub enum SyntheticSource {
    /// Scans with a synthetic tumor, such as the samples of a run folder.
    Pool(Arc<Cases>),
    /// Candidates that were made before the training run, each with the index of its case. Only the regions of the tumors are in memory.
    Candidates {
        /// The scans.
        cases: Arc<Cases>,
        /// The candidates, on the grids of the cases.
        tumors: Arc<[(usize, Candidate)]>,
    },
    /// Scans in which a fresh tumor is made for each crop.
    Fresh {
        /// The scans.
        cases: Arc<Cases>,
        /// The stages that make the tumors.
        tumors: TumorMaker,
    },
}

impl SyntheticSource {
    /// Returns a sampler of the tumors of this source; without tumors for fresh ones.
    pub(super) fn sampler(&self, draw: TumorSampling) -> TumorSampler {
        match self {
            Self::Pool(cases) => {
                TumorSampler::new(draw, cases.entries().iter().map(|entry| (entry.source_scan, entry.tumor_mm3)))
            }
            Self::Candidates { tumors, .. } => {
                TumorSampler::new(draw, tumors.iter().map(|(case, candidate)| (*case, voxels(candidate))))
            }
            Self::Fresh { .. } => TumorSampler::default(),
        }
    }
}

/// Returns the number of voxels of a tumor.
pub(super) fn voxels(candidate: &Candidate) -> f64 {
    candidate.tumor.as_slice().iter().filter(|&&inside| inside > 0).count() as f64
}

/// Returns the crop around a tumor that was made in a case.
pub(super) fn with_tumor(case: &Case, candidate: &Candidate, random: &mut RandomStream) -> Crop {
    let voxels: Vec<usize> =
        candidate.tumor.as_slice().iter().enumerate().filter(|(_, inside)| **inside > 0).map(|(at, _)| at).collect();
    let Region { start, shape: [nx, ny, _] } = candidate.region;
    let at = voxels[random.index(voxels.len())];
    let middle = [start[0] + at % nx, start[1] + at / nx % ny, start[2] + at / nx / ny];
    let region = crop_around(middle, case.patch, case.shape());
    let mut crop = Crop::of(case, region);
    paint(&mut crop, region, candidate, case.window);
    crop.origin.is_synthetic = true;
    crop
}

/// Copies the part of a candidate that is inside a crop to the crop.
fn paint(crop: &mut Crop, region: Region, candidate: &Candidate, window: HuWindow) {
    let (from, to) = (candidate.region.start, candidate.region.end());
    let low = [0, 1, 2].map(|axis| from[axis].max(region.start[axis]));
    let high = [0, 1, 2].map(|axis| to[axis].min(region.end()[axis]));
    if (0..3).any(|axis| low[axis] >= high[axis]) {
        return;
    }
    let shape = [0, 1, 2].map(|axis| high[axis] - low[axis]);
    let inner = Region { start: [0, 1, 2].map(|axis| low[axis] - from[axis]), shape };
    let at = [0, 1, 2].map(|axis| low[axis] - region.start[axis]);
    let image: Array3<f32> = candidate.after.cut(inner).map(|hu| window.apply(*hu));
    crop.image.paste(at, &image);
    crop.labels.paste(at, &candidate.labels.cut(inner));
}
