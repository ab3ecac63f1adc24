//! The arms: what each is trained on, and its trainings.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use freetumor::error::{Error, Result};
use freetumor::random::Key;
use freetumor::score::Score;
use freetumor::store::FileDigest;
use freetumor::train::data::Cases;
use freetumor::train::segmentation::Synthetic;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::{Arm, Maker, Tumors};
use super::data_set::{self, Scans};
use super::fresh;
use super::lab::{Lab, say};
use super::pools::{self, Pool};
use super::segmentors::{JUDGE, Recipe, digest, generator_weights, real_only, train, weights};
use super::selection::{Scored, Threshold, filtered, thinned_to_count, thinned_to_sizes};

/// What an arm was trained on, for the report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Made {
    /// Synthetic tumors to choose from; absent where they are fresh, or there are none.
    pub tumors: Option<usize>,
    /// Those of the pool that they were taken from.
    pub of: Option<usize>,
    /// Those that the arm's filter lets pass: all of a filtered arm's, and of a thinned one's those that both share.
    pub passing: Option<usize>,
    pub mean_diameter_mm: Option<f64>,
    pub mean_delta_hu: Option<f64>,
    pub mean_found_fraction: Option<f64>,
    pub mean_held_out_found_fraction: Option<f64>,
    /// Which, as a digest of their ids.
    pub ids_sha256: Option<String>,
}

/// The name of a training of an arm.
pub fn training(arm: &str, seed: u64) -> String {
    format!("arms/{arm}-{seed}")
}

/// Where it is said what a training was given.
pub fn made_at(lab: &Lab, arm: &str, seed: u64) -> PathBuf {
    lab.out.join("chosen").join(format!("{arm}-{seed}.json"))
}

/// The samples of a pool that an arm takes; `seed` decides what is drawn.
pub fn chosen(tumors: &Tumors, pool: &[Scored], seed: u64) -> Vec<String> {
    let key = Key::root(seed).with("gain", "selection");
    match tumors {
        Tumors::Pool { .. } => {
            let mut all: Vec<String> = pool.iter().map(|candidate| candidate.id.clone()).collect();
            all.sort();
            all
        }
        Tumors::Filtered { at, .. } | Tumors::ZeroContrast { at, .. } => filtered(pool, at),
        Tumors::ThinnedToCount { at, .. } => thinned_to_count(pool, &filtered(pool, at), key),
        Tumors::ThinnedToSizes { at, .. } => thinned_to_sizes(pool, &filtered(pool, at), key),
        Tumors::None | Tumors::Scans | Tumors::Fresh { .. } | Tumors::Oracle => Vec::new(),
    }
}

/// The scans and pools that arms are trained on, each read when it is first needed.
pub struct Arms<'a> {
    lab: &'a Lab,
    labeled: Scans,
    unlabeled: Scans,
    pools: Mutex<BTreeMap<Maker, Arc<Pool>>>,
}

