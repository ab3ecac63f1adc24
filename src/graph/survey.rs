//! Surveys the scans that a run would find and the disk space that it would need.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use super::listing::{ListedScans, list_scans};
use super::source_scans::SourceScans;
use super::{CheckedGraph, Feed, Plan, Port, Problem, Severity};
use crate::id::PatientKey;
use crate::ingest::ArchiveRemarks;
use crate::mask::Organ;
use crate::record::Split;
use crate::sink::Content;

/// The scans that a run would find and the disk space that it would need.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    /// Number of scans in the sources; absent if a source could not be listed in time.
    pub scans: Option<usize>,
    /// Maximum number of samples, if the first attempt at every tumor is accepted.
    pub samples: Option<u64>,
    /// Estimated bytes of these samples, from the size of the scans on disk.
    pub needed_bytes: Option<u64>,
    /// Free bytes at the output folder.
    pub free_bytes: Option<u64>,
    /// The sources that could be listed in time.
    pub sources: Vec<SourceSurvey>,
    /// The errors and warnings.
    pub problems: Vec<Problem>,
}

/// The scans of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceSurvey {
    /// The name of the source.
    pub name: String,
    /// Number of scans.
    pub scans: usize,
    /// Number of scans that were checked for damage in time.
    pub checked: usize,
    /// Remarks on the archive: files that are not scans, and scans that cannot be read.
    #[serde(flatten)]
    pub remarks: ArchiveRemarks,
}

/// Lists every source of a checked graph with a timeout of `timeout`, checks the headers of scans and label files, and compares the space
/// that the samples need with the free space at `out` or its nearest existing parent. Sources are listed even if other nodes have errors.
///
/// The required space is an upper bound, except for the mean number of several tumors: every tumor counts as accepted, and every image as
/// large as its scan. Less free space is a warning; less than a tenth of the bound, an error. A source without scans, a scan that cannot be
/// read and a missing label file are warnings; no scan at all, no readable scan at all, or no label file of a mask at all, is an error.
pub fn survey(checked: &CheckedGraph, out: &Path, timeout: Duration) -> Survey {
    let mut survey = Survey {
        scans: None,
        samples: None,
        needed_bytes: None,
        free_bytes: free_bytes(out),
        sources: vec![],
        problems: vec![],
    };
    let stages = &checked.scans;
    let location = |name: &str| checked.locations.get(name).cloned();
    if let Err(error) = crate::store::check_links(out) {
        let hint = error.hint().map(str::to_owned);
        survey.problems.push(Problem::without_location(Severity::Error, error.to_string(), hint));
    }
    let ListedScans { sources, problems } = list_scans(stages, &location, timeout);
    survey.problems.extend(problems);
    let named = stages.sources.iter().zip(&sources).filter_map(|(node, listed)| Some((node, listed.as_ref()?)));
    survey.sources = named
        .map(|(node, listed)| SourceSurvey {
            name: node.name.clone(),
            scans: listed.scans,
            checked: listed.checked,
            remarks: listed.remarks.clone(),
        })
        .collect();
    let sources: Option<Vec<SourceScans>> = sources.into_iter().collect();
    survey.scans = sources.as_ref().map(|sources| sources.iter().map(|source| source.scans).sum());
    if let (Some(plan), Some(found)) = (&checked.plan, &sources) {
        let sizes: Vec<(usize, u64)> = found.iter().map(|source| (source.scans, source.bytes)).collect();
        let patients: BTreeSet<PatientKey> = found.iter().flat_map(|source| source.patients.iter().copied()).collect();
        survey.problems.extend(missing_splits(plan, &patients));
        let (samples, needed) = required_space(plan, &sizes);
        (survey.samples, survey.needed_bytes) = (Some(samples), Some(needed));
        if let Some(free) = survey.free_bytes.filter(|free| needed > *free) {
            let severity = if needed / 10 > free { Severity::Error } else { Severity::Warning };
            let message = format!(
                "up to {samples} samples would need about {} of disk space, but only {} is free at {}",
                ByteSize(needed),
                ByteSize(free),
                out.display()
            );
            let hint = Some("write to another disk with --out, or set fewer variants".to_owned());
            survey.problems.push(Problem { hint, ..Problem::at(severity, message, None, "") });
        }
    }
    survey
}

