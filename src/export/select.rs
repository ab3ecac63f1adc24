//! Which samples are exported: rows of `samples` that meet conditions, the first of each group.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::SampleId;
use crate::record::SampleRow;
use crate::record::Value;
use crate::record::parquet::{Row, read_part};
use crate::record::schema::Table;
use crate::record::{ColumnCondition, GroupBy, SampleRecord, SplitGuard};
use crate::run::RunFolder;

/// A condition on a row of `samples`.
pub type SampleCondition = ColumnCondition<SampleRow>;

/// Samples without a patch that a report names.
const NAMED: usize = 5;

/// Which samples are selected.
#[derive(Debug, Default)]
pub struct SelectionConfig {
    /// What their rows must meet, all of it; accepted rows unless one of the conditions is on `verdict`.
    pub conditions: Vec<SampleCondition>,
    /// How many of each group of `per` at most, those with the lowest ids; all if absent.
    pub at_most: Option<usize>,
    /// The columns that make a group.
    pub per: GroupBy<SampleRow>,
    /// The commit after which the run folder is read; the last where absent.
    pub at: Option<u64>,
}

impl SelectionConfig {
    /// The conditions in effect, as text.
    pub fn conditions(&self) -> Vec<String> {
        let default = self.takes_accepted().then(|| "verdict = accepted".to_owned());
        self.conditions.iter().map(ToString::to_string).chain(default).collect()
    }

    /// Whether a condition is on the column `verdict`.
    pub fn has_verdict(&self) -> bool {
        self.conditions.iter().any(|condition| condition.column() == "verdict")
    }

    fn takes_accepted(&self) -> bool {
        !self.has_verdict()
    }

    fn takes(&self, row: &SampleRow) -> bool {
        (!self.takes_accepted() || row.record.outcome.is_accepted())
            && self.conditions.iter().all(|condition| condition.holds(row))
    }
}

/// A sample to be exported.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// The row; the first by branch where several are selected.
    pub record: SampleRecord,
    /// The shard of patches, below the run folder.
    pub shard: String,
    /// Where its patch begins in the shard.
    pub offset_bytes: u64,
    /// Bytes of its patch.
    pub length_bytes: u64,
}

/// Samples that meet the conditions and have no stored patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WithoutPatch {
    /// How many.
    pub samples: usize,
    /// The first of them.
    pub first: Vec<SampleId>,
}

/// The samples to be exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Sorted by id.
    pub samples: Vec<Selected>,
    /// Those that are left out because no patch is stored of them; they do not count towards the limit of a group.
    pub without_patch: WithoutPatch,
}

/// Selects samples; one part of the table is in memory at a time.
///
/// # Errors
/// If the table cannot be read, there is no such commit, samples are to be grouped by `branch`, or a patient is in two splits.
pub fn select(run: &RunFolder, config: &SelectionConfig) -> Result<Selection> {
    if config.per.columns().any(|column| column == "branch") {
        let message = "samples cannot be grouped by `branch`: one that several quality tests accepted is exported once";
        return Err(Error::new(message).with_hint("export each branch by itself, with --where 'branch = NAME'"));
    }
    let mut groups: BTreeMap<Vec<Option<String>>, BTreeMap<SampleId, Selected>> = BTreeMap::new();
    let mut without_patch = WithoutPatch::default();
    for file in run.files(Table::Samples.name(), config.at)? {
        // Sorted by id and branch, and all rows of a sample are in one part.
        let mut rows: Vec<SampleRow> = read_part(run.read_verified(&file)?)?;
        rows.retain(|row| config.takes(row));
        rows.dedup_by_key(|row| row.record.sample_id);
        for row in rows {
            let key = config.per.group(&row);
            let SampleRow { record, placement } = row;
            let place = (placement.patch_shard, placement.patch_offset_bytes, placement.patch_length_bytes);
            let (Some(shard), Some(offset_bytes), Some(length_bytes)) = place else {
                without_patch.samples += 1;
                without_patch.first.push(record.sample_id);
                without_patch.first.sort_unstable();
                without_patch.first.truncate(NAMED);
                continue;
            };
            let group = groups.entry(key).or_default();
            group.insert(record.sample_id, Selected { record, shard, offset_bytes, length_bytes });
            if config.at_most.is_some_and(|most| group.len() > most) {
                group.pop_last();
            }
        }
    }
    let mut samples: Vec<Selected> = groups.into_values().flat_map(BTreeMap::into_values).collect();
    samples.sort_by_key(|sample| sample.record.sample_id);
    let mut guard = SplitGuard::default();
    samples.iter().try_for_each(|sample| guard.admit(sample.record.patient_key, sample.record.split))?;
    Ok(Selection { samples, without_patch })
}

/// The values of a column over all samples, sorted; `None` if there are more than `most`.
///
/// # Errors
/// If the table cannot be read, or there is no such commit.
pub fn values_of(run: &RunFolder, config: &SelectionConfig, column: &str, most: usize) -> Result<Option<Vec<String>>> {
    let mut values = BTreeSet::new();
    for file in run.files(Table::Samples.name(), config.at)? {
        let rows: Vec<SampleRow> = read_part(run.read_verified(&file)?)?;
        for row in rows {
            if let Some(Value::Text(value)) = row.value(column) {
                values.insert(value);
            }
        }
        if values.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(values.into_iter().collect()))
}
