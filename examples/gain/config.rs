//! The settings of the experiment, as in `gain.toml` and `quick.toml`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use freetumor::error::{ConfigError, Error, Result};
use freetumor::store::FileDigest;
use freetumor::store::canonical;
use freetumor::synth::RulesConfig;
use freetumor::train::segmentation::SegmentationConfig;
use freetumor::train::synthesis::SynthesisConfig;
use serde::{Deserialize, Serialize};

use super::population::{Diameters, Role};
use super::selection::Threshold;

/// The settings of the experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    #[serde(rename = "world")]
    pub population: PopulationConfig,
    pub seeds: Seeds,
    pub gate: Gate,
    /// The training of all segmentors.
    pub segmentation: SegmentationConfig,
    /// The training of the quality segmentor and the held-out segmentor.
    #[serde(rename = "judges")]
    pub quality: QualitySegmentors,
    /// The training of generators; `segmentor.weights` is set to the quality segmentor.
    pub synthesis: SynthesisConfig,
    /// Sites, sizes and shapes of synthetic tumors of all pools.
    pub shapes: RulesConfig,
    pub pool: PoolConfig,
    pub arms: Vec<Arm>,
    /// The comparisons of [`PRIMARY`] for other filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Round>,
    /// Further differences to report.
    pub secondary: Vec<[String; 2]>,
    /// Number of resamples of every interval.
    pub resamples: usize,
}

/// The population of patients, and the number of patients of each role.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PopulationConfig {
    pub seed: u64,
    pub shape: [usize; 3],
    pub spacing_mm: f64,
    pub noise: f64,
    pub diameters: Diameters,
    /// Real scans instead of phantoms; `shape` and `noise` are then not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scans: Vec<RealScan>,
    pub labeled: usize,
    pub unlabeled: usize,
    pub validation: usize,
    pub test: usize,
    pub healthy: usize,
}

/// A real scan into whose liver tumors are put.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealScan {
    /// A NIfTI file or the folder of a DICOM series, relative to the working directory.
    pub image: PathBuf,
    /// A NIfTI file, on any grid.
    pub labels: PathBuf,
    /// The id of the liver in the labels.
    pub liver: u16,
    /// Standard deviation of a Gaussian smoothing that simulates a softer kernel [default: 0].
    #[serde(default)]
    pub softened_mm: f64,
    /// The roles whose patients have this scan.
    pub roles: Vec<Role>,
}

/// The seeds of the experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// Seeds for tuning settings.
    pub tuning: Vec<u64>,
    /// Seeds of the arms, in order; no other training uses them.
    pub arms: Vec<u64>,
    /// Seed of the generators.
    pub generator: u64,
    /// Seed of the pools and of random selections from them.
    pub pool: u64,
    /// Seed of the resamples.
    pub resamples: u64,
}

/// The conditions on the oracle before any arm is run, in percent of Dice on validation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Minimum Dice of the oracle.
    pub least_oracle_dsc: f64,
    /// Minimum difference between the oracle and real only.
    pub least_gap_dsc: f64,
    /// Whether the experiment stops if the conditions are not met; the quick form does not stop.
    pub stops: bool,
}

/// The training of the quality segmentor and the held-out segmentor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualitySegmentors {
    /// Seed of the quality segmentor, which generators are trained against and which filters.
    pub seed: u64,
    /// Seed of the held-out segmentor, which no generator is trained against.
    pub held_out_seed: u64,
    /// Width of the held-out segmentor, different from that of the quality segmentor.
    pub held_out_width: usize,
    pub steps: u64,
}

/// Both primary comparisons for another filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// The filter and how it was chosen, for the report.
    pub filter: String,
    /// Filtered tumors against real tumors only, and against as many tumors of the same sizes.
    pub differences: [[String; 2]; 2],
}

/// A scored pool of candidates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Tumors to make in each unlabeled scan; a few more than required, as some have no site.
    pub variants: u32,
    /// Candidates in the pool.
    pub candidates: usize,
    /// Range of factors on the contrast of generated tumors.
    pub strength: [f64; 2],
    /// Whether generated tumors have necrotic cores and rims.
    pub structure: bool,
}

/// The synthesis of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    Rules,
    Generator,
    /// A generator that was trained without unlabeled scans.
    GeneratorLabeledOnly,
}

impl PoolKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Generator => "generator",
            Self::GeneratorLabeledOnly => "generator_labeled_only",
        }
    }
}

