//! The arms: their training data and their trainings.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use freetumor::error::{Error, Result};
use freetumor::random::Key;
use freetumor::score::Score;
use freetumor::store::FileDigest;
use freetumor::train::data::Cases;
use freetumor::train::segmentation::SyntheticSource;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::{Arm, PoolKind, TumorSelection};
use super::data_set::{self, Scans};
use super::fresh;
use super::pools::{self, Pool};
use super::segmentors::{QUALITY, SegmentorTraining, digest, generator_weights, real_only, train, weights};
use super::selection::{ScoredCandidate, Threshold, filter_pool, thin_to_count, thin_to_sizes};
use super::workspace::{Workspace, print_status};

/// The synthetic tumors of an arm, for the report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ArmData {
    /// The number of synthetic tumors; `None` if there are none, or if they are made during the training.
    pub tumors: Option<usize>,
    /// The number of tumors in the pool.
    pub of: Option<usize>,
    /// The number of tumors that pass the filter of the arm: all of a filtered arm, and those of a thinned arm that are also in the
    /// filtered arm.
    pub passing: Option<usize>,
    pub mean_diameter_mm: Option<f64>,
    pub mean_delta_hu: Option<f64>,
    pub mean_found_fraction: Option<f64>,
    pub mean_held_out_found_fraction: Option<f64>,
    /// A digest of the ids of the tumors.
    pub ids_sha256: Option<String>,
}

/// Returns the name of a training of an arm.
pub fn training(arm: &str, seed: u64) -> String {
    format!("arms/{arm}-{seed}")
}

/// Returns the path of the file that describes the data of a training.
pub fn arm_data_path(workspace: &Workspace, arm: &str, seed: u64) -> PathBuf {
    workspace.out.join("chosen").join(format!("{arm}-{seed}.json"))
}

/// Selects the samples of a pool for an arm; `seed` determines the random selection.
pub fn select(tumors: &TumorSelection, pool: &[ScoredCandidate], seed: u64) -> Vec<String> {
    let key = Key::root(seed).with("gain", "selection");
    match tumors {
        TumorSelection::Pool { .. } => {
            let mut all: Vec<String> = pool.iter().map(|candidate| candidate.id.clone()).collect();
            all.sort();
            all
        }
        TumorSelection::Filtered { at, .. } | TumorSelection::ZeroContrast { at, .. } => filter_pool(pool, at),
        TumorSelection::ThinnedToCount { at, .. } => thin_to_count(pool, &filter_pool(pool, at), key),
        TumorSelection::ThinnedToSizes { at, .. } => thin_to_sizes(pool, &filter_pool(pool, at), key),
        TumorSelection::None | TumorSelection::Scans | TumorSelection::Fresh { .. } | TumorSelection::Oracle => {
            Vec::new()
        }
    }
}

/// The scans and pools of the arms, each read on first use.
pub struct Arms<'a> {
    workspace: &'a Workspace,
    labeled: Scans,
    unlabeled: Scans,
    pools: Mutex<BTreeMap<PoolKind, Arc<Pool>>>,
}

impl<'a> Arms<'a> {
    /// Reads the scans of the population.
    ///
    /// # Errors
    /// Returns an error if the population cannot be read.
    pub fn new(workspace: &'a Workspace) -> Result<Self> {
        let (labeled, unlabeled) = (data_set::scans(workspace, "training")?, data_set::scans(workspace, "unlabeled")?);
        Ok(Self { workspace, labeled, unlabeled, pools: Mutex::default() })
    }

    /// Trains an arm with a seed, unless the training is finished.
    ///
    /// # Errors
    /// Returns an error if the training fails.
    pub fn train(&self, arm: &Arm, seed: u64, name: String, validation: Option<&Scans>) -> Result<PathBuf> {
        let workspace = self.workspace;
        let done = weights(workspace, &name);
        if done.exists() {
            return Ok(done);
        }
        let (real, synthetic, inputs) = self.data(arm, seed)?;
        let config = match synthetic.is_empty() {
            true => real_only(workspace),
            false => workspace.experiment.segmentation.clone(),
        };
        let validation = validation.map(|scans| Arc::clone(&scans.cases));
        train(workspace, SegmentorTraining { name, config, seed, real, synthetic, validation, inputs })
    }

