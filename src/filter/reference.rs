//! The reference of real tumors: the density ratio of real and synthetic tumors on their scores, frozen in a file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::features::{CalibratedScore, Features, Scale};
use crate::error::{Error, Result};
use crate::score::{Score, Scores};
use crate::store::{FileDigest, canonical};
use crate::synth::Steering;

/// The maximum of valid weights and ratios.
const MAX_NUMBER: f64 = 1e6;
/// The format of reference files.
const FORMAT: u32 = 1;

/// The reference of the real tumors of each organ, as `freetumor calibrate` writes it.
///
/// ```
/// use freetumor::filter::Reference;
/// let text = r#"{"format":1,"scores":["diameter_mm"],"cap":5.0,"floor":0.02,"conditions":[],"synthesis":"","scorers":[],"organs":{"liver":{
///     "real_tumors":20,"candidates":400,"features":{"scores":[{"score":"diameter_mm","mean":3.0,"deviation":0.5}]},
///     "weights":[0.7,0.1],"intercept":-0.2,"maximum":2.0}}}"#;
/// let reference = Reference::parse(text)?;
/// let scores = Default::default();
/// let [small, large] = [8.0, 40.0].map(|mm| reference.organs["liver"].likeness(mm, &scores).unwrap());
/// assert!(small < large);
/// assert!(Reference::parse("{}").is_err());
/// # Ok::<(), freetumor::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The format of the file.
    format: u32,
    /// The values that were asked for, as in the setting `scores`.
    pub scores: Vec<CalibratedScore>,
    /// The setting `cap`.
    pub cap: f64,
    /// The setting `floor`.
    pub floor: f64,
    /// The conditions that the candidates and the real tumors of the estimate meet.
    pub conditions: Vec<String>,
    /// The digest of the synthesis of the candidates, without steering.
    pub synthesis: String,
    /// The networks that scored the tumors: stages with the SHA-256 of their weights, fold by fold.
    pub scorers: Vec<ScorerWeights>,
    /// The density ratio of each organ.
    pub organs: BTreeMap<String, OrganReference>,
}

/// The weights of a score stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerWeights {
    /// The name of the stage.
    pub stage: String,
    /// The SHA-256 of the weights of the stage, fold by fold.
    pub weights_sha256: Vec<String>,
}

/// The density ratio of one organ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganReference {
    /// The number of real tumors.
    pub real_tumors: usize,
    /// The number of synthetic tumors.
    pub candidates: usize,
    /// The features; with few real tumors those of the diameter alone.
    pub features: Features,
    /// The weight of each feature.
    pub weights: Vec<f64>,
    /// The intercept.
    pub intercept: f64,
    /// The ratio at which tumors are always accepted: the smaller of `cap` and the 95th percentile over the synthetic tumors.
    pub maximum: f64,
    /// The steering of the synthesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steering: Option<Steering>,
}

impl Reference {
    /// Creates the reference of a calibration, without organs and scorers.
    pub fn new(
        scores: Vec<CalibratedScore>,
        [cap, floor]: [f64; 2],
        conditions: &[Condition],
        synthesis: String,
    ) -> Self {
        Self {
            format: FORMAT,
            scores,
            cap,
            floor,
            conditions: conditions.iter().map(Condition::to_string).collect(),
            synthesis,
            scorers: Vec::new(),
            organs: BTreeMap::new(),
        }
    }

    /// Returns the steering of each organ that has one.
    pub fn steering(&self) -> BTreeMap<String, Steering> {
        let tables = self.organs.iter().filter_map(|(name, organ)| Some((name.clone(), organ.steering.clone()?)));
        tables.collect()
    }

    /// Returns the digest of the steering; `None` without steering.
    ///
    /// # Errors
    /// If the steering cannot be serialized, which does not occur for finite numbers.
    pub fn steering_digest(&self) -> Result<Option<String>> {
        let tables = self.steering();
        if tables.is_empty() {
            return Ok(None);
        }
        Ok(Some(FileDigest::of(&canonical::line(&tables)?).sha256))
    }

