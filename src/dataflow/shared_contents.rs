//! Contents that occur under two patients.

use std::collections::HashMap;

use serde::Serialize;

use crate::id::{PatientKey, ScanId};
use crate::record::ScanRecord;

/// Maximum number of scans in a warning.
const MAX_LISTED: usize = 3;

/// A scan with the content of a scan of another patient: one person may have two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SharedContent {
    /// The duplicate.
    pub scan: ScanId,
    /// The patient of the duplicate.
    pub patient_key: PatientKey,
    /// The scan that was processed instead.
    pub original: ScanId,
    /// The patient of that scan.
    pub original_patient_key: PatientKey,
}

/// Finds contents under two patients in the rows of `scans`, which may be in any order.
#[derive(Debug, Default)]
pub(super) struct SharedContents {
    patients: HashMap<ScanId, PatientKey>,
    /// Duplicates with their patients and originals.
    duplicates: Vec<(ScanId, PatientKey, ScanId)>,
}

impl SharedContents {
    /// Adds a row.
    pub fn add(&mut self, row: &ScanRecord) {
        match row.duplicate_of {
            Some(original) => self.duplicates.push((row.scan_id, row.patient_key, original)),
            // The original of a duplicate is no duplicate itself.
            None => _ = self.patients.insert(row.scan_id, row.patient_key),
        }
    }

    /// Returns the duplicates of another patient than that of their original, sorted.
    pub fn finish(self) -> Vec<SharedContent> {
        let Self { patients, duplicates } = self;
        let shared = |(scan, patient_key, original): (ScanId, PatientKey, ScanId)| {
            let original_patient_key = *patients.get(&original)?;
            (original_patient_key != patient_key).then_some(SharedContent {
                scan,
                patient_key,
                original,
                original_patient_key,
            })
        };
        let mut found: Vec<_> = duplicates.into_iter().filter_map(shared).collect();
        found.sort_unstable();
        found
    }
}

/// Returns a warning about contents under two patients, or `None` if there are none.
pub(super) fn shared_warning(shared: &[SharedContent]) -> Option<String> {
    let listed: Vec<String> = shared
        .iter()
        .take(MAX_LISTED)
        .map(|SharedContent { scan, patient_key, original, original_patient_key }| {
            format!("scan {scan} of patient {patient_key} equals scan {original} of patient {original_patient_key}")
        })
        .collect();
    let more =
        if shared.len() > MAX_LISTED { format!("; and {} more", shared.len() - MAX_LISTED) } else { String::new() };
    (!listed.is_empty()).then(|| {
        format!(
            "the same content under two patients: {}{more}; one person may be in two splits: correct `patient` of the sources",
            listed.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parquet::Row;

    fn row(scan: u8, patient: u8, original: Option<u8>) -> ScanRecord {
        let scan_id = |byte| ScanId::from_bytes([byte; 8]);
        ScanRecord {
            scan_id: scan_id(scan),
            patient_key: PatientKey::from_bytes([patient; 8]),
            duplicate_of: original.map(scan_id),
            ..<ScanRecord as Row>::empty()
        }
    }

    #[test]
    fn only_duplicates_of_another_patient_are_found() {
        let mut contents = SharedContents::default();
        for row in [row(3, 7, Some(1)), row(1, 7, None), row(2, 8, Some(1)), row(4, 9, Some(5))] {
            contents.add(&row);
        }
        let found = contents.finish();
        assert_eq!(found.iter().map(|shared| shared.scan).collect::<Vec<_>>(), [ScanId::from_bytes([2; 8])]);
        let warning = shared_warning(&found).unwrap();
        assert!(warning.contains("scan 0202020202020202 of patient 0808080808080808 equals"), "{warning}");
        assert_eq!(shared_warning(&[]), None);
    }
}
