//! The dataflow's interface to the run folder: ingest manifests before processing, commits afterwards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, FaultKind, Result};
use crate::graph::Plan;
use crate::id::{ScanId, ScanVersion};
use crate::ingest::{HeldOut, PatientSecret, ScanEntry};
use crate::record::parquet::encode_part;
use crate::record::{FaultRecord, QualityGroup, QualityRecord, SampleRecord, Split, Status};
use crate::run::seal::seal;
use crate::run::spool::{ScanOutcome, Spool};
use crate::run::{
    Commit, EpochChanges, IngestEntry, IngestManifest, IngestedScans, Removal, Retest, RunFolder, RunWriter,
    ScansByEpoch, SourceGraph, Tag, TagName, Tombstones, graph_after, remove_scans, rows_of_scans,
};
use crate::store::DurableStorage;

use super::Epoch;
use super::acceptance_band::band_warnings;
use super::changes::{CommittedScan, RunScans, ScanChanges};
use super::committed_scans::{committed_scans, entries_of, keys_of};
use super::folder_report::{folder_report, for_each_row};
use super::held_out::held_out_contents;
use super::quality::{QualityChange, apply_changes};
use super::report::RunReport;
use super::retest::{retest, select_retested};
use super::run_manifest::{CODE_VERSION, manifest};
use super::schedule::EpochWork;
use super::selections::{SinkSelections, check_foreign};

/// Minimum interval of layout projections during a run; longer if projections would take more than 2% of the time.
const PROJECT_INTERVAL: Duration = Duration::from_secs(30);

/// The writer of a run folder for the dataflow: ingest manifests and commits of epochs.
pub struct Ledger {
    folder: PathBuf,
    /// The secret of tombstones.
    secret: Option<PatientSecret>,
    /// For each source, the digests of the stages and sinks that its scans pass.
    graphs: BTreeMap<String, SourceGraph>,
    /// The differences of the graph from that of the last epoch when the folder was opened.
    graph_change: Vec<String>,
    /// The same digests of the graph of the last epoch when the folder was opened.
    earlier_graphs: BTreeMap<String, SourceGraph>,
    /// Attempts by group when the folder was opened.
    earlier_quality: BTreeMap<QualityGroup, i64>,
    /// The first epoch of this version of freetumor.
    first_epoch_of_version: Epoch,
    sinks: SinkSelections,
    state: Mutex<State>,
}

struct State {
    writer: RunWriter,
    /// Attempts by group.
    quality: BTreeMap<QualityGroup, i64>,
    /// The rows of all scans.
    scans: HashMap<ScanId, CommittedScan>,
    /// The contents of the held-out scans.
    held_out: HeldOut,
    /// The scans that failed in this run, and those that are pending after it.
    failures: BTreeMap<ScanId, Status>,
    last_projection: Instant,
    /// Duration of the last projection.
    projection_time: Duration,
}

