//! Results of valid programs: the example in Python, and small programs for other settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use freetumor::error::{Fault, FaultKind};
use freetumor::external::{CommandMask, CommandSynthesis, CommandSynthesisConfig};
use freetumor::graph::{GraphFile, Plan, Registry, check};
use freetumor::mask::{Mask, MaskedScan, Organ};
use freetumor::random::Key;
use freetumor::synth::{Attempt, AttemptKey, Candidate, Rules, Synthesize};
use freetumor::volume::HuWindow;

use super::{AFTER_MASK, MASK_BY_LABELS, PHANTOMS, TEST, has_python, rows, run_plan, write_labels};
use crate::dataflow::{committed, plan_of};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/command/nodules.toml")
}

fn example_plan(sets: &[&str]) -> Plan {
    let checked = check(&GraphFile::open(example()).unwrap().with_sets(sets), &Registry::standard());
    let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")))
}

#[test]
fn example_is_reproducible_with_files_and_pipe() {
    if !has_python() {
        return;
    }
    let runs = [1, 4].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let report = run_plan(example_plan(&[]), folder.path(), threads);
        assert_eq!((report.scans, report.faults), (4, 0));
        assert!(report.accepted >= 3, "{report:?}");
        committed(&folder.path().join("run"))
    });
    assert!(runs[0] == runs[1], "the result is independent of threads");

    let piped = example_plan(&[
        "stages.lungs.argv=[\"python3\", \"{graph}/nodules.py\", \"segment\"]",
        "stages.lungs.exchange=pipe",
        "stages.nodules.argv=[\"sh\", \"-c\", \"exec python3 \\\"$0/nodules.py\\\" grow - '' $1 -\", \"{graph}\", \"{seed}\"]",
        "stages.nodules.exchange=pipe",
        "pipeline.epoch_scans=16",
    ]);
    let (scan, files) = one_nodule(&example_plan(&[]));
    let (_, pipe) = one_nodule(&piped);
    assert_eq!(files, pipe);
    assert!(files.after != files.before);
    // Only the lung changes, and the tumor is in the lung.
    let labels = scan.mask.labels.cut(files.region);
    for (index, &label) in labels.as_slice().iter().enumerate() {
        let same = files.after.as_slice()[index] == files.before.as_slice()[index];
        assert!(label == 1 || (same && files.labels.as_slice()[index] == label));
        assert!(files.tumor.as_slice()[index] == 0 || files.labels.as_slice()[index] == 2);
    }
}

fn one_nodule(plan: &Plan) -> (MaskedScan, Candidate) {
    let entry = &plan.sources[0].source.list().unwrap()[0];
    let scan = Arc::new(plan.sources[0].source.read(entry).unwrap());
    let masked = MaskedScan { scan: Arc::clone(&scan), mask: plan.masks[0].mask.mask(&scan).unwrap() };
    let organ = masked.mask.organs[0].clone();
    let plan = plan.syntheses[0].attempts.synthesize.site_plan(&masked, &organ).unwrap();
    let candidate = (0..20).find_map(|attempt| match plan.attempt(AttemptKey::new(Key::root(1), attempt)).unwrap() {
        Attempt::Candidate(candidate) => Some(*candidate),
        Attempt::Rejected { .. } => None,
    });
    drop(plan);
    (masked, candidate.expect("a nodule"))
}

/// Synthesizes a candidate with a program in a phantom with a block of liver.
fn synthesize(script: &str, more: &str) -> Result<Option<Candidate>, Fault> {
    let folder = tempfile::tempdir().unwrap();
    write_labels(folder.path());
    let plan = plan_of(&format!("{PHANTOMS}{MASK_BY_LABELS}{AFTER_MASK}{TEST}"), folder.path());
    let source = &plan.sources[0].source;
    let scan = Arc::new(source.read(&source.list().unwrap()[0]).unwrap());
    let config = "argv = [\"sh\", \"-c\", \"cp \\\"$0/labels.nii\\\" \\\"$1\\\"\", \"{graph}\", \"{output}\"]\n\
                  scheme = \"custom\"\norgans = { liver = { ids = [1] } }";
    let mask = CommandMask::new(toml::from_str(config).unwrap(), folder.path()).unwrap().mask(&scan).unwrap();
    let masked = MaskedScan { scan, mask };
    std::fs::write(folder.path().join("change.py"), CHANGE).unwrap();
    let config = format!("argv = {script}\nrules = {{ min_diameter_voxels = 1.5 }}\n{more}");
    let config: CommandSynthesisConfig = toml::from_str(&config).unwrap();
    let organs: Vec<Organ> = masked.mask.organs.to_vec();
    let rules = Arc::new(Rules::new(config.rules.clone(), &organs, HuWindow::ABDOMEN).unwrap());
    let stage = CommandSynthesis::new(&config, rules, folder.path()).unwrap();
    let plan = stage.site_plan(&masked, &organs[0])?;
    for attempt in 0..20 {
        if let Attempt::Candidate(candidate) = plan.attempt(AttemptKey::new(Key::root(5), attempt))? {
            let before = masked.scan.volume.voxels.hu_of(candidate.region);
            assert_eq!(before, candidate.before);
            for (index, &label) in masked.mask.labels.cut(candidate.region).as_slice().iter().enumerate() {
                let changed = candidate.after.as_slice()[index] != before.as_slice()[index];
                assert!(label == organs[0].label || !changed, "voxels outside of the liver keep their bits");
            }
            return Ok(Some(*candidate));
        }
    }
    Ok(None)
}

