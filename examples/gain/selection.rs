//! Which candidates of a scored pool an arm is trained on. Nothing here looks at files or clocks: the same pool, threshold
//! and key give the same tumors, in whatever order the pool comes.

use std::collections::BTreeMap;

use freetumor::error::ConfigError;
use freetumor::filter::Condition;
use freetumor::random::Key;
use freetumor::score::{Score, Scores};
use serde::{Deserialize, Serialize};

/// Sizes within one bin differ by less than this factor.
const BIN_RATIO: f64 = 1.1;

/// A candidate as its row in the table has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The sample's id.
    pub id: String,
    /// Diameter of the ball of its volume.
    pub diameter_mm: f64,
    /// What was found out about it.
    pub scores: Scores,
}

impl Scored {
    /// A score; not a number where nobody gave it.
    pub fn score(&self, score: Score) -> f64 {
        self.scores.get(score).unwrap_or(f64::NAN)
    }
}

/// What a candidate has to reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Threshold {
    /// A found fraction above a number: the paper's test is 0.7.
    Above(f64),
    /// To be among the best: by found fraction, then by probability.
    Best {
        /// The share of the pool that is.
        best_share: f64,
    },
    /// Conditions, as the quality test of a pipeline has them.
    Accept {
        /// All of them have to hold.
        accept: Vec<Accepted>,
    },
}

/// A condition, written as in a graph file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Accepted(Condition);

impl TryFrom<String> for Accepted {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|complaint: ConfigError| complaint.message)
    }
}

impl From<Accepted> for String {
    fn from(Accepted(condition): Accepted) -> Self {
        condition.to_string()
    }
}

/// A pool cut down to `count` candidates, each as likely as the other, so that pools are of one size.
pub fn cut_to(pool: Vec<Scored>, count: usize, key: Key) -> Vec<Scored> {
    let mut kept = drawn(&pool.iter().collect::<Vec<_>>(), count, key.with("selection", "cut"));
    kept.sort();
    pool.into_iter().filter(|candidate| kept.binary_search(&candidate.id).is_ok()).collect()
}

/// The candidates that pass, sorted by id.
pub fn filtered(pool: &[Scored], threshold: &Threshold) -> Vec<String> {
    let ids = |passes: &dyn Fn(&Scored) -> bool| {
        pool.iter().filter(|candidate| passes(candidate)).map(|candidate| candidate.id.clone()).collect()
    };
    let mut passed: Vec<String> = match threshold {
        Threshold::Above(least) => ids(&|candidate| candidate.score(Score::FoundFraction) > *least),
        Threshold::Accept { accept } => {
            ids(&|candidate| accept.iter().all(|Accepted(condition)| condition.holds(&candidate.scores)))
        }
        Threshold::Best { best_share } => {
            let count = (best_share.clamp(0.0, 1.0) * pool.len() as f64).round() as usize;
            let mut best: Vec<&Scored> = pool.iter().collect();
            best.sort_by(|a, b| {
                // What was not looked at was not found.
                let found = |it: &Scored| it.score(Score::FoundFraction).max(f64::NEG_INFINITY);
                let sure = |it: &Scored| it.score(Score::TumorProbability);
                let by_found = found(b).total_cmp(&found(a));
                by_found.then(sure(b).total_cmp(&sure(a))).then_with(|| a.id.cmp(&b.id))
            });
            best.into_iter().take(count).map(|candidate| candidate.id.clone()).collect()
        }
    };
    passed.sort();
    passed
}

/// As many candidates as `passed` has, each as likely as the other, sorted by id.
pub fn thinned_to_count(pool: &[Scored], passed: &[String], key: Key) -> Vec<String> {
    let all: Vec<&Scored> = pool.iter().collect();
    let mut kept = drawn(&all, passed.len(), key.with("selection", "count"));
    kept.sort();
    kept
}

/// As many candidates of every size as `passed` has, within a size each as likely as the other, sorted by id.
///
/// `passed` is part of the pool, so no size can run short.
pub fn thinned_to_sizes(pool: &[Scored], passed: &[String], key: Key) -> Vec<String> {
    let mut bins: BTreeMap<i64, (Vec<&Scored>, usize)> = BTreeMap::new();
    for candidate in pool {
        let (all, wanted) = bins.entry(bin_of(candidate.diameter_mm)).or_default();
        all.push(candidate);
        *wanted += usize::from(passed.binary_search(&candidate.id).is_ok());
    }
    let key = key.with("selection", "sizes");
    let mut kept: Vec<String> = bins.into_values().flat_map(|(all, wanted)| drawn(&all, wanted, key)).collect();
    kept.sort();
    kept
}

/// The bin of a diameter.
fn bin_of(diameter_mm: f64) -> i64 {
    (diameter_mm.max(1e-3).ln() / BIN_RATIO.ln()).floor() as i64
}