impl Ledger {
    /// Creates a run folder for a plan or resumes an existing one; returns the ledger and the spool.
    ///
    /// # Errors
    /// If the folder belongs to another pipeline, is locked by another process, or cannot be written.
    pub fn open(folder: &Path, plan: &Plan) -> Result<(Self, Spool)> {
        let writer = RunFolder::create_or_resume(folder, &manifest(plan)?)?;
        writer.folder().check_files()?;
        writer.record_private_pipeline(&plan.folder, &plan.resolved)?;
        let sinks = SinkSelections::of(plan);
        let first_epoch_of_version = writer.folder().first_epoch_of_version(CODE_VERSION)?;
        let earlier_graphs = writer.folder().current_manifest()?.graphs;
        if writer.next_epoch() > 0 {
            // Before any work: a layout with files of the user would be refused at the end.
            check_foreign(folder, &writer.project(sinks.layouts())?)?;
        }
        let spool = writer.spool(sinks.layouts());
        spool.clear_committed(writer.next_epoch())?;
        let graph_change = writer.graph_change().to_vec();
        if !graph_change.is_empty() && manifest(plan)?.may_change_results(&writer.folder().current_manifest()?) {
            // Results of another graph.
            (writer.next_epoch()..writer.next_ingest()).try_for_each(|epoch| spool.clear(epoch))?;
        }
        let quality = writer.folder().quality(None)?;
        let scans = committed_scans(writer.folder())?;
        let earlier_quality = quality.clone();
        let state = State {
            writer,
            quality,
            scans,
            held_out: HeldOut::default(),
            failures: BTreeMap::new(),
            last_projection: Instant::now(),
            projection_time: Duration::ZERO,
        };
        let (folder, secret) = (folder.to_owned(), plan.patient_secret()?);
        Ok((
            Self {
                folder,
                secret,
                graphs: plan.source_graphs(),
                graph_change,
                earlier_graphs,
                earlier_quality,
                first_epoch_of_version,
                sinks,
                state: Mutex::new(state),
            },
            spool,
        ))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic with the lock held ends the run; durable files are complete in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes the contents of the held-out scans of a plan. Call this method before scans are processed.
    ///
    /// # Errors
    /// If a held-out scan cannot be read.
    pub fn hold_out(&self, plan: &Plan, threads: usize) -> Result<()> {
        let held_out = held_out_contents(plan, &*self.store(), threads)?;
        self.state().held_out = held_out;
        Ok(())
    }

    /// Returns the epochs that are ingested but not committed, and the first epoch that is not ingested.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn open_epochs(&self) -> Result<(Vec<EpochWork>, Epoch)> {
        let state = self.state();
        let next = state.writer.next_ingest();
        let open = (state.writer.next_epoch()..next).map(|epoch| {
            let folder = state.writer.folder();
            let (manifest, _) = folder.ingest_manifest(epoch)?;
            let mut entries = folder.scan_entries(epoch)?;
            let is_current = |entry: &IngestEntry| entry.graph == graph_after(&self.graphs, &entry.source);
            for (entry, _) in entries.iter_mut().zip(&manifest.entries).filter(|(_, ingested)| !is_current(ingested)) {
                // Without a version, the scan becomes pending, and a later epoch processes it by the current graph.
                entry.version = ScanVersion::OUTDATED;
            }
            let IngestManifest { retested, removed, withdrawn, .. } = manifest;
            let mut retested = retested;
            if !has_current_retests(&retested, &self.graphs) {
                let outdated: HashSet<ScanId> = retested.drain(..).map(|entry| entry.scan_id).collect();
                let outdated = entries_of(folder, &outdated)?.into_iter();
                entries.extend(outdated.map(|entry| ScanEntry { version: ScanVersion::OUTDATED, ..entry }));
            }
            let entries = entries.into_iter().map(Arc::new).collect();
            Ok(EpochWork { epoch, entries, retested, removed, withdrawn, replaces: false })
        });
        Ok((open.collect::<Result<_>>()?, next))
    }

