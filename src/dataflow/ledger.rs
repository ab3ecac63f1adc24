//! The run folder as the dataflow uses it: ingest manifests before the work, commits after it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::graph::{Plan, Port};
use crate::id::ScanId;
use crate::record::parquet::{Row, read_part, write_part};
use crate::record::{QualityGroup, QualityRecord, SampleRecord, ScanRecord, Status};
use crate::run::seal::{Feed, seal};
use crate::run::spool::{ScanOutcome, Spool};
use crate::run::{FORMAT_VERSION, RunFolder, RunManifest, RunWriter, without_paths};
use crate::sink::{BUCKETS, Layout, Output, PATCHES};

use super::Epoch;
use super::deduplicate::KnownScans;
use super::quality::QualityChange;
use super::report::{QualityCount, RunReport};
use super::schedule::{EpochWork, Version};

/// Layouts are brought up to date this often while a run continues, and at its end; less often where that takes more than a
/// fiftieth of the time.
const PROJECT_EVERY: Duration = Duration::from_secs(30);

/// Writes a run folder: what epochs consist of, and what came of them.
pub struct Ledger {
    folder: PathBuf,
    outputs: Vec<Output>,
    /// What each sink takes: stages with branches, and whether what they accept or what they reject.
    takes: Vec<HashSet<(String, String, bool)>>,
    state: Mutex<State>,
}

struct State {
    writer: RunWriter,
    /// Attempts by group.
    quality: BTreeMap<QualityGroup, i64>,
    projected: Instant,
    /// How long it took.
    projecting: Duration,
}

impl Ledger {
    /// Makes a run folder for a plan, or resumes the one that is there; and the spool into which its scans go.
    ///
    /// # Errors
    /// If the folder belongs to another pipeline, is being written by another process, or cannot be written.
    pub fn open(folder: &Path, plan: &Plan) -> Result<(Self, Spool)> {
        let writer = RunFolder::create_or_resume(folder, &manifest(plan)?)?;
        writer.folder().check_files()?;
        writer.record_private_pipeline(&plan.folder, &plan.resolved)?;
        let outputs: Vec<_> = plan.sinks.iter().map(|node| node.output.clone()).collect();
        let mut takes = vec![HashSet::new(); outputs.len()];
        for synthesis in &plan.syntheses {
            for (branch, node) in synthesis.attempts.branches.iter().zip(&synthesis.branches) {
                for feed in &node.feeds {
                    let stage = synthesis.attempts.name.clone();
                    takes[feed.sink].insert((stage, branch.name.clone(), feed.port == Port::Main));
                }
            }
        }
        let spool = writer.spool(layouts(&outputs));
        spool.clear_committed(writer.next_epoch())?;
        let mut quality: BTreeMap<QualityGroup, i64> = BTreeMap::new();
        each_row::<QualityRecord>(&writer, |row| *quality.entry(row.group).or_default() += row.attempts)?;
        quality.retain(|_, count| *count != 0);
        let state = State { writer, quality, projected: Instant::now(), projecting: Duration::ZERO };
        Ok((Self { folder: folder.to_owned(), outputs, takes, state: Mutex::new(state) }, spool))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held ends the run; what is durable is whole in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epochs that were ingested but not committed, and the first epoch that was not ingested.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn open_epochs(&self) -> Result<(Vec<EpochWork>, Epoch)> {
        let state = self.state();
        let next = state.writer.next_ingest();
        let open = (state.writer.next_epoch()..next).map(|epoch| {
            let entries = state.writer.folder().scan_entries(epoch)?.into_iter().map(Arc::new).collect();
            Ok(EpochWork { epoch, entries })
        });
        Ok((open.collect::<Result<_>>()?, next))
    }

    /// The ids of all scans that were ever ingested, with their versions.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn ingested(&self) -> Result<HashMap<ScanId, Version>> {
        let entries = self.state().writer.ingested()?.into_values();
        Ok(entries.map(|entry| (entry.scan_id, (entry.bytes, entry.modified_s))).collect())
    }

    /// The digests of all scans that are committed as done.
    ///
    /// # Errors
    /// If the table `scans` cannot be read.
    pub fn known_scans(&self) -> Result<KnownScans> {
        let known = KnownScans::default();
        each_row::<ScanRecord>(&self.state().writer, |row| {
            if let Some(digest) = row.scan_digest.filter(|_| row.status == Status::Done) {
                known.add(digest, row.epoch, row.scan_id);
            }
        })?;
        Ok(known)
    }

    /// The attempts by group that are committed.
    pub fn counted(&self) -> Vec<(QualityGroup, isize)> {
        let quality = &self.state().quality;
        quality.iter().map(|(group, &count)| (group.clone(), isize::try_from(count).unwrap_or(isize::MAX))).collect()
    }

