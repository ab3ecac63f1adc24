//! Synthesis by a network: site, shape, texture and blend as by rules, the difference map from a generator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blend::smooth_difference;
use super::rules::DifferenceMaps;
use super::{Attempts, Rules, RulesConfig, Synthesize};
use crate::error::{ConfigError, Fault, Stage};
use crate::inference::{Inference, Layout, NetworkConfig, Roi, Windows, box_on};
use crate::mask::{MaskedScan, Organ};
use crate::random::RandomStream;
use crate::volume::{Array3, Region};

/// Attempts that share a site, and with it the generator's answer.
const ATTEMPTS_PER_SITE: u32 = 5;
/// How far the smoothing of a difference map reaches, in voxels.
const SMOOTHING: usize = 3;
/// No difference is made stronger than so many times.
const STRONGEST: f64 = 10.0;
/// The channels of the published generators, by organ.
const CUSTOMARY: [(&str, usize); 4] = [("liver", 0), ("pancreas", 1), ("kidney", 2), ("lung", 0)];

/// What makes a difference of the network's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// tanh, inside the healthy organ only; what is positive darkens: the abdomen's.
    #[default]
    Tanh,
    /// The logistic function, everywhere; it brightens: the chest's.
    Sigmoid,
}

impl Activation {
    /// The difference of one voxel: the share of the window's width by which the blend darkens.
    ///
    /// ```
    /// use freetumor::synth::Activation;
    /// assert_eq!(Activation::Tanh.difference(0.0), 0.0);
    /// assert_eq!(Activation::Sigmoid.difference(0.0), -0.5);
    /// ```
    pub fn difference(self, output: f32) -> f32 {
        match self {
            Self::Tanh => libm::tanhf(output),
            Self::Sigmoid => -1.0 / (1.0 + libm::expf(-output)),
        }
    }
}

/// Synthetic tumors whose contrast comes from a generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// The generator: one channel in, a difference channel an organ out.
    pub network: NetworkConfig,
    /// What makes a difference of its output.
    #[serde(default)]
    pub activation: Activation,
    /// The range of a number by which each tumor's difference is multiplied, `[1.0, 1.0]` as published. A generator has one
    /// answer for a place; real tumors have many, and the quality test throws away what goes too far. What is below 0
    /// turns bright where the generator darkens.
    #[serde(default = "as_learned")]
    pub strength: [f64; 2],
    /// Whether large tumors get dead cores (`rules.necrotic_fraction`) and rims, which a generator cannot give as it never sees
    /// the shape; not as published.
    #[serde(default)]
    pub structure: bool,
    /// Which of its channels belongs to which organ; where an organ is not named: liver and lung 0, pancreas 1, kidney 2.
    #[serde(default)]
    pub channels: BTreeMap<String, usize>,
    /// Everything but the contrast: organs, variants, sizes, sites, textures, margins.
    #[serde(default)]
    pub rules: RulesConfig,
}

fn as_learned() -> [f64; 2] {
    [1.0; 2]
}

/// Makes tumors with a generator.
#[derive(Debug)]
pub struct Generator {
    rules: Rules,
    viewer: Inference,
    activation: Activation,
    strength: [f64; 2],
    structure: bool,
    channels: BTreeMap<String, usize>,
}