    /// Returns the scans of all manifests, and the rows of those that are committed.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn scans(&self) -> Result<RunScans> {
        let state = self.state();
        let IngestedScans { entries, withdrawn: tombstones } = state.writer.ingested()?;
        let mut withdrawn = Tombstones::new(self.secret.clone());
        withdrawn.extend(tombstones);
        let graph_change = state.writer.graph_change().to_vec();
        let held_out = state.held_out.clone();
        let first_epoch_of_version = self.first_epoch_of_version;
        Ok(RunScans {
            ingested: entries,
            committed: state.scans.clone(),
            withdrawn,
            held_out,
            graph_change,
            first_epoch_of_version,
        })
    }

    /// Returns how the graph differed from that of the last epoch when the folder was opened; empty if it was the same.
    pub fn graph_change(&self) -> &[String] {
        &self.graph_change
    }

    /// Returns the keys of scans, from `RUN/private`.
    ///
    /// # Errors
    /// If a private file cannot be read.
    pub fn keys_of(&self, scans: &HashSet<ScanId>) -> Result<HashMap<ScanId, String>> {
        keys_of(self.state().writer.folder(), scans)
    }

    /// Returns the last ingested entries of scans, with their keys from `RUN/private`.
    ///
    /// # Errors
    /// If a private file cannot be read.
    pub fn entries_of(&self, scans: &HashSet<ScanId>) -> Result<Vec<ScanEntry>> {
        entries_of(self.state().writer.folder(), scans)
    }

    /// Returns the scans with a fault for which `selects` returns true.
    ///
    /// # Errors
    /// If the table `faults` cannot be read.
    pub fn failed_scans(&self, selects: &dyn Fn(&FaultRecord) -> bool) -> Result<HashSet<ScanId>> {
        let folder = self.state().writer.folder().clone();
        let mut failed = HashSet::new();
        for_each_row::<FaultRecord>(&folder, |row| {
            if selects(&row) {
                failed.insert(row.scan_id);
            }
        })?;
        Ok(failed)
    }

    /// Removes the states before those of the last `keep_epochs` commits and the last one; returns the paths of the removed files.
    ///
    /// # Errors
    /// The errors of [`RunWriter::purge`].
    pub fn purge(&self, keep_epochs: u64) -> Result<Vec<String>> {
        self.state().writer.purge(keep_epochs)
    }

    /// Returns the store of the run folder.
    pub fn store(&self) -> Arc<dyn DurableStorage> {
        Arc::clone(self.state().writer.folder().store())
    }

    /// Creates a tag that names the last state.
    ///
    /// # Errors
    /// The errors of [`RunWriter::tag`].
    pub fn tag(&self, name: &TagName) -> Result<Tag> {
        self.state().writer.tag(name)
    }

    /// Returns the commit of an epoch.
    ///
    /// # Errors
    /// If the commit cannot be read.
    pub fn committed(&self, epoch: Epoch) -> Result<Commit> {
        self.state().writer.folder().commit(epoch).map(|(commit, _)| commit)
    }

    /// Returns the committed number of attempts by group.
    pub fn quality_counts(&self) -> Vec<(QualityGroup, isize)> {
        let quality = &self.state().quality;
        quality.iter().map(|(group, &count)| (group.clone(), isize::try_from(count).unwrap_or(isize::MAX))).collect()
    }

    /// Writes the ingest manifest of an epoch durably if it does not exist, so that the epoch may start. Any worker may call this method
    /// first.
    ///
    /// # Errors
    /// If the manifest cannot be written.
    pub fn open_epoch(&self, work: &EpochWork) -> Result<()> {
        let mut state = self.state();
        if work.epoch < state.writer.next_ingest() {
            return Ok(());
        }
        let entries: Vec<_> = work.entries.iter().map(|entry| (**entry).clone()).collect();
        let EpochWork { retested, removed, withdrawn, .. } = work.clone();
        let epoch = state.writer.ingest(&EpochChanges { entries, retested, removed, withdrawn })?;
        if epoch != work.epoch {
            return Err(Error::new(format!("expected to ingest epoch {}, got epoch {epoch}", work.epoch)));
        }
        Ok(())
    }

    /// Reads the committed rows of `samples` that the commit of an epoch will remove: the earlier rows of the scans of the epoch, and the
    /// rows of removed scans. All earlier epochs must be committed.
    ///
    /// # Errors
    /// If committed files cannot be read.
    pub fn rows_to_remove(&self, epoch: Epoch) -> Result<Vec<SampleRecord>> {
        let (folder, scans) = {
            let state = self.state();
            (state.writer.folder().clone(), state.scans_to_remove(epoch, &self.graphs)?)
        };
        rows_of_scans(&folder, &scans)
    }

    /// Publishes the new decisions on the stored candidates of the scans that an epoch tests again; returns the changes of files, and the
    /// changed numbers of attempts by group. Returns `None` if the epoch decides on no stored candidates.
    ///
    /// # Errors
    /// If committed files cannot be read or written.
    pub fn retest(&self, epoch: Epoch, plan: &Plan) -> Result<Option<(Retest, BTreeMap<QualityGroup, isize>)>> {
        let (folder, scans) = {
            let state = self.state();
            (state.writer.folder().clone(), state.scans_to_retest(epoch, &self.graphs)?)
        };
        if scans.is_empty() { Ok(None) } else { retest(&folder, &scans, plan, &self.sinks).map(Some) }
    }

    /// Moves those scans that a change of the graph affects and whose stored candidates suffice from `affected` to `retested`.
    ///
    /// # Errors
    /// If committed files cannot be read.
    pub fn select_retested(&self, plan: &Plan, scans: &RunScans, changes: &mut ScanChanges) -> Result<()> {
        let folder = self.state().writer.folder().clone();
        select_retested(&folder, &self.earlier_graphs, plan, scans, changes)
    }

    /// Commits an epoch: publishes the staged files of the scans and writes the tables, with one commit for all. The commit removes the
    /// earlier rows and samples of these scans and those of removed scans, and makes the changes of `retest`. `changes` are the changes of
    /// the counts by group since the previous epoch.
    ///
    /// # Errors
    /// If a file cannot be written or another process was faster.
    pub fn commit(
        &self,
        epoch: Epoch,
        outcomes: &[ScanOutcome],
        retest: Option<&Retest>,
        changes: &[QualityChange],
    ) -> Result<()> {
        let (folder, scans) = {
            let state = self.state();
            (state.writer.folder().clone(), state.scans_to_remove(epoch, &self.graphs)?)
        };
        let store = folder.store();
        let mut sealed = self.sinks.with_inputs(|inputs| {
            let mut sealed = seal(&**store, epoch, outcomes.to_vec(), inputs)?;
            let Removal { add, remove, counts } = remove_scans(&folder, &scans, inputs)?;
            sealed.add.extend(add);
            (sealed.remove, sealed.removed) = (remove, counts);
            Ok::<_, Error>(sealed)
        })?;
        if let Some(Retest { removal, counts }) = retest {
            sealed.add.extend(removal.add.iter().cloned());
            sealed.remove.extend(removal.remove.iter().cloned());
            sealed.counts += counts;
            sealed.removed += &removal.counts;
        }
        let mut state = self.state();
        let rows = apply_changes(&mut state.quality, epoch, changes);
        if !rows.is_empty() || epoch == 0 {
            sealed.add.push(encode_part::<QualityRecord>(epoch, rows)?.publish(&**store)?);
        }
        state.writer.commit(sealed)?;
        state.record_commit(&scans, outcomes);
        if state.last_projection.elapsed() >= PROJECT_INTERVAL.max(50 * state.projection_time) {
            let start = Instant::now();
            state.writer.project(self.sinks.layouts())?;
            (state.last_projection, state.projection_time) = (Instant::now(), start.elapsed());
        }
        Ok(())
    }

    /// Returns a sentence for each data set whose share of accepted attempts since the folder was opened leaves the band of the earlier
    /// runs.
    pub fn band_warnings(&self) -> Vec<String> {
        // Another graph has other shares.
        if self.graph_change.is_empty() {
            band_warnings(&self.earlier_quality, &self.state().quality)
        } else {
            Vec::new()
        }
    }

    /// Returns the first epoch that is not committed.
    pub fn next_epoch(&self) -> Epoch {
        self.state().writer.next_epoch()
    }

    /// Returns the number of scans whose rows are of an epoch from `first` on.
    pub fn processed_since(&self, first: Epoch) -> usize {
        self.state().scans.values().filter(|scan| scan.epoch >= first).count()
    }

    /// Returns the scans that failed in this run, and those that are pending after it.
    pub fn failures(&self) -> BTreeMap<ScanId, Status> {
        self.state().failures.clone()
    }

    /// Synchronizes the folders of tables and layouts with the committed files.
    ///
    /// # Errors
    /// If the folders cannot be written, or a layout contains files that the run did not write. Such files are kept.
    pub fn project(&self) -> Result<()> {
        self.project_layouts().map(drop)
    }

    /// Synchronizes the folders as [`Ledger::project`] does, and returns the number of samples of each split, by layout.
    ///
    /// # Errors
    /// The errors of [`Ledger::project`].
    pub fn project_layouts(&self) -> Result<BTreeMap<String, BTreeMap<Split, usize>>> {
        let projected = self.state().writer.project(self.sinks.layouts())?;
        check_foreign(&self.folder, &projected)?;
        let names = self.sinks.layouts().map(|layout| layout.name().to_owned());
        Ok(names.zip(projected.into_iter().map(|projected| projected.samples)).collect())
    }

    /// Returns the summary of the folder; the numbers of a single run are zero.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub fn report(&self, plan: &Plan) -> Result<RunReport> {
        let state = self.state();
        folder_report(state.writer.folder(), &self.folder, plan, &state.quality)
    }
}

