//! One tumor: its traits, and its influence on a voxel.

use freetumor::random::{Key, RandomStream};
use serde::{Deserialize, Serialize};

use super::harmonics::StarBody;
use super::waves::Waves;

/// The minimum diameter of lesions with a necrotic core.
const CORE_FROM_MM: f64 = 20.0;
/// The minimum diameter of lesions with a rim.
const RIM_FROM_MM: f64 = 12.0;

/// The log-normal distribution of diameters, clamped to a range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diameters {
    /// The median.
    pub median_mm: f64,
    /// The standard deviation of the logarithm.
    pub spread: f64,
    /// The minimum and the maximum.
    pub range_mm: [f64; 2],
}

impl Default for Diameters {
    fn default() -> Self {
        Self { median_mm: 16.0, spread: 0.45, range_mm: [4.0, 40.0] }
    }
}

impl Diameters {
    fn sample(&self, random: &mut RandomStream) -> f64 {
        let [low, high] = self.range_mm;
        libm::exp(random.normal(libm::log(self.median_mm), self.spread)).clamp(low, high)
    }
}

/// The sampled traits of a tumor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TumorTraits {
    /// The diameter of a ball of the same volume, before it is cut by the border of the organ.
    pub diameter_mm: f64,
    /// HU relative to the organ; positive for bright tumors.
    pub contrast_hu: f64,
    /// The width of the edge.
    pub margin_mm: f64,
    /// HU of the necrotic core relative to the rest of the tumor; `None` without a core.
    pub core_hu: Option<f64>,
    /// HU of the rim relative to the organ; `None` without a rim.
    pub rim_hu: Option<f64>,
    /// The deviation of the texture.
    pub texture_hu: f64,
}

/// A tumor with its centre.
#[derive(Clone, Debug)]
pub struct Tumor {
    /// The traits.
    pub traits: TumorTraits,
    /// The centre, RAS+ mm.
    pub center_mm: [f64; 3],
    body: StarBody,
    texture: Waves,
    core_radius: f64,
    rim_mm: f64,
}

/// The influence of a tumor on a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Influence {
    /// The share of the tumor in the tissue, 0 to 1.
    pub(super) share: f64,
    /// HU of the tumor relative to the organ.
    pub(super) hu: f64,
}

impl TumorTraits {
    /// Samples the traits of a tumor: contrast is −35 ± 15 HU, at least 20 HU in absolute value, and 15% are brighter than the organ;
    /// tumors of 20 mm and more have a core; 30% of those of 12 mm and more have a rim, as a smaller tumor would be all rim.
    pub(super) fn sample(random: &mut RandomStream, diameters: &Diameters) -> Self {
        let diameter_mm = diameters.sample(random);
        let strength = random.normal(35.0, 15.0).clamp(20.0, 80.0);
        let is_brighter = random.chance(0.15);
        let margin_mm = random.uniform(0.5, 2.5);
        let core_hu = (diameter_mm >= CORE_FROM_MM).then(|| -random.uniform(12.0, 35.0));
        let rim_hu = (random.chance(0.3) && diameter_mm >= RIM_FROM_MM).then(|| random.uniform(12.0, 35.0));
        let texture_hu = random.uniform(2.0, 8.0);
        let contrast_hu = if is_brighter { strength } else { -strength };
        Self { diameter_mm, contrast_hu, margin_mm, core_hu, rim_hu, texture_hu }
    }
}

impl Tumor {
    /// Creates a tumor of given traits and centre.
    pub(super) fn grow(traits: TumorTraits, center_mm: [f64; 3], key: Key) -> Self {
        let mut random = key.stream("body");
        let roughness = random.uniform(0.08, 0.24);
        let body = StarBody::sample(&mut random, traits.diameter_mm, roughness);
        let length_mm = random.uniform(1.5, 4.0);
        let texture = Waves::sample(&mut key.stream("texture"), length_mm);
        let core_radius = random.uniform(0.35, 0.65);
        let rim_mm = random.uniform(1.5, 3.0).min(0.25 * traits.diameter_mm);
        Self { traits, center_mm, body, texture, core_radius, rim_mm }
    }

