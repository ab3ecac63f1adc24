//! Checks that stages along the edges agree on organs, scores and windows.

use std::collections::BTreeSet;
use std::ops::Range;

use super::edge::Role;
use super::file::Problems;
use super::known_nodes::KnownNodes;
use super::registry::{BuiltNode, InputSpec, Synthesis};
use super::value::one_of;
use crate::filter::CalibratedScore;
use crate::mask::IGNORE_LABEL;
use crate::score::Score;
use crate::sink::Output;
use crate::suggest::did_you_mean;

/// Checks that an organ has the same ids in all label maps that are merged, and that no synthesis gets an organ of a scan twice.
pub(super) fn check_organs(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let mut reported = BTreeSet::new();
    for at in known.with_role(Role::Synthesis).chain(known.with_role(Role::Sink)) {
        let masks: Vec<usize> = known.upstream(at, Role::Mask).collect();
        for (index, &later) in masks.iter().enumerate() {
            for &earlier in &masks[..index] {
                if reported.insert((earlier, later)) {
                    check_ids(known, earlier, later, problems);
                }
                if known.wiring.roles[at] == Some(Role::Synthesis) {
                    check_duplicates(known, at, earlier, later, problems);
                }
            }
        }
    }
}

/// Reports conflicting ids of two masks whose label maps are written to the same files.
fn check_ids(known: &KnownNodes<'_, '_>, earlier: usize, later: usize, problems: &mut Problems<'_>) {
    let (Some(earlier_organs), Some(later_organs)) = (known.organs_of_mask(earlier), known.organs_of_mask(later))
    else {
        return;
    };
    let (first, second) = (&known.specs[earlier], &known.specs[later]);
    let ids = |organ: &crate::mask::Organ| [organ.label, organ.tumor_label];
    for organ in later_organs.iter() {
        for other in earlier_organs.iter() {
            let same_name = organ.name == other.name;
            let shared: Vec<u8> = ids(organ).into_iter().filter(|id| ids(other).contains(id)).collect();
            let message = match shared.first() {
                Some(id) if !same_name => {
                    format!(
                        "the label {id} means {} in `{}` and {} in `{}`",
                        other.name, first.name, organ.name, second.name
                    )
                }
                _ if same_name && ids(organ) != ids(other) => format!(
                    "{} has the labels {} and {} in `{}`, but {} and {} in `{}`",
                    organ.name, other.label, other.tumor_label, first.name, organ.label, organ.tumor_label, second.name
                ),
                _ => continue,
            };
            problems
                .error(second.span_of("organs"), message)
                .label("label maps of both are written to the same files")
                .hint(
                    "assign other ids to the organs of one mask with `merged_ids`, or write two pipelines".to_owned(),
                );
        }
    }
}

/// Reports an organ that one synthesis gets from two masks for the same scans.
fn check_duplicates(known: &KnownNodes<'_, '_>, at: usize, earlier: usize, later: usize, problems: &mut Problems<'_>) {
    let shared = known.ancestors[earlier].intersection(&known.ancestors[later]);
    let Some(source) = shared.copied().find(|&other| known.wiring.roles[other] == Some(Role::Source)) else { return };
    let (Some(first), Some(second)) = (known.organs_of_mask(earlier), known.organs_of_mask(later)) else { return };
    let Some(organ) = second.iter().find(|organ| first.iter().any(|other| other.name == organ.name)) else { return };
    let name = |at: usize| known.specs[at].name.as_str();
    problems
        .error(
            known.specs[at].inputs_span.clone(),
            format!("the {} of every scan of `{}` is an input twice", organ.name, name(source)),
        )
        .label(format!("through `{}` and through `{}`", name(earlier), name(later)))
        .hint("remove one of them from `inputs`, or select different organs in each".to_owned());
}

