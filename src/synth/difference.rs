//! How a tumor differs from its organ, as a difference map: what the rules have in place of a network.
//!
//! A difference is the share of the window's width by which the blend darkens where shape and texture are 1.

use super::noise::SmoothNoise;
use super::organ::OrganSummary;
use super::prior::Contrast;
use crate::random::RandomStream;
use crate::simd::{Simd, SimdKernel, vectorised_short};
use crate::volume::{Array3, Boundary, Gaussian, RowSpans, radius_voxels};

/// The mean of the textures: differences are divided by it, so that contrasts are means in HU.
pub const TEXTURE_MEAN: f32 = 0.525;
/// Tumors below this size have no dead core.
const NECROTIC_FROM_MM: f64 = 25.0;
/// Tumors below this size have no rim that could be told from the soft edge.
const RIMMED_FROM_MM: f64 = 20.0;
/// Vessels are looked for after smoothing by this.
const VESSEL_SIGMA_MM: f64 = 1.5;
/// That smoothing is cut off after this many standard deviations.
const VESSEL_TRUNCATE: f64 = 2.5;
/// How much darker a dead core is than the rest, in HU, where a network says what the rest is.
const CORE_HU: [f64; 2] = [10.0, 40.0];
/// HU of tumors in organs that are darker than soft tissue.
const SOFT_TISSUE_HU: [f64; 2] = [25.0, 45.0];
/// Ground glass above this size is no nodule.
const HAZY_UP_TO_MM: f64 = 30.0;
/// Over how many mm ground glass fades into the lung.
const HAZE_EDGE_MM: f32 = 2.5;
/// HU of the tissue that fills air in ground glass.
const TISSUE_HU: f64 = 40.0;

/// What the appearance of a tumor depends on, in the candidate's box.
pub(crate) struct TumorContext<'a> {
    /// HU as in the scan.
    pub before: &'a Array3<f32>,
    pub labels: &'a Array3<u8>,
    /// That of the healthy organ.
    pub label: u8,
    /// Where anything changes: what a map says elsewhere does not matter.
    pub within: &'a RowSpans,
    /// 0 on the tumor's surface, 1 in its centre, negative outside.
    pub depth: &'a Array3<f32>,
    /// The texture of the blend.
    pub texture: &'a Array3<f32>,
    pub spacing_mm: [f64; 3],
    pub diameter_mm: f64,
    pub organ: &'a OrganSummary,
}

/// A difference map by rules, with the change of HU that was drawn for the solid tumor.
pub(crate) struct DrawnDifference {
    /// The map.
    pub difference: Array3<f32>,
    /// The change of HU before texture and soft edge; negative where the tumor is darker.
    pub contrast_hu: f64,
}

/// The reference's rule: one number for the whole tumor, darkening an abdominal organ and brightening a lung.
pub(crate) fn constant(draws: &mut RandomStream, shape: [usize; 3], brightens: bool, width_hu: f32) -> DrawnDifference {
    let share = draws.uniform(0.2, 0.7) as f32;
    let share = if brightens { -share } else { share };
    DrawnDifference {
        difference: Array3::filled(shape, share),
        contrast_hu: -f64::from(share * TEXTURE_MEAN * width_hu),
    }
}

/// A mean change drawn from a range, in HU.
pub(crate) fn fixed(
    draws: &mut RandomStream,
    place: &TumorContext,
    change_hu: [f64; 2],
    width_hu: f32,
) -> DrawnDifference {
    let contrast_hu = draws.uniform(change_hu[0], change_hu[1]);
    let difference = -contrast_hu as f32 / (TEXTURE_MEAN * width_hu);
    DrawnDifference { difference: Array3::filled(place.before.shape(), difference), contrast_hu }
}