    /// Returns the distance from the centre beyond which no voxel changes.
    pub(super) fn reach_mm(&self) -> f64 {
        self.body.max_radius_mm() + self.traits.margin_mm
    }

    /// Returns the influence on a point, RAS+ mm.
    pub(super) fn at(&self, point_mm: [f64; 3]) -> Influence {
        let offset = [0, 1, 2].map(|axis| point_mm[axis] - self.center_mm[axis]);
        let length = offset.iter().map(|v| v * v).sum::<f64>().sqrt();
        let traits = &self.traits;
        if length > self.reach_mm() {
            return Influence { share: 0.0, hu: 0.0 };
        }
        let radius = self.body.radius_mm(offset);
        // The edge is half inside and half outside of the surface.
        let depth = radius - length;
        let share = smooth(0.5 + depth / (2.0 * traits.margin_mm));
        if share == 0.0 {
            return Influence { share, hu: 0.0 };
        }
        let mut hu = traits.contrast_hu + traits.texture_hu * self.texture.at(point_mm);
        if let Some(core_hu) = traits.core_hu {
            let core_radius = self.core_radius * radius * (1.0 + 0.15 * self.texture.at(offset.map(|v| 0.4 * v)));
            hu += core_hu * smooth(0.5 + (core_radius - length) / 3.0);
        }
        if let Some(rim_hu) = traits.rim_hu {
            let rim = smooth(0.5 + (self.rim_mm - depth.max(0.0)) / self.rim_mm.min(1.5));
            hu += (rim_hu - hu) * rim;
        }
        Influence { share, hu }
    }
}

/// Returns a smooth step from 0 at 0 to 1 at 1.
pub(super) fn smooth(t: f64) -> f64 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traits_have_expected_distributions() {
        let mut random = Key::root(4).stream("traits");
        let all: Vec<TumorTraits> =
            (0..4000).map(|_| TumorTraits::sample(&mut random, &Diameters::default())).collect();
        let share = |predicate: fn(&TumorTraits) -> bool| {
            all.iter().filter(|traits| predicate(traits)).count() as f64 / all.len() as f64
        };
        assert!((share(|t| t.contrast_hu > 0.0) - 0.15).abs() < 0.02);
        let rimmed = share(|t| t.rim_hu.is_some()) / share(|t| t.diameter_mm >= RIM_FROM_MM);
        assert!((rimmed - 0.3).abs() < 0.03, "{rimmed}");
        assert!(all.iter().all(|t| t.rim_hu.is_none() || t.diameter_mm >= RIM_FROM_MM));
        assert!(all.iter().all(|t| t.core_hu.is_some() == (t.diameter_mm >= CORE_FROM_MM)));
        let mean = all.iter().map(|t| t.contrast_hu.abs()).sum::<f64>() / all.len() as f64;
        assert!((mean - 36.6).abs() < 1.0, "{mean}");
        // Each bin of the evaluation contains lesions.
        assert!(share(|t| t.diameter_mm < 10.0) > 0.08 && share(|t| t.diameter_mm >= 20.0) > 0.2);
    }

    #[test]
    fn influence_is_full_inside_and_zero_outside() {
        let traits = TumorTraits {
            diameter_mm: 30.0,
            contrast_hu: -40.0,
            margin_mm: 1.0,
            core_hu: Some(-30.0),
            rim_hu: Some(20.0),
            texture_hu: 0.0,
        };
        let tumor = Tumor::grow(traits, [5.0, 0.0, 0.0], Key::root(6));
        let middle = tumor.at([5.0, 0.0, 0.0]);
        assert_eq!(middle, Influence { share: 1.0, hu: -70.0 });
        assert_eq!(tumor.at([5.0 + tumor.reach_mm() + 0.1, 0.0, 0.0]).share, 0.0);
        let surface = tumor.body.radius_mm([1.0, 0.0, 0.0]);
        let edge = tumor.at([5.0 + surface - 0.01, 0.0, 0.0]);
        assert!((edge.share - 0.5).abs() < 0.02 && edge.hu > 15.0, "{edge:?}");
    }
}
