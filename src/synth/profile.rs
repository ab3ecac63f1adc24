//! The profile of a tumor: shape, soft edge, texture and inner structure, integrated over the voxels of a scan.

use std::sync::Arc;

use super::difference::TEXTURE_MEAN;
use super::fine_grid::FineGrid;
use super::inner_structure::{InnerStructure, smooth_step};
use super::shape::RasterizedShape;
use super::texture::TexturePool;
use crate::random::RandomStream;
use crate::simd::{Simd, SimdKernel, dispatch_short_rows};
use crate::volume::{Array3, Boundary, Gaussian, RowSpans, radius_voxels};

/// The number of standard deviations at which soft edges are truncated; less than 0.2% of the contrast is beyond.
pub(super) const TRUNCATE: f64 = 3.0;
/// The minimum standard deviation of an edge in samples of the fine grid. Averaging over the width of a sample has 1/√12 of the width;
/// scanners blur somewhat more.
const SAMPLE_BLUR: f64 = 0.4;
/// The width in mm over which ground glass fades into the lung.
const GROUND_GLASS_EDGE_MM: f32 = 2.5;

/// The inside of a tumor, as a function of depth and texture.
#[derive(Clone, Debug)]
pub(super) enum Inside {
    /// A tumor whose contrast is multiplied by the texture, with an inner structure.
    Solid(InnerStructure),
    /// Tissue that replaces air.
    Filling {
        /// HU of the tissue.
        tissue_hu: f32,
        /// The share of the air that is replaced.
        share: f32,
        /// The depth at which all air is replaced.
        solid_from: f32,
    },
}

/// A tumor integrated over the voxels of a box.
pub(super) struct Profile {
    /// The first voxel of the box; may be outside the scan.
    pub start: [i64; 3],
    /// The share of each voxel that is inside the shape.
    pub coverage: Array3<f32>,
    /// The shape with its soft edge, 0 to 1.
    pub soft: Array3<f32>,
    /// The soft shape times the factor of the contrast: the texture relative to its mean, less rims ([`Inside::Solid`]), or the share
    /// of the voxel's HU that is replaced ([`Inside::Filling`]).
    pub factor: Array3<f32>,
    /// The soft shape times the HU that are added.
    pub added_hu: Array3<f32>,
}

/// The inputs of a [`Profile`].
pub(super) struct ProfileSource<'a> {
    /// The shape on the fine grid.
    pub raster: &'a RasterizedShape,
    pub grid: FineGrid,
    /// The centre of the tumor on the fine grid.
    pub centre: [f64; 3],
    /// The standard deviation of the Gaussian that softens the edge.
    pub margin_mm: f64,
    pub diameter_mm: f64,
    pub inside: &'a Inside,
}

impl Profile {
    /// Computes the profile of a tumor: the fine grid averaged over each voxel of the scan. `random` selects the texture.
    /// Returns `None` if the rasterized shape is empty.
    pub fn new(source: &ProfileSource<'_>, textures: &Arc<TexturePool>, random: &mut RandomStream) -> Option<Self> {
        let ProfileSource { raster, grid, .. } = source;
        let sigma = grid.spacing_mm.map(|mm| (source.margin_mm / mm).max(SAMPLE_BLUR));
        let edge = SoftEdge::new(&raster.mask, sigma)?;
        let start = [0, 1, 2].map(|k| raster.start[k] + edge.start[k]);
        let shape = edge.soft.shape();
        let texture = textures.sample(random, &edge.within, grid.spacing_mm);
        let depth = raster.depth.translated(raster.start, start, shape, -1.0);
        let fat_below = match source.inside {
            Inside::Solid(structure) => structure.fat_fraction().map_or(0.0, |share| quantile(&texture, &depth, share)),
            Inside::Filling { .. } => 0.0,
        };
        let [first, end] = grid.voxels(start, shape);
        let voxels = [0, 1, 2].map(|k| (end[k] - first[k]) as usize);
        let mut profile = dispatch_short_rows(Integration {
            source,
            soft: &edge.soft,
            within: &edge.within,
            texture: &texture,
            depth: &depth,
            fat_below,
            start,
            first,
            voxels,
        });
        let inside = raster.mask.map(|&inside| f32::from(inside));
        profile.coverage = grid.averaged(&inside, raster.start, first, voxels);
        if let Inside::Solid(structure) = source.inside {
            for (offset_mm, radius_mm, hu) in structure.calcifications() {
                profile.add_calcification(source, offset_mm, radius_mm, hu);
            }
        }
        Some(profile)
    }