/// The difference map of an organ's prior.
pub(crate) fn plausible(
    draws: &mut RandomStream,
    place: &TumorContext,
    contrast: &Contrast,
    necrotic_share: f64,
    width_hu: f32,
) -> DrawnDifference {
    let (darker_hu, drawn_hu) = match *contrast {
        Contrast::Darker { share, limits_hu, floor_hu, necrosis_hu } => {
            let median = place.organ.median_hu;
            let wanted = (draws.uniform(share[0], share[1]) * median).clamp(limits_hu[0], limits_hu[1]);
            let tissue_hu = draws.uniform(SOFT_TISSUE_HU[0], SOFT_TISSUE_HU[1]);
            // Fatty or unenhanced organs can be as dark as any tumor: there it stands out as soft tissue.
            let contrast_hu = match (median - floor_hu).min(wanted) {
                room if room >= limits_hu[0] => room,
                _ => median - tissue_hu.max(median + limits_hu[0]),
            };
            let necrotic = draws.chance(necrotic_share) && place.diameter_mm >= NECROTIC_FROM_MM;
            let core_hu = draws.uniform(necrosis_hu[0], necrosis_hu[1]);
            let core_hu = necrotic.then(|| (median - contrast_hu - core_hu).max(0.0));
            (darker(draws, place, contrast_hu, core_hu.unwrap_or(0.0)), -contrast_hu)
        }
        Contrast::Filling { solid, tissue_hu, ground_glass_hu } => {
            let tissue_hu = draws.uniform(tissue_hu[0], tissue_hu[1]);
            let haze_hu = draws.uniform(ground_glass_hu[0], ground_glass_hu[1]);
            let median = place.organ.median_hu;
            if draws.chance(solid) || place.diameter_mm > HAZY_UP_TO_MM {
                (filled(draws, place, tissue_hu, 1.0, 0.0), tissue_hu - median)
            } else {
                let share = ((haze_hu - median) / (TISSUE_HU - median)).clamp(0.05, 0.9);
                let solid_core = if draws.chance(0.35) { draws.uniform(0.3, 0.7) } else { 2.0 };
                (filled(draws, place, TISSUE_HU, share, solid_core), share * (TISSUE_HU - median))
            }
        }
    };
    // The blend multiplies by the texture; what is meant in HU is divided by it first.
    let mut difference = darker_hu;
    for (y, z, stretch) in place.within.rows() {
        let textures = &place.texture.row(y, z)[stretch.clone()];
        let values = difference.row_mut(y, z)[stretch].iter_mut();
        values.zip(textures).for_each(|(hu, texture)| *hu /= texture.max(0.1) * width_hu);
    }
    DrawnDifference { difference, contrast_hu: drawn_hu }
}

/// Gives the difference map of a network, which never sees the shape, the dead core and the rim that a tumor of this size may
/// have: the core darkens, the rim takes the contrast away. `difference` lies in the candidate's box, as shares of the window's
/// width.
pub(crate) fn structured(
    draws: &mut RandomStream,
    place: &TumorContext,
    necrotic_share: f64,
    width_hu: f32,
    difference: &mut Array3<f32>,
) {
    let necrotic = draws.chance(necrotic_share) && place.diameter_mm >= NECROTIC_FROM_MM;
    let core_hu = draws.uniform(CORE_HU[0], CORE_HU[1]) as f32;
    let core = if necrotic { core_hu / (TEXTURE_MEAN * width_hu) } else { 0.0 };
    let Structure { core_from, rim_share, rim_mm } = Structure::draw(draws, place.diameter_mm);
    let radius_mm = (place.diameter_mm / 2.0) as f32;
    for (y, z, stretch) in place.within.rows() {
        let depths = &place.depth.row(y, z)[stretch.clone()];
        for (value, &depth) in difference.row_mut(y, z)[stretch].iter_mut().zip(depths) {
            let rim = rim_share * (1.0 - smooth_step((depth * radius_mm - rim_mm) / rim_mm));
            *value = *value * (1.0 - rim) + core * smooth_step((depth - core_from) / 0.2);
        }
    }
}

/// Where a tumor's dead core begins, in depth, and how much of its contrast is missing within its rim.
struct Structure {
    core_from: f32,
    rim_share: f32,
    rim_mm: f32,
}

impl Structure {
    fn draw(draws: &mut RandomStream, diameter_mm: f64) -> Self {
        let core_from = draws.uniform(0.25, 0.55) as f32;
        let (rimmed, rim_share) = (draws.chance(0.3), draws.uniform(0.3, 1.0) as f32);
        let rim_share = if rimmed && diameter_mm >= RIMMED_FROM_MM { rim_share } else { 0.0 };
        Self { core_from, rim_share, rim_mm: draws.uniform(1.0, 2.5) as f32 }
    }
}

/// HU to take away for a tumor of even contrast, its core and rim; vessels that cross it are taken out.
fn darker(draws: &mut RandomStream, place: &TumorContext, contrast_hu: f64, core_hu: f64) -> Array3<f32> {
    let structure = Structure::draw(draws, place.diameter_mm);
    vectorised_short(Darkening {
        place,
        hu: vessels(place),
        contrast: contrast_hu as f32,
        core: core_hu as f32,
        structure,
    })
}

