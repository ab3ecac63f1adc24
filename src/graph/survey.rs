//! Surveys the scans that a run would find and the disk space that it would need.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use super::{CheckedGraph, Feed, Location, Plan, Port, Problem, Severity};
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
    /// The errors and warnings.
    pub problems: Vec<Problem>,
}

/// Lists every source of a checked graph with a timeout of `timeout` each, and compares the space that the samples need with the free
/// space at `out` or its nearest existing parent.
///
/// The required space is an upper bound: every tumor counts as accepted, and every image as large as its scan. Less free space is a
/// warning; less than a tenth of the bound, an error.
pub fn survey(checked: &CheckedGraph, out: &Path, timeout: Duration) -> Survey {
    let mut survey =
        Survey { scans: None, samples: None, needed_bytes: None, free_bytes: free_bytes(out), problems: vec![] };
    let Some(plan) = &checked.plan else { return survey };
    let location = |name: &str| checked.locations.get(name).cloned();
    let mut listed: Vec<Option<(usize, u64)>> = Vec::new();
    for node in &plan.sources {
        let (sender, receiver) = channel();
        let source = node.source.clone();
        // A slow archive blocks only its own thread, which may run until the program ends.
        std::thread::spawn(move || {
            let listing =
                source.list().map(|entries| (entries.len(), entries.iter().map(|entry| entry.bytes).sum::<u64>()));
            let _ = sender.send(listing);
        });
        listed.push(match receiver.recv_timeout(timeout) {
            Ok(Ok((0, _))) => {
                let message = format!("the source `{}` has no scans", node.name);
                survey.problems.push(problem(
                    Severity::Warning,
                    message,
                    location(&node.name),
                    "no file matches the patterns of the source",
                ));
                Some((0, 0))
            }
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                let message = format!("the source `{}` cannot be listed: {error}", node.name);
                let hint = error.hint().map(str::to_owned);
                survey.problems.push(Problem { hint, ..problem(Severity::Error, message, location(&node.name), "") });
                None
            }
            Err(_) => {
                let message = format!("the source `{}` was not listed within {} s", node.name, timeout.as_secs());
                let label = "the number of scans and the required disk space are unknown";
                survey.problems.push(problem(Severity::Warning, message, location(&node.name), label));
                None
            }
        });
    }
    if let Some(found) = listed.iter().copied().collect::<Option<Vec<_>>>() {
        let (samples, needed) = required_space(plan, &found);
        survey.scans = Some(found.iter().map(|(scans, _)| scans).sum());
        (survey.samples, survey.needed_bytes) = (Some(samples), Some(needed));
        if let Some(free) = survey.free_bytes.filter(|free| needed > *free) {
            let severity = if needed / 10 > free { Severity::Error } else { Severity::Warning };
            let message = format!(
                "up to {samples} samples would need about {}, but {} are free at {}",
                ByteSize(needed),
                ByteSize(free),
                out.display()
            );
            let hint = Some("write to another disk with --out, or set fewer variants".to_owned());
            survey.problems.push(Problem { hint, ..problem(severity, message, None, "") });
        }
    }
    survey
}

fn problem(severity: Severity, message: String, location: Option<Location>, label: &str) -> Problem {
    Problem { severity, message, location, label: label.to_owned(), hint: None }
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
                let organs = synthesis.organs_in(&plan.masks[mask].mask.organs()).count() as u64;
                let each = organs.saturating_mul(u64::from(synthesis.variants)).saturating_mul(u64::from(attempts));
                for &source in &plan.masks[mask].sources {
                    let (scans, size) = found[source];
                    samples = samples.saturating_add(each.saturating_mul(scans as u64));
                    let volumes = each.saturating_mul(size).saturating_mul(stores.len() as u64);
                    let patches = each.saturating_mul(scans as u64).saturating_mul(PATCH_BYTES);
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
