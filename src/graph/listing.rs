//! Lists the sources of a file, and checks the headers of their scans and label files.

use std::cell::LazyCell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::absent_selections::{LabelSample, absent_selections, unreadable_samples};
use super::label_files::{LabelFiles, label_file_problems};
use super::source_scans::{CheckedScans, SourceScans, sources_without_scans, unreadable_scans};
use super::{Location, Problem, ScanStages, Severity};
use crate::error::{Fault, Result};
use crate::ingest::{ScanEntry, Source};
use crate::mask::Mask;

/// The scans of all sources.
pub(super) struct ListedScans {
    /// The scans of each source; absent if the source could not be listed in time.
    pub(super) sources: Vec<Option<SourceScans>>,
    /// Errors and warnings about sources, scans and label files.
    pub(super) problems: Vec<Problem>,
}

/// Lists the sources and checks the headers of their scans and label files, with a timeout of `timeout`; returns the errors and warnings.
pub fn check_scans(stages: &ScanStages, timeout: Duration) -> Vec<Problem> {
    list_scans(stages, &|_| None, timeout).problems
}

/// Lists the sources and checks the headers of their scans and label files; `location` returns the location of a node in the file.
pub(super) fn list_scans(
    stages: &ScanStages,
    location: &dyn Fn(&str) -> Option<Location>,
    timeout: Duration,
) -> ListedScans {
    let mut problems = Vec::new();
    let listings: Vec<_> = (0..stages.sources.len()).map(|source| Listing::start(stages, source)).collect();
    let deadline = Instant::now() + timeout;
    let mut listed: Vec<Option<SourceScans>> = Vec::new();
    let mut files: Vec<(usize, LabelFiles)> = Vec::new();
    let mut samples: Vec<(usize, LabelSample)> = Vec::new();
    for (source, (node, listing)) in stages.sources.iter().zip(listings).enumerate() {
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut scans = match listing.scans.recv_timeout(left()) {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                let message = format!("the source `{}` cannot be listed: {error}", node.name);
                let hint = error.hint().map(str::to_owned);
                problems.push(Problem { hint, ..Problem::at(Severity::Error, message, location(&node.name), "") });
                listed.push(None);
                continue;
            }
            Err(_) => {
                let message = format!("the source `{}` was not listed within {} s", node.name, timeout.as_secs());
                let label = "the number of scans and the required disk space are unknown";
                problems.push(Problem::at(Severity::Warning, message, location(&node.name), label));
                listed.push(None);
                continue;
            }
        };
        match listing.label_files.recv_timeout(left()) {
            Ok(found) => files.extend(found.into_iter().map(|files| (source, files))),
            Err(_) => {
                let seconds = timeout.as_secs();
                let message = format!("the label files of `{}` were not checked within {seconds} s", node.name);
                problems.push(Problem::at(Severity::Warning, message, location(&node.name), ""));
            }
        }
        if let Ok(found) = listing.label_samples.recv_timeout(left()) {
            samples.extend(found.into_iter().map(|sample| (source, sample)));
        }
        let checked = CheckedScans::receive(|| listing.checks.recv_timeout(left()));
        scans.checked = checked.scans;
        for (message, count) in checked.unreadable {
            *scans.remarks.unreadable.entry(message).or_insert(0) += count;
        }
        if checked.scans < scans.scans {
            let (count, scans, seconds) = (checked.scans, scans.scans, timeout.as_secs());
            let message =
                format!("{count} of {scans} scans of `{}` were checked for damage within {seconds} s", node.name);
            problems.push(Problem::at(Severity::Warning, message, location(&node.name), ""));
        }
        for sentence in scans.remarks.sentences() {
            problems.push(Problem::at(Severity::Warning, sentence, location(&node.name), ""));
        }
        listed.push(Some(scans));
    }
    problems.extend(sources_without_scans(stages, &listed, location));
    problems.extend(unreadable_scans(stages, &listed, location));
    problems.extend(label_file_problems(stages, &files, location));
    problems.extend(absent_selections(stages, &samples, location));
    // A file with a damaged header was reported before.
    samples.retain(|(source, sample)| {
        !files.iter().any(|(other, files)| other == source && files.mask == sample.mask() && files.has_unreadable())
    });
    problems.extend(unreadable_samples(stages, &samples, location));
    ListedScans { sources: listed, problems }
}

/// The results of listing a source, in the order in which they arrive.
struct Listing {
    scans: Receiver<Result<SourceScans>>,
    label_files: Receiver<Vec<LabelFiles>>,
    label_samples: Receiver<Vec<LabelSample>>,
    /// The check of each scan.
    checks: Receiver<Result<(), Fault>>,
}

impl Listing {
    /// Lists a source, and then checks the label files and the headers of its scans, in a thread: a slow archive blocks only its own
    /// thread, which may run until the program ends.
    fn start(stages: &ScanStages, source: usize) -> Self {
        let ((scans, listed), (files, label_files)) = (channel(), channel());
        let ((samples, label_samples), (checked, checks)) = (channel(), channel());
        let masks = stages.masks.iter().enumerate().filter(|(_, node)| node.sources.contains(&source));
        let masks: Vec<(usize, Arc<dyn Mask>)> = masks.map(|(index, node)| (index, Arc::clone(&node.mask))).collect();
        let source = Arc::clone(&stages.sources[source].source);
        std::thread::spawn(move || {
            let (entries, remarks) = match source.list_archive() {
                Ok(listing) => listing,
                Err(error) => return drop(scans.send(Err(error))),
            };
            let bytes = entries.iter().map(|entry| entry.bytes).sum();
            let patients = entries.iter().map(|entry| entry.patient_key).collect();
            let _ = scans.send(Ok(SourceScans { scans: entries.len(), bytes, patients, remarks, checked: 0 }));
            let _ = files.send(files_of(&*source, &entries, &masks));
            let sample =
                |(index, mask): &(usize, Arc<dyn Mask>)| LabelSample::read(*index, &**mask, &*source, &entries);
            let _ = samples.send(masks.iter().filter_map(sample).collect());
            for entry in &entries {
                if checked.send(source.check(entry)).is_err() {
                    break;
                }
            }
        });
        Self { scans: listed, label_files, label_samples, checks }
    }
}

/// Checks the label files of scans by their headers.
fn files_of(source: &dyn Source, entries: &[ScanEntry], masks: &[(usize, Arc<dyn Mask>)]) -> Vec<LabelFiles> {
    let mut all: Vec<LabelFiles> = masks.iter().map(|(mask, _)| LabelFiles::new(*mask)).collect();
    for entry in entries {
        let Some(companions) = source.companions(entry).filter(|_| !masks.is_empty()) else { continue };
        // Read for masks with label files only: the header of a DICOM scan is a folder of files. A scan that cannot be read is reported
        // by itself.
        let grid = LazyCell::new(|| source.header(entry).ok().map(|header| header.grid));
        for ((_, mask), files) in masks.iter().zip(&mut all) {
            files.add_scan(&**mask, &*companions, &|| *grid);
        }
    }
    all
}
