//! Problems of the scans of a pipeline that `validate` reports: missing label files, sources without scans, splits without patients.

use std::path::Path;

use freetumor::cli::validate::{ValidateArgs, validate};
use freetumor::graph::{Registry, Resources};
use freetumor::ingest::nifti::{Datatype, encode_header};
use freetumor::volume::{Affine, Grid};

/// A graph with scans in the folder `ct`, next to the file.
const GRAPH: &str = r#"
[pipeline]
name = "survey"
split = { train = 1.0 }
[sources.archive]
kind = "folder"
root = "ct"
include = ["*/ct.nii"]
[stages.organs]
kind = "labels"
inputs = ["archive"]
pattern = "labels.nii"
organs = ["liver", "kidney"]
[stages.tumors]
kind = "rules"
inputs = ["organs"]
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
[stages.test]
kind = "quality-test"
inputs = ["contrast"]
accept = ["delta_hu < -10 HU"]
[sinks.set]
kind = "decathlon"
inputs = ["test"]
"#;

/// Writes a scan of one value, with or without a label file.
pub fn add_scan(folder: &Path, case: &str, hu: i16, is_labeled: bool) {
    let path = folder.join("ct").join(case);
    std::fs::create_dir_all(&path).unwrap();
    let grid = Grid { shape: [3, 2, 2], affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
    let write = |name: &str, datatype, voxels: Vec<u8>| {
        let mut file = encode_header(&grid, datatype, "").unwrap().to_vec();
        file.extend(voxels);
        std::fs::write(path.join(name), file).unwrap();
    };
    write("ct.nii", Datatype::I16, [hu; 12].into_iter().flat_map(i16::to_le_bytes).collect());
    if is_labeled {
        write("labels.nii", Datatype::U8, vec![5; 12]);
    }
}

/// Returns exit code and standard error of `validate`.
fn check(folder: &Path, text: &str, sets: &[&str]) -> (u8, String) {
    let path = folder.join("a.toml");
    std::fs::write(&path, text).unwrap();
    let set = sets.iter().map(ToString::to_string).collect();
    let args = ValidateArgs { pipelines: vec![path], set, out: folder.to_owned(), json: false };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    std::fs::write(folder.join("secret"), "a secret for tests only").unwrap();
    let secret = Some(folder.join("secret"));
    let registry = Registry::with_resources(&Resources { patient_secret: secret, ..Resources::default() });
    let code = validate(&args, &registry, &mut stdout, &mut stderr).unwrap();
    (code, String::from_utf8(stderr).unwrap())
}

#[test]
fn missing_label_files_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    for (at, case) in ["a", "b", "c"].into_iter().enumerate() {
        add_scan(folder.path(), case, at as i16, at > 0);
    }
    let (code, text) = check(folder.path(), GRAPH, &[]);
    assert!(code == 0 && text.contains("warning: 1 of 3 scans has no label file at `labels.nii`"), "{text}");
    assert!(text.contains("[stages.organs]") && text.contains("scans of `archive`"), "{text}");
    let (code, text) = check(folder.path(), GRAPH, &["stages.organs.pattern=\"segmentation.nii\""]);
    assert!(code == 2 && text.contains("error: 3 of 3 scans have no label file at `segmentation.nii`"), "{text}");
    let binary = ["stages.organs.kind=totalsegmentator", "stages.organs.pattern=\"{name}.nii\""];
    let (code, text) = check(folder.path(), GRAPH, &binary);
    assert!(code == 2 && text.contains("3 of 3 scans have no label file at `liver.nii`"), "{text}");
    let optional = [&binary[..], &["stages.organs.optional=true"]].concat();
    let (code, text) = check(folder.path(), GRAPH, &optional);
    assert!(code == 2 && text.contains("no label file at `{name}.nii`"), "{text}");
    std::fs::write(folder.path().join("ct/a/liver.nii"), "").unwrap();
    let (code, text) = check(folder.path(), GRAPH, &optional);
    assert!(code == 0 && text.contains("warning: 2 of 3 scans have no label file at `{name}.nii`"), "{text}");
    add_scan(folder.path(), "a", 0, true);
    assert_eq!(check(folder.path(), GRAPH, &["stages.organs.organs=[\"liver\"]"]), (0, String::new()));
}