/// The training data of an arm in addition to the labeled scans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TumorSelection {
    /// No other data: the tumors of the labeled scans replace synthetic ones.
    None,
    /// The unlabeled scans with labeled livers, without synthetic tumors.
    Scans,
    /// A complete pool.
    Pool { from: PoolKind },
    /// The candidates of a pool that pass.
    Filtered { from: PoolKind, at: Threshold },
    /// As many random candidates as pass.
    ThinnedToCount { from: PoolKind, at: Threshold },
    /// As many random candidates as pass, with the same sizes.
    ThinnedToSizes { from: PoolKind, at: Threshold },
    /// The candidates that pass, with their labels but without their change in HU.
    ZeroContrast { from: PoolKind, at: Threshold },
    /// Tumors made during the training, each with several attempts until one passes.
    Fresh {
        from: PoolKind,
        above: f64,
        #[serde(rename = "tries")]
        attempts: u32,
    },
    /// The labeled real tumors of the unlabeled scans.
    Oracle,
}

impl TumorSelection {
    /// Returns the synthesis that makes the tumors; `None` for other data.
    pub fn pool_kind(&self) -> Option<PoolKind> {
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

    /// Returns the threshold of the filter, which determines the selected candidates or their number.
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

/// One training configuration with one or several seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    pub name: String,
    /// The number of seeds, the first ones of `seeds.arms`.
    pub seeds: usize,
    pub tumors: TumorSelection,
}

/// One training of an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training<'a> {
    /// The index of the arm.
    pub arm_index: usize,
    pub arm: &'a Arm,
    /// The index of the seed in the arm.
    pub seed_index: usize,
    pub seed: u64,
}

/// The arms in the report.
pub const REAL_ONLY: &str = "real_only";
pub const FILTERED: &str = "filtered";
pub const THINNED: &str = "thinned_to_sizes";
pub const ORACLE: &str = "oracle";

/// The primary differences: the effect of filtered tumors, and the effect of the filter beyond count and sizes.
pub const PRIMARY: [[&str; 2]; 2] = [[FILTERED, REAL_ONLY], [FILTERED, THINNED]];

impl Experiment {
    /// Reads the settings.
    ///
    /// # Errors
    /// Returns an error that lists all errors in the settings.
    pub fn parse(text: &str) -> Result<Self> {
        let experiment: Self =
            toml::from_str(text).map_err(|cause| Error::new(format!("cannot parse the settings: {cause}")))?;
        let errors = experiment.errors();
        if errors.is_empty() { Ok(experiment) } else { Err(Error::new(errors.join("\n"))) }
    }

    fn errors(&self) -> Vec<String> {
        let messages = |table: &str, errors: Vec<ConfigError>| {
            let messages = errors.into_iter().map(|error| format!("`{table}.{}`: {}", error.field, error.message));
            messages.collect::<Vec<_>>()
        };
        let mut all = messages("segmentation", self.segmentation.errors());
        all.extend(messages("synthesis", self.synthesis.errors()));
        if self.segmentation.preprocess != self.synthesis.preprocess {
            all.push("`synthesis.preprocess`: expected the value of `segmentation.preprocess`".to_owned());
        }
        let quality = [self.quality.seed, self.quality.held_out_seed];
        let used: BTreeSet<u64> = self.seeds.tuning.iter().copied().chain(quality).collect();
        if let Some(seed) = self.seeds.arms.iter().find(|seed| used.contains(seed)) {
            all.push(format!("`seeds.arms`: expected seeds that no other training uses, got {seed}"));
        }
        if self.seeds.tuning.is_empty() {
            all.push("`seeds.tuning`: expected at least one, got none".to_owned());
        }
        let names: BTreeSet<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        if names.len() < self.arms.len() {
            all.push("`arms`: expected unique names".to_owned());
        }
        for arm in self.arms.iter().filter(|arm| arm.seeds == 0 || arm.seeds > self.seeds.arms.len()) {
            let max = self.seeds.arms.len();
            all.push(format!("arm `{}`: expected 1 to {max} seeds, got {}", arm.name, arm.seeds));
        }
        let others = self.secondary.iter().chain(self.rounds.iter().flat_map(|round| &round.differences));
        let compared = others.flatten().map(String::as_str).chain(PRIMARY.into_iter().flatten());
        for name in compared.chain([ORACLE]).collect::<BTreeSet<_>>() {
            if !names.contains(name) {
                all.push(format!("`arms`: expected an arm named `{name}`, which is in the report"));
            }
        }
        all
    }

    /// Returns the pool kinds of all arms.
    pub fn pool_kinds(&self) -> Vec<PoolKind> {
        pool_kinds(self.arms.iter())
    }

