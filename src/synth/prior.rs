//! Priors of the tumors of each organ: aggregate distributions from which the rules sample.
//!
//! Sizes and shapes were fitted so that measured shapes follow those of real tumors (liver and pancreas: LiTS and MSD,
//! kidney: KiTS, lung: MSD); `cargo bench --bench shapes` prints the distances. Contrasts are clinical ranges.

use super::shape::ShapeParameters;
use crate::random::RandomStream;

/// A distribution as its quantiles at 0, 5, 25, 50, 75, 95 and 100%, linear in the logarithm between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles(pub [f64; 7]);

/// The probabilities of [`Quantiles`].
pub const PROBABILITIES: [f64; 7] = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0];

impl Quantiles {
    /// Returns the quantile of a probability.
    pub fn quantile(&self, p: f64) -> f64 {
        let upper = PROBABILITIES[1..6].iter().position(|&s| p < s).unwrap_or(5) + 1;
        let t = (p - PROBABILITIES[upper - 1]) / (PROBABILITIES[upper] - PROBABILITIES[upper - 1]);
        let (low, high) = (libm::log(self.0[upper - 1]), libm::log(self.0[upper]));
        libm::exp(low + t.clamp(0.0, 1.0) * (high - low))
    }

    /// Returns the probability of values below a value.
    pub fn cdf(&self, value: f64) -> f64 {
        if value <= self.0[0] {
            return 0.0;
        }
        let Some(upper) = (1..7).find(|&k| value < self.0[k]) else { return 1.0 };
        let (low, high) = (libm::log(self.0[upper - 1]), libm::log(self.0[upper]));
        let t = (libm::log(value) - low) / (high - low);
        PROBABILITIES[upper - 1] + t * (PROBABILITIES[upper] - PROBABILITIES[upper - 1])
    }

    /// Samples a value.
    pub fn sample(&self, random: &mut RandomStream) -> f64 {
        self.quantile(random.uniform(0.0, 1.0))
    }

    /// Samples a value between two limits, with the distribution restricted to this range; `None` if the range has no probability.
    pub fn sample_between(&self, random: &mut RandomStream, low: f64, high: f64) -> Option<f64> {
        let (from, to) = (self.cdf(low), self.cdf(high));
        let share = random.uniform(from, to);
        (from < to && low < high).then(|| self.quantile(share))
    }
}

/// The depth of the centre in the organ, in radii of the tumor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Depth {
    /// Any depth of at least this value.
    AtLeast(f64),
    /// A centre near the surface, so that a sampled share of the tumor's surface is outside the organ: the tumor grows into the fat around
    /// the organ. The mean share increases with the logarithm of the diameter.
    Exterior {
        /// The share of a tumor of 1 mm, from which the share increases.
        at_1_mm: f64,
        /// The increase for each factor of e in the diameter.
        per_log_mm: f64,
        /// The standard deviation of the share.
        deviation: f64,
    },
}

impl Depth {
    /// Samples the share of a tumor's surface that is outside the organ; `None` if tumors stay inside.
    pub fn sample_exterior(self, random: &mut RandomStream, diameter_mm: f64) -> Option<f64> {
        match self {
            Self::AtLeast(_) => None,
            Self::Exterior { at_1_mm, per_log_mm, deviation } => {
                let mean = at_1_mm + per_log_mm * libm::log(diameter_mm);
                Some(random.normal(mean, deviation).clamp(0.05, 0.9))
            }
        }
    }
}

/// The displacement of the tissue around tumors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MassEffectPrior {
    /// The share of its radius by which a large tumor displaces its surroundings, minimum and maximum. Smaller tumors displace less.
    pub strength: [f64; 2],
    /// The width of the displaced tissue in radii, minimum and maximum.
    pub width: [f64; 2],
    /// The share of tumors that infiltrate their organ: they displace a quarter of that, and vessels continue into them.
    pub infiltrating: f64,
}