/// Writes a label file on a grid of two slices that is moved along the third axis.
fn add_moved_labels(folder: &Path, case: &str, mm: f64) {
    let mut grid = Grid { shape: [3, 2, 2], affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
    grid.affine.0[2][3] = mm;
    let mut file = encode_header(&grid, Datatype::U8, "").unwrap().to_vec();
    file.extend([5; 12]);
    std::fs::write(folder.join("ct").join(case).join("labels.nii"), file).unwrap();
}

#[test]
fn label_files_that_do_not_cover_their_scans_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    for (at, case) in ["a", "b", "c"].into_iter().enumerate() {
        add_scan(folder.path(), case, at as i16, true);
    }
    // One of the two slices of the scan is covered, and none.
    add_moved_labels(folder.path(), "b", 2.0);
    add_moved_labels(folder.path(), "c", 50.0);
    let (code, text) = check(folder.path(), GRAPH, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("warning: the label files of 1 of 3 scans do not overlap enough with their scan"), "{text}");
    assert!(text.contains("the label files of 1 of 3 scans cover only part of their scan, at least 50%"), "{text}");
    let (_, text) = check(folder.path(), GRAPH, &["stages.organs.min_coverage=0.8"]);
    assert!(text.contains("the label files of 2 of 3 scans do not overlap enough"), "{text}");
}

#[test]
fn empty_source_is_an_error_only_without_other_scans() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("ct")).unwrap();
    let (code, text) = check(folder.path(), GRAPH, &[]);
    assert!(code == 2 && text.contains("error: the source `archive` has no scans"), "{text}");
    assert!(text.contains("is empty: is its disk mounted?"), "{text}");
    add_scan(folder.path(), "a", 0, true);
    let (code, text) = check(folder.path(), GRAPH, &["sources.archive.include=[\"*/scan.nii\"]"]);
    assert!(code == 2 && text.contains("matches `include`"), "{text}");
    let more = format!("{GRAPH}[sources.more]\nkind = \"folder\"\nroot = \"ct\"\ninclude = [\"*/more.nii\"]\n");
    let more = more.replace("inputs = [\"archive\"]", "inputs = [\"archive\", \"more\"]");
    let (code, text) = check(folder.path(), &more, &[]);
    assert!(code == 0 && text.contains("warning: the source `more` has no scans"), "{text}");
}

#[test]
fn range_errors_unused_stages_and_empty_sources_are_reported_besides_other_errors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("ct")).unwrap();
    let more = "[stages.lungs]\nkind = \"lung\"\ninputs = [\"archive\"]\n[sinks.typo]\nkind = \"nnunt\"\ninputs = [\"tset\"]\n";
    let sets = [
        "stages.tumors.diameter_mm=[60, 5]",
        "stages.tumors.contrast_hu={ liver = [-20, -60] }",
        "stages.contrast.ring_mm=[9.5, 2]",
        "stages.test.accept=[\"x\"]",
    ];
    let (code, text) = check(folder.path(), &format!("{GRAPH}{more}"), &sets);
    assert_eq!(code, 2);
    for expected in [
        "error: `stages.tumors.diameter_mm` is [60, 5]",
        "hint: did you mean [5, 60]?",
        "`stages.tumors.contrast_hu.liver` is [-20, -60]",
        "`stages.contrast.ring_mm` is [9.5, 2]",
        "warning: the output of `stages.lungs` is unused",
        "error: the source `archive` has no scans",
        "there is no node named `tset`",
        "unknown kind `nnunt`",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    // An output that a misspelt input may mean is not reported as unused.
    let (_, text) = check(folder.path(), GRAPH, &["stages.tumors.inputs=[\"organ\"]"]);
    assert!(text.contains("there is no node named `organ`") && !text.contains("unused"), "{text}");
}

#[test]
fn split_without_patients_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    add_scan(folder.path(), "a", 0, true);
    let shares = ["pipeline.split={ train = 0.8, validation = 0.1, test = 0.1 }"];
    let (code, text) = check(folder.path(), GRAPH, &shares);
    // The split of the patient depends on the secret: two of three splits have no patient.
    assert!(code == 0 && text.contains("warning: the only patient is not in the split"), "{text}");
    assert_eq!(text.matches(" or `").count(), 1, "{text}");
    let nnunet = ["sinks.set.kind=nnunet", "stages.organs.organs=[\"liver\"]"];
    let (code, text) = check(folder.path(), GRAPH, &nnunet);
    assert!(code == 0 && text.contains("in the split `validation`, which a sink needs"), "{text}");
}

