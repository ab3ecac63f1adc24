//! Programs that fail, hang, write too much or write invalid output: each is a row of `faults`, and the run continues.

use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::record::{FaultRecord, ScanRecord, Status};

use super::{AFTER_MASK, MASK_BY_LABELS, PHANTOMS, TEST, rows, run_plan, write_labels};
use crate::dataflow::plan_of;

/// Returns a stage whose program runs `script` in its first call and `valid` in all others; `$0` is the graph's folder.
fn stage(name: &str, input: &str, script: &str, valid: &str, more: &str) -> String {
    let argument = if more.contains("pipe") { "" } else { ", \"{output}\"" };
    let script = format!("mkdir \"$0/first\" 2>/dev/null || {{{{ {valid}; exit; }}}}; {script}");
    format!(
        "[stages.{name}]\nkind = \"command\"\ninputs = [\"{input}\"]\n\
         argv = [\"sh\", \"-c\", '''{script}''', \"{{graph}}\"{argument}]\n{more}\n"
    )
}

/// Runs three scans, of which the first one fails, and returns its fault.
fn fault(text: &str, folder: &Path) -> Fault {
    let report = run_plan(plan_of(text, folder), folder, 2);
    let mut faults: Vec<FaultRecord> = rows(folder, "faults");
    let statuses: Vec<Status> = rows::<ScanRecord>(folder, "scans").into_iter().map(|row| row.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == Status::Done).count(), 2, "{faults:?}");
    assert_eq!((report.scans, report.faults, faults.len()), (3, 1, 1));
    assert!(report.accepted > 0, "the other scans have tumors");
    faults.remove(0).fault
}

fn mask_fault(script: &str, more: &str) -> Fault {
    let folder = tempfile::tempdir().unwrap();
    write_labels(folder.path());
    let valid = if more.contains("pipe") { "cat \"$0/labels.nii\"" } else { "cat \"$0/labels.nii\" > \"$1\"" };
    let more = format!("scheme = \"custom\"\norgans = {{ liver = {{ ids = [1] }} }}\n{more}");
    let text = format!("{PHANTOMS}{}{AFTER_MASK}{TEST}", stage("organs", "phantoms", script, valid, &more));
    let fault = fault(&text, folder.path());
    assert_eq!((fault.stage, fault.node.as_deref()), (Stage::Mask, Some("organs")));
    // The script writes the id of a process that must have ended.
    if let Ok(id) = std::fs::read_to_string(folder.path().join("pid")) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim()));
        assert!(stat.is_err() || stat.unwrap().contains(") Z "), "process {id} is running");
    }
    fault
}

#[track_caller]
fn assert_fault(fault: &Fault, kind: FaultKind, message: &str) {
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(message), "{fault}");
    assert!(!fault.message.contains("/tmp") && !fault.message.contains("freetumor-"), "{fault}");
}

#[test]
fn fault_has_exit_code_and_stderr_without_paths() {
    let fault = mask_fault("echo start >&2; echo \"no weights in $PWD, /home/jane_doe/w.pt\" >&2; exit 3", "");
    assert_fault(
        &fault,
        FaultKind::Program,
        "the program ended with exit code 3; standard error: start | no weights in {folder}, …",
    );
    assert_fault(&mask_fault("kill -ABRT $$", ""), FaultKind::Program, "was ended by signal 6; standard error: empty");
}

#[test]
fn program_beyond_the_time_limit_is_killed_with_its_children() {
    let hang = "sleep 300 & echo $! > \"$0/pid\"; sleep 300";
    for more in ["time_limit_s = 3.0", "time_limit_s = 3.0\nexchange = \"pipe\""] {
        assert_fault(&mask_fault(hang, more), FaultKind::Program, "exceeded 3 s and was stopped");
    }
}

#[test]
fn missing_and_invalid_outputs_are_reported() {
    assert_fault(&mask_fault(":", ""), FaultKind::Missing, "expected labels from the program, got none");
    let garbage = "head -c 5000 /dev/zero | tr '\\0' x";
    assert_fault(&mask_fault(&format!("{garbage} > \"$1\""), ""), FaultKind::Corrupt, "labels from the program: ");
    assert_fault(&mask_fault(garbage, "exchange = \"pipe\""), FaultKind::Corrupt, "labels from the program: ");
    assert_fault(
        &mask_fault("head -c 400 \"$0/labels.nii\" > \"$1\"", ""),
        FaultKind::Truncated,
        "labels from the program: ",
    );
    assert_fault(&mask_fault("mkdir \"$1\"", ""), FaultKind::Unsupported, "got a folder");
}

#[test]
fn excessive_output_is_stopped() {
    let file = mask_fault("yes > \"$1\"", "scratch_limit_mib = 2");
    assert_fault(&file, FaultKind::TooLarge, "exceeded 2 MiB in its scratch folder");
    let pipe = mask_fault("yes", "exchange = \"pipe\"");
    assert_fault(&pipe, FaultKind::TooLarge, "bytes of output and was stopped");
}

#[cfg(target_os = "linux")]
#[test]
fn program_above_memory_limit_is_killed() {
    let hog = mask_fault("x=0123456789abcdef; while :; do x=$x$x; done", "memory_limit_mib = 64");
    assert!(matches!(hog.kind, FaultKind::Program | FaultKind::TooLarge), "{hog}");
    let hogs = "for i in 1 2 3 4 5 6 7 8; do (x=0123456789abcdef; i=0; \
                while [ $i -lt 20 ]; do x=$x$x; i=$((i+1)); done; sleep 300) & done; wait";
    assert_fault(&mask_fault(hogs, "memory_limit_mib = 64"), FaultKind::TooLarge, "exceeded 64 MiB of memory");
}

