//! The scans of a run folder that is only read: their rows, and their keys.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::{FaultKind, Result};
use crate::id::ScanId;
use crate::ingest::ScanEntry;
use crate::record::{FaultRecord, ScanRecord};
use crate::run::RunFolder;

use super::changes::CommittedScan;
use super::folder_report::for_each_row;

impl From<&ScanRecord> for CommittedScan {
    fn from(row: &ScanRecord) -> Self {
        let ScanRecord { epoch, status, scan_digest, duplicate_of, .. } = row;
        let (duplicate_of, is_held_out) = (*duplicate_of, false);
        Self { epoch: *epoch, status: *status, digest: *scan_digest, duplicate_of, is_held_out }
    }
}

/// Reads the rows of all scans of a run folder.
pub(super) fn committed_scans(folder: &RunFolder) -> Result<HashMap<ScanId, CommittedScan>> {
    let mut scans = HashMap::new();
    for_each_row::<ScanRecord>(folder, |row| {
        scans.insert(row.scan_id, CommittedScan::from(&row));
    })?;
    for_each_row::<FaultRecord>(folder, |row| {
        if let Some(scan) = scans.get_mut(&row.scan_id) {
            scan.is_held_out |= row.fault.kind == FaultKind::HeldOut;
        }
    })?;
    Ok(scans)
}

/// Returns the keys of scans of a run folder.
pub(super) fn keys_of(folder: &RunFolder, scans: &HashSet<ScanId>) -> Result<HashMap<ScanId, String>> {
    let mut keys = HashMap::new();
    folder.for_each_entry(folder.next_ingest()?, &mut |entry| {
        if scans.contains(&entry.scan_id) {
            keys.insert(entry.scan_id, entry.key);
        }
    })?;
    Ok(keys)
}

/// Returns the last ingested entries of scans of a run folder, with their keys from `RUN/private`, sorted by scan id.
pub(super) fn entries_of(folder: &RunFolder, scans: &HashSet<ScanId>) -> Result<Vec<ScanEntry>> {
    let mut entries = BTreeMap::new();
    folder.for_each_entry(folder.next_ingest()?, &mut |entry| {
        if scans.contains(&entry.scan_id) {
            entries.insert(entry.scan_id, entry);
        }
    })?;
    Ok(entries.into_values().collect())
}
