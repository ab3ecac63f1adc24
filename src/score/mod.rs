//! Scores: numbers by which the quality test decides on a candidate.
//!
//! This room owns the list of scores with their units ([`Score`]) and the stages that compute them: HU inside and around the tumor
//! ([`Intensity`]), what a segmentor finds of it ([`Segmentor`]), how real a discriminator takes it to be ([`Discriminator`]).
//!
//! A score stage reads a candidate and changes nothing. A score that no stage gave is absent, never zero. No stage sees the verdict, nor the
//! conditions of the quality test.

mod discriminator;
mod intensity;
mod network;
mod segmentor;

use serde::{Deserialize, Serialize};

pub use discriminator::{Discriminator, DiscriminatorConfig};
pub use intensity::{Intensity, IntensityConfig};
pub use segmentor::{Segmentor, SegmentorConfig};

use crate::error::Fault;
use crate::inference::Inference;
use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;

/// Declares the scores with their names, units and meaning, once for tables, graph checks and documentation.
macro_rules! scores {
    ($($variant:ident $name:literal $unit:literal $doc:literal;)*) => {
        /// A score that a stage may give and a condition may ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Score { $(#[doc = $doc] $variant,)* }

        impl Score {
            /// All of them, in the order of the table's columns.
            pub const ALL: &'static [Score] = &[$(Score::$variant,)*];

            /// The column's name.
            pub fn name(self) -> &'static str {
                match self { $(Score::$variant => $name,)* }
            }

            /// The unit, `""` for a pure number.
            pub fn unit(self) -> &'static str {
                match self { $(Score::$variant => $unit,)* }
            }

            /// One sentence for the reader of the table.
            pub fn doc(self) -> &'static str {
                match self { $(Score::$variant => $doc,)* }
            }

            /// The score of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|score| score.name() == name)
            }
        }
    };
}

scores! {
    HuInside "hu_inside" "HU" "Mean HU of the synthetic tumor.";
    HuRing "hu_ring" "HU" "Mean HU of the healthy organ in a ring around the tumor.";
    HuBefore "hu_before" "HU" "Mean HU of the tumor's voxels before the synthesis.";
    DeltaHu "delta_hu" "HU" "Mean change of HU in the tumor's voxels.";
    Cnr "cnr" "" "Contrast to noise: (inside - ring) over the standard deviation of the ring.";
    InvisibleFraction "invisible_fraction" "" "Share of the tumor's voxels that changed by less than the visibility gate.";
    OrganMedianHu "organ_median_hu" "HU" "Median HU of the whole healthy organ.";
    OrganHuDeviation "organ_hu_deviation" "HU" "How far the organ's median HU lies outside its reference range; 0 inside.";
    FoundFraction "found_fraction" "" "Share of the tumor's voxels that the segmentor calls tumor.";
    TumorProbability "tumor_probability" "" "Mean tumor probability of the segmentor over the tumor's voxels.";
    RightClassFraction "right_class_fraction" "" "Share of the tumor's voxels that the segmentor calls this organ's tumor.";
    Dice "dice" "" "Dice of the segmentor's tumor against the synthetic label.";
    NewFalsePositiveMm3 "new_false_positive_mm3" "mm3" "Volume that the segmentor calls tumor after but not before, outside every tumor label.";
    Realness "realness" "" "Mean probability of the discriminator that the tumor's voxels are real.";
    HeldOutFoundFraction "held_out_found_fraction" "" "Found fraction of a segmentor that the generator never trained against.";
    Disagreement "disagreement" "" "Found fraction minus held-out found fraction.";
    SuspectedRealTumorMm3 "suspected_real_tumor_mm3" "mm3" "Volume that the segmentor calls tumor in the untouched scan.";
}

impl Score {
    /// The least and the greatest value that it can have, in its unit.
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
            Self::NewFalsePositiveMm3 | Self::SuspectedRealTumorMm3 | Self::OrganHuDeviation => [0.0, f64::INFINITY],
            Self::HuInside | Self::HuRing | Self::HuBefore | Self::DeltaHu | Self::Cnr | Self::OrganMedianHu => {
                [f64::NEG_INFINITY, f64::INFINITY]
            }
        }
    }
}

/// The scores of one candidate; what no stage gave is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scores(std::collections::BTreeMap<String, f64>);

impl Scores {
    /// Records a score.
    pub fn set(&mut self, score: Score, value: f64) {
        self.0.insert(score.name().to_owned(), value);
    }

    /// The score, if a stage gave it.
    pub fn get(&self, score: Score) -> Option<f64> {
        self.0.get(score.name()).copied()
    }
}

/// A way to judge candidates.
pub trait ScoreStage: Send + Sync {
    /// The scores that this stage gives.
    fn gives(&self) -> &[Score];

    /// Prepares one organ of one scan; kept over all variants and attempts.
    ///
    /// # Errors
    /// A [`Fault`] where this scan cannot be judged at all.
    fn baseline<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Scorer + 'scan>, Fault>;

    /// Names what its scores depend on beside its settings and weights, such as classes that it takes from the mask; part of its
    /// digest. Change it with every change of the results.
    fn version(&self) -> String {
        "1".to_owned()
    }

    /// The network that it infers with, where it does.
    fn viewer(&self) -> Option<&Inference> {
        None
    }
}

/// Judges the candidates of one organ of one scan.
pub trait Scorer: Send + Sync {
    /// Adds this stage's scores of `candidate` to `scores`.
    ///
    /// # Errors
    /// A [`Fault`] where a score cannot be computed.
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault>;
}
