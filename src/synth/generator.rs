//! Synthesis by a network: site, shape, texture and blend by rules, the difference map by a generator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blend::smooth_difference;
use super::difference::DifferenceMaps;
use super::steering::Steering;
use super::{Attempts, Rules, RulesConfig, Synthesize};
use crate::error::{ConfigError, Fault, Stage};
use crate::inference::{Inference, Layout, NetworkConfig, Roi, Windows, project_box};
use crate::mask::{MaskedScan, Organ};
use crate::random::RandomStream;
use crate::volume::{Array3, Region};

/// The number of attempts that share a site and the generator's prediction.
const ATTEMPTS_PER_SITE: u32 = 5;
/// The radius of the smoothing of a difference map in voxels.
const SMOOTHING: usize = 3;
/// The maximum of the setting `strength`.
const MAX_STRENGTH: f64 = 10.0;
/// The default channel of each organ, as in the published generators.
const DEFAULT_CHANNELS: [(&str, usize); 4] = [("liver", 0), ("pancreas", 1), ("kidney", 2), ("lung", 0)];

/// The activation that converts the network's output to a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceActivation {
    /// The hyperbolic tangent, applied to voxels of the healthy organ only. Positive outputs darken. For generators of the abdomen.
    #[default]
    Tanh,
    /// The logistic function, applied to all voxels. Every output brightens. For generators of the chest.
    Sigmoid,
}

impl DifferenceActivation {
    /// Returns the difference of one voxel: the share of the window's width by which the blend darkens.
    ///
    /// ```
    /// use freetumor::synth::DifferenceActivation;
    /// assert_eq!(DifferenceActivation::Tanh.difference(0.0), 0.0);
    /// assert_eq!(DifferenceActivation::Sigmoid.difference(0.0), -0.5);
    /// ```
    pub fn difference(self, output: f32) -> f32 {
        match self {
            Self::Tanh => libm::tanhf(output),
            Self::Sigmoid => -1.0 / (1.0 + libm::expf(-output)),
        }
    }
}

/// Synthetic tumors with the contrast of a generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// The generator: one input channel, one output channel of differences per organ.
    pub network: NetworkConfig,
    /// The activation that converts its output to a difference.
    #[serde(default)]
    pub activation: DifferenceActivation,
    /// The range of a random factor by which each tumor's difference is multiplied; `[1.0, 1.0]` as published. A generator predicts one
    /// contrast per site, whereas real tumors vary; the quality test rejects excessive contrasts. Factors below 0 brighten if the
    /// generator darkens.
    #[serde(default = "published_strength")]
    pub strength: [f64; 2],
    /// Whether large tumors get necrotic cores (`rules.necrotic_fraction`) and rims, which a generator cannot predict because its input
    /// does not contain the shape; not as published.
    #[serde(default)]
    pub structure: bool,
    /// The output channel of each organ; by default liver and lung 0, pancreas 1, kidney 2.
    #[serde(default)]
    pub channels: BTreeMap<String, usize>,
    /// All settings except the contrast: organs, variants, sizes, sites, textures, margins.
    #[serde(default)]
    pub rules: RulesConfig,
}

fn published_strength() -> [f64; 2] {
    [1.0; 2]
}

/// Synthesizes tumors with a generator.
#[derive(Debug)]
pub struct Generator {
    rules: Rules,
    inference: Inference,
    activation: DifferenceActivation,
    strength: [f64; 2],
    structure: bool,
    channels: BTreeMap<String, usize>,
}