/// Makes every voxel 30.25 HU darker, and marks the darker half of the box as tumor.
const CHANGE: &str = r#"
import array, gzip, sys
image, output, tumor = sys.argv[1:]
raw = gzip.decompress(open(image, "rb").read())
header, hu = raw[:352], array.array("f", raw[352:])
open(output, "wb").write(header + array.array("f", [value - 30.25 for value in hu]).tobytes())
limit = sorted(hu)[len(hu) // 2]
open(tumor, "wb").write(header + array.array("f", [float(value < limit) for value in hu]).tobytes())
"#;

const CHANGE_ARGV: &str = "[\"python3\", \"{graph}/change.py\", \"{image}\", \"{output}\", \"{tumor_output}\"]";

fn voxels_of_tumor(candidate: &Candidate) -> usize {
    candidate.tumor.as_slice().iter().filter(|&&inside| inside != 0).count()
}

#[test]
fn program_changes_outside_healthy_organ_are_discarded_or_fault() {
    if !has_python() {
        return;
    }
    let restored = synthesize(CHANGE_ARGV, "margin_mm = 60").unwrap().expect("a tumor");
    let pairs = restored.after.as_slice().iter().zip(restored.before.as_slice());
    let changes: Vec<f32> = pairs.filter(|(is, was)| is != was).map(|(is, was)| is - was).collect();
    assert!(changes.len() > 100 && changes.iter().all(|hu| *hu == -30.0), "integer HU, as in the scan");
    let fault = synthesize(CHANGE_ARGV, "margin_mm = 60\noutside = \"fault\"").unwrap_err();
    assert_eq!(fault.kind, FaultKind::Mismatch);
    assert!(fault.message.contains("voxels outside of the healthy liver, expected none"), "{fault}");
}

#[test]
fn tumor_by_program_has_measured_geometry() {
    if !has_python() {
        return;
    }
    let by_rules = synthesize(CHANGE_ARGV, "margin_mm = 60").unwrap().expect("a tumor");
    let own = synthesize(CHANGE_ARGV, "margin_mm = 60\ntumor = \"program\"").unwrap().expect("a tumor");
    let voxels = voxels_of_tumor(&own);
    assert_ne!(voxels, voxels_of_tumor(&by_rules));
    assert!((own.geometry.volume_mm3 - voxels as f64 * 8.0 * 8.0 * 12.0).abs() < 1e-3 * own.geometry.volume_mm3);
    assert!(own.geometry.clipped_fraction > 0.0 && own.geometry.boundary_distance_mm > 0.0);
    let site = [0, 1, 2].map(|axis| own.geometry.site_voxel[axis] - own.region.start[axis]);
    assert_eq!(own.tumor[site], 1);
    assert!(
        own.labels.as_slice().iter().zip(own.tumor.as_slice()).all(|(&label, &inside)| (label == 2) == (inside != 0))
    );
}

#[test]
fn difference_is_added_to_box() {
    // The box itself as a difference: every healthy voxel doubles.
    let script = "[\"sh\", \"-c\", \"cp \\\"$0\\\" \\\"$1\\\"\", \"{image}\", \"{output}\"]";
    let doubled = synthesize(script, "output_form = \"difference\"\nmargin_mm = 0").unwrap().expect("a tumor");
    let pairs = doubled.after.as_slice().iter().zip(doubled.before.as_slice());
    assert!(pairs.clone().filter(|(is, was)| is != was).all(|(is, was)| *is == 2.0 * was));
    assert!(pairs.filter(|(is, was)| is != was).count() > 10);
    // Output without changes is a tumor too, which the quality test rejects as invisible.
    let same = synthesize(script, "").unwrap().expect("a tumor");
    assert_eq!(same.after, same.before);
}

#[test]
fn output_with_several_images_is_a_fault() {
    let fault = synthesize("[\"cat\"]", "exchange = \"pipe\"").unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unsupported);
    assert!(fault.message.starts_with("an image from the program: "), "{fault}");
}

