//! Digests of stages: what decides their results, and nothing else.
//!
//! A stage's digest is taken over its kind, its settings with defaults filled in, its weights and, for networks, the kernel class. Its
//! name, its inputs, and settings that say how many tumors are asked for (`variants`, `attempts`) or in which organs (`organs`) are
//! left out, so that a change of these leaves the candidates that exist as they are. `salt` is a setting like any other: it tells two
//! stages of otherwise equal settings apart.

use serde_json::Value as Json;

use crate::filter::QualityTest;
use crate::id::{FieldHasher, StageDigest};
use crate::inference::Inference;

/// Settings of any table that decide no result of a stage.
const LEFT_OUT: [&str; 6] = ["variants", "organs", "attempts", "time_limit_s", "memory_limit_mib", "scratch_limit_mib"];

/// The digests of a stage: of what it computes, and of the numbers that it draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageDigests {
    /// Names the results.
    pub results: StageDigest,
    /// Keys the random numbers. Without the kernel class: another processor makes the same tumors up to rounding.
    pub random: StageDigest,
}

/// The digests of a stage with these settings; `version` names what it computes with, such as `rules-1`.
pub(super) fn stage_digests(kind: &str, version: &str, settings: &Json, viewer: Option<&Inference>) -> StageDigests {
    let mut settings = settings.clone();
    leave_out(&mut settings);
    let network = viewer.map(|viewer| viewer.digest().to_owned()).unwrap_or_default();
    let hash = FieldHasher::new("stage").field(kind).field(version).field(settings.to_string()).field(network);
    let random = StageDigest::from_hash(&hash.clone().finish());
    let class = viewer.map(Inference::kernel_class).unwrap_or_default();
    StageDigests { results: StageDigest::from_hash(&hash.field(class).finish()), random }
}

/// The digest of a quality test: its conditions, in their order.
pub(super) fn test_digest(test: &QualityTest) -> StageDigest {
    let hash = FieldHasher::new("quality test");
    let hash = test.conditions().iter().fold(hash, |hash, condition| hash.field(condition.to_string()));
    StageDigest::from_hash(&hash.finish())
}

/// Removes what decides no result, and sorts the rest. The path of a network's weights is left out, too: their digest counts.
fn leave_out(settings: &mut Json) {
    if let Json::Object(table) = settings {
        table.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
        for (name, value) in table.iter_mut() {
            leave_out(value);
            if let ("network", Json::Object(network)) = (name.as_str(), value) {
                network.remove("weights");
            }
        }
        table.remove("weights_sha256");
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
    fn numbers_of_tumors_and_organs_leave_the_digest_unchanged() {
        let settings =
            json!({"variants": 2, "organs": ["liver"], "margin_mm": 1.0, "rules": {"variants": 3, "salt": ""}});
        let other = json!({"variants": 5, "organs": [], "margin_mm": 1.0, "rules": {"variants": 1, "salt": ""}});
        assert_eq!(digest(&settings), digest(&other));
    }

    #[test]
    fn other_settings_and_kinds_change_the_digest() {
        let settings = json!({"margin_mm": 1.0, "salt": ""});
        assert_ne!(digest(&settings), digest(&json!({"margin_mm": 2.0, "salt": ""})));
        assert_ne!(digest(&settings), digest(&json!({"margin_mm": 1.0, "salt": "second"})));
        assert_ne!(digest(&settings), stage_digests("rules", "rules-2", &settings, None).results);
        assert_ne!(digest(&settings), stage_digests("generator", "rules-1", &settings, None).results);
    }
}
