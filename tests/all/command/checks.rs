//! Checks of commands before anything runs.

use std::path::Path;

use freetumor::graph::{CheckedGraph, GraphFile, Registry, Role, check};

use super::{AFTER_MASK, PHANTOMS, TEST};

const ORGANS: &str = r#"
[stages.organs]
kind = "command"
inputs = ["phantoms"]
argv = ["sh", "{image}", "{output}"]
organs = ["liver"]
"#;

fn check_with(sets: &[&str]) -> CheckedGraph {
    let text = format!("{PHANTOMS}{ORGANS}{AFTER_MASK}{TEST}");
    check(&GraphFile::new("a.toml", Path::new("."), text).with_sets(sets), &Registry::standard())
}

#[test]
fn errors_of_mask_settings_have_locations_and_hints() {
    let cases = [
        (
            "argv=[\"TotalSegmentatr\", \"{output}\"]",
            "expected a program on the PATH, got `TotalSegmentatr`",
            "install the program",
        ),
        ("argv=[\"sh\", \"{imgae}\", \"{output}\"]", "unknown placeholder `{imgae}`", "did you mean `image`?"),
        (
            "argv=[\"sh\", \"{image}\"]",
            "expected an argument with the path of the program's output",
            "add an argument \"{output}\"",
        ),
        ("time_limit_s=0", "expected more than 0 s", ""),
        ("memory_limit_mib=0", "expected 1 MiB or more", ""),
        ("parallel=0", "expected 1 to 1024 programs at once, got 0", ""),
        ("scratch=no-such-folder", "expected an existing folder, got", "create the folder"),
        ("exchange=pip", "`stages.organs.exchange` cannot be `pip`", "did you mean `pipe`?"),
        ("exchange=pipe", "`{image}` is a file", "remove the placeholder"),
        ("image=../image.nii", "expected a name such as `image.nii`", ""),
        ("output_form=folder", "unknown placeholder `{output}`", "did you mean `outputs`?"),
        ("organs=[\"lver\"]", "`lver` is not an organ of TotalSegmentator v2", "did you mean `liver`?"),
    ];
    for (set, message, hint) in cases {
        let checked = check_with(&[&format!("stages.organs.{set}")]);
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        assert!(!problems.is_empty() && checked.has_errors(), "{set}");
        let problem = &checked.problems[0];
        assert!(problem.message.contains(message), "{set}: {}", problems.join("\n"));
        assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{set}: {}", problems.join("\n"));
        let (setting, location) = (set.split('=').next().unwrap(), problem.location.as_ref().unwrap());
        assert!(location.text.contains(setting) || location.text.starts_with("argv = "), "{location:?}");
    }
}

#[test]
fn folder_output_requires_placeholder_name_in_output() {
    let with = |more: &[&str]| {
        let sets = ["stages.organs.output_form=folder", "stages.organs.argv=[\"sh\", \"{image}\", \"{outputs}\"]"];
        let checked = check_with(&[&sets[..], more].concat());
        checked.problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(with(&[]), "");
    assert!(with(&["stages.organs.output=liver.nii.gz"]).contains("expected a pattern with the placeholder `{name}`"));
    assert!(with(&["stages.organs.files={ liver = [\"liver\"] }"]).contains("expected either `organs` or `files`"));
    assert!(with(&["stages.organs.exchange=pipe"]).contains("cannot be read from a pipe"));
}

/// Checks a pipeline with a program in each of the three roles; `tumors` and `contrast` are settings of synthesis and score.
fn check_three_roles(tumors: &str, contrast: &str) -> CheckedGraph {
    let text = format!(
        "{PHANTOMS}{ORGANS}
        [stages.tumors]
        kind = \"command\"
        inputs = [\"organs\"]
        argv = [\"cat\"]
        exchange = \"pipe\"
        {tumors}
        [stages.contrast]
        kind = \"command\"
        inputs = [\"tumors\"]
        argv = [\"sh\", \"{{before}}\", \"{{output}}\"]
        {contrast}
        {TEST}"
    );
    check(&GraphFile::new("a.toml", Path::new("."), text), &Registry::standard())
}

#[test]
fn kind_command_is_mask_synthesis_or_score_by_position() {
    let checked = check_three_roles("", "scores = [\"delta_hu\"]");
    assert!(!checked.has_errors(), "{:?}", checked.problems);
    let roles: Vec<Role> = checked.nodes.unwrap().iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Source, Role::Mask, Role::Synthesis, Role::Score, Role::Filter]);
}

#[test]
fn errors_of_command_stages_are_reported() {
    let tumors = "rules = { variants = 0, organs = [\"spleen\"] }
        tumor = \"program\"";
    let checked = check_three_roles(tumors, "scores = [\"delta_hu\", \"realnes\"]");
    let messages: Vec<String> = checked.problems.iter().map(|problem| problem.message.clone()).collect();
    for expected in [
        "expected an organ of the mask, got `spleen`",
        "expected 1 to 1000, got 0",
        "a second image cannot be read from a pipe",
        "there is no score `realnes`",
    ] {
        assert!(messages.iter().any(|message| message.contains(expected)), "{expected}: {messages:#?}");
    }
    assert_eq!(messages.len(), 5, "{messages:#?}");
}

#[test]
fn digest_depends_on_program_but_not_on_scratch_folder() {
    let digest = |sets: &[&str]| check_with(sets).plan.unwrap().digest;
    let own = digest(&[]);
    for same in ["stages.organs.parallel=7", "stages.organs.scratch=/"] {
        assert_eq!(digest(&[same]), own, "{same}");
    }
    for other in [
        "stages.organs.version=two",
        "stages.organs.time_limit_s=60",
        "stages.organs.memory_limit_mib=100",
        "stages.organs.argv=[\"sh\", \"-x\", \"{image}\", \"{output}\"]",
        "stages.organs.min_coverage=0.9",
    ] {
        assert_ne!(digest(&[other]), own, "{other}");
    }
}

#[test]
fn contrast_of_programs_without_bounds_on_both_sides_is_a_warning() {
    let by_program =
        AFTER_MASK.replace("kind = \"rules\"", "kind = \"command\"\nargv = [\"sh\", \"{image}\", \"{output}\"]");
    let by_program = by_program.replace("min_diameter_voxels = 1.5\n", "");
    let warnings = |after_mask: &str, conditions: &str| -> Vec<String> {
        let test = TEST.replace("\"delta_hu < 1000\"", conditions);
        let text = format!("{PHANTOMS}{ORGANS}{after_mask}{test}");
        let checked = check(&GraphFile::new("a.toml", Path::new("."), text), &Registry::standard());
        let about = |problem: &&freetumor::graph::Problem| problem.message.contains("rejects tumors that are");
        checked.problems.iter().filter(about).map(|problem| problem.message.clone()).collect()
    };
    for (conditions, missing) in [
        ("\"delta_hu < -10\"", "too dark"),
        ("\"hu_inside > 10\"", "too bright"),
        ("\"invisible_fraction < 0.3\"", "too dark or too bright"),
    ] {
        let found = warnings(&by_program, conditions);
        assert_eq!(found, [format!("no condition of `test` rejects tumors that are {missing}")], "{conditions}");
        assert!(warnings(AFTER_MASK, conditions).is_empty());
    }
    for conditions in ["\"delta_hu < -10\", \"delta_hu > -80\"", "\"tumor_hu_deviation <= 0\""] {
        assert!(warnings(&by_program, conditions).is_empty(), "{conditions}");
    }
}
