//! What took how long: a line of JSON for every piece of work, outside the commits, joined to the tables by ids.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};

use crate::id::{SampleId, ScanId};

use super::Epoch;

/// The pieces of work that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reading a header.
    Peek,
    /// Decoding a scan.
    Read,
    /// Finding its organs.
    Mask,
    /// Preparing an organ: what all its attempts share.
    Prepare,
    /// Making one tumor.
    Synthesize,
    /// Judging one tumor.
    Score,
    /// Encoding an accepted sample.
    Encode,
    /// Sealing and committing an epoch.
    Commit,
}

impl Step {
    /// All of them, in the order of the way.
    pub const ALL: [Self; 8] =
        [Self::Peek, Self::Read, Self::Mask, Self::Prepare, Self::Synthesize, Self::Score, Self::Encode, Self::Commit];

    /// The name used in telemetry and summaries.
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

/// One timed piece of work.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing<'a> {
    /// The epoch that it was done for.
    pub epoch: Epoch,
    /// What was done.
    pub step: Step,
    /// The node of the graph that did it.
    pub node: &'a str,
    /// The scan, where it was one scan's work.
    pub scan_id: Option<ScanId>,
    /// The attempt, where it was one attempt's work.
    pub sample_id: Option<SampleId>,
}

/// Where timings go: a file of lines, and sums by step.
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
    /// Timings that are only summed up.
    pub fn sums_only() -> Self {
        Self { lines: None, sums: Default::default() }
    }

    /// Timings in a new file of `folder`, named by the time and the process.
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

    /// Does `work` and notes how long it took.
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
            // Telemetry is a courtesy: a full disk shows itself where results are written.
            let _ = serde_json::to_writer(&mut *lines, &line).map(|()| lines.write_all(b"\n"));
        }
        result
    }

    /// How often each step was done, and the seconds it took together.
    pub fn sums(&self) -> Vec<(Step, u64, f64)> {
        let read = |(step, (count, sum)): (Step, &(AtomicU64, AtomicU64))| {
            (step, count.load(Ordering::Relaxed), sum.load(Ordering::Relaxed) as f64 * 1e-6)
        };
        Step::ALL.into_iter().zip(&self.sums).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_sums_agree() {
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
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[1]["sample_id"], &lines[1]["step"]), (&"0202020202020202".into(), &"score".into()));
    }
}
