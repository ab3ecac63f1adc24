//! The metrics that are averaged over cases.

use super::bootstrap::WeightedSum;
use super::case::CaseMeasures;
use super::lesions::DiameterBin;

/// A metric of an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Mean Dice of the tumors over cases whose ground truth has a tumor. Tumors only in the prediction count as false positives, so that
    /// all arms are averaged over the same cases.
    Dice,
    /// Mean surface Dice over the same cases.
    Nsd,
    /// Mean Dice of the organ with its tumors.
    OrganDice,
    /// The share of measurable lesions that are found.
    Sensitivity,
    /// The share of measurable lesions of one bin that are found.
    SensitivityOf(DiameterBin),
    /// Mean number of false positives over cases without a tumor.
    FalsePositives,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 10] = [
        Self::Dice,
        Self::Nsd,
        Self::OrganDice,
        Self::Sensitivity,
        Self::SensitivityOf(DiameterBin::Below5),
        Self::SensitivityOf(DiameterBin::From5),
        Self::SensitivityOf(DiameterBin::From10),
        Self::SensitivityOf(DiameterBin::From15),
        Self::SensitivityOf(DiameterBin::From20),
        Self::FalsePositives,
    ];

    /// Returns the name in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dice => "dice",
            Self::Nsd => "nsd",
            Self::OrganDice => "organ_dice",
            Self::Sensitivity => "sensitivity",
            Self::SensitivityOf(DiameterBin::Below5) => "sensitivity_below_5_mm",
            Self::SensitivityOf(DiameterBin::From5) => "sensitivity_5_to_10_mm",
            Self::SensitivityOf(DiameterBin::From10) => "sensitivity_10_to_15_mm",
            Self::SensitivityOf(DiameterBin::From15) => "sensitivity_15_to_20_mm",
            Self::SensitivityOf(DiameterBin::From20) => "sensitivity_from_20_mm",
            Self::FalsePositives => "false_positives_per_healthy_scan",
        }
    }

    /// Returns the minimum and the maximum of the metric.
    pub fn range(self) -> [f64; 2] {
        [0.0, if self == Self::FalsePositives { f64::INFINITY } else { 1.0 }]
    }

    /// Returns the contribution of one case to the mean.
    ///
    /// ```
    /// use freetumor::evaluate::metrics::{MeasuredOrgan, Metric, measure};
    /// use freetumor::volume::{Affine, Array3, Grid, Labels};
    /// let grid = Grid { shape: [4, 4, 4], affine: Affine::from_spacing([2.0; 3]) };
    /// let healthy = Labels { grid, ids: Array3::filled(grid.shape, 1) };
    /// let liver = MeasuredOrgan { name: "liver".into(), organ_id: Some(1), tumor_id: 2 };
    /// let wrong = measure(&healthy, &Array3::filled(grid.shape, 2), &liver);
    /// assert_eq!(Metric::FalsePositives.contribution(&wrong).mean(), Some(1.0));
    /// assert_eq!(Metric::Dice.contribution(&wrong).mean(), None);
    /// ```
    pub fn contribution(self, case: &CaseMeasures) -> WeightedSum {
        let sensitivity = |bin: Option<DiameterBin>| {
            let lesions = case.found.lesions.iter().filter(|lesion| lesion.is_measurable);
            lesions.filter(|lesion| bin.is_none_or(|bin| lesion.bin == bin)).fold(WeightedSum::ZERO, |total, lesion| {
                WeightedSum { sum: total.sum + f64::from(u8::from(lesion.is_found)), weight: total.weight + 1.0 }
            })
        };
        match self {
            Self::Dice if !case.is_healthy() => WeightedSum::of(case.tumor_dice),
            Self::Nsd if !case.is_healthy() => WeightedSum::of(case.tumor_nsd),
            Self::Dice | Self::Nsd => WeightedSum::ZERO,
            Self::OrganDice => WeightedSum::of(case.organ_dice),
            Self::Sensitivity => sensitivity(None),
            Self::SensitivityOf(bin) => sensitivity(Some(bin)),
            Self::FalsePositives => {
                WeightedSum::of(case.is_healthy().then_some(case.found.false_positives_mm3.len() as f64))
            }
        }
    }
}
