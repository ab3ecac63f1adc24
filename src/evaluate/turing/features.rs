//! What a lesion looks like, in numbers.

use crate::mask::BitVolume;
use crate::volume::{Array3, Connectivity, Labels, Region, Volume, distance_mm};

/// Fewer voxels have no looks to speak of.
const FEWEST_VOXELS: usize = 8;
/// How far around a lesion is looked.
const AROUND_MM: f64 = 8.0;
/// Tissue nearer than this to a lesion is its margin, not its surroundings.
const MARGIN_MM: f32 = 3.0;
/// Where the shells end that the profile across the edge is averaged over, in mm; negative outside of the lesion.
const SHELLS_MM: [f32; 6] = [-1.5, 0.0, 1.5, 3.0, 6.0, f32::INFINITY];

/// A number that describes a lesion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Whether it is of the lesion's size and shape, not of its looks.
    pub is_shape: bool,
}

impl Feature {
    /// All of them, in the order of [`LesionSample::values`].
    pub const ALL: [Self; 23] = [
        Self::looks("contrast_hu"),
        Self::looks("deviation_inside_hu"),
        Self::looks("deviation_around_hu"),
        Self::looks("skewness_inside"),
        Self::looks("tail_low_hu"),
        Self::looks("tail_high_hu"),
        Self::looks("profile_outside_hu"),
        Self::looks("profile_0_to_1.5_mm_hu"),
        Self::looks("profile_1.5_to_3_mm_hu"),
        Self::looks("profile_3_to_6_mm_hu"),
        Self::looks("profile_from_6_mm_hu"),
        Self::looks("edge_sharpness"),
        Self::looks("grain_inside_x"),
        Self::looks("grain_inside_y"),
        Self::looks("grain_inside_z"),
        Self::looks("grain_against_around_x"),
        Self::looks("grain_against_around_y"),
        Self::looks("grain_against_around_z"),
        Self::shape("log_diameter_mm"),
        Self::shape("sphericity"),
        Self::shape("elongation"),
        Self::shape("flatness"),
        Self::shape("box_fill"),
    ];

    const fn looks(name: &'static str) -> Self {
        Self { name, is_shape: false }
    }

    const fn shape(name: &'static str) -> Self {
        Self { name, is_shape: true }
    }
}

/// A lesion that is to be judged.
#[derive(Clone, Debug, PartialEq)]
pub struct LesionSample {
    /// Whose it is.
    pub patient: String,
    /// Whether it is real.
    pub is_real: bool,
    /// One number for each of [`Feature::ALL`].
    pub values: Vec<f64>,
}

/// Describes each lesion of a scan: 26-connected components of `tumor_id` of at least 8 voxels.
///
/// Looks are taken relative to the tissue 3 to 8 mm around the lesion, of the organ alone where `organ_id` says which
/// that is. Shells that a small lesion does not have are as the one outside of them.
///
/// # Shapes
/// The labels lie on the volume's grid.
///
/// # Panics
/// Panics if they have another shape.
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
    assert_eq!(labels.ids.shape(), shape, "labels on the volume's grid");
    let Some(extent) = labels.ids.bounds_of(|id| *id == tumor_id) else { return Vec::new() };
    let [x0, y0, z0] = extent.start;
    let set = BitVolume::from_fn(extent.shape, |[x, y, z]| labels.ids[[x0 + x, y0 + y, z0 + z]] == tumor_id);
    let components = set.components(Connectivity::Corners);
    let mut lesions = vec![Vec::new(); components.count()];
    for run in components.runs() {
        lesions[run.component].extend((run.from..run.to).map(|x| [x0 + x, y0 + run.y, z0 + run.z]));
    }
    let patches = lesions.into_iter().filter(|voxels| voxels.len() >= FEWEST_VOXELS);
    patches.filter_map(|voxels| Patch::around(volume, labels, organ_id, tumor_id, &voxels)?.values()).collect()
}

/// A lesion's box with what is around it.
struct Patch {
    spacing_mm: [f64; 3],
    hu: Array3<f32>,
    lesion: Array3<bool>,
    /// The lesion's own tissue to compare with.
    around: Array3<bool>,
    /// How deep under the surface a voxel lies; negative outside.
    depth_mm: Array3<f32>,
}

