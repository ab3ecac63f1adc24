//! Lungs without labels: air in the body, separated from the air around the body and in the bowel.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bits::BitVolume;
use super::{Mask, Organ, OrganMask, merged_organs};
use crate::error::{ConfigError, Fault};
use crate::ingest::Scan;
use crate::volume::{Affine, Array3, Connectivity, Volume, VoxelRun};

/// A voxel below this value was not measured: scanners pad voxels outside of their field of view.
const PADDING_HU: f32 = -1100.0;
/// Upper limit of free air, as in the trachea, the bowel and the room; parenchyma is denser.
const FREE_AIR_HU: f32 = -940.0;
/// An area with a larger share of free air is not a lung.
const FREE_SHARE: f64 = 0.5;
/// The same limit for large enclosed areas, which can be a lung with emphysema but hardly a trachea.
const LARGE_FREE_SHARE: f64 = 0.75;
/// Minimum size of a large enclosed area.
const LARGE_AREA_MM2: f64 = 600.0;
/// Maximum depth of a flat area along the border of the image, as a share of its length there; a cropped lung is deeper.
const SHALLOW: f64 = 0.25;

/// Settings of the mask kind `lung`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LungConfig {
    /// Upper limit of air and lung, in HU.
    pub threshold_hu: f32,
    /// Radius of the closing, in mm: vessels and fissures up to twice this width are filled.
    pub closing_mm: f64,
    /// Maximum size of filled areas that the lung encloses in a slice, in mm²: larger vessels, nodules.
    pub max_hole_mm2: f64,
    /// Minimum volume of a lung, in ml: smaller connected air is ignored.
    pub min_volume_ml: f64,
    /// Ids of the lung and of its tumors in the merged label map.
    pub merged_ids: [u8; 2],
}

impl Default for LungConfig {
    fn default() -> Self {
        Self { threshold_hu: -400.0, closing_mm: 6.0, max_hole_mm2: 1200.0, min_volume_ml: 15.0, merged_ids: [1, 2] }
    }
}

/// The mask stage that finds both lungs by threshold, connected components and closing.
///
/// In each slice, connected areas of free air (the room, the couch, the trachea, gas in the bowel) are removed, whether they
/// touch the border or not, and so are areas that extend from side to side or are flat along the border. Every remaining component
/// of sufficient volume is a lung. The method supports cropped bodies, whose lungs touch the border, and padding around the
/// field of view.
pub struct LungMask {
    config: LungConfig,
    organs: Arc<[Organ]>,
}

impl LungMask {
    /// Creates a stage and checks its settings.
    ///
    /// # Errors
    /// Returns every error in the settings.
    pub fn new(config: LungConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if !(-900.0..=-100.0).contains(&config.threshold_hu) {
            let message =
                format!("expected a threshold between lung and tissue, -900 to -100 HU, got {}", config.threshold_hu);
            errors.push(ConfigError::new("threshold_hu", message));
        }
        if !(0.0..=30.0).contains(&config.closing_mm) {
            errors.push(ConfigError::new("closing_mm", format!("expected 0 to 30 mm, got {}", config.closing_mm)));
        }
        for (field, value) in [("max_hole_mm2", config.max_hole_mm2), ("min_volume_ml", config.min_volume_ml)] {
            if !(value >= 0.0 && value.is_finite()) {
                errors.push(ConfigError::new(field, format!("expected 0 or more, got {value}")));
            }
        }
        let fixed = BTreeMap::from([("lung".to_owned(), config.merged_ids)]);
        let organs = merged_organs(&["lung"], &fixed).unwrap_or_else(|more| {
            errors.extend(more.into_iter().map(|error| ConfigError { field: "merged_ids".to_owned(), ..error }));
            Arc::default()
        });
        if errors.is_empty() { Ok(Self { config, organs }) } else { Err(errors) }
    }

    /// Returns the lungs of a volume, with voxels in axial order.
    fn lungs(&self, axial: &AxialVolume<'_>) -> BitVolume {
        let config = &self.config;
        let mut air = axial.select(|hu| (PADDING_HU..config.threshold_hu).contains(&hu));
        let padding = axial.select(|hu| hu < PADDING_HU);
        self.remove_free_air(axial, &mut air, &padding);
        let mut lungs = BitVolume::empty(air.shape());
        for lung in self.large_components(axial, &air) {
            lungs.insert_all(&lung.closed(config.closing_mm, axial.spacing_mm));
        }
        self.fill_holes(axial, &mut lungs);
        lungs
    }

