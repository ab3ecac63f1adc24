//! What the experiment consists of, as `gain.toml` and `quick.toml` say it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use freetumor::error::{ConfigError, Error, Result};
use freetumor::store::FileDigest;
use freetumor::store::canonical;
use freetumor::synth::RulesConfig;
use freetumor::train::segmentation::SegmentationConfig;
use freetumor::train::synthesis::SynthesisConfig;
use serde::{Deserialize, Serialize};

use super::selection::Threshold;
use super::world::{Diameters, Role};

/// The experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub world: WorldConfig,
    pub seeds: Seeds,
    pub gate: Gate,
    /// How every segmentor of the experiment learns.
    pub segmentation: SegmentationConfig,
    pub judges: Judges,
    /// How generators learn; `segmentor.weights` is the judging segmentor's.
    pub synthesis: SynthesisConfig,
    /// Sites, sizes and shapes of synthetic tumors, by whatever means they are made.
    pub shapes: RulesConfig,
    pub pool: PoolConfig,
    pub arms: Vec<Arm>,
    /// The questions of [`PRIMARY`] once more, of other filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Round>,
    /// Differences that are reported beside these.
    pub secondary: Vec<[String; 2]>,
    /// Resamples behind every interval.
    pub resamples: usize,
}

/// The world and how much of it is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldConfig {
    pub seed: u64,
    pub shape: [usize; 3],
    pub spacing_mm: f64,
    pub noise: f64,
    pub diameters: Diameters,
    /// Real scans in place of phantoms; `shape`, `noise` and the numbers of voxels are then theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scans: Vec<RealScan>,
    pub labeled: usize,
    pub unlabeled: usize,
    pub validation: usize,
    pub test: usize,
    pub healthy: usize,
}

/// A real scan whose liver gets tumors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealScan {
    /// NIfTI, or the folder of a DICOM series; from the folder in which the experiment is run.
    pub image: PathBuf,
    /// NIfTI, on whatever grid.
    pub labels: PathBuf,
    /// The liver's id in it.
    pub liver: u16,
    /// Standard deviation of a Gaussian that it is seen through, as of a softer kernel [default: 0].
    #[serde(default)]
    pub softened_mm: f64,
    /// Whose patients it is.
    pub roles: Vec<Role>,
}

/// Seeds of trainings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// Those by which settings are chosen.
    pub tuning: Vec<u64>,
    /// Those of the arms, in order; no other training uses them.
    pub arms: Vec<u64>,
    /// Of the generators.
    pub generator: u64,
    /// Of pools and of what is drawn from them.
    pub pool: u64,
    /// Of the intervals.
    pub resamples: u64,
}

/// What the world has to show before any arm is run, in percent of Dice on validation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub least_oracle_dsc: f64,
    pub least_gap_dsc: f64,
    /// Whether the experiment stops where it does not; a quick form, which learns nothing, goes on.
    pub stops: bool,
}

/// The segmentors that judge.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judges {
    /// Seed of the one that generators learn against and that filters.
    pub seed: u64,
    /// Seed of the one that no generator sees.
    pub held_out_seed: u64,
    /// Its width, so that it is no twin.
    pub held_out_width: usize,
    pub steps: u64,
}

/// Both questions once more, of another filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Which filter, and what was known when it was chosen; for the page.
    pub filter: String,
    /// What its tumors add to real ones alone, and what it adds to as many of the same sizes.
    pub differences: [[String; 2]; 2],
}

/// A scored pool of candidates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Tumors asked for in each unlabeled scan; a few more than are needed, as some find no place.
    pub variants: u32,
    /// Candidates of which arms choose.
    pub candidates: usize,
    /// How strong a generator's tumors are beside what it learned, from and to.
    pub strength: [f64; 2],
    /// Whether they get dead cores and rims.
    pub structure: bool,
}

/// What makes tumors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Maker {
    Rules,
    Generator,
    /// The generator that was trained without unlabeled scans.
    GeneratorLabeledOnly,
}

impl Maker {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Generator => "generator",
            Self::GeneratorLabeledOnly => "generator_labeled_only",
        }
    }
}

/// What an arm is trained on beside the labeled scans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Tumors {
    /// Nothing: the labeled scans' own tumors take the place of synthetic ones.
    None,
    /// The unlabeled scans as they are, their livers marked: what those are worth without tumors in them.
    Scans,
    /// A whole pool.
    Pool { from: Maker },
    /// What passes of it.
    Filtered { from: Maker, at: Threshold },
    /// As many as pass.
    ThinnedToCount { from: Maker, at: Threshold },
    /// As many as pass, of the same sizes.
    ThinnedToSizes { from: Maker, at: Threshold },
    /// What passes, with its labels and without its HU.
    ZeroContrast { from: Maker, at: Threshold },
    /// Tumors made while the arm learns, each tried so often until one passes.
    Fresh { from: Maker, above: f64, tries: u32 },
    /// The real tumors of the unlabeled scans, marked.
    Oracle,
}

