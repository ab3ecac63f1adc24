//! The difference map of a tumor by rules, without a network.
//!
//! A difference is the share of the window's width by which the blend darkens voxels whose shape and texture are 1.

use super::noise::SmoothNoise;
use super::organ::OrganSummary;
use super::prior::Contrast;
use crate::random::RandomStream;
use crate::simd::{Simd, SimdKernel, dispatch_short_rows};
use crate::volume::{Array3, Boundary, Gaussian, RowSpans, radius_voxels};

/// The mean of the textures. Differences are divided by it, so that contrasts are means in HU.
pub const TEXTURE_MEAN: f32 = 0.525;
/// The minimum diameter of tumors with a necrotic core.
const NECROTIC_FROM_MM: f64 = 25.0;
/// The minimum diameter of tumors with a rim: on smaller ones it is not distinguishable from the soft edge.
const RIM_FROM_MM: f64 = 20.0;
/// The standard deviation of the smoothing before vessels are detected.
const VESSEL_SIGMA_MM: f64 = 1.5;
/// The number of standard deviations at which that smoothing is truncated.
const VESSEL_TRUNCATE: f64 = 2.5;
/// The difference in HU between a tumor and its necrotic core, if a network predicts the tumor.
const CORE_HU: [f64; 2] = [10.0, 40.0];
/// The range of HU of tumors in organs that are darker than soft tissue.
const SOFT_TISSUE_HU: [f64; 2] = [25.0, 45.0];
/// The maximum diameter of ground-glass nodules.
const GROUND_GLASS_UP_TO_MM: f64 = 30.0;
/// The width in mm over which ground glass fades into the lung.
const GROUND_GLASS_EDGE_MM: f32 = 2.5;
/// HU of the tissue that replaces air in ground glass.
const TISSUE_HU: f64 = 40.0;

/// The inputs of a tumor's difference map, in the candidate's box.
pub(crate) struct TumorContext<'a> {
    /// HU of the scan.
    pub before: &'a Array3<f32>,
    pub labels: &'a Array3<u8>,
    /// The label of the healthy organ.
    pub label: u8,
    /// The spans in which voxels change; the map is not used elsewhere.
    pub within: &'a RowSpans,
    /// 0 on the tumor's surface, 1 at its centre, negative outside.
    pub depth: &'a Array3<f32>,
    /// The texture of the blend.
    pub texture: &'a Array3<f32>,
    pub spacing_mm: [f64; 3],
    pub diameter_mm: f64,
    pub organ: &'a OrganSummary,
}

/// A difference map by rules, with the change of HU that was sampled for the solid tumor.
pub(crate) struct SampledDifference {
    /// The difference map.
    pub difference: Array3<f32>,
    /// The change of HU before texture and soft edge; negative if the tumor is darker than the organ.
    pub contrast_hu: f64,
}

/// Samples the difference by the rule of the reference: one value for the whole tumor, which darkens an abdominal organ and brightens a
/// lung.
pub(crate) fn constant(
    random: &mut RandomStream,
    shape: [usize; 3],
    brightens: bool,
    width_hu: f32,
) -> SampledDifference {
    let share = random.uniform(0.2, 0.7) as f32;
    let share = if brightens { -share } else { share };
    SampledDifference {
        difference: Array3::filled(shape, share),
        contrast_hu: -f64::from(share * TEXTURE_MEAN * width_hu),
    }
}

/// Samples a mean change from a range in HU.
pub(crate) fn fixed(
    random: &mut RandomStream,
    context: &TumorContext,
    change_hu: [f64; 2],
    width_hu: f32,
) -> SampledDifference {
    let contrast_hu = random.uniform(change_hu[0], change_hu[1]);
    let difference = -contrast_hu as f32 / (TEXTURE_MEAN * width_hu);
    SampledDifference { difference: Array3::filled(context.before.shape(), difference), contrast_hu }
}