/// The inner structures of an organ's tumors; all shares are of tumors that are large enough for the structure.
///
/// # Source
/// Clinical ranges of portal-venous CT; the share of tumors with a bright rim is that of liver metastases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StructurePrior {
    /// Median HU from which an organ counts as enhanced by contrast agent. Rims and capsules are visible in enhanced organs only.
    pub enhanced_from_hu: f64,
    /// Share of tumors with a bright rim.
    pub rim: f64,
    /// HU of the rim minus those of the organ.
    pub rim_hu: [f64; 2],
    /// Share of tumors with a capsule, if they have no rim.
    pub capsule: f64,
    /// HU of the capsule minus those of the organ.
    pub capsule_hu: [f64; 2],
    /// Share of tumors with a necrotic core.
    pub necrosis: f64,
    /// HU of the necrotic core.
    pub necrosis_hu: [f64; 2],
    /// Share of tumors with calcifications.
    pub calcification: f64,
    /// Share of tumors with fat.
    pub fat: f64,
}

impl StructurePrior {
    /// Tumors without inner structure.
    pub const NONE: Self = Self {
        enhanced_from_hu: f64::INFINITY,
        rim: 0.0,
        rim_hu: [0.0; 2],
        capsule: 0.0,
        capsule_hu: [0.0; 2],
        necrosis: 0.0,
        necrosis_hu: [0.0; 2],
        calcification: 0.0,
        fat: 0.0,
    };
}

/// The contrast between a tumor and its organ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contrast {
    /// Darker than the organ by a share of the organ's own HU, within limits.
    Darker {
        /// Share of the organ's median HU.
        share: [f64; 2],
        /// Minimum and maximum difference in HU.
        limits_hu: [f64; 2],
        /// Minimum mean HU of the tumor. If it leaves too little contrast, the tumor is brighter than its organ.
        floor_hu: f64,
    },
    /// Tissue replaces air: completely in solid nodules, partially in ground glass.
    Filling {
        /// Share of solid nodules.
        solid: f64,
        /// HU of solid tissue.
        tissue_hu: [f64; 2],
        /// HU of ground glass.
        ground_glass_hu: [f64; 2],
    },
}

/// The prior of an organ's tumors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrganPrior {
    /// The organ's name.
    pub organ: &'static str,
    /// Equivalent diameter in mm.
    pub diameter_mm: Quantiles,
    /// Longest over middle axis.
    pub major_over_middle: Quantiles,
    /// Middle over shortest axis.
    pub middle_over_minor: Quantiles,
    /// Standard deviation of the lobes, as a share of the radius.
    pub lobes: Quantiles,
    /// Size of the lobes' lattice, as a share of the diameter.
    pub lobe_step: f64,
    /// Standard deviation of the ragged edge in mm.
    pub edge_mm: Quantiles,
    /// Size of the edge's lattice in mm.
    pub edge_step_mm: f64,
    /// The depth of the centre in the organ.
    pub depth: Depth,
    /// Maximum volume of the shape, as a share of the labeled organ (both kidneys, both lungs): larger tumors would
    /// replace most of their organ.
    pub max_organ_share: f64,
    /// Maximum share of the shape outside the organ.
    pub max_clipped_fraction: f64,
    /// Standard deviation of the Gaussian that softens the edge, minimum and maximum in mm.
    pub margin_mm: [f64; 2],
    /// The contrast between tumor and organ.
    pub contrast: Contrast,
    /// The displacement of the tissue around tumors; `None` in organs of air, which a tumor replaces.
    pub mass_effect: Option<MassEffectPrior>,
    /// The inner structures of tumors.
    pub structure: StructurePrior,
    /// The share of the organ's own structure that remains visible in a tumor.
    pub kept_structure: f32,
}

impl OrganPrior {
    /// Samples the shape parameters of a tumor of a given diameter.
    pub fn shape(&self, random: &mut RandomStream, diameter_mm: f64) -> ShapeParameters {
        ShapeParameters {
            diameter_mm,
            major_over_middle: self.major_over_middle.sample(random),
            middle_over_minor: self.middle_over_minor.sample(random),
            lobes: self.lobes.sample(random),
            lobe_step: self.lobe_step,
            edge_mm: self.edge_mm.sample(random),
            edge_step_mm: self.edge_step_mm,
        }
    }
}

