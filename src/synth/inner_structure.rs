//! The inner structure of a solid tumor: necrotic core, rim, capsule, calcifications and fat.

use serde::{Deserialize, Serialize};

use super::config::RulesConfig;
use super::difference::TEXTURE_MEAN;
use super::prior::StructurePrior;
use crate::random::RandomStream;

/// The minimum diameter of tumors with a necrotic core: smaller tumors are supplied from their surface.
const NECROTIC_FROM_MM: f64 = 20.0;
/// The minimum diameter of tumors with a rim or capsule: on smaller ones neither is distinguishable from the soft edge.
const RIM_FROM_MM: f64 = 16.0;
/// The minimum diameter of tumors with fat.
const FAT_FROM_MM: f64 = 12.0;
/// The minimum diameter of tumors with calcifications.
const CALCIFIED_FROM_MM: f64 = 8.0;
/// The maximum number of calcifications.
const MAX_CALCIFICATIONS: usize = 6;
/// The difference in HU between a tumor and its necrotic core, if a network predicts the tumor.
const CORE_BELOW_TUMOR_HU: [f64; 2] = [10.0, 40.0];

/// The sampled properties of the inner structure of a tumor; `None` for a structure that the tumor does not have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SampledStructure {
    /// HU of the rim minus the organ's median HU.
    pub rim_hu: Option<f64>,
    /// HU of the capsule minus the organ's median HU.
    pub capsule_hu: Option<f64>,
    /// Share of the tumor's volume within its necrotic core.
    pub core_fraction: Option<f64>,
    /// HU of the necrotic core minus those of the rest of the tumor.
    pub core_hu: Option<f64>,
    /// HU that the densest calcification adds.
    pub calcification_hu: Option<f64>,
    /// Share of the tumor's volume that is fat.
    pub fat_fraction: Option<f64>,
}

/// A band below the surface of a tumor.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Band {
    /// HU relative to the organ.
    hu: f32,
    /// The depth at which the band starts.
    from_mm: f32,
    width_mm: f32,
}

impl Band {
    /// Returns the weight of the band at a depth: 0 outside, 1 within, with soft ends of half the width.
    #[inline(always)]
    fn weight(self, depth_mm: f32) -> f32 {
        let soft = 0.5 * self.width_mm;
        let start = smooth_step((depth_mm - self.from_mm + soft) / soft);
        let end = smooth_step((depth_mm - self.from_mm - self.width_mm) / soft);
        start * (1.0 - end)
    }
}

/// A calcification.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Calcification {
    /// Position relative to the tumor's centre.
    offset_mm: [f32; 3],
    radius_mm: f32,
    hu: f32,
}

/// The inner structure of one tumor.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct InnerStructure {
    rim: Option<Band>,
    capsule: Option<Band>,
    /// The depth at which the core starts, and the HU by which it is darker.
    core: Option<(f32, f32)>,
    calcifications: Vec<Calcification>,
    /// The share of fat, and the HU by which it is darker.
    fat: Option<(f64, f32)>,
    record: SampledStructure,
}

/// The tumor whose structure is sampled.
#[derive(Clone, Copy, Debug)]
pub(super) struct SolidTumor {
    pub diameter_mm: f64,
    /// The HU by which the tumor is darker than its organ; `None` if a network predicts them.
    pub contrast_hu: Option<f64>,
    /// Median HU of the organ.
    pub organ_hu: f64,
    /// The semi-axes and directions of the tumor's ellipsoid.
    pub radii_mm: [f64; 3],
    pub rotation: [[f64; 3]; 3],
}

