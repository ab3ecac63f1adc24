//! Sealing an epoch: from the outcomes of its scans to durable files and counts, ready to commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;

use super::Counts;
use super::spool::{ScanOutcome, epoch_folder};
use crate::error::{Error, Result};
use crate::id::SampleId;
use crate::record::parquet::{Row, encode_part};
use crate::record::{FaultRecord, SampleRow, ScanRecord, epoch_name};
use crate::record::{FileEntry, Placement, SampleKind, SampleRecord, Status};
use crate::sink::patch::with_rows;
use crate::sink::shards::open_part;
use crate::sink::{Content, EpochStage, Layout, PatchPart, StagedSample, StagedVolumes, seal_patches, seal_unsplit};
use crate::store::{DurableStorage, STAGING};

/// Maximum number of rejected candidates per branch, organ and reason whose patches an epoch keeps for inspection.
pub const KEPT_REJECTIONS: usize = 8;

/// An epoch with durable files, to be committed by [`RunWriter::commit`](super::RunWriter::commit).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedEpoch {
    /// The epoch.
    pub epoch: u64,
    /// Files that the commit adds.
    pub add: Vec<FileEntry>,
    /// Files of earlier epochs that the commit removes.
    pub remove: Vec<FileEntry>,
    /// Counts of scans and attempts that the commit adds.
    pub counts: Counts,
    /// Counts of scans and attempts of earlier epochs that the commit removes.
    pub removed: Counts,
}

/// A layout and the selection of its samples.
pub struct LayoutInput<'a> {
    /// The layout.
    pub layout: &'a dyn Layout,
    /// Returns whether the layout receives the sample of a row.
    pub selects: &'a dyn Fn(&SampleRecord) -> bool,
}