impl Generator {
    /// Checks the settings against the organs of the mask and the loaded network.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn new(config: GeneratorConfig, inference: Inference, organs: &[Organ]) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        for name in config.channels.keys().filter(|name| organs.iter().all(|organ| organ.name != **name)) {
            let known = organs.iter().map(|organ| organ.name.as_str()).collect::<Vec<_>>().join(", ");
            let error = ConfigError::new(format!("channels.{name}"), "expected an organ of the mask");
            errors.push(error.with_hint(format!("the organs of the mask are {known}")));
        }
        if RulesConfig::default().difference != config.rules.difference || !config.rules.contrast_hu.is_empty() {
            let message = "expected no `difference` and no `contrast_hu`, because the generator predicts the contrast";
            errors.push(ConfigError::new("rules", message));
        }
        let rules = Rules::new(config.rules, organs, inference.config().window()).map_err(|rule_errors| {
            errors.extend(
                rule_errors.into_iter().map(|error| ConfigError { field: format!("rules.{}", error.field), ..error }),
            );
        });
        let [least, most] = config.strength;
        if !(-MAX_STRENGTH..=MAX_STRENGTH).contains(&least) || !(least..=MAX_STRENGTH).contains(&most) {
            let message = format!(
                "expected two numbers from -{MAX_STRENGTH} to {MAX_STRENGTH} in ascending order, got [{least}, {most}]"
            );
            errors.push(ConfigError::new("strength", message));
        }
        let mut channels = BTreeMap::new();
        for organ in organs.iter().filter(|organ| rules.as_ref().is_ok_and(|rules| rules.includes(organ))) {
            let default = DEFAULT_CHANNELS.iter().find(|(name, _)| *name == organ.name).map(|(_, channel)| *channel);
            let (field, name) = (format!("channels.{}", organ.name), &organ.name);
            match config.channels.get(name).copied().or(default) {
                None => errors.push(
                    ConfigError::new("channels", format!("expected the channel of the {name}, got none"))
                        .with_hint(format!("add channels = {{ {name} = 0 }}")),
                ),
                Some(channel) if channel >= inference.classes() => errors.push(
                    ConfigError::new(
                        if config.channels.contains_key(name) { field } else { "channels".into() },
                        format!(
                            "expected one of the network's {} channels for the {name}, got {channel}",
                            inference.classes()
                        ),
                    )
                    .with_hint(format!("channels are numbered from 0; set channels = {{ {name} = … }}")),
                ),
                Some(channel) => {
                    channels.insert(name.clone(), channel);
                }
            }
        }
        match rules {
            Ok(rules) if errors.is_empty() => {
                let GeneratorConfig { activation, strength, structure, .. } = config;
                Ok(Self { rules, inference, activation, strength, structure, channels })
            }
            _ => Err(errors),
        }
    }

    /// Returns the generator with the factors of each organ by which sizes are sampled.
    #[must_use]
    pub fn with_steering(self, steering: BTreeMap<String, Steering>) -> Self {
        Self { rules: self.rules.with_steering(steering), ..self }
    }

    /// Returns the name of the model in tables.
    pub fn version(&self) -> String {
        format!("{}+{}", self.inference.name(), self.rules.version())
    }

    /// Returns the smoothed difference map at a site, in the box `region` of the scan's grid; `site_box` is the box of the site's tumors.
    ///
    /// # Units
    /// The share of the window's width by which the blend darkens voxels whose shape and texture are 1.
    ///
    /// # Errors
    /// A fault of stage `synthesize` if the inference fails.
    ///
    /// # Source
    /// FreeTumor: activation of the organ's channel, organ mask, 7³ Gaussian of sigma 1 voxel; on the network's grid, then linearly
    /// resampled to the scan's grid.
    pub fn difference_map(
        &self,
        scan: &MaskedScan,
        organ: &Organ,
        site_box: Region,
        region: Region,
    ) -> Result<Array3<f32>, Fault> {
        let organ_box = scan.mask.labels.extent(|&label| label == organ.label).unwrap_or(site_box);
        match self.maps(scan, organ, organ_box)? {
            Some(maps) => maps.unscaled(site_box, region),
            None => Ok(Array3::filled(region.shape, 0.0)),
        }
    }

    /// Returns the maps of one organ in the box `organ_box`; `None` if the organ has no channel.
    fn maps<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
        organ_box: Region,
    ) -> Result<Option<GeneratorMaps<'scan>>, Fault> {
        let Some(&channel) = self.channels.get(&organ.name) else { return Ok(None) };
        let roi = Roi::new(&scan.scan.volume, organ_box, self.inference.config());
        let roi = roi.map_err(|fault| fault.at(Stage::Synthesize))?;
        Ok(Some(GeneratorMaps { generator: self, scan, organ, channel, roi, last: Mutex::default() }))
    }

    /// Returns the rules for everything except the contrast.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }
}

impl Synthesize for Generator {
    fn inference(&self) -> Option<&Inference> {
        Some(&self.inference)
    }

    fn site_plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault> {
        self.rules.plan(scan, organ, ATTEMPTS_PER_SITE, |organ_box| {
            Ok(self.maps(scan, organ, organ_box)?.map(|maps| Box::new(maps) as Box<dyn DifferenceMaps>))
        })
    }
}

