//! What a run would find and need: scans in the sources, bytes on the disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use super::{Checked, Feed, Location, Plan, Port, Problem, Severity};
use crate::sink::Content;

/// What a run would find and need.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    /// Scans that the sources list; absent where one of them could not be listed in time.
    pub scans: Option<usize>,
    /// Most samples that could be written, if the first attempt at every tumor were accepted.
    pub samples: Option<u64>,
    /// Bytes that those would take, by the size of the scans on disk.
    pub needed_bytes: Option<u64>,
    /// Bytes that are free where the run would write.
    pub free_bytes: Option<u64>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// Lists every source of a checked graph, for at most `patience` each, and compares what the samples would need with
/// what is free at `out` or the nearest folder above it that is there.
///
/// The need is an upper bound: every tumor counts as accepted, and every image as large as its scan. Free space below
/// it is a warning; below a tenth of it, an error.
pub fn survey(checked: &Checked, out: &Path, patience: Duration) -> Survey {
    let mut survey =
        Survey { scans: None, samples: None, needed_bytes: None, free_bytes: free_bytes(out), problems: vec![] };
    let Some(plan) = &checked.plan else { return survey };
    let place = |name: &str| checked.places.get(name).cloned();
    let mut listed: Vec<Option<(usize, u64)>> = Vec::new();
    for node in &plan.sources {
        let (sender, receiver) = channel();
        let source = node.source.clone();
        // A slow archive keeps its thread until the program ends; that is all it can keep.
        std::thread::spawn(move || {
            let listing =
                source.list().map(|entries| (entries.len(), entries.iter().map(|entry| entry.bytes).sum::<u64>()));
            let _ = sender.send(listing);
        });
        listed.push(match receiver.recv_timeout(patience) {
            Ok(Ok((0, _))) => {
                let message = format!("the source `{}` has no scans", node.name);
                survey.problems.push(problem(
                    Severity::Warning,
                    message,
                    place(&node.name),
                    "nothing there fits its patterns",
                ));
                Some((0, 0))
            }
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                let message = format!("the source `{}` cannot be listed: {error}", node.name);
                let hint = error.hint().map(str::to_owned);
                survey.problems.push(Problem { hint, ..problem(Severity::Error, message, place(&node.name), "") });
                None
            }
            Err(_) => {
                let message = format!("the source `{}` was not listed within {} s", node.name, patience.as_secs());
                let label = "how many scans it has and whether the disk is large enough is not known";
                survey.problems.push(problem(Severity::Warning, message, place(&node.name), label));
                None
            }
        });
    }
    if let Some(found) = listed.iter().copied().collect::<Option<Vec<_>>>() {
        let (samples, needed) = need(plan, &found);
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
            let hint = Some("write elsewhere with --out, or ask for fewer variants".to_owned());
            survey.problems.push(Problem { hint, ..problem(severity, message, None, "") });
        }
    }
    survey
}

fn problem(severity: Severity, message: String, location: Option<Location>, label: &str) -> Problem {
    Problem { severity, message, location, label: label.to_owned(), hint: None }
}

/// Bytes of a patch that are reckoned with: about the largest of those that were measured.
const PATCH_BYTES: u64 = 100_000;

/// Most samples, and the bytes that they take, given scans and bytes of each source.
pub fn need(plan: &Plan, found: &[(usize, u64)]) -> (u64, u64) {
    let (mut samples, mut bytes) = (0u64, 0u64);
    for synthesis in &plan.syntheses {
        for (branch, node) in synthesis.attempts.branches.iter().zip(&synthesis.branches) {
            // Layouts of one index share their files.
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

/// Bytes that an ordinary user may still write at `path` or the nearest folder above it; `None` where the system does not
/// say.
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