impl Tumors {
    /// The pool, or the maker, that it takes from.
    pub fn maker(&self) -> Option<Maker> {
        match self {
            Self::None | Self::Scans | Self::Oracle => None,
            Self::Pool { from }
            | Self::Filtered { from, .. }
            | Self::ThinnedToCount { from, .. }
            | Self::ThinnedToSizes { from, .. }
            | Self::ZeroContrast { from, .. }
            | Self::Fresh { from, .. } => Some(*from),
        }
    }

    /// What the filter lets pass that decides which, or how many, of the pool it takes.
    pub fn threshold(&self) -> Option<&Threshold> {
        match self {
            Self::Filtered { at, .. }
            | Self::ThinnedToCount { at, .. }
            | Self::ThinnedToSizes { at, .. }
            | Self::ZeroContrast { at, .. } => Some(at),
            Self::None | Self::Scans | Self::Oracle | Self::Pool { .. } | Self::Fresh { .. } => None,
        }
    }
}

/// One way to train, so many times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    pub name: String,
    /// How many of the arms' seeds it is trained with, the first ones.
    pub seeds: usize,
    pub tumors: Tumors,
}

/// One training of an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training<'a> {
    /// The place of the arm among all.
    pub place: usize,
    pub arm: &'a Arm,
    /// The place of the seed among the arm's.
    pub index: usize,
    pub seed: u64,
}

/// The arms that the report is about.
pub const REAL_ONLY: &str = "real_only";
pub const FILTERED: &str = "filtered";
pub const THINNED: &str = "thinned_to_sizes";
pub const ORACLE: &str = "oracle";

/// The primary differences: what the filter's tumors add, and what the filter adds beyond count and sizes.
pub const PRIMARY: [[&str; 2]; 2] = [[FILTERED, REAL_ONLY], [FILTERED, THINNED]];

impl Experiment {
    /// Reads the settings.
    ///
    /// # Errors
    /// Returns an error if they are no experiment, with everything that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let experiment: Self =
            toml::from_str(text).map_err(|cause| Error::new(format!("the settings are no experiment: {cause}")))?;
        let complaints = experiment.complaints();
        if complaints.is_empty() { Ok(experiment) } else { Err(Error::new(complaints.join("\n"))) }
    }

    fn complaints(&self) -> Vec<String> {
        let said = |table: &str, complaints: Vec<ConfigError>| {
            let each = complaints.into_iter().map(|it| format!("`{table}.{}`: {}", it.field, it.message));
            each.collect::<Vec<_>>()
        };
        let mut all = said("segmentation", self.segmentation.complaints());
        all.extend(said("synthesis", self.synthesis.complaints()));
        if self.segmentation.preprocess != self.synthesis.preprocess {
            all.push("`synthesis.preprocess`: expected that of `segmentation`".to_owned());
        }
        let judging = [self.judges.seed, self.judges.held_out_seed];
        let tuned: BTreeSet<u64> = self.seeds.tuning.iter().copied().chain(judging).collect();
        if let Some(seed) = self.seeds.arms.iter().find(|seed| tuned.contains(seed)) {
            all.push(format!("`seeds.arms`: {seed} was looked at before"));
        }
        if self.seeds.tuning.is_empty() {
            all.push("`seeds.tuning`: expected at least one, got none".to_owned());
        }
        let names: BTreeSet<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        if names.len() < self.arms.len() {
            all.push("`arms`: expected names of their own".to_owned());
        }
        for arm in self.arms.iter().filter(|arm| arm.seeds == 0 || arm.seeds > self.seeds.arms.len()) {
            let there = self.seeds.arms.len();
            all.push(format!("arm `{}`: expected 1 to {there} seeds, got {}", arm.name, arm.seeds));
        }
        let others = self.secondary.iter().chain(self.rounds.iter().flat_map(|round| &round.differences));
        let compared = others.flatten().map(String::as_str).chain(PRIMARY.into_iter().flatten());
        for name in compared.chain([ORACLE]).collect::<BTreeSet<_>>() {
            if !names.contains(name) {
                all.push(format!("`arms`: expected one named `{name}`, which is reported"));
            }
        }
        all
    }

    /// The makers that any arm takes from.
    pub fn makers(&self) -> Vec<Maker> {
        makers(self.arms.iter())
    }

    /// All trainings of arms, or of those named, in order.
    pub fn trainings(&self, names: &[String]) -> Vec<Training<'_>> {
        let seeds = |arm: &Arm| self.seeds.arms.iter().take(arm.seeds).copied().enumerate();
        let arms = self.arms.iter().enumerate();
        let arms = arms.filter(|(_, arm)| names.is_empty() || names.contains(&arm.name));
        arms.flat_map(|(place, arm)| seeds(arm).map(move |(index, seed)| Training { place, arm, index, seed }))
            .collect()
    }

    /// The place of an arm.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.arms.iter().position(|arm| arm.name == name)
    }

    /// A digest of what decides what any network does: all but which arms there are, and what is reported of them.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be written.
    pub fn digest(&self) -> Result<String> {
        let apart = Self { arms: Vec::new(), rounds: Vec::new(), secondary: Vec::new(), resamples: 0, ..self.clone() };
        Ok(FileDigest::of(&canonical::pretty(&apart)?).sha256)
    }

    /// Whether this is the same experiment, perhaps with more arms: what was seen stays true, as long as no arm is dropped,
    /// given fewer seeds, or made another one under its name.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be written.
    pub fn goes_on_from(&self, other: &Self) -> Result<bool> {
        let is_kept = |old: &Arm| {
            let mut same = self.arms.iter().filter(|new| new.name == old.name);
            same.any(|new| new.tumors == old.tumors && new.seeds >= old.seeds)
        };
        Ok(self.digest()? == other.digest()? && other.arms.iter().all(is_kept))
    }
}

