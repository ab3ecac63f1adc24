//! The features of a lesion.

use crate::mask::BitVolume;
use crate::volume::{Array3, Connectivity, Labels, Region, Volume, distance_mm};

/// The minimum number of voxels for features of appearance.
const MIN_VOXELS: usize = 8;
/// The outer radius of the surroundings of a lesion.
const AROUND_MM: f64 = 8.0;
/// The inner radius of the surroundings of a lesion; nearer tissue is the margin.
const MARGIN_MM: f32 = 3.0;
/// The ends of the shells for the profile across the edge, in mm; negative outside of the lesion.
const SHELLS_MM: [f32; 6] = [-1.5, 0.0, 1.5, 3.0, 6.0, f32::INFINITY];

/// A feature of a lesion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The name.
    pub name: &'static str,
    /// Whether the feature describes size and shape, not appearance.
    pub is_shape: bool,
}

impl Feature {
    /// All features, in the order of [`LesionSample::values`].
    pub const ALL: [Self; 23] = [
        Self::appearance("contrast_hu"),
        Self::appearance("deviation_inside_hu"),
        Self::appearance("deviation_around_hu"),
        Self::appearance("skewness_inside"),
        Self::appearance("tail_low_hu"),
        Self::appearance("tail_high_hu"),
        Self::appearance("profile_outside_hu"),
        Self::appearance("profile_0_to_1.5_mm_hu"),
        Self::appearance("profile_1.5_to_3_mm_hu"),
        Self::appearance("profile_3_to_6_mm_hu"),
        Self::appearance("profile_from_6_mm_hu"),
        Self::appearance("edge_sharpness"),
        Self::appearance("grain_inside_x"),
        Self::appearance("grain_inside_y"),
        Self::appearance("grain_inside_z"),
        Self::appearance("grain_against_around_x"),
        Self::appearance("grain_against_around_y"),
        Self::appearance("grain_against_around_z"),
        Self::shape("log_diameter_mm"),
        Self::shape("sphericity"),
        Self::shape("elongation"),
        Self::shape("flatness"),
        Self::shape("box_fill"),
    ];

    const fn appearance(name: &'static str) -> Self {
        Self { name, is_shape: false }
    }

    const fn shape(name: &'static str) -> Self {
        Self { name, is_shape: true }
    }
}

/// A lesion as a sample of the classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct LesionSample {
    /// The patient.
    pub patient: String,
    /// Whether the lesion is real.
    pub is_real: bool,
    /// The value of each of [`Feature::ALL`].
    pub values: Vec<f64>,
}

/// Describes each lesion of a scan: 26-connected components of `tumor_id` of at least 8 voxels.
///
/// Appearance is relative to the tissue 3 to 8 mm around the lesion, only of the organ if `organ_id` is set. Shells that a small
/// lesion does not have get the value of the next outer shell.
///
/// # Shapes
/// The labels are on the grid of the volume.
///
/// # Panics
/// Panics if labels and volume have different shapes.
///
/// ```
/// use freetumor::evaluate::turing::{Feature, describe};
/// use freetumor::volume::{Affine, Array3, Grid, Labels, Volume, Voxels};
/// let grid = Grid { shape: [40, 40, 20], affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
/// let ids = Array3::from_fn(grid.shape, |[x, y, z]| {
///     let mm = [x as f64 - 20.0, y as f64 - 20.0, 2.0 * z as f64 - 20.0];
///     if mm.iter().map(|v| v * v).sum::<f64>() < 64.0 { 2 } else { 1 }
/// });
/// let hu = ids.map(|id| if *id == 2 { 60i16 } else { 100 });
/// let lesions = describe(&Volume { grid, voxels: Voxels::I16(hu) }, &Labels { grid, ids }, Some(1), 2);
/// let value = |name| lesions[0][Feature::ALL.iter().position(|feature| feature.name == name).unwrap()];
/// assert_eq!((lesions.len(), value("contrast_hu"), value("deviation_inside_hu")), (1, -40.0, 0.0));
/// assert!((value("log_diameter_mm").exp() - 16.0).abs() < 0.5);
/// ```
pub fn describe(volume: &Volume, labels: &Labels, organ_id: Option<u16>, tumor_id: u16) -> Vec<Vec<f64>> {
    let shape = volume.voxels.shape();
    assert_eq!(labels.ids.shape(), shape, "the labels are on the grid of the volume");
    let Some(extent) = labels.ids.bounds_of(|id| *id == tumor_id) else { return Vec::new() };
    let [x0, y0, z0] = extent.start;
    let set = BitVolume::from_fn(extent.shape, |[x, y, z]| labels.ids[[x0 + x, y0 + y, z0 + z]] == tumor_id);
    let components = set.components(Connectivity::Corners);
    let mut lesions = vec![Vec::new(); components.count()];
    for run in components.runs() {
        lesions[run.component].extend((run.start..run.end).map(|x| [x0 + x, y0 + run.y, z0 + run.z]));
    }
    let patches = lesions.into_iter().filter(|voxels| voxels.len() >= MIN_VOXELS);
    patches.filter_map(|voxels| LesionBox::around(volume, labels, organ_id, tumor_id, &voxels)?.values()).collect()
}