    /// Removes connected areas of free air in each slice.
    fn remove_free_air(&self, axial: &AxialVolume<'_>, air: &mut BitVolume, padding: &BitVolume) {
        let core = air.core_in_plane();
        let components = air.components(Connectivity::InPlane);
        let mut areas = vec![Area::default(); components.count()];
        let [nx, ny, _] = air.shape();
        for run in components.runs() {
            let area = &mut areas[run.component];
            let (y, z) = (run.y, run.z);
            area.voxels += run.end - run.start;
            let [left, right] = [run.start.saturating_sub(1), (run.end + 1).min(nx)];
            area.add_border(run, [nx, ny]);
            area.at_edge |= padding.intersects_run(y, z, left, right)
                || (y > 0 && padding.intersects_run(y - 1, z, run.start, run.end))
                || (y + 1 < ny && padding.intersects_run(y + 1, z, run.start, run.end));
            for x in (run.start..run.end).filter(|&x| core.contains([x, y, z])) {
                area.core += 1;
                area.free += usize::from(axial.hu([x, y, z]) < FREE_AIR_HU);
            }
        }
        let pixel_mm2 = axial.spacing_mm[0] * axial.spacing_mm[1];
        for run in components.runs().filter(|run| areas[run.component].is_free_air(pixel_mm2)) {
            air.remove_run(run.y, run.z, run.start, run.end);
        }
    }

    /// Returns the components of `air` that are large enough for a lung.
    fn large_components(&self, axial: &AxialVolume<'_>, air: &BitVolume) -> Vec<BitVolume> {
        let components = air.components(Connectivity::Faces);
        let voxels = components.voxels();
        let voxel_ml = axial.spacing_mm.iter().product::<f64>() / 1000.0;
        let mut number = vec![None; voxels.len()];
        let mut parts = Vec::new();
        for (component, &voxels) in voxels.iter().enumerate() {
            if voxels as f64 * voxel_ml >= self.config.min_volume_ml {
                number[component] = Some(parts.len());
                parts.push(BitVolume::empty(air.shape()));
            }
        }
        for run in components.runs() {
            if let Some(part) = number[run.component] {
                parts[part].insert_run(run.y, run.z, run.start, run.end);
            }
        }
        parts
    }

    /// Fills the areas that the lungs enclose in a slice, up to a size below that of the heart.
    fn fill_holes(&self, axial: &AxialVolume<'_>, lungs: &mut BitVolume) {
        let [nx, ny, _] = lungs.shape();
        let components = lungs.complement().components(Connectivity::InPlane);
        let mut areas = vec![Area::default(); components.count()];
        for run in components.runs() {
            let area = &mut areas[run.component];
            area.voxels += run.end - run.start;
            area.add_border(run, [nx, ny]);
        }
        let pixel_mm2 = axial.spacing_mm[0] * axial.spacing_mm[1];
        let small = |area: &Area| !area.at_edge && area.voxels as f64 * pixel_mm2 <= self.config.max_hole_mm2;
        for run in components.runs().filter(|run| small(&areas[run.component])) {
            lungs.insert_run(run.y, run.z, run.start, run.end);
        }
    }
}

/// A connected area of one slice.
#[derive(Clone, Copy, Default)]
struct Area {
    voxels: usize,
    at_edge: bool,
    /// Number of voxels at each border of the image: low and high x, low and high y.
    border: [usize; 4],
    /// Number of voxels whose neighbours are in the area, too, so that they contain no tissue, and number of voxels of free air among them.
    core: usize,
    free: usize,
}

impl Area {
    /// Adds the voxels of a run at the borders of an image of the given size.
    fn add_border(&mut self, run: VoxelRun, [nx, ny]: [usize; 2]) {
        let length = run.end - run.start;
        let own = [usize::from(run.start == 0), usize::from(run.end == nx)];
        let across = [run.y == 0, run.y + 1 == ny].map(|at_border| if at_border { length } else { 0 });
        for (side, more) in self.border.iter_mut().zip(own.into_iter().chain(across)) {
            *side += more;
            self.at_edge |= more > 0;
        }
    }

    fn is_free_air(&self, pixel_mm2: f64) -> bool {
        if self.core == 0 {
            return self.at_edge;
        }
        // Couch and clothes extend from side to side; lungs do not, because the heart is between them.
        let across = self.border[0] > 0 && self.border[1] > 0;
        let along = self.border.iter().copied().max().unwrap_or(0) as f64;
        if across || (self.voxels as f64) < SHALLOW * along * along {
            return true;
        }
        let large = !self.at_edge && self.voxels as f64 * pixel_mm2 > LARGE_AREA_MM2;
        self.free as f64 > self.core as f64 * if large { LARGE_FREE_SHARE } else { FREE_SHARE }
    }
}

impl Mask for LungMask {
    fn organs(&self) -> Arc<[Organ]> {
        self.organs.clone()
    }

    fn mask(&self, scan: &Scan) -> Result<OrganMask, Fault> {
        let axial = AxialVolume::new(&scan.volume);
        let lungs = self.lungs(&axial);
        let mut labels = Array3::filled(scan.volume.grid.shape, 0u8);
        let voxels = labels.as_mut_slice();
        for z in 0..lungs.shape()[2] {
            for y in 0..lungs.shape()[1] {
                for [from, to] in lungs.runs(y, z) {
                    for x in from..to {
                        voxels[axial.index([x, y, z])] = self.organs[0].label;
                    }
                }
            }
        }
        Ok(OrganMask { labels, organs: self.organs.clone(), coverage: 1.0 })
    }
}

/// A volume with axes in axial order, [side to side, front to back, feet to head], independent of the stored order of its
/// axes.
struct AxialVolume<'v> {
    volume: &'v Volume,
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    strides: [usize; 3],
}

