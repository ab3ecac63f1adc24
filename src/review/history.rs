//! The history of a sample: its scan and synthesis, and every attempt with its scores and the condition that decided.

use serde::Serialize;
use serde_json::Value as Json;

use crate::error::{Error, ErrorKind, Result};
use crate::filter::Condition;
use crate::id::{CandidateDigest, SampleId};
use crate::record::parquet::decode_part;
use crate::record::schema::Table;
use crate::record::{FileEntry, Outcome, Placement, SampleKind, SampleRecord, SampleRow, epoch_of_name};
use crate::run::RunFolder;

/// The history of a sample.
#[derive(Clone, Debug, Serialize)]
pub struct SampleHistory {
    /// The row of the sample; the first by quality test and tumor if there are several.
    pub record: SampleRecord,
    /// The files of the sample.
    pub files: SampleFileLocations,
    /// The quality tests that decided on the tumors of the sample, each with all attempts at these tumors.
    pub tests: Vec<TestHistory>,
}

/// The location of the files of a sample, relative to the run folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SampleFileLocations {
    /// The shard of the patch, with the offset and length in bytes; absent if the patch was not kept.
    pub patch: Option<(String, u64, u64)>,
    /// The image and label, if a sink has them as files.
    pub pair: Option<(String, String)>,
}

impl From<&Placement> for SampleFileLocations {
    fn from(placement: &Placement) -> Self {
        let Placement { patch_shard, patch_offset_bytes, patch_length_bytes, image_path, label_path, .. } =
            placement.clone();
        let patch = patch_shard.zip(patch_offset_bytes).zip(patch_length_bytes);
        Self { patch: patch.map(|((shard, offset), length)| (shard, offset, length)), pair: image_path.zip(label_path) }
    }
}

/// The attempts at the tumors of a sample, decided by one quality test.
#[derive(Clone, Debug, Serialize)]
pub struct TestHistory {
    /// The name of the quality test in the graph file.
    pub test: String,
    /// The attempts, in the order of tumors and attempts.
    pub attempts: Vec<AttemptHistory>,
}

/// One attempt at a tumor.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptHistory {
    /// The index of the tumor in its sample.
    pub tumor_id: u32,
    /// The index of the attempt.
    pub attempt: u32,
    /// The id of the candidate; absent for a negative.
    pub candidate_id: Option<SampleId>,
    /// Digest of boxes, voxels and labels; absent if no site was found.
    pub candidate_digest: Option<CandidateDigest>,
    /// Whether the attempt is part of the sample.
    pub is_in_sample: bool,
    /// The equivalent diameter in mm; absent if no site was found.
    pub diameter_mm: Option<f64>,
    /// The conditions of the test, in the order of the graph file.
    pub conditions: Vec<ConditionResult>,
    /// The density ratio of real and synthetic tumors; absent without calibration.
    pub likeness: Option<f64>,
    /// The probability of acceptance; absent without calibration.
    pub acceptance: Option<f64>,
    /// Accepted, or the reason for the rejection.
    pub outcome: Outcome,
}

/// A condition with the score of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConditionResult {
    /// The condition, as in the graph file.
    pub condition: String,
    /// The score; absent if it was not computed.
    pub score: Option<f64>,
    /// Whether the condition holds.
    pub holds: bool,
}