    /// Adds a ball of calcium with an edge as wide as half its radius.
    fn add_calcification(&mut self, source: &ProfileSource<'_>, offset_mm: [f32; 3], radius_mm: f32, hu: f32) {
        let grid = &source.grid;
        let at = [0, 1, 2].map(|k| source.centre[k] + f64::from(offset_mm[k]) / grid.spacing_mm[k]);
        let reach = [0, 1, 2].map(|k| f64::from(1.5 * radius_mm) / grid.spacing_mm[k]);
        let start = [0, 1, 2].map(|k| (at[k] - reach[k]).floor() as i64);
        let shape = [0, 1, 2].map(|k| ((at[k] + reach[k]).ceil() as i64 - start[k]) as usize + 1);
        let share = Array3::from_fn(shape, |voxel| {
            let mm = [0, 1, 2].map(|k| ((start[k] + voxel[k] as i64) as f64 - at[k]) * grid.spacing_mm[k]);
            let distance = libm::sqrt(mm.iter().map(|mm| mm * mm).sum()) as f32;
            hu * (1.0 - smooth_step((distance - 0.5 * radius_mm) / radius_mm))
        });
        let added = grid.averaged(&share, start, self.start, self.added_hu.shape());
        let sums = self.added_hu.as_mut_slice().iter_mut().zip(added.as_slice()).zip(self.soft.as_slice());
        sums.for_each(|((sum, hu), soft)| *sum += hu * soft);
    }
}

/// A shape with a soft edge, in the box that contains the edge.
struct SoftEdge {
    /// The first voxel of the box, relative to that of the shape's box.
    start: [i64; 3],
    /// Only the values within the spans are defined.
    soft: Array3<f32>,
    /// The spans that contain all voxels above zero.
    within: RowSpans,
}

impl SoftEdge {
    /// Softens the edge of a shape by a Gaussian; `None` for an empty shape.
    fn new(mask: &Array3<u8>, sigma_voxels: [f64; 3]) -> Option<Self> {
        let inside = mask.extent(|&inside| inside != 0)?;
        let reach = sigma_voxels.map(|sigma| radius_voxels(sigma, TRUNCATE));
        let start = [0, 1, 2].map(|k| inside.start[k] as i64 - reach[k] as i64);
        let shape = [0, 1, 2].map(|k| inside.shape[k] + 2 * reach[k]);
        let mask = mask.translated([0; 3], start, shape, 0);
        let within = RowSpans::of(&mask, |&inside| inside != 0).grown(reach);
        let filter = Gaussian::truncated(sigma_voxels, TRUNCATE, Boundary::Zero);
        let soft = filter.smoothed_within(&mask.map(|&inside| f32::from(inside)), &within);
        Some(Self { start, soft, within })
    }
}

/// Returns the value below which a share of the texture inside the tumor is.
fn quantile(texture: &Array3<f32>, depth: &Array3<f32>, share: f64) -> f32 {
    let inside = texture.as_slice().iter().zip(depth.as_slice()).filter(|(_, depth)| **depth > 0.0);
    let mut values: Vec<f32> = inside.map(|(texture, _)| *texture).collect();
    if values.is_empty() {
        return 0.0;
    }
    let index = ((share * values.len() as f64) as usize).min(values.len() - 1);
    *values.select_nth_unstable_by(index, f32::total_cmp).1
}

