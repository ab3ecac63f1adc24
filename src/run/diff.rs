//! Comparison of the samples of two states of run folders.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::RunFolder;
use crate::error::Result;
use crate::id::SampleId;
use crate::record::parquet::decode_part;
use crate::record::{SampleKind, SampleRecord, SampleRow};

/// Maximum number of examples.
const MAX_NAMED: usize = 10;

/// The number of samples of one state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SampleCounts {
    /// Accepted tumors.
    pub accepted: u64,
    /// Rejected attempts.
    pub rejected: u64,
}

/// The differences between the tables `samples` of two states. Rows are matched by sample id, quality test and tumor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SampleDiff {
    /// Rows with the same outcome in both states.
    pub same: u64,
    /// Rows of the first state only.
    pub only_first: u64,
    /// Rows of the second state only.
    pub only_second: u64,
    /// Rows that only the second state accepts.
    pub newly_accepted: u64,
    /// Rows that only the first state accepts.
    pub newly_rejected: u64,
    /// Rows that both states reject, for different reasons.
    pub other_reason: u64,
    /// Examples of rows with different outcomes: sample id, outcome in the first state, outcome in the second state.
    pub examples: Vec<(SampleId, String, String)>,
    /// The counts by organ and size class, in both states.
    pub groups: BTreeMap<String, [SampleCounts; 2]>,
}

type RowKey = (SampleId, String, u32);

/// Compares the samples of two states. Each state is a folder and an epoch; `None` is the last epoch.
///
/// # Errors
/// If a table cannot be read.
pub fn diff_samples(first: (&RunFolder, Option<u64>), second: (&RunFolder, Option<u64>)) -> Result<SampleDiff> {
    let mut diff = SampleDiff::default();
    let mut rows: HashMap<RowKey, String> = HashMap::new();
    for_each_row(first, |row| {
        diff.count(&row, 0);
        rows.insert(key(&row), outcome(&row));
    })?;
    for_each_row(second, |row| {
        diff.count(&row, 1);
        let now = outcome(&row);
        match rows.remove(&key(&row)) {
            None => diff.only_second += 1,
            Some(before) if before == now => diff.same += 1,
            Some(before) => {
                match (before.as_str(), now.as_str()) {
                    (_, ACCEPTED) => diff.newly_accepted += 1,
                    (ACCEPTED, _) => diff.newly_rejected += 1,
                    _ => diff.other_reason += 1,
                }
                if diff.examples.len() < MAX_NAMED {
                    diff.examples.push((row.sample_id, before, now));
                }
            }
        }
    })?;
    diff.only_first = rows.len() as u64;
    Ok(diff)
}

const ACCEPTED: &str = "accepted";

fn outcome(row: &SampleRecord) -> String {
    row.outcome.reason().unwrap_or(ACCEPTED).to_owned()
}

fn key(row: &SampleRecord) -> RowKey {
    (row.sample_id, row.branch.clone(), row.tumor_id)
}

impl SampleDiff {
    fn count(&mut self, row: &SampleRecord, state: usize) {
        if row.kind != SampleKind::Synthetic {
            return;
        }
        let size = row.geometry.as_ref().map_or("no site", |geometry| geometry.size_class.as_str());
        let counts = &mut self.groups.entry(format!("{} {size}", row.organ)).or_default()[state];
        match row.outcome.is_accepted() {
            true => counts.accepted += 1,
            false => counts.rejected += 1,
        }
    }
}

fn for_each_row((folder, at): (&RunFolder, Option<u64>), mut visit: impl FnMut(SampleRecord)) -> Result<()> {
    for file in folder.files("samples", at)? {
        decode_part::<SampleRow>(folder.read_verified(&file)?)?.into_iter().for_each(|row| visit(row.record));
    }
    Ok(())
}