/// The bounding box of a lesion with its surroundings.
struct LesionBox {
    spacing_mm: [f64; 3],
    hu: Array3<f32>,
    lesion: Array3<bool>,
    /// The surroundings to compare the lesion with.
    around: Array3<bool>,
    /// The depth of each voxel under the surface; negative outside.
    depth_mm: Array3<f32>,
}

impl LesionBox {
    fn around(
        volume: &Volume,
        labels: &Labels,
        organ_id: Option<u16>,
        tumor_id: u16,
        voxels: &[[usize; 3]],
    ) -> Option<Self> {
        let spacing_mm = volume.grid.spacing_mm();
        let single = |voxel: &[usize; 3]| Region { start: *voxel, shape: [1; 3] };
        let tight = voxels.iter().map(single).reduce(|region, other| region.union(&other))?;
        let margin = spacing_mm.map(|mm| (AROUND_MM / mm).ceil() as usize);
        let region = tight.grown(margin, volume.grid.shape);
        let mut lesion = Array3::filled(region.shape, false);
        for voxel in voxels {
            lesion[[0, 1, 2].map(|axis| voxel[axis] - region.start[axis])] = true;
        }
        let ids = labels.ids.cut(region);
        let out = distance_mm(&lesion, spacing_mm, AROUND_MM + 1.0, |inside| *inside);
        let within = distance_mm(&lesion, spacing_mm, 40.0, |inside| !*inside);
        let half = 0.5 * spacing_mm.into_iter().fold(f64::INFINITY, f64::min) as f32;
        let depth = out.as_slice().iter().zip(within.as_slice());
        let depth = depth.map(|(out, within)| if *out > 0.0 { half - out } else { within - half });
        let depth_mm = Array3::from_vec(region.shape, depth.collect());
        let is_tissue = |id: u16| id != tumor_id && organ_id.is_none_or(|organ| id == organ);
        let around = ids.as_slice().iter().zip(depth_mm.as_slice());
        let around = around.map(|(id, depth)| is_tissue(*id) && (-AROUND_MM as f32..-MARGIN_MM).contains(depth));
        let around = Array3::from_vec(region.shape, around.collect());
        Some(Self { spacing_mm, hu: volume.voxels.hu_of(region), lesion, around, depth_mm })
    }

    /// Returns the HU of the voxels of a set.
    fn hu_of(&self, set: &Array3<bool>) -> Vec<f64> {
        let pairs = self.hu.as_slice().iter().zip(set.as_slice());
        pairs.filter(|(_, inside)| **inside).map(|(hu, _)| f64::from(*hu)).collect()
    }

    /// Returns all features; `None` if the surroundings have too few voxels.
    fn values(&self) -> Option<Vec<f64>> {
        let around = self.hu_of(&self.around);
        if around.len() < MIN_VOXELS {
            return None;
        }
        let (base, deviation_around) = moments(&around);
        let mut inside = self.hu_of(&self.lesion);
        let (mean, deviation) = moments(&inside);
        let cubes = inside.iter().map(|hu| (hu - mean).powi(3)).sum::<f64>() / inside.len() as f64;
        let skewness = cubes / deviation.max(1.0).powi(3);
        inside.sort_by(f64::total_cmp);
        let quantile = |share: f64| inside[(share * (inside.len() - 1) as f64).round() as usize];
        let mut values = vec![mean - base, deviation, deviation_around, skewness];
        values.extend([quantile(0.1) - quantile(0.5), quantile(0.9) - quantile(0.5)]);
        values.extend(self.profile(base));
        values.push(self.sharpness() / ((mean - base).abs() + deviation_around.max(1.0)));
        let grain = [0, 1, 2].map(|axis| self.grain(&self.lesion, mean, axis));
        let grain_around = [0, 1, 2].map(|axis| self.grain(&self.around, base, axis));
        values.extend(grain);
        values.extend([0, 1, 2].map(|axis| grain[axis] - grain_around[axis]));
        values.extend(self.shape());
        debug_assert_eq!(values.len(), Feature::ALL.len());
        values.iter().all(|value| value.is_finite()).then_some(values)
    }

