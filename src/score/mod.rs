//! Scores: numbers by which the quality test decides on a candidate.
//!
//! This module owns the list of scores with their units ([`Score`]) and the stages that compute them: HU inside and around the tumor
//! ([`Intensity`]), the found fraction of a segmentor ([`Segmentor`]), and the realness of a discriminator ([`Discriminator`]).
//!
//! A score stage reads a candidate and does not change it. A score that no stage computed is absent, never zero. No stage has access to
//! the verdict or the conditions of the quality test.

mod discriminator;
mod intensity;
mod network;
mod segmentor;

use serde::{Deserialize, Serialize};

pub use discriminator::{Discriminator, DiscriminatorConfig};
pub use intensity::{Intensity, IntensityConfig, TumorHuRange};
pub use segmentor::{Segmentor, SegmentorConfig, SegmentorFold};

use std::path::PathBuf;

use crate::error::Fault;
use crate::id::PatientKey;
use crate::inference::Inference;
use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;

/// Declares the scores with their names, units and meaning, once for tables, graph checks and documentation.
macro_rules! scores {
    ($($variant:ident $name:literal $unit:literal $doc:literal;)*) => {
        /// A score that a stage computes and a condition bounds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Score { $(#[doc = $doc] $variant,)* }

        impl Score {
            /// All scores, in the order of the table's columns.
            pub const ALL: &'static [Score] = &[$(Score::$variant,)*];

            /// Returns the name of the column.
            pub fn name(self) -> &'static str {
                match self { $(Score::$variant => $name,)* }
            }

            /// Returns the unit, `""` for a pure number.
            pub fn unit(self) -> &'static str {
                match self { $(Score::$variant => $unit,)* }
            }

            /// Returns the description of the score, which is that of its column in the table `samples`.
            pub fn doc(self) -> &'static str {
                match self { $(Score::$variant => $doc,)* }
            }

            /// Returns the score of a name, or `None` if no score has the name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|score| score.name() == name)
            }
        }
    };
}

scores! {
    HuInside "hu_inside" "HU" "Mean HU of the synthetic tumor.";
    HuRing "hu_ring" "HU" "Mean HU of the healthy organ in a ring around the tumor.";
    HuBefore "hu_before" "HU" "Mean HU before the synthesis of the tumor's voxels that were healthy organ.";
    DeltaHu "delta_hu" "HU" "Mean HU of the tumor minus hu_before.";
    Cnr "cnr" "" "Contrast to noise: (inside - ring) over the standard deviation of the ring.";
    InvisibleFraction "invisible_fraction" "" "Share of the tumor's voxels that changed by less than the visibility threshold.";
    OrganMedianHu "organ_median_hu" "HU" "Median HU of the whole healthy organ.";
    OrganHuDeviation "organ_hu_deviation" "HU" "Distance of the organ's median HU from its reference range; 0 inside.";
    TumorHuDeviation "tumor_hu_deviation" "HU" "Distance of the tumor's mean HU from the range of real tumors in this organ and contrast phase; 0 inside.";
    FoundFraction "found_fraction" "" "Share of the tumor's voxels that the segmentor classifies as tumor.";
    TumorProbability "tumor_probability" "" "Mean tumor probability of the segmentor over the tumor's voxels.";
    RightClassFraction "right_class_fraction" "" "Share of the tumor's voxels that the segmentor classifies as this organ's tumor.";
    Dice "dice" "" "Dice of the segmentor's tumor against the synthetic label.";
    NewFalsePositiveMm3 "new_false_positive_mm3" "mm3" "Volume that the segmentor classifies as tumor after but not before, outside every tumor label and outside of the tissue that the tumor displaces.";
    Realness "realness" "" "Mean probability of the discriminator that the tumor's voxels are real.";
    HeldOutFoundFraction "held_out_found_fraction" "" "Found fraction of a segmentor that the generator was not trained against.";
    Disagreement "disagreement" "" "Found fraction minus held-out found fraction.";
    SuspectedRealTumorMm3 "suspected_real_tumor_mm3" "mm3" "Volume that the segmentor classifies as tumor in the original scan.";
}