impl InnerStructure {
    /// Samples the structure. Every value is sampled, whether it is used or not, so that one setting does not change the others.
    pub fn sample(random: &mut RandomStream, prior: &StructurePrior, config: &RulesConfig, tumor: SolidTumor) -> Self {
        let enhanced = tumor.organ_hu >= prior.enhanced_from_hu;
        let mut has = |share: f64, from_mm: f64| random.chance(share) & (tumor.diameter_mm >= from_mm);
        let if_enhanced = |share: f64| if enhanced { share } else { 0.0 };
        let has_rim = has(config.rim_fraction.unwrap_or(if_enhanced(prior.rim)), RIM_FROM_MM);
        let has_capsule = has(config.capsule_fraction.unwrap_or(if_enhanced(prior.capsule)), RIM_FROM_MM);
        let has_core = has(config.necrotic_fraction.unwrap_or(prior.necrosis), NECROTIC_FROM_MM);
        let is_calcified = has(config.calcified_fraction.unwrap_or(prior.calcification), CALCIFIED_FROM_MM);
        let has_fat = has(config.fat_fraction.unwrap_or(prior.fat), FAT_FROM_MM);

        let rim_width = random.uniform(1.0, 2.6).min(0.07 * tumor.diameter_mm);
        let rim_hu = random.uniform(prior.rim_hu[0], prior.rim_hu[1]);
        let rim = Band { hu: rim_hu as f32, from_mm: 0.5 * rim_width as f32, width_mm: rim_width as f32 };
        let capsule_width = random.uniform(0.8, 1.6);
        let capsule_hu = random.uniform(prior.capsule_hu[0], prior.capsule_hu[1]);
        let capsule =
            Band { hu: capsule_hu as f32, from_mm: 0.5 * capsule_width as f32, width_mm: capsule_width as f32 };
        let core_fraction = random.uniform(0.05, 0.45);
        let core_target_hu = random.uniform(prior.necrosis_hu[0], prior.necrosis_hu[1]);
        let below_hu = random.uniform(CORE_BELOW_TUMOR_HU[0], CORE_BELOW_TUMOR_HU[1]);
        let core_hu = match tumor.contrast_hu {
            Some(contrast_hu) => (tumor.organ_hu - contrast_hu - core_target_hu).max(0.0),
            None => below_hu,
        };
        let core_from = 1.0 - libm::cbrt(core_fraction);
        let calcifications = sample_calcifications(random, tumor);
        let fat_fraction = random.uniform(0.05, 0.5);
        let fat_hu = random.uniform(50.0, 110.0);

        let densest = calcifications.iter().map(|speck| f64::from(speck.hu)).fold(0.0, f64::max);
        Self {
            rim: has_rim.then_some(rim),
            capsule: (has_capsule && !has_rim).then_some(capsule),
            core: has_core.then_some((core_from as f32, core_hu as f32)),
            calcifications: if is_calcified { calcifications } else { Vec::new() },
            fat: has_fat.then_some((fat_fraction, fat_hu as f32)),
            record: SampledStructure {
                rim_hu: has_rim.then_some(rim_hu),
                capsule_hu: (has_capsule && !has_rim).then_some(capsule_hu),
                core_fraction: has_core.then_some(core_fraction),
                core_hu: has_core.then_some(-core_hu),
                calcification_hu: is_calcified.then_some(densest),
                fat_fraction: has_fat.then_some(fat_fraction),
            },
        }
    }

    /// Returns the sampled properties.
    pub fn record(&self) -> &SampledStructure {
        &self.record
    }

    /// Returns the share of the volume that is fat, or `None` if the tumor contains no fat.
    pub fn fat_fraction(&self) -> Option<f64> {
        self.fat.map(|(fraction, _)| fraction)
    }

    /// Returns whether the tumor has no inner structure.
    pub fn is_plain(&self) -> bool {
        self.rim.is_none() && self.capsule.is_none() && self.core.is_none() && self.fat.is_none()
    }

    /// Returns the factor of the tumor's contrast and the HU to add at a depth. `depth` is 0 on the surface and 1 at the centre, `texture`
    /// the value of the tumor's texture, of which the values below `fat_below` are fat.
    #[inline(always)]
    pub fn at(&self, depth: f32, depth_mm: f32, texture: f32, fat_below: f32) -> [f32; 2] {
        let (mut factor, mut hu) = (1.0, 0.0);
        for band in self.rim.iter().chain(&self.capsule) {
            let weight = band.weight(depth_mm);
            factor *= 1.0 - weight;
            hu += weight * band.hu;
        }
        if let Some((from, core_hu)) = self.core {
            // The texture makes the border of the core irregular.
            let irregular = depth + 0.5 * (texture - TEXTURE_MEAN);
            hu -= core_hu * smooth_step((irregular - from + 0.1) / 0.2) * smooth_step(depth / 0.15);
        }
        if let Some((_, fat_hu)) = self.fat {
            hu -= fat_hu * (1.0 - smooth_step((texture - fat_below + 0.03) / 0.06)) * smooth_step(depth / 0.2);
        }
        [factor, hu]
    }

