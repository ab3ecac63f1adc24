//! Remarks on the DICOM folders of a source: files that are not read, separated series, and scans in pieces.

use std::collections::BTreeMap;

use crate::error::Fault;
use crate::id::ScanId;
use crate::ingest::dicom::{DicomFolder, Separation, Series, SeriesExtent, read_header};

/// The remarks on all folders of a source.
#[derive(Default)]
pub(super) struct Remarks {
    /// Number of files that are not read, by the name of their kind.
    unread_files: BTreeMap<&'static str, usize>,
    separations: Vec<Separation>,
    /// Number of DICOM scans that cannot be read, and the message of one of them.
    failing: usize,
    example: Option<String>,
    /// Number of scans in one folder that another scan of the patient continues.
    adjoining: usize,
    /// The scans of each series identifier: key of the folder, id and extent.
    scans: BTreeMap<[u8; 32], Vec<(String, ScanId, SeriesExtent)>>,
}

impl Remarks {
    pub fn add_folder(&mut self, folder: &DicomFolder) {
        for (kind, count) in folder.unread_files() {
            *self.unread_files.entry(kind).or_insert(0) += count;
        }
        self.separations.extend(folder.separations.iter().cloned());
        self.adjoining += folder.adjoining.len();
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
        self.failing += 1;
        self.example.get_or_insert_with(|| fault.message.clone());
    }

    /// Logs the remarks, one line for each kind. Scans are named by their ids: a path may name a person.
    pub fn log(&self, source: &str) {
        let files: usize = self.unread_files.values().sum();
        if files > 0 {
            tracing::warn!(
                source,
                "{} in DICOM folders not read as slices of a scan: {}; `freetumor inspect FOLDER` lists those of one folder",
                counted(files, "file"),
                counts(&self.unread_files)
            );
        }
        if let Some(example) = &self.example {
            tracing::warn!(source, "{} cannot be read, for example: {example}", counted(self.failing, "DICOM scan"));
        }
        let mut by_elements: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for separation in &self.separations {
            let (series, scans) = by_elements.entry(separation.elements.join(" and ")).or_default();
            (*series, *scans) = (*series + 1, *scans + separation.scans);
        }
        for (elements, (series, scans)) in by_elements {
            tracing::warn!(source, "{series} series separated into {scans} scans by {elements}");
        }
        if self.adjoining > 0 {
            tracing::warn!(
                source,
                "{} continued exactly by another scan of the same patient and folder: check with `freetumor inspect FOLDER` that they are not pieces of one scan",
                counted(self.adjoining, "scan")
            );
        }
        for [first, second] in self.pieces() {
            tracing::warn!(
                source,
                "the scans {first} and {second} are pieces of one series in two folders, and one continues the other: expected the slices of a scan in one folder"
            );
        }
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

/// Returns a number with its noun.
fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Returns the numbers of files, with the names of their kinds.
pub(super) fn counts(files: &BTreeMap<&'static str, usize>) -> String {
    files.iter().map(|(kind, count)| format!("{count} × {kind}")).collect::<Vec<_>>().join(", ")
}
