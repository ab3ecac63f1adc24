//! Selection of samples: rows of `samples` that meet conditions, with a limit per group.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::SampleId;
use crate::record::SampleRow;
use crate::record::Value;
use crate::record::parquet::{Row, decode_part};
use crate::record::schema::Table;
use crate::record::{ColumnCondition, GroupBy, SampleRecord, SplitGuard};
use crate::run::RunFolder;

/// A condition on a row of `samples`.
pub type SampleCondition = ColumnCondition<SampleRow>;

/// Maximum number of samples without a patch in a report.
const MAX_LISTED_SAMPLES: usize = 5;

/// The selection of samples.
#[derive(Debug, Default)]
pub struct SelectionConfig {
    /// Conditions that a row must meet. Without a condition on `verdict`, only accepted rows are selected.
    pub conditions: Vec<SampleCondition>,
    /// Maximum number of samples per group of `per`, those with the lowest ids; all if absent.
    pub at_most: Option<usize>,
    /// The columns that define groups.
    pub per: GroupBy<SampleRow>,
    /// The commit after which the run folder is read; the last commit if absent.
    pub at: Option<u64>,
}

impl SelectionConfig {
    /// Returns the effective conditions as strings.
    pub fn conditions(&self) -> Vec<String> {
        let default = self.selects_accepted().then(|| "verdict = accepted".to_owned());
        self.conditions.iter().map(ToString::to_string).chain(default).collect()
    }

    /// Returns whether a condition is on the column `verdict`.
    pub fn has_verdict(&self) -> bool {
        self.conditions.iter().any(|condition| condition.column() == "verdict")
    }

    fn selects_accepted(&self) -> bool {
        !self.has_verdict()
    }

    fn matches(&self, row: &SampleRow) -> bool {
        (!self.selects_accepted() || row.record.outcome.is_accepted())
            && self.conditions.iter().all(|condition| condition.holds(row))
    }
}

/// A selected sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectedSample {
    /// The row; the first by branch and tumor if several rows are selected.
    pub record: SampleRecord,
    /// The rows of the other tumors of the sample, by the same quality test.
    pub others: Vec<SampleRecord>,
    /// The shard of the patch, relative to the run folder.
    pub shard: String,
    /// The offset of the patch in the shard.
    pub offset_bytes: u64,
    /// The length of the patch.
    pub length_bytes: u64,
}

/// Samples that meet the conditions but cannot be exported, because the run folder stores no patch of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SamplesWithoutPatch {
    /// Number of samples.
    pub samples: usize,
    /// The first of these samples by id.
    pub first: Vec<SampleId>,
}

/// The samples that meet the conditions of a [`SelectionConfig`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// The samples, sorted by id.
    pub samples: Vec<SelectedSample>,
    /// Samples that meet the conditions but cannot be exported, because the run folder stores no patch of them. These samples do
    /// not count towards the limit of a group.
    pub without_patch: SamplesWithoutPatch,
}

/// Selects samples; one part of the table is in memory at a time.
///
/// # Errors
/// If the table cannot be read, the commit `config.at` does not exist, `config.per` contains the column `branch` (a sample accepted in
/// several branches is exported once), or a patient is in two splits.
pub fn select(run: &RunFolder, config: &SelectionConfig) -> Result<Selection> {
    if config.per.columns().any(|column| column == "branch") {
        let message = "cannot group samples by `branch`: a sample that several quality tests accepted is exported once";
        return Err(Error::new(message).with_hint("export each branch separately with `--where 'branch = NAME'`"));
    }
    let mut groups: BTreeMap<Vec<Option<String>>, BTreeMap<SampleId, SelectedSample>> = BTreeMap::new();
    let mut without_patch = SamplesWithoutPatch::default();
    for file in run.files(Table::Samples.name(), config.at)? {
        // Rows are sorted by id, branch and tumor, and all rows of a sample are in one part.
        let rows: Vec<SampleRow> = decode_part(run.read_verified(&file)?)?;
        for rows in rows.chunk_by(|a, b| a.record.sample_id == b.record.sample_id) {
            let Some(row) = rows.iter().find(|row| config.matches(row)) else { continue };
            let key = config.per.group(row);
            let SampleRow { record, placement } = row.clone();
            let is_other = |other: &&SampleRecord| other.branch == record.branch && other.tumor_id != record.tumor_id;
            let others = rows.iter().map(|row| &row.record).filter(is_other).cloned().collect();
            let location = (placement.patch_shard, placement.patch_offset_bytes, placement.patch_length_bytes);
            let (Some(shard), Some(offset_bytes), Some(length_bytes)) = location else {
                without_patch.samples += 1;
                without_patch.first.push(record.sample_id);
                without_patch.first.sort_unstable();
                without_patch.first.truncate(MAX_LISTED_SAMPLES);
                continue;
            };
            let group = groups.entry(key).or_default();
            group.insert(record.sample_id, SelectedSample { record, others, shard, offset_bytes, length_bytes });
            if config.at_most.is_some_and(|limit| group.len() > limit) {
                group.pop_last();
            }
        }
    }
    let mut samples: Vec<SelectedSample> = groups.into_values().flat_map(BTreeMap::into_values).collect();
    samples.sort_by_key(|sample| sample.record.sample_id);
    let mut guard = SplitGuard::default();
    samples.iter().try_for_each(|sample| guard.admit(sample.record.patient_key, sample.record.split))?;
    Ok(Selection { samples, without_patch })
}

/// Returns whether any row has a value in a column; true if there are no rows.
///
/// # Errors
/// If the table cannot be read, or the commit `config.at` does not exist.
pub fn has_values(run: &RunFolder, config: &SelectionConfig, column: &str) -> Result<bool> {
    let mut is_empty = true;
    for file in run.files(Table::Samples.name(), config.at)? {
        let rows: Vec<SampleRow> = decode_part(run.read_verified(&file)?)?;
        if rows.iter().any(|row| row.value(column).is_some()) {
            return Ok(true);
        }
        is_empty &= rows.is_empty();
    }
    Ok(is_empty)
}

/// Returns the sorted values of a column over all samples; `None` if there are more than `limit` values.
///
/// # Errors
/// If the table cannot be read, or the commit `config.at` does not exist.
pub fn column_values(
    run: &RunFolder,
    config: &SelectionConfig,
    column: &str,
    limit: usize,
) -> Result<Option<Vec<String>>> {
    let mut values = BTreeSet::new();
    for file in run.files(Table::Samples.name(), config.at)? {
        let rows: Vec<SampleRow> = decode_part(run.read_verified(&file)?)?;
        for row in rows {
            if let Some(Value::Text(value)) = row.value(column) {
                values.insert(value);
            }
        }
        if values.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(values.into_iter().collect()))
}
