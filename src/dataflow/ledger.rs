//! The run folder as the dataflow uses it: intakes before the work, commits after it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::graph::{Plan, Port};
use crate::sink::parquet::{Row, read_part, write_part};
use crate::sink::spool::{ScanOutcome, Spool};
use crate::sink::{Outcome, QualityRecord, SampleRecord, ScanRecord, Sink};
use crate::tables::epoch::{Feed, seal};
use crate::tables::run::{FORMAT_VERSION, RunFolder, RunManifest, RunWriter};

use super::Epoch;
use super::quality::{QualityChange, QualityGroup};
use super::report::RunReport;
use super::schedule::{EpochWork, Version};
use super::settle::KnownScans;

/// Layouts are brought up to date this often while a run goes on, and at its end; less often where that takes more than a
/// fiftieth of the time.
const PROJECT_EVERY: Duration = Duration::from_secs(30);

/// Writes a run folder: what epochs consist of, and what came of them.
pub struct Ledger {
    folder: PathBuf,
    sinks: Vec<Arc<dyn Sink>>,
    /// Which trials each sink takes from, and whether what they accept or what they reject.
    takes: Vec<HashSet<(String, bool)>>,
    state: Mutex<State>,
}

struct State {
    writer: RunWriter,
    /// The current table of groups: rows by group.
    quality: BTreeMap<QualityGroup, u64>,
    projected: Instant,
    /// How long it took.
    projecting: Duration,
}

impl Ledger {
    /// Makes a run folder for a plan, or goes on with the one that is there; and the spool into which its scans go.
    ///
    /// # Errors
    /// Where the folder belongs to another pipeline, is being written by another process, or cannot be written.
    pub fn open(folder: &Path, plan: &Plan) -> Result<(Self, Spool)> {
        let writer = RunFolder::create_or_resume(folder, &manifest(plan)?)?;
        writer.folder().check_files()?;
        let sinks: Vec<_> = plan.sinks.iter().map(|node| Arc::clone(&node.sink)).collect();
        let mut takes = vec![HashSet::new(); sinks.len()];
        for trial in &plan.trials {
            for feed in &trial.feeds {
                takes[feed.sink].insert((trial.name.clone(), feed.port == Port::Main));
            }
        }
        let spool = writer.spool(&sinks);
        spool.clear_committed(writer.next_epoch())?;
        let mut quality = BTreeMap::new();
        each_row::<QualityRecord>(&writer, |row| {
            quality.insert(group_of(&row), row.count);
        })?;
        let state = State { writer, quality, projected: Instant::now(), projecting: Duration::ZERO };
        Ok((Self { folder: folder.to_owned(), sinks, takes, state: Mutex::new(state) }, spool))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held ends the run; what is durable is whole in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epochs that were taken in but not committed, and the first epoch that was not taken in.
    ///
    /// # Errors
    /// Where an intake cannot be read.
    pub fn begun(&self) -> Result<(Vec<EpochWork>, Epoch)> {
        let state = self.state();
        let next = state.writer.next_intake();
        let begun = (state.writer.next_epoch()..next).map(|epoch| {
            let entries = state.writer.folder().scan_entries(epoch)?.into_iter().map(Arc::new).collect();
            Ok(EpochWork { epoch, entries })
        });
        Ok((begun.collect::<Result<_>>()?, next))
    }

    /// The ids of all scans that were ever taken in, and as what they were.
    ///
    /// # Errors
    /// Where an intake cannot be read.
    pub fn taken_in(&self) -> Result<HashMap<String, Version>> {
        let entries = self.state().writer.taken_in()?.into_values();
        Ok(entries.map(|entry| (entry.scan_id, (entry.bytes, entry.modified_s))).collect())
    }

    /// The digests of all scans that are committed as done.
    ///
    /// # Errors
    /// Where the table `scans` cannot be read.
    pub fn known_scans(&self) -> Result<KnownScans> {
        let known = KnownScans::default();
        each_row::<ScanRecord>(&self.state().writer, |row| {
            if let Some(digest) = row.scan_digest.filter(|_| row.status == "done") {
                known.add(&digest, row.epoch, &row.scan_id);
            }
        })?;
        Ok(known)
    }

    /// The groups of attempts that are committed.
    pub fn counted(&self) -> Vec<(QualityGroup, isize)> {
        let quality = &self.state().quality;
        quality.iter().map(|(group, &count)| (group.clone(), isize::try_from(count).unwrap_or(isize::MAX))).collect()
    }

    /// Makes the intake of an epoch durable, if it is not; its work may start when this returns. Any worker may come first.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn open_epoch(&self, work: &EpochWork) -> Result<()> {
        let mut state = self.state();
        if work.epoch < state.writer.next_intake() {
            return Ok(());
        }
        let entries: Vec<_> = work.entries.iter().map(|entry| (**entry).clone()).collect();
        let epoch = state.writer.take_in(&entries)?;
        if epoch != work.epoch {
            return Err(Error::new(format!("expected to take in epoch {}, the folder is at {epoch}", work.epoch)));
        }
        Ok(())
    }