/// Returns a warning if a training set expects samples of a split, but no patient is in that split.
fn missing_splits(plan: &Plan, patients: &BTreeSet<PatientKey>) -> Option<Problem> {
    let present: BTreeSet<Split> = patients.iter().map(|patient| plan.split_of(*patient)).collect();
    let expected: BTreeSet<Split> = plan.sinks.iter().flat_map(|sink| sink.expected_splits(plan.split)).collect();
    let names: Vec<String> = expected.difference(&present).map(|split| format!("`{split}`")).collect();
    if patients.is_empty() || names.is_empty() {
        return None;
    }
    let count = match patients.len() {
        1 => "the only patient is not".to_owned(),
        count => format!("none of the {count} patients is"),
    };
    let message = format!("{count} in the split {}, which a sink needs", names.join(" or "));
    let hint = "add patients, or set other shares with `split` of [pipeline]".to_owned();
    Some(Problem::without_location(Severity::Warning, message, Some(hint)))
}

/// Estimated bytes of a patch: about the largest measured one.
const PATCH_BYTES: u64 = 100_000;

/// Returns the maximum number of samples and their bytes, given the scans and bytes of each source.
pub fn required_space(plan: &Plan, found: &[(usize, u64)]) -> (u64, u64) {
    let (mut samples, mut bytes) = (0u64, 0u64);
    for synthesis in &plan.syntheses {
        for (branch, node) in synthesis.attempts.branches.iter().zip(&synthesis.branches) {
            // Layouts with the same index share their files.
            let layouts = node.feeds.iter().filter_map(|feed| plan.sinks[feed.sink].output.layout());
            let stores: BTreeSet<String> = layouts
                .filter(|layout| matches!(layout.content(), Content::Volumes { .. }))
                .map(|layout| layout.index())
                .collect();
            let is_rejected = |feed: &Feed| feed.port == Port::Rejected;
            let attempts = if node.feeds.iter().any(is_rejected) { branch.test.attempts() } else { 1 };
            for &mask in &synthesis.masks {
                let organs = plan.masks[mask].mask.organs();
                let organs: Vec<&Organ> = synthesis.organs_in(&organs).collect();
                let (each, tumors) = synthesis.mean_numbers(&organs);
                let tumors = (tumors.ceil() as u64).saturating_mul(u64::from(attempts));
                let each = if attempts > 1 { tumors } else { each.ceil() as u64 };
                for &source in &plan.masks[mask].sources {
                    let (scans, size) = found[source];
                    let negatives = (scans as f64 * synthesis.negatives).ceil() as u64;
                    samples = samples.saturating_add(each.saturating_mul(scans as u64)).saturating_add(negatives);
                    let negatives_size = (size as f64 * synthesis.negatives) as u64;
                    let volumes = each.saturating_mul(size).saturating_add(negatives_size);
                    let volumes = volumes.saturating_mul(stores.len() as u64);
                    let patches = tumors.saturating_mul(scans as u64).saturating_mul(PATCH_BYTES);
                    bytes = bytes.saturating_add(volumes).saturating_add(patches);
                }
            }
        }
    }
    (samples, bytes)
}

/// Returns the bytes that an unprivileged user may still write at `path` or its nearest existing parent; `None` if the system does not
/// report them.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let folder = path.ancestors().find(|folder| folder.exists())?;
    #[cfg(unix)]
    {
        let status = rustix::fs::statvfs(folder).ok()?;
        status.f_bavail.checked_mul(status.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}
