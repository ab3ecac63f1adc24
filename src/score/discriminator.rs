//! The score by a discriminator, a network that distinguishes real from synthetic tumors.

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
    /// The discriminator, which classifies each voxel as background, real tumor or synthetic tumor.
    pub network: NetworkConfig,
    /// The network's class of real tumors.
    #[serde(default = "published_class")]
    pub real_class: usize,
}

fn published_class() -> usize {
    1
}

/// The score stage of kind `discriminator`; see [`DiscriminatorConfig`].
#[derive(Debug)]
pub struct Discriminator {
    inference: Inference,
    real_class: usize,
}

impl Discriminator {
    /// Checks the settings against the loaded network.
    ///
    /// # Errors
    /// Returns an error if the network does not have the class.
    pub fn new(config: DiscriminatorConfig, inference: Inference) -> Result<Self, Vec<ConfigError>> {
        let (class, count) = (config.real_class, inference.classes());
        if class >= count {
            let message = format!("expected one of the network's {count} classes, 0 to {}, got {class}", count - 1);
            return Err(vec![ConfigError::new("real_class", message)]);
        }
        Ok(Self { inference, real_class: class })
    }
}

impl ScoreStage for Discriminator {
    fn reads(&self) -> Option<&[Score]> {
        Some(&[])
    }

    fn inference(&self) -> Option<&Inference> {
        Some(&self.inference)
    }

    fn scores(&self) -> &'static [Score] {
        &[Score::Realness]
    }

    fn baseline<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Scorer + 'scan>, Fault> {
        let inference = OrganInference::new(&self.inference, scan, organ)?;
        Ok(Box::new(DiscriminatorScorer { real_class: self.real_class, inference }))
    }
}

struct DiscriminatorScorer<'scan> {
    real_class: usize,
    inference: OrganInference<'scan>,
}

impl Scorer for DiscriminatorScorer<'_> {
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        let Some(after) = self.inference.predict_after(candidate, None)? else { return Ok(()) };
        let (mut realness, mut voxels) = (0.0, 0usize);
        for (voxel, _) in after.tumor.as_slice().iter().enumerate().filter(|(_, synthetic)| **synthetic != 0) {
            realness += after.prediction.probability(voxel, &[self.real_class]);
            voxels += 1;
        }
        if voxels > 0 {
            scores.set(Score::Realness, realness / voxels as f64);
        }
        Ok(())
    }
}