impl Score {
    /// Returns the minimum and maximum possible value in the score's unit.
    ///
    /// ```
    /// use freetumor::score::Score;
    /// assert_eq!(Score::Dice.range(), [0.0, 1.0]);
    /// assert_eq!(Score::DeltaHu.range(), [f64::NEG_INFINITY, f64::INFINITY]);
    /// ```
    pub fn range(self) -> [f64; 2] {
        match self {
            Self::InvisibleFraction
            | Self::FoundFraction
            | Self::TumorProbability
            | Self::RightClassFraction
            | Self::Dice
            | Self::Realness
            | Self::HeldOutFoundFraction => [0.0, 1.0],
            Self::Disagreement => [-1.0, 1.0],
            Self::NewFalsePositiveMm3
            | Self::SuspectedRealTumorMm3
            | Self::OrganHuDeviation
            | Self::TumorHuDeviation => [0.0, f64::INFINITY],
            Self::HuInside | Self::HuRing | Self::HuBefore | Self::DeltaHu | Self::Cnr | Self::OrganMedianHu => {
                [f64::NEG_INFINITY, f64::INFINITY]
            }
        }
    }
}

/// The scores of one candidate; scores that no stage computed are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scores(std::collections::BTreeMap<String, f64>);

impl Scores {
    /// Records a score.
    pub fn set(&mut self, score: Score, value: f64) {
        self.0.insert(score.name().to_owned(), value);
    }

    /// Returns a score, or `None` if no stage computed it.
    pub fn get(&self, score: Score) -> Option<f64> {
        self.0.get(score.name()).copied()
    }
}

/// A stage that scores candidates.
pub trait ScoreStage: Send + Sync {
    /// Returns the scores that this stage computes.
    fn scores(&self) -> &[Score];

    /// Prepares one organ of one scan. The result is used for all variants and attempts.
    ///
    /// # Errors
    /// A [`Fault`] if no candidate of this scan can be scored.
    fn baseline<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Scorer + 'scan>, Fault>;

    /// Returns a version string, which is part of the stage's digest. It contains all inputs of the scores other than settings and
    /// weights, such as classes from the mask. Change it with every change of the results.
    fn version(&self) -> String {
        "1".to_owned()
    }

    /// Returns the scores of earlier stages that this stage reads; `None` if it may read any of them.
    fn reads(&self) -> Option<&[Score]> {
        None
    }

    /// Returns the cost of a score relative to that of a stage without a network, which is 1, for the order in which stages score.
    fn cost(&self) -> f64 {
        self.inference().map_or(1.0, Inference::cost)
    }

    /// Returns the SHA-256 of the weights of the stage, by fold; empty without a network.
    fn weights(&self) -> Vec<String> {
        self.inference().map(|inference| inference.digest().to_owned()).into_iter().collect()
    }

    /// Returns the fold of the network that was not trained on a patient; `None` if every or no network was.
    fn fold_without(&self, patient: PatientKey) -> Option<u64> {
        let _ = patient;
        None
    }

    /// Returns the files and folders that the stage reads for every scan, beside its weights, which its digest covers.
    fn program_files(&self) -> &[PathBuf] {
        &[]
    }

    /// Returns the network of the stage, if it has one.
    fn inference(&self) -> Option<&Inference> {
        None
    }
}

/// Scores the candidates of one organ of one scan.
pub trait Scorer: Send + Sync {
    /// Adds this stage's scores of `candidate` to `scores`.
    ///
    /// # Errors
    /// A [`Fault`] if a score cannot be computed.
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault>;

    /// Scores as [`Scorer::score`]. A stage with several cross-fitted networks uses the one selected by the remainder of `fold`, a
    /// number that the candidate's id determines.
    ///
    /// # Errors
    /// The same errors as [`Scorer::score`].
    fn score_in_fold(&self, candidate: &Candidate, fold: u64, scores: &mut Scores) -> Result<(), Fault> {
        let _ = fold;
        self.score(candidate, scores)
    }
}
