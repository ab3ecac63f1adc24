//! The settings of synthesis by rules.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::SizeClass;
use super::prior::{OrganPrior, PRIORS, prior_of};
use super::tumor_numbers::{TumorNumbers, TumorsPerScan};
use crate::error::ConfigError;
use crate::mask::Organ;

/// The maximum of the setting `mass_effect_strength`.
const MAX_STRENGTH: f64 = 0.6;

/// The method by which sizes and shapes are sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sizes {
    /// From the distributions of real tumors of the organ.
    #[default]
    Prior,
    /// The paper's classes tiny, small, medium and large: deformed ellipsoids of 6, 12, 24, 48 mm radius.
    Classes,
}

/// The method by which the site is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sites {
    /// By the depth of real tumors in the organ, away from real tumors, and for small tumors away from vessels.
    #[default]
    Prior,
    /// As in the reference code of FreeTumor: at least 3 mm from the organ's edge in the axial plane, and between 30% and 70% of its
    /// height.
    Reference,
}

/// The contrast between the tumor and its organ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Differences {
    /// A contrast from the organ's prior, within the range of the organ's HU, with an inner structure and mass effect; in lungs, tissue
    /// replaces air.
    #[default]
    Prior,
    /// As in the reference code of FreeTumor: a constant difference, sampled uniformly from 0.2 to 0.7 of the HU window, in the clipped
    /// shape, with an edge blurred by 1.5 to 3 mm.
    Reference,
}

/// The noise textures by which the HU difference of a tumor is multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Textures {
    /// Chest textures for lungs, abdomen textures for all other organs.
    #[default]
    Organ,
    /// Smoothing of 4.5 and 6 mm.
    Abdomen,
    /// Ten combinations of coarser smoothing.
    Chest,
}

/// Synthetic tumors by rules, without weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RulesConfig {
    /// The organs that get tumors; if empty, all organs of the mask.
    pub organs: Vec<String>,
    /// The number of tumors in each organ of each scan; each is a separate sample. With `tumors_per_scan`, the number of samples of each
    /// scan.
    pub variants: u32,
    /// The number of tumors of each sample: `"as-real"`, as many in each organ as real patients have, or `[minimum, maximum]`, spread
    /// over the organs at random. The accepted tumors whose changes do not overlap are in one sample. If absent, every tumor is a
    /// separate sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tumors_per_scan: Option<TumorsPerScan>,
    /// Share of scans, 0 to 1, that are samples without a synthetic tumor too.
    #[serde(skip_serializing_if = "is_zero")]
    pub negatives: f64,
    /// A file of `freetumor calibrate --steer`: sizes and contrasts of which few real tumors are known are sampled less often, and a
    /// quality test with `calibrate` and the same file accepts more of the candidates. Sizes, contrasts and shapes are those of `sizes =
    /// "prior"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steering: Option<PathBuf>,
    /// Any string that distinguishes this stage from another one with equal settings: another salt produces other tumors.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub salt: String,
    /// The number of consecutive attempts at one tumor that share its size and site, and thus the prediction of a network on the original
    /// scan; if absent 1, and 5 with a generator.
    pub attempts_per_site: Option<u32>,
    /// The method by which sizes and shapes are sampled.
    pub sizes: Sizes,
    /// The size classes that `sizes = "classes"` samples uniformly; if empty, all four classes, and tiny and small in lungs.
    pub classes: Vec<SizeClass>,
    /// Minimum and maximum equivalent diameter in mm; with `sizes = "prior"` only.
    pub diameter_mm: [f64; 2],
    /// Minimum diameter in voxels (of the cube root of a voxel's volume).
    pub min_diameter_voxels: f64,
    /// The method by which the site is chosen.
    pub sites: Sites,
    /// Maximum share of a tumor, 0 to 1, that is clipped by the organ's edge; if absent, the share of the organ's prior, and no limit
    /// with `sizes = "classes"`.
    pub max_clipped_fraction: Option<f64>,
    /// The contrast between the tumor and its organ.
    pub difference: Differences,
    /// Minimum and maximum mean change in HU, for organs for which `difference` is not used: `{ liver = [-60, -20] }`.
    pub contrast_hu: BTreeMap<String, [f64; 2]>,
    /// Whether tumors displace the tissue around them; with `difference = "prior"` only, and never in lungs.
    pub mass_effect: bool,
    /// Minimum and maximum share of its radius, 0 to 0.6, by which a large tumor displaces its surroundings; if absent, those of the
    /// organ's prior.
    pub mass_effect_strength: Option<[f64; 2]>,
    /// Share of tumors of at least 16 mm that have a bright rim, 0 to 1; if absent, the share of the organ's prior, and 0 in organs without
    /// contrast agent.
    pub rim_fraction: Option<f64>,
    /// Share of tumors of at least 16 mm that have a capsule, if they have no rim; if absent as for `rim_fraction`.
    pub capsule_fraction: Option<f64>,
    /// Share of tumors of at least 20 mm that have a necrotic core, 0 to 1; if absent, the share of the organ's prior.
    pub necrotic_fraction: Option<f64>,
    /// Share of tumors of at least 8 mm that have calcifications, 0 to 1; if absent, the share of the organ's prior.
    pub calcified_fraction: Option<f64>,
    /// Share of tumors of at least 12 mm that contain fat, 0 to 1; if absent, the share of the organ's prior.
    pub fat_fraction: Option<f64>,
    /// The noise textures by which the HU difference of a tumor is multiplied.
    pub texture: Textures,
    /// Minimum and maximum standard deviation of the Gaussian that softens the edge, in mm; if absent, those of the organ's prior.
    pub margin_mm: Option<[f64; 2]>,
    /// Organs without a prior, and the organ whose prior they use: `{ spleen = "liver" }`.
    pub priors: BTreeMap<String, String>,
}

