//! The threads that do the heavy work, apart from the timely workers that direct it.
//!
//! Lanes are served from the last stretch of the way to the first: a scan that is nearly done is finished, and its memory given
//! back, before another one is opened.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Select, Sender, TrySendError, bounded};

use crate::error::catch_panic;
use crate::error::{Error, Fault, FaultKind, Result, Stage};

type Job = Box<dyn FnOnce() + Send>;

/// The stretches of the way, in the order in which they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Saving what is finished, and committing.
    Save,
    /// Synthesis, scores and filter.
    Synthesize,
    /// Organ masks.
    Mask,
    /// Decoding.
    Read,
    /// Looking at headers.
    Peek,
}

impl Priority {
    const COUNT: usize = 5;
}

/// Runs work on one scan so that a panic in it is a fault of that scan.
///
/// # Errors
/// What `work` says, or a fault of kind `panic`.
pub fn guarded<T>(stage: Stage, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_panic(work).unwrap_or_else(|words| {
        Err(Fault::new(stage, FaultKind::Panic, format!("the {} stage panicked: {words}", stage.name())))
    })
}

/// A fixed number of threads behind one bounded queue a lane.
pub struct Pool {
    lanes: Vec<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads; each lane holds at most `capacity` waiting jobs.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(threads: usize, capacity: usize) -> Result<Arc<Self>> {
        let (lanes, receivers): (Vec<_>, Vec<_>) = (0..Priority::COUNT).map(|_| bounded::<Job>(capacity)).unzip();
        let threads = (0..threads.max(1))
            .map(|index| {
                let receivers = receivers.clone();
                std::thread::Builder::new()
                    .name(format!("pool-{index}"))
                    .spawn(move || serve(&receivers))
                    .map_err(|cause| Error::new(format!("cannot start a thread: {cause}")).with_source(cause))
            })
            .collect::<Result<_>>()?;
        Ok(Arc::new(Self { lanes, threads }))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Queues a job, or gives it back where the lane is full.
    ///
    /// # Errors
    /// The job itself, to be tried again.
    pub fn submit(&self, lane: Priority, job: impl FnOnce() + Send + 'static) -> Result<(), Box<dyn FnOnce() + Send>> {
        self.lanes[lane as usize].try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.lanes.clear();
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last reference may die on one of the threads, which cannot wait for itself.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}

/// Takes jobs, the first lanes first, until every sender is gone and every lane is empty.
fn serve(lanes: &[Receiver<Job>]) {
    loop {
        if let Some(job) = lanes.iter().find_map(|lane| lane.try_recv().ok()) {
            job();
            continue;
        }
        let mut select = Select::new();
        for lane in lanes {
            select.recv(lane);
        }
        // Ready means a job or a disconnection; the loop above takes the most urgent job, whichever lane woke us.
        let ready = select.ready();
        if lanes[ready].is_empty() && lanes.iter().all(Receiver::is_empty) {
            match lanes[ready].try_recv() {
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
    fn every_job_runs_once_before_the_pool_is_gone() {
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
    fn later_stretches_come_first() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let pool = Pool::start(1, 8).unwrap();
        let (hold, gate) = bounded::<()>(0);
        assert!(pool.submit(Priority::Save, move || gate.recv().unwrap()).is_ok());
        for lane in [Priority::Peek, Priority::Read, Priority::Mask, Priority::Synthesize, Priority::Save] {
            let order = Arc::clone(&order);
            assert!(pool.submit(lane, move || order.lock().unwrap().push(lane)).is_ok());
        }
        hold.send(()).unwrap();
        drop(pool);
        assert_eq!(
            *order.lock().unwrap(),
            [Priority::Save, Priority::Synthesize, Priority::Mask, Priority::Read, Priority::Peek]
        );
    }

    #[test]
    fn a_full_lane_gives_the_job_back() {
        let pool = Pool::start(1, 1).unwrap();
        let (hold, gate) = bounded::<()>(0);
        let (started, running) = bounded::<()>(0);
        assert!(
            pool.submit(Priority::Read, move || {
                started.send(()).unwrap();
                gate.recv().unwrap();
            })
            .is_ok()
        );
        running.recv().unwrap();
        assert!(pool.submit(Priority::Read, || {}).is_ok());
        assert!(pool.submit(Priority::Read, || {}).is_err());
        hold.send(()).unwrap();
    }

    #[test]
    fn a_panic_is_a_fault() {
        let fault = guarded(Stage::Mask, || -> Result<(), Fault> { panic!("seven") }).unwrap_err();
        assert_eq!((fault.stage, fault.kind), (Stage::Mask, FaultKind::Panic));
        assert!(fault.message.contains("seven"));
    }
}
