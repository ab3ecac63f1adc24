//! Synthesis by rules: site, shape, texture, difference and blend without a network.

mod form;
mod organ_plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use organ_plan::{OrganPlan, PositionSearch, rejected};

use super::config::{RulesConfig, Sites, Textures};
use super::difference::DifferenceMaps;
use super::organ::OrganSummary;
use super::prior::{Contrast, OrganPrior};
use super::reference_sites::ReferenceSites;
use super::site::SitePlan;
use super::steering::Steering;
use super::texture::TexturePool;
use super::tissue_noise::TissueNoise;
use super::tumor::TumorSource;
use super::{Attempt, AttemptKey, Attempts, Synthesize};
use crate::error::{ConfigError, Fault, FaultKind, Stage};
use crate::mask::{MaskedScan, Organ};
use crate::volume::{HuWindow, Region};

/// Synthesizes tumors by rules.
///
/// ```
/// use freetumor::mask::Organ;
/// use freetumor::synth::{Rules, RulesConfig};
/// use freetumor::volume::HuWindow;
/// let liver = [Organ { name: "liver".into(), label: 1, tumor_label: 2 }];
/// assert!(Rules::new(RulesConfig::default(), &liver, HuWindow::ABDOMEN).is_ok());
/// let config = RulesConfig { variants: 0, necrotic_fraction: Some(2.0), ..RulesConfig::default() };
/// assert_eq!(Rules::new(config, &liver, HuWindow::ABDOMEN).err().unwrap().len(), 2);
/// ```
#[derive(Debug)]
pub struct Rules {
    config: RulesConfig,
    window: HuWindow,
    organs: Vec<(String, &'static OrganPrior)>,
    /// The steering of each organ.
    steering: BTreeMap<String, Steering>,
}

impl Rules {
    /// Checks the settings against the organs of the mask. `window` is the range of HU that corresponds to a difference of 1.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn new(config: RulesConfig, organs: &[Organ], window: HuWindow) -> Result<Self, Vec<ConfigError>> {
        let organs = config.check(organs)?;
        Ok(Self { config, window, organs, steering: BTreeMap::new() })
    }

    /// Samples sizes and contrasts by these factors of each organ.
    #[must_use]
    pub fn with_steering(self, steering: BTreeMap<String, Steering>) -> Self {
        Self { steering, ..self }
    }

    /// Returns the name of the model in tables. It changes whenever equal settings would produce other tumors.
    pub fn version(&self) -> &'static str {
        "rules-2"
    }

    /// Returns the settings.
    pub fn config(&self) -> &RulesConfig {
        &self.config
    }

    /// Returns whether the settings select this organ.
    pub fn includes(&self, organ: &Organ) -> bool {
        self.prior(organ).is_some()
    }

    fn prior(&self, organ: &Organ) -> Option<&'static OrganPrior> {
        self.organs.iter().find(|(name, _)| *name == organ.name).map(|(_, prior)| *prior)
    }
}

impl Synthesize for Rules {
    fn site_plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault> {
        self.plan(scan, organ, 1, |_| Ok(None))
    }
}

impl Rules {
    /// Prepares one organ of one scan. `maps` returns the source of difference maps for the organ's box; it is called only if the scan
    /// contains the organ.
    pub(super) fn plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
        attempts_per_site: u32,
        maps: impl FnOnce(Region) -> Result<Option<Box<dyn DifferenceMaps + 'scan>>, Fault>,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault> {
        let (shape, labels) = (scan.scan.volume.grid.shape, scan.mask.labels.shape());
        if shape != labels || shape != scan.scan.volume.voxels.shape() {
            let message = format!("expected a mask of the scan's shape {shape:?}, got {labels:?}");
            return Err(Fault::new(Stage::Synthesize, FaultKind::Mismatch, message));
        }
        let found = self.prior(organ).and_then(|prior| Some((prior, OrganSummary::of(scan, organ)?)));
        let Some((prior, summary)) = found else { return Ok(Box::new(NoOrgan)) };
        let search = match self.config.sites {
            Sites::Prior => PositionSearch::Depth(Box::new(SitePlan::new(scan, organ, &summary))),
            Sites::Reference => PositionSearch::Reference(ReferenceSites::new(scan, organ, summary.region)),
        };
        let deep = match &search {
            PositionSearch::Depth(plan) => plan.deep_voxels(),
            PositionSearch::Reference(sites) => sites.middle().into_iter().collect(),
        };
        let textures = match self.config.texture {
            Textures::Chest => TexturePool::chest(),
            Textures::Organ if matches!(prior.contrast, Contrast::Filling { .. }) => TexturePool::chest(),
            Textures::Organ | Textures::Abdomen => TexturePool::abdomen(),
        };
        let source = TumorSource {
            scan,
            organ,
            prior,
            summary,
            config: &self.config,
            noise: TissueNoise::measure(scan, organ, &deep),
            textures,
            window: self.window,
            spacing_mm: scan.scan.volume.grid.spacing_mm(),
        };
        let attempts_per_site = self.config.attempts_per_site.unwrap_or(attempts_per_site);
        let steering = self.steering.get(&organ.name);
        Ok(Box::new(OrganPlan { search, maps: maps(summary.region)?, attempts_per_site, steering, source }))
    }
}

/// An organ that is not in the scan or not selected.
struct NoOrgan;

impl Attempts for NoOrgan {
    fn attempt(&self, _key: AttemptKey) -> Result<Attempt, Fault> {
        Ok(rejected("no_site"))
    }
}
