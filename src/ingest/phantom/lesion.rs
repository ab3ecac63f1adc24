//! Tumors of phantoms, on which a network is trained and tested if no real scans are available.
//!
//! The model shares neither code nor priors with [`synth`](crate::synth): surfaces of spherical harmonics, sizes of a
//! log-normal and contrasts of a normal distribution, some tumors brighter than their organ, large tumors with a necrotic core,
//! some with a rim, margins of 0.5 to 2.5 mm, a separate texture model. No assumption of the synthesis is therefore true by
//! construction. Cysts, which are round, sharp and as dark as water, test the specificity of a network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::random::{Key, RandomStream};
use crate::volume::{Array3, Grid, Region};

/// The label of the tumors in the first organ; the second organ has the next label, and so on.
pub(super) const FIRST_LABEL: u8 = 118;

/// Organs that may have tumors, with their labels.
const ORGANS: [(&str, &[u8]); 5] =
    [("liver", &[5]), ("spleen", &[1]), ("pancreas", &[7]), ("kidney", &[2, 3]), ("lung", &[10, 11, 12, 13, 14])];

/// Tumors and cysts of phantoms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LesionConfig {
    /// Organs with tumors: `liver`, `spleen`, `pancreas`, `kidney`, `lung`. Tumors of the first organ have the label 118,
    /// tumors of the second 119, and so on.
    pub organs: Vec<String>,
    /// Share of scans with tumors.
    pub share: f64,
    /// Mean number of tumors in each organ of a scan with tumors (Poisson).
    pub mean: f64,
    /// Whether tumors have their own label; otherwise they have the label of their organ.
    pub marked: bool,
    /// Mean number of cysts in each organ of every scan (Poisson); cysts have the label of their organ.
    pub cysts: f64,
    /// Mean and standard deviation of the difference between tumor and organ, in HU.
    pub contrast_hu: [f64; 2],
    /// Share of tumors with the opposite sign of contrast, such as tumors brighter than their organ.
    pub brighter: f64,
    /// Median diameter of tumors, in mm.
    pub diameter_mm: f64,
}

impl Default for LesionConfig {
    fn default() -> Self {
        Self {
            organs: vec!["liver".to_owned()],
            share: 1.0,
            mean: 3.0,
            marked: true,
            cysts: 0.0,
            contrast_hu: [-35.0, 15.0],
            brighter: 0.15,
            diameter_mm: 15.0,
        }
    }
}

impl LesionConfig {
    /// Returns every error in the settings.
    pub(super) fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.organs.is_empty() {
            errors.push(ConfigError::new("organs", "expected at least one organ, got none"));
        }
        for (index, name) in self.organs.iter().enumerate() {
            if !ORGANS.iter().any(|(known, _)| known == name) {
                let known = ORGANS.map(|(known, _)| known).join(", ");
                let error = ConfigError::new(format!("organs.{index}"), format!("phantoms have no tumors in `{name}`"));
                errors.push(error.with_hint(format!("use organs among {known}")));
            }
        }
        for (field, value) in [("share", self.share), ("brighter", self.brighter)] {
            if !(0.0..=1.0).contains(&value) {
                errors.push(ConfigError::new(field, format!("expected a fraction from 0 to 1, got {value}")));
            }
        }
        for (field, value) in [("mean", self.mean), ("cysts", self.cysts)] {
            if !(0.0..=100.0).contains(&value) {
                errors.push(ConfigError::new(field, format!("expected a number from 0 to 100, got {value}")));
            }
        }
        let [mean, deviation] = self.contrast_hu;
        if !(mean.abs() <= 1000.0 && (0.0..=1000.0).contains(&deviation)) {
            let message = format!("expected a mean and a deviation up to 1000 HU, got [{mean}, {deviation}]");
            errors.push(ConfigError::new("contrast_hu", message));
        }
        if !(2.0..=100.0).contains(&self.diameter_mm) {
            let message = format!("expected 2 to 100 mm, got {}", self.diameter_mm);
            errors.push(ConfigError::new("diameter_mm", message));
        }
        errors
    }

    /// Adds tumors and cysts to a scan and its labels.
    pub(super) fn add_to(&self, hu: &mut Array3<i16>, labels: &mut Array3<u8>, grid: &Grid, key: Key) {
        let has_tumors = key.stream("share").chance(self.share);
        for (index, name) in self.organs.iter().enumerate() {
            let Some((_, ids)) = ORGANS.iter().find(|(known, _)| known == name) else { continue };
            let key = key.with("organ", name);
            let organ_voxels: Vec<usize> =
                (0..labels.as_slice().len()).filter(|index| ids.contains(&labels.as_slice()[*index])).collect();
            if organ_voxels.is_empty() {
                continue;
            }
            let mut counts = key.stream("counts");
            let tumors = if has_tumors { poisson(&mut counts, self.mean) } else { 0 };
            let cysts = poisson(&mut counts, self.cysts);
            for number in 0..tumors + cysts {
                let mut random = key.number("lesion", number).stream("form");
                let center = organ_voxels[random.index(organ_voxels.len())];
                let lesion = if number < tumors { Lesion::tumor(&mut random, self) } else { Lesion::cyst(&mut random) };
                let label = (number < tumors && self.marked).then_some(FIRST_LABEL + index as u8);
                lesion.paint(hu, labels, grid, center, ids, label, &mut random);
            }
        }
    }
}

