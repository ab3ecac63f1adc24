//! What is known of a program before anything runs.

use std::path::Path;

use freetumor::graph::{Checked, GraphFile, Registry, Role, check};

use super::{AFTER_MASK, PHANTOMS, TEST};

const ORGANS: &str = r#"
[stages.organs]
kind = "command"
inputs = ["phantoms"]
argv = ["sh", "{image}", "{output}"]
organs = ["liver"]
"#;

fn checked(sets: &[&str]) -> Checked {
    let text = format!("{PHANTOMS}{ORGANS}{AFTER_MASK}{TEST}");
    check(&GraphFile::new("a.toml", Path::new("."), text).with_sets(sets), &Registry::standard())
}

#[test]
fn mistakes_are_told_where_they_stand() {
    let cases = [
        ("argv=[\"TotalSegmentatr\", \"{output}\"]", "there is no program `TotalSegmentatr` on the PATH", "install it"),
        ("argv=[\"sh\", \"{imgae}\", \"{output}\"]", "unknown placeholder `{imgae}`", "did you mean `image`?"),
        ("argv=[\"sh\", \"{image}\"]", "is not told where its answer goes", "add an argument \"{output}\""),
        ("time_limit_s=0", "expected more than 0 s", ""),
        ("memory_limit_mib=0", "expected 1 MiB or more", ""),
        ("parallel=0", "expected 1 to 1024 programs at once, got 0", ""),
        ("scratch=no-such-folder", "there is no folder", "create it"),
        ("exchange=pip", "`stages.organs.exchange` cannot be `pip`", "did you mean `pipe`?"),
        ("exchange=pipe", "`{image}` is a file", "leave it out"),
        ("image=../image.nii", "expected a name such as `image.nii`", ""),
        ("answer=folder", "unknown placeholder `{output}`", "did you mean `outputs`?"),
        ("organs=[\"lver\"]", "`lver` is no organ of TotalSegmentator v2", "did you mean `liver`?"),
    ];
    for (set, message, hint) in cases {
        let checked = checked(&[&format!("stages.organs.{set}")]);
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        assert!(!problems.is_empty() && checked.is_bad(), "{set}");
        let problem = &checked.problems[0];
        assert!(problem.message.contains(message), "{set}: {}", problems.join("\n"));
        assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{set}: {}", problems.join("\n"));
        let (setting, place) = (set.split('=').next().unwrap(), problem.location.as_ref().unwrap());
        assert!(place.text.contains(setting) || place.text.starts_with("argv = "), "{place:?}");
    }
}

#[test]
fn a_folder_of_files_names_each_class() {
    let with = |more: &[&str]| {
        let sets = ["stages.organs.answer=folder", "stages.organs.argv=[\"sh\", \"{image}\", \"{outputs}\"]"];
        let checked = checked(&[&sets[..], more].concat());
        checked.problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(with(&[]), "");
    assert!(with(&["stages.organs.output=liver.nii.gz"]).contains("expected `{name}` in place of the class"));
    assert!(with(&["stages.organs.files={ liver = [\"liver\"] }"]).contains("expected either `organs` or `files`"));
    assert!(with(&["stages.organs.exchange=pipe"]).contains("does not come over a pipe"));
}

#[test]
fn one_kind_has_three_roles() {
    let text = format!(
        "{PHANTOMS}{ORGANS}
        [stages.tumors]
        kind = \"command\"
        inputs = [\"organs\"]
        argv = [\"cat\"]
        exchange = \"pipe\"
        rules = {{ variants = 0, organs = [\"spleen\"] }}
        tumor = \"program\"
        [stages.contrast]
        kind = \"command\"
        inputs = [\"tumors\"]
        argv = [\"sh\", \"{{before}}\", \"{{output}}\"]
        gives = [\"delta_hu\", \"realnes\"]
        {TEST}"
    );
    let checked = check(&GraphFile::new("a.toml", Path::new("."), text), &Registry::standard());
    let roles: Vec<Role> = checked.nodes.unwrap().iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Source, Role::Mask, Role::Synthesis, Role::Score, Role::Filter]);
    let said: Vec<String> = checked.problems.iter().map(|problem| problem.message.clone()).collect();
    for words in [
        "expected an organ of the mask, got `spleen`",
        "expected 1 to 1000, got 0",
        "a second image does not come over the pipe",
        "there is no score `realnes`",
    ] {
        assert!(said.iter().any(|message| message.contains(words)), "{words}: {said:#?}");
    }
    assert_eq!(said.len(), 4, "{said:#?}");
}

#[test]
fn what_a_program_is_decides_the_digest_and_where_it_runs_does_not() {
    let digest = |sets: &[&str]| checked(sets).plan.unwrap().digest;
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