/// Returns the difference map of an organ's prior.
pub(crate) fn plausible(
    random: &mut RandomStream,
    context: &TumorContext,
    contrast: &Contrast,
    necrotic_share: f64,
    width_hu: f32,
) -> SampledDifference {
    let (darker_hu, drawn_hu) = match *contrast {
        Contrast::Darker { share, limits_hu, floor_hu, necrosis_hu } => {
            let median = context.organ.median_hu;
            let sampled = (random.uniform(share[0], share[1]) * median).clamp(limits_hu[0], limits_hu[1]);
            let tissue_hu = random.uniform(SOFT_TISSUE_HU[0], SOFT_TISSUE_HU[1]);
            // Fatty or unenhanced organs can be as dark as any tumor; a tumor in them is bright, as soft tissue.
            let contrast_hu = match (median - floor_hu).min(sampled) {
                room if room >= limits_hu[0] => room,
                _ => median - tissue_hu.max(median + limits_hu[0]),
            };
            let necrotic = random.chance(necrotic_share) && context.diameter_mm >= NECROTIC_FROM_MM;
            let core_hu = random.uniform(necrosis_hu[0], necrosis_hu[1]);
            let core_hu = necrotic.then(|| (median - contrast_hu - core_hu).max(0.0));
            (darker(random, context, contrast_hu, core_hu.unwrap_or(0.0)), -contrast_hu)
        }
        Contrast::Filling { solid, tissue_hu, ground_glass_hu } => {
            let tissue_hu = random.uniform(tissue_hu[0], tissue_hu[1]);
            let ground_glass_hu = random.uniform(ground_glass_hu[0], ground_glass_hu[1]);
            let median = context.organ.median_hu;
            if random.chance(solid) || context.diameter_mm > GROUND_GLASS_UP_TO_MM {
                (filled(random, context, tissue_hu, 1.0, 0.0), tissue_hu - median)
            } else {
                let share = ((ground_glass_hu - median) / (TISSUE_HU - median)).clamp(0.05, 0.9);
                let solid_core = if random.chance(0.35) { random.uniform(0.3, 0.7) } else { 2.0 };
                (filled(random, context, TISSUE_HU, share, solid_core), share * (TISSUE_HU - median))
            }
        }
    };
    // The blend multiplies by the texture, so the change in HU is divided by it first.
    let mut difference = darker_hu;
    for (y, z, span) in context.within.rows() {
        let textures = &context.texture.row(y, z)[span.clone()];
        let values = difference.row_mut(y, z)[span].iter_mut();
        values.zip(textures).for_each(|(hu, texture)| *hu /= texture.max(0.1) * width_hu);
    }
    SampledDifference { difference, contrast_hu: drawn_hu }
}

/// Adds a necrotic core and a rim to the difference map of a network, whose input does not contain the shape. The core darkens, the
/// rim reduces the contrast. `difference` is in the candidate's box, as shares of the window's width.
pub(crate) fn structured(
    random: &mut RandomStream,
    context: &TumorContext,
    necrotic_share: f64,
    width_hu: f32,
    difference: &mut Array3<f32>,
) {
    let necrotic = random.chance(necrotic_share) && context.diameter_mm >= NECROTIC_FROM_MM;
    let core_hu = random.uniform(CORE_HU[0], CORE_HU[1]) as f32;
    let core = if necrotic { core_hu / (TEXTURE_MEAN * width_hu) } else { 0.0 };
    let Structure { core_from, rim_share, rim_mm } = Structure::sample(random, context.diameter_mm);
    let radius_mm = (context.diameter_mm / 2.0) as f32;
    for (y, z, span) in context.within.rows() {
        let depths = &context.depth.row(y, z)[span.clone()];
        for (value, &depth) in difference.row_mut(y, z)[span].iter_mut().zip(depths) {
            let rim = rim_share * (1.0 - smooth_step((depth * radius_mm - rim_mm) / rim_mm));
            *value = *value * (1.0 - rim) + core * smooth_step((depth - core_from) / 0.2);
        }
    }
}

/// The depth at which a tumor's necrotic core starts, and the share of contrast that is missing within its rim.
struct Structure {
    core_from: f32,
    rim_share: f32,
    rim_mm: f32,
}

impl Structure {
    fn sample(random: &mut RandomStream, diameter_mm: f64) -> Self {
        let core_from = random.uniform(0.25, 0.55) as f32;
        let (has_rim, rim_share) = (random.chance(0.3), random.uniform(0.3, 1.0) as f32);
        let rim_share = if has_rim && diameter_mm >= RIM_FROM_MM { rim_share } else { 0.0 };
        Self { core_from, rim_share, rim_mm: random.uniform(1.0, 2.5) as f32 }
    }
}

/// Returns the HU to subtract for a tumor of even contrast with its core and rim; vessels that cross the tumor are removed.
fn darker(random: &mut RandomStream, context: &TumorContext, contrast_hu: f64, core_hu: f64) -> Array3<f32> {
    let structure = Structure::sample(random, context.diameter_mm);
    dispatch_short_rows(Darkening {
        context,
        hu: vessels(context),
        contrast: contrast_hu as f32,
        core: core_hu as f32,
        structure,
    })
}

