//! Sealing an epoch: from the outcomes of its scans to durable files and counts, ready to commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Counts;
use super::spool::{ScanOutcome, epoch_folder};
use crate::error::{Error, Result};
use crate::id::SampleId;
use crate::record::SampleRow;
use crate::record::parquet::{Row, encode_part};
use crate::record::{FileEntry, Placement, SampleKind, SampleRecord, Status};
use crate::sink::{Content, EpochStage, Layout, StagedSample, seal_patches, seal_unsplit};
use crate::store::DurableStorage;

/// Maximum number of rejected candidates per branch, organ and reason whose patches an epoch keeps for inspection.
pub const KEPT_REJECTIONS: usize = 8;

/// An epoch with durable files, to be committed by [`RunWriter::commit`](super::RunWriter::commit).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedEpoch {
    /// The epoch.
    pub epoch: u64,
    /// Files that the epoch adds.
    pub add: Vec<FileEntry>,
    /// Files of earlier epochs that the epoch removes.
    pub remove: Vec<FileEntry>,
    /// Counts of scans and attempts.
    pub counts: Counts,
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
    if let Some(other) = outcomes.iter().find(|outcome| {
        outcome.scan.epoch != epoch
            || outcome.samples.iter().any(|record| record.epoch != epoch)
            || outcome.faults.iter().any(|record| record.epoch != epoch)
    }) {
        return Err(Error::new(format!(
            "scan {}: expected only rows of epoch {epoch}, got rows of another epoch",
            other.scan.scan_id
        )));
    }
    let staged = StagedCandidates::new(epoch, &outcomes)?;
    let folder = epoch_folder(epoch);
    let stage = EpochStage { store, epoch, folder: &folder, patches: &[] };
    let mut placements: HashMap<SampleId, Placement> = HashMap::new();
    let mut sealed = SealedEpoch { epoch, ..SealedEpoch::default() };
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
        staged.samples(|row| row.outcome.is_accepted() || patch_inputs.iter().any(|input| selects(input, row)))?;
    let recipients = |sample: &StagedSample| {
        let rows = &staged.rows[&sample.record.sample_id];
        patch_inputs.iter().map(|input| rows.iter().any(|row| selects(input, row))).collect()
    };
    let recipients: Vec<Vec<bool>> = stored.iter().map(recipients).collect();
    let (patches, shards) = seal_patches(&stage, &stored, &recipients)?;
    record_placements(&stored, patches, &mut sealed.add);
    let rejected = staged.kept_rejections(&stored)?;
    record_placements(&rejected, seal_unsplit(&stage, "rejected", &rejected)?, &mut sealed.add);
    let stage = EpochStage { patches: &shards, ..stage };
    for input in inputs {
        let samples = staged.samples(|row| selects(input, row))?;
        record_placements(&samples, input.layout.seal(&stage, &samples)?, &mut sealed.add);
    }
    let (mut scans, mut samples, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for outcome in outcomes {
        count(&mut sealed.counts, &outcome);
        scans.push(outcome.scan);
        faults.extend(outcome.faults);
        samples.extend(outcome.samples.into_iter().map(|record| {
            let placement = placements.get(&record.sample_id).cloned().unwrap_or_default();
            SampleRow { record, placement }
        }));
    }
    publish_part(store, &mut sealed, samples)?;
    publish_part(store, &mut sealed, scans)?;
    publish_part(store, &mut sealed, faults)?;
    sealed.add.sort_unstable();
    sealed.add.dedup();
    Ok(sealed)
}

/// The rows of an epoch with the staged files of their samples.
struct StagedCandidates<'a> {
    rows: BTreeMap<SampleId, Vec<&'a SampleRecord>>,
    files: BTreeMap<SampleId, StagedFiles>,
}

type StagedFiles = (crate::sink::StagedFile, Option<crate::sink::StagedVolumes>);

impl<'a> StagedCandidates<'a> {
    /// Groups the rows of an epoch by sample.
    ///
    /// # Errors
    /// If two candidates have one id, as they would share files.
    fn new(epoch: u64, outcomes: &'a [ScanOutcome]) -> Result<Self> {
        let mut rows: BTreeMap<SampleId, Vec<&SampleRecord>> = BTreeMap::new();
        for row in outcomes.iter().flat_map(|outcome| &outcome.samples) {
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
        let files = outcomes.iter().flat_map(|outcome| outcome.staged(epoch)).collect();
        Ok(Self { rows, files })
    }

    /// Returns the candidates with a selected row, sorted, each with its first selected row.
    fn samples(&self, selects: impl Fn(&SampleRecord) -> bool) -> Result<Vec<StagedSample>> {
        let mut samples = Vec::new();
        for (sample_id, rows) in &self.rows {
            if let Some(row) = rows.iter().find(|row| selects(row)) {
                let missing = || Error::new(format!("expected staged files of sample {sample_id}, got none"));
                samples.push(self.sample(row).ok_or_else(missing)?);
            }
        }
        Ok(samples)
    }

    fn sample(&self, row: &SampleRecord) -> Option<StagedSample> {
        let (patch, volumes) = self.files.get(&row.sample_id)?.clone();
        let is_other = |other: &&&SampleRecord| other.branch == row.branch && other.tumor_id != row.tumor_id;
        let others = self.rows[&row.sample_id].iter().filter(is_other).map(|&other| other.clone()).collect();
        Some(StagedSample { record: row.clone(), others, patch: Some(patch), volumes })
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

fn publish_part<R: Row>(store: &dyn DurableStorage, sealed: &mut SealedEpoch, rows: Vec<R>) -> Result<()> {
    if !rows.is_empty() || sealed.epoch == 0 {
        sealed.add.push(encode_part(sealed.epoch, rows)?.publish(store)?);
    }
    Ok(())
}

fn count(counts: &mut Counts, outcome: &ScanOutcome) {
    counts.scans += 1;
    counts.duplicates += u64::from(outcome.scan.status == Status::Duplicate);
    counts.without_organs += u64::from(outcome.scan.status == Status::Done && outcome.scan.organs.is_empty());
    for record in &outcome.samples {
        match record.outcome.reason() {
            None if record.kind == SampleKind::Negative => counts.negatives += 1,
            None => counts.accepted += 1,
            Some(reason) => *counts.rejected.entry(reason.to_owned()).or_default() += 1,
        }
    }
    for record in &outcome.faults {
        let kind = format!("{}/{}", record.fault.stage.name(), record.fault.kind.name());
        *counts.faults.entry(kind).or_default() += 1;
    }
}