impl SampleHistory {
    /// Reads the history of a sample, or of the sample with a candidate of this id, after commit `at` or the last commit.
    ///
    /// # Errors
    /// If there is no such sample, or the tables cannot be read.
    pub fn read(run: &RunFolder, sample_id: SampleId, at: Option<u64>) -> Result<Self> {
        let is_own = |row: &SampleRow| row.record.sample_id == sample_id || row.record.candidate_id == Some(sample_id);
        let (own, of_epoch) = find(run, at, &is_own)?.ok_or_else(|| {
            Error::new(format!("expected a sample of {}, got {sample_id}", run.store().display_path("")))
                .with_kind(ErrorKind::Refused)
                .with_hint("the column sample_id of the table `samples` has the ids: `freetumor files RUN samples`")
        })?;
        // A rejected candidate of a sample of several tumors has an id of its own.
        let first = own.iter().min_by_key(|row| (row.record.sample_id != sample_id, row.record.tumor_id));
        let Some(first) = first.cloned() else { return Err(Error::new("expected a row of the sample, got none")) };
        let record = first.record.clone();
        let is_of_tumor = |row: &SampleRow| {
            own.iter().any(|own| {
                let key = |row: &SampleRow| {
                    let SampleRecord { scan_id, mask_digest, stage, organ, variant, tumor_id, kind, .. } = &row.record;
                    (*scan_id, *mask_digest, stage.clone(), organ.clone(), *variant, *tumor_id, *kind)
                };
                key(own) == key(row)
            })
        };
        // A row of a scan that a change of the graph has not reached yet was decided on by the graph of its epoch.
        let mut manifest = run.manifest_at(at)?;
        if manifest.pipeline_digest != record.pipeline_digest {
            let earlier = run.manifest_at(Some(record.epoch)).ok();
            manifest = earlier.filter(|earlier| earlier.pipeline_digest == record.pipeline_digest).unwrap_or(manifest);
        }
        let pipeline = manifest.pipeline;
        let mut rows: Vec<&SampleRow> = of_epoch.iter().filter(|row| is_of_tumor(row)).collect();
        rows.sort_by_key(|row| (row.record.tumor_id, row.record.attempt));
        let mut tests: Vec<TestHistory> = Vec::new();
        for row in rows {
            let attempt = attempt_of(row, &conditions_of(&pipeline, &row.record.branch), record.sample_id);
            match tests.iter_mut().find(|test| test.test == row.record.branch) {
                Some(test) => test.attempts.push(attempt),
                None => tests.push(TestHistory { test: row.record.branch.clone(), attempts: vec![attempt] }),
            }
        }
        tests.sort_by(|a, b| a.test.cmp(&b.test));
        Ok(Self { record, files: SampleFileLocations::from(&first.placement), tests })
    }
}

/// Rows of a table, and all rows of their epoch.
type FoundRows = (Vec<SampleRow>, Vec<SampleRow>);

/// Returns the rows that `is_own` selects, with all rows of their epoch; `None` if there are none.
fn find(run: &RunFolder, at: Option<u64>, is_own: &dyn Fn(&SampleRow) -> bool) -> Result<Option<FoundRows>> {
    let files = run.files(Table::Samples.name(), at)?;
    let epoch = |file: &FileEntry| file.path.rsplit('/').next().and_then(epoch_of_name);
    for file in &files {
        let rows = decode_part::<SampleRow>(run.read_verified(file)?)?;
        let own: Vec<SampleRow> = rows.iter().filter(|row| is_own(row)).cloned().collect();
        if own.is_empty() {
            continue;
        }
        let mut all = rows;
        for other in files.iter().filter(|other| other.path != file.path && epoch(other) == epoch(file)) {
            all.extend(decode_part::<SampleRow>(run.read_verified(other)?)?);
        }
        return Ok(Some((own, all)));
    }
    Ok(None)
}

/// Returns the conditions of a quality test in a pipeline.
fn conditions_of(pipeline: &Json, test: &str) -> Vec<Condition> {
    let conditions = pipeline["stages"][test]["accept"].as_array().into_iter().flatten();
    conditions.filter_map(|condition| condition.as_str()?.parse().ok()).collect()
}

fn attempt_of(row: &SampleRow, conditions: &[Condition], sample_id: SampleId) -> AttemptHistory {
    let record = &row.record;
    let is_tested = record.kind == SampleKind::Synthetic && record.candidate_digest.is_some();
    let result = |condition: &Condition| ConditionResult {
        condition: condition.to_string(),
        score: record.scores.get(condition.score),
        holds: condition.holds(&record.scores),
    };
    AttemptHistory {
        tumor_id: record.tumor_id,
        attempt: record.attempt,
        candidate_id: record.candidate_id,
        candidate_digest: record.candidate_digest,
        is_in_sample: record.sample_id == sample_id,
        diameter_mm: record.geometry.as_ref().map(|geometry| geometry.diameter_mm),
        conditions: if is_tested { conditions.iter().map(result).collect() } else { Vec::new() },
        likeness: record.likeness,
        acceptance: record.acceptance,
        outcome: record.outcome.clone(),
    }
}
