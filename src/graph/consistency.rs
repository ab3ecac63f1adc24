//! Whether the stages along the edges mean the same by an organ, a score, a window.

use std::collections::BTreeSet;

use super::edge::Role;
use super::file::Problems;
use super::known_nodes::KnownNodes;
use super::registry::{BuiltNode, InputSpec};
use super::value::one_of;
use crate::score::Score;
use crate::suggest::did_you_mean;

/// Organs: one id for one organ wherever label maps of several masks meet, and no organ of a scan worked on twice.
pub(super) fn organs(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let mut told = BTreeSet::new();
    for at in known.of(Role::Synthesis).chain(known.of(Role::Sink)) {
        let masks: Vec<usize> = known.upstream(at, Role::Mask).collect();
        for (index, &later) in masks.iter().enumerate() {
            for &earlier in &masks[..index] {
                if told.insert((earlier, later)) {
                    clash(known, earlier, later, problems);
                }
                if known.wiring.roles[at] == Some(Role::Synthesis) {
                    twice(known, at, earlier, later, problems);
                }
            }
        }
    }
}

/// Two masks whose label maps end in the same files.
fn clash(known: &KnownNodes<'_, '_>, earlier: usize, later: usize, problems: &mut Problems<'_>) {
    let (Some(first), Some(second)) = (known.organs_of_mask(earlier), known.organs_of_mask(later)) else { return };
    let (one, two) = (&known.specs[earlier], &known.specs[later]);
    let ids = |organ: &crate::mask::Organ| [organ.label, organ.tumor_label];
    for organ in second.iter() {
        for other in first.iter() {
            let same_name = organ.name == other.name;
            let shared: Vec<u8> = ids(organ).into_iter().filter(|id| ids(other).contains(id)).collect();
            let message = match shared.first() {
                Some(id) if !same_name => {
                    format!(
                        "the label {id} means {} in `{}` and {} in `{}`",
                        other.name, one.name, organ.name, two.name
                    )
                }
                _ if same_name && ids(organ) != ids(other) => format!(
                    "{} has the labels {} and {} in `{}`, but {} and {} in `{}`",
                    organ.name, other.label, other.tumor_label, one.name, organ.label, organ.tumor_label, two.name
                ),
                _ => continue,
            };
            problems
                .error(two.place_of("organs"), message)
                .label("label maps of both end in the same files")
                .hint("give the organs of one of them other ids with `merged_ids`, or write two pipelines".to_owned());
        }
    }
}

/// Two masks that give the same organ of the same scans to one synthesis.
fn twice(known: &KnownNodes<'_, '_>, at: usize, earlier: usize, later: usize, problems: &mut Problems<'_>) {
    let shared = known.before[earlier].intersection(&known.before[later]);
    let Some(source) = shared.copied().find(|&other| known.wiring.roles[other] == Some(Role::Source)) else { return };
    let (Some(first), Some(second)) = (known.organs_of_mask(earlier), known.organs_of_mask(later)) else { return };
    let Some(organ) = second.iter().find(|organ| first.iter().any(|other| other.name == organ.name)) else { return };
    let name = |at: usize| known.specs[at].name.as_str();
    problems
        .error(
            known.specs[at].inputs_span.clone(),
            format!("the {} of every scan of `{}` comes in twice", organ.name, name(source)),
        )
        .label(format!("through `{}` and through `{}`", name(earlier), name(later)))
        .hint("take from one of them, or let each give organs of its own".to_owned());
}

