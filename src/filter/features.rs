//! The features of the density ratio of real and synthetic tumors.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::score::{Score, Scores};
use crate::suggest::did_you_mean;

/// The number of standard deviations to which standardized values are clamped.
const MAX_DEVIATIONS: f64 = 3.0;
/// The minimum standard deviation: standardized values stay finite if all values are equal.
const MIN_DEVIATION: f64 = 1e-6;

/// A value of a tumor on which accepted tumors are distributed as real ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CalibratedScore {
    /// The natural logarithm of the equivalent diameter in millimetres.
    Diameter,
    /// A score.
    Score(Score),
}

impl CalibratedScore {
    /// Returns the name in graph files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diameter => "diameter_mm",
            Self::Score(score) => score.name(),
        }
    }

    /// Returns the value of a tumor; `None` if the score is missing or not finite.
    pub fn value(self, diameter_mm: f64, scores: &Scores) -> Option<f64> {
        let value = match self {
            Self::Diameter => Some(libm::log(diameter_mm)),
            Self::Score(score) => scores.get(score),
        };
        value.filter(|value| value.is_finite())
    }
}

impl FromStr for CalibratedScore {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        if name == Self::Diameter.name() {
            return Ok(Self::Diameter);
        }
        Score::from_name(name).map(Self::Score).ok_or_else(|| {
            let names = [Self::Diameter.name()].into_iter().chain(Score::ALL.iter().map(|score| score.name()));
            let error = ConfigError::new("", format!("expected diameter_mm or the name of a score, got `{name}`"));
            ConfigError { hint: did_you_mean(name, names), ..error }
        })
    }
}

impl TryFrom<String> for CalibratedScore {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse().map_err(|error: ConfigError| error.message)
    }
}

impl From<CalibratedScore> for String {
    fn from(score: CalibratedScore) -> Self {
        score.name().to_owned()
    }
}

/// The mean and the standard deviation of a value over the real tumors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub deviation: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count().max(1) as f64;
        let mean = values.clone().sum::<f64>() / count;
        let variance = values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
        Self { mean, deviation: libm::sqrt(variance).max(MIN_DEVIATION) }
    }

    fn standardized(self, value: f64) -> f64 {
        ((value - self.mean) / self.deviation).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)
    }
}

/// A calibrated score with its scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaledScore {
    /// The score.
    pub score: CalibratedScore,
    /// The scale of the score over the real tumors.
    #[serde(flatten)]
    pub scale: Scale,
}

/// The features of a tumor: its standardized values z, z² − 1, the products of two of them, and |ΔHU|, |ΔHU|² − 1 if `delta_hu` is one of
/// the values, because the sign of the contrast is bimodal.
///
/// ```
/// use freetumor::filter::{CalibratedScore, Features};
/// use freetumor::score::Score;
///
/// let scores = [CalibratedScore::Diameter, CalibratedScore::Score(Score::DeltaHu)];
/// let features = Features::of_real(&scores, &[vec![2.0, -30.0], vec![4.0, 10.0]]);
/// // Standard deviations of 1 and 20 around 3 and −10; the absolute contrast has mean 20 and standard deviation 10.
/// assert_eq!(features.of(&[4.0, -30.0]), [1.0, -1.0, 0.0, 0.0, -1.0, 1.0, 0.0]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// The values.
    pub scores: Vec<ScaledScore>,
    /// The scale of the absolute contrast; present if `delta_hu` is one of the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_contrast: Option<Scale>,
}

impl Features {
    /// Standardizes values by those of the real tumors.
    ///
    /// # Shapes
    /// One row for each real tumor, one value for each score.
    pub fn of_real(scores: &[CalibratedScore], rows: &[Vec<f64>]) -> Self {
        let scaled = |(k, score): (usize, &CalibratedScore)| ScaledScore {
            score: *score,
            scale: Scale::of(rows.iter().map(|row| row[k])),
        };
        let contrast = scores.iter().position(|score| *score == CalibratedScore::Score(Score::DeltaHu));
        Self {
            scores: scores.iter().enumerate().map(scaled).collect(),
            absolute_contrast: contrast.map(|k| Scale::of(rows.iter().map(|row| row[k].abs()))),
        }
    }

    /// Returns the values of a tumor; `None` if one of them is missing.
    pub fn values(&self, diameter_mm: f64, scores: &Scores) -> Option<Vec<f64>> {
        self.scores.iter().map(|scaled| scaled.score.value(diameter_mm, scores)).collect()
    }

    /// Returns the features of a tumor with these values.
    ///
    /// # Panics
    /// Panics if there are fewer values than scores.
    pub fn of(&self, values: &[f64]) -> Vec<f64> {
        let z: Vec<f64> =
            self.scores.iter().zip(values).map(|(scaled, value)| scaled.scale.standardized(*value)).collect();
        assert_eq!(z.len(), self.scores.len(), "one value for each score");
        let squares = z.iter().map(|z| z * z - 1.0);
        let products = (0..z.len()).flat_map(|i| (i + 1..z.len()).map(move |j| (i, j))).map(|(i, j)| z[i] * z[j]);
        let mut features: Vec<f64> = z.iter().copied().chain(squares).chain(products).collect();
        let contrast = self.scores.iter().position(|scaled| scaled.score == CalibratedScore::Score(Score::DeltaHu));
        if let (Some(scale), Some(k)) = (self.absolute_contrast, contrast) {
            let absolute = scale.standardized(values[k].abs());
            features.extend([absolute, absolute * absolute - 1.0]);
        }
        features
    }
}