/// The makers that arms take from.
pub fn makers<'a>(arms: impl Iterator<Item = &'a Arm>) -> Vec<Maker> {
    arms.filter_map(|arm| arm.tumors.maker()).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_experiments() {
        for text in [super::super::FULL, super::super::QUICK] {
            let experiment = Experiment::parse(text).unwrap();
            assert_eq!(experiment.makers().len(), 3);
            assert!(experiment.segmentation.synthetic.is_some());
        }
        let scans = Experiment::parse(include_str!("scans.toml")).unwrap();
        let roles: BTreeSet<Role> = scans.world.scans.iter().flat_map(|scan| scan.roles.iter().copied()).collect();
        assert_eq!((roles.len(), scans.makers().len()), (Role::ALL.len(), 2));
        // No scan is both learned from and tested on.
        let is_split = |scan: &RealScan| {
            let is_learned = |role: &Role| matches!(role, Role::Labeled | Role::Unlabeled);
            scan.roles.iter().all(is_learned) || !scan.roles.iter().any(is_learned)
        };
        assert!(scans.world.scans.iter().all(is_split));
    }

    #[test]
    fn what_is_kept_is_of_these_settings() {
        let kept = [
            (super::super::FULL, include_str!("results/experiment.json")),
            (include_str!("scans.toml"), include_str!("results-scans/experiment.json")),
        ];
        for (settings, kept) in kept {
            let experiment = Experiment::parse(settings).unwrap();
            let settings = String::from_utf8(freetumor::store::canonical::pretty(&experiment).unwrap()).unwrap();
            assert!(settings == kept, "results are of other settings than the file: {}", experiment.digest().unwrap());
        }
    }

    #[test]
    fn arms_may_come_and_none_may_go() {
        let quick = Experiment::parse(super::super::QUICK).unwrap();
        let other = |change: fn(&mut Experiment)| {
            let mut other = quick.clone();
            change(&mut other);
            other
        };
        let late = Arm { name: "late".to_owned(), seeds: 1, tumors: Tumors::Scans };
        let mut more = quick.clone();
        more.arms.insert(2, late);
        more.resamples += 1;
        assert!(more.goes_on_from(&quick).unwrap() && !quick.goes_on_from(&more).unwrap());
        assert!(!other(|it| it.arms[1].tumors = Tumors::Scans).goes_on_from(&quick).unwrap());
        assert!(!other(|it| it.arms[1].seeds = 0).goes_on_from(&quick).unwrap());
        assert!(!other(|it| it.segmentation.steps += 1).goes_on_from(&quick).unwrap());
    }

    #[test]
    fn what_was_looked_at_before_is_refused() {
        let text = super::super::QUICK.replace("arms = [101]", "arms = [1]");
        let said = Experiment::parse(&text).unwrap_err().to_string();
        assert!(said.contains("1 was looked at before"), "{said}");
    }
}