    /// Parses the text of a reference file.
    ///
    /// # Errors
    /// If the text is not a reference of this format.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |message: String| {
            Error::new(format!("expected a reference of `freetumor calibrate`, got {message}"))
                .with_hint("write the file again with `freetumor calibrate`")
        };
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|cause| wrong(format!("other text: {cause}")))?;
        if let Some(format) = json.get("format").filter(|format| **format != FORMAT) {
            return Err(wrong(format!("format {format} instead of {FORMAT}")));
        }
        let reference: Self = serde_json::from_value(json).map_err(|cause| wrong(format!("other JSON: {cause}")))?;
        for (name, organ) in &reference.organs {
            let width = organ.features.of(&vec![0.0; organ.features.scores.len()]).len();
            if organ.weights.len() != width {
                return Err(wrong(format!("{} weights of the {name} instead of {width}", organ.weights.len())));
            }
            let own: Vec<CalibratedScore> = organ.features.scores.iter().map(|scaled| scaled.score).collect();
            let is_all = own == reference.scores || own == [CalibratedScore::Diameter];
            let contrast = CalibratedScore::Score(Score::DeltaHu);
            if !is_all || organ.features.absolute_contrast.is_some() != own.contains(&contrast) {
                return Err(wrong(format!("other features of the {name}")));
            }
            let scales =
                organ.features.scores.iter().map(|scaled| scaled.scale).chain(organ.features.absolute_contrast);
            let is_valid =
                |scale: Scale| scale.mean.is_finite() && scale.deviation > 0.0 && scale.deviation.is_finite();
            let mut numbers = organ.weights.iter().chain([&organ.intercept, &organ.maximum]);
            let is_finite = numbers.all(|number| number.abs() < MAX_NUMBER) && scales.into_iter().all(is_valid);
            if !is_finite || organ.maximum <= 0.0 || organ.maximum > reference.cap {
                return Err(wrong(format!("invalid numbers of the {name}")));
            }
            if let Some(steering) = &organ.steering {
                steering.check().map_err(|message| wrong(format!("a steering of the {name} with {message}")))?;
            }
        }
        Ok(reference)
    }

    /// Reads a reference file.
    ///
    /// # Errors
    /// If the file cannot be read or is not a reference.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| Error::io("cannot read", path, cause))?;
        Self::parse(&text).map_err(|error| {
            let located = Error::new(format!("{}: {error}", path.display()));
            error.hint().map(str::to_owned).into_iter().fold(located, Error::with_hint)
        })
    }

    /// Returns the text of the file.
    ///
    /// # Errors
    /// If the reference cannot be serialized, which does not occur for finite numbers.
    pub fn to_json(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|cause| Error::new(format!("cannot serialize a reference: {cause}")).with_source(cause))?;
        Ok(json + "\n")
    }

    /// Returns the SHA-256 of the content, independent of the layout of the file.
    ///
    /// # Errors
    /// The same errors as [`Reference::to_json`].
    pub fn digest(&self) -> Result<String> {
        Ok(FileDigest::of(&canonical::line(self)?).sha256)
    }
}

impl OrganReference {
    /// Returns the density ratio r of real and synthetic tumors at the scores of a tumor; `None` if one of the scores is missing.
    pub fn likeness(&self, diameter_mm: f64, scores: &Scores) -> Option<f64> {
        Some(self.ratio(&self.features.values(diameter_mm, scores)?))
    }

    /// Returns the density ratio at these values.
    pub fn ratio(&self, values: &[f64]) -> f64 {
        let features = self.features.of(values);
        libm::exp(
            features.iter().zip(&self.weights).map(|(value, weight)| value * weight).sum::<f64>() + self.intercept,
        )
    }

    /// Returns the probability with which a tumor of density ratio `likeness` is accepted. `steering_factor` is the factor by which a
    /// steered synthesis sampled tumors like this one more often.
    ///
    /// # Source
    /// Azadi et al., Discriminator Rejection Sampling, 2019.
    pub fn acceptance(&self, likeness: f64, steering_factor: Option<f64>) -> f64 {
        match (steering_factor, &self.steering) {
            (Some(steering_factor), Some(steering)) => {
                (likeness.min(self.maximum) / (steering.maximum * steering_factor)).min(1.0)
            }
            _ => (likeness / self.maximum).min(1.0),
        }
    }
}