impl Generator {
    /// Checks the settings against the organs that the mask gives and the network that was opened for them.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(config: GeneratorConfig, viewer: Inference, organs: &[Organ]) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        for name in config.channels.keys().filter(|name| organs.iter().all(|organ| organ.name != **name)) {
            let known = organs.iter().map(|organ| organ.name.as_str()).collect::<Vec<_>>().join(", ");
            let complaint = ConfigError::new(format!("channels.{name}"), "expected an organ of the mask");
            complaints.push(complaint.with_hint(format!("the mask gives {known}")));
        }
        if RulesConfig::default().difference != config.rules.difference || !config.rules.contrast_hu.is_empty() {
            let message = "the contrast comes from the generator: expected no `difference` and no `contrast_hu`";
            complaints.push(ConfigError::new("rules", message));
        }
        let rules = Rules::new(config.rules, organs, viewer.config().window()).map_err(|wrong| {
            complaints.extend(wrong.into_iter().map(|it| ConfigError { field: format!("rules.{}", it.field), ..it }));
        });
        let [least, most] = config.strength;
        if !(-STRONGEST..=STRONGEST).contains(&least) || !(least..=STRONGEST).contains(&most) {
            let message = format!(
                "expected two numbers from -{STRONGEST} to {STRONGEST}, the lower one first, got [{least}, {most}]"
            );
            complaints.push(ConfigError::new("strength", message));
        }
        let mut channels = BTreeMap::new();
        for organ in organs.iter().filter(|organ| rules.as_ref().is_ok_and(|rules| rules.wants(organ))) {
            let customary = CUSTOMARY.iter().find(|(name, _)| *name == organ.name).map(|(_, channel)| *channel);
            let (field, name) = (format!("channels.{}", organ.name), &organ.name);
            match config.channels.get(name).copied().or(customary) {
                None => complaints.push(
                    ConfigError::new("channels", format!("expected the channel of the {name}, got none"))
                        .with_hint(format!("channels = {{ {name} = 0 }}")),
                ),
                Some(channel) if channel >= viewer.classes() => complaints.push(
                    ConfigError::new(
                        if config.channels.contains_key(name) { field } else { "channels".into() },
                        format!("the {name} has channel {channel}, but the network has {}", viewer.classes()),
                    )
                    .with_hint(format!("channels count from 0; choose others with channels = {{ {name} = … }}")),
                ),
                Some(channel) => {
                    channels.insert(name.clone(), channel);
                }
            }
        }
        match rules {
            Ok(rules) if complaints.is_empty() => {
                let GeneratorConfig { activation, strength, structure, .. } = config;
                Ok(Self { rules, viewer, activation, strength, structure, channels })
            }
            _ => Err(complaints),
        }
    }

    /// What tables record as the model.
    pub fn version(&self) -> String {
        format!("{}+{}", self.viewer.name(), self.rules.version())
    }

    /// The smoothed difference map at a site, in the box `region` of the scan's grid; `site_box` is the box of the site's tumors.
    ///
    /// # Units
    /// The share of the window's width by which the blend darkens where shape and texture are 1.
    ///
    /// # Errors
    /// A fault of stage `synthesize` where the network gives no map.
    ///
    /// # Source
    /// FreeTumor: activation of the organ's channel, organ mask, 7³ Gaussian of sigma 1 voxel; on the network's grid, then linearly on the
    /// scan's.
    pub fn difference_map(
        &self,
        scan: &MaskedScan,
        organ: &Organ,
        site_box: Region,
        region: Region,
    ) -> Result<Array3<f32>, Fault> {
        let around = scan.mask.labels.extent(|&label| label == organ.label).unwrap_or(site_box);
        match self.maps(scan, organ, around)? {
            Some(maps) => maps.as_learned(site_box, region),
            None => Ok(Array3::filled(region.shape, 0.0)),
        }
    }

    /// The maps of one organ, which lies in the box `around`; `None` where it has no channel.
    fn maps<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
        around: Region,
    ) -> Result<Option<GeneratorMaps<'scan>>, Fault> {
        let Some(&channel) = self.channels.get(&organ.name) else { return Ok(None) };
        let field = Roi::new(&scan.scan.volume, around, self.viewer.config());
        let field = field.map_err(|fault| fault.at(Stage::Synthesize))?;
        Ok(Some(GeneratorMaps { generator: self, scan, organ, channel, field, last: Mutex::default() }))
    }

    /// The settings of everything but the contrast.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }
}

impl Synthesize for Generator {
    fn viewer(&self) -> Option<&Inference> {
        Some(&self.viewer)
    }

    fn site_plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault> {
        self.rules.plan(scan, organ, ATTEMPTS_PER_SITE, |around| {
            Ok(self.maps(scan, organ, around)?.map(|maps| Box::new(maps) as Box<dyn DifferenceMaps>))
        })
    }
}

