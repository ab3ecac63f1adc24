//! The thread pool for computation, separate from the timely workers that schedule it.
//!
//! Later stages of the pipeline have priority: a scan that is nearly done is finished and releases its memory before another scan is
//! opened.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Select, Sender, TrySendError, bounded};

use crate::error::catch_panic;
use crate::error::{Error, Fault, FaultKind, Result, Stage};

type Job = Box<dyn FnOnce() + Send>;

/// The priorities of jobs, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Saving finished scans, and committing.
    Save,
    /// Synthesis, scores and filter.
    Synthesize,
    /// Organ masks.
    Mask,
    /// Decoding.
    Read,
    /// Reading headers.
    Peek,
}

impl Priority {
    const COUNT: usize = 5;
}

/// Runs `work` on one scan and converts a panic to a fault of the scan.
///
/// # Errors
/// The fault of `work`, or a fault of kind `panic`.
pub fn catch_fault<T>(stage: Stage, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_panic(work).unwrap_or_else(|message| {
        Err(Fault::new(stage, FaultKind::Panic, format!("the {} stage panicked: {message}", stage.name())))
    })
}

/// A fixed number of threads with one bounded queue per priority.
pub struct Pool {
    queues: Vec<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads; each queue has room for `capacity` waiting jobs.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(threads: usize, capacity: usize) -> Result<Arc<Self>> {
        let (queues, receivers): (Vec<_>, Vec<_>) = (0..Priority::COUNT).map(|_| bounded::<Job>(capacity)).unzip();
        let threads = (0..threads.max(1))
            .map(|index| {
                let receivers = receivers.clone();
                std::thread::Builder::new()
                    .name(format!("pool-{index}"))
                    .spawn(move || run_thread(&receivers))
                    .map_err(|cause| Error::new(format!("cannot start a thread: {cause}")).with_source(cause))
            })
            .collect::<Result<_>>()?;
        Ok(Arc::new(Self { queues, threads }))
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Queues a job.
    ///
    /// # Errors
    /// Returns the job if the queue is full, to be submitted again.
    pub fn submit(
        &self,
        priority: Priority,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), Box<dyn FnOnce() + Send>> {
        self.queues[priority as usize].try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queues.clear();
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last reference may be dropped on a thread of the pool, which cannot join itself.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}

/// Runs jobs by priority until all senders are dropped and all queues are empty.
fn run_thread(queues: &[Receiver<Job>]) {
    loop {
        if let Some(job) = queues.iter().find_map(|queue| queue.try_recv().ok()) {
            job();
            continue;
        }
        let mut select = Select::new();
        for queue in queues {
            select.recv(queue);
        }
        // Ready means a job or a disconnection; the next iteration takes the job of the highest priority.
        let ready = select.ready();
        if queues[ready].is_empty() && queues.iter().all(Receiver::is_empty) {
            match queues[ready].try_recv() {
                Ok(job) => job(),
                Err(crossbeam::channel::TryRecvError::Disconnected) => return,
                Err(crossbeam::channel::TryRecvError::Empty) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn pool_runs_every_job_once_before_drop_returns() {
        let count = Arc::new(AtomicUsize::new(0));
        let pool = Pool::start(3, 1000).unwrap();
        for _ in 0..1000 {
            let count = Arc::clone(&count);
            assert!(
                pool.submit(Priority::Read, move || {
                    count.fetch_add(1, Ordering::Relaxed);
                })
                .is_ok()
            );
        }
        drop(pool);
        assert_eq!(count.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn pool_runs_jobs_by_priority() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let pool = Pool::start(1, 8).unwrap();
        let (release, resume) = bounded::<()>(0);
        assert!(pool.submit(Priority::Save, move || resume.recv().unwrap()).is_ok());
        for priority in [Priority::Peek, Priority::Read, Priority::Mask, Priority::Synthesize, Priority::Save] {
            let order = Arc::clone(&order);
            assert!(pool.submit(priority, move || order.lock().unwrap().push(priority)).is_ok());
        }
        release.send(()).unwrap();
        drop(pool);
        assert_eq!(
            *order.lock().unwrap(),
            [Priority::Save, Priority::Synthesize, Priority::Mask, Priority::Read, Priority::Peek]
        );
    }

    #[test]
    fn submit_fails_on_full_queue() {
        let pool = Pool::start(1, 1).unwrap();
        let (release, resume) = bounded::<()>(0);
        let (started, running) = bounded::<()>(0);
        assert!(
            pool.submit(Priority::Read, move || {
                started.send(()).unwrap();
                resume.recv().unwrap();
            })
            .is_ok()
        );
        running.recv().unwrap();
        assert!(pool.submit(Priority::Read, || {}).is_ok());
        assert!(pool.submit(Priority::Read, || {}).is_err());
        release.send(()).unwrap();
    }

    #[test]
    fn catch_fault_converts_panic_to_fault() {
        let fault = catch_fault(Stage::Mask, || -> Result<(), Fault> { panic!("seven") }).unwrap_err();
        assert_eq!((fault.stage, fault.kind), (Stage::Mask, FaultKind::Panic));
        assert!(fault.message.contains("seven"));
    }
}
