//! Random histories of an archive and a graph: after each run, the folder has the content of a run of the last graph on the last state.

use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, run, withdraw};
use freetumor::graph::Plan;
use freetumor::random::{Key, RandomStream};
use freetumor::run::RunFolder;

use super::archive::Archive;
use super::assert_equal_content;
use super::graph_changes::without_pipeline;
use super::withdrawals::scan_request;

/// Number of histories in a normal test run; `FREETUMOR_HISTORIES=1000` runs more.
const HISTORIES: u64 = 3;
const RUNS: u64 = 5;
const CASES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Changes of the graph file.
const GRAPHS: [&[&str]; 6] = [
    &[],
    &["stages.synthesize.variants=2"],
    &["stages.filter.accept=[\"delta_hu < -20\"]"],
    &["stages.filter.accept=[\"delta_hu < -5\"]", "stages.filter.attempts=1"],
    &["[sinks.second]\nkind = 'patches'\ninputs = ['filter', 'filter.rejected']"],
    &["pipeline.epoch_scans=2"],
];

/// An archive with its run folder, and the choices so far.
struct History {
    archive: Archive,
    random: RandomStream,
    content: usize,
    graph: usize,
    /// Cases that are withdrawn: they never come back.
    withdrawn: Vec<&'static str>,
}

impl History {
    fn exists(&self, case: &str) -> bool {
        self.archive.path("ct").join(case).exists()
    }

    /// Applies random changes to the archive.
    fn change_archive(&mut self) {
        for case in CASES.into_iter().filter(|case| !self.withdrawn.contains(case)).collect::<Vec<_>>() {
            let archive = &self.archive;
            match self.random.index(9) {
                0 | 1 => {
                    self.content += 1;
                    archive.add(case, self.content);
                }
                2 if self.exists(case) => archive.remove(case),
                3 if archive.path("ct").join(case).join("labels.nii").exists() => {
                    archive.remove(&format!("{case}/labels.nii"));
                }
                4 if self.exists(case) => archive.write(&format!("{case}/labels.nii"), b"not a label file"),
                5 if self.exists(case) => archive.write(&format!("{case}/ct.nii"), b"not a scan"),
                6 if self.exists(case) => archive.touch(&format!("{case}/ct.nii")),
                _ => {}
            }
        }
        // A source without scans is an error.
        if CASES.iter().all(|case| !self.exists(case)) {
            let case = CASES.into_iter().find(|case| !self.withdrawn.contains(case)).unwrap_or("f");
            self.content += 1;
            self.archive.add(case, self.content);
        }
    }

    fn plan(&self) -> Plan {
        Plan { max_missing: 1.0, ..self.archive.plan_with(3, GRAPHS[self.graph]) }
    }

    fn run(&self, out: &str, limit: Option<usize>) {
        let options = RunOptions { limit, ..RunOptions::default() };
        run(self.plan(), &self.archive.path(out), &options, &Arc::new(Progress::default())).unwrap();
    }

    /// Removes the last commit, as if the process had been killed before it.
    fn interrupt(&self) {
        let head = RunFolder::open(self.archive.path("run")).unwrap().head();
        if let Some(head) = head.filter(|head| *head > 0) {
            std::fs::remove_file(self.archive.path(&format!("run/epochs/{head:012}.json"))).unwrap();
        }
    }

    /// Withdraws a scan, and removes it from the archive, so that a new run does not ingest it either.
    fn withdraw(&mut self) {
        let folder = RunFolder::open(self.archive.path("run")).unwrap();
        let ingested = folder.ingested(folder.next_ingest().unwrap()).unwrap().entries;
        let of_run = |case: &&str| ingested.contains_key(&self.archive.scan_id(case));
        let Some(case) = CASES.into_iter().filter(|case| self.exists(case)).find(of_run) else { return };
        if self.withdrawn.len() > 1 || CASES.into_iter().filter(|case| self.exists(case)).count() < 2 {
            return;
        }
        let request = scan_request([self.archive.scan_id(case)]);
        let (path, options) = (self.archive.path("run"), RunOptions::default());
        withdraw(self.plan(), &path, &request, false, &options, &Arc::new(Progress::default())).unwrap();
        self.archive.remove(case);
        self.withdrawn.push(case);
    }
}

#[test]
fn run_folder_has_content_of_last_state_after_random_changes() {
    let histories = std::env::var("FREETUMOR_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES);
    for history in 0..histories {
        let random = Key::root(23).number("history", history).stream("changes");
        let content = 10 * history as usize;
        let mut state = History { archive: Archive::new(), random, content, graph: 0, withdrawn: Vec::new() };
        for step in 0..RUNS {
            state.change_archive();
            if state.random.chance(0.5) {
                state.graph = state.random.index(GRAPHS.len());
            }
            let limit = state.random.chance(0.3).then_some(1);
            state.run("run", limit);
            match state.random.index(4) {
                0 => {
                    state.interrupt();
                    if state.random.chance(0.5) {
                        state.graph = state.random.index(GRAPHS.len());
                    }
                }
                1 => state.withdraw(),
                _ => {}
            }
            if limit.is_none() {
                let context = format!("history {history}, run {step}, graph {}", state.graph);
                state.run("run", None);
                state.run("new", None);
                let content = |out: &str| without_pipeline(state.archive.content(out));
                assert_equal_content(&content("run"), &content("new"), &context);
                std::fs::remove_dir_all(state.archive.path("new")).unwrap();
            }
        }
    }
}
