//! Progress on standard error: a bar on a terminal, lines at intervals otherwise.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::messages::{LogFormat, Messages, style};
use super::print::pluralize;
use crate::dataflow::{Progress, ProgressSnapshot};

/// Prints the progress of a run until it is dropped.
pub struct ProgressReporter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressReporter {
    /// Starts the thread that prints.
    pub fn start(progress: Arc<Progress>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let watch = move || if style().has_bar() { draw(&progress, &flag) } else { report(&progress, &flag) };
        // Without a thread the run continues without progress output.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(watch).ok();
        Self { stop, thread }
    }
}

impl Drop for ProgressReporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn summary(now: ProgressSnapshot) -> String {
    let count = |count: u64, noun| pluralize(count as usize, noun);
    let faults = if now.faulted > 0 { format!(", {} failed", count(now.faulted, "scan")) } else { String::new() };
    format!("{} accepted, {} rejected{faults}", count(now.accepted, "tumor"), count(now.rejected, "attempt"))
}

fn draw(progress: &Progress, stop: &AtomicBool) {
    let bar = ProgressBar::new(0);
    let template = "{elapsed_precise} {bar:32.cyan/dim} {pos}/{len} scans ({eta} left)  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    while !stop.load(Ordering::Acquire) {
        let now = progress.snapshot();
        bar.set_length(now.scans);
        bar.set_position(now.finished);
        bar.set_message(summary(now));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    bar.finish_and_clear();
}

fn report(progress: &Progress, stop: &AtomicBool) {
    let start = Instant::now();
    let (mut next, mut pause, mut last) = (start + Duration::from_secs(2), 2, None);
    loop {
        let stopped = stop.load(Ordering::Acquire);
        let now = progress.snapshot();
        if (stopped || Instant::now() >= next) && last != Some(now) && now.scans > 0 {
            let seconds = start.elapsed().as_secs_f64();
            let ProgressSnapshot { scans, finished, faulted, accepted, rejected, committed } = now;
            if style().format == LogFormat::Json {
                tracing::info!(seconds, scans, finished, faulted, accepted, rejected, committed, "progress");
            } else {
                let message = format!("{seconds:6.1} s  {finished}/{scans} scans, {}", summary(now));
                let _ =
                    writeln!(Messages::new(style()), "{message}, {} committed", pluralize(committed as usize, "epoch"));
            }
            last = Some(now);
            // Long runs need fewer lines: the pauses grow to half a minute.
            pause = (pause * 3 / 2).min(30);
            next = Instant::now() + Duration::from_secs(pause);
        }
        if stopped {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}
