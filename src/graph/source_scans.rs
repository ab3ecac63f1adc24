//! The scans of sources, and the problems of sources without scans or with scans that cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::RecvTimeoutError;

use super::{Location, Problem, ScanStages, Severity};
use crate::error::Fault;
use crate::id::PatientKey;
use crate::ingest::ArchiveRemarks;

/// Maximum number of reasons in a message.
const MAX_REASONS: usize = 5;

/// The scans of a source.
pub(super) struct SourceScans {
    pub(super) scans: usize,
    pub(super) bytes: u64,
    pub(super) patients: BTreeSet<PatientKey>,
    /// Remarks on the archive: files that are not scans, and scans that cannot be read.
    pub(super) remarks: ArchiveRemarks,
    /// Number of scans that were checked for damage in time.
    pub(super) checked: usize,
}

/// The results of checking the scans of a source.
#[derive(Default)]
pub(super) struct CheckedScans {
    pub scans: usize,
    /// Number of scans that cannot be read, by the message of their fault.
    pub unreadable: BTreeMap<String, usize>,
}

impl CheckedScans {
    /// Collects results until the last one, or until `next` runs out of time.
    pub fn receive(mut next: impl FnMut() -> Result<Result<(), Fault>, RecvTimeoutError>) -> Self {
        let mut checked = Self::default();
        while let Ok(result) = next() {
            checked.scans += 1;
            if let Err(fault) = result {
                *checked.unreadable.entry(fault.message).or_insert(0) += 1;
            }
        }
        checked
    }
}

/// Returns a problem for every source without scans.
pub(super) fn sources_without_scans(
    stages: &ScanStages,
    listed: &[Option<SourceScans>],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let is_listed = listed.iter().all(Option::is_some);
    let scans: usize = listed.iter().flatten().map(|source| source.scans).sum();
    let severity = if is_listed && scans == 0 { Severity::Error } else { Severity::Warning };
    let is_empty = |listed: &Option<SourceScans>| matches!(listed, Some(found) if found.scans == 0);
    let empty = stages.sources.iter().zip(listed).filter(|(_, listed)| is_empty(listed));
    let problems = empty.map(|(node, _)| {
        let message = format!("the source `{}` has no scans", node.name);
        Problem::at(severity, message, location(&node.name), &node.source.explain_empty())
    });
    problems.collect()
}

/// Returns a problem for every source with scans that cannot be read: an error if no scan of all sources can be read.
pub(super) fn unreadable_scans(
    stages: &ScanStages,
    listed: &[Option<SourceScans>],
    location: &dyn Fn(&str) -> Option<Location>,
) -> Vec<Problem> {
    let sum = |number: fn(&SourceScans) -> usize| listed.iter().flatten().map(number).sum::<usize>();
    let has_none = listed.iter().all(Option::is_some)
        && sum(|source| source.scans) == sum(|source| source.remarks.unreadable_scans());
    let severity = if has_none { Severity::Error } else { Severity::Warning };
    let found = stages.sources.iter().zip(listed).filter_map(|(node, listed)| Some((node, listed.as_ref()?)));
    let found = found.filter(|(_, listed)| !listed.remarks.unreadable.is_empty());
    let problems = found.map(|(node, listed)| {
        let (count, reasons) = (listed.remarks.unreadable_scans(), reasons(&listed.remarks.unreadable));
        let message = format!("{count} of {} scans of `{}` cannot be read: {reasons}", listed.scans, node.name);
        let hint =
            "restore these files, or exclude them; `freetumor inspect SCAN` shows the fault of a scan".to_owned();
        Problem { hint: Some(hint), ..Problem::at(severity, message, location(&node.name), "") }
    });
    problems.collect()
}

/// Returns the most frequent reasons with their numbers, and the number of the others.
fn reasons(unreadable: &BTreeMap<String, usize>) -> String {
    let mut reasons: Vec<(&String, &usize)> = unreadable.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown = reasons.iter().take(MAX_REASONS).map(|(reason, count)| format!("{count} × {reason}"));
    let shown = shown.collect::<Vec<_>>().join("; ");
    match reasons.len().saturating_sub(MAX_REASONS) {
        0 => shown,
        more => format!("{shown}; and {more} other reasons"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FaultKind;

    #[test]
    fn checks_are_counted_until_time_runs_out() {
        let fault = |message: &str| Ok(Err(Fault::read(FaultKind::Corrupt, message)));
        let mut results = [Ok(Ok(())), fault("a"), fault("b"), fault("a"), Err(RecvTimeoutError::Timeout)].into_iter();
        let checked = CheckedScans::receive(|| results.next().unwrap());
        assert_eq!(checked.scans, 4);
        assert_eq!(reasons(&checked.unreadable), "2 × a; 1 × b");
        let many = (0..7).map(|reason| (format!("reason {reason}"), 1)).collect();
        assert!(reasons(&many).ends_with("1 × reason 4; and 2 other reasons"), "{}", reasons(&many));
    }
}