    /// Returns the trainings of all arms, or of the named arms, in order.
    pub fn trainings(&self, names: &[String]) -> Vec<Training<'_>> {
        let seeds = |arm: &Arm| self.seeds.arms.iter().take(arm.seeds).copied().enumerate();
        let arms = self.arms.iter().enumerate();
        let arms = arms.filter(|(_, arm)| names.is_empty() || names.contains(&arm.name));
        arms.flat_map(|(arm_index, arm)| {
            seeds(arm).map(move |(seed_index, seed)| Training { arm_index, arm, seed_index, seed })
        })
        .collect()
    }

    /// Returns the index of an arm.
    pub fn arm_index(&self, name: &str) -> Option<usize> {
        self.arms.iter().position(|arm| arm.name == name)
    }

    /// Returns a digest of all settings that affect networks: all settings except the arms and the contents of the report.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be serialized.
    pub fn digest(&self) -> Result<String> {
        let shared = Self { arms: Vec::new(), rounds: Vec::new(), secondary: Vec::new(), resamples: 0, ..self.clone() };
        Ok(FileDigest::of(&canonical::pretty(&shared)?).sha256)
    }

    /// Returns whether this experiment is `other`, possibly with further arms: the predictions of `other` stay valid if no arm is removed,
    /// changed, or has fewer seeds.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be serialized.
    pub fn extends(&self, other: &Self) -> Result<bool> {
        let is_kept = |old: &Arm| {
            let mut same = self.arms.iter().filter(|new| new.name == old.name);
            same.any(|new| new.tumors == old.tumors && new.seeds >= old.seeds)
        };
        Ok(self.digest()? == other.digest()? && other.arms.iter().all(is_kept))
    }
}

/// Returns the pool kinds of arms.
pub fn pool_kinds<'a>(arms: impl Iterator<Item = &'a Arm>) -> Vec<PoolKind> {
    arms.filter_map(|arm| arm.tumors.pool_kind()).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_files_are_valid() {
        for text in [super::super::FULL, super::super::QUICK] {
            let experiment = Experiment::parse(text).unwrap();
            assert_eq!(experiment.pool_kinds().len(), 3);
            assert!(experiment.segmentation.synthetic.is_some());
        }
        let scans = Experiment::parse(include_str!("scans.toml")).unwrap();
        let roles: BTreeSet<Role> = scans.population.scans.iter().flat_map(|scan| scan.roles.iter().copied()).collect();
        assert_eq!((roles.len(), scans.pool_kinds().len()), (Role::ALL.len(), 2));
        // No scan is both trained on and tested on.
        let is_split = |scan: &RealScan| {
            let is_trained = |role: &Role| matches!(role, Role::Labeled | Role::Unlabeled);
            scan.roles.iter().all(is_trained) || !scan.roles.iter().any(is_trained)
        };
        assert!(scans.population.scans.iter().all(is_split));
    }

    #[test]
    fn included_results_have_settings_of_files() {
        let results = [
            (super::super::FULL, include_str!("results/experiment.json")),
            (include_str!("scans.toml"), include_str!("results-scans/experiment.json")),
        ];
        for (settings, included) in results {
            let experiment = Experiment::parse(settings).unwrap();
            let settings = String::from_utf8(freetumor::store::canonical::pretty(&experiment).unwrap()).unwrap();
            assert!(
                settings == included,
                "the results have other settings than the file: {}",
                experiment.digest().unwrap()
            );
        }
    }

    #[test]
    fn only_added_arms_extend_an_experiment() {
        let quick = Experiment::parse(super::super::QUICK).unwrap();
        let other = |change: fn(&mut Experiment)| {
            let mut other = quick.clone();
            change(&mut other);
            other
        };
        let late = Arm { name: "late".to_owned(), seeds: 1, tumors: TumorSelection::Scans };
        let mut more = quick.clone();
        more.arms.insert(2, late);
        more.resamples += 1;
        assert!(more.extends(&quick).unwrap() && !quick.extends(&more).unwrap());
        assert!(!other(|experiment| experiment.arms[1].tumors = TumorSelection::Scans).extends(&quick).unwrap());
        assert!(!other(|experiment| experiment.arms[1].seeds = 0).extends(&quick).unwrap());
        assert!(!other(|experiment| experiment.segmentation.steps += 1).extends(&quick).unwrap());
    }

    #[test]
    fn seed_of_arm_that_another_training_uses_is_an_error() {
        let text = super::super::QUICK.replace("arms = [101]", "arms = [1]");
        let message = Experiment::parse(&text).unwrap_err().to_string();
        assert!(message.contains("expected seeds that no other training uses, got 1"), "{message}");
    }
}