impl<'v> AxialVolume<'v> {
    fn new(volume: &'v Volume) -> Self {
        let grid = &volume.grid;
        let head = nearest_axis(&grid.affine, 2, &[2, 1, 0]);
        let flat: &[usize] = match head {
            0 => &[1, 2],
            1 => &[0, 2],
            _ => &[0, 1],
        };
        let side = nearest_axis(&grid.affine, 0, flat);
        let order = [side, 3 - side - head, head];
        let strides = [1, grid.shape[0], grid.shape[0] * grid.shape[1]];
        let spacing_mm = grid.spacing_mm();
        Self {
            volume,
            shape: order.map(|axis| grid.shape[axis]),
            spacing_mm: order.map(|axis| spacing_mm[axis]),
            strides: order.map(|axis| strides[axis]),
        }
    }

    fn index(&self, voxel: [usize; 3]) -> usize {
        (0..3).map(|axis| voxel[axis] * self.strides[axis]).sum()
    }

    fn hu(&self, voxel: [usize; 3]) -> f32 {
        self.volume.voxels.hu(self.index(voxel))
    }

    fn select(&self, predicate: impl Fn(f32) -> bool) -> BitVolume {
        BitVolume::from_fn(self.shape, |voxel| predicate(self.hu(voxel)))
    }
}

/// Returns the axis among `axes` that is closest to a world axis; the first of equally close axes.
fn nearest_axis(affine: &Affine, world: usize, axes: &[usize]) -> usize {
    let spacing_mm = affine.spacing_mm();
    let share = |axis: usize| (affine.0[world][axis] / spacing_mm[axis]).abs();
    axes.iter().copied().fold(axes[0], |best, axis| if share(axis) > share(best) { axis } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::testing::{LabelsInMemory, scan_with_companions};
    use crate::volume::{Grid, Voxels};

    /// Returns a slab of tissue with two lungs, surrounded by air; `overlay` replaces the HU of voxels.
    fn body(overlay: impl Fn([usize; 3]) -> Option<i16>) -> Scan {
        let within = |[x, y, _]: [usize; 3], [cx, cy]: [f64; 2], [rx, ry]: [f64; 2]| {
            ((x as f64 - cx) / rx).powi(2) + ((y as f64 - cy) / ry).powi(2) < 1.0
        };
        let hu = |voxel: [usize; 3]| {
            let lung = within(voxel, [38.0, 50.0], [18.0, 28.0]) || within(voxel, [82.0, 50.0], [18.0, 28.0]);
            let tissue = within(voxel, [60.0, 50.0], [50.0, 40.0]);
            overlay(voxel).unwrap_or(if lung {
                -850
            } else if tissue {
                40
            } else {
                -1000
            })
        };
        let shape = [120, 100, 12];
        let grid = Grid { shape, affine: Affine::from_spacing([3.0, 3.0, 5.0]) };
        let mut scan = scan_with_companions(grid, LabelsInMemory(BTreeMap::new()));
        scan.volume.voxels = Voxels::I16(Array3::from_fn(shape, hu));
        scan
    }

    fn lung_labels(scan: &Scan) -> Array3<u8> {
        LungMask::new(LungConfig::default()).unwrap().mask(scan).unwrap().labels
    }

    #[test]
    fn lung_includes_vessels_and_nodules_but_not_trachea() {
        let near = |[x, y, _]: [usize; 3], [cx, cy]: [usize; 2], r: usize| {
            x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) <= r * r
        };
        let scan = body(|voxel| match voxel {
            v if near(v, [38, 40], 1) => Some(150),
            v if near(v, [82, 55], 4) => Some(30),
            v if near(v, [60, 40], 2) => Some(-990),
            _ => None,
        });
        let lungs = lung_labels(&scan);
        assert_eq!([lungs[[38, 40, 6]], lungs[[82, 55, 6]], lungs[[60, 40, 6]], lungs[[5, 5, 6]]], [1, 1, 0, 0]);
        let reference = lung_labels(&body(|_| None));
        assert_eq!(
            lungs.as_slice().iter().filter(|id| **id == 1).count(),
            reference.as_slice().iter().filter(|id| **id == 1).count()
        );
    }

    #[test]
    fn couch_foam_is_not_lung() {
        // Foam with the density of a lung, from side to side under the body and in a corner.
        let scan = body(|[x, y, _]| match (x, y) {
            (_, 92..) => Some(-840),
            (..6, 20..60) => Some(-840),
            _ => None,
        });
        assert!(lung_labels(&scan) == lung_labels(&body(|_| None)));
    }

    #[test]
    fn new_reports_all_errors_at_once() {
        let config: LungConfig = toml::from_str(
            "threshold_hu = 50\nclosing_mm = -1\nmax_hole_mm2 = nan\nmin_volume_ml = -2\nmerged_ids = [3, 3]",
        )
        .unwrap();
        let errors = LungMask::new(config).err().unwrap();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["threshold_hu", "closing_mm", "max_hole_mm2", "min_volume_ml", "merged_ids"]);
    }
}
