//! The selection of candidates of a scored pool for an arm. The functions are pure: the same pool, threshold and key result in the same
//! tumors, in any order of the pool.

use std::collections::BTreeMap;

use freetumor::error::ConfigError;
use freetumor::filter::Condition;
use freetumor::random::Key;
use freetumor::score::{Score, Scores};
use serde::{Deserialize, Serialize};

/// Diameters in one bin differ by less than this factor.
const BIN_RATIO: f64 = 1.1;

/// A candidate with the values of its row in the samples table.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredCandidate {
    /// The id of the sample.
    pub id: String,
    /// The diameter of a ball of the same volume.
    pub diameter_mm: f64,
    /// The scores.
    pub scores: Scores,
}

impl ScoredCandidate {
    /// Returns a score; NaN if it was not computed.
    pub fn score(&self, score: Score) -> f64 {
        self.scores.get(score).unwrap_or(f64::NAN)
    }
}

/// The threshold of a filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Threshold {
    /// A found fraction above a number; 0.7 in the paper.
    Above(f64),
    /// The best candidates by found fraction, then by probability.
    Best {
        /// The share of the pool.
        best_share: f64,
    },
    /// Conditions as in the quality test of a pipeline.
    Accept {
        /// The conditions, all of which must be met.
        accept: Vec<AcceptCondition>,
    },
}

/// A condition that is serialized as in a graph file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AcceptCondition(Condition);

impl TryFrom<String> for AcceptCondition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: ConfigError| error.message)
    }
}

impl From<AcceptCondition> for String {
    fn from(AcceptCondition(condition): AcceptCondition) -> Self {
        condition.to_string()
    }
}

/// Selects `count` candidates of a pool at random, so that all pools have the same size.
pub fn limit_pool(pool: Vec<ScoredCandidate>, count: usize, key: Key) -> Vec<ScoredCandidate> {
    let mut selected = sample(&pool.iter().collect::<Vec<_>>(), count, key.with("selection", "cut"));
    selected.sort();
    pool.into_iter().filter(|candidate| selected.binary_search(&candidate.id).is_ok()).collect()
}

/// Returns the ids of the candidates that pass, sorted.
pub fn filter_pool(pool: &[ScoredCandidate], threshold: &Threshold) -> Vec<String> {
    let ids = |passes: &dyn Fn(&ScoredCandidate) -> bool| {
        pool.iter().filter(|candidate| passes(candidate)).map(|candidate| candidate.id.clone()).collect()
    };
    let mut passed: Vec<String> = match threshold {
        Threshold::Above(threshold) => ids(&|candidate| candidate.score(Score::FoundFraction) > *threshold),
        Threshold::Accept { accept } => {
            ids(&|candidate| accept.iter().all(|AcceptCondition(condition)| condition.holds(&candidate.scores)))
        }
        Threshold::Best { best_share } => {
            let count = (best_share.clamp(0.0, 1.0) * pool.len() as f64).round() as usize;
            let mut best: Vec<&ScoredCandidate> = pool.iter().collect();
            best.sort_by(|a, b| {
                // A candidate without a score is last.
                let found = |candidate: &ScoredCandidate| candidate.score(Score::FoundFraction).max(f64::NEG_INFINITY);
                let probability = |candidate: &ScoredCandidate| candidate.score(Score::TumorProbability);
                let by_found = found(b).total_cmp(&found(a));
                by_found.then(probability(b).total_cmp(&probability(a))).then_with(|| a.id.cmp(&b.id))
            });
            best.into_iter().take(count).map(|candidate| candidate.id.clone()).collect()
        }
    };
    passed.sort();
    passed
}

/// Selects as many candidates as in `passed` at random, and returns their ids, sorted.
pub fn thin_to_count(pool: &[ScoredCandidate], passed: &[String], key: Key) -> Vec<String> {
    let all: Vec<&ScoredCandidate> = pool.iter().collect();
    let mut selected = sample(&all, passed.len(), key.with("selection", "count"));
    selected.sort();
    selected
}

/// Selects as many candidates of every bin of sizes as in `passed` at random, and returns their ids, sorted.
///
/// `passed` is part of the pool, so that every bin has enough candidates.
pub fn thin_to_sizes(pool: &[ScoredCandidate], passed: &[String], key: Key) -> Vec<String> {
    let mut bins: BTreeMap<i64, (Vec<&ScoredCandidate>, usize)> = BTreeMap::new();
    for candidate in pool {
        let (all, count) = bins.entry(bin_of(candidate.diameter_mm)).or_default();
        all.push(candidate);
        *count += usize::from(passed.binary_search(&candidate.id).is_ok());
    }
    let key = key.with("selection", "sizes");
    let mut selected: Vec<String> = bins.into_values().flat_map(|(all, count)| sample(&all, count, key)).collect();
    selected.sort();
    selected
}

/// Returns the bin of a diameter.
fn bin_of(diameter_mm: f64) -> i64 {
    (diameter_mm.max(1e-3).ln() / BIN_RATIO.ln()).floor() as i64
}