#[test]
fn labels_that_nnunet_rejects_have_hints() {
    let folder = tempfile::tempdir().unwrap();
    add_scan(folder.path(), "a", 0, true);
    let (code, text) = check(folder.path(), GRAPH, &["sinks.set.kind=nnunet"]);
    assert!(code == 2 && text.contains("expected consecutive labels from 0 for nnU-Net"), "{text}");
    assert!(text.contains("hint: set merged_ids = { liver = [1, 2], kidney = [3, 4] } in the mask stage"), "{text}");
    let ids = ["sinks.set.kind=nnunet", "stages.organs.merged_ids={ liver = [1, 2], kidney = [3, 4] }"];
    assert_eq!(check(folder.path(), GRAPH, &ids).0, 0);
    let organs = |organs: &str, merged: &str, priors: &str| {
        let sets = [
            "sinks.set.kind=nnunet",
            "stages.organs.scheme=custom",
            &format!("stages.organs.organs={{ {organs} }}"),
            &format!("stages.organs.merged_ids={{ {merged} }}"),
            &format!("stages.tumors.priors={{ {priors} }}"),
        ];
        check(folder.path(), GRAPH, &sets)
    };
    let twice = "liver = { ids = [5] }, liver_tumor = { ids = [6] }";
    let (code, text) = organs(twice, "liver = [1, 2], liver_tumor = [3, 4]", "liver_tumor = \"liver\"");
    assert!(code == 2 && text.contains("got `liver_tumor` twice"), "{text}");
    for name in ["background", "ignore"] {
        let (code, text) =
            organs(&format!("{name} = {{ ids = [5] }}"), &format!("{name} = [1, 2]"), &format!("{name} = \"liver\""));
        assert!(
            code == 2 && text.contains(&format!("expected a label name that nnU-Net does not reserve, got `{name}`")),
            "{text}"
        );
    }
}

#[test]
fn label_names_of_data_set_that_contradict_the_organs_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for case in ["a", "b"] {
        add_scan(folder.path(), case, 0, true);
    }
    let sets = ["stages.organs.scheme=custom", "stages.organs.organs={liver={ids=[5]}}"];
    let list = folder.path().join("ct/dataset.json");
    std::fs::write(&list, r#"{"labels": {"background": 0, "spleen": 5}}"#).unwrap();
    let (code, text) = check(folder.path(), GRAPH, &sets);
    assert!(
        code == 2 && text.contains("the label names of 2 of 2 scans contradict the organs: id 5 is `spleen`"),
        "{text}"
    );
    std::fs::write(&list, r#"{"labels": {"background": 0, "Leber": 5}}"#).unwrap();
    let (code, text) = check(folder.path(), GRAPH, &sets);
    assert!(code == 0 && !text.contains("contradict"), "{text}");
}

#[test]
fn common_synonym_of_an_organ_has_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    add_scan(folder.path(), "a", 0, true);
    for (name, hint) in [("bladder", "urinary_bladder"), ("oesophagus", "esophagus"), ("spine", "vertebrae")] {
        let (code, text) = check(folder.path(), GRAPH, &[&format!("stages.organs.organs=[\"{name}\"]")]);
        assert!(code == 2 && text.contains(&format!("hint: did you mean `{hint}`?")), "{text}");
    }
}

#[test]
fn missing_label_files_of_training_file_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    for case in ["a", "b", "c"] {
        add_scan(folder.path(), case, 0, true);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/train-segmentor-small.toml");
    let file = std::fs::read_to_string(file).unwrap();
    let (start, rest) = file.split_once("[sources.bodies]").unwrap();
    let (_, end) = rest.split_once("[stages.organs]").unwrap();
    let source = "[sources.bodies]\nkind = \"folder\"\nroot = \"ct\"\ninclude = [\"*/ct.nii\"]\n";
    let text = format!("{start}{source}[stages.organs]\npattern = \"none.nii\"{end}");
    let (code, text) = check(folder.path(), &text, &[]);
    assert!(code == 2 && text.contains("error: 3 of 3 scans have no label file at `none.nii`"), "{text}");
}