/// The maps of one organ of one scan. The map of the last site is cached, because its attempts are consecutive.
struct GeneratorMaps<'scan> {
    generator: &'scan Generator,
    scan: &'scan MaskedScan,
    organ: &'scan Organ,
    channel: usize,
    roi: Roi,
    last: Mutex<Option<Arc<DifferenceMap>>>,
}

/// A smoothed difference map in a box of the region of interest.
struct DifferenceMap {
    layout: Layout,
    region: Region,
    difference: Array3<f32>,
}

impl DifferenceMaps for GeneratorMaps<'_> {
    fn difference(&self, random: &mut RandomStream, site_box: Region, region: Region) -> Result<Array3<f32>, Fault> {
        let mut difference = self.unscaled(site_box, region)?;
        let [least, most] = self.generator.strength;
        let strength = random.uniform(least, most) as f32;
        difference.as_mut_slice().iter_mut().for_each(|value| *value *= strength);
        Ok(difference)
    }

    fn needs_structure(&self) -> bool {
        self.generator.structure
    }
}

impl GeneratorMaps<'_> {
    /// Returns the map in a box of the scan's grid, before the random factor is applied.
    fn unscaled(&self, site_box: Region, region: Region) -> Result<Array3<f32>, Fault> {
        let grid = &self.scan.scan.volume.grid;
        let map = self.map(self.roi.project_from_scan(grid, site_box))?;
        let resampled = self.roi.resample_to_scan(map.region, &map.difference, grid, region);
        resampled.map_err(|fault| fault.at(Stage::Synthesize))
    }

    /// Returns the map around a site, in the region of interest.
    fn map(&self, site: Region) -> Result<Arc<DifferenceMap>, Fault> {
        let inference = &self.generator.inference;
        // Smoothing reads a margin around the site. With overlapping windows, the windows of the margin are included; a single
        // centred window already contains the margin, or ends at the border of the region of interest.
        let wide = site.grown([SMOOTHING + 1; 3], self.roi.grid.shape);
        let read = if inference.config().windows == Windows::Centred { site } else { wide };
        let layout = inference.layout(Stage::Synthesize, &self.roi, read)?;
        let covered = layout.bounding_box();
        // These windows do not depend on the site, so the whole map is computed once.
        let region =
            if inference.config().windows == Windows::Reference { covered } else { intersection(wide, covered) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = last.as_ref().filter(|map| map.layout == layout && map.region == region) {
            return Ok(Arc::clone(map));
        }
        let mut prediction = inference.predict(Stage::Synthesize, &self.roi, &layout, None, region)?;
        let mut output = prediction.logits.swap_remove(self.channel);
        let activation = self.generator.activation;
        output.as_mut_slice().iter_mut().for_each(|value| *value = activation.difference(*value));
        if activation == DifferenceActivation::Tanh {
            self.mask_to_organ(&mut output, region)?;
        }
        let map = Arc::new(DifferenceMap { layout, region, difference: smooth_difference(&output) });
        *last = Some(Arc::clone(&map));
        Ok(map)
    }

    /// Sets voxels outside the healthy organ to zero.
    fn mask_to_organ(&self, output: &mut Array3<f32>, region: Region) -> Result<(), Fault> {
        let grid = &self.scan.scan.volume.grid;
        let scan_box = project_box(whole(region), &self.roi.grid.cut(region), grid).grown([1; 3], grid.shape);
        let labels = self.roi.resample_labels(grid, scan_box, &self.scan.mask.labels.cut(scan_box), region);
        let labels = labels.map_err(|fault| fault.at(Stage::Synthesize))?;
        for (value, label) in output.as_mut_slice().iter_mut().zip(labels.as_slice()) {
            if *label != self.organ.label {
                *value = 0.0;
            }
        }
        Ok(())
    }
}

/// Returns a region of the same shape that starts at the origin.
fn whole(region: Region) -> Region {
    Region { start: [0; 3], shape: region.shape }
}

/// Returns the intersection of two regions.
fn intersection(first: Region, second: Region) -> Region {
    let start = [0, 1, 2].map(|axis| first.start[axis].max(second.start[axis]));
    let shape = [0, 1, 2].map(|axis| first.end()[axis].min(second.end()[axis]).saturating_sub(start[axis]));
    Region { start, shape }
}
