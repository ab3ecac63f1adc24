//! Tests of exports from scans or masks that differ from those of the run.

use std::process::Command;

use freetumor::export::ExportOptions;
use serde_json::Value;

use super::{PHANTOMS, Run, files, layouts};

#[test]
fn export_refuses_scans_whose_voxel_digest_differs_and_exports_the_others() {
    let run = Run::new();
    std::fs::write(run.sibling("other.toml"), PHANTOMS.replace("seed = 5", "seed = 6")).unwrap();
    for (sink, layout) in layouts() {
        let options = ExportOptions { pipeline: Some(run.sibling("other.toml")), ..run.options(sink, layout.clone()) };
        let report = run.export(&options);
        let expected = files(&run.path.join("layouts").join(sink));
        if sink == "boxes" {
            assert!(report.is_complete() && files(&options.to) == expected);
            continue;
        }
        assert!((1..=3).contains(&report.refused.len()), "{sink}: {report:?}");
        for refusal in &report.refused {
            assert!(refusal.message.starts_with("expected voxels with digest "), "{refusal:?}");
            assert!(refusal.message.contains(", got ") && !refusal.samples.is_empty(), "{refusal:?}");
        }
        let skipped: usize = report.refused.iter().map(|refusal| refusal.samples.len()).sum();
        let accepted = run.folder.head_at(None).unwrap().counts.accepted as usize;
        assert_eq!(report.samples, accepted - skipped);
        if sink != "volumes" {
            let own = files(&options.to);
            let volumes = |name: &&String| name.ends_with(".nii.gz");
            assert_eq!(own.keys().filter(volumes).count(), 2 * report.samples);
            assert!(own.iter().filter(|(name, _)| volumes(name)).all(|(name, digest)| expected[name] == *digest));
        }
        // The original pipeline completes the same folder.
        let report = run.export(&run.options(sink, layout));
        assert!(report.is_complete() && report.scans_read < 7, "{sink}: {report:?}");
        assert_eq!(files(&options.to), expected, "{sink}");
    }
}

#[test]
fn export_refuses_scans_whose_mask_digest_differs() {
    let run = Run::new();
    let other =
        PHANTOMS.replace("organs = [\"liver\", \"pancreas\", \"kidney\"]", "organs = [\"liver\", \"pancreas\"]");
    std::fs::write(run.sibling("other.toml"), other).unwrap();
    let [(_, nnunet), ..] = layouts();
    let options = ExportOptions { pipeline: Some(run.sibling("other.toml")), ..run.options("out", nnunet) };
    let report = run.export(&options);
    assert_eq!(report.samples, 0);
    let message = &report.refused[0].message;
    assert!(
        message.starts_with("expected an organ mask with digest ") && message.contains(" from `organs`"),
        "{message}"
    );
}

#[test]
fn command_exits_with_1_and_names_scan_on_stderr() {
    let run = Run::new();
    std::fs::write(run.sibling("other.toml"), PHANTOMS.replace("seed = 5", "seed = 6")).unwrap();
    let export = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
        command
            .arg("export")
            .arg(&run.path)
            .arg("--to")
            .arg(run.sibling("out"))
            .args(["--layout", "nnunet"])
            .args(more);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let other = run.sibling("other.toml");
    let (code, stdout, stderr) = export(&["--pipeline", other.to_str().unwrap(), "--json"]);
    assert_eq!(code, Some(1), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let scan = report["refused"][0]["scan_id"].as_str().unwrap();
    assert!(stderr.contains(&format!("scan {scan}: expected voxels with digest ")), "{stderr}");
    let (code, stdout, stderr) = export(&[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains(" kept, "), "{stdout}");
    let (code, _, stderr) = export(&["--where", "organs = liver"]);
    assert!(code == Some(2) && stderr.contains("hint: did you mean `organ`?"), "{stderr}");
    let (code, _, stderr) = export(&["--buckets", "3"]);
    assert!(code == Some(2) && stderr.contains("--buckets has no effect on --layout nnunet"), "{stderr}");
    let (code, _, stderr) = export(&["--dataset-id", "1000"]);
    assert!(code == Some(2) && stderr.contains("--dataset-id: expected a number from 1 to 999"), "{stderr}");
}
