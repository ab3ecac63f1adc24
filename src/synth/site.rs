//! Sites of tumors: positions in the healthy organ sorted by depth, prepared once per organ.
//!
//! Depth is measured on cells of about 2.5 mm, so that an organ of millions of voxels takes milliseconds. The voxel is sampled within its
//! cell, and its distance to the organ's edge is measured exactly.

use super::organ::OrganSummary;
use crate::mask::{MaskedScan, Organ};
use crate::random::RandomStream;
use crate::volume::{Array3, Region, distance_mm};

/// The maximum width of a cell, unless voxels are larger.
const CELL_MM: f64 = 2.6;
/// The maximum depth of a cell; larger depths are clamped to it.
const DEEPEST_MM: f64 = 80.0;
/// The depth below which a cell is at the organ's surface.
const SHALLOW_MM: f32 = 2.0;
/// The width of the depth bins into which cells are sorted.
const BIN_MM: f64 = 0.5;
/// The maximum distance of a cell from vessels; larger distances are clamped to it.
const FARTHEST_VESSEL_MM: f64 = 16.0;
/// A cell contains a vessel if its mean exceeds the organ's median by this many standard deviations of the organ.
const VESSEL_DEVIATIONS: f64 = 1.5;
/// The minimum contrast of a vessel.
const VESSEL_HU: f64 = 15.0;
/// The maximum number of cells that are sampled for one site.
const MAX_SAMPLES: usize = 64;

/// The positions in one organ, sorted by depth.
#[derive(Clone, Debug)]
pub(crate) struct SitePlan {
    region: Region,
    /// Voxels of a cell along each axis.
    step: [usize; 3],
    /// Healthy cells by ascending depth: their linear index in `depth_mm`.
    cells: Vec<u32>,
    /// The index of the first cell of each depth bin.
    bins: Vec<usize>,
    /// Distance from each cell's middle to the nearest cell outside the healthy organ.
    depth_mm: Array3<f32>,
    /// Distance from each cell's middle to the nearest cell with a real tumor; `None` if there is none.
    tumor_mm: Option<Array3<f32>>,
    /// Distance from each cell's middle to the nearest cell with a vessel, up to [`FARTHEST_VESSEL_MM`].
    vessel_mm: Array3<f32>,
}

/// Constraints on a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SiteConstraints {
    /// Minimum and maximum depth.
    pub depth_mm: [f64; 2],
    /// Minimum distance to a real tumor.
    pub tumor_mm: f64,
    /// Minimum distance to a vessel.
    pub vessel_mm: f64,
}

impl SitePlan {
    /// Creates the plan: the cells of the healthy organ sorted by depth, with their distances to real tumors and vessels.
    pub fn new(masked: &MaskedScan, organ: &Organ, summary: &OrganSummary) -> Self {
        let region = summary.region;
        let spacing_mm = masked.scan.volume.grid.spacing_mm();
        let labels = &masked.mask.labels;
        let step = spacing_mm.map(|mm| ((CELL_MM / mm) as usize).max(1));
        // A margin of one cell on every side counts as outside, also where the scan ends within the organ.
        let inner = [0, 1, 2].map(|k| region.shape[k].div_ceil(step[k]));
        let shape = inner.map(|count| count + 2);
        let mut healthy = Array3::filled(shape, 0u16);
        let mut with_tumor = Array3::filled(shape, 0u8);
        let mut any_tumor = false;
        let tumor_labels = masked.mask.kept_labels();
        let end = region.end();
        for z in region.start[2]..end[2] {
            for y in region.start[1]..end[1] {
                let row = &labels.row(y, z)[region.start[0]..end[0]];
                let (cy, cz) = ((y - region.start[1]) / step[1] + 1, (z - region.start[2]) / step[2] + 1);
                let counts = &mut healthy.row_mut(cy, cz)[1..];
                for (count, voxels) in counts.iter_mut().zip(row.chunks(step[0])) {
                    *count += voxels.iter().filter(|&&label| label == organ.label).count() as u16;
                }
                for &tumor in tumor_labels.iter().filter(|tumor| row.contains(tumor)) {
                    any_tumor = true;
                    for (cell, voxels) in with_tumor.row_mut(cy, cz)[1..].iter_mut().zip(row.chunks(step[0])) {
                        *cell |= u8::from(voxels.contains(&tumor));
                    }
                }
            }
        }
        let half = (step.iter().product::<usize>() as u16).div_ceil(2);
        let cell_mm = [0, 1, 2].map(|k| step[k] as f64 * spacing_mm[k]);
        let mut depth_mm = distance_mm(&healthy, cell_mm, DEEPEST_MM, |&count| count < half);
        // Distances are between the middles of cells; the edge is half a cell before the outer one.
        let shortest = cell_mm.iter().copied().fold(f64::INFINITY, f64::min) as f32;
        depth_mm.as_mut_slice().iter_mut().for_each(|mm| *mm = (*mm - shortest / 2.0).max(0.0));
        let tumor_mm = any_tumor.then(|| distance_mm(&with_tumor, cell_mm, DEEPEST_MM, |&cell| cell != 0));

        let vessels = vessel_cells(masked, organ, summary, step, &healthy);
        let vessel_mm = distance_mm(&vessels, cell_mm, FARTHEST_VESSEL_MM, |&vessel| vessel != 0);

        let bin = |mm: f32| (f64::from(mm) / BIN_MM) as usize;
        let mut bins = vec![0usize; bin(DEEPEST_MM as f32) + 2];
        let inside = |index: &usize| healthy.as_slice()[*index] >= half;
        for index in (0..healthy.as_slice().len()).filter(inside) {
            bins[bin(depth_mm.as_slice()[index]) + 1] += 1;
        }
        for k in 1..bins.len() {
            bins[k] += bins[k - 1];
        }
        let mut next = bins.clone();
        let mut cells = vec![0u32; bins[bins.len() - 1]];
        for index in (0..healthy.as_slice().len()).filter(inside) {
            let position = &mut next[bin(depth_mm.as_slice()[index])];
            cells[*position] = index as u32;
            *position += 1;
        }
        Self { region, step, cells, bins, depth_mm, tumor_mm, vessel_mm }
    }

