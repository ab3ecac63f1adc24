//! The growth of a tumor: whether it displaces or infiltrates its surroundings, and its site at the surface of an organ.

use super::config::RulesConfig;
use super::prior::MassEffectPrior;
use super::site::SitePlan;
use crate::mask::{MaskedScan, Organ};
use crate::random::RandomStream;

/// The number of directions in which the surroundings of a site are examined.
const DIRECTIONS: usize = 128;
/// The maximum number of surface voxels that are examined for one site.
const SURFACE_SAMPLES: usize = 12;
/// The deviation from the requested share at which a site is accepted without examining further voxels.
const CLOSE_SHARE: f64 = 0.04;
/// The maximum deviation from the requested share.
const MAX_SHARE_ERROR: f64 = 0.12;
/// The share of the displacement that infiltrating tumors have.
const INFILTRATING_STRENGTH: f64 = 0.25;
/// The maximum strength near the surface of an organ, where a tumor bulges instead of being cut.
const MAX_BULGE: f64 = 0.4;

/// The growth of a tumor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    /// The share of its radius by which the tumor displaces its surroundings.
    pub strength: f64,
    /// The width of the displaced tissue in radii.
    pub width: f64,
    /// Whether vessels continue into the tumor.
    pub infiltrating: bool,
}

impl Growth {
    /// Samples the growth of a tumor. Every value is sampled, so that the setting `mass_effect` does not change the others.
    pub fn sample(
        random: &mut RandomStream,
        prior: Option<MassEffectPrior>,
        config: &RulesConfig,
        diameter_mm: f64,
    ) -> Self {
        let Some(prior) = prior else { return Self { strength: 0.0, width: 1.0, infiltrating: false } };
        let infiltrating = random.chance(prior.infiltrating);
        let [low, high] = config.mass_effect_strength.unwrap_or(prior.strength);
        let drawn = random.uniform(low, high);
        let width = random.uniform(prior.width[0], prior.width[1]);
        // Small tumors find room between the cells of their organ.
        let by_size = ((diameter_mm - 5.0) / 20.0).clamp(0.2, 1.0);
        let share = if infiltrating { INFILTRATING_STRENGTH } else { 1.0 };
        let strength = if config.mass_effect { drawn * by_size * share } else { 0.0 };
        Self { strength, width: width.max(2.0 * strength), infiltrating }
    }

    /// Strengthens the displacement where the tumor would otherwise be cut by the organ's surface, which is `boundary_mm` from its centre.
    pub fn bulging(self, boundary_mm: f64, radius_mm: f64) -> Self {
        if self.strength == 0.0 || radius_mm <= 0.0 {
            return self;
        }
        let strength = self.strength.max((1.0 - boundary_mm / radius_mm).min(MAX_BULGE));
        Self { strength, width: self.width.max(2.0 * strength), ..self }
    }
}

/// Samples the centre of a tumor at the surface of an organ, so that `share` of the tumor's surface is outside of the organ; `None` if
/// there is no such site. `radius_mm` is the radius of the organ's part that the tumor replaces.
pub(super) fn sample_exterior_site(
    random: &mut RandomStream,
    plan: &SitePlan,
    scan: &MaskedScan,
    organ: &Organ,
    radius_mm: f64,
    share: f64,
) -> Option<[f64; 3]> {
    let spacing_mm = scan.scan.volume.grid.spacing_mm();
    let shape = scan.mask.labels.shape();
    let directions = fibonacci_directions();
    let is_inside = |position: [f64; 3]| {
        let voxel = position.map(|x| (x + 0.5).floor());
        (0..3).all(|k| voxel[k] >= 0.0 && voxel[k] < shape[k] as f64)
    };
    let exterior = |centre: [f64; 3]| {
        let outside = directions.iter().filter(|direction| {
            let position = [0, 1, 2].map(|k| centre[k] + radius_mm * direction[k] / spacing_mm[k]);
            !is_inside(position) || scan.mask.labels[position.map(|x| (x + 0.5) as usize)] != organ.label
        });
        outside.count() as f64 / DIRECTIONS as f64
    };
    let mut best: Option<(f64, [f64; 3])> = None;
    for _ in 0..SURFACE_SAMPLES {
        let (voxel, outwards) = plan.sample_surface(random, spacing_mm)?;
        let centre = |along_mm: f64| [0, 1, 2].map(|k| voxel[k] as f64 + along_mm * outwards[k] / spacing_mm[k]);
        // The share increases along the way out: the first step at which it is reached is refined.
        let (mut low, mut high) = (-1.5 * radius_mm, 1.5 * radius_mm);
        for _ in 0..8 {
            let middle = 0.5 * (low + high);
            if exterior(centre(middle)) < share { low = middle } else { high = middle }
        }
        let found = centre(0.5 * (low + high));
        let error = (exterior(found) - share).abs();
        if is_inside(found) && best.is_none_or(|(least, _)| error < least) {
            best = Some((error, found));
        }
        if best.is_some_and(|(error, _)| error <= CLOSE_SHARE) {
            break;
        }
    }
    best.filter(|(error, _)| *error <= MAX_SHARE_ERROR).map(|(_, centre)| centre)
}