impl Patch {
    fn around(
        volume: &Volume,
        labels: &Labels,
        organ_id: Option<u16>,
        tumor_id: u16,
        voxels: &[[usize; 3]],
    ) -> Option<Self> {
        let spacing_mm = volume.grid.spacing_mm();
        let one = |voxel: &[usize; 3]| Region { start: *voxel, shape: [1; 3] };
        let tight = voxels.iter().map(one).reduce(|region, other| region.around(&other))?;
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

    /// The HU of the voxels of a set.
    fn of(&self, set: &Array3<bool>) -> Vec<f64> {
        let pairs = self.hu.as_slice().iter().zip(set.as_slice());
        pairs.filter(|(_, inside)| **inside).map(|(hu, _)| f64::from(*hu)).collect()
    }

    /// `None` where there is nothing around to compare with.
    fn values(&self) -> Option<Vec<f64>> {
        let around = self.of(&self.around);
        if around.len() < FEWEST_VOXELS {
            return None;
        }
        let (base, deviation_around) = moments(&around);
        let mut inside = self.of(&self.lesion);
        let (mean, deviation) = moments(&inside);
        let cubes = inside.iter().map(|hu| (hu - mean).powi(3)).sum::<f64>() / inside.len() as f64;
        let skewness = cubes / deviation.max(1.0).powi(3);
        inside.sort_by(f64::total_cmp);
        let at = |share: f64| inside[(share * (inside.len() - 1) as f64).round() as usize];
        let mut values = vec![mean - base, deviation, deviation_around, skewness, at(0.1) - at(0.5), at(0.9) - at(0.5)];
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

    /// Mean HU of each shell beside the surroundings.
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

    /// Mean change of HU per mm within 1.5 mm of the surface.
    fn sharpness(&self) -> f64 {
        let shape = self.hu.shape();
        let (mut sum, mut count) = (0.0, 0.0f64);
        self.each_voxel(|voxel| {
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

    /// The correlation of neighbours along an axis within a set.
    fn grain(&self, set: &Array3<bool>, mean: f64, axis: usize) -> f64 {
        let shape = set.shape();
        let (mut product, mut square) = (0.0, 0.0);
        self.each_voxel(|voxel| {
            let next = [0, 1, 2].map(|a| voxel[a] + usize::from(a == axis));
            if next[axis] < shape[axis] && set[voxel] && set[next] {
                let (a, b) = (f64::from(self.hu[voxel]) - mean, f64::from(self.hu[next]) - mean);
                product += a * b;
                square += 0.5 * (a * a + b * b);
            }
        });
        if square > 0.0 { product / square } else { 0.0 }
    }

    /// Size, sphericity, elongation, flatness, and how much of its box it fills.
    fn shape(&self) -> [f64; 5] {
        let shape = self.lesion.shape();
        let mm = self.spacing_mm;
        let face = [mm[1] * mm[2], mm[0] * mm[2], mm[0] * mm[1]];
        let (mut voxels, mut surface) = (0.0, 0.0);
        self.each_voxel(|voxel| {
            if !self.lesion[voxel] {
                return;
            }
            voxels += 1.0;
            for axis in 0..3 {
                let mut outside = |at: Option<usize>| {
                    let there = at.filter(|at| *at < shape[axis]);
                    let neighbour = there.map(|at| [0, 1, 2].map(|a| if a == axis { at } else { voxel[a] }));
                    surface += if neighbour.is_some_and(|voxel| self.lesion[voxel]) { 0.0 } else { face[axis] };
                };
                outside(voxel[axis].checked_sub(1));
                outside(Some(voxel[axis] + 1));
            }
        });
        let volume = voxels * mm.iter().product::<f64>();
        let pi = std::f64::consts::PI;
        // Faces of voxels have half as much again as the surface that they follow.
        let sphericity = 1.5 * libm::cbrt(36.0 * pi * volume * volume) / surface;
        let extent = self.lesion.bounds_of(|inside| *inside).map_or([1; 3], |region| region.shape);
        let mut sides = [0, 1, 2].map(|axis| extent[axis] as f64 * mm[axis]);
        let fill = volume / sides.iter().product::<f64>();
        sides.sort_by(f64::total_cmp);
        [libm::log(libm::cbrt(6.0 * volume / pi)), sphericity, sides[2] / sides[1], sides[1] / sides[0], fill]
    }

    fn each_voxel(&self, mut look: impl FnMut([usize; 3])) {
        let [nx, ny, nz] = self.hu.shape();
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    look([x, y, z]);
                }
            }
        }
    }
}

/// Mean and deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}
