//! Lists the sources of a file, and looks for the label files of their scans, without reading a scan.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::{Location, Problem, ScanStages, Severity};
use crate::error::Result;
use crate::id::PatientKey;
use crate::mask::{Coverage, Mask};

/// The share of a scan below which the coverage by its label file is reported. Labels that were cut to the organ are common, but must be intended.
const WHOLE: f64 = 0.999;

/// The scans of a source.
pub(super) struct SourceScans {
    pub(super) scans: usize,
    pub(super) bytes: u64,
    pub(super) patients: BTreeSet<PatientKey>,
}

/// The scans of a source whose label files of a mask are missing, or cover the scan in part.
struct LabelFiles {
    /// Index of the mask.
    mask: usize,
    missing: usize,
    scans: usize,
    /// The pattern of the first missing file.
    pattern: Option<String>,
    /// Number of scans whose label names contradict the organs, and the message of the first one.
    contradicting: (usize, String),
    /// Number of scans whose label files cover less than the minimum share: they will fail.
    elsewhere: usize,
    /// Number of other scans whose label files do not cover every voxel.
    partial: usize,
    /// The smallest share of these scans.
    least: f64,
}

impl LabelFiles {
    fn new(mask: usize) -> Self {
        Self {
            mask,
            missing: 0,
            scans: 0,
            pattern: None,
            contradicting: (0, String::new()),
            elsewhere: 0,
            partial: 0,
            least: 1.0,
        }
    }

    fn add(&mut self, coverage: Coverage) {
        if coverage.share < coverage.minimum {
            self.elsewhere += 1;
        } else if coverage.share < WHOLE {
            self.partial += 1;
            self.least = self.least.min(coverage.share);
        }
    }
}

/// The scans of all sources.
pub(super) struct ListedScans {
    /// The scans of each source; absent if a source could not be listed in time.
    pub(super) sources: Option<Vec<SourceScans>>,
    /// Errors and warnings about sources and label files.
    pub(super) problems: Vec<Problem>,
}

/// Lists the sources and looks for the label files of their scans, with a timeout of `timeout`; returns the errors and warnings.
pub fn check_scans(stages: &ScanStages, timeout: Duration) -> Vec<Problem> {
    list_scans(stages, &|_| None, timeout).problems
}

/// Lists the sources and looks for the label files of their scans; `location` returns the location of a node in the file.
pub(super) fn list_scans(
    stages: &ScanStages,
    location: &dyn Fn(&str) -> Option<Location>,
    timeout: Duration,
) -> ListedScans {
    let mut problems = Vec::new();
    let surveyed: Vec<_> = (0..stages.sources.len()).map(|source| start_listing(stages, source)).collect();
    let deadline = Instant::now() + timeout;
    let mut listed: Vec<Option<SourceScans>> = Vec::new();
    let mut missing: Vec<(usize, LabelFiles)> = Vec::new();
    for (source, (node, (scans, files))) in stages.sources.iter().zip(surveyed).enumerate() {
        let left = || deadline.saturating_duration_since(Instant::now());
        listed.push(match scans.recv_timeout(left()) {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                let message = format!("the source `{}` cannot be listed: {error}", node.name);
                let hint = error.hint().map(str::to_owned);
                problems.push(Problem { hint, ..Problem::at(Severity::Error, message, location(&node.name), "") });
                None
            }
            Err(_) => {
                let message = format!("the source `{}` was not listed within {} s", node.name, timeout.as_secs());
                let label = "the number of scans and the required disk space are unknown";
                problems.push(Problem::at(Severity::Warning, message, location(&node.name), label));
                None
            }
        });
        match files.recv_timeout(left()) {
            Ok(found) => missing.extend(found.into_iter().map(|files| (source, files))),
            Err(_) if listed.last().is_some_and(Option::is_some) => {
                let seconds = timeout.as_secs();
                let message = format!("the label files of `{}` were not checked within {seconds} s", node.name);
                problems.push(Problem::at(Severity::Warning, message, location(&node.name), ""));
            }
            Err(_) => {}
        }
    }
    let is_listed = listed.iter().all(Option::is_some);
    let scans: usize = listed.iter().flatten().map(|source| source.scans).sum();
    for (node, _) in
        stages.sources.iter().zip(&listed).filter(|(_, listed)| matches!(listed, Some(found) if found.scans == 0))
    {
        let severity = if is_listed && scans == 0 { Severity::Error } else { Severity::Warning };
        let message = format!("the source `{}` has no scans", node.name);
        problems.push(Problem::at(severity, message, location(&node.name), &node.source.explain_empty()));
    }
    problems.extend(missing_files(stages, &missing, location));
    problems.extend(contradicting_files(stages, &missing, location));
    problems.extend(partial_files(stages, &missing, location));
    ListedScans { sources: listed.into_iter().collect(), problems }
}

type Listing = (Receiver<Result<SourceScans>>, Receiver<Vec<LabelFiles>>);

