//! The region of interest around an organ, on a network's grid.

use super::settings::NetworkConfig;
use crate::error::Fault;
use crate::volume::{Array3, Grid, HuWindow, Orientation, OutsideValue, Region, Resampling, Volume, Voxels};

/// The region of interest around an organ on a network's grid: oriented to RAS, resampled linearly, in HU.
#[derive(Clone, Debug, PartialEq)]
pub struct Roi {
    /// The grid of the voxels.
    pub grid: Grid,
    /// The voxels, in HU.
    pub hu: Array3<f32>,
    /// The organ's box. Around it, the region of interest contains as much of the scan as a window at the edge of the box can cover.
    pub organ_box: Region,
}

/// The change that a tumor makes in a region of interest.
#[derive(Clone, Debug, PartialEq)]
pub struct RoiChange {
    /// The box that changes.
    pub region: Region,
    /// The change of each voxel of the box, in HU.
    pub delta_hu: Array3<f32>,
}

impl Roi {
    /// Resamples the region of interest around an organ whose voxels are in `scan_box`, a box of the scan's grid.
    ///
    /// # Errors
    /// If the scan's grid cannot be resampled.
    ///
    /// ```
    /// use freetumor::inference::{Roi, NetworkConfig};
    /// use freetumor::volume::{Affine, Array3, Grid, Region, Volume, Voxels};
    ///
    /// let grid = Grid { shape: [80, 80, 40], affine: Affine::from_spacing([3.0, 3.0, 5.0]) };
    /// let scan = Volume { grid, voxels: Voxels::I16(Array3::filled(grid.shape, 40)) };
    /// let config = NetworkConfig { roi_voxels: [32; 3], ..NetworkConfig::new("weights.pt") };
    /// let roi = Roi::new(&scan, Region { start: [30, 30, 10], shape: [10, 10, 6] }, &config)?;
    /// assert!(roi.organ_box.shape[0] >= 20 && roi.grid.shape[0] >= 20 + 32);
    /// assert_eq!(roi.grid.spacing_mm(), [1.5; 3]);
    /// # Ok::<(), freetumor::error::Fault>(())
    /// ```
    pub fn new(scan: &Volume, scan_box: Region, config: &NetworkConfig) -> Result<Self, Fault> {
        let permutation = scan.grid.orientation().permutation_to(Orientation::RAS);
        let resampling = Resampling::to_spacing(&permutation.grid(&scan.grid), config.spacing_mm)?;
        let whole = resampling.grid();
        let organ_box = project_box(scan_box, &scan.grid, &whole);
        let roi_box = organ_box.grown(config.roi_voxels.map(|side| side / 2 + 1), whole.shape);
        let resampling = resampling.of_region(roi_box);
        let hu = match &scan.voxels {
            Voxels::I16(hu) if permutation.is_identity() => resampling.linear(hu, OutsideValue::Edge),
            Voxels::F32(hu) if permutation.is_identity() => resampling.linear(hu, OutsideValue::Edge),
            Voxels::I16(hu) => resampling.linear(&permutation.array(hu), OutsideValue::Edge),
            Voxels::F32(hu) => resampling.linear(&permutation.array(hu), OutsideValue::Edge),
        };
        let start = [0, 1, 2].map(|axis| organ_box.start[axis] - roi_box.start[axis]);
        Ok(Self { grid: resampling.grid(), hu, organ_box: Region { start, shape: organ_box.shape } })
    }

    /// Returns the voxels of the box `part` as input of the network: `change` is added if present, and the HU of `window` become 0 to 1.
    pub fn image(&self, part: Region, window: HuWindow, change: Option<&RoiChange>) -> Array3<f32> {
        let mut image = self.hu.cut(part);
        if let Some(RoiChange { region, delta_hu }) = change {
            let (end, part_end) = (region.end(), part.end());
            let rows = |axis: usize| region.start[axis].max(part.start[axis])..end[axis].min(part_end[axis]);
            let xs = rows(0);
            if !xs.is_empty() {
                for z in rows(2) {
                    for y in rows(1) {
                        let delta = &delta_hu.row(y - region.start[1], z - region.start[2])
                            [xs.start - region.start[0]..xs.end - region.start[0]];
                        let row = image.row_mut(y - part.start[1], z - part.start[2]);
                        let row = &mut row[xs.start - part.start[0]..xs.end - part.start[0]];
                        row.iter_mut().zip(delta).for_each(|(hu, delta)| *hu += delta);
                    }
                }
            }
        }
        image.as_mut_slice().iter_mut().for_each(|hu| *hu = window.apply(*hu));
        image
    }

