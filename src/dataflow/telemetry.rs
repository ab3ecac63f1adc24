//! Timings: one JSON line per step, not part of commits, joinable with the tables by ids.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use crate::id::{SampleId, ScanId};

use super::Epoch;

/// The steps that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reading a header.
    Peek,
    /// Decoding a scan.
    Read,
    /// Computing an organ mask.
    Mask,
    /// Preparing an organ for all its attempts.
    Prepare,
    /// Making one tumor.
    Synthesize,
    /// Scoring one tumor.
    Score,
    /// Encoding a kept sample.
    Encode,
    /// Sealing and committing an epoch.
    Commit,
}

impl Step {
    /// All steps, in pipeline order.
    pub const ALL: [Self; 8] =
        [Self::Peek, Self::Read, Self::Mask, Self::Prepare, Self::Synthesize, Self::Score, Self::Encode, Self::Commit];

    /// Returns the name used in telemetry and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peek => "peek",
            Self::Read => "read",
            Self::Mask => "mask",
            Self::Prepare => "prepare",
            Self::Synthesize => "synthesize",
            Self::Score => "score",
            Self::Encode => "encode",
            Self::Commit => "commit",
        }
    }
}

/// One timed step.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing<'a> {
    /// The epoch.
    pub epoch: Epoch,
    /// The step.
    pub step: Step,
    /// The node of the graph.
    pub node: &'a str,
    /// The scan, if the step processed a single scan.
    pub scan_id: Option<ScanId>,
    /// The attempt, if the step processed a single attempt: the `candidate_id` of the attempt in `samples`; for encoding, the sample.
    pub sample_id: Option<SampleId>,
}

/// The recorder of timings: a file of JSON lines, and sums by step.
pub struct Telemetry {
    lines: Option<Mutex<BufWriter<File>>>,
    sums: [(AtomicU64, AtomicU64); Step::ALL.len()],
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    timing: Timing<'a>,
    microseconds: u64,
    thread: &'a str,
}

impl Telemetry {
    /// Creates a recorder without a file.
    pub fn sums_only() -> Self {
        Self { lines: None, sums: Default::default() }
    }

    /// Creates a recorder with a new file in `folder`, named by time and process id.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(folder: &Path) -> Result<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let path = folder.join(format!("{}-{}.jsonl", now.as_millis(), std::process::id()));
        let open = || {
            std::fs::create_dir_all(folder)?;
            OpenOptions::new().create_new(true).write(true).open(&path)
        };
        let file = open().map_err(|cause| Error::io("cannot create", &path, cause))?;
        Ok(Self { lines: Some(Mutex::new(BufWriter::new(file))), ..Self::sums_only() })
    }

    /// Runs `work` and records its duration.
    pub fn time<T>(&self, timing: Timing<'_>, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        let microseconds = start.elapsed().as_micros() as u64;
        let (count, sum) = &self.sums[timing.step as usize];
        count.fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(microseconds, Ordering::Relaxed);
        if let Some(lines) = &self.lines {
            let thread = std::thread::current();
            let line = Line { timing, microseconds, thread: thread.name().unwrap_or("main") };
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            // Ignore errors: a full disk is reported when results are written.
            let _ = serde_json::to_writer(&mut *lines, &line).map(|()| lines.write_all(b"\n"));
        }
        result
    }

    /// Returns the number and total seconds of each step.
    pub fn sums(&self) -> Vec<(Step, u64, f64)> {
        let read = |(step, (count, sum)): (Step, &(AtomicU64, AtomicU64))| {
            (step, count.load(Ordering::Relaxed), sum.load(Ordering::Relaxed) as f64 * 1e-6)
        };
        Step::ALL.into_iter().zip(&self.sums).map(read).collect()
    }
}

/// Bytes of telemetry that an estimate reads, from the newest files.
const MAX_ESTIMATE_BYTES: u64 = 64 << 20;

/// A line of telemetry, as far as an estimate needs it.
#[derive(Deserialize)]
struct ScanTiming {
    scan_id: Option<ScanId>,
    microseconds: u64,
}

/// Returns the mean time of a scan over all steps and threads in seconds, from the newest telemetry in `folder`; `None` if there is none.
///
/// # Errors
/// If a file cannot be read.
pub fn mean_scan_seconds(folder: &Path) -> Result<Option<f64>> {
    let unreadable = |cause| Error::io("cannot read", folder, cause);
    let entries = match std::fs::read_dir(folder) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(unreadable)?,
    };
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>().map_err(unreadable)?;
    // The names start with the time.
    files.sort();
    let (mut scans, mut microseconds, mut bytes) = (HashSet::new(), 0, 0);
    for path in files.iter().rev() {
        let text = std::fs::read_to_string(path).map_err(|cause| Error::io("cannot read", path, cause))?;
        // The last line of a run that writes is not complete.
        for timing in text.lines().filter_map(|line| serde_json::from_str::<ScanTiming>(line).ok()) {
            if let Some(scan_id) = timing.scan_id {
                scans.insert(scan_id);
                microseconds += timing.microseconds;
            }
        }
        bytes += text.len() as u64;
        if bytes >= MAX_ESTIMATE_BYTES {
            break;
        }
    }
    Ok((!scans.is_empty()).then(|| microseconds as f64 * 1e-6 / scans.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timing_is_written_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::create(folder.path()).unwrap();
        for sample in [1, 2] {
            let timing = Timing {
                epoch: 3,
                step: Step::Score,
                node: "score",
                scan_id: Some(ScanId::from_bytes([0; 8])),
                sample_id: Some(SampleId::from_bytes([sample; 8])),
            };
            assert_eq!(telemetry.time(timing, || 7), 7);
        }
        assert_eq!(telemetry.sums()[Step::Score as usize].1, 2);
        drop(telemetry);
        assert!(mean_scan_seconds(folder.path()).unwrap().is_some_and(|seconds| seconds < 1.0));
        assert_eq!(mean_scan_seconds(&folder.path().join("absent")).unwrap(), None);
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[1]["sample_id"], &lines[1]["step"]), (&"0202020202020202".into(), &"score".into()));
    }
}
