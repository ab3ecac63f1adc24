//! A scan into which tumors and cysts are put.

use freetumor::volume::{Array3, Boundary, Gaussian, Grid, Region, Scratch};

use super::cyst::Cyst;
use super::labels::TUMOR;
use super::tumor::Tumor;

/// The number of points of a voxel along each axis that are averaged, for partial volumes at edges.
const POINTS: usize = 2;
/// The deviation of the Gaussian average of the HU of the organ: wider than noise and small vessels.
const SMOOTHING_MM: f64 = 4.0;

/// A scan into which lesions are put.
pub(super) struct Tissue<'a> {
    grid: &'a Grid,
    /// The organ without its lesions.
    organ: &'a Array3<bool>,
    pub(super) hu: Array3<i16>,
    pub(super) labels: Array3<u8>,
}

impl<'a> Tissue<'a> {
    pub(super) fn new(grid: &'a Grid, organ: &'a Array3<bool>, hu: Array3<i16>, labels: Array3<u8>) -> Self {
        Self { grid, organ, hu, labels }
    }

    /// Returns the region within `reach_mm` of a point.
    fn region_around(&self, center_mm: [f64; 3], reach_mm: f64) -> Option<Region> {
        let voxel = self.grid.affine.inverse()?.apply(center_mm);
        let reach = self.grid.spacing_mm().map(|mm| reach_mm / mm + 1.0);
        let start = [0, 1, 2].map(|a| (voxel[a] - reach[a]).floor().max(0.0) as usize);
        let end = [0, 1, 2].map(|a| ((voxel[a] + reach[a]).ceil().max(0.0) as usize + 1).min(self.grid.shape[a]));
        (0..3).all(|a| start[a] < end[a]).then(|| Region { start, shape: [0, 1, 2].map(|a| end[a] - start[a]) })
    }

    /// Adds a cyst to the organ; the label stays that of the organ.
    pub(super) fn add_cyst(&mut self, cyst: &Cyst) {
        self.blend(cyst.center_mm, cyst.reach_mm(), None, |_, point_mm| cyst.at(point_mm));
    }

    /// Counts the voxels of a tumor: voxels of the organ in which its share is at least 0.5.
    pub(super) fn count_voxels(&self, tumor: &Tumor) -> usize {
        let Some(region) = self.region_around(tumor.center_mm, tumor.reach_mm()) else { return 0 };
        let [nx, ny, _] = region.shape;
        let voxels = (0..region.voxels()).map(|at| {
            let offset = [at % nx, at / nx % ny, at / (nx * ny)];
            [0, 1, 2].map(|axis| region.start[axis] + offset[axis])
        });
        let is_tumor = |voxel: &[usize; 3]| {
            self.organ[*voxel] && self.mean_of_points(*voxel, |point_mm| (tumor.at(point_mm).share, 0.0)).0 >= 0.5
        };
        voxels.filter(is_tumor).count()
    }

    /// Adds a tumor to the organ and labels it.
    ///
    /// The tumor replaces the averaged HU around a voxel by its share; finer structure such as noise stays.
    pub(super) fn add_tumor(&mut self, tumor: &Tumor) {
        self.blend(tumor.center_mm, tumor.reach_mm(), Some(TUMOR), |organ_hu, point_mm| {
            let influence = tumor.at(point_mm);
            (influence.share, organ_hu + influence.hu)
        });
    }

    /// Moves the averaged HU of the voxels of the organ towards the HU of `lesion`, by the share of `lesion`.
    fn blend(
        &mut self,
        center_mm: [f64; 3],
        reach_mm: f64,
        label: Option<u8>,
        lesion: impl Fn(f64, [f64; 3]) -> (f64, f64),
    ) {
        let Some(region) = self.region_around(center_mm, reach_mm) else { return };
        let spacing_mm = self.grid.spacing_mm();
        let wide = region.grown(spacing_mm.map(|mm| (2.0 * SMOOTHING_MM / mm).ceil() as usize), self.grid.shape);
        let (smoothed, organ_hu) = self.smooth(wide, spacing_mm);
        for z in region.start[2]..region.end()[2] {
            for y in region.start[1]..region.end()[1] {
                for x in region.start[0]..region.end()[0] {
                    if !self.organ[[x, y, z]] {
                        continue;
                    }
                    let (share, lesion_hu) = self.mean_of_points([x, y, z], |point_mm| lesion(organ_hu, point_mm));
                    if share == 0.0 {
                        continue;
                    }
                    let average = smoothed[[x - wide.start[0], y - wide.start[1], z - wide.start[2]]];
                    let voxel = &mut self.hu[[x, y, z]];
                    let changed = f64::from(*voxel) + share * (lesion_hu - f64::from(average));
                    *voxel = changed.round().clamp(-1024.0, 3071.0) as i16;
                    if let (Some(label), true) = (label, share >= 0.5) {
                        self.labels[[x, y, z]] = label;
                    }
                }
            }
        }
    }

    /// Returns the mean share over the points of a voxel, and the mean HU weighted by the share.
    fn mean_of_points(&self, voxel: [usize; 3], lesion: impl Fn([f64; 3]) -> (f64, f64)) -> (f64, f64) {
        let (mut shares, mut hus) = (0.0, 0.0);
        let step = |i: usize| (i as f64 + 0.5) / POINTS as f64 - 0.5;
        for point in 0..POINTS.pow(3) {
            let offset = [point % POINTS, point / POINTS % POINTS, point / (POINTS * POINTS)];
            let at = [0, 1, 2].map(|axis| voxel[axis] as f64 + step(offset[axis]));
            let (share, hu) = lesion(self.grid.affine.apply(at));
            shares += share;
            hus += share * hu;
        }
        (shares / POINTS.pow(3) as f64, if shares > 0.0 { hus / shares } else { 0.0 })
    }

    /// Returns the average HU around each voxel of a region, over voxels of the organ only, and the median HU of the organ in the region.
    fn smooth(&self, region: Region, spacing_mm: [f64; 3]) -> (Array3<f32>, f64) {
        let inside = self.organ.cut(region);
        let hu = self.hu.cut(region);
        let mut organ_hu: Vec<i16> =
            hu.as_slice().iter().zip(inside.as_slice()).filter(|(_, inside)| **inside).map(|(hu, _)| *hu).collect();
        let middle = organ_hu.len() / 2;
        let median = if organ_hu.is_empty() { 0 } else { *organ_hu.select_nth_unstable(middle).1 };
        let mut weight = inside.map(|inside| f32::from(u8::from(*inside)));
        let mut sum = Array3::from_vec(
            region.shape,
            hu.as_slice().iter().zip(weight.as_slice()).map(|(hu, weight)| f32::from(*hu - median) * weight).collect(),
        );
        let gaussian = Gaussian::new(spacing_mm.map(|mm| SMOOTHING_MM / mm), Boundary::Zero);
        let mut scratch = Scratch::default();
        gaussian.smooth(&mut weight, &mut scratch);
        gaussian.smooth(&mut sum, &mut scratch);
        for (sum, weight) in sum.as_mut_slice().iter_mut().zip(weight.as_slice()) {
            *sum = f32::from(median) + *sum / weight.max(1e-3);
        }
        (sum, f64::from(median))
    }
}