/// The integration over voxels, row by row of the fine grid.
struct Integration<'a> {
    source: &'a ProfileSource<'a>,
    soft: &'a Array3<f32>,
    within: &'a RowSpans,
    texture: &'a Array3<f32>,
    depth: &'a Array3<f32>,
    fat_below: f32,
    /// The first fine voxel of the arrays.
    start: [i64; 3],
    /// The first voxel of the result, and its shape.
    first: [i64; 3],
    voxels: [usize; 3],
}

impl SimdKernel for Integration<'_> {
    type Output = Profile;

    #[inline(always)]
    fn run<S: Simd>(self) -> Profile {
        let Self { source, soft, within, texture, depth, fat_below, start, first, voxels } = self;
        let [mut soft_sum, mut factor_sum, mut added_sum] = [(); 3].map(|()| Array3::filled(voxels, 0.0f32));
        let radius_mm = (source.diameter_mm / 2.0) as f32;
        let length = soft.shape()[0];
        let (mut factors, mut added) = (vec![0.0f32; length], vec![0.0f32; length]);
        let share = source.grid.share();
        let split = source.grid.split.map(|parts| parts as i64);
        for (y, z, span) in within.rows() {
            let voxel = |k: usize, index: usize| (start[k] + index as i64).div_euclid(split[k]) - first[k];
            let (voxel_y, voxel_z) = (voxel(1, y) as usize, voxel(2, z) as usize);
            let [soft, texture, depth] = [soft, texture, depth].map(|array| &array.row(y, z)[span.clone()]);
            let (factors, added) = (&mut factors[..span.len()], &mut added[..span.len()]);
            match source.inside {
                Inside::Solid(structure) if structure.is_plain() => {
                    added.fill(0.0);
                    for ((factor, soft), texture) in factors.iter_mut().zip(soft).zip(texture) {
                        *factor = soft * (texture / TEXTURE_MEAN);
                    }
                }
                Inside::Solid(structure) => {
                    let outputs = factors.iter_mut().zip(added.iter_mut());
                    for ((factor, added), ((soft, texture), depth)) in outputs.zip(soft.iter().zip(texture).zip(depth))
                    {
                        let [relative, hu] = structure.at(*depth, depth * radius_mm, *texture, fat_below);
                        *factor = soft * (texture / TEXTURE_MEAN) * relative;
                        *added = soft * hu;
                    }
                }
                Inside::Filling { tissue_hu, share, solid_from } => {
                    let outputs = factors.iter_mut().zip(added.iter_mut());
                    for ((factor, added), ((soft, texture), depth)) in outputs.zip(soft.iter().zip(texture).zip(depth))
                    {
                        let relative = texture / TEXTURE_MEAN;
                        let fade = smooth_step((depth * radius_mm + 1.0) / GROUND_GLASS_EDGE_MM);
                        let even = if *share < 1.0 { (share * relative).min(1.0) * fade } else { 1.0 };
                        let fill = soft * (even + (1.0 - even) * smooth_step((depth - solid_from) / 0.15));
                        *factor = fill;
                        *added = fill * (tissue_hu + 60.0 * (relative - 1.0));
                    }
                }
            }
            let sums = [(&mut soft_sum, soft), (&mut factor_sum, &*factors), (&mut added_sum, &*added)];
            for (sum, values) in sums {
                let row = sum.row_mut(voxel_y, voxel_z);
                if split[0] == 1 {
                    let from = voxel(0, span.start) as usize;
                    row[from..from + values.len()]
                        .iter_mut()
                        .zip(values)
                        .for_each(|(sum, value)| *sum += share * value);
                } else {
                    for (x, value) in span.clone().zip(values) {
                        row[voxel(0, x) as usize] += share * value;
                    }
                }
            }
        }
        Profile {
            start: first,
            coverage: Array3::filled([0; 3], 0.0),
            soft: soft_sum,
            factor: factor_sum,
            added_hu: added_sum,
        }
    }
}