    /// Returns the mean HU of each shell relative to the surroundings.
    fn profile(&self, base: f64) -> Vec<f64> {
        let (mut sums, mut counts) = ([0.0; SHELLS_MM.len()], [0.0; SHELLS_MM.len()]);
        for (index, depth) in self.depth_mm.as_slice().iter().enumerate() {
            let shell = SHELLS_MM.iter().position(|end| depth < end).unwrap_or(SHELLS_MM.len() - 1);
            if shell > 0 {
                sums[shell] += f64::from(self.hu.as_slice()[index]);
                counts[shell] += 1.0;
            }
        }
        let mut last = 0.0;
        (1..SHELLS_MM.len())
            .map(|shell| {
                if counts[shell] > 0.0 {
                    last = sums[shell] / counts[shell] - base;
                }
                last
            })
            .collect()
    }

    /// Returns the mean change of HU per mm within 1.5 mm of the surface.
    fn sharpness(&self) -> f64 {
        let shape = self.hu.shape();
        let (mut sum, mut count) = (0.0, 0.0f64);
        self.for_each_voxel(|voxel| {
            let is_inner = (0..3).all(|axis| voxel[axis] > 0 && voxel[axis] + 1 < shape[axis]);
            if !is_inner || self.depth_mm[voxel].abs() > 1.5 {
                return;
            }
            let square: f64 = (0..3)
                .map(|axis| {
                    let step = |by: usize| [0, 1, 2].map(|a| if a == axis { voxel[a] + by - 1 } else { voxel[a] });
                    let change = f64::from(self.hu[step(2)] - self.hu[step(0)]);
                    (change / (2.0 * self.spacing_mm[axis])).powi(2)
                })
                .sum();
            sum += square.sqrt();
            count += 1.0;
        });
        sum / count.max(1.0)
    }

    /// Returns the correlation of the HU of neighbouring voxels of a set along an axis.
    fn grain(&self, set: &Array3<bool>, mean: f64, axis: usize) -> f64 {
        let shape = set.shape();
        let (mut product, mut square) = (0.0, 0.0);
        self.for_each_voxel(|voxel| {
            let next = [0, 1, 2].map(|a| voxel[a] + usize::from(a == axis));
            if next[axis] < shape[axis] && set[voxel] && set[next] {
                let (a, b) = (f64::from(self.hu[voxel]) - mean, f64::from(self.hu[next]) - mean);
                product += a * b;
                square += 0.5 * (a * a + b * b);
            }
        });
        if square > 0.0 { product / square } else { 0.0 }
    }

    /// Returns size, sphericity, elongation, flatness, and the filled fraction of the bounding box.
    fn shape(&self) -> [f64; 5] {
        let shape = self.lesion.shape();
        let mm = self.spacing_mm;
        let face = [mm[1] * mm[2], mm[0] * mm[2], mm[0] * mm[1]];
        let (mut voxels, mut surface) = (0.0, 0.0);
        self.for_each_voxel(|voxel| {
            if !self.lesion[voxel] {
                return;
            }
            voxels += 1.0;
            for axis in 0..3 {
                let mut outside = |at: Option<usize>| {
                    let inside = at.filter(|at| *at < shape[axis]);
                    let neighbour = inside.map(|at| [0, 1, 2].map(|a| if a == axis { at } else { voxel[a] }));
                    surface += if neighbour.is_some_and(|voxel| self.lesion[voxel]) { 0.0 } else { face[axis] };
                };
                outside(voxel[axis].checked_sub(1));
                outside(Some(voxel[axis] + 1));
            }
        });
        let volume = voxels * mm.iter().product::<f64>();
        let pi = std::f64::consts::PI;
        // The faces of voxels have 1.5 times the area of the surface that they approximate.
        let sphericity = 1.5 * libm::cbrt(36.0 * pi * volume * volume) / surface;
        let extent = self.lesion.bounds_of(|inside| *inside).map_or([1; 3], |region| region.shape);
        let mut sides = [0, 1, 2].map(|axis| extent[axis] as f64 * mm[axis]);
        let fill = volume / sides.iter().product::<f64>();
        sides.sort_by(f64::total_cmp);
        [libm::log(libm::cbrt(6.0 * volume / pi)), sphericity, sides[2] / sides[1], sides[1] / sides[0], fill]
    }

    fn for_each_voxel(&self, mut visit: impl FnMut([usize; 3])) {
        let [nx, ny, nz] = self.hu.shape();
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    visit([x, y, z]);
                }
            }
        }
    }
}

/// Returns the mean and the standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}