#[test]
fn faults_name_synthesis_and_score_stages() {
    let own = |stages: String| {
        let folder = tempfile::tempdir().unwrap();
        write_labels(folder.path());
        fault(&format!("{PHANTOMS}{MASK_BY_LABELS}{stages}{TEST}"), folder.path())
    };
    let synthesis = |script: &str| {
        let contrast = "[stages.contrast]\nkind = \"intensity\"\ninputs = [\"tumors\"]\n";
        let more = "rules = { min_diameter_voxels = 1.5 }";
        let fault = own(stage("tumors", "organs", script, "cp input/image.nii.gz \"$1\"", more) + contrast);
        assert_eq!((fault.stage, fault.node.as_deref()), (Stage::Synthesize, Some("tumors")));
        fault
    };
    assert_fault(&synthesis("echo bad >&2; exit 9"), FaultKind::Program, "ended with exit code 9; standard error: bad");
    let elsewhere = synthesis("cp \"$0/labels.nii\" \"$1\"");
    assert_fault(&elsewhere, FaultKind::Mismatch, "expected an image of the box's shape");

    let score = |script: &str| {
        let more = "scores = [\"realness\", \"delta_hu\"]\nmargin_mm = 0";
        let valid = "echo '{{\"realness\": 0.5, \"delta_hu\": 0}}' > \"$1\"";
        let tumors = "[stages.tumors]\nkind = \"rules\"\ninputs = [\"organs\"]\nmin_diameter_voxels = 1.5\n";
        let fault = own(tumors.to_owned() + &stage("contrast", "tumors", script, valid, more));
        assert_eq!((fault.stage, fault.node.as_deref()), (Stage::Score, Some("contrast")));
        assert!(fault.message.starts_with("variant 0: liver, attempt 0: expected"), "{fault}");
        fault
    };
    assert_fault(&score(":"), FaultKind::Missing, "expected scores from the program, got none");
    let invalid = score("echo '{{\"realness\": 2, \"delta_hu\": 0}}' > \"$1\"");
    assert_fault(&invalid, FaultKind::Corrupt, "expected `realness` of 0 to 1 from the program, got 2");
    let large = score("head -c 100000 /dev/zero > \"$1\"");
    assert_fault(&large, FaultKind::TooLarge, "expected at most 65536 bytes of scores");
}

#[cfg(target_os = "linux")]
#[test]
fn killed_run_ends_programs_and_removes_scratch() {
    use std::time::{Duration, Instant};

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("scratch")).unwrap();
    let organs = "[stages.organs]\nkind = \"command\"\ninputs = [\"phantoms\"]\norgans = [\"liver\"]\nscratch = \"scratch\"\n\
                  argv = [\"sh\", \"-c\", '''echo \"$$ $FREETUMOR_PATIENT_KEY\" > \"$0/new\"; mv \"$0/new\" \"$0/pid\"; sleep 300''', \"{graph}\", \"{output}\"]\n";
    std::fs::write(folder.path().join("a.toml"), format!("{PHANTOMS}{organs}{AFTER_MASK}{TEST}")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.args(["run", "a.toml", "--out", "run"]).current_dir(folder.path());
    command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only");
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut run = command.spawn().unwrap();
    let wait_until = |event: &str, holds: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(60), "{event}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_until("the program starts", &|| folder.path().join("pid").exists());
    let scratch = || std::fs::read_dir(folder.path().join("scratch")).unwrap().count();
    assert_eq!(scratch(), 1);
    run.kill().unwrap();
    run.wait().unwrap();
    let id = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(id.trim().parse::<u32>().is_ok(), "the secret is not passed to the program: {id}");
    wait_until("scratch is removed", &|| scratch() == 0);
    wait_until("the program ends", &|| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn attempts_on_failed_scan_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    // Every call adds a file; the fifth call fails, after earlier attempts on its scan.
    let script = "mkdir -p \"$0/calls\"; n=$(ls \"$0/calls\" | wc -l); : > \"$0/calls/$n\"; [ $n -ne 4 ] || exit 4; \
                  echo '{{\"realness\": 0.5, \"delta_hu\": 0}}' > \"$1\"";
    let text = format!(
        "{PHANTOMS}{MASK_BY_LABELS}[stages.tumors]\nkind = \"rules\"\ninputs = [\"organs\"]\nvariants = 3\n\
         min_diameter_voxels = 1.5\n[stages.contrast]\nkind = \"command\"\ninputs = [\"tumors\"]\n\
         argv = [\"sh\", \"-c\", '''{script}''', \"{{graph}}\", \"{{output}}\"]\n\
         scores = [\"realness\", \"delta_hu\"]\n{TEST}"
    );
    let progress = Arc::new(Progress::default());
    let options = RunOptions { threads: 1, ..RunOptions::default() };
    let report = run(plan_of(&text, folder.path()), &folder.path().join("run"), &options, &progress).unwrap();
    let snapshot = progress.snapshot();
    assert_eq!((report.scans, report.faults, snapshot.faulted), (3, 1, 1));
    assert_eq!((snapshot.accepted, snapshot.rejected), (report.accepted, report.rejected));
    assert!(report.new_attempts > report.accepted + report.rejected, "the failed scan had attempts: {report:?}");
}

#[test]
fn scan_without_organ_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    write_labels(folder.path());
    // The file contains no id other than 1.
    let more = "scheme = \"custom\"\norgans = { liver = { ids = [2] } }";
    let valid = "cat \"$0/labels.nii\" > \"$1\"";
    let text = format!("{PHANTOMS}{}{AFTER_MASK}{TEST}", stage("organs", "phantoms", valid, valid, more));
    let report = run_plan(plan_of(&text, folder.path()), folder.path(), 2);
    assert_eq!((report.scans, report.faults, report.scans_without_organs), (3, 0, 3));
}