/// Returns directions that are evenly distributed over a sphere.
fn fibonacci_directions() -> [[f64; 3]; DIRECTIONS] {
    let golden = std::f64::consts::PI * (3.0 - libm::sqrt(5.0));
    std::array::from_fn(|index| {
        let z = 1.0 - (2 * index + 1) as f64 / DIRECTIONS as f64;
        let radius = libm::sqrt(1.0 - z * z);
        let angle = golden * index as f64;
        [radius * libm::cos(angle), radius * libm::sin(angle), z]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::synth::organ::OrganSummary;
    use crate::synth::organ::testing::{liver, masked};
    use crate::synth::prior::prior_of;
    use crate::volume::Array3;

    #[test]
    fn exterior_sites_have_requested_surface_fraction_outside_organ() {
        let spacing_mm = [1.0, 1.0, 2.0];
        let ball = |[x, y, z]: [usize; 3]| {
            let square = (x as f64 - 50.0).powi(2) + (y as f64 - 50.0).powi(2) + (2.0 * z as f64 - 50.0).powi(2);
            u8::from(square < 28.0 * 28.0)
        };
        let scan = masked(spacing_mm, Array3::from_fn([100, 100, 50], ball), |_| 100.0);
        let summary = OrganSummary::of(&scan, &liver()).unwrap();
        let plan = SitePlan::new(&scan, &liver(), &summary);
        let mut random = Key::root(3).stream("site");
        for share in [0.3, 0.5, 0.7] {
            for _ in 0..10 {
                let centre = sample_exterior_site(&mut random, &plan, &scan, &liver(), 12.0, share).unwrap();
                // For two balls, the share follows from the distance of their centres.
                let distance =
                    (0..3).map(|k| ((centre[k] - [50.0, 50.0, 25.0][k]) * spacing_mm[k]).powi(2)).sum::<f64>().sqrt();
                let cosine = (28.0f64.powi(2) - 12.0f64.powi(2) - distance * distance) / (2.0 * 12.0 * distance);
                let expected = (1.0 - cosine.clamp(-1.0, 1.0)) / 2.0;
                assert!((expected - share).abs() < 0.13, "{share}: {expected} at {distance} mm");
            }
        }
    }

    #[test]
    fn growth_without_mass_effect_has_the_same_kind() {
        let prior = prior_of("liver").unwrap().mass_effect;
        for seed in 0..50 {
            let sample = |mass_effect| {
                let config = RulesConfig { mass_effect, ..RulesConfig::default() };
                Growth::sample(&mut Key::root(seed).stream("growth"), prior, &config, 30.0)
            };
            let (with, without) = (sample(true), sample(false));
            assert!(with.strength > 0.0 && without.strength == 0.0);
            assert_eq!(with.infiltrating, without.infiltrating);
        }
    }

    #[test]
    fn tumors_near_the_surface_displace_it_instead_of_being_cut() {
        let growth = Growth { strength: 0.1, width: 0.7, infiltrating: false };
        assert_eq!(growth.bulging(7.0, 10.0).strength, 1.0 - 7.0 / 10.0);
        assert_eq!(growth.bulging(30.0, 10.0), growth);
        assert_eq!(growth.bulging(0.0, 10.0).strength, MAX_BULGE);
        let none = Growth { strength: 0.0, ..growth };
        assert_eq!(none.bulging(0.0, 10.0), none);
    }
}