    /// Returns the depth of the deepest cell.
    pub fn deepest_mm(&self) -> f64 {
        self.cells.last().map_or(0.0, |&cell| f64::from(self.depth_mm.as_slice()[cell as usize]))
    }

    /// Returns voxels deep in the organ: near the deepest cell, and at the depths that a third and two thirds of the cells exceed.
    pub fn deep_voxels(&self) -> Vec<[usize; 3]> {
        let count = self.cells.len();
        let positions = [count.saturating_sub(1), count * 5 / 6, count * 2 / 3];
        positions.into_iter().filter_map(|position| self.cells.get(position)).map(|&cell| self.voxel_of(cell)).collect()
    }

    /// Returns the voxel in the middle of a cell.
    fn voxel_of(&self, cell: u32) -> [usize; 3] {
        let [nx, ny, _] = self.depth_mm.shape();
        let cell = cell as usize;
        let position = [cell % nx - 1, cell / nx % ny - 1, cell / nx / ny - 1];
        let end = self.region.end();
        [0, 1, 2].map(|k| {
            (self.region.start[k] + position[k] * self.step[k] + self.step[k] / 2).min(end[k].saturating_sub(1))
        })
    }

    /// Samples a voxel at the organ's surface and the direction out of the organ, a unit vector along the axes of the grid; `None` if the
    /// organ has no surface.
    pub fn sample_surface(&self, random: &mut RandomStream, spacing_mm: [f64; 3]) -> Option<([usize; 3], [f64; 3])> {
        // The cells of the first bins are next to the outside.
        let shallow = self.cells.partition_point(|&cell| self.depth_mm.as_slice()[cell as usize] < SHALLOW_MM);
        if shallow == 0 {
            return None;
        }
        let cell = self.cells[random.index(shallow)];
        let [nx, ny, _] = self.depth_mm.shape();
        let steps = [1, nx, nx * ny];
        let depth = |index: usize| f64::from(self.depth_mm.as_slice()[index]);
        let slope = [0, 1, 2].map(|k| {
            let index = cell as usize;
            // A wide difference, so that the direction is that of the surface and not of a single cell.
            let wide: f64 = (1..=2)
                .map(|by| {
                    let position = index / steps[k] % self.depth_mm.shape()[k];
                    let (below, above) = (position.min(by), by.min(self.depth_mm.shape()[k] - 1 - position));
                    depth(index + above * steps[k]) - depth(index - below * steps[k])
                })
                .sum();
            wide / (self.step[k] as f64 * spacing_mm[k])
        });
        let length = libm::sqrt(slope.iter().map(|x| x * x).sum());
        (length > 0.0).then(|| (self.voxel_of(cell), slope.map(|x| -x / length)))
    }