#[test]
fn folder_of_binary_masks_is_read() {
    let folder = tempfile::tempdir().unwrap();
    write_labels(folder.path());
    let script = "for name in kidney_left kidney_right; do cp \"$0/labels.nii\" \"$1/$name.nii\"; done";
    let organs = format!(
        "[stages.organs]\nkind = \"command\"\ninputs = [\"phantoms\"]\noutput_form = \"folder\"\noutput = \"{{name}}.nii\"\n\
         image = \"case_0000.nii\"\norgans = [\"kidney\"]\n\
         argv = [\"sh\", \"-c\", '''[ -s \"$2/case_0000.nii\" ] && {script}''', \"{{graph}}\", \"{{outputs}}\", \"{{input}}\"]\n"
    );
    let plan = plan_of(&format!("{PHANTOMS}{organs}{AFTER_MASK}{TEST}"), folder.path());
    let source = &plan.sources[0].source;
    let scan = source.read(&source.list().unwrap()[0]).unwrap();
    let mask = plan.masks[0].mask.mask(&scan).unwrap();
    assert_eq!(mask.labels.as_slice().iter().filter(|&&label| label == 5).count(), 24 * 20 * 16);
    let incomplete = organs.replace("kidney_left kidney_right", "kidney_left");
    let plan = plan_of(&format!("{PHANTOMS}{incomplete}{AFTER_MASK}{TEST}"), folder.path());
    let fault = plan.masks[0].mask.mask(&scan).unwrap_err();
    assert_eq!(fault.message, "expected a mask of `kidney_right` for kidney, got none");
}

#[test]
fn parallel_limits_number_of_programs() {
    let folder = tempfile::tempdir().unwrap();
    write_labels(folder.path());
    std::fs::create_dir(folder.path().join("now")).unwrap();
    let script = "touch \"$0/now/$$\"; ls \"$0/now\" | wc -l >> \"$0/counts\"; sleep 0.3; rm \"$0/now/$$\"; cat \"$0/labels.nii\" > \"$1\"";
    let organs = format!(
        "[stages.organs]\nkind = \"command\"\ninputs = [\"phantoms\"]\nparallel = 2\nscheme = \"custom\"\n\
         organs = {{ liver = {{ ids = [1] }} }}\nargv = [\"sh\", \"-c\", '''{script}''', \"{{graph}}\", \"{{output}}\"]\n"
    );
    let phantoms = PHANTOMS.replace("count = 3", "count = 8");
    let report = run_plan(plan_of(&format!("{phantoms}{organs}{AFTER_MASK}{TEST}"), folder.path()), folder.path(), 4);
    assert_eq!((report.scans, report.faults), (8, 0));
    let counts = std::fs::read_to_string(folder.path().join("counts")).unwrap();
    let counts: Vec<usize> = counts.split_whitespace().map(|count| count.parse().unwrap()).collect();
    assert_eq!((counts.len(), counts.iter().max()), (8, Some(&2)), "{counts:?}");
    assert!(
        rows::<freetumor::record::ScanRecord>(folder.path(), "scans")
            .iter()
            .all(|row| row.status == freetumor::record::Status::Done)
    );
}

#[test]
fn scratch_folder_is_empty_after_run() {
    let folder = tempfile::tempdir().unwrap();
    write_labels(folder.path());
    let scratch = folder.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let organs = "[stages.organs]\nkind = \"command\"\ninputs = [\"phantoms\"]\nscratch = \"scratch\"\nscheme = \"custom\"\n\
                  organs = { liver = { ids = [1] } }\n\
                  argv = [\"sh\", \"-c\", '''ls -a \"$0/scratch\" >> \"$0/listing\"; cat \"$0/labels.nii\" > \"$1\"''', \"{graph}\", \"{output}\"]\n";
    let report = run_plan(plan_of(&format!("{PHANTOMS}{organs}{AFTER_MASK}{TEST}"), folder.path()), folder.path(), 2);
    assert_eq!(report.faults, 0);
    assert!(std::fs::read_to_string(folder.path().join("listing")).unwrap().contains("freetumor-"));
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}