/// One tumor or cyst.
struct Lesion {
    radius_mm: f64,
    margin_mm: f64,
    contrast_hu: f64,
    /// Additional reduction of HU in the necrotic core, and radius of the core as a share of the radius.
    core: Option<(f64, f64)>,
    /// Additional HU of the outer fifth of the radius.
    rim_hu: f64,
    texture_hu: f64,
    texture_mm: f64,
    /// Weights of the harmonics of degree 2 and 3.
    harmonics: [f64; 12],
}

impl Lesion {
    /// Samples a tumor.
    fn tumor(random: &mut RandomStream, config: &LesionConfig) -> Self {
        let diameter_mm = (config.diameter_mm * libm::exp(random.normal(0.0, 0.5))).clamp(4.0, 60.0);
        let [mean, deviation] = config.contrast_hu;
        let size_hu = random.normal(mean.abs(), deviation).max(10.0);
        let sign = if random.chance(config.brighter) { -mean.signum() } else { mean.signum() };
        let (has_core, core_hu, core_share) =
            (random.chance(0.6), random.uniform(12.0, 30.0), random.uniform(0.4, 0.6));
        let (has_rim, rim_hu) = (random.chance(0.3), random.uniform(8.0, 20.0));
        let roughness = random.uniform(0.02, 0.12);
        Self {
            radius_mm: diameter_mm / 2.0,
            margin_mm: random.uniform(0.5, 2.5).min(0.3 * diameter_mm),
            contrast_hu: sign * size_hu,
            core: (has_core && diameter_mm > 20.0).then_some((core_hu, core_share)),
            rim_hu: if has_rim { -sign * rim_hu } else { 0.0 },
            texture_hu: random.uniform(3.0, 9.0),
            texture_mm: random.uniform(3.0, 7.0),
            harmonics: std::array::from_fn(|_| random.normal(0.0, roughness)),
        }
    }

    /// Samples a cyst: round, sharp, and as dark as water in tissue of about 100 HU.
    fn cyst(random: &mut RandomStream) -> Self {
        Self {
            radius_mm: random.uniform(2.0, 7.0),
            margin_mm: 0.4,
            contrast_hu: -random.uniform(75.0, 105.0),
            core: None,
            rim_hu: 0.0,
            texture_hu: 0.0,
            texture_mm: 5.0,
            harmonics: [0.0; 12],
        }
    }

