//! Ids and structures that mask stages select, but that do not occur in a sample of the label files.

use std::time::{Duration, Instant};

use super::{Location, Problem, ScanStages, Severity};
use crate::ingest::{ScanEntry, Source};
use crate::mask::Mask;

/// Maximum number of label files that are read per source and mask.
const MAX_FILES: usize = 8;
/// After this time, no further label file is read.
const READ_TIME: Duration = Duration::from_secs(5);

/// What a mask stage selects, and which of it occurs in some label files of a source.
pub(super) struct LabelSample {
    /// Index of the mask.
    mask: usize,
    /// Whether each selection occurs.
    occurs: Vec<bool>,
    /// Number of scans whose label files were read.
    read: usize,
}

impl LabelSample {
    /// Reads the label files of some scans, evenly distributed in the list, until everything that the mask selects has occurred. Returns
    /// `None` if the mask selects nothing, or no label file can be read.
    pub fn read(mask_index: usize, mask: &dyn Mask, source: &dyn Source, entries: &[ScanEntry]) -> Option<Self> {
        let mut sample = Self { mask: mask_index, occurs: vec![false; mask.selections()?.names().len()], read: 0 };
        let end = Instant::now() + READ_TIME;
        let count = entries.len().min(MAX_FILES);
        for index in (0..count).map(|number| number * entries.len() / count) {
            if sample.occurs.iter().all(|occurs| *occurs) || Instant::now() > end {
                break;
            }
            let Some(companions) = source.companions(&entries[index]) else { continue };
            // Faults are reported with the label files.
            let Ok(occurs) = mask.find_selections(&*companions) else { continue };
            sample.read += 1;
            sample.occurs.iter_mut().zip(occurs).for_each(|(known, occurs)| *known |= occurs);
        }
        (sample.read > 0).then_some(sample)
    }
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
