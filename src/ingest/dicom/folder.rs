//! The series of a folder, and the files in it that are not slices.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::continuation::mark_continued;
use super::decoder::Decoder;
use super::geometry::FEWEST_SLICES;
use super::series::Series;
use super::slice::{FileContent, Slice};
use super::stack::Stack;
use super::stacks::separate;
use crate::error::{Fault, FaultKind};

/// The listing of a DICOM folder: its series, and counts of its other files.
#[derive(Debug, Default)]
pub struct DicomFolder {
    /// The series, sorted by [`Series::id`].
    pub series: Vec<Series>,
    /// Number of files that are not slices, by the name of their kind: objects of other SOP classes (secondary captures, dose reports,
    /// DICOMDIR), files whose name shows that they are not DICOM, and unreadable files that the filter skips.
    pub other_files: BTreeMap<&'static str, usize>,
    /// The series identifiers with several scans.
    pub separations: Vec<Separation>,
    /// The ids of scans of one patient of which one continues the other by one step, although their identifiers or settings differ.
    pub adjoining: Vec<[String; 2]>,
}

/// One series identifier with several scans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Separation {
    /// Number of scans.
    pub scans: usize,
    /// Names of the elements that separate them.
    pub elements: Vec<&'static str>,
}

impl fmt::Display for Separation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a series was separated into {} scans by {}", self.scans, self.elements.join(" and "))
    }
}

impl DicomFolder {
    /// Returns whether a series is a scan: no localizer and no other modality.
    fn is_scan(series: &Series) -> bool {
        !series.is_localizer() && !series.is_other_modality()
    }

    /// Returns the series that are read: the scans; all series if there is no scan, so that their faults explain why.
    pub fn into_scans(self) -> Vec<Series> {
        let has_scan = self.series.iter().any(Self::is_scan);
        self.series.into_iter().filter(|series| !has_scan || Self::is_scan(series)).collect()
    }

    /// Returns the number of files that are not read, by kind: files that are not slices, and slices that belong to no scan (localizers,
    /// other modalities, slices in no stack).
    pub fn unread_files(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = self.other_files.clone();
        if self.series.iter().any(Self::is_scan) {
            for series in self.series.iter().filter(|series| !Self::is_scan(series)) {
                let kind = match (series.is_other_modality(), series.is_localizer_by_type()) {
                    (true, _) => "image of another modality",
                    (false, true) => "localizer",
                    (false, false) => "slice outside of a stack",
                };
                *counts.entry(kind).or_insert(0) += series.files();
            }
        }
        counts
    }
}

/// The rules that decide which files of a DICOM folder are not read as slices.
#[derive(Clone, Copy)]
pub struct FolderFilter<'a> {
    /// Returns whether a file is skipped without being opened.
    pub is_excluded: &'a dyn Fn(&Path) -> bool,
    /// Whether unreadable files are skipped; by default, they make the scan fail.
    pub skip_unreadable: bool,
    /// Decodes compressed files at the same position, to compare them; by default in this process.
    pub decoder: Option<&'a Decoder>,
}

impl Default for FolderFilter<'_> {
    fn default() -> Self {
        Self { is_excluded: &|_| false, skip_unreadable: false, decoder: None }
    }
}