/// Seals an epoch: patches, then all layouts, then the tables. The result depends only on the arguments and not on the order of
/// `outcomes`, so epochs may be sealed in parallel; the operation is idempotent.
///
/// In the first epoch each table has a part even without rows, so that queries always find a file.
///
/// # Errors
/// If files cannot be written, a patient is in two splits, or a row belongs to another epoch.
pub fn seal(
    store: &dyn DurableStorage,
    epoch: u64,
    outcomes: Vec<ScanOutcome>,
    inputs: &[LayoutInput<'_>],
) -> Result<SealedEpoch> {
    let mut sealed = SealedEpoch { epoch, ..SealedEpoch::default() };
    let mut rows = EpochRows::default();
    let mut files = BTreeMap::new();
    for outcome in outcomes {
        count(&mut sealed.counts, &outcome.scan, &outcome.samples, &outcome.faults);
        files.extend(outcome.staged(epoch).into_iter().map(|(sample_id, (patch, volumes))| {
            let source = SampleSource { patch: Some(patch.into()), volumes, committed: None, is_retested: false };
            (sample_id, source)
        }));
        rows.scans.push(outcome.scan);
        rows.samples.extend(outcome.samples);
        rows.faults.extend(outcome.faults);
    }
    let folder = epoch_folder(epoch);
    let stage = EpochStage { store, epoch, folder: &folder, patches: &[], committed: &[] };
    sealed.add = seal_rows(stage, rows, files, inputs)?;
    Ok(sealed)
}

/// Seals a committed epoch again, with a part of its rows; `committed` are the files of the epoch. The new files have the names and
/// bytes of an epoch that never had other rows, except that rejected candidates keep their committed patches.
///
/// # Errors
/// The errors of [`seal`], and if a committed file cannot be read.
pub(super) fn seal_again(
    store: &dyn DurableStorage,
    epoch: u64,
    rows: ResealedRows,
    committed: &[FileEntry],
    inputs: &[LayoutInput<'_>],
) -> Result<Vec<FileEntry>> {
    let ResealedRows { scans, samples, faults, retested } = rows;
    let mut files: BTreeMap<SampleId, SampleSource> =
        samples.iter().map(|row| (row.record.sample_id, SampleSource::of_committed(&row.placement))).collect();
    let rows = EpochRows { scans, samples: samples.into_iter().map(|row| row.record).collect(), faults };
    let folder = format!("{STAGING}/again-{}", epoch_name(epoch));
    let stage = EpochStage { store, epoch, folder: &folder, patches: &[], committed };
    // In the order in which the quality tests decided, as in the patch of a new sample.
    let mut by_sample: BTreeMap<SampleId, Vec<&SampleRecord>> = BTreeMap::new();
    for row in rows.samples.iter().filter(|row| retested.contains(&row.sample_id)) {
        by_sample.entry(row.sample_id).or_default().push(row);
    }
    for (sample_id, rows) in by_sample {
        if let Some(source) = files.get_mut(&sample_id) {
            source.rewrite_description(&stage, sample_id, &rows)?;
        }
    }
    let add = seal_rows(stage, rows, files, inputs)?;
    store.remove(&folder)?;
    Ok(add)
}

/// The rows of an epoch that is sealed again.
pub(super) struct ResealedRows {
    pub scans: Vec<ScanRecord>,
    pub samples: Vec<SampleRow>,
    pub faults: Vec<FaultRecord>,
    /// The samples with new decisions: the copies of their rows in patches and archives are rewritten.
    pub retested: BTreeSet<SampleId>,
}

/// The rows of an epoch.
#[derive(Default)]
struct EpochRows {
    scans: Vec<ScanRecord>,
    samples: Vec<SampleRecord>,
    faults: Vec<FaultRecord>,
}

impl EpochRows {
    /// Checks that all rows belong to an epoch.
    fn check(&self, epoch: u64) -> Result<()> {
        let scans = self.scans.iter().map(|row| (row.scan_id, row.epoch));
        let samples = self.samples.iter().map(|row| (row.scan_id, row.epoch));
        let faults = self.faults.iter().map(|row| (row.scan_id, row.epoch));
        match scans.chain(samples).chain(faults).find(|(_, own)| *own != epoch) {
            Some((scan_id, own)) => Err(Error::new(format!(
                "scan {scan_id}: expected only rows of epoch {epoch}, got a row of another epoch, {own}"
            ))),
            None => Ok(()),
        }
    }
}

/// Publishes the files of an epoch and returns them, sorted.
fn seal_rows(
    stage: EpochStage<'_>,
    rows: EpochRows,
    files: BTreeMap<SampleId, SampleSource>,
    inputs: &[LayoutInput<'_>],
) -> Result<Vec<FileEntry>> {
    let EpochStage { store, epoch, .. } = stage;
    rows.check(epoch)?;
    let candidates = Candidates::new(&rows.samples, files)?;
    let mut placements: HashMap<SampleId, Placement> = HashMap::new();
    let mut add = Vec::new();
    let mut record_placements =
        |samples: &[StagedSample], sealed_layout: crate::sink::SealedLayout, add: &mut Vec<FileEntry>| {
            add.extend(sealed_layout.files);
            for (sample, placement) in samples.iter().zip(sealed_layout.placements) {
                placements.entry(sample.record.sample_id).or_default().merge(placement);
            }
        };
    // An attempt without a candidate has no files.
    let selects = |input: &LayoutInput<'_>, row: &SampleRecord| row.candidate_digest.is_some() && (input.selects)(row);
    let patch_inputs: Vec<&LayoutInput<'_>> =
        inputs.iter().filter(|input| input.layout.content() == Content::Patches).collect();
    let stored =
        candidates.samples(|row| row.outcome.is_accepted() || patch_inputs.iter().any(|input| selects(input, row)))?;
    let recipients = |sample: &StagedSample| {
        let rows = &candidates.rows[&sample.record.sample_id];
        patch_inputs.iter().map(|input| rows.iter().any(|row| selects(input, row))).collect()
    };
    let recipients: Vec<Vec<bool>> = stored.iter().map(recipients).collect();
    let (patches, shards) = seal_patches(&stage, &stored, &recipients)?;
    record_placements(&stored, patches, &mut add);
    let rejected = match stage.committed {
        [] => candidates.kept_rejections(&stored)?,
        _ => candidates.committed_rejections(&stored),
    };
    record_placements(&rejected, seal_unsplit(&stage, "rejected", &rejected)?, &mut add);
    let stage = EpochStage { patches: &shards, ..stage };
    for input in inputs {
        let mut samples = candidates.samples(|row| selects(input, row))?;
        if !stage.committed.is_empty()
            && let Some(committed) = input.layout.committed_samples(&stage)?
        {
            // A sink of a changed graph may select rows of the earlier graph, whose samples it did not receive before.
            samples.retain(|sample| committed.contains(&sample.record.sample_id));
        }
        record_placements(&samples, input.layout.seal(&stage, &samples)?, &mut add);
    }
    drop(candidates);
    let EpochRows { scans, samples, faults } = rows;
    let samples = samples.into_iter().map(|record| {
        let placement = placements.get(&record.sample_id).cloned().unwrap_or_default();
        SampleRow { record, placement }
    });
    publish_part(store, epoch, samples.collect(), &mut add)?;
    publish_part(store, epoch, scans, &mut add)?;
    publish_part(store, epoch, faults, &mut add)?;
    add.sort_unstable();
    add.dedup();
    Ok(add)
}

/// The files of a sample.
#[derive(Clone)]
struct SampleSource {
    patch: Option<PatchPart>,
    volumes: Option<StagedVolumes>,
    committed: Option<Placement>,
    /// Whether the rows differ from those of the committed files.
    is_retested: bool,
}

impl SampleSource {
    fn of_committed(placement: &Placement) -> Self {
        let Placement { patch_shard, patch_offset_bytes, patch_length_bytes, .. } = placement.clone();
        let patch = patch_shard.zip(patch_offset_bytes.zip(patch_length_bytes));
        let patch = patch.map(|(path, (offset_bytes, length_bytes))| PatchPart { path, offset_bytes, length_bytes });
        Self { patch, volumes: None, committed: Some(placement.clone()), is_retested: false }
    }

    /// Stages the patch with a description of these rows.
    fn rewrite_description(
        &mut self,
        stage: &EpochStage<'_>,
        sample_id: SampleId,
        rows: &[&SampleRecord],
    ) -> Result<()> {
        self.is_retested = true;
        let Some(part) = &self.patch else { return Ok(()) };
        let mut bytes = Vec::new();
        open_part(stage.store, part)
            .and_then(|mut part| part.read_to_end(&mut bytes))
            .map_err(|e| Error::io("cannot read the patch of a sample in", stage.store.display_path(&part.path), e))?;
        let bytes = with_rows(&bytes, rows)?;
        let path = format!("{}/{sample_id}.patch.tar", stage.folder);
        stage.store.stage(&path, &mut |out| out.write_all(&bytes))?;
        self.patch = Some(PatchPart { path, offset_bytes: 0, length_bytes: bytes.len() as u64 });
        Ok(())
    }
}

/// The rows of an epoch by sample, with the files of the samples.
struct Candidates<'a> {
    rows: BTreeMap<SampleId, Vec<&'a SampleRecord>>,
    files: BTreeMap<SampleId, SampleSource>,
}

impl<'a> Candidates<'a> {
    /// Groups rows by sample.
    ///
    /// # Errors
    /// If two candidates have one id, as they would share files.
    fn new(samples: &'a [SampleRecord], files: BTreeMap<SampleId, SampleSource>) -> Result<Self> {
        let mut rows: BTreeMap<SampleId, Vec<&SampleRecord>> = BTreeMap::new();
        for row in samples {
            rows.entry(row.sample_id).or_default().push(row);
        }
        rows.values_mut().for_each(|rows| rows.sort_by(|a, b| (&a.branch, a.tumor_id).cmp(&(&b.branch, b.tumor_id))));
        for (sample_id, rows) in &rows {
            let candidate = |row: &&SampleRecord| (row.scan_id, row.stage.clone(), row.candidate_digest);
            if let Some(other) = rows.iter().find(|row| candidate(row) != candidate(&rows[0])) {
                let stages = [&rows[0].stage, &other.stage];
                return Err(Error::new(format!(
                    "two candidates have the id {sample_id}: stages `{}` and `{}`, scans {} and {}",
                    stages[0], stages[1], rows[0].scan_id, other.scan_id
                ))
                .with_hint("set another `salt` in one of the stages"));
            }
        }
        Ok(Self { rows, files })
    }

    /// Returns the candidates with a selected row, sorted, each with its first selected row.
    fn samples(&self, selects: impl Fn(&SampleRecord) -> bool) -> Result<Vec<StagedSample>> {
        let mut samples = Vec::new();
        for (sample_id, rows) in &self.rows {
            if let Some(row) = rows.iter().find(|row| selects(row)) {
                let is_committed = |source: &SampleSource| source.committed.is_some() && source.patch.is_none();
                if self.files.get(sample_id).is_some_and(is_committed) {
                    // Rows that a changed graph will replace may be selected by a sink that needs patches which were not kept.
                    continue;
                }
                let missing = || Error::new(format!("expected staged files of sample {sample_id}, got none"));
                samples.push(self.sample(row).ok_or_else(missing)?);
            }
        }
        Ok(samples)
    }

    fn sample(&self, row: &SampleRecord) -> Option<StagedSample> {
        let SampleSource { patch, volumes, committed, is_retested } = self.files.get(&row.sample_id)?.clone();
        patch.as_ref()?;
        let is_other = |other: &&&SampleRecord| other.branch == row.branch && other.tumor_id != row.tumor_id;
        let others = self.rows[&row.sample_id].iter().filter(is_other).map(|&other| other.clone()).collect();
        Some(StagedSample { record: row.clone(), others, patch, volumes, committed, is_retested })
    }

    /// Returns the rejected candidates with committed patches that are not `stored`.
    fn committed_rejections(&self, stored: &[StagedSample]) -> Vec<StagedSample> {
        let stored: BTreeSet<SampleId> = stored.iter().map(|sample| sample.record.sample_id).collect();
        let rejected = self.rows.iter().filter(|(sample_id, _)| !stored.contains(sample_id));
        rejected.filter_map(|(_, rows)| self.sample(rows.iter().find(|row| rejection_group(row).is_some())?)).collect()
    }

    /// Returns the rejected candidates whose patches are kept in addition to `stored`: for each branch, organ and reason those with the
    /// lowest ids.
    fn kept_rejections(&self, stored: &[StagedSample]) -> Result<Vec<StagedSample>> {
        let stored: BTreeSet<SampleId> = stored.iter().map(|sample| sample.record.sample_id).collect();
        let mut counts: HashMap<RejectionGroup<'_>, usize> = HashMap::new();
        let mut kept: BTreeMap<SampleId, &SampleRecord> = BTreeMap::new();
        for row in self.rows.values().flatten() {
            let Some(group) = rejection_group(row) else { continue };
            let count = counts.entry(group).or_default();
            *count += 1;
            if *count <= KEPT_REJECTIONS && !stored.contains(&row.sample_id) {
                kept.entry(row.sample_id).or_insert(row);
            }
        }
        let missing = |row: &SampleRecord| {
            Error::new(format!("expected a staged patch of rejected sample {}, got none", row.sample_id))
        };
        kept.into_values().map(|row| self.sample(row).ok_or_else(|| missing(row))).collect()
    }
}

/// Branch, organ and reason.
pub type RejectionGroup<'a> = (&'a str, &'a str, &'a str);

/// Returns the group of a rejected candidate; `None` if the row was accepted or has no candidate.
pub fn rejection_group(row: &SampleRecord) -> Option<RejectionGroup<'_>> {
    let reason = row.outcome.reason().filter(|_| row.candidate_digest.is_some())?;
    Some((&row.branch, &row.organ, reason))
}

fn publish_part<R: Row>(store: &dyn DurableStorage, epoch: u64, rows: Vec<R>, add: &mut Vec<FileEntry>) -> Result<()> {
    if !rows.is_empty() || epoch == 0 {
        add.push(encode_part(epoch, rows)?.publish(store)?);
    }
    Ok(())
}

/// Adds a scan and its rows to counts.
pub(super) fn count<'a>(
    counts: &mut Counts,
    scan: &ScanRecord,
    samples: impl IntoIterator<Item = &'a SampleRecord>,
    faults: impl IntoIterator<Item = &'a FaultRecord>,
) {
    counts.scans += 1;
    counts.duplicates += u64::from(scan.status == Status::Duplicate);
    counts.without_organs += u64::from(scan.status == Status::Done && scan.organs.is_empty());
    for record in samples {
        match record.outcome.reason() {
            None if record.kind == SampleKind::Negative => counts.negatives += 1,
            None => counts.accepted += 1,
            Some(reason) => *counts.rejected.entry(reason.to_owned()).or_default() += 1,
        }
    }
    for record in faults {
        let kind = format!("{}/{}", record.fault.stage.name(), record.fault.kind.name());
        *counts.faults.entry(kind).or_default() += 1;
    }
}
