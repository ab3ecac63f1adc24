//! Collects the remarks on the DICOM folders of a source: files that are left out, separated series, and scans in pieces.

use std::collections::BTreeMap;

use crate::error::Fault;
use crate::id::ScanId;
use crate::ingest::archive::{ArchiveRemarks, SeparatedSeries};
use crate::ingest::dicom::{DicomFolder, Series, SeriesExtent, read_header};

/// The remarks on the folders of a source that were listed so far.
#[derive(Clone, Default)]
pub(in crate::ingest) struct Remarks {
    remarks: ArchiveRemarks,
    /// Number of series and of their scans, by the elements that separate them.
    separations: BTreeMap<Vec<&'static str>, (usize, usize)>,
    /// The scans of each series identifier: key of the folder, id and extent.
    scans: BTreeMap<[u8; 32], Vec<(String, ScanId, SeriesExtent)>>,
}

impl Remarks {
    pub fn add_folder(&mut self, folder: &DicomFolder) {
        for (kind, count) in folder.unread_files() {
            *self.remarks.unread_files.entry(kind).or_insert(0) += count;
        }
        for separation in &folder.separations {
            let (series, scans) = self.separations.entry(separation.elements.clone()).or_default();
            (*series, *scans) = (*series + 1, *scans + separation.scans);
        }
        self.remarks.continued += folder.adjoining.len();
    }

    pub fn add_scan(&mut self, folder: &str, scan: ScanId, series: &Series) {
        if let Err(fault) = read_header(series) {
            self.add_fault(&fault);
        }
        if let Some(extent) = series.extent() {
            self.scans.entry(extent.identifier()).or_default().push((folder.to_owned(), scan, extent));
        }
    }

    /// Adds a DICOM scan that cannot be read.
    pub fn add_fault(&mut self, fault: &Fault) {
        *self.remarks.unreadable.entry(fault.message.clone()).or_insert(0) += 1;
    }

    /// Adds the remarks of another listing.
    pub fn extend(&mut self, other: &Self) {
        for (message, count) in &other.remarks.unreadable {
            *self.remarks.unreadable.entry(message.clone()).or_insert(0) += count;
        }
        for (kind, count) in &other.remarks.unread_files {
            *self.remarks.unread_files.entry(kind).or_insert(0) += count;
        }
        self.remarks.continued += other.remarks.continued;
        for (elements, (series, scans)) in &other.separations {
            let sums = self.separations.entry(elements.clone()).or_default();
            *sums = (sums.0 + series, sums.1 + scans);
        }
        for (identifier, scans) in &other.scans {
            self.scans.entry(*identifier).or_default().extend(scans.iter().cloned());
        }
    }

    /// Returns the collected remarks.
    pub fn finish(self) -> ArchiveRemarks {
        let pieces = self.pieces();
        let separations = self.separations.into_iter();
        let separations =
            separations.map(|(elements, (series, scans))| SeparatedSeries { elements, series, scans }).collect();
        ArchiveRemarks { pieces, separations, ..self.remarks }
    }

    /// Returns the scans of different folders that are pieces of one series.
    fn pieces(&self) -> Vec<[ScanId; 2]> {
        let mut found = Vec::new();
        for scans in self.scans.values() {
            for (index, (folder, scan, extent)) in scans.iter().enumerate() {
                let others = scans[index + 1..].iter().filter(|(other, _, _)| other != folder);
                found.extend(others.filter(|(_, _, other)| extent.adjoins(other)).map(|(_, other, _)| [*scan, *other]));
            }
        }
        found
    }
}

/// Logs the remarks on the archive of a source.
pub(in crate::ingest) fn log_remarks(source: &str, remarks: &ArchiveRemarks) {
    remarks.sentences().iter().for_each(|sentence| tracing::warn!(source, "{sentence}"));
    if let Some(example) = remarks.unreadable.keys().next() {
        tracing::warn!(source, "{} scan(s) cannot be read, for example: {example}", remarks.unreadable_scans());
    }
}
