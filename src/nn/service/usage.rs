//! What a device did, counted while it works.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// What a device did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Batches that it answered.
    pub batches: u64,
    /// Windows in them.
    pub windows: u64,
    /// Seconds in which it worked.
    pub busy_seconds: f64,
    /// Seconds from its first window to its last.
    pub open_seconds: f64,
    /// Seconds that this process had of all processors meanwhile; 0 where the system does not tell.
    pub processor_seconds: f64,
}

impl Usage {
    /// The share of its time in which it worked, 0 to 1.
    pub fn busy_share(&self) -> f64 {
        if self.open_seconds > 0.0 { self.busy_seconds / self.open_seconds } else { 0.0 }
    }

    /// The share of all processors' time that this process had meanwhile, 0 to 1.
    pub fn processors_busy_share(&self) -> f64 {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        if self.open_seconds > 0.0 { self.processor_seconds / (processors * self.open_seconds) } else { 0.0 }
    }
}

/// The counts behind [`Usage`].
#[derive(Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    windows: AtomicU64,
    busy_us: AtomicU64,
    /// When the first window came, and the processor seconds of the process until then.
    begun: OnceLock<(Instant, f64)>,
    last_us: AtomicU64,
    processor_us: AtomicU64,
    lost: AtomicBool,
}

impl Counters {
    /// Takes note of a batch while `work` is done on it; gives the seconds, too.
    pub(super) fn batch<T>(&self, work: impl FnOnce() -> T) -> (T, f64) {
        let start = Instant::now();
        let (begun, had) = *self.begun.get_or_init(|| (start, processor_seconds()));
        let done = work();
        let seconds = start.elapsed().as_secs_f64();
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.busy_us.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
        self.last_us.store(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.processor_us.store(((processor_seconds() - had) * 1e6) as u64, Ordering::Relaxed);
        (done, seconds)
    }

    /// Takes note of windows that were answered.
    pub(super) fn answered(&self, windows: usize) {
        self.windows.fetch_add(windows as u64, Ordering::Relaxed);
    }

    /// Takes note that the device is gone.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether it is.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// What was counted so far.
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

/// Seconds that this process had of all processors so far.
fn processor_seconds() -> f64 {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        now.tv_sec as f64 + 1e-9 * now.tv_nsec as f64
    }
    #[cfg(not(unix))]
    0.0
}
