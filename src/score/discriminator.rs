//! The score by a discriminator: how real a tumor looks to the network that tells real from synthetic.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::OrganInference;
use super::{Score, ScoreStage, Scorer, Scores};
use crate::error::{ConfigError, Fault};
use crate::inference::{Inference, NetworkConfig};
use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;

/// The score by a discriminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscriminatorConfig {
    /// The discriminator: background, real tumor and synthetic tumor of each voxel.
    pub network: NetworkConfig,
    /// Its class of real tumors.
    #[serde(default = "published_class")]
    pub real_class: usize,
}

fn published_class() -> usize {
    1
}

/// The stage; see [`DiscriminatorConfig`].
#[derive(Debug)]
pub struct Discriminator {
    viewer: Inference,
    real_class: usize,
}

impl Discriminator {
    /// Checks the settings against the network that was opened for them.
    ///
    /// # Errors
    /// Where the network has no such class.
    pub fn new(config: DiscriminatorConfig, viewer: Inference) -> Result<Self, Vec<ConfigError>> {
        let (class, count) = (config.real_class, viewer.classes());
        if class >= count {
            let message = format!("expected one of the network's {count} classes, 0 to {}, got {class}", count - 1);
            return Err(vec![ConfigError::new("real_class", message)]);
        }
        Ok(Self { viewer, real_class: class })
    }
}

impl ScoreStage for Discriminator {
    fn viewer(&self) -> Option<&Inference> {
        Some(&self.viewer)
    }

    fn gives(&self) -> &'static [Score] {
        &[Score::Realness]
    }

    fn baseline<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Scorer + 'scan>, Fault> {
        let surroundings = OrganInference::new(&self.viewer, scan, organ)?;
        Ok(Box::new(DiscriminatorScorer { real_class: self.real_class, surroundings }))
    }
}

struct DiscriminatorScorer<'scan> {
    real_class: usize,
    surroundings: OrganInference<'scan>,
}

impl Scorer for DiscriminatorScorer<'_> {
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        let Some(after) = self.surroundings.after(candidate, None)? else { return Ok(()) };
        let (mut realness, mut voxels) = (0.0, 0usize);
        for (voxel, _) in after.tumor.as_slice().iter().enumerate().filter(|(_, synthetic)| **synthetic != 0) {
            realness += after.seen.probability(voxel, &[self.real_class]);
            voxels += 1;
        }
        if voxels > 0 {
            scores.set(Score::Realness, realness / voxels as f64);
        }
        Ok(())
    }
}