    /// Returns the distance from the centre to the surface in a direction.
    fn surface_mm(&self, [x, y, z]: [f64; 3]) -> f64 {
        // Real spherical harmonics of degree 2 and 3 on the unit sphere, each scaled to a maximum of about 1.
        let values = [
            2.0 * x * y,
            2.0 * y * z,
            2.0 * x * z,
            x * x - y * y,
            0.5 * (3.0 * z * z - 1.0),
            y * (3.0 * x * x - y * y),
            5.196 * x * y * z,
            0.726 * y * (5.0 * z * z - 1.0),
            0.5 * z * (5.0 * z * z - 3.0),
            0.726 * x * (5.0 * z * z - 1.0),
            2.598 * z * (x * x - y * y),
            x * (x * x - 3.0 * y * y),
        ];
        let bumps: f64 = values.iter().zip(&self.harmonics).map(|(value, weight)| value * weight).sum();
        self.radius_mm * (1.0 + bumps).clamp(0.4, 1.8)
    }

    #[expect(clippy::too_many_arguments, reason = "a lesion changes HU and labels of a scan")]
    fn paint(
        &self,
        hu: &mut Array3<i16>,
        labels: &mut Array3<u8>,
        grid: &Grid,
        center: usize,
        organ: &[u8],
        label: Option<u8>,
        random: &mut RandomStream,
    ) {
        let shape = labels.shape();
        let middle = [center % shape[0], center / shape[0] % shape[1], center / shape[0] / shape[1]];
        let spacing_mm = grid.spacing_mm();
        let reach_mm = 1.8 * self.radius_mm + 3.0 * self.margin_mm;
        let reach = spacing_mm.map(|mm| (reach_mm / mm).ceil() as usize);
        let region = Region { start: middle, shape: [1; 3] }.grown(reach, shape);
        let texture = Texture::new(random, reach_mm, self.texture_mm);
        for z in region.start[2]..region.end()[2] {
            for y in region.start[1]..region.end()[1] {
                for x in region.start[0]..region.end()[0] {
                    let voxel = [x, y, z];
                    let current = labels[voxel];
                    // Tumors are limited to their organ; tumors that touch each other are merged.
                    if !organ.contains(&current) && current < FIRST_LABEL {
                        continue;
                    }
                    let at_mm = [0, 1, 2].map(|k| (voxel[k] as f64 - middle[k] as f64) * spacing_mm[k]);
                    let distance_mm = libm::sqrt(at_mm.iter().map(|mm| mm * mm).sum());
                    let direction = if distance_mm > 0.0 { at_mm.map(|mm| mm / distance_mm) } else { [0.0, 0.0, 1.0] };
                    let surface_mm = self.surface_mm(direction);
                    let inside_mm = surface_mm - distance_mm;
                    if inside_mm < -3.0 * self.margin_mm {
                        continue;
                    }
                    let weight = 1.0 / (1.0 + libm::exp(-2.0 * inside_mm / self.margin_mm));
                    let depth = distance_mm / surface_mm;
                    let mut change = self.contrast_hu + self.texture_hu * texture.at(at_mm);
                    if let Some((core_hu, share)) = self.core {
                        change -= core_hu / (1.0 + libm::exp(12.0 * (depth - share)));
                    }
                    if depth > 0.8 {
                        change += self.rim_hu;
                    }
                    hu[voxel] = (f64::from(hu[voxel]) + weight * change).round().clamp(-1024.0, 3071.0) as i16;
                    if let (Some(label), true) = (label, inside_mm >= 0.0) {
                        labels[voxel] = label;
                    }
                }
            }
        }
    }
}

/// Smooth random texture with a standard deviation of about 1 and a cell size of some millimetres.
struct Texture {
    side: usize,
    cell_mm: f64,
    half_mm: f64,
    values: Vec<f64>,
}