/// Returns whether the scans that an epoch tests again were ingested with the current graph.
fn has_current_retests(retested: &[IngestEntry], graphs: &BTreeMap<String, SourceGraph>) -> bool {
    retested.iter().all(|entry| entry.graph == graph_after(graphs, &entry.source))
}

impl State {
    /// Returns the scans whose stored candidates an epoch tests again.
    fn scans_to_retest(&self, epoch: Epoch, graphs: &BTreeMap<String, SourceGraph>) -> Result<ScansByEpoch> {
        let (manifest, _) = self.writer.folder().ingest_manifest(epoch)?;
        let mut retested = ScansByEpoch::new();
        if !has_current_retests(&manifest.retested, graphs) {
            return Ok(retested);
        }
        for scan_id in manifest.retested.iter().map(|entry| entry.scan_id) {
            if let Some(scan) = self.scans.get(&scan_id) {
                retested.entry(scan.epoch).or_default().insert(scan_id);
            }
        }
        Ok(retested)
    }

    /// Returns the scans whose committed rows the commit of an epoch removes.
    fn scans_to_remove(&self, epoch: Epoch, graphs: &BTreeMap<String, SourceGraph>) -> Result<ScansByEpoch> {
        let (manifest, _) = self.writer.folder().ingest_manifest(epoch)?;
        let mut removed = ScansByEpoch::new();
        // Scans of another graph than that of their retest are processed again, all of them.
        let is_current = has_current_retests(&manifest.retested, graphs);
        let retested = manifest.retested.iter().filter(|_| !is_current);
        let ids = manifest.entries.iter().chain(retested).map(|entry| entry.scan_id).chain(manifest.removed);
        for (scan_id, scan) in ids.filter_map(|scan_id| Some((scan_id, self.scans.get(&scan_id)?))) {
            removed.entry(scan.epoch).or_default().insert(scan_id);
        }
        Ok(removed)
    }

    /// Updates the rows of scans after a commit.
    fn record_commit(&mut self, removed: &ScansByEpoch, outcomes: &[ScanOutcome]) {
        for scan_id in removed.values().flatten() {
            self.scans.remove(scan_id);
            self.failures.remove(scan_id);
        }
        for outcome in outcomes {
            let row = &outcome.scan;
            let is_held_out = outcome.faults.iter().any(|row| row.fault.kind == FaultKind::HeldOut);
            self.scans.insert(row.scan_id, CommittedScan { is_held_out, ..CommittedScan::from(row) });
            if matches!(row.status, Status::Fault | Status::Pending) {
                self.failures.insert(row.scan_id, row.status);
            }
        }
    }
}