/// Lists the series among the files of `folder`, without its subfolders.
///
/// Files are recognized by content. Objects whose SOP class is not that of a slice, and files whose name shows that they are not
/// DICOM, are counted. Any other file that cannot be understood may be a damaged slice: reading the series that it belongs to is a fault,
/// and so is reading every series of the folder if its series is unknown. Within one series identifier, stacks of different patients,
/// orientation, shape or acquisition and localizers are separate series; slices that each have a series identifier of their own are one
/// series if they form an even stack.
///
/// # Errors
/// Returns `io` if the folder cannot be listed.
pub fn list_folder(folder: &Path, filter: &FolderFilter) -> Result<DicomFolder, Fault> {
    let failed =
        |error: std::io::Error| Fault::read(FaultKind::Io, format!("cannot list a DICOM folder: {}", error.kind()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // A broken link is a file that cannot be read.
        if !path.is_dir() && !(filter.is_excluded)(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut other_files = BTreeMap::new();
    let mut slices = Vec::new();
    for path in paths {
        match Slice::open(&path) {
            FileContent::Slice(slice) if filter.skip_unreadable && slice.image.is_err() && !slice.localizer => {
                *other_files.entry("unreadable file").or_insert(0) += 1;
            }
            FileContent::Slice(slice) => slices.push(*slice),
            FileContent::Other(kind) => *other_files.entry(kind).or_insert(0) += 1,
        }
    }
    let in_process = Decoder::in_process();
    let mut listing =
        Listing { decoder: filter.decoder.unwrap_or(&in_process), separations: Vec::new(), adjoining: Vec::new() };
    let mut series = listing.series_of(slices);
    series.sort_by(|a, b| a.id.cmp(&b.id));
    tracing::debug!(series = series.len(), ?other_files, "listed a DICOM folder");
    Ok(DicomFolder { series, other_files, separations: listing.separations, adjoining: listing.adjoining })
}

/// Lists the series of a folder with the default filter.
///
/// # Errors
/// The same errors as [`list_folder`].
pub fn list_series(folder: &Path) -> Result<Vec<Series>, Fault> {
    list_folder(folder, &FolderFilter::default()).map(|folder| folder.series)
}

/// The separation of the slices of a folder into series.
struct Listing<'a> {
    decoder: &'a Decoder,
    separations: Vec<Separation>,
    adjoining: Vec<[String; 2]>,
}

impl Listing<'_> {
    /// Separates the slices of a folder into series.
    fn series_of(&mut self, slices: Vec<Slice>) -> Vec<Series> {
        let mut unknown = Vec::new();
        let mut single = Vec::new();
        let mut by_identifier: BTreeMap<[u8; 32], Vec<Slice>> = BTreeMap::new();
        for slice in slices {
            match slice.series {
                Some(identifier) => by_identifier.entry(identifier).or_default().push(slice),
                None => unknown.push(slice),
            }
        }
        let mut series = Vec::new();
        for (identifier, slices) in by_identifier {
            match &slices[..] {
                [slice] if slice.image.is_ok() && !slice.localizer => single.extend(slices),
                // A damaged identifier is the identifier of no other slice.
                few if few.len() < FEWEST_SLICES
                    && few.iter().all(|slice| is_unreadable(slice) && !slice.other_modality) =>
                {
                    unknown.extend(slices);
                }
                _ => series.extend(self.series_with(&identifier, slices)),
            }
        }
        let has_scan = series.iter().any(|series| !series.is_localizer() && !series.is_other_modality());
        series.extend(self.series_of_single(single, has_scan));
        let mut scans: Vec<_> =
            series.iter_mut().filter(|series| !series.is_localizer() && !series.is_other_modality()).collect();
        if scans.is_empty() && !unknown.is_empty() {
            let stack = Stack::default();
            series.push(Series { id: series_id(&[0; 32], &stack, 0), stack, unreadable: unknown });
            return series;
        }
        for scan in &mut scans {
            scan.unreadable.extend(unknown.iter().cloned());
        }
        self.adjoining = mark_continued(&mut series);
        series
    }

    /// Separates the slices of one series identifier into series.
    fn series_with(&mut self, identifier: &[u8; 32], slices: Vec<Slice>) -> Vec<Series> {
        let (unreadable, slices): (Vec<_>, Vec<_>) = slices.into_iter().partition(is_unreadable);
        let (valid, localizers): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.image.is_ok());
        let mut stacks = separate(valid, self.decoder);
        self.separations.extend(separation(&stacks));
        if !localizers.is_empty() {
            stacks.push(Stack { slices: localizers, ..Stack::default() });
        }
        if stacks.iter().all(|stack| stack.slices.iter().all(|slice| slice.localizer)) && !unreadable.is_empty() {
            stacks.push(Stack::default());
        }
        let has_scan = stacks.iter().any(is_scan);
        let mut counts = BTreeMap::new();
        let series = stacks.into_iter().map(|stack| {
            let count = counts.entry(stack_hash(identifier, &stack)).and_modify(|count| *count += 1).or_insert(0u64);
            let may_be_whole = is_scan(&stack) || (!has_scan && stack.slices.iter().all(|slice| !slice.localizer));
            let unreadable = if may_be_whole { unreadable.clone() } else { Vec::new() };
            Series { id: series_id(identifier, &stack, *count), stack, unreadable }
        });
        series.collect()
    }

    /// Returns the series of slices of which each has a series identifier of its own, as programs write that replace identifiers one by
    /// one. They are a scan if they form an even stack; other slices are localizers, or a fault if the folder has no other scan.
    fn series_of_single(&mut self, slices: Vec<Slice>, has_scan: bool) -> Vec<Series> {
        let identifier: [u8; 32] = Sha256::digest("slices with a series identifier of their own").into();
        let count = slices.len();
        let (stacked, other): (Vec<_>, Vec<_>) =
            self.series_with(&identifier, slices).into_iter().partition(|series| series.stack.is_even());
        let found_scan = has_scan || !stacked.is_empty();
        let mut series = stacked;
        if found_scan || count < FEWEST_SLICES {
            let slices = other.into_iter().flat_map(|series| [series.stack.slices, series.stack.copies].concat());
            series.extend(slices.flat_map(|slice| self.series_with(&slice.series.unwrap_or_default(), vec![slice])));
            return series;
        }
        let slices: Vec<_> =
            other.into_iter().flat_map(|series| [series.stack.slices, series.stack.copies].concat()).collect();
        let message = format!(
            "{count} slices have {count} series identifiers and form no even stack: expected one SeriesInstanceUID per scan"
        );
        let stack = Stack { slices, fault: Some(Fault::read(FaultKind::Geometry, message)), ..Stack::default() };
        series.push(Series { id: series_id(&identifier, &stack, 0), stack, unreadable: Vec::new() });
        series
    }
}