/// Lists a source, and then looks for the label files of its scans, in a thread: a slow archive blocks only its own thread, which may run
/// until the program ends.
fn start_listing(stages: &ScanStages, source: usize) -> Listing {
    let ((scans, listed), (files, found)) = (channel(), channel());
    let masks = stages.masks.iter().enumerate().filter(|(_, node)| node.sources.contains(&source));
    let masks: Vec<(usize, Arc<dyn Mask>)> = masks.map(|(index, node)| (index, Arc::clone(&node.mask))).collect();
    let source = Arc::clone(&stages.sources[source].source);
    std::thread::spawn(move || {
        let entries = match source.list() {
            Ok(entries) => entries,
            Err(error) => return drop(scans.send(Err(error))),
        };
        let bytes = entries.iter().map(|entry| entry.bytes).sum();
        let patients = entries.iter().map(|entry| entry.patient_key).collect();
        let _ = scans.send(Ok(SourceScans { scans: entries.len(), bytes, patients }));
        let mut all: Vec<LabelFiles> = masks.iter().map(|(mask, _)| LabelFiles::new(*mask)).collect();
        for entry in &entries {
            let Some(companions) = source.companions(entry).filter(|_| !masks.is_empty()) else { continue };
            // Read for masks with label files only: the header of a DICOM scan is a folder of files. A scan that cannot be read is reported
            // by the run.
            let grid = LazyCell::new(|| source.header(entry).ok().map(|header| header.grid));
            for ((_, mask), files) in masks.iter().zip(&mut all) {
                files.scans += 1;
                if let Some(pattern) = mask.missing_file(&*companions) {
                    files.missing += 1;
                    files.pattern.get_or_insert(pattern);
                } else if let Some(fault) = mask.contradiction(&*companions) {
                    files.contradicting.0 += 1;
                    files.contradicting.1 = fault.message;
                } else if let Some(coverage) = mask.coverage(&*companions, &|| *grid).ok().flatten() {
                    files.add(coverage);
                }
            }
        }
        let _ = files.send(all);
    });
    (listed, found)
}

/// Returns a problem for every source and mask with missing label files.
fn missing_files(
    stages: &ScanStages,
    missing: &[(usize, LabelFiles)],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (source, LabelFiles { mask, missing: count, scans, pattern, .. }) in missing {
        let Some(pattern) = pattern else { continue };
        let has_none =
            missing.iter().filter(|(_, files)| files.mask == *mask).all(|(_, files)| files.missing == files.scans);
        let (severity, hint) = match has_none {
            true => (
                Severity::Error,
                "set the path of the label files, relative to the folder that contains the file or the DICOM folder of each scan",
            ),
            false => (Severity::Warning, "these scans will fail; add their label files, or exclude the scans"),
        };
        let mask = &stages.masks[*mask].name;
        let verb = if *count == 1 { "has" } else { "have" };
        let message = match pattern.as_str() {
            "{label}" => format!("{count} of {scans} scans {verb} no label in the list, or its file does not exist"),
            _ => format!("{count} of {scans} scans {verb} no label file at `{pattern}`"),
        };
        let label = format!("read by `{mask}` for scans of `{}`", stages.sources[*source].name);
        let problem = Problem::at(severity, message, location(mask), &label);
        problems.push(Problem { hint: Some(hint.to_owned()), ..problem });
    }
    problems
}

/// Returns an error for every source and mask whose label names contradict the organs of the mask.
fn contradicting_files(
    stages: &ScanStages,
    files: &[(usize, LabelFiles)],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let found = files.iter().filter(|(_, files)| files.contradicting.0 > 0);
    let problems = found.map(|(source, LabelFiles { mask, scans, contradicting: (count, example), .. })| {
        let mask = &stages.masks[*mask].name;
        let label = format!("read by `{mask}` for scans of `{}`", stages.sources[*source].name);
        let message = format!("the label names of {count} of {scans} scans contradict the organs: {example}");
        Problem::at(Severity::Error, message, location(mask), &label)
    });
    problems.collect()
}

/// Returns a warning for every source and mask whose label files do not cover their scans.
fn partial_files(
    stages: &ScanStages,
    files: &[(usize, LabelFiles)],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (source, LabelFiles { mask, scans, elsewhere, partial, least, .. }) in files {
        let mask = &stages.masks[*mask].name;
        let label = format!("read by `{mask}` for scans of `{}`", stages.sources[*source].name);
        let mut warn = |message: String, hint: &str| {
            let severity = if elsewhere == scans { Severity::Error } else { Severity::Warning };
            let problem = Problem::at(severity, message, location(mask), &label);
            problems.push(Problem { hint: Some(hint.to_owned()), ..problem });
        };
        if *elsewhere > 0 {
            let message =
                format!("the label files of {elsewhere} of {scans} scans do not overlap enough with their scan");
            warn(
                message,
                "these scans will fail; look at one with `freetumor inspect SCAN --labels FILE`, or set `min_coverage`",
            );
        }
        if *partial > 0 {
            let percent = (100.0 * least).floor();
            let message = format!(
                "the label files of {partial} of {scans} scans cover only part of their scan, at least {percent}%"
            );
            warn(
                message,
                "voxels outside of the label file count as background; set `min_coverage = 1.0` to refuse such scans",
            );
        }
    }
    problems
}