    /// Makes the ingest manifest of an epoch durable, if it is not; its work may start when this returns. Any worker may come first.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open_epoch(&self, work: &EpochWork) -> Result<()> {
        let mut state = self.state();
        if work.epoch < state.writer.next_ingest() {
            return Ok(());
        }
        let entries: Vec<_> = work.entries.iter().map(|entry| (**entry).clone()).collect();
        let epoch = state.writer.ingest(&entries)?;
        if epoch != work.epoch {
            return Err(Error::new(format!("expected to ingest epoch {}, the folder is at {epoch}", work.epoch)));
        }
        Ok(())
    }

    /// Commits an epoch: publishes what its scans staged, writes its tables, and makes all of it exist at once. `changes` are those
    /// of the counts by group since the epoch before.
    ///
    /// # Errors
    /// If something cannot be written, or another process was faster.
    pub fn commit(&self, epoch: Epoch, outcomes: &[ScanOutcome], changes: &[QualityChange]) -> Result<()> {
        let store = Arc::clone(self.state().writer.folder().store());
        let takes: Vec<_> = self
            .takes
            .iter()
            .map(|takes| {
                move |row: &SampleRecord| {
                    takes.contains(&(row.stage.clone(), row.branch.clone(), row.outcome.is_accepted()))
                }
            })
            .collect();
        let feeds: Vec<_> = self
            .outputs
            .iter()
            .zip(&takes)
            .filter_map(|(output, takes)| Some(Feed { layout: output.layout()?, takes }))
            .collect();
        let mut sealed = seal(&*store, epoch, outcomes.to_vec(), &feeds)?;
        let mut state = self.state();
        let rows = changed(&mut state.quality, epoch, changes);
        if !rows.is_empty() || epoch == 0 {
            sealed.add.push(write_part::<QualityRecord>(epoch, rows)?.publish(&*store)?);
        }
        state.writer.commit(sealed)?;
        if state.projected.elapsed() >= PROJECT_EVERY.max(50 * state.projecting) {
            let start = Instant::now();
            state.writer.project(layouts(&self.outputs))?;
            (state.projected, state.projecting) = (Instant::now(), start.elapsed());
        }
        Ok(())
    }

    /// Brings the folders that other programs list by themselves in line with what is committed.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn project(&self) -> Result<()> {
        self.state().writer.project(layouts(&self.outputs))
    }

    /// What the folder holds; the figures of one run are left at zero.
    pub fn report(&self, plan: &Plan) -> RunReport {
        let state = self.state();
        let counts = state.writer.counts();
        let layout = |layout: &dyn Layout| (layout.name().to_owned(), self.folder.join("layouts").join(layout.name()));
        // A stream has none.
        let layouts = layouts(&self.outputs).map(layout).filter(|(_, folder)| folder.exists());
        let count = |(group, &count): (&QualityGroup, &i64)| QualityCount {
            group: group.clone(),
            count: u64::try_from(count).unwrap_or_default(),
        };
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
            // Without a synthesis no organs are looked for.
            scans_without_organs: if plan.syntheses.is_empty() { 0 } else { counts.without_organs },
            quality: state.quality.iter().map(count).collect(),
            layouts: layouts.collect(),
            ..RunReport::default()
        }
    }
}

/// What writes files for the given outputs.
fn layouts(outputs: &[Output]) -> impl Iterator<Item = &dyn Layout> {
    outputs.iter().filter_map(Output::layout)
}

/// What two runs into the same folder must agree on.
fn manifest(plan: &Plan) -> Result<RunManifest> {
    let secret = plan.patient_secret()?;
    let pipeline =
        secret.as_ref().map_or_else(|| plan.resolved.clone(), |secret| without_paths(&plan.resolved, secret));
    let models = plan.syntheses.iter().map(|node| (node.attempts.name.clone(), node.model.clone()));
    Ok(RunManifest {
        format: FORMAT_VERSION,
        pipeline,
        pipeline_digest: plan.digest.clone(),
        seed: plan.seed,
        code_version: env!("CARGO_PKG_VERSION").into(),
        shard_buckets: BTreeMap::from([(PATCHES.to_owned(), BUCKETS)]),
        kernel_class: plan.kernel_class(),
        patient_secret: secret.map(|secret| secret.fingerprint()),
        models: models.collect(),
    })
}

/// Passes on the rows of a table, one part in memory at a time.
fn each_row<R: Row>(writer: &RunWriter, mut take: impl FnMut(R)) -> Result<()> {
    let folder = writer.folder();
    for file in folder.files(R::TABLE.name(), None)? {
        read_part::<R>(folder.read_verified(&file)?)?.into_iter().for_each(&mut take);
    }
    Ok(())
}

/// Applies changes to the counts, and returns by how much each group changed. What was known before is no change: a restart feeds it
/// again.
fn changed(quality: &mut BTreeMap<QualityGroup, i64>, epoch: Epoch, changes: &[QualityChange]) -> Vec<QualityRecord> {
    let mut counts: BTreeMap<&QualityGroup, i64> = BTreeMap::new();
    let mut ordered: Vec<_> = changes.iter().collect();
    // Within an epoch, what disappears comes before what appears.
    ordered.sort_by_key(|(_, epoch, change)| (*epoch, *change));
    for ((group, count), _, change) in ordered {
        counts.insert(group, if *change < 0 { 0 } else { i64::try_from(*count).unwrap_or(i64::MAX) });
    }
    let mut rows = Vec::new();
    for (group, count) in counts {
        let before = if count == 0 { quality.remove(group) } else { quality.insert(group.clone(), count) };
        let attempts = count - before.unwrap_or_default();
        if attempts != 0 {
            rows.push(QualityRecord { group: group.clone(), epoch, attempts });
        }
    }
    rows
}
