//! Digests of stages: hashes of everything that determines their results, and of nothing else.
//!
//! The digest of a stage covers its kind, its settings with defaults filled in, its weights and, for networks, the kernel class. The
//! name and the inputs of the stage, and settings for the number of tumors and samples (`variants`, `tumors_per_scan`, `negatives`,
//! `attempts`) or their organs (`organs`) are excluded, so that changing them does not change existing candidates. `salt` is a setting like
//! any other: it distinguishes two stages whose other settings are equal.

use serde_json::Value as Json;

use crate::filter::{QualityTest, ScoreSelection};
use crate::id::{FieldHasher, StageDigest};
use crate::inference::Inference;

/// Settings of any table that do not affect the results of a stage.
const EXCLUDED: [&str; 8] = [
    "variants",
    "tumors_per_scan",
    "negatives",
    "organs",
    "attempts",
    "time_limit_s",
    "memory_limit_mib",
    "scratch_limit_mib",
];

/// The digests of a stage: one for its results, one for its random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageDigests {
    /// Digest of everything that determines the stage's results, including the kernel class.
    pub results: StageDigest,
    /// Digest from which the random numbers are derived: as `results`, but without the kernel class, so that another processor makes the
    /// same tumors up to rounding.
    pub random: StageDigest,
    /// The digest `random` without steering: a calibration applies to candidates with this digest.
    pub unsteered: StageDigest,
}

/// Returns the digests of a stage with these settings; `version` identifies the algorithm or weights, such as `rules-1`.
pub(super) fn stage_digests(kind: &str, version: &str, settings: &Json, inference: Option<&Inference>) -> StageDigests {
    let mut settings = settings.clone();
    remove_excluded(&mut settings);
    let network = inference.map(|inference| inference.digest().to_owned()).unwrap_or_default();
    let hash =
        FieldHasher::new("stage").add_field(kind).add_field(version).add_field(settings.to_string()).add_field(network);
    let random = StageDigest::from_hash(&hash.clone().finish());
    if let Json::Object(table) = &mut settings {
        table.remove("steering_sha256");
    }
    let network = inference.map(|inference| inference.digest().to_owned()).unwrap_or_default();
    let unsteered =
        FieldHasher::new("stage").add_field(kind).add_field(version).add_field(settings.to_string()).add_field(network);
    let unsteered = StageDigest::from_hash(&unsteered.finish());
    let class = inference.map(Inference::kernel_class).unwrap_or_default();
    StageDigests { results: StageDigest::from_hash(&hash.add_field(class).finish()), random, unsteered }
}

/// Returns the digest of a quality test: a hash of its conditions, in their order, of the selection of scores on which reasons depend, and
/// of its calibration with the reference.
pub(super) fn test_digest(test: &QualityTest) -> StageDigest {
    let hash = FieldHasher::new("quality test");
    let mut hash = test.conditions().iter().fold(hash, |hash, condition| hash.add_field(condition.to_string()));
    if test.selection() == ScoreSelection::UntilRejected {
        hash = hash.add_field("until-rejected");
    }
    if let Some(calibration) = test.calibration() {
        // A reference that cannot be serialized was not read from a file.
        let digest = calibration.reference.as_ref().and_then(|reference| reference.digest().ok()).unwrap_or_default();
        hash = hash.add_field("calibrate").add_field(digest).add_field(calibration.floor.to_string());
    }
    StageDigest::from_hash(&hash.finish())
}

/// Removes settings that do not affect results, and sorts the rest. The path of a network's weights is removed too: their digest counts.
fn remove_excluded(settings: &mut Json) {
    if let Json::Object(table) = settings {
        table.retain(|name, _| !EXCLUDED.contains(&name.as_str()));
        for (name, value) in table.iter_mut() {
            remove_excluded(value);
            if let ("network", Json::Object(network)) = (name.as_str(), value) {
                network.remove("weights");
            }
        }
        table.remove("weights_sha256");
        // The digests of the factors and weights count, not the paths of their files.
        table.remove("steering");
        table.remove("folds");
    }
    settings.sort_all_objects();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(settings: &Json) -> StageDigest {
        stage_digests("rules", "rules-1", settings, None).results
    }

    #[test]
    fn digest_ignores_variants_and_organs() {
        let settings =
            json!({"variants": 2, "organs": ["liver"], "margin_mm": 1.0, "rules": {"variants": 3, "salt": ""}});
        let other = json!({"variants": 5, "tumors_per_scan": [1, 3], "negatives": 0.2, "organs": [], "margin_mm": 1.0, "rules": {"variants": 1, "salt": ""}});
        assert_eq!(digest(&settings), digest(&other));
    }

    #[test]
    fn digest_depends_on_settings_kind_and_version() {
        let settings = json!({"margin_mm": 1.0, "salt": ""});
        assert_ne!(digest(&settings), digest(&json!({"margin_mm": 2.0, "salt": ""})));
        assert_ne!(digest(&settings), digest(&json!({"margin_mm": 1.0, "salt": "second"})));
        assert_ne!(digest(&settings), stage_digests("rules", "rules-2", &settings, None).results);
        assert_ne!(digest(&settings), stage_digests("generator", "rules-1", &settings, None).results);
    }
}