/// The organs that have a prior.
pub const PRIORS: [OrganPrior; 4] = [
    OrganPrior {
        organ: "liver",
        diameter_mm: Quantiles([3.0, 4.172, 6.764, 10.37, 17.61, 41.5, 90.0]),
        major_over_middle: Quantiles([1.011, 1.018, 1.063, 1.120, 1.423, 1.992, 2.240]),
        middle_over_minor: Quantiles([1.010, 1.016, 1.046, 1.105, 1.203, 1.682, 1.853]),
        lobes: Quantiles([0.086, 0.130, 0.140, 0.159, 0.232, 0.389, 0.464]),
        lobe_step: 0.3,
        edge_mm: Quantiles([0.193, 0.321, 0.363, 0.490, 0.580, 1.150, 1.500]),
        edge_step_mm: 1.5,
        depth: Depth::AtLeast(0.7),
        max_organ_share: 0.3,
        max_clipped_fraction: 0.3,
        margin_mm: [0.7, 2.2],
        contrast: Contrast::Darker { share: [0.2, 0.55], limits_hu: [12.0, 75.0], floor_hu: 12.0 },
        mass_effect: Some(MassEffectPrior { strength: [0.15, 0.45], width: [0.7, 1.1], infiltrating: 0.35 }),
        structure: StructurePrior {
            enhanced_from_hu: 75.0,
            rim: 0.27,
            rim_hu: [3.0, 28.0],
            capsule: 0.08,
            capsule_hu: [-45.0, -15.0],
            necrosis: 0.4,
            necrosis_hu: [8.0, 25.0],
            calcification: 0.06,
            fat: 0.02,
        },
        kept_structure: 1.0,
    },
    OrganPrior {
        organ: "kidney",
        diameter_mm: Quantiles([10.0, 16.38, 23.72, 35.02, 53.5, 104.0, 150.0]),
        major_over_middle: Quantiles([1.008, 1.016, 1.022, 1.080, 1.097, 1.182, 1.228]),
        middle_over_minor: Quantiles([1.015, 1.036, 1.040, 1.060, 1.135, 1.440, 1.569]),
        lobes: Quantiles([0.044, 0.071, 0.105, 0.137, 0.156, 0.168, 0.206]),
        lobe_step: 0.3,
        edge_mm: Quantiles([0.206, 0.349, 0.498, 0.513, 0.620, 0.630, 0.780]),
        edge_step_mm: 1.5,
        // Fitted to the shares of 113 tumors of KiTS19 at 2 mm (quartiles 0.40, 0.55, 0.69).
        depth: Depth::Exterior { at_1_mm: -0.429, per_log_mm: 0.268, deviation: 0.124 },
        // Tumors of the kidney outgrow it.
        max_organ_share: 1.2,
        max_clipped_fraction: 0.6,
        margin_mm: [0.5, 1.5],
        contrast: Contrast::Darker { share: [0.2, 0.6], limits_hu: [14.0, 110.0], floor_hu: 15.0 },
        mass_effect: Some(MassEffectPrior { strength: [0.15, 0.4], width: [0.6, 1.0], infiltrating: 0.1 }),
        structure: StructurePrior {
            enhanced_from_hu: 60.0,
            rim: 0.1,
            rim_hu: [-25.0, 15.0],
            capsule: 0.15,
            capsule_hu: [-60.0, -20.0],
            necrosis: 0.5,
            necrosis_hu: [8.0, 28.0],
            calcification: 0.12,
            fat: 0.04,
        },
        kept_structure: 0.15,
    },
    OrganPrior {
        organ: "pancreas",
        diameter_mm: Quantiles([8.0, 13.08, 17.41, 22.23, 26.9, 41.9, 60.0]),
        major_over_middle: Quantiles([1.002, 1.003, 1.038, 1.110, 1.444, 1.752, 1.940]),
        middle_over_minor: Quantiles([1.003, 1.004, 1.085, 1.112, 1.215, 1.471, 1.589]),
        lobes: Quantiles([0.055, 0.091, 0.145, 0.156, 0.186, 0.190, 0.235]),
        lobe_step: 0.3,
        edge_mm: Quantiles([0.006, 0.008, 0.010, 0.037, 0.371, 1.107, 1.384]),
        edge_step_mm: 2.0,
        depth: Depth::AtLeast(0.35),
        max_organ_share: 0.4,
        max_clipped_fraction: 0.6,
        margin_mm: [0.8, 2.5],
        contrast: Contrast::Darker { share: [0.2, 0.5], limits_hu: [12.0, 65.0], floor_hu: 10.0 },
        mass_effect: Some(MassEffectPrior { strength: [0.1, 0.35], width: [0.6, 1.0], infiltrating: 0.6 }),
        structure: StructurePrior {
            enhanced_from_hu: 65.0,
            rim: 0.08,
            rim_hu: [0.0, 25.0],
            capsule: 0.05,
            capsule_hu: [-40.0, -10.0],
            necrosis: 0.25,
            necrosis_hu: [5.0, 20.0],
            calcification: 0.05,
            fat: 0.0,
        },
        kept_structure: 0.3,
    },
    OrganPrior {
        organ: "lung",
        diameter_mm: Quantiles([3.5, 4.425, 14.32, 21.15, 28.79, 53.61, 80.0]),
        major_over_middle: Quantiles([1.035, 1.059, 1.098, 1.166, 1.323, 1.900, 2.100]),
        middle_over_minor: Quantiles([1.060, 1.095, 1.100, 1.105, 1.450, 1.817, 2.021]),
        lobes: Quantiles([0.079, 0.132, 0.169, 0.173, 0.205, 0.284, 0.354]),
        lobe_step: 0.25,
        edge_mm: Quantiles([0.320, 0.533, 0.862, 0.933, 1.070, 1.772, 2.214]),
        edge_step_mm: 1.5,
        depth: Depth::AtLeast(0.45),
        max_organ_share: 0.1,
        max_clipped_fraction: 0.4,
        margin_mm: [0.5, 1.0],
        contrast: Contrast::Filling { solid: 0.8, tissue_hu: [5.0, 60.0], ground_glass_hu: [-700.0, -350.0] },
        mass_effect: None,
        structure: StructurePrior::NONE,
        kept_structure: 1.0,
    },
];