    /// Returns the smallest box of the network's grid that contains every voxel touched by `scan_box`, a box of the scan's grid.
    pub fn project_from_scan(&self, scan_grid: &Grid, scan_box: Region) -> Region {
        project_box(scan_box, scan_grid, &self.grid)
    }

    /// Resamples a change of the HU in `scan_box`, a box of the scan's grid, linearly to the network's grid.
    ///
    /// # Errors
    /// If the scan's grid cannot be resampled.
    pub fn resample_change(
        &self,
        scan_grid: &Grid,
        scan_box: Region,
        delta_hu: &Array3<f32>,
    ) -> Result<RoiChange, Fault> {
        // One voxel of zeros around the box: between the box and its neighbours, the change is interpolated to zero.
        let padded_grid = scan_grid.cut(scan_box).padded([1; 3], scan_box.shape.map(|voxels| voxels + 2));
        let roi_box = project_box(padded_grid.region(), &padded_grid, &self.grid);
        let padded = delta_hu.padded([1; 3], padded_grid.shape, 0.0);
        let resampling = Resampling::between(&padded_grid, &self.grid.cut(roi_box))?;
        Ok(RoiChange { region: roi_box, delta_hu: resampling.linear(&padded, OutsideValue::Value(0.0)) })
    }

    /// Resamples the labels of `scan_box`, a box of the scan's grid, to `roi_box`, a box of the network's grid: each voxel gets the label
    /// of the nearest voxel, and voxels outside `scan_box` get 0.
    ///
    /// # Errors
    /// If the scan's grid cannot be resampled.
    pub fn resample_labels(
        &self,
        scan_grid: &Grid,
        scan_box: Region,
        labels: &Array3<u8>,
        roi_box: Region,
    ) -> Result<Array3<u8>, Fault> {
        let resampling = Resampling::between(&scan_grid.cut(scan_box), &self.grid.cut(roi_box))?;
        Ok(resampling.nearest(labels, OutsideValue::Value(0)))
    }

    /// Resamples the values of `roi_box`, a box of the network's grid, linearly to `scan_box`, a box of the scan's grid; voxels outside
    /// `roi_box` get 0.
    ///
    /// # Errors
    /// If the grids cannot be resampled.
    pub fn resample_to_scan(
        &self,
        roi_box: Region,
        values: &Array3<f32>,
        scan_grid: &Grid,
        scan_box: Region,
    ) -> Result<Array3<f32>, Fault> {
        let resampling = Resampling::between(&self.grid.cut(roi_box), &scan_grid.cut(scan_box))?;
        Ok(resampling.linear(values, OutsideValue::Value(0.0)))
    }
}

