//! What is averaged over cases.

use super::bootstrap::Share;
use super::case::CaseMeasures;
use super::lesions::DiameterBin;

/// A number that describes an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Mean Dice of the tumors over cases whose truth has any. Where only the prediction has, that is a false positive
    /// and counted as such; so all arms are averaged over the same cases.
    Dice,
    /// Mean surface Dice over the same cases.
    Nsd,
    /// Mean Dice of the organ with its tumors.
    OrganDice,
    /// The share of measurable lesions that are found.
    Sensitivity,
    /// The same within one bin.
    SensitivityOf(DiameterBin),
    /// Mean number of false positives over cases without a tumor.
    FalsePositives,
}

impl Metric {
    /// All of them.
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

    /// The name in summaries.
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

    /// What it can be, least and most.
    pub fn range(self) -> [f64; 2] {
        [0.0, if self == Self::FalsePositives { f64::INFINITY } else { 1.0 }]
    }

    /// What one case adds.
    ///
    /// ```
    /// use freetumor::evaluate::metrics::{MeasuredOrgan, Metric, measure};
    /// use freetumor::volume::{Affine, Array3, Grid, Labels};
    /// let grid = Grid { shape: [4, 4, 4], affine: Affine::from_spacing([2.0; 3]) };
    /// let healthy = Labels { grid, ids: Array3::filled(grid.shape, 1) };
    /// let liver = MeasuredOrgan { name: "liver".into(), organ_id: Some(1), tumor_id: 2 };
    /// let wrong = measure(&healthy, &Array3::filled(grid.shape, 2), &liver);
    /// assert_eq!(Metric::FalsePositives.share(&wrong).mean(), Some(1.0));
    /// assert_eq!(Metric::Dice.share(&wrong).mean(), None);
    /// ```
    pub fn share(self, case: &CaseMeasures) -> Share {
        let found = |bin: Option<DiameterBin>| {
            let lesions = case.found.lesions.iter().filter(|lesion| lesion.is_measurable);
            lesions.filter(|lesion| bin.is_none_or(|bin| lesion.bin == bin)).fold(Share::NONE, |share, lesion| Share {
                sum: share.sum + f64::from(u8::from(lesion.is_found)),
                weight: share.weight + 1.0,
            })
        };
        match self {
            Self::Dice if !case.is_healthy() => Share::of(case.tumor_dice),
            Self::Nsd if !case.is_healthy() => Share::of(case.tumor_nsd),
            Self::Dice | Self::Nsd => Share::NONE,
            Self::OrganDice => Share::of(case.organ_dice),
            Self::Sensitivity => found(None),
            Self::SensitivityOf(bin) => found(Some(bin)),
            Self::FalsePositives => Share::of(case.is_healthy().then_some(case.found.false_positives_mm3.len() as f64)),
        }
    }
}