/// Returns the prior of an organ, or `None` if there is no prior of this name.
pub fn prior_of(organ: &str) -> Option<&'static OrganPrior> {
    PRIORS.iter().find(|prior| prior.organ == organ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn cdf_inverts_quantile() {
        for prior in &PRIORS {
            for share in [0.01, 0.05, 0.3, 0.5, 0.74, 0.95, 0.99] {
                let value = prior.diameter_mm.quantile(share);
                assert!((prior.diameter_mm.cdf(value) - share).abs() < 1e-9, "{} {share}", prior.organ);
            }
            assert_eq!(prior.diameter_mm.cdf(1e-3), 0.0);
            assert_eq!(prior.diameter_mm.cdf(1e3), 1.0);
        }
    }

    #[test]
    fn sample_between_keeps_limits() {
        let (liver, mut random) = (PRIORS[0].diameter_mm, Key::root(1).stream("prior"));
        for _ in 0..200 {
            let value = liver.sample_between(&mut random, 6.0, 12.0).unwrap();
            assert!((6.0..=12.0).contains(&value), "{value}");
        }
        assert_eq!(liver.sample_between(&mut random, 200.0, 300.0), None);
        assert_eq!(liver.sample_between(&mut random, 12.0, 6.0), None);
    }

    #[test]
    fn quantiles_ascend() {
        for prior in &PRIORS {
            for quantiles in
                [prior.diameter_mm, prior.major_over_middle, prior.middle_over_minor, prior.lobes, prior.edge_mm]
            {
                assert!(quantiles.0.windows(2).all(|pair| pair[0] < pair[1]), "{} {quantiles:?}", prior.organ);
            }
        }
    }
}