    fn pool(&self, pool_kind: PoolKind) -> Result<Arc<Pool>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(match pools.entry(pool_kind) {
            Entry::Occupied(pool) => pool.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Arc::new(pools::read(self.workspace, pool_kind)?)),
        }))
    }

    /// Returns the real scans and the synthetic tumors of an arm, and a description of both.
    fn data(&self, arm: &Arm, seed: u64) -> Result<(Arc<Cases>, Vec<SyntheticSource>, Value)> {
        let workspace = self.workspace;
        let labeled = Arc::clone(&self.labeled.cases);
        let none = ArmData::default();
        match (&arm.tumors, arm.tumors.pool_kind()) {
            (TumorSelection::Oracle, _) => {
                // Labeled real tumors of other patients replace the synthetic tumors of other arms.
                let cases = data_set::cases_with_tumors(workspace, &data_set::unlabeled_with_truth(workspace)?)?;
                let inputs = json!({ "arm": arm.tumors, "patients_with_tumors": cases.len() });
                workspace.write_json(&arm_data_path(workspace, &arm.name, seed), &none)?;
                Ok((labeled, vec![SyntheticSource::Pool(cases)], inputs))
            }
            (TumorSelection::Fresh { above, attempts, .. }, Some(pool_kind)) => {
                let plan = pools::plan(workspace, pool_kind, &workspace.registry())?;
                let tumors = fresh::tumors(&plan, *above, *attempts)?;
                let cases = Arc::clone(&self.unlabeled.cases);
                let segmentor = digest(&weights(workspace, QUALITY))?;
                let generator = match pool_kind {
                    PoolKind::Rules => None,
                    pool_kind => Some(digest(&generator_weights(workspace, pool_kind))?),
                };
                let inputs = json!({ "arm": arm.tumors, "judge": segmentor, "generator": generator });
                workspace.write_json(&arm_data_path(workspace, &arm.name, seed), &none)?;
                Ok((labeled, vec![SyntheticSource::Fresh { cases, tumors }], inputs))
            }
            (tumors, Some(pool_kind)) => {
                let pool = &*self.pool(pool_kind)?;
                let ids = select(tumors, &pool.scored, seed);
                if ids.is_empty() {
                    return Err(Error::new(format!(
                        "expected candidates of pool {} that pass for arm {}, got none",
                        pool_kind.name(),
                        arm.name
                    ))
                    .with_hint("check `found_fraction` in the samples table of the pool: the quality segmentor finds none of the tumors"));
                }
                let data = summary(&pool.scored, &ids, tumors);
                print_status(&format!("{}, seed {seed}: {} tumors", arm.name, ids.len()));
                let mut candidates = pools::tumors(workspace, pool_kind, pool, &ids, &self.unlabeled)?;
                if matches!(tumors, TumorSelection::ZeroContrast { .. }) {
                    candidates.iter_mut().for_each(|(_, candidate)| candidate.after = candidate.before.clone());
                }
                let inputs = json!({ "arm": arm.tumors, "ids_sha256": data.ids_sha256 });
                workspace.write_json(&arm_data_path(workspace, &arm.name, seed), &data)?;
                let cases = Arc::clone(&self.unlabeled.cases);
                Ok((labeled, vec![SyntheticSource::Candidates { cases, tumors: candidates.into() }], inputs))
            }
            (TumorSelection::Scans, _) => {
                workspace.write_json(&arm_data_path(workspace, &arm.name, seed), &none)?;
                let scans = Arc::clone(&self.unlabeled.cases);
                Ok((labeled, vec![SyntheticSource::Pool(scans)], json!({ "arm": arm.tumors })))
            }
            (_, None) => {
                // The tumors of the labeled scans are used again, so that as many crops contain a tumor as in every other arm.
                let cases = data_set::cases_with_tumors(workspace, &self.labeled)?;
                let inputs = json!({ "arm": arm.tumors, "patients_with_tumors": cases.len() });
                workspace.write_json(&arm_data_path(workspace, &arm.name, seed), &none)?;
                Ok((labeled, vec![SyntheticSource::Pool(cases)], inputs))
            }
        }
    }
}

/// Summarizes the selected samples of a pool.
fn summary(pool: &[ScoredCandidate], ids: &[String], tumors: &TumorSelection) -> ArmData {
    let passing = |at: &Threshold| filter_pool(pool, at).iter().filter(|id| ids.binary_search(id).is_ok()).count();
    let selected: Vec<&ScoredCandidate> =
        pool.iter().filter(|candidate| ids.binary_search(&candidate.id).is_ok()).collect();
    let mean = |of: &dyn Fn(&ScoredCandidate) -> f64| {
        let values: Vec<f64> =
            selected.iter().map(|candidate| of(candidate)).filter(|value| value.is_finite()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    ArmData {
        tumors: Some(selected.len()),
        of: Some(pool.len()),
        passing: tumors.threshold().map(passing),
        mean_diameter_mm: mean(&|candidate| candidate.diameter_mm),
        mean_delta_hu: mean(&|candidate| candidate.score(Score::DeltaHu)),
        mean_found_fraction: mean(&|candidate| candidate.score(Score::FoundFraction)),
        mean_held_out_found_fraction: mean(&|candidate| candidate.score(Score::HeldOutFoundFraction)),
        ids_sha256: Some(FileDigest::of(ids.join("\n").as_bytes()).sha256),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::PoolKind;
    use freetumor::score::Scores;

    use super::*;

    #[test]
    fn summary_counts_selected_and_passing_candidates() {
        let candidate = |id: &str, found_fraction: f64| {
            let mut scores = Scores::default();
            scores.set(Score::FoundFraction, found_fraction);
            scores.set(Score::DeltaHu, -30.0);
            ScoredCandidate { id: id.to_owned(), diameter_mm: 10.0 * found_fraction, scores }
        };
        let pool = [candidate("a", 0.8), candidate("b", 0.9), candidate("c", 0.6), candidate("d", 0.1)];
        let thinned = TumorSelection::ThinnedToCount { from: PoolKind::Generator, at: Threshold::Above(0.7) };
        let data = summary(&pool, &["b".to_owned(), "c".to_owned()], &thinned);
        assert_eq!((data.tumors, data.of, data.passing), (Some(2), Some(4), Some(1)));
        assert!((data.mean_diameter_mm.unwrap() - 7.5).abs() < 1e-12);
        assert_eq!((data.mean_delta_hu, data.mean_held_out_found_fraction), (Some(-30.0), None));
        assert_eq!(
            summary(&pool, &["b".to_owned()], &TumorSelection::Pool { from: PoolKind::Generator }).passing,
            None
        );
    }
}