    /// Samples a voxel of the healthy organ uniformly among those that meet the constraints; `None` if none was found.
    pub fn sample(
        &self,
        random: &mut RandomStream,
        labels: &Array3<u8>,
        organ: &Organ,
        constraints: SiteConstraints,
    ) -> Option<[usize; 3]> {
        let bin = |mm: f64| ((mm.max(0.0) / BIN_MM) as usize).min(self.bins.len() - 1);
        let from = self.bins[bin(constraints.depth_mm[0])];
        let to = self.bins[(bin(constraints.depth_mm[1]) + 1).min(self.bins.len() - 1)];
        if from >= to {
            return None;
        }
        let [nx, ny, _] = self.depth_mm.shape();
        for _ in 0..MAX_SAMPLES {
            let cell = self.cells[from + random.index(to - from)] as usize;
            if self.tumor_mm.as_ref().is_some_and(|mm| f64::from(mm.as_slice()[cell]) < constraints.tumor_mm) {
                continue;
            }
            if f64::from(self.vessel_mm.as_slice()[cell]) < constraints.vessel_mm {
                continue;
            }
            let position = [cell % nx - 1, cell / nx % ny - 1, cell / nx / ny - 1];
            let voxel =
                [0, 1, 2].map(|k| self.region.start[k] + position[k] * self.step[k] + random.index(self.step[k]));
            if self.region.contains(voxel) && labels[voxel] == organ.label {
                return Some(voxel);
            }
        }
        None
    }
}

/// Returns the cells whose mean is brighter than the organ: they contain a vessel (or another bright structure). Dark vessels of organs
/// without contrast agent are not distinguishable from noise.
fn vessel_cells(
    masked: &MaskedScan,
    organ: &Organ,
    summary: &OrganSummary,
    step: [usize; 3],
    healthy: &Array3<u16>,
) -> Array3<u8> {
    let (labels, region) = (&masked.mask.labels, summary.region);
    let mut sums = Array3::filled(healthy.shape(), 0.0f32);
    for z in 0..region.shape[2] {
        for y in 0..region.shape[1] {
            let first = [region.start[0], region.start[1] + y, region.start[2] + z];
            let row = &labels.row(first[1], first[2])[first[0]..first[0] + region.shape[0]];
            let index = labels.index_of(first);
            let sums = &mut sums.row_mut(y / step[1] + 1, z / step[2] + 1)[1..];
            let voxels = &masked.scan.volume.voxels;
            for (x, _) in row.iter().enumerate().filter(|(_, label)| **label == organ.label) {
                sums[x / step[0]] += voxels.hu(index + x);
            }
        }
    }
    let least = summary.median_hu + (VESSEL_DEVIATIONS * summary.spread_hu).max(VESSEL_HU);
    let cells = sums.as_slice().iter().zip(healthy.as_slice());
    let vessels = cells.map(|(&sum, &count)| u8::from(count > 0 && f64::from(sum) > least * f64::from(count)));
    Array3::from_vec(healthy.shape(), vessels.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::synth::boundary::boundary_distance_mm;
    use crate::synth::organ::testing::{ball_with_tumor, liver};

    #[test]
    fn sampled_sites_meet_depth_and_distance_constraints() {
        let scan = ball_with_tumor([0.8, 0.8, 1.0], [64, 64, 52]);
        let summary = OrganSummary::of(&scan, &liver()).unwrap();
        let plan = SitePlan::new(&scan, &liver(), &summary);
        let mut random = Key::root(1).stream("site");
        for (low, high) in [(0.0, f64::INFINITY), (5.0, f64::INFINITY), (2.0, 4.0)] {
            for _ in 0..100 {
                let constraints = SiteConstraints { depth_mm: [low, high], tumor_mm: 6.0, vessel_mm: 0.0 };
                let voxel = plan.sample(&mut random, &scan.mask.labels, &liver(), constraints).unwrap();
                assert_eq!(scan.mask.labels[voxel], 1);
                let depth = boundary_distance_mm(&scan, &liver(), voxel);
                // A cell is 2.4 × 2.4 × 2 mm, and its depth is measured at its middle.
                assert!(depth > low - 2.5 && depth < high + 3.5, "{depth} in {low}..{high}");
                let tumor = [20.0, 24.0, 22.0];
                let mm = [0.8, 0.8, 1.0];
                let distance = (0..3).map(|k| (voxel[k] as f64 * mm[k] - tumor[k]).powi(2)).sum::<f64>().sqrt();
                assert!(distance > 6.0, "{distance}");
            }
        }
        let too_deep = SiteConstraints { depth_mm: [30.0, f64::INFINITY], tumor_mm: 0.0, vessel_mm: 0.0 };
        assert_eq!(plan.sample(&mut random, &scan.mask.labels, &liver(), too_deep), None);
        let too_far = SiteConstraints { depth_mm: [0.0, f64::INFINITY], tumor_mm: 79.0, vessel_mm: 0.0 };
        assert_eq!(plan.sample(&mut random, &scan.mask.labels, &liver(), too_far), None);
    }
}