impl<'a> Arms<'a> {
    /// # Errors
    /// Returns an error if the world cannot be read.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let (labeled, unlabeled) = (data_set::scans(lab, "training")?, data_set::scans(lab, "unlabeled")?);
        Ok(Self { lab, labeled, unlabeled, pools: Mutex::default() })
    }

    /// Trains an arm with a seed, unless that is done.
    ///
    /// # Errors
    /// Returns an error if it cannot be trained.
    pub fn train(&self, arm: &Arm, seed: u64, name: String, validation: Option<&Scans>) -> Result<PathBuf> {
        let lab = self.lab;
        let done = weights(lab, &name);
        if done.exists() {
            return Ok(done);
        }
        let (real, synthetic, beside) = self.data(arm, seed)?;
        let config = match synthetic.is_empty() {
            true => real_only(lab),
            false => lab.experiment.segmentation.clone(),
        };
        let validation = validation.map(|scans| Arc::clone(&scans.cases));
        train(lab, Recipe { name, config, seed, real, synthetic, validation, beside })
    }

    fn pool(&self, maker: Maker) -> Result<Arc<Pool>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(match pools.entry(maker) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(Arc::new(pools::read(self.lab, maker)?)),
        }))
    }

    /// What an arm is trained on.
    fn data(&self, arm: &Arm, seed: u64) -> Result<(Arc<Cases>, Vec<Synthetic>, Value)> {
        let lab = self.lab;
        let labeled = Arc::clone(&self.labeled.cases);
        let none = Made::default();
        match (&arm.tumors, arm.tumors.maker()) {
            (Tumors::Oracle, _) => {
                // Real tumors of other patients, marked, take the place that synthetic ones have in other arms.
                let shown = data_set::with_tumors(lab, &data_set::unlabeled_with_truth(lab)?)?;
                let beside = json!({ "arm": arm.tumors, "patients_with_tumors": shown.len() });
                lab.write_json(&made_at(lab, &arm.name, seed), &none)?;
                Ok((labeled, vec![Synthetic::Pool(shown)], beside))
            }
            (Tumors::Fresh { above, tries, .. }, Some(maker)) => {
                let plan = pools::planned(lab, maker, &lab.registry())?;
                let tumors = fresh::tumors(&plan, *above, *tries)?;
                let cases = Arc::clone(&self.unlabeled.cases);
                let judge = digest(&weights(lab, JUDGE))?;
                let generator = match maker {
                    Maker::Rules => None,
                    maker => Some(digest(&generator_weights(lab, maker))?),
                };
                let beside = json!({ "arm": arm.tumors, "judge": judge, "generator": generator });
                lab.write_json(&made_at(lab, &arm.name, seed), &none)?;
                Ok((labeled, vec![Synthetic::Fresh { cases, tumors }], beside))
            }
            (tumors, Some(maker)) => {
                let pool = &*self.pool(maker)?;
                let ids = chosen(tumors, &pool.scored, seed);
                if ids.is_empty() {
                    return Err(Error::new(format!(
                        "no candidate of pool {} passes for arm {}",
                        maker.name(),
                        arm.name
                    ))
                    .with_hint("the judging segmentor finds none of them: look at found_fraction in its table"));
                }
                let said = summary(&pool.scored, &ids, tumors);
                say(&format!("{}, seed {seed}: {} tumors", arm.name, ids.len()));
                let mut made = pools::tumors(lab, maker, pool, &ids, &self.unlabeled)?;
                if matches!(tumors, Tumors::ZeroContrast { .. }) {
                    made.iter_mut().for_each(|(_, candidate)| candidate.after = candidate.before.clone());
                }
                let beside = json!({ "arm": arm.tumors, "ids_sha256": said.ids_sha256 });
                lab.write_json(&made_at(lab, &arm.name, seed), &said)?;
                let cases = Arc::clone(&self.unlabeled.cases);
                Ok((labeled, vec![Synthetic::Made { cases, tumors: made.into() }], beside))
            }
            (Tumors::Scans, _) => {
                lab.write_json(&made_at(lab, &arm.name, seed), &none)?;
                let scans = Arc::clone(&self.unlabeled.cases);
                Ok((labeled, vec![Synthetic::Pool(scans)], json!({ "arm": arm.tumors })))
            }
            (_, None) => {
                // The labeled scans' own tumors once more: as many crops show a tumor as in every other arm.
                let shown = data_set::with_tumors(lab, &self.labeled)?;
                let beside = json!({ "arm": arm.tumors, "patients_with_tumors": shown.len() });
                lab.write_json(&made_at(lab, &arm.name, seed), &none)?;
                Ok((labeled, vec![Synthetic::Pool(shown)], beside))
            }
        }
    }
}

/// What some samples of a pool are like.
fn summary(pool: &[Scored], ids: &[String], tumors: &Tumors) -> Made {
    let passing = |at: &Threshold| filtered(pool, at).iter().filter(|id| ids.binary_search(id).is_ok()).count();
    let kept: Vec<&Scored> = pool.iter().filter(|it| ids.binary_search(&it.id).is_ok()).collect();
    let mean = |of: &dyn Fn(&Scored) -> f64| {
        let values: Vec<f64> = kept.iter().map(|candidate| of(candidate)).filter(|value| value.is_finite()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    Made {
        tumors: Some(kept.len()),
        of: Some(pool.len()),
        passing: tumors.threshold().map(passing),
        mean_diameter_mm: mean(&|it| it.diameter_mm),
        mean_delta_hu: mean(&|it| it.score(Score::DeltaHu)),
        mean_found_fraction: mean(&|it| it.score(Score::FoundFraction)),
        mean_held_out_found_fraction: mean(&|it| it.score(Score::HeldOutFoundFraction)),
        ids_sha256: Some(FileDigest::of(ids.join("\n").as_bytes()).sha256),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Maker;
    use freetumor::score::Scores;

    use super::*;

    #[test]
    fn what_is_chosen_is_told_beside_what_passes() {
        let candidate = |id: &str, found_fraction: f64| {
            let mut scores = Scores::default();
            scores.set(Score::FoundFraction, found_fraction);
            scores.set(Score::DeltaHu, -30.0);
            Scored { id: id.to_owned(), diameter_mm: 10.0 * found_fraction, scores }
        };
        let pool = [candidate("a", 0.8), candidate("b", 0.9), candidate("c", 0.6), candidate("d", 0.1)];
        let thinned = Tumors::ThinnedToCount { from: Maker::Generator, at: Threshold::Above(0.7) };
        let made = summary(&pool, &["b".to_owned(), "c".to_owned()], &thinned);
        assert_eq!((made.tumors, made.of, made.passing), (Some(2), Some(4), Some(1)));
        assert!((made.mean_diameter_mm.unwrap() - 7.5).abs() < 1e-12);
        assert_eq!((made.mean_delta_hu, made.mean_held_out_found_fraction), (Some(-30.0), None));
        assert_eq!(summary(&pool, &["b".to_owned()], &Tumors::Pool { from: Maker::Generator }).passing, None);
    }
}