/// Checks that every score of a condition is produced, and by one stage only.
pub(super) fn check_scores(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let mut reported = BTreeSet::new();
    for filter in known.with_role(Role::Filter) {
        let Some(BuiltNode::Filter(test)) = &known.nodes[filter] else { continue };
        for synthesis in known.upstream(filter, Role::Synthesis) {
            let stages = known.scores_between(synthesis, filter);
            let mut produced: Vec<(Score, usize)> = Vec::new();
            let mut complete = true;
            for &stage in &stages {
                let Some(BuiltNode::Score(scoring)) = &known.nodes[stage] else {
                    complete = false;
                    continue;
                };
                for &score in scoring.stage.scores() {
                    match produced.iter().find(|(other, _)| *other == score) {
                        Some(&(_, earlier)) if reported.insert((earlier, stage)) => {
                            problems
                                .error(
                                    known.specs[stage].span.clone(),
                                    format!("`{}` is produced by two stages", score.name()),
                                )
                                .label(format!(
                                    "`{}` also produces this score, for the same candidates",
                                    known.specs[earlier].name
                                ))
                                .hint("use one of the two stages as input of the quality test".to_owned());
                        }
                        Some(_) => {}
                        None => produced.push((score, stage)),
                    }
                }
            }
            if !complete {
                continue;
            }
            let names: Vec<&str> = produced.iter().map(|(score, _)| score.name()).collect();
            let conditions = test.conditions().iter().enumerate();
            let conditions = conditions.map(|(index, condition)| (format!("accept.{index}"), condition.score));
            let calibrated =
                test.calibration().into_iter().flat_map(|calibration| calibration.scores.iter().enumerate());
            let calibrated = calibrated.filter_map(|(index, score)| match score {
                CalibratedScore::Diameter => None,
                CalibratedScore::Score(score) => Some((format!("calibrate.scores.{index}"), *score)),
            });
            for (field, score) in conditions.chain(calibrated) {
                let (score, unit) = (score.name(), score.unit());
                if !names.contains(&score) {
                    let unit = if unit.is_empty() { String::new() } else { format!(" (in {unit})") };
                    let from = &known.specs[synthesis].name;
                    problems
                        .error(
                            known.specs[filter].span_of(&field),
                            format!("no score stage produces `{score}`{unit} for candidates of `{from}`"),
                        )
                        .label(match names.is_empty() {
                            true => "expected a stage that computes scores before this test".to_owned(),
                            false => format!("expected {}", one_of(names.iter().copied())),
                        })
                        .hint(did_you_mean(score, names.iter().copied()));
                }
            }
        }
    }
}

/// Warns of quality tests that do not bound the contrast of tumors by networks and programs on both sides: among tumors that are much too
/// dark or bright, some pass every other condition. Rules sample contrasts within the range of real tumors.
pub(super) fn check_contrast_bounds(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    for filter in known.with_role(Role::Filter) {
        let Some(BuiltNode::Filter(test)) = &known.nodes[filter] else { continue };
        let is_unbounded = |at: usize| {
            let kind = known.specs[at].kind.as_ref().map(|kind| kind.get_ref().as_str());
            matches!(kind, Some("generator" | "command"))
        };
        if !known.upstream(filter, Role::Synthesis).any(is_unbounded) {
            continue;
        }
        let bounds = |is_upper: bool| {
            test.conditions().iter().any(|condition| match condition.score {
                Score::TumorHuDeviation => condition.comparison.is_upper_bound(),
                Score::DeltaHu | Score::HuInside | Score::Cnr => condition.comparison.is_upper_bound() == is_upper,
                _ => false,
            })
        };
        let missing = match (bounds(false), bounds(true)) {
            (true, true) => continue,
            (false, true) => "too dark",
            (true, false) => "too bright",
            (false, false) => "too dark or too bright",
        };
        let spec = &known.specs[filter];
        problems
            .warning(
                spec.span_of("accept"),
                format!("no condition of `{}` rejects tumors that are {missing}", spec.name),
            )
            .label("expected a bound of the contrast on both sides")
            .hint(
                "add \"tumor_hu_deviation <= 0 HU\", a score of the stage kind `intensity` by organ and contrast phase"
                    .to_owned(),
            );
    }
}

/// Checks that a candidate is scored in the window and spacing in which it was synthesized.
pub(super) fn check_input_specs(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let input_spec = |at: usize| match &known.nodes[at] {
        Some(BuiltNode::Synthesis(synthesis)) => synthesis.input_spec,
        Some(BuiltNode::Score(scoring)) => scoring.input_spec,
        _ => InputSpec::default(),
    };
    for score in known.with_role(Role::Score) {
        for synthesis in known.upstream(score, Role::Synthesis) {
            let (synthesis_spec, score_spec) = (input_spec(synthesis), input_spec(score));
            let (synthesis, score) = (&known.specs[synthesis], &known.specs[score]);
            if let (Some(expected), Some(got)) = (synthesis_spec.window, score_spec.window)
                && expected != got
            {
                let hu = |window: crate::volume::HuWindow| format!("{}..{} HU", window.low_hu, window.high_hu);
                problems
                    .error(
                        score.span_of("window_hu"),
                        format!("`{}` uses another window than `{}`", score.name, synthesis.name),
                    )
                    .label(format!("expected {}, got {}", hu(expected), hu(got)));
            }
            if let (Some(expected), Some(got)) = (synthesis_spec.spacing_mm, score_spec.spacing_mm)
                && expected.iter().zip(got).any(|(expected, got)| (expected - got).abs() > 1e-3)
            {
                let mm = |spacing: [f64; 3]| format!("{} × {} × {} mm", spacing[0], spacing[1], spacing[2]);
                problems
                    .error(
                        score.span_of("spacing_mm"),
                        format!("`{}` uses another spacing than `{}`", score.name, synthesis.name),
                    )
                    .label(format!("expected {}, got {}", mm(expected), mm(got)));
            }
        }
    }
}