/// Returns whether a file cannot be read and may contain a slice of a scan.
fn is_unreadable(slice: &Slice) -> bool {
    slice.image.is_err() && !slice.localizer
}

/// Returns the separation of the stacks of one series, if several are scans.
fn separation(stacks: &[Stack]) -> Option<Separation> {
    let scans: Vec<&Stack> = stacks.iter().filter(|stack| is_scan(stack)).collect();
    let mut elements: Vec<&'static str> = Vec::new();
    for name in scans.iter().flat_map(|stack| &stack.separated_by) {
        if !elements.contains(name) {
            elements.push(name);
        }
    }
    (scans.len() > 1 && !elements.is_empty()).then_some(Separation { scans: scans.len(), elements })
}

/// Returns whether a stack is large enough for a scan and no localizer.
fn is_scan(stack: &Stack) -> bool {
    stack.slices.len() >= FEWEST_SLICES && stack.slices.iter().all(|slice| !slice.localizer)
}

/// Returns the id of the stack with this index among those with the same hash.
fn series_id(identifier: &[u8; 32], stack: &Stack, index: u64) -> String {
    let digest = Sha256::new_with_prefix(stack_hash(identifier, stack)).chain_update(index.to_le_bytes()).finalize();
    hex::encode(&digest[..8])
}

/// Returns the hash of a stack within its folder, which does not change when slices are added.
fn stack_hash(identifier: &[u8; 32], stack: &Stack) -> [u8; 32] {
    let first = stack.slices.first();
    let mut hash =
        Sha256::new_with_prefix(identifier).chain_update([u8::from(first.is_some_and(|slice| slice.localizer))]);
    if let Some(image) = first.and_then(|slice| slice.image.as_ref().ok()) {
        for cosine in image.pose.along_row.iter().chain(&image.pose.along_column) {
            hash.update(((cosine * 10.0).round() as i64).to_le_bytes());
        }
        for length in image.pose.shape {
            hash.update((length as u64).to_le_bytes());
        }
    }
    hash.finalize().into()
}
