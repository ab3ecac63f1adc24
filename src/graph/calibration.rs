//! Checks that calibrated quality tests have the reference of their synthesis, their scores and its steering.

use super::edge::Role;
use super::file::Problems;
use super::known_nodes::KnownNodes;
use super::registry::{BuiltNode, Synthesis};
use crate::error::ConfigError;
use crate::filter::QualityTest;

/// Reports quality tests whose reference is not written yet or lacks an organ of a synthesis.
pub(super) fn references(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    for filter in known.with_role(Role::Filter) {
        let Some(BuiltNode::Filter(test)) = &known.nodes[filter] else { continue };
        let Some(calibration) = test.calibration() else { continue };
        let spec = &known.specs[filter];
        if let Some(ConfigError { field, message, hint }) = &calibration.problem {
            problems.error(spec.span_of(field), message.clone()).hint(hint.clone());
            continue;
        }
        let Some(reference) = &calibration.reference else {
            problems
                .error(
                    spec.span_of("calibrate.reference"),
                    "the reference of the calibration does not exist".to_owned(),
                )
                .label("expected a file of `freetumor calibrate`")
                .hint(
                    "write it with `freetumor calibrate PIPELINE --labeled FILE`, with a training file whose scans have labeled tumors"
                        .to_owned(),
                );
            continue;
        };
        for scorer in &reference.scorers {
            let mut stages = known.upstream(filter, Role::Score).filter_map(|score| match &known.nodes[score] {
                Some(BuiltNode::Score(scoring)) => Some((&known.specs[score].name, scoring)),
                _ => None,
            });
            let is_same =
                stages.any(|(name, scoring)| *name == scorer.stage && scoring.stage.weights() == scorer.weights_sha256);
            if !is_same {
                let name = &scorer.stage;
                problems
                    .error(
                        spec.span_of("calibrate.reference"),
                        format!("the reference was made with other weights in stage `{name}`"),
                    )
                    .label("real tumors and candidates must be scored by the same networks")
                    .hint("run `freetumor calibrate` again".to_owned());
            }
        }
        for synthesis in known.upstream(filter, Role::Synthesis) {
            let Some(BuiltNode::Synthesis(stage)) = &known.nodes[synthesis] else { continue };
            let name = &known.specs[synthesis].name;
            let digest = known.digests.get(&synthesis).map(|digests| digests.unsteered.to_string());
            if digest.is_some_and(|digest| digest != reference.synthesis) {
                problems
                    .error(
                        spec.span_of("calibrate.reference"),
                        format!("the reference was made with other settings of `{name}`"),
                    )
                    .label("accepted tumors would not be distributed as real ones")
                    .hint("run `freetumor calibrate` again".to_owned());
            }
            for organ in stage.organs.iter().filter(|organ| !reference.organs.contains_key(&organ.name)) {
                problems
                    .error(
                        spec.span_of("calibrate.reference"),
                        format!("the reference has no real tumors of the {}", organ.name),
                    )
                    .label(format!("expected the organs of `{}`", known.specs[synthesis].name))
                    .hint(
                        "run `freetumor calibrate` with scans with tumors of this organ, or use another quality test for it"
                            .to_owned(),
                    );
            }
        }
    }
}

/// Reports steered syntheses without a quality test that corrects for the steering.
pub(super) fn steering(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    for synthesis in known.with_role(Role::Synthesis) {
        let Some(BuiltNode::Synthesis(Synthesis { steering: Some(digest), .. })) = &known.nodes[synthesis] else {
            continue;
        };
        let corrects = |test: &QualityTest| {
            let reference = test.calibration().and_then(|calibration| calibration.reference.as_ref());
            reference.is_some_and(|reference| reference.steering_digest().is_ok_and(|own| own.as_ref() == Some(digest)))
        };
        let filters = known.with_role(Role::Filter).filter(|&filter| known.ancestors[filter].contains(&synthesis));
        for filter in filters {
            let Some(BuiltNode::Filter(test)) = &known.nodes[filter] else { continue };
            if corrects(test) {
                continue;
            }
            let (spec, name) = (&known.specs[filter], &known.specs[synthesis].name);
            let found = match test.calibration().and_then(|calibration| calibration.reference.as_ref()) {
                Some(_) => "a reference without this steering",
                None => "no reference",
            };
            problems
                .error(
                    spec.span.clone(),
                    format!("expected `{}` to correct for the steering of `{name}`, got {found}", spec.name),
                )
                .label("accepted tumors would have the sizes and contrasts of the steering")
                .hint(
                    "set `calibrate.reference` to the file of the setting `steering`, or remove `steering`".to_owned(),
                );
        }
    }
}
