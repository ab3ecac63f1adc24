//! Putting tumors and cysts into a scan.

use freetumor::volume::{Array3, Boundary, Gaussian, Grid, Region, Scratch};

use super::cyst::Cyst;
use super::labels::TUMOR;
use super::tumor::Tumor;

/// Points of a voxel along each axis, of which the mean is taken: an edge that runs through a voxel fills a part of it.
const POINTS: usize = 2;
/// How far the organ's own HU is averaged: wider than grain and small vessels, which a tumor replaces.
const AROUND_MM: f64 = 4.0;

/// A scan while lesions are put into it.
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

    /// The voxels within `reach_mm` of a point.
    fn around(&self, center_mm: [f64; 3], reach_mm: f64) -> Option<Region> {
        let voxel = self.grid.affine.inverse()?.apply(center_mm);
        let reach = self.grid.spacing_mm().map(|mm| reach_mm / mm + 1.0);
        let start = [0, 1, 2].map(|a| (voxel[a] - reach[a]).floor().max(0.0) as usize);
        let end = [0, 1, 2].map(|a| ((voxel[a] + reach[a]).ceil().max(0.0) as usize + 1).min(self.grid.shape[a]));
        (0..3).all(|a| start[a] < end[a]).then(|| Region { start, shape: [0, 1, 2].map(|a| end[a] - start[a]) })
    }

    /// Puts a cyst into the organ; the label stays that of the organ.
    pub(super) fn put_cyst(&mut self, cyst: &Cyst) {
        self.blend(cyst.center_mm, cyst.reach_mm(), None, |_, point_mm| cyst.at(point_mm));
    }

    /// Voxels that a tumor would have: its share of them is at least a half, and they are the organ's.
    pub(super) fn holds(&self, tumor: &Tumor) -> usize {
        let Some(region) = self.around(tumor.center_mm, tumor.reach_mm()) else { return 0 };
        let [nx, ny, _] = region.shape;
        let voxels = (0..region.voxels()).map(|at| {
            let offset = [at % nx, at / nx % ny, at / (nx * ny)];
            [0, 1, 2].map(|axis| region.start[axis] + offset[axis])
        });
        let is_held = |voxel: &[usize; 3]| {
            self.organ[*voxel] && self.mean_of_points(*voxel, |point_mm| (tumor.at(point_mm).share, 0.0)).0 >= 0.5
        };
        voxels.filter(is_held).count()
    }

    /// Puts a tumor into the organ and labels it.
    ///
    /// The organ's own structure fades with the tumor's share, down to the grain of the scan: what was averaged around
    /// a voxel is replaced, what is finer stays.
    pub(super) fn put_tumor(&mut self, tumor: &Tumor) {
        self.blend(tumor.center_mm, tumor.reach_mm(), Some(TUMOR), |organ_hu, point_mm| {
            let influence = tumor.at(point_mm);
            (influence.share, organ_hu + influence.hu)
        });
    }

    /// Moves the averaged HU of the organ's voxels towards what `lesion` says, by the share that it says.
    fn blend(
        &mut self,
        center_mm: [f64; 3],
        reach_mm: f64,
        label: Option<u8>,
        lesion: impl Fn(f64, [f64; 3]) -> (f64, f64),
    ) {
        let Some(region) = self.around(center_mm, reach_mm) else { return };
        let spacing_mm = self.grid.spacing_mm();
        let wide = region.grown(spacing_mm.map(|mm| (2.0 * AROUND_MM / mm).ceil() as usize), self.grid.shape);
        let (smoothed, organ_hu) = self.smoothed(wide, spacing_mm);
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
                    let here = smoothed[[x - wide.start[0], y - wide.start[1], z - wide.start[2]]];
                    let voxel = &mut self.hu[[x, y, z]];
                    let changed = f64::from(*voxel) + share * (lesion_hu - f64::from(here));
                    *voxel = changed.round().clamp(-1024.0, 3071.0) as i16;
                    if let (Some(label), true) = (label, share >= 0.5) {
                        self.labels[[x, y, z]] = label;
                    }
                }
            }
        }
    }

    /// The mean share over a voxel's points, and the mean HU weighted by it.
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

    /// The organ's HU averaged around each voxel of a region, over voxels of the organ alone; and its median there.
    fn smoothed(&self, region: Region, spacing_mm: [f64; 3]) -> (Array3<f32>, f64) {
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
        let gaussian = Gaussian::new(spacing_mm.map(|mm| AROUND_MM / mm), Boundary::Zero);
        let mut scratch = Scratch::default();
        gaussian.smooth(&mut weight, &mut scratch);
        gaussian.smooth(&mut sum, &mut scratch);
        for (sum, weight) in sum.as_mut_slice().iter_mut().zip(weight.as_slice()) {
            *sum = f32::from(median) + *sum / weight.max(1e-3);
        }
        (sum, f64::from(median))
    }
}