impl Texture {
    fn new(random: &mut RandomStream, half_mm: f64, cell_mm: f64) -> Self {
        let side = (2.0 * half_mm / cell_mm).ceil() as usize + 3;
        // Interpolation between lattice points reduces the deviation: the factor 1.6 compensates for it.
        let values = (0..side * side * side).map(|_| 1.6 * random.normal(0.0, 1.0)).collect();
        Self { side, cell_mm, half_mm, values }
    }

    fn at(&self, mm: [f64; 3]) -> f64 {
        let position = mm.map(|mm| ((mm + self.half_mm) / self.cell_mm).clamp(0.0, (self.side - 2) as f64));
        let first = position.map(|position| position as usize);
        let part = [0, 1, 2].map(|k| position[k] - first[k] as f64);
        let corner = |corner: usize| {
            let bit = |k: usize| corner >> k & 1;
            let weight: f64 = (0..3).map(|k| if bit(k) == 1 { part[k] } else { 1.0 - part[k] }).product();
            let [x, y, z] = [0, 1, 2].map(|k| first[k] + bit(k));
            weight * self.values[x + self.side * (y + self.side * z)]
        };
        (0..8).map(corner).sum()
    }
}

/// Samples a Poisson distribution by the product of uniform numbers.
fn poisson(random: &mut RandomStream, mean: f64) -> u64 {
    let limit = libm::exp(-mean);
    let (mut count, mut product) = (0, random.uniform(0.0, 1.0));
    while product > limit {
        product *= random.uniform(0.0, 1.0);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    /// Returns a scan of liver with 100 HU, after lesions were added.
    fn liver_with_lesions(config: &LesionConfig, seed: u64) -> (Array3<i16>, Array3<u8>) {
        let grid = Grid { shape: [60, 60, 60], affine: Affine::from_spacing([1.5; 3]) };
        let (mut hu, mut labels) = (Array3::filled(grid.shape, 100i16), Array3::filled(grid.shape, 5u8));
        config.add_to(&mut hu, &mut labels, &grid, Key::root(seed));
        (hu, labels)
    }

    #[test]
    fn tumors_have_configured_count_and_contrast() {
        let config = LesionConfig { brighter: 0.0, ..LesionConfig::default() };
        let (mut changes, mut with_tumor) = (Vec::new(), 0);
        for seed in 0..20 {
            let (hu, labels) = liver_with_lesions(&config, seed);
            let tumor = || labels.as_slice().iter().zip(hu.as_slice()).filter(|(label, _)| **label == FIRST_LABEL);
            let voxels = tumor().count();
            with_tumor += usize::from(voxels > 0);
            if voxels > 0 {
                changes.push(tumor().map(|(_, hu)| f64::from(*hu) - 100.0).sum::<f64>() / voxels as f64);
            }
            assert!(labels.as_slice().iter().all(|label| [5, FIRST_LABEL].contains(label)));
        }
        let mean = changes.iter().sum::<f64>() / changes.len() as f64;
        assert!(with_tumor >= 16 && (-60.0..-20.0).contains(&mean), "{with_tumor} {mean}");
    }

    #[test]
    fn unmarked_tumors_change_hu_but_not_labels() {
        let marked = LesionConfig::default();
        let unmarked = LesionConfig { marked: false, ..marked.clone() };
        for seed in 0..5 {
            assert_eq!(liver_with_lesions(&marked, seed).0, liver_with_lesions(&unmarked, seed).0);
            assert!(liver_with_lesions(&unmarked, seed).1.as_slice().iter().all(|label| *label == 5));
        }
        let none = LesionConfig { share: 0.0, ..marked };
        assert!(liver_with_lesions(&none, 1).0.as_slice().iter().all(|hu| *hu == 100));
    }

    #[test]
    fn poisson_samples_have_mean() {
        let mut random = Key::root(1).stream("counts");
        let sum: u64 = (0..5000).map(|_| poisson(&mut random, 3.0)).sum();
        assert!((sum as f64 / 5000.0 - 3.0).abs() < 0.1, "{sum}");
        assert_eq!(poisson(&mut random, 0.0), 0);
    }
}