/// Projects `region`, a box of the grid `from`, to the grid `to`: returns the smallest box with all voxels of `to` that `region` touches,
/// clipped to the grid, with at least one voxel.
pub fn project_box(region: Region, from: &Grid, to: &Grid) -> Region {
    let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    let inverse = to.affine.inverse().unwrap_or(to.affine);
    for corner in 0..8 {
        let at = [0, 1, 2].map(|axis| {
            let end = if corner >> axis & 1 == 1 { region.end()[axis] } else { region.start[axis] };
            end as f64 - 0.5
        });
        let projected = inverse.apply(from.affine.apply(at));
        for axis in 0..3 {
            low[axis] = low[axis].min(projected[axis]);
            high[axis] = high[axis].max(projected[axis]);
        }
    }
    // Rounding must not add a voxel that only shares a face with the box.
    let start = [0, 1, 2].map(|axis| {
        let first = (low[axis] + 0.5 + 1e-6).floor().max(0.0) as usize;
        first.min(to.shape[axis].saturating_sub(1))
    });
    let shape = [0, 1, 2].map(|axis| {
        let end = ((high[axis] + 0.5 - 1e-6).ceil().max(0.0) as usize).min(to.shape[axis]);
        end.saturating_sub(start[axis]).max(1)
    });
    Region { start, shape }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Preprocess};

    fn scan() -> Volume {
        // Left to right reversed, thick slices.
        let affine = Affine([[-0.8, 0.0, 0.0, 50.0], [0.0, 0.9, 0.0, -30.0], [0.0, 0.0, 5.0, 7.0]]);
        let grid = Grid { shape: [100, 90, 20], affine };
        let hu = Array3::from_fn(grid.shape, |[x, y, z]| ((x * 7 + y * 3 + z * 11) % 200) as i16);
        Volume { grid, voxels: Voxels::I16(hu) }
    }

    #[test]
    fn roi_image_equals_preprocessed_image() {
        let scan = scan();
        let config = NetworkConfig { roi_voxels: [32; 3], ..NetworkConfig::new("none") };
        let organ_box = Region { start: [40, 40, 8], shape: [20, 20, 4] };
        let roi = Roi::new(&scan, organ_box, &config).unwrap();
        let whole = Preprocess::new(config.spacing_mm, config.window(), [1; 3]).unwrap().apply(&scan, None).unwrap();
        let image = roi.image(roi.grid.region(), config.window(), None);
        let inverse = whole.grid.affine.inverse().unwrap();
        let origin = inverse.apply(roi.grid.affine.apply([0.0; 3])).map(|coordinate| coordinate.round() as usize);
        let expected = whole.image.cut(Region { start: origin, shape: roi.grid.shape });
        assert_eq!(image, expected);
    }

    #[test]
    fn resampled_change_equals_change_of_image() {
        let scan = scan();
        let config = NetworkConfig { roi_voxels: [16; 3], ..NetworkConfig::new("none") };
        let organ_box = Region { start: [40, 40, 8], shape: [20, 20, 4] };
        let before = Roi::new(&scan, organ_box, &config).unwrap();
        let region = Region { start: [45, 44, 9], shape: [9, 8, 3] };
        let delta = Array3::from_fn(region.shape, |[x, y, z]| -((x + 2 * y + 3 * z) as f32));
        let Voxels::I16(hu) = &scan.voxels else { unreachable!() };
        let mut changed = hu.map(|&hu| f32::from(hu));
        let mut inside = changed.cut(region);
        inside.as_mut_slice().iter_mut().zip(delta.as_slice()).for_each(|(hu, delta)| *hu += delta);
        changed.paste(region.start, &inside);
        let after = Roi::new(&Volume { grid: scan.grid, voxels: Voxels::F32(changed) }, organ_box, &config).unwrap();
        let change = before.resample_change(&scan.grid, region, &delta).unwrap();
        let all = before.grid.region();
        let (got, expected) =
            (before.image(all, config.window(), Some(&change)), after.image(all, config.window(), None));
        let furthest = got.as_slice().iter().zip(expected.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 1e-6, "{furthest}");
        assert_ne!(got, before.image(all, config.window(), None));
    }

    #[test]
    fn project_box_contains_exactly_the_touched_voxels() {
        let coarse = Grid { shape: [10; 3], affine: Affine::from_spacing([3.0; 3]) };
        let fine = Grid { shape: [30; 3], affine: Affine::from_spacing([1.0; 3]) };
        let region = Region { start: [2, 0, 9], shape: [1, 2, 1] };
        // Voxel 2 covers 4.5 to 7.5 mm.
        assert_eq!(project_box(region, &coarse, &fine), Region { start: [5, 0, 26], shape: [3, 5, 3] });
        assert_eq!(
            project_box(Region { start: [5, 5, 5], shape: [1; 3] }, &fine, &coarse),
            Region { start: [2; 3], shape: [1; 3] }
        );
    }
}