/// Checks that two syntheses with equal settings and a shared organ differ in their salt: otherwise they produce the same candidates.
pub(super) fn check_salts(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let stages: Vec<usize> = known.with_role(Role::Synthesis).collect();
    for (index, &later) in stages.iter().enumerate() {
        for &earlier in &stages[..index] {
            let (Some(BuiltNode::Synthesis(first)), Some(BuiltNode::Synthesis(second))) =
                (&known.nodes[earlier], &known.nodes[later])
            else {
                continue;
            };
            let shared = first.organs.iter().find(|organ| second.organs.contains(organ));
            let sources = |at: usize| known.upstream(at, Role::Source).collect::<BTreeSet<_>>();
            let share_source = !sources(earlier).is_disjoint(&sources(later));
            let same_digest = known.digests.get(&earlier) == known.digests.get(&later);
            if let Some(organ) = shared.filter(|_| share_source && same_digest) {
                let (first, second) = (&known.specs[earlier], &known.specs[later]);
                problems
                    .error(
                        second.span.clone(),
                        format!("`{}` and `{}` make the same tumors of the {}", first.name, second.name, organ.name),
                    )
                    .label("equal settings produce equal random numbers")
                    .hint({
                        let is_rules = second.kind.as_ref().is_some_and(|kind| kind.get_ref() == "rules");
                        let field = if is_rules { "salt" } else { "rules.salt" };
                        format!(
                            "use `{}` as input of several quality tests, or set {field} = \"{}\" here",
                            first.name, second.name
                        )
                    });
            }
        }
    }
}

/// Reports masks with ignored voxels before a sink of kind `nnunet`, whose ignored label must follow the other labels directly.
pub(super) fn check_ignored_labels(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    for sink in known.with_role(Role::Sink) {
        let spec = &known.specs[sink];
        if spec.kind.as_ref().is_none_or(|kind| kind.get_ref() != "nnunet") {
            continue;
        }
        let may_ignore = |at: &usize| matches!(&known.nodes[*at], Some(BuiltNode::Mask(mask)) if mask.may_ignore());
        let Some(mask) = known.upstream(sink, Role::Mask).find(may_ignore) else { continue };
        problems
            .error(
                spec.span.clone(),
                format!(
                    "`{}` labels suspected real tumors {IGNORE_LABEL}, which nnU-Net rejects",
                    known.specs[mask].name
                ),
            )
            .label("nnU-Net expects consecutive labels")
            .hint(format!(
                "set suspected = \"tumor\" in `{}`, or use a sink of kind `decathlon` or `webdataset`",
                known.specs[mask].name
            ));
    }
}

/// Warns about samples that a trainer does not use, and about two syntheses whose negatives are the same scans.
pub(super) fn check_samples(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let stages: Vec<(usize, &Synthesis)> = known
        .with_role(Role::Synthesis)
        .filter_map(|at| match &known.nodes[at] {
            Some(BuiltNode::Synthesis(stage)) => Some((at, stage)),
            _ => None,
        })
        .collect();
    let sinks = |at: usize| known.with_role(Role::Sink).filter(move |&sink| known.ancestors[sink].contains(&at));
    for (index, &(at, stage)) in stages.iter().enumerate() {
        let trainer = sinks(at).find(|&sink| matches!(known.nodes[sink], Some(BuiltNode::Sink(Output::Trainer))));
        let settings = [("tumors_per_scan", stage.numbers.is_some()), ("negatives", stage.negatives > 0.0)];
        for (setting, _) in settings.into_iter().filter(|(_, is_set)| *is_set) {
            let Some(trainer) = trainer else { continue };
            problems
                .warning(
                    span_of_setting(known, at, setting),
                    format!("`{setting}` has no effect on the sink `{}`", known.specs[trainer].name),
                )
                .label("a trainer makes one tumor for each synthetic crop")
                .hint("write the samples with `freetumor run`, and train from the run folder".to_owned());
        }
        for &(earlier, _) in stages[..index].iter().filter(|(_, other)| stage.negatives > 0.0 && other.negatives > 0.0)
        {
            let shares_source =
                known.upstream(at, Role::Source).any(|source| known.ancestors[earlier].contains(&source));
            let shared = sinks(at).find(|&sink| shares_source && known.ancestors[sink].contains(&earlier));
            let Some(sink) = shared else { continue };
            let (first, sink) = (&known.specs[earlier].name, &known.specs[sink].name);
            problems
                .warning(
                    span_of_setting(known, at, "negatives"),
                    format!(
                        "the sink `{sink}` gets negatives of the same scans from `{first}` and `{}`",
                        known.specs[at].name
                    ),
                )
                .label("the choice of scans depends on the scans alone")
                .hint("set `negatives` in one of the two stages".to_owned());
        }
    }
}

/// Returns the span of a setting of the rules of a synthesis.
fn span_of_setting(known: &KnownNodes<'_, '_>, at: usize, setting: &str) -> Range<usize> {
    let spec = &known.specs[at];
    match &spec.kind {
        Some(kind) if kind.get_ref() == "rules" => spec.span_of(setting),
        _ => spec.span_of(&format!("rules.{setting}")),
    }
}
