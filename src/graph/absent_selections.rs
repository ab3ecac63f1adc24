//! Ids and structures that mask stages select, but that do not occur in a sample of the label files.

use std::time::{Duration, Instant};

use super::{Location, Problem, ScanStages, Severity};
use crate::error::FaultKind;
use crate::ingest::{ScanEntry, Source};
use crate::mask::Mask;

/// Maximum number of label files that are read per source and mask.
const MAX_FILES: usize = 8;
/// After this time, no further label file is read.
const READ_TIME: Duration = Duration::from_secs(5);

/// The selections of a mask stage, and whether each occurs in a sample of the label files of a source.
pub(super) struct LabelSample {
    /// Index of the mask.
    mask: usize,
    /// Whether each selection occurs.
    occurs: Vec<bool>,
    /// Number of scans of the source.
    scans: usize,
    /// Number of scans whose label files were read.
    read: usize,
    /// Number of scans whose label files cannot be read, and the message of the last one.
    unreadable: (usize, String),
}

impl LabelSample {
    /// Reads the label files of some scans, evenly distributed in the list, until everything that the mask selects has occurred. Returns
    /// `None` if the mask selects nothing, or all files are missing.
    pub fn read(mask_index: usize, mask: &dyn Mask, source: &dyn Source, entries: &[ScanEntry]) -> Option<Self> {
        let mut sample = Self {
            mask: mask_index,
            occurs: vec![false; mask.selections()?.names().len()],
            scans: entries.len(),
            read: 0,
            unreadable: (0, String::new()),
        };
        let end = Instant::now() + READ_TIME;
        let count = entries.len().min(MAX_FILES);
        for index in (0..count).map(|number| number * entries.len() / count) {
            if sample.occurs.iter().all(|occurs| *occurs) || Instant::now() > end {
                break;
            }
            let Some(companions) = source.companions(&entries[index]) else { continue };
            match mask.find_selections(&*companions) {
                Ok(occurs) => {
                    sample.read += 1;
                    sample.occurs.iter_mut().zip(occurs).for_each(|(known, occurs)| *known |= occurs);
                }
                // Missing files are counted for all scans.
                Err(fault) if fault.kind == FaultKind::Missing => {}
                Err(fault) => sample.unreadable = (sample.unreadable.0 + 1, fault.message),
            }
        }
        (sample.read + sample.unreadable.0 > 0).then_some(sample)
    }

    /// Returns the index of the mask.
    pub fn mask(&self) -> usize {
        self.mask
    }
}

/// Returns a problem for every source and mask with label files in the sample that cannot be read: an error if these are the files of all
/// scans.
pub(super) fn unreadable_samples(
    stages: &ScanStages,
    samples: &[(usize, LabelSample)],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let found = samples.iter().filter(|(_, sample)| sample.unreadable.0 > 0);
    let problems = found.map(|(source, LabelSample { mask, scans, read, unreadable: (count, example), .. })| {
        let mask = &stages.masks[*mask].name;
        let label = format!("read by `{mask}` for scans of `{}`", stages.sources[*source].name);
        let files = count + read;
        let message = format!("{count} of {files} label files that were read cannot be used, for example: {example}");
        let severity = if count == scans { Severity::Error } else { Severity::Warning };
        let hint = "these scans will fail; correct the label files, or exclude the scans".to_owned();
        Problem { hint: Some(hint), ..Problem::at(severity, message, location(mask), &label) }
    });
    problems.collect()
}

/// Returns a warning for every mask with selections that occur in no label file that was read, of any source.
pub(super) fn absent_selections(
    stages: &ScanStages,
    samples: &[(usize, LabelSample)],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, node) in stages.masks.iter().enumerate() {
        let Some(selections) = node.mask.selections() else { continue };
        let own: Vec<&(usize, LabelSample)> = samples.iter().filter(|(_, sample)| sample.mask == index).collect();
        let occurs = |selection: usize| own.iter().any(|(_, sample)| sample.occurs[selection]);
        let names = selections.names().iter().enumerate().filter(|(selection, _)| !occurs(*selection));
        let names: Vec<&str> = names.map(|(_, name)| name.as_str()).collect();
        let read: usize = own.iter().map(|(_, sample)| sample.read).sum();
        if read == 0 || names.is_empty() {
            continue;
        }
        let files = match read {
            1 => "the label file that was read".to_owned(),
            _ => format!("any of the {read} label files that were read"),
        };
        let message = format!("`{}` selects {}, not found in {files}", node.name, names.join(", "));
        let sources: Vec<String> =
            own.iter().map(|(source, _)| format!("`{}`", stages.sources[*source].name)).collect();
        let label = format!("a sample of the scans of {}", sources.join(", "));
        let hint = "check the settings with `freetumor inspect SCAN --labels FILE`, which lists what a file contains";
        let problem = Problem::at(Severity::Warning, message, location(&node.name), &label);
        problems.push(Problem { hint: Some(hint.to_owned()), ..problem });
    }
    problems
}
