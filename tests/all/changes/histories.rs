//! Random histories of an archive: after each run, the folder has the content of a run that saw only the last state.

use freetumor::dataflow::RunOptions;
use freetumor::random::Key;

use super::archive::Archive;

/// Number of histories in a normal test run; `FREETUMOR_HISTORIES=1000` runs more.
const HISTORIES: u64 = 3;
const RUNS: u64 = 4;
const CASES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Applies random changes to an archive.
fn change(archive: &Archive, random: &mut freetumor::random::RandomStream, content: &mut usize) {
    for case in CASES {
        let exists = archive.path("ct").join(case).exists();
        match random.index(9) {
            0 | 1 => {
                *content += 1;
                archive.add(case, *content);
            }
            2 if exists => archive.remove(case),
            3 if exists && archive.path("ct").join(case).join("labels.nii").exists() => {
                archive.remove(&format!("{case}/labels.nii"));
            }
            4 if exists => archive.write(&format!("{case}/labels.nii"), b"not a label file"),
            5 if exists => archive.write(&format!("{case}/ct.nii"), b"not a scan"),
            6 if exists => archive.touch(&format!("{case}/ct.nii")),
            _ => {}
        }
    }
    // A source without scans is an error.
    if CASES.iter().all(|case| !archive.path("ct").join(case).exists()) {
        archive.add("a", *content);
    }
}

#[test]
fn run_folder_has_content_of_last_state_after_random_changes() {
    let histories = std::env::var("FREETUMOR_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES);
    for history in 0..histories {
        let archive = Archive::new();
        let mut random = Key::root(23).number("history", history).stream("changes");
        let mut content = 10 * history as usize;
        for step in 0..RUNS {
            let context = format!("history {history}, run {step}");
            change(&archive, &mut random, &mut content);
            let limit = random.chance(0.3).then_some(1);
            archive.run_all("run", &RunOptions { limit, ..RunOptions::default() });
            if limit.is_none() {
                super::assert_as_new(&archive, &context);
            }
        }
    }
}