    /// Calls `visit` with the position relative to the tumor's centre, the radius and the HU of each calcification.
    pub fn calcifications(&self) -> impl Iterator<Item = ([f32; 3], f32, f32)> + '_ {
        self.calcifications.iter().map(|speck| (speck.offset_mm, speck.radius_mm, speck.hu))
    }
}

/// Samples the calcifications of a tumor: one large or several small ones, in the inner two thirds.
fn sample_calcifications(random: &mut RandomStream, tumor: SolidTumor) -> Vec<Calcification> {
    let count = 1 + random.index(MAX_CALCIFICATIONS);
    let radius_mm = random.uniform(0.6, 2.4).min(0.12 * tumor.diameter_mm);
    let mut all: Vec<Calcification> = (0..MAX_CALCIFICATIONS)
        .map(|_| {
            let direction = random.direction();
            let level = 0.66 * libm::cbrt(random.uniform(0.0, 1.0));
            let along = [0, 1, 2].map(|axis| direction[axis] * level * tumor.radii_mm[axis]);
            let offset = [0, 1, 2].map(|k| (0..3).map(|axis| tumor.rotation[axis][k] * along[axis]).sum::<f64>());
            Calcification {
                offset_mm: offset.map(|mm| mm as f32),
                radius_mm: (radius_mm * random.uniform(0.6, 1.2)) as f32,
                hu: random.uniform(80.0, 400.0) as f32,
            }
        })
        .collect();
    all.truncate(count);
    all
}

/// Returns 0 below 0, 1 above 1, and a smooth transition between.
#[inline(always)]
pub(super) fn smooth_step(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::synth::prior::prior_of;

    fn tumor(diameter_mm: f64, organ_hu: f64) -> SolidTumor {
        let radii_mm = [diameter_mm / 2.0; 3];
        let rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        SolidTumor { diameter_mm, contrast_hu: Some(40.0), organ_hu, radii_mm, rotation }
    }

    fn structures(config: &RulesConfig, diameter_mm: f64, organ_hu: f64) -> Vec<InnerStructure> {
        let prior = &prior_of("liver").unwrap().structure;
        let sample = |seed| {
            InnerStructure::sample(
                &mut Key::root(seed).stream("structure"),
                prior,
                config,
                tumor(diameter_mm, organ_hu),
            )
        };
        (0..2000).map(sample).collect()
    }

    #[test]
    fn sampled_shares_equal_shares_of_prior() {
        let all = structures(&RulesConfig::default(), 30.0, 110.0);
        let share = |has: fn(&SampledStructure) -> bool| {
            all.iter().filter(|structure| has(structure.record())).count() as f64 / all.len() as f64
        };
        let prior = &prior_of("liver").unwrap().structure;
        assert!((share(|record| record.rim_hu.is_some()) - prior.rim).abs() < 0.03);
        assert!((share(|record| record.core_fraction.is_some()) - prior.necrosis).abs() < 0.03);
        assert!((share(|record| record.calcification_hu.is_some()) - prior.calcification).abs() < 0.02);
    }

    #[test]
    fn small_tumors_and_unenhanced_organs_have_no_rim() {
        for (diameter_mm, organ_hu) in [(8.0, 110.0), (30.0, 50.0)] {
            let all = structures(&RulesConfig::default(), diameter_mm, organ_hu);
            assert!(all.iter().all(|structure| structure.record().rim_hu.is_none()));
        }
    }

    #[test]
    fn settings_replace_the_prior() {
        let config = RulesConfig { rim_fraction: Some(1.0), necrotic_fraction: Some(0.0), ..RulesConfig::default() };
        for structure in structures(&config, 30.0, 50.0) {
            assert!(structure.record().rim_hu.is_some() && structure.record().core_fraction.is_none());
        }
    }

    #[test]
    fn rim_has_its_own_hu_below_the_surface_only() {
        let config = RulesConfig {
            rim_fraction: Some(1.0),
            necrotic_fraction: Some(0.0),
            fat_fraction: Some(0.0),
            ..RulesConfig::default()
        };
        for structure in structures(&config, 40.0, 110.0).iter().take(50) {
            let rim = structure.rim.unwrap();
            let [factor, hu] = structure.at(0.1, rim.from_mm + 0.5 * rim.width_mm, 0.5, 0.0);
            assert_eq!((factor, hu), (0.0, rim.hu));
            assert_eq!(structure.at(0.6, 12.0, 0.5, 0.0), [1.0, 0.0]);
        }
    }
}
