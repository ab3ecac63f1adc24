//! Variation of phantoms: build of the patient, and phase of the contrast agent.

use crate::random::RandomStream;

/// The phase of the contrast agent in a scan; native is without contrast agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Native,
    Arterial,
    Portal,
}

/// Properties that are equal in all scans of one patient.
#[derive(Clone, Debug)]
pub(super) struct Build {
    /// Body size relative to the standard body.
    pub(super) size: f32,
    /// Width of the trunk relative to the size.
    pub(super) girth: f32,
    /// Thickness of the anterior subcutaneous fat.
    pub(super) fat_mm: f32,
    /// Thickness of the muscles of the trunk.
    pub(super) muscle_mm: f32,
    /// Reduction of the HU of the liver by its fat.
    pub(super) liver_fat_hu: f32,
    /// Size of the left liver lobe and of the spleen relative to the standard.
    pub(super) left_lobe: f32,
    pub(super) spleen: f32,
    /// Relative density of bone.
    pub(super) bone: f32,
}

impl Build {
    /// Samples the build of a patient.
    pub(super) fn sample(random: &mut RandomStream) -> Self {
        let mut normal =
            |mean: f64, deviation: f64, low: f64, high: f64| random.normal(mean, deviation).clamp(low, high) as f32;
        Self {
            size: normal(1.0, 0.05, 0.88, 1.1),
            girth: normal(1.0, 0.04, 0.9, 1.08),
            fat_mm: normal(15.0, 6.0, 5.0, 30.0),
            muscle_mm: normal(11.0, 1.5, 8.0, 15.0),
            liver_fat_hu: normal(0.0, 12.0, 0.0, 35.0),
            left_lobe: normal(1.0, 0.12, 0.7, 1.25),
            spleen: normal(1.0, 0.1, 0.8, 1.25),
            bone: normal(1.0, 0.15, 0.65, 1.35),
        }
    }
}

/// HU of the tissues that take up contrast agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enhancement {
    pub(super) artery: f32,
    pub(super) vein: f32,
    pub(super) portal: f32,
    pub(super) hepatic_vein: f32,
    pub(super) liver: f32,
    pub(super) spleen: f32,
    pub(super) pancreas: f32,
    pub(super) cortex: f32,
    pub(super) medulla: f32,
    pub(super) bowel: f32,
    pub(super) myocardium: f32,
    pub(super) lung_vessel: f32,
}

impl Phase {
    /// Samples a phase: mostly portal-venous as in most archives, some native and some arterial.
    pub(super) fn sample(random: &mut RandomStream) -> Self {
        match random.uniform(0.0, 1.0) {
            u if u < 0.55 => Self::Portal,
            u if u < 0.8 => Self::Native,
            _ => Self::Arterial,
        }
    }

    /// Samples HU around typical values of the phase.
    pub(super) fn enhancement(self, random: &mut RandomStream) -> Enhancement {
        let table: [f32; 12] = match self {
            Self::Native => [42.0, 40.0, 41.0, 40.0, 60.0, 49.0, 42.0, 34.0, 30.0, 40.0, 44.0, 40.0],
            Self::Arterial => [310.0, 80.0, 120.0, 75.0, 72.0, 135.0, 108.0, 190.0, 75.0, 85.0, 120.0, 220.0],
            Self::Portal => [158.0, 135.0, 172.0, 165.0, 110.0, 120.0, 92.0, 186.0, 168.0, 82.0, 105.0, 145.0],
        };
        let spread = if self == Self::Native { 2.0 } else { 5.0 };
        let mut table =
            table.map(|hu| (hu + random.normal(0.0, spread).clamp(-2.5 * spread, 2.5 * spread) as f32).round());
        if self == Self::Portal {
            // In this phase the medulla is nearly as bright as the cortex, but never brighter.
            table[8] = table[8].min(table[7] - 4.0);
        }
        let [
            artery,
            vein,
            portal,
            hepatic_vein,
            liver,
            spleen,
            pancreas,
            cortex,
            medulla,
            bowel,
            myocardium,
            lung_vessel,
        ] = table;
        Enhancement {
            artery,
            vein,
            portal,
            hepatic_vein,
            liver,
            spleen,
            pancreas,
            cortex,
            medulla,
            bowel,
            myocardium,
            lung_vessel,
        }
    }
}