/// The maps of one organ of one scan. That of the last site is kept: its attempts follow each other.
struct GeneratorMaps<'scan> {
    generator: &'scan Generator,
    scan: &'scan MaskedScan,
    organ: &'scan Organ,
    channel: usize,
    field: Roi,
    last: Mutex<Option<Arc<DifferenceMap>>>,
}

/// A smoothed difference map in a box of the field.
struct DifferenceMap {
    layout: Layout,
    region: Region,
    difference: Array3<f32>,
}

impl DifferenceMaps for GeneratorMaps<'_> {
    fn difference(&self, draws: &mut RandomStream, site_box: Region, region: Region) -> Result<Array3<f32>, Fault> {
        let mut difference = self.as_learned(site_box, region)?;
        let [least, most] = self.generator.strength;
        let strength = draws.uniform(least, most) as f32;
        difference.as_mut_slice().iter_mut().for_each(|value| *value *= strength);
        Ok(difference)
    }

    fn takes_structure(&self) -> bool {
        self.generator.structure
    }
}

impl GeneratorMaps<'_> {
    /// The map in a box of the scan's grid, as the network gives it.
    fn as_learned(&self, site_box: Region, region: Region) -> Result<Array3<f32>, Fault> {
        let grid = &self.scan.scan.volume.grid;
        let map = self.map(self.field.box_of(grid, site_box))?;
        let onto = self.field.onto_scan(map.region, &map.difference, grid, region);
        onto.map_err(|fault| fault.at(Stage::Synthesize))
    }

    /// The map around a site, in the field.
    fn map(&self, site: Region) -> Result<Arc<DifferenceMap>, Fault> {
        let viewer = &self.generator.viewer;
        // Smoothing looks a little beyond the site. Of windows that overlap, those that reach that far are looked at, too; one
        // window in the middle shows it anyway, or ends where everything ends.
        let wide = site.grown([SMOOTHING + 1; 3], self.field.grid.shape);
        let reached = if viewer.config().windows == Windows::Centred { site } else { wide };
        let layout = viewer.layout(Stage::Synthesize, &self.field, reached)?;
        let covered = layout.bounding_box();
        // All windows are looked at for any site: then they are looked at once.
        let region = if viewer.config().windows == Windows::Reference { covered } else { common(wide, covered) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = last.as_ref().filter(|map| map.layout == layout && map.region == region) {
            return Ok(Arc::clone(map));
        }
        let mut seen = viewer.predict(Stage::Synthesize, &self.field, &layout, None, region)?;
        let mut output = seen.logits.swap_remove(self.channel);
        let activation = self.generator.activation;
        output.as_mut_slice().iter_mut().for_each(|value| *value = activation.difference(*value));
        if activation == Activation::Tanh {
            self.keep_organ(&mut output, region)?;
        }
        let map = Arc::new(DifferenceMap { layout, region, difference: smooth_difference(&output) });
        *last = Some(Arc::clone(&map));
        Ok(map)
    }

    /// Sets what lies outside of the healthy organ to zero.
    fn keep_organ(&self, output: &mut Array3<f32>, region: Region) -> Result<(), Fault> {
        let grid = &self.scan.scan.volume.grid;
        let on_scan = box_on(&self.field.grid.cut(region), region_of(region), grid).grown([1; 3], grid.shape);
        let labels = self.field.labels(grid, on_scan, &self.scan.mask.labels.cut(on_scan), region);
        let labels = labels.map_err(|fault| fault.at(Stage::Synthesize))?;
        for (value, label) in output.as_mut_slice().iter_mut().zip(labels.as_slice()) {
            if *label != self.organ.label {
                *value = 0.0;
            }
        }
        Ok(())
    }
}

/// A region as the whole of its own grid.
fn region_of(region: Region) -> Region {
    Region { start: [0; 3], shape: region.shape }
}

/// What two regions share.
fn common(one: Region, other: Region) -> Region {
    let start = [0, 1, 2].map(|axis| one.start[axis].max(other.start[axis]));
    let shape = [0, 1, 2].map(|axis| one.end()[axis].min(other.end()[axis]).saturating_sub(start[axis]));
    Region { start, shape }
}