/// Scores: everything that a condition asks for is given, and by one stage only.
pub(super) fn scores(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let mut told = BTreeSet::new();
    for filter in known.of(Role::Filter) {
        let Some(BuiltNode::Filter(test)) = &known.parts[filter] else { continue };
        for synthesis in known.upstream(filter, Role::Synthesis) {
            let stages = known.scores_between(synthesis, filter);
            let mut given: Vec<(Score, usize)> = Vec::new();
            let mut complete = true;
            for &stage in &stages {
                let Some(BuiltNode::Score(scoring)) = &known.parts[stage] else {
                    complete = false;
                    continue;
                };
                for &score in scoring.stage.scores() {
                    match given.iter().find(|(other, _)| *other == score) {
                        Some(&(_, earlier)) if told.insert((earlier, stage)) => {
                            let (one, two) = (&known.specs[earlier], &known.specs[stage]);
                            problems
                                .error(two.span.clone(), format!("`{}` is given by two stages", score.name()))
                                .label(format!("`{}` gives it too, for the same candidates", one.name))
                                .hint("let the quality test take from one of them".to_owned());
                        }
                        Some(_) => {}
                        None => given.push((score, stage)),
                    }
                }
            }
            if !complete {
                continue;
            }
            let names: Vec<&str> = given.iter().map(|(score, _)| score.name()).collect();
            for (index, condition) in test.conditions().iter().enumerate() {
                let score = condition.score.name();
                if !names.contains(&score) {
                    let unit = condition.score.unit();
                    let unit = if unit.is_empty() { String::new() } else { format!(" (in {unit})") };
                    let from = &known.specs[synthesis].name;
                    problems
                        .error(
                            known.specs[filter].place_of(&format!("accept.{index}")),
                            format!("no score stage gives `{score}`{unit} for candidates of `{from}`"),
                        )
                        .label(format!("given are {}", one_of(names.iter().copied()).replace(" or ", " and ")))
                        .hint(did_you_mean(score, names.iter().copied()));
                }
            }
        }
    }
}

/// Windows and spacings: a candidate is judged as it was made.
pub(super) fn frames(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let frame = |at: usize| match &known.parts[at] {
        Some(BuiltNode::Synthesis(synthesis)) => synthesis.frame,
        Some(BuiltNode::Score(scoring)) => scoring.frame,
        _ => InputSpec::default(),
    };
    for score in known.of(Role::Score) {
        for synthesis in known.upstream(score, Role::Synthesis) {
            let (made, judged) = (frame(synthesis), frame(score));
            let (maker, judge) = (&known.specs[synthesis], &known.specs[score]);
            if let (Some(made), Some(judged)) = (made.window, judged.window)
                && made != judged
            {
                let hu = |window: crate::volume::HuWindow| format!("{}..{} HU", window.low_hu, window.high_hu);
                problems
                    .error(
                        judge.place_of("window_hu"),
                        format!("`{}` works in another window than `{}`", judge.name, maker.name),
                    )
                    .label(format!("{} here, {} there", hu(judged), hu(made)));
            }
            if let (Some(made), Some(judged)) = (made.spacing_mm, judged.spacing_mm)
                && made.iter().zip(judged).any(|(made, judged)| (made - judged).abs() > 1e-3)
            {
                let mm = |spacing: [f64; 3]| format!("{} × {} × {} mm", spacing[0], spacing[1], spacing[2]);
                problems
                    .error(
                        judge.place_of("spacing_mm"),
                        format!("`{}` works in another spacing than `{}`", judge.name, maker.name),
                    )
                    .label(format!("{} here, {} there", mm(judged), mm(made)));
            }
        }
    }
}

/// Two syntheses of equal settings make the same candidates of the same organ: one of them needs a salt.
pub(super) fn salts(known: &KnownNodes<'_, '_>, problems: &mut Problems<'_>) {
    let stages: Vec<usize> = known.of(Role::Synthesis).collect();
    for (index, &later) in stages.iter().enumerate() {
        for &earlier in &stages[..index] {
            let (Some(BuiltNode::Synthesis(one)), Some(BuiltNode::Synthesis(two))) =
                (&known.parts[earlier], &known.parts[later])
            else {
                continue;
            };
            let shared = one.organs.iter().find(|organ| two.organs.contains(organ));
            let sources = |at: usize| known.upstream(at, Role::Source).collect::<BTreeSet<_>>();
            let meet = !sources(earlier).is_disjoint(&sources(later));
            if let Some(organ) = shared.filter(|_| meet && known.digests.get(&earlier) == known.digests.get(&later)) {
                let (one, two) = (&known.specs[earlier], &known.specs[later]);
                problems
                    .error(
                        two.span.clone(),
                        format!("`{}` and `{}` make the same tumors of the {}", one.name, two.name, organ.name),
                    )
                    .label("equal settings draw equal numbers")
                    .hint({
                        let is_rules = two.kind.as_ref().is_some_and(|kind| kind.get_ref() == "rules");
                        let field = if is_rules { "salt" } else { "rules.salt" };
                        format!(
                            "let several quality tests take from `{}`, or set {field} = \"{}\" here",
                            one.name, two.name
                        )
                    });
            }
        }
    }
}