/// Selects `count` candidates at random: those with the smallest random numbers, which are keyed by id.
fn sample(candidates: &[&ScoredCandidate], count: usize, key: Key) -> Vec<String> {
    let rank = |candidate: &&ScoredCandidate| {
        (key.with("candidate", &candidate.id).stream("rank").bits(), candidate.id.clone())
    };
    let mut ranked: Vec<(u64, String)> = candidates.iter().map(rank).collect();
    ranked.sort();
    ranked.into_iter().take(count).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a pool in which large tumors pass more often.
    fn pool() -> Vec<ScoredCandidate> {
        let mut random = Key::root(5).stream("pool");
        let candidate = |at: usize| {
            let diameter_mm = random.uniform(5.0, 35.0);
            let mut scores = Scores::default();
            scores.set(Score::FoundFraction, (diameter_mm / 35.0 + random.uniform(-0.3, 0.3)).clamp(0.0, 1.0));
            scores.set(Score::TumorProbability, random.uniform(0.0, 1.0));
            if !at.is_multiple_of(3) {
                scores.set(Score::InvisibleFraction, random.uniform(0.0, 1.0));
            }
            ScoredCandidate { id: format!("{:04x}", at * 7919 % 65536), diameter_mm, scores }
        };
        (0..2000).map(candidate).collect()
    }

    fn found(candidate: &ScoredCandidate) -> f64 {
        candidate.score(Score::FoundFraction)
    }

    fn sizes(pool: &[ScoredCandidate], ids: &[String]) -> BTreeMap<i64, usize> {
        let mut bins = BTreeMap::new();
        for candidate in pool.iter().filter(|candidate| ids.contains(&candidate.id)) {
            *bins.entry(bin_of(candidate.diameter_mm)).or_default() += 1;
        }
        bins
    }

    fn mean(pool: &[ScoredCandidate], ids: &[String], of: fn(&ScoredCandidate) -> f64) -> f64 {
        let values: Vec<f64> = pool.iter().filter(|candidate| ids.contains(&candidate.id)).map(of).collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn filter_pool_applies_thresholds() {
        let mut pool = pool();
        pool[0].scores.set(Score::FoundFraction, 0.7);
        let passed = filter_pool(&pool, &Threshold::Above(0.7));
        assert!(!passed.contains(&pool[0].id) && passed.len() > 200);
        assert!(pool.iter().all(|candidate| passed.contains(&candidate.id) == (found(candidate) > 0.7)));
        let best = filter_pool(&pool, &Threshold::Best { best_share: 0.25 });
        let lowest = pool.iter().filter(|candidate| best.contains(&candidate.id)).map(found).fold(1.0, f64::min);
        assert_eq!(best.len(), 500);
        assert!(pool.iter().all(|candidate| best.contains(&candidate.id) || found(candidate) <= lowest));
    }

    #[test]
    fn filter_pool_applies_conditions_of_pipelines() {
        let read: BTreeMap<String, Threshold> =
            toml::from_str(r#"at = { accept = ["invisible_fraction < 0.5", "found_fraction <= 0.5"] }"#).unwrap();
        let (pool, invisible) = (pool(), |candidate: &ScoredCandidate| candidate.score(Score::InvisibleFraction));
        let passed = filter_pool(&pool, &read["at"]);
        assert!(passed.len() > 100, "{}", passed.len());
        // A missing score meets no condition.
        let passes = |candidate: &ScoredCandidate| invisible(candidate) < 0.5 && found(candidate) <= 0.5;
        assert!(pool.iter().all(|candidate| passed.contains(&candidate.id) == passes(candidate)));
        assert!(toml::to_string(&read).unwrap().contains(r#""invisible_fraction < 0.5""#));
        for invalid in [r#"at = { accept = ["size < 5"] }"#, r#"at = { accept = [], diameter_mm = 15.0 }"#] {
            assert!(toml::from_str::<BTreeMap<String, Threshold>>(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn thinned_pools_have_count_and_sizes_of_filtered_pool() {
        let (pool, key) = (pool(), Key::root(1));
        let passed = filter_pool(&pool, &Threshold::Above(0.7));
        let (count, size) = (thin_to_count(&pool, &passed, key), thin_to_sizes(&pool, &passed, key));
        assert_eq!([count.len(), size.len()], [passed.len(); 2]);
        assert_eq!(sizes(&pool, &size), sizes(&pool, &passed));
        let diameter = |ids: &[String]| mean(&pool, ids, |candidate| candidate.diameter_mm);
        assert!((diameter(&size) - diameter(&passed)).abs() < 0.2);
        assert!(diameter(&passed) - diameter(&count) > 3.0, "the filter prefers large tumors");
        // The found fraction, by which the filter selects, is not matched.
        let found = |ids: &[String]| mean(&pool, ids, found);
        assert!(found(&passed) - found(&size) > 0.02);
    }

    #[test]
    fn selection_depends_on_key_and_not_on_order() {
        let pool = pool();
        let mut reversed = pool.clone();
        reversed.reverse();
        let passed = filter_pool(&pool, &Threshold::Above(0.7));
        assert_eq!(passed, filter_pool(&reversed, &Threshold::Above(0.7)));
        let sizes = |pool: &[ScoredCandidate], seed| thin_to_sizes(pool, &passed, Key::root(seed));
        assert_eq!(sizes(&pool, 3), sizes(&reversed, 3));
        assert_ne!(sizes(&pool, 3), sizes(&pool, 4));
        let cut = |pool: &[ScoredCandidate]| {
            limit_pool(pool.to_vec(), 100, Key::root(3)).into_iter().map(|candidate| candidate.id)
        };
        let (mut first, mut second): (Vec<_>, Vec<_>) = (cut(&pool).collect(), cut(&reversed).collect());
        first.sort();
        second.sort();
        assert_eq!((first.len(), &first), (100, &second));
    }

    #[test]
    fn selection_from_empty_input_is_empty() {
        assert!(filter_pool(&[], &Threshold::Best { best_share: 1.0 }).is_empty());
        assert!(thin_to_sizes(&pool(), &[], Key::root(1)).is_empty());
    }
}