impl Default for RulesConfig {
    fn default() -> Self {
        Self {
            organs: Vec::new(),
            variants: 1,
            tumors_per_scan: None,
            negatives: 0.0,
            steering: None,
            salt: String::new(),
            attempts_per_site: None,
            sizes: Sizes::Prior,
            classes: Vec::new(),
            diameter_mm: [3.0, 150.0],
            min_diameter_voxels: 3.0,
            sites: Sites::Prior,
            max_clipped_fraction: None,
            difference: Differences::Prior,
            contrast_hu: BTreeMap::new(),
            mass_effect: true,
            mass_effect_strength: None,
            rim_fraction: None,
            capsule_fraction: None,
            necrotic_fraction: None,
            calcified_fraction: None,
            fat_fraction: None,
            texture: Textures::Organ,
            margin_mm: None,
            priors: BTreeMap::new(),
        }
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl RulesConfig {
    /// Returns the numbers of tumors of samples; `None` if every tumor is a separate sample.
    pub fn tumor_numbers(&self) -> Option<TumorNumbers> {
        self.tumors_per_scan.map(|setting| TumorNumbers::new(setting, &self.priors))
    }

    /// Returns the selected organs, each with its prior.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub(crate) fn check(&self, organs: &[Organ]) -> Result<Vec<(String, &'static OrganPrior)>, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let known = organs.iter().map(|organ| organ.name.as_str()).collect::<Vec<_>>().join(", ");
        let mut check_organ = |field: String, name: &str| {
            if !organs.iter().any(|organ| organ.name == name) {
                let message = format!("expected an organ of the mask, got `{name}`");
                errors.push(ConfigError::new(field, message).with_hint(format!("the organs of the mask are {known}")));
            }
        };
        self.organs.iter().for_each(|name| check_organ("organs".into(), name));
        self.contrast_hu.keys().for_each(|name| check_organ(format!("contrast_hu.{name}"), name));
        self.priors.keys().for_each(|name| check_organ(format!("priors.{name}"), name));

        let with_prior = PRIORS.map(|prior| prior.organ).join(", ");
        let mut selected = Vec::new();
        for organ in organs.iter().filter(|organ| self.organs.is_empty() || self.organs.contains(&organ.name)) {
            let source = self.priors.get(&organ.name).unwrap_or(&organ.name);
            match prior_of(source) {
                Some(prior) => selected.push((organ.name.clone(), prior)),
                None => errors.push(
                    ConfigError::new(
                        if self.priors.contains_key(&organ.name) {
                            format!("priors.{}", organ.name)
                        } else {
                            "organs".into()
                        },
                        format!("expected an organ with a prior ({with_prior}), got `{source}`"),
                    )
                    .with_hint(format!("set the prior to use: priors = {{ {} = \"liver\" }}", organ.name)),
                ),
            }
        }

        let mut check_range = |field: &str, [low, high]: [f64; 2], least: f64| {
            if !(low >= least && low <= high && high.is_finite()) {
                errors.push(ConfigError::new(
                    field,
                    format!("expected [minimum, maximum] of at least {least}, got [{low}, {high}]"),
                ));
            }
        };
        check_range("diameter_mm", self.diameter_mm, f64::MIN_POSITIVE);
        self.margin_mm.iter().for_each(|margin| check_range("margin_mm", *margin, 0.0));
        for (organ, change) in &self.contrast_hu {
            check_range(&format!("contrast_hu.{organ}"), *change, -4096.0);
        }
        let mut check_share = |field: &str, value: f64| {
            if !(0.0..=1.0).contains(&value) {
                errors.push(ConfigError::new(field, format!("expected a fraction from 0 to 1, got {value}")));
            }
        };
        check_share("negatives", self.negatives);
        for (field, share) in [
            ("rim_fraction", self.rim_fraction),
            ("capsule_fraction", self.capsule_fraction),
            ("necrotic_fraction", self.necrotic_fraction),
            ("calcified_fraction", self.calcified_fraction),
            ("fat_fraction", self.fat_fraction),
            ("max_clipped_fraction", self.max_clipped_fraction),
        ] {
            share.iter().for_each(|share| check_share(field, *share));
        }
        if let Some([low, high]) = self.mass_effect_strength
            && !(0.0 <= low && low <= high && high <= MAX_STRENGTH)
        {
            let message = format!("expected [minimum, maximum] from 0 to {MAX_STRENGTH}, got [{low}, {high}]");
            errors.push(ConfigError::new("mass_effect_strength", message));
        }
        if !(1..=1000).contains(&self.variants) {
            errors.push(ConfigError::new("variants", format!("expected 1 to 1000, got {}", self.variants)));
        }
        errors.extend(self.tumors_per_scan.and_then(TumorsPerScan::check));
        if self.attempts_per_site == Some(0) {
            errors.push(ConfigError::new("attempts_per_site", "expected at least 1, got 0"));
        }
        if !(self.min_diameter_voxels >= 1.0 && self.min_diameter_voxels.is_finite()) {
            let message = format!("expected at least 1 voxel, got {}", self.min_diameter_voxels);
            errors.push(ConfigError::new("min_diameter_voxels", message));
        }
        if !self.classes.is_empty() && self.sizes != Sizes::Classes {
            let error = ConfigError::new("classes", "expected none with `sizes = \"prior\"`");
            errors.push(error.with_hint("add sizes = \"classes\", or narrow diameter_mm"));
        }
        if errors.is_empty() { Ok(selected) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organs() -> Vec<Organ> {
        vec![
            Organ { name: "liver".into(), label: 1, tumor_label: 2 },
            Organ { name: "spleen".into(), label: 3, tumor_label: 4 },
        ]
    }

    fn fields(config: &RulesConfig) -> Vec<String> {
        config.check(&organs()).unwrap_err().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn check_reports_all_errors_at_once() {
        let config = RulesConfig {
            organs: vec!["liver".into(), "pancreas".into()],
            variants: 0,
            tumors_per_scan: Some(TumorsPerScan::Range([2, 1])),
            negatives: -0.1,
            diameter_mm: [9.0, 3.0],
            max_clipped_fraction: Some(1.5),
            contrast_hu: BTreeMap::from([("liver".into(), [f64::NAN, 3.0])]),
            margin_mm: Some([-1.0, 1.0]),
            classes: vec![SizeClass::Tiny],
            ..RulesConfig::default()
        };
        let fields = fields(&config);
        for field in [
            "organs",
            "variants",
            "tumors_per_scan",
            "negatives",
            "diameter_mm",
            "max_clipped_fraction",
            "contrast_hu.liver",
            "margin_mm",
            "classes",
        ] {
            assert!(fields.iter().any(|f| f == field), "{field} in {fields:?}");
        }
    }

    #[test]
    fn priors_setting_selects_prior_of_another_organ() {
        assert_eq!(fields(&RulesConfig::default()), ["organs"]);
        let mut config =
            RulesConfig { priors: BTreeMap::from([("spleen".into(), "liver".into())]), ..Default::default() };
        assert_eq!(config.check(&organs()).unwrap()[1].1.organ, "liver");
        config.priors.insert("spleen".into(), "bone".into());
        assert_eq!(fields(&config), ["priors.spleen"]);
        let config = RulesConfig { organs: vec!["liver".into()], ..Default::default() };
        assert_eq!(config.check(&organs()).unwrap().len(), 1);
    }

    #[test]
    fn settings_are_parsed_from_toml() {
        let config: RulesConfig = toml::from_str(
            "sizes = \"classes\"\nclasses = [\"tiny\"]\ncontrast_hu = { liver = [-60, -20] }\nmax_clipped_fraction = 0.2",
        )
        .unwrap();
        assert_eq!((config.sizes, config.classes.as_slice()), (Sizes::Classes, [SizeClass::Tiny].as_slice()));
        assert!(toml::from_str::<RulesConfig>("size = 3").is_err());
    }
}
