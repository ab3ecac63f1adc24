//! The contrast of a tumor by rules, without a network.

use super::organ::OrganSummary;
use super::prior::Contrast;
use crate::random::RandomStream;

/// The range of HU of tumors in organs that are darker than soft tissue.
const SOFT_TISSUE_HU: [f64; 2] = [25.0, 45.0];
/// The maximum diameter of ground-glass nodules.
const GROUND_GLASS_UP_TO_MM: f64 = 30.0;
/// HU of the tissue that replaces air in ground glass.
const TISSUE_HU: f64 = 40.0;

/// The contrast that was sampled for one tumor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SampledContrast {
    /// The tumor is darker than its organ by these HU, brighter if negative.
    Darker(f64),
    /// Tissue replaces air.
    Filling {
        /// HU of the tissue.
        tissue_hu: f64,
        /// The share of the air that is replaced.
        share: f64,
        /// The depth, 0 on the surface and 1 at the centre, from which all air is replaced.
        solid_from: f64,
        /// The change of HU of the tumor outside its solid part.
        change_hu: f64,
    },
}

impl SampledContrast {
    /// Samples the contrast of an organ's prior.
    pub fn sample(random: &mut RandomStream, contrast: &Contrast, organ: &OrganSummary, diameter_mm: f64) -> Self {
        let median = organ.median_hu;
        match *contrast {
            Contrast::Darker { share, limits_hu, floor_hu } => {
                let sampled = (random.uniform(share[0], share[1]) * median).clamp(limits_hu[0], limits_hu[1]);
                let tissue_hu = random.uniform(SOFT_TISSUE_HU[0], SOFT_TISSUE_HU[1]);
                // Fatty or unenhanced organs can be as dark as any tumor; a tumor in them is bright, as soft tissue.
                Self::Darker(match (median - floor_hu).min(sampled) {
                    room if room >= limits_hu[0] => room,
                    _ => median - tissue_hu.max(median + limits_hu[0]),
                })
            }
            Contrast::Filling { solid, tissue_hu, ground_glass_hu } => {
                let tissue_hu = random.uniform(tissue_hu[0], tissue_hu[1]);
                let ground_glass_hu = random.uniform(ground_glass_hu[0], ground_glass_hu[1]);
                let is_solid = random.chance(solid) || diameter_mm > GROUND_GLASS_UP_TO_MM;
                let has_solid_part = random.chance(0.35);
                let solid_from = random.uniform(0.3, 0.7);
                if is_solid {
                    let change_hu = tissue_hu - median;
                    return Self::Filling { tissue_hu, share: 1.0, solid_from: 0.0, change_hu };
                }
                let share = ((ground_glass_hu - median) / (TISSUE_HU - median)).clamp(0.05, 0.9);
                // No depth is above 1.
                let solid_from = if has_solid_part { solid_from } else { 2.0 };
                Self::Filling { tissue_hu: TISSUE_HU, share, solid_from, change_hu: share * (TISSUE_HU - median) }
            }
        }
    }

    /// Returns the change of HU that was sampled, before texture and soft edge.
    pub fn change_hu(self) -> f64 {
        match self {
            Self::Darker(hu) => -hu,
            Self::Filling { change_hu, .. } => change_hu,
        }
    }
}
