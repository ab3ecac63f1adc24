//! The label files of scans: missing, contradicting, damaged, and in part outside of their scan.

use super::{Location, Problem, ScanStages, Severity};
use crate::error::Fault;
use crate::ingest::Companions;
use crate::mask::{Coverage, Mask, ScanGrid};

/// Label files that cover a smaller share of their scan are reported. Labels that were cut to the organ are common, but must be intended.
const WHOLE: f64 = 0.999;

/// The scans of a source whose label files of a mask are missing, or cover the scan in part.
pub(super) struct LabelFiles {
    /// Index of the mask.
    pub mask: usize,
    missing: usize,
    scans: usize,
    /// The pattern of the first missing file.
    pattern: Option<String>,
    /// Number of scans whose label names contradict the organs, and the message of the first one.
    contradicting: (usize, String),
    /// Number of scans whose label files cannot be read, and the message of the last one.
    unreadable: (usize, String),
    /// Number of scans whose label files cover less than the minimum share; these scans will fail.
    elsewhere: usize,
    /// Number of other scans whose label files do not cover every voxel.
    partial: usize,
    /// The smallest share of these scans.
    least: f64,
}

impl LabelFiles {
    pub fn new(mask: usize) -> Self {
        Self {
            mask,
            missing: 0,
            scans: 0,
            pattern: None,
            contradicting: (0, String::new()),
            unreadable: (0, String::new()),
            elsewhere: 0,
            partial: 0,
            least: 1.0,
        }
    }

    /// Adds a scan with access to its label files; `grid` returns the grid of the scan.
    pub fn add_scan(&mut self, mask: &dyn Mask, companions: &dyn Companions, grid: ScanGrid<'_>) {
        self.scans += 1;
        if let Some(pattern) = mask.missing_file(companions) {
            self.missing += 1;
            self.pattern.get_or_insert(pattern);
        } else if let Some(fault) = mask.contradiction(companions) {
            self.contradicting.0 += 1;
            self.contradicting.1 = fault.message;
        } else {
            match mask.coverage(companions, grid) {
                Ok(Some(coverage)) => self.add_coverage(coverage),
                Ok(None) => {}
                Err(fault) => self.add_fault(&fault),
            }
        }
    }

    /// Returns whether the header of a label file cannot be read.
    pub fn has_unreadable(&self) -> bool {
        self.unreadable.0 > 0
    }

    fn add_fault(&mut self, fault: &Fault) {
        self.unreadable.0 += 1;
        self.unreadable.1.clone_from(&fault.message);
    }

    fn add_coverage(&mut self, coverage: Coverage) {
        if coverage.share < coverage.minimum {
            self.elsewhere += 1;
        } else if coverage.share < WHOLE {
            self.partial += 1;
            self.least = self.least.min(coverage.share);
        }
    }
}

/// Returns the problems of the label files of each source, by the index of the source.
pub(super) fn label_file_problems(
    stages: &ScanStages,
    files: &[(usize, LabelFiles)],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let mut problems = missing_files(stages, files, location);
    problems.extend(contradicting_files(stages, files, location));
    problems.extend(unreadable_files(stages, files, location));
    problems.extend(partial_files(stages, files, location));
    problems
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
            "{label}" | "{mask}" => {
                format!("{count} of {scans} scans {verb} no label in the list, or its file does not exist")
            }
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

/// Returns a problem for every source and mask with label files that cannot be read, by their headers.
fn unreadable_files(
    stages: &ScanStages,
    files: &[(usize, LabelFiles)],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let found = files.iter().filter(|(_, files)| files.unreadable.0 > 0);
    let problems = found.map(|(source, LabelFiles { mask, scans, unreadable: (count, example), .. })| {
        let mask = &stages.masks[*mask].name;
        let label = format!("read by `{mask}` for scans of `{}`", stages.sources[*source].name);
        let message = format!("the label files of {count} of {scans} scans cannot be read, for example: {example}");
        let severity = if count == scans { Severity::Error } else { Severity::Warning };
        let hint = "these scans will fail; restore the label files, or exclude the scans".to_owned();
        Problem { hint: Some(hint), ..Problem::at(severity, message, location(mask), &label) }
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
                "these scans will fail; inspect one with `freetumor inspect SCAN --labels FILE`, or set `min_coverage`",
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
