//! The effects of a graph on a run folder before it runs: the scans that the next run would process, test again, remove and keep.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::changes::{Listing, ScanChanges, check_missing};
use super::committed_scans::keys_of;
use super::finished::scans_of;
use super::folder_report::for_each_row;
use super::held_out::contents_without_saving;
use super::retest::select_retested;
use super::run_manifest::manifest;
use super::telemetry::mean_scan_seconds;
use crate::error::Result;
use crate::graph::Plan;
use crate::id::ScanId;
use crate::record::{SampleKind, SampleRow};
use crate::run::RunFolder;
use crate::store::serialize_path;

/// The effects of a graph on a run folder.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunPreview {
    /// The pipeline's name.
    pub pipeline: String,
    /// The run folder; in JSON, bytes that are not UTF-8 are replaced.
    #[serde(serialize_with = "serialize_path")]
    pub folder: PathBuf,
    /// The differences of the graph from that of the last run; empty if it is the same.
    pub graph_change: Vec<String>,
    /// Scans that the run folder does not have.
    pub new_scans: u64,
    /// Scans whose files changed.
    pub changed_scans: Vec<ScanId>,
    /// Scans that are processed again because the graph changed.
    pub affected_scans: Vec<ScanId>,
    /// Scans whose stored candidates are tested again because quality tests or sinks changed.
    pub retested_scans: Vec<ScanId>,
    /// Pending scans, and duplicates of changed or removed scans.
    pub retried_scans: Vec<ScanId>,
    /// Scans whose rows and samples are removed.
    pub removed_scans: Vec<ScanId>,
    /// Scans that are processed: new scans are estimated by the mean of the committed ones.
    pub processed: ScanTotals,
    /// Scans whose candidates are tested again with stored scores.
    pub retested: ScanTotals,
    /// Scans that are kept as they are.
    pub kept: ScanTotals,
    /// The expected time of the processed scans in seconds over all threads, by the telemetry of earlier runs; absent without telemetry.
    pub thread_seconds: Option<f64>,
}

/// Numbers of scans with their candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScanTotals {
    /// Scans.
    pub scans: u64,
    /// Attempts at tumors.
    pub attempts: u64,
    /// Calls of score stages.
    pub scores: u64,
    /// Accepted samples with files.
    pub files: u64,
}

impl ScanTotals {
    fn add(&mut self, other: &Self) {
        self.scans += other.scans;
        self.attempts += other.attempts;
        self.scores += other.scores;
        self.files += other.files;
    }

    /// Adds `scans` scans with the mean values of these totals.
    fn add_mean(&mut self, mean: &Self, scans: u64) {
        let of_scans = |total: u64| (total * scans).checked_div(mean.scans).unwrap_or(0);
        let ScanTotals { attempts, scores, files, .. } = *mean;
        self.add(&Self { scans, attempts: of_scans(attempts), scores: of_scans(scores), files: of_scans(files) });
    }
}

/// Compares a graph with a run folder, which is only read.
///
/// # Errors
/// If the graph cannot run in the folder, a source cannot be listed or has lost too many scans, or the folder cannot be read.
pub fn preview(plan: &Plan, folder: &Path) -> Result<RunPreview> {
    let plan = plan.clone().with_keyed_digest()?;
    let run = RunFolder::open(folder)?;
    let graph_change = run.check_resumable(&manifest(&plan)?)?;
    let scans = scans_of(&run, &plan, contents_without_saving(&plan, &**run.store())?)?;
    let keys = |ids: &HashSet<ScanId>| keys_of(&run, ids);
    let mut changes = ScanChanges::new(&plan, &Listing::of(&plan)?, &scans, &keys)?;
    check_missing(&plan, &scans, &changes)?;
    select_retested(&run, &run.current_manifest()?.graphs, &plan, &scans, &mut changes)?;
    let totals = totals_by_scan(&run)?;
    let total = |scan_id: &ScanId| totals.get(scan_id).copied().unwrap_or_default();
    let ids = |entries: &[crate::ingest::ScanEntry]| entries.iter().map(|entry| entry.scan_id).collect::<Vec<_>>();
    let mut preview = RunPreview {
        pipeline: plan.name.clone(),
        folder: folder.to_owned(),
        graph_change,
        new_scans: changes.new.len() as u64,
        changed_scans: ids(&changes.changed),
        affected_scans: ids(&changes.affected),
        retried_scans: ids(&changes.pending),
        retested_scans: changes.retested,
        removed_scans: changes.gone,
        ..RunPreview::default()
    };
    preview.retried_scans.extend(changes.duplicates.iter().map(|(_, entry)| entry.scan_id));
    let again = [&preview.changed_scans, &preview.affected_scans, &preview.retried_scans];
    let again: HashSet<ScanId> = again.into_iter().flatten().copied().collect();
    let retested: HashSet<ScanId> = preview.retested_scans.iter().copied().collect();
    let removed: HashSet<ScanId> = preview.removed_scans.iter().copied().collect();
    let mut all = ScanTotals::default();
    for scan_id in scans.committed.keys() {
        let total = ScanTotals { scans: 1, ..total(scan_id) };
        all.add(&total);
        if again.contains(scan_id) {
            preview.processed.add(&total);
        } else if retested.contains(scan_id) {
            preview.retested.add(&total);
        } else if !removed.contains(scan_id) {
            preview.kept.add(&total);
        }
    }
    preview.processed.add_mean(&all, preview.new_scans);
    let seconds = mean_scan_seconds(&folder.join("telemetry"))?;
    preview.thread_seconds = seconds.map(|seconds| seconds * preview.processed.scans as f64);
    Ok(preview)
}

/// Counts the attempts, scores and accepted samples of each scan.
fn totals_by_scan(run: &RunFolder) -> Result<HashMap<ScanId, ScanTotals>> {
    let mut totals: HashMap<ScanId, ScanTotals> = HashMap::new();
    // Two quality tests share candidates and scores.
    let mut known = HashSet::new();
    for_each_row::<SampleRow>(run, |row| {
        let record = &row.record;
        let total = totals.entry(record.scan_id).or_default();
        total.files += u64::from(record.outcome.is_accepted());
        if record.kind == SampleKind::Synthetic && known.insert(record.candidate_id) {
            total.attempts += 1;
            total.scores += if record.candidate_digest.is_some() { record.score_stages.len() as u64 } else { 0 };
        }
    })?;
    Ok(totals)
}