/// A contrast that is to be added to `hu`, with its core and rim.
struct Darkening<'a> {
    place: &'a TumorContext<'a>,
    hu: Array3<f32>,
    contrast: f32,
    core: f32,
    structure: Structure,
}

impl SimdKernel for Darkening<'_> {
    type Output = Array3<f32>;

    #[inline(always)]
    fn run<S: Simd>(mut self) -> Array3<f32> {
        let Self { place, contrast, core, structure: Structure { core_from, rim_share, rim_mm }, .. } = self;
        let depth_mm = (place.diameter_mm / 2.0) as f32;
        for (y, z, stretch) in place.within.rows() {
            let [depths, textures] = [place.depth, place.texture].map(|array| &array.row(y, z)[stretch.clone()]);
            let values = depths.iter().zip(textures);
            for (hu, (&depth, &texture)) in self.hu.row_mut(y, z)[stretch].iter_mut().zip(values) {
                let rim = rim_share * (1.0 - smooth_step((depth * depth_mm - rim_mm) / rim_mm));
                *hu +=
                    contrast * (texture / TEXTURE_MEAN) * (1.0 - rim) + core * smooth_step((depth - core_from) / 0.2);
            }
        }
        self.hu
    }
}

/// By how much the smoothed organ is brighter or darker than its own spread allows: vessels and ducts.
fn vessels(place: &TumorContext) -> Array3<f32> {
    let sigma = place.spacing_mm.map(|mm| VESSEL_SIGMA_MM / mm);
    let shape = place.before.shape();
    let (mut organ_hu, mut healthy) = (Array3::filled(shape, 0.0f32), Array3::filled(shape, 0.0f32));
    for (y, z, stretch) in place.within.grown(sigma.map(|sigma| radius_voxels(sigma, VESSEL_TRUNCATE))).rows() {
        let seen = place.before.row(y, z)[stretch.clone()].iter().zip(&place.labels.row(y, z)[stretch.clone()]);
        let kept = organ_hu.row_mut(y, z)[stretch.clone()].iter_mut().zip(&mut healthy.row_mut(y, z)[stretch]);
        for ((kept_hu, kept), (hu, &label)) in kept.zip(seen) {
            let inside = f32::from(u8::from(label == place.label));
            (*kept_hu, *kept) = (hu * inside, inside);
        }
    }
    let filter = Gaussian::truncated(sigma, VESSEL_TRUNCATE, Boundary::Zero);
    let mut smooth = filter.smoothed_within(&organ_hu, place.within);
    let weight = filter.smoothed_within(&healthy, place.within);
    let (median, spread) = (place.organ.median_hu as f32, place.organ.spread_hu as f32);
    for (y, z, stretch) in place.within.rows() {
        let weights = &weight.row(y, z)[stretch.clone()];
        for (hu, weight) in smooth.row_mut(y, z)[stretch].iter_mut().zip(weights) {
            let excess = if *weight > 0.05 { *hu / weight - median } else { 0.0 };
            *hu = excess - excess.clamp(-spread, spread);
        }
    }
    smooth
}

/// HU to take away (a negative number) where air is replaced by tissue; wholly from `solid_core` depth inwards.
fn filled(draws: &mut RandomStream, place: &TumorContext, tissue_hu: f64, share: f64, solid_core: f64) -> Array3<f32> {
    let noise = SmoothNoise::new(draws, place.before.shape(), place.spacing_mm, place.spacing_mm).into_array();
    let noise_hu = place.organ.noise_hu.clamp(3.0, 14.0) as f32;
    let (tissue, share, core) = (tissue_hu as f32, share as f32, solid_core as f32);
    let depth_mm = (place.diameter_mm / 2.0) as f32;
    let mut result = place.before.clone();
    let fields = place.depth.as_slice().iter().zip(place.texture.as_slice()).zip(noise.as_slice());
    for (hu, ((&depth, &texture), &noise)) in result.as_mut_slice().iter_mut().zip(fields) {
        let relative = texture / TEXTURE_MEAN;
        let haze = smooth_step((depth * depth_mm + 1.0) / HAZE_EDGE_MM);
        let even = if share < 1.0 { (share * relative).min(1.0) * haze } else { 1.0 };
        let fill = even + (1.0 - even) * smooth_step((depth - core) / 0.15);
        let tissue = tissue + 60.0 * (relative - 1.0) + noise_hu * noise;
        *hu = fill * (*hu - tissue);
    }
    result
}

/// 0 below 0, 1 above 1, smooth between.
#[inline(always)]
fn smooth_step(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