/// `count` of some candidates: those whose own numbers, keyed by their ids, are smallest.
fn drawn(candidates: &[&Scored], count: usize, key: Key) -> Vec<String> {
    let rank = |candidate: &&Scored| (key.with("candidate", &candidate.id).draws("rank").bits(), candidate.id.clone());
    let mut ranked: Vec<(u64, String)> = candidates.iter().map(rank).collect();
    ranked.sort();
    ranked.into_iter().take(count).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool in which large tumors pass more often, as a filter's may.
    fn pool() -> Vec<Scored> {
        let mut draws = Key::root(5).draws("pool");
        let candidate = |at: usize| {
            let diameter_mm = draws.uniform(5.0, 35.0);
            let mut scores = Scores::default();
            scores.set(Score::FoundFraction, (diameter_mm / 35.0 + draws.uniform(-0.3, 0.3)).clamp(0.0, 1.0));
            scores.set(Score::TumorProbability, draws.uniform(0.0, 1.0));
            if !at.is_multiple_of(3) {
                scores.set(Score::InvisibleFraction, draws.uniform(0.0, 1.0));
            }
            Scored { id: format!("{:04x}", at * 7919 % 65536), diameter_mm, scores }
        };
        (0..2000).map(candidate).collect()
    }

    fn found(candidate: &Scored) -> f64 {
        candidate.score(Score::FoundFraction)
    }

    fn sizes(pool: &[Scored], ids: &[String]) -> BTreeMap<i64, usize> {
        let mut bins = BTreeMap::new();
        for candidate in pool.iter().filter(|candidate| ids.contains(&candidate.id)) {
            *bins.entry(bin_of(candidate.diameter_mm)).or_default() += 1;
        }
        bins
    }

    fn mean(pool: &[Scored], ids: &[String], of: fn(&Scored) -> f64) -> f64 {
        let chosen: Vec<f64> = pool.iter().filter(|it| ids.contains(&it.id)).map(of).collect();
        chosen.iter().sum::<f64>() / chosen.len() as f64
    }

    #[test]
    fn the_filter_is_strict_and_the_best_are_as_many_as_asked_for() {
        let mut pool = pool();
        pool[0].scores.set(Score::FoundFraction, 0.7);
        let passed = filtered(&pool, &Threshold::Above(0.7));
        assert!(!passed.contains(&pool[0].id) && passed.len() > 200);
        assert!(pool.iter().all(|it| passed.contains(&it.id) == (found(it) > 0.7)));
        let best = filtered(&pool, &Threshold::Best { best_share: 0.25 });
        let least = pool.iter().filter(|it| best.contains(&it.id)).map(found).fold(1.0, f64::min);
        assert_eq!(best.len(), 500);
        assert!(pool.iter().all(|it| best.contains(&it.id) || found(it) <= least));
    }

    #[test]
    fn conditions_are_those_of_a_pipeline() {
        let read: BTreeMap<String, Threshold> =
            toml::from_str(r#"at = { accept = ["invisible_fraction < 0.5", "found_fraction <= 0.5"] }"#).unwrap();
        let (pool, invisible) = (pool(), |it: &Scored| it.score(Score::InvisibleFraction));
        let passed = filtered(&pool, &read["at"]);
        assert!(passed.len() > 100, "{}", passed.len());
        // What nobody gave holds no condition.
        let passes = |it: &Scored| invisible(it) < 0.5 && found(it) <= 0.5;
        assert!(pool.iter().all(|it| passed.contains(&it.id) == passes(it)));
        assert!(toml::to_string(&read).unwrap().contains(r#""invisible_fraction < 0.5""#));
        for wrong in [r#"at = { accept = ["size < 5"] }"#, r#"at = { accept = [], diameter_mm = 15.0 }"#] {
            assert!(toml::from_str::<BTreeMap<String, Threshold>>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn thinned_pools_have_the_count_and_one_has_the_sizes() {
        let (pool, key) = (pool(), Key::root(1));
        let passed = filtered(&pool, &Threshold::Above(0.7));
        let (count, size) = (thinned_to_count(&pool, &passed, key), thinned_to_sizes(&pool, &passed, key));
        assert_eq!([count.len(), size.len()], [passed.len(); 2]);
        assert_eq!(sizes(&pool, &size), sizes(&pool, &passed));
        let diameter = |ids: &[String]| mean(&pool, ids, |it| it.diameter_mm);
        assert!((diameter(&size) - diameter(&passed)).abs() < 0.2);
        assert!(diameter(&passed) - diameter(&count) > 3.0, "the filter prefers large tumors");
        // What the filter looks at is not kept: that is what the arm is for.
        let found = |ids: &[String]| mean(&pool, ids, found);
        assert!(found(&passed) - found(&size) > 0.02);
    }

    #[test]
    fn what_is_drawn_follows_from_the_key_alone() {
        let pool = pool();
        let mut turned = pool.clone();
        turned.reverse();
        let passed = filtered(&pool, &Threshold::Above(0.7));
        assert_eq!(passed, filtered(&turned, &Threshold::Above(0.7)));
        let sizes = |pool: &[Scored], seed| thinned_to_sizes(pool, &passed, Key::root(seed));
        assert_eq!(sizes(&pool, 3), sizes(&turned, 3));
        assert_ne!(sizes(&pool, 3), sizes(&pool, 4));
        let cut = |pool: &[Scored]| cut_to(pool.to_vec(), 100, Key::root(3)).into_iter().map(|it| it.id);
        let (mut one, mut other): (Vec<_>, Vec<_>) = (cut(&pool).collect(), cut(&turned).collect());
        one.sort();
        other.sort();
        assert_eq!((one.len(), &one), (100, &other));
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        assert!(filtered(&[], &Threshold::Best { best_share: 1.0 }).is_empty());
        assert!(thinned_to_sizes(&pool(), &[], Key::root(1)).is_empty());
    }
}
