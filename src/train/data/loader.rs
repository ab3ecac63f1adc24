//! A loader that makes batches ahead on other threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// Makes the batch of a step, as a function of the step only.
pub trait Sampler: Send + Sync + 'static {
    /// The batch of a step.
    type Batch: Send + 'static;

    /// Makes the batch of a step, counted from 0.
    ///
    /// # Errors
    /// Returns an error if no batch can be made; the training run stops.
    fn batch(&self, step: u64) -> Result<Self::Batch>;
}

/// Makes a bounded number of batches ahead and returns them in order.
///
/// ```
/// use freetumor::error::Result;
/// use freetumor::train::data::{Loader, Sampler};
///
/// struct Squares;
/// impl Sampler for Squares {
///     type Batch = u64;
///     fn batch(&self, step: u64) -> Result<u64> {
///         Ok(step * step)
///     }
/// }
///
/// let mut loader = Loader::start(std::sync::Arc::new(Squares), 3..6, 2, 4)?;
/// assert_eq!([loader.next()?, loader.next()?, loader.next()?], [Some(9), Some(16), Some(25)]);
/// assert_eq!(loader.next()?, None);
/// # Ok::<(), freetumor::error::Error>(())
/// ```
pub struct Loader<B: Send + 'static> {
    shared: Arc<Shared<B>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<B> {
    state: Mutex<State<B>>,
    changed: Condvar,
    end: u64,
    ahead: u64,
}

struct State<B> {
    /// The step of the next batch to return.
    next: u64,
    /// The first step that no thread has started.
    unstarted: u64,
    ready: BTreeMap<u64, Result<B>>,
    stopped: bool,
}

impl<B: Send + 'static> Loader<B> {
    /// Starts to make the batches of `steps` on `threads` threads, at most `ahead` of them in advance.
    ///
    /// # Errors
    /// Returns an error if no thread can be started.
    pub fn start<S: Sampler<Batch = B>>(
        sampler: Arc<S>,
        steps: std::ops::Range<u64>,
        threads: usize,
        ahead: usize,
    ) -> Result<Self> {
        let state = State { next: steps.start, unstarted: steps.start, ready: BTreeMap::new(), stopped: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            end: steps.end,
            ahead: ahead.max(1) as u64,
        });
        let mut loader = Self { shared, threads: Vec::new() };
        for index in 0..threads.max(1) {
            let (shared, sampler) = (Arc::clone(&loader.shared), Arc::clone(&sampler));
            let thread = std::thread::Builder::new()
                .name(format!("loader-{index}"))
                .spawn(move || shared.work(&*sampler))
                .map_err(|cause| Error::new(format!("cannot start a loader thread: {cause}")).with_source(cause))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// Returns the next batch; `None` after the last one.
    ///
    /// # Errors
    /// Returns the error of the sampler.
    #[expect(clippy::should_implement_trait, reason = "an error ends the training run, not an iteration")]
    pub fn next(&mut self) -> Result<Option<B>> {
        let mut state = self.shared.locked();
        if state.next >= self.shared.end {
            return Ok(None);
        }
        loop {
            let step = state.next;
            if let Some(batch) = state.ready.remove(&step) {
                state.next += 1;
                self.shared.changed.notify_all();
                return batch.map(Some);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<B> Shared<B> {
    fn locked(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, sampler: &impl Sampler<Batch = B>) {
        loop {
            let mut state = self.locked();
            while !state.stopped && state.unstarted < self.end && state.unstarted >= state.next + self.ahead {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped || state.unstarted >= self.end {
                return;
            }
            let step = state.unstarted;
            state.unstarted += 1;
            drop(state);
            let batch = catch_unwind(AssertUnwindSafe(|| sampler.batch(step))).unwrap_or_else(|panic| {
                let message = panic.downcast_ref::<&str>().map(ToString::to_string);
                let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                Err(Error::new(format!("a loader thread panicked on the batch of step {step}: {message}")))
            });
            self.locked().ready.insert(step, batch);
            self.changed.notify_all();
        }
    }
}

impl<B: Send + 'static> Drop for Loader<B> {
    fn drop(&mut self) {
        self.shared.locked().stopped = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Panics of the sampler were caught in `work`.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct SlowSampler {
        max_step: AtomicU64,
        fails_at: u64,
    }

    impl Sampler for SlowSampler {
        type Batch = u64;

        fn batch(&self, step: u64) -> Result<u64> {
            std::thread::sleep(std::time::Duration::from_millis((step * 7) % 5));
            self.max_step.fetch_max(step, Ordering::Relaxed);
            assert!(step != self.fails_at, "no batch");
            Ok(step)
        }
    }

    #[test]
    fn loader_returns_batches_in_order_and_bounds_lookahead() {
        let sampler = Arc::new(SlowSampler { max_step: AtomicU64::new(0), fails_at: u64::MAX });
        let mut loader = Loader::start(Arc::clone(&sampler), 0..50, 4, 3).unwrap();
        for step in 0..50 {
            assert_eq!(loader.next().unwrap(), Some(step));
            assert!(sampler.max_step.load(Ordering::Relaxed) <= step + 4);
        }
        assert_eq!(loader.next().unwrap(), None);
    }

    #[test]
    fn loader_reports_panic_as_error_of_step() {
        let sampler = Arc::new(SlowSampler { max_step: AtomicU64::new(0), fails_at: 3 });
        let mut loader = Loader::start(sampler, 0..50, 2, 3).unwrap();
        for _ in 0..3 {
            loader.next().unwrap();
        }
        let error = loader.next().unwrap_err();
        assert_eq!(error.to_string(), "a loader thread panicked on the batch of step 3: no batch");
    }
}
