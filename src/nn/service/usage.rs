//! Counters of a device's work.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The work of a device so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Batches that the device computed.
    pub batches: u64,
    /// Windows in those batches.
    pub windows: u64,
    /// Seconds in which the device computed.
    pub busy_seconds: f64,
    /// Seconds from the first window to the last window.
    pub open_seconds: f64,
    /// Processor seconds of this process in that time, over all processors; 0 if the system does not report them.
    pub processor_seconds: f64,
}

impl Usage {
    /// Returns the fraction of the time in which the device computed, 0 to 1.
    pub fn busy_share(&self) -> f64 {
        if self.open_seconds > 0.0 { self.busy_seconds / self.open_seconds } else { 0.0 }
    }

    /// Returns the fraction of all processors' time that this process used, 0 to 1.
    pub fn processors_busy_share(&self) -> f64 {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        if self.open_seconds > 0.0 { self.processor_seconds / (processors * self.open_seconds) } else { 0.0 }
    }
}

/// The counters behind [`Usage`].
#[derive(Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    windows: AtomicU64,
    busy_us: AtomicU64,
    /// The time of the first window, and the processor seconds of the process until then.
    first_window: OnceLock<(Instant, f64)>,
    last_us: AtomicU64,
    processor_us: AtomicU64,
    lost: AtomicBool,
}

impl Counters {
    /// Counts a batch that `work` computes; returns the result and the seconds.
    pub(super) fn batch<T>(&self, work: impl FnOnce() -> T) -> (T, f64) {
        let start = Instant::now();
        let (first, processor_before) = *self.first_window.get_or_init(|| (start, processor_seconds()));
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.busy_us.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
        self.last_us.store(first.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.processor_us.store(((processor_seconds() - processor_before) * 1e6) as u64, Ordering::Relaxed);
        (result, seconds)
    }

    /// Counts windows that were computed.
    pub(super) fn add_windows(&self, windows: usize) {
        self.windows.fetch_add(windows as u64, Ordering::Relaxed);
    }

    /// Records that the device is lost.
    pub(super) fn set_lost(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Returns whether the device is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Returns the counts so far.
    pub(super) fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = |counter| read(counter) as f64 * 1e-6;
        Usage {
            batches: read(&self.batches),
            windows: read(&self.windows),
            busy_seconds: seconds(&self.busy_us),
            open_seconds: seconds(&self.last_us),
            processor_seconds: seconds(&self.processor_us),
        }
    }
}

/// Returns the processor seconds of this process so far, over all processors.
fn processor_seconds() -> f64 {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        now.tv_sec as f64 + 1e-9 * now.tv_nsec as f64
    }
    #[cfg(not(unix))]
    0.0
}