    /// Commits an epoch: publishes what its scans spooled, writes its tables, and makes all of it exist at once. `changes` are those of
    /// the table of groups since the epoch before.
    ///
    /// # Errors
    /// Where something cannot be written, or another process was faster.
    pub fn commit(&self, epoch: Epoch, outcomes: &[ScanOutcome], changes: &[QualityChange]) -> Result<()> {
        let store = Arc::clone(self.state().writer.folder().store());
        let takes: Vec<_> = self
            .takes
            .iter()
            .map(|takes| {
                move |row: &SampleRecord| {
                    // An attempt that found no place has nothing to be written.
                    let made = row.geometry.is_some();
                    made && takes.contains(&(row.stage.clone(), row.outcome == Outcome::Accepted))
                }
            })
            .collect();
        let feeds: Vec<_> = self.sinks.iter().zip(&takes).map(|(sink, takes)| Feed { sink: &**sink, takes }).collect();
        let mut sealed = seal(&*store, epoch, outcomes.to_vec(), &feeds)?;
        let mut state = self.state();
        if !changes.is_empty() || epoch == 0 {
            apply(&mut state.quality, changes);
            let rows = state.quality.iter().map(|(group, &count)| row_of(group, count)).collect();
            let part = write_part::<QualityRecord>(epoch, rows)?.publish(&*store)?;
            // The table is small and whole in its last part: the part before does not count any more.
            sealed.remove.extend(state.writer.quality_parts().iter().cloned());
            sealed.add.push(part);
        }
        state.writer.commit(sealed)?;
        if state.projected.elapsed() >= PROJECT_EVERY.max(50 * state.projecting) {
            let start = Instant::now();
            state.writer.project(&self.sinks)?;
            (state.projected, state.projecting) = (Instant::now(), start.elapsed());
        }
        Ok(())
    }

    /// Brings the layouts that other programs list by themselves in line with what is committed.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn project(&self) -> Result<()> {
        self.state().writer.project(&self.sinks)
    }

    /// What the folder holds; the figures of one run are left at zero.
    pub fn report(&self, plan: &Plan) -> RunReport {
        let state = self.state();
        let counts = state.writer.counts();
        let layout = |sink: &Arc<dyn Sink>| (sink.name().to_owned(), self.folder.join("layouts").join(sink.name()));
        // A sink that hands its samples on has none.
        let layouts = self.sinks.iter().map(layout).filter(|(_, place)| place.exists());
        RunReport {
            pipeline: plan.name.clone(),
            folder: self.folder.clone(),
            epochs: state.writer.next_epoch(),
            scans: counts.scans,
            accepted: counts.accepted,
            rejected: counts.rejected.values().sum(),
            faults: counts.faults.values().sum(),
            fault_kinds: counts.faults.clone(),
            duplicates: counts.duplicates,
            // Where nothing is done to organs, they are not looked at.
            scans_without_organs: if plan.trials.is_empty() { 0 } else { counts.without_organs },
            quality: state.quality.iter().map(|(group, &count)| row_of(group, count)).collect(),
            layouts: layouts.collect(),
            ..RunReport::default()
        }
    }
}

/// What two runs into the same folder must agree on.
fn manifest(plan: &Plan) -> Result<RunManifest> {
    let fingerprints = plan.sources.iter().map(|node| node.source.patient_secret_fingerprint());
    let patient_secret = fingerprints.collect::<Result<Vec<_>>>()?.into_iter().flatten().next();
    Ok(RunManifest {
        format: FORMAT_VERSION,
        pipeline: plan.resolved.clone(),
        pipeline_digest: plan.digest.clone(),
        seed: plan.seed,
        code_version: env!("CARGO_PKG_VERSION").into(),
        shard_buckets: BTreeMap::new(),
        // Rules and intensities are computed in one order of plain operations, whatever the processor offers.
        kernel_class: "portable".into(),
        patient_secret,
        models: plan.trials.iter().map(|trial| (trial.name.clone(), trial.model.clone())).collect(),
    })
}

/// Hands on the rows of a table, one part in memory at a time.
fn each_row<R: Row>(writer: &RunWriter, mut take: impl FnMut(R)) -> Result<()> {
    let folder = writer.folder();
    for file in folder.files(R::TABLE.name(), None)? {
        read_part::<R>(folder.verified(&file)?)?.into_iter().for_each(&mut take);
    }
    Ok(())
}

/// Applies changes: within an epoch, what disappears goes before what appears.
fn apply(quality: &mut BTreeMap<QualityGroup, u64>, changes: &[QualityChange]) {
    let mut ordered: Vec<_> = changes.iter().collect();
    ordered.sort_by_key(|(_, epoch, change)| (*epoch, *change));
    for ((group, count), _, change) in ordered {
        if *change < 0 {
            quality.remove(group);
        } else {
            quality.insert(group.clone(), u64::try_from(*count).unwrap_or(0));
        }
    }
}

fn group_of(row: &QualityRecord) -> QualityGroup {
    let QualityRecord { dataset, organ, size_class, reason, .. } = row.clone();
    QualityGroup { dataset, organ, size_class, reason }
}

fn row_of(group: &QualityGroup, count: u64) -> QualityRecord {
    let QualityGroup { dataset, organ, size_class, reason } = group.clone();
    QualityRecord { dataset, organ, size_class, reason, count }
}
