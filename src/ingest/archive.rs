//! Remarks on an archive: files that are not scans, and scans that cannot be read.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::id::ScanId;

/// Remarks on an archive: files that are not scans, and scans that cannot be read. No text of the file of a scan is part of a remark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArchiveRemarks {
    /// Number of scans that cannot be read, by the message of their fault, as far as listing shows them: every fault of the headers of
    /// DICOM scans, and folders without a CT series.
    pub unreadable: BTreeMap<String, usize>,
    /// Number of files in DICOM folders that are not read as slices of a scan, by the name of their kind.
    pub unread_files: BTreeMap<&'static str, usize>,
    /// The series that were separated into several scans, by the elements that separate them.
    pub separations: Vec<SeparatedSeries>,
    /// Number of scans that another scan of the same patient and folder continues by one step.
    pub continued: usize,
    /// The scans of different folders that are pieces of one series.
    pub pieces: Vec<[ScanId; 2]>,
    /// Other remarks on a list of scans, such as columns that are ignored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The series that are separated into several scans by the same elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeparatedSeries {
    /// Names of the elements that separate the scans of a series.
    pub elements: Vec<&'static str>,
    /// Number of series.
    pub series: usize,
    /// Number of scans.
    pub scans: usize,
}

impl ArchiveRemarks {
    /// Returns the number of scans that cannot be read.
    pub fn unreadable_scans(&self) -> usize {
        self.unreadable.values().sum()
    }

    /// Returns a sentence for each remark, without the scans that cannot be read. Scans are named by their ids: a path may name a person.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        let files: usize = self.unread_files.values().sum();
        if files > 0 {
            let (files, kinds) = (counted(files, "file"), counts(&self.unread_files));
            sentences.push(format!(
                "{files} in DICOM folders not read as slices of a scan: {kinds}; `freetumor inspect FOLDER` lists those of one folder"
            ));
        }
        for SeparatedSeries { elements, series, scans } in &self.separations {
            sentences.push(format!("{series} series separated into {scans} scans by {}", elements.join(" and ")));
        }
        if self.continued > 0 {
            sentences.push(format!(
                "{} continued exactly by another scan of the same patient and folder: check with `freetumor inspect FOLDER` that they are not pieces of one scan",
                counted(self.continued, "scan")
            ));
        }
        for [first, second] in &self.pieces {
            sentences.push(format!(
                "the scans {first} and {second} are pieces of one series in two folders, and one continues the other: expected the slices of a scan in one folder"
            ));
        }
        sentences.extend(self.notes.iter().cloned());
        sentences
    }
}

/// Returns a number with its noun.
fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Returns the numbers of files or scans, with the names of their kinds.
pub(super) fn counts<K: std::fmt::Display>(numbers: &BTreeMap<K, usize>) -> String {
    numbers.iter().map(|(kind, count)| format!("{count} × {kind}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_count_files_and_separated_series() {
        let remarks = ArchiveRemarks {
            unread_files: BTreeMap::from([("dose report", 1), ("localizer", 2)]),
            separations: vec![SeparatedSeries { elements: vec!["KVP", "ImageType"], series: 1, scans: 2 }],
            ..ArchiveRemarks::default()
        };
        let sentences = remarks.sentences();
        assert!(
            sentences[0]
                .starts_with("3 files in DICOM folders not read as slices of a scan: 1 × dose report, 2 × localizer")
        );
        assert_eq!(sentences[1..], ["1 series separated into 2 scans by KVP and ImageType"]);
        assert!(ArchiveRemarks::default().sentences().is_empty());
    }
}