/// The contrast of a tumor with its core and rim, to be added to `hu`.
struct Darkening<'a> {
    context: &'a TumorContext<'a>,
    hu: Array3<f32>,
    contrast: f32,
    core: f32,
    structure: Structure,
}

impl SimdKernel for Darkening<'_> {
    type Output = Array3<f32>;

    #[inline(always)]
    fn run<S: Simd>(mut self) -> Array3<f32> {
        let Self { context, contrast, core, structure: Structure { core_from, rim_share, rim_mm }, .. } = self;
        let depth_mm = (context.diameter_mm / 2.0) as f32;
        for (y, z, span) in context.within.rows() {
            let [depths, textures] = [context.depth, context.texture].map(|array| &array.row(y, z)[span.clone()]);
            let values = depths.iter().zip(textures);
            for (hu, (&depth, &texture)) in self.hu.row_mut(y, z)[span].iter_mut().zip(values) {
                let rim = rim_share * (1.0 - smooth_step((depth * depth_mm - rim_mm) / rim_mm));
                *hu +=
                    contrast * (texture / TEXTURE_MEAN) * (1.0 - rim) + core * smooth_step((depth - core_from) / 0.2);
            }
        }
        self.hu
    }
}

/// Returns the excess HU of vessels and ducts: the deviation of the smoothed organ from its median beyond its spread.
fn vessels(context: &TumorContext) -> Array3<f32> {
    let sigma = context.spacing_mm.map(|mm| VESSEL_SIGMA_MM / mm);
    let shape = context.before.shape();
    let (mut organ_hu, mut healthy) = (Array3::filled(shape, 0.0f32), Array3::filled(shape, 0.0f32));
    for (y, z, span) in context.within.grown(sigma.map(|sigma| radius_voxels(sigma, VESSEL_TRUNCATE))).rows() {
        let voxels = context.before.row(y, z)[span.clone()].iter().zip(&context.labels.row(y, z)[span.clone()]);
        let kept = organ_hu.row_mut(y, z)[span.clone()].iter_mut().zip(&mut healthy.row_mut(y, z)[span]);
        for ((kept_hu, kept), (hu, &label)) in kept.zip(voxels) {
            let inside = f32::from(u8::from(label == context.label));
            (*kept_hu, *kept) = (hu * inside, inside);
        }
    }
    let filter = Gaussian::truncated(sigma, VESSEL_TRUNCATE, Boundary::Zero);
    let mut smooth = filter.smoothed_within(&organ_hu, context.within);
    let weight = filter.smoothed_within(&healthy, context.within);
    let (median, spread) = (context.organ.median_hu as f32, context.organ.spread_hu as f32);
    for (y, z, span) in context.within.rows() {
        let weights = &weight.row(y, z)[span.clone()];
        for (hu, weight) in smooth.row_mut(y, z)[span].iter_mut().zip(weights) {
            let excess = if *weight > 0.05 { *hu / weight - median } else { 0.0 };
            *hu = excess - excess.clamp(-spread, spread);
        }
    }
    smooth
}

/// Returns the HU to subtract (a negative number) to replace air by tissue; from the depth `solid_core` inwards, all air is replaced.
fn filled(
    random: &mut RandomStream,
    context: &TumorContext,
    tissue_hu: f64,
    share: f64,
    solid_core: f64,
) -> Array3<f32> {
    let noise = SmoothNoise::new(random, context.before.shape(), context.spacing_mm, context.spacing_mm).into_array();
    let noise_hu = context.organ.noise_hu.clamp(3.0, 14.0) as f32;
    let (tissue, share, core) = (tissue_hu as f32, share as f32, solid_core as f32);
    let depth_mm = (context.diameter_mm / 2.0) as f32;
    let mut result = context.before.clone();
    let fields = context.depth.as_slice().iter().zip(context.texture.as_slice()).zip(noise.as_slice());
    for (hu, ((&depth, &texture), &noise)) in result.as_mut_slice().iter_mut().zip(fields) {
        let relative = texture / TEXTURE_MEAN;
        let fade = smooth_step((depth * depth_mm + 1.0) / GROUND_GLASS_EDGE_MM);
        let even = if share < 1.0 { (share * relative).min(1.0) * fade } else { 1.0 };
        let fill = even + (1.0 - even) * smooth_step((depth - core) / 0.15);
        let tissue = tissue + 60.0 * (relative - 1.0) + noise_hu * noise;
        *hu = fill * (*hu - tissue);
    }
    result
}

/// Returns 0 below 0, 1 above 1, and a smooth transition between.
#[inline(always)]
fn smooth_step(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
