//! The series of a folder, and the files in it that are not slices.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::geometry::{self, FEWEST_SLICES, SlicePose};
use super::series::Series;
use super::slice::{FileContent, Slice};
use super::stacks::{Stack, separate};
use crate::error::{Fault, FaultKind};

/// The listing of a DICOM folder: its series, and counts of its other files.
#[derive(Debug, Default)]
pub struct DicomFolder {
    /// The series, sorted by [`Series::id`].
    pub series: Vec<Series>,
    /// Number of files that are not slices, by the name of their kind: objects of other SOP classes (secondary captures, dose reports,
    /// DICOMDIR), files whose name shows that they are not DICOM, and unreadable files that the filter skips.
    pub other_files: BTreeMap<&'static str, usize>,
}

/// Which files of a DICOM folder are not read as slices.
#[derive(Clone, Copy)]
pub struct FolderFilter<'a> {
    /// Returns whether a file is skipped without being opened.
    pub is_excluded: &'a dyn Fn(&Path) -> bool,
    /// Whether unreadable files are skipped; by default, they make the scan fail.
    pub skip_unreadable: bool,
}

impl Default for FolderFilter<'_> {
    fn default() -> Self {
        Self { is_excluded: &|_| false, skip_unreadable: false }
    }
}

/// Lists the series among the files of `folder`, without its subfolders.
///
/// Files are recognised by content. Objects whose SOP class is not that of a slice, and files whose name shows that they are not
/// DICOM, are counted. Any other file that cannot be understood may be a damaged slice: reading the series that it belongs to is a fault,
/// and so is reading every series of the folder if its series is unknown. Within one series identifier, stacks of different orientation,
/// shape or acquisition and localizers are separate series; slices that each have a series identifier of their own are one series if they
/// form an even stack.
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
    let mut series = series_of(slices);
    series.sort_by(|a, b| a.id.cmp(&b.id));
    tracing::debug!(series = series.len(), ?other_files, "listed a DICOM folder");
    Ok(DicomFolder { series, other_files })
}

/// Lists the series of a folder with the default filter.
///
/// # Errors
/// The same errors as [`list_folder`].
pub fn list_series(folder: &Path) -> Result<Vec<Series>, Fault> {
    list_folder(folder, &FolderFilter::default()).map(|folder| folder.series)
}

/// Separates the slices of a folder into series.
fn series_of(slices: Vec<Slice>) -> Vec<Series> {
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
            _ => series.extend(series_with(&identifier, slices)),
        }
    }
    let has_scan = series.iter().any(|series| !series.is_localizer() && !series.is_other_modality());
    series.extend(series_of_single(single, has_scan));
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
    report_continuations(&mut series);
    series
}

/// Marks scans that a slice of another series continues by one step: its identifier may be damaged, and the scan looks whole without it.
fn report_continuations(series: &mut [Series]) {
    let is_small = |series: &Series| series.is_localizer() && series.stack.slices.iter().all(|slice| !slice.localizer);
    let small: Vec<SlicePose> =
        series.iter().filter(|series| is_small(series)).flat_map(|series| poses(&series.stack)).collect();
    for scan in series.iter_mut().filter(|series| !is_small(series) && series.stack.fault.is_none()) {
        let continued = small.iter().any(|pose| geometry::continues(&poses(&scan.stack), pose));
        scan.stack.fault = continued.then(|| {
            let message = "a slice of another series is one step beyond the last slice: expected the slices of a scan to share their SeriesInstanceUID, exclude the slice if it does not belong to the scan";
            Fault::read(FaultKind::Missing, message)
        });
    }
}

fn poses(stack: &Stack) -> Vec<SlicePose> {
    stack.slices.iter().filter_map(|slice| Some(slice.image.as_ref().ok()?.pose)).collect()
}

/// Returns whether a file cannot be read and may contain a slice of a scan.
fn is_unreadable(slice: &Slice) -> bool {
    slice.image.is_err() && !slice.localizer
}

/// Separates the slices of one series identifier into series.
fn series_with(identifier: &[u8; 32], slices: Vec<Slice>) -> Vec<Series> {
    let (unreadable, slices): (Vec<_>, Vec<_>) = slices.into_iter().partition(is_unreadable);
    let (valid, localizers): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.image.is_ok());
    let mut stacks = separate(valid);
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

/// Returns the series of slices of which each has a series identifier of its own, as programs write that replace identifiers one by one.
/// They are a scan if they form an even stack; other slices are localizers, or a fault if the folder has no other scan.
fn series_of_single(slices: Vec<Slice>, has_scan: bool) -> Vec<Series> {
    let single = |slice: Slice| {
        let identifier = slice.series.unwrap_or_default();
        series_with(&identifier, vec![slice])
    };
    let identifier: [u8; 32] = Sha256::digest("slices with a series identifier of their own").into();
    let count = slices.len();
    let (stacked, other): (Vec<_>, Vec<_>) =
        series_with(&identifier, slices).into_iter().partition(|series| is_even(&series.stack));
    let found_scan = has_scan || !stacked.is_empty();
    let mut series = stacked;
    if found_scan || count < FEWEST_SLICES {
        let slices = other.into_iter().flat_map(|series| [series.stack.slices, series.stack.copies].concat());
        series.extend(slices.flat_map(single));
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

/// Returns whether a stack is large enough for a scan and no localizer.
fn is_scan(stack: &Stack) -> bool {
    stack.slices.len() >= FEWEST_SLICES && stack.slices.iter().all(|slice| !slice.localizer)
}

fn is_even(stack: &Stack) -> bool {
    stack.fault.is_none() && geometry::stack(&poses(stack)).is_ok()
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
