//! One thread that owns a device, and the queue before it.
//!
//! Whoever wants a network to look at windows sends them here and waits for the answer: the device is never asked by two threads at once,
//! the queue is bounded, and windows of one shape that wait for one network are put into one batch. The answer to a window does not
//! depend on what it shared a batch with; networks whose norms mix the samples of a batch are asked with [`Batching::Never`].
//!
//! Where a batch fails it is halved and tried again, down to single windows: a device without memory for four may have it for one, and of
//! four windows one may hold no numbers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{Device, Tensor};
use crossbeam::channel::{Receiver, Sender, bounded};

use super::device::DeviceKind;
use super::failed;
use super::predictor::Predictor;
use crate::error::catch_panic;
use crate::error::{Error, Result};
use usage::Counters;

mod usage;

pub use usage::Usage;

/// Jobs that wait before the device at most; who comes later waits to be let in.
const QUEUE: usize = 64;

/// Something that answers windows: a network.
pub trait WindowModel: Send + Sync {
    /// What it says of windows.
    ///
    /// # Shapes
    /// `[n, channel, x, y, z]` to `[n, class, x, y, z]`.
    ///
    /// # Errors
    /// Where it cannot.
    fn answer(&self, windows: &Tensor) -> Result<Tensor>;

    /// Whether the device on which it runs is gone, so that no other window will be answered either.
    fn is_lost(&self) -> bool {
        false
    }
}

impl WindowModel for Predictor {
    fn answer(&self, windows: &Tensor) -> Result<Tensor> {
        self.forward(windows)
    }

    fn is_lost(&self) -> bool {
        self.device_is_lost()
    }
}

/// Whether windows may be put into a batch with those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// They may: each is answered as if it were alone.
    Freely,
    /// They may not: the network mixes what it sees together.
    Never,
}

struct Submission {
    network: Arc<dyn WindowModel>,
    windows: Tensor,
    joining: Batching,
    reply: Sender<Result<Prediction>>,
}

impl Submission {
    fn joins(&self, other: &Self) -> bool {
        self.joining == Batching::Freely
            && other.joining == Batching::Freely
            && Arc::ptr_eq(&self.network, &other.network)
            && self.windows.dims() == other.windows.dims()
    }
}

/// What a network said of the windows of one question.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// `[n, class, x, y, z]` in the host's memory.
    pub logits: Tensor,
    /// Seconds of the device: its share of the batch's.
    pub device_seconds: f64,
}

/// An answer on its way.
pub struct PendingPrediction(Receiver<Result<Prediction>>);

impl PendingPrediction {
    /// Waits for the answer.
    ///
    /// # Errors
    /// What the network said, or that the device is gone.
    pub fn wait(self) -> Result<Prediction> {
        self.0.recv().unwrap_or_else(|_| Err(Error::new("the thread of the device ended before it answered")))
    }
}

/// A device and the thread that owns it.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::device::DeviceKind;
/// use freetumor::nn::service::{WindowModel, Batching, Service};
///
/// struct Doubling;
/// impl Answer for Doubling {
///     fn answer(&self, windows: &Tensor) -> freetumor::error::Result<Tensor> {
///         Ok((windows * 2.0).unwrap())
///     }
/// }
///
/// let service = Service::new(DeviceKind::Cpu, 4);
/// let network: Arc<dyn WindowModel> = Arc::new(Doubling);
/// let windows = Tensor::ones((1, 1, 2, 2, 2), DType::F32, &Device::Cpu).unwrap();
/// let answer = service.ask(&network, windows, Batching::Freely)?.wait()?.logits;
/// assert_eq!(answer.sum_all().unwrap().to_scalar::<f32>().unwrap(), 16.0);
/// assert_eq!(service.usage().windows, 1);
/// # Ok::<(), freetumor::error::Error>(())
/// ```
pub struct Service {
    place: DeviceKind,
    device: OnceLock<Device>,
    batch: usize,
    jobs: OnceLock<Sender<Submission>>,
    starting: Mutex<()>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("place", &self.place).field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Service {
    /// A service that puts up to `batch` windows into one batch. Its thread starts with the first of them.
    #[must_use]
    pub fn new(place: DeviceKind, batch: usize) -> Arc<Self> {
        Arc::new(Self {
            place,
            device: OnceLock::new(),
            batch: batch.max(1),
            jobs: OnceLock::new(),
            starting: Mutex::new(()),
            counters: Arc::default(),
        })
    }

    /// Where networks run.
    pub fn place(&self) -> DeviceKind {
        self.place
    }

    /// Windows that are put into one batch at most.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The device, for the weights of networks.
    ///
    /// # Errors
    /// As [`DeviceKind::device`].
    pub fn device(&self) -> Result<Device> {
        let _one = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = self.device.get() {
            return Ok(device.clone());
        }
        let device = self.place.device()?;
        Ok(self.device.get_or_init(|| device).clone())
    }

    /// Sends windows to a network; waits only where the queue is full.
    ///
    /// # Shapes
    /// `[n, channel, x, y, z]`, as the network takes them, in the host's memory.
    ///
    /// # Errors
    /// Where there is no device, or its thread cannot start.
    pub fn ask(&self, network: &Arc<dyn WindowModel>, windows: Tensor, joining: Batching) -> Result<PendingPrediction> {
        let (reply, answer) = bounded(1);
        let job = Submission { network: Arc::clone(network), windows, joining, reply };
        self.jobs()?.send(job).map_err(|_| Error::new("the thread of the device ended"))?;
        Ok(PendingPrediction(answer))
    }

    /// Whether the device is gone: every window asked for from now on would fail.
    pub fn is_lost(&self) -> bool {
        self.counters.is_lost()
    }

    /// What the device did so far.
    pub fn usage(&self) -> Usage {
        self.counters.usage()
    }

    fn jobs(&self) -> Result<&Sender<Submission>> {
        let _one = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jobs) = self.jobs.get() {
            return Ok(jobs);
        }
        let (sender, receiver) = bounded(QUEUE);
        let worker =
            Worker { jobs: receiver, most: AtomicUsize::new(self.batch), counters: Arc::clone(&self.counters) };
        let spawned = std::thread::Builder::new().name("device".into()).spawn(move || worker.serve());
        spawned.map_err(|cause| Error::new(format!("cannot start a thread: {cause}")).with_source(cause))?;
        Ok(self.jobs.get_or_init(|| sender))
    }
}

/// The device's thread. It ends when the last sender is gone.
struct Worker {
    jobs: Receiver<Submission>,
    /// Windows in one batch at most: fewer from the moment on when more did not fit.
    most: AtomicUsize,
    counters: Arc<Counters>,
}

impl Worker {
    fn serve(&self) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Ok(job) = self.jobs.recv() else { return };
                waiting.push_back(job);
            }
            // A device whose every thread computes leaves those no time that would send more: let them come.
            waiting.extend(self.jobs.try_iter());
            let Some(first) = waiting.pop_front() else { continue };
            let most = self.most.load(Ordering::Relaxed);
            let (mut batch, mut rest) = (vec![first], VecDeque::new());
            for job in waiting.drain(..) {
                let windows: usize = batch.iter().map(Submission::count).sum();
                if batch[0].joins(&job) && windows + job.count() <= most {
                    batch.push(job);
                } else {
                    rest.push_back(job);
                }
            }
            waiting = rest;
            self.run(batch);
        }
    }

    fn run(&self, mut batch: Vec<Submission>) {
        let (answers, seconds) = self.counters.batch(|| self.answers(&batch));
        let windows: usize = batch.iter().map(Submission::count).sum();
        match answers {
            Ok(answers) => {
                self.counters.answered(windows);
                for (job, logits) in batch.into_iter().zip(answers) {
                    let device_seconds = seconds * job.count() as f64 / windows.max(1) as f64;
                    // Who asked may have given up.
                    let _ = job.reply.send(Ok(Prediction { logits, device_seconds }));
                }
            }
            Err(error) if batch.len() > 1 => {
                tracing::warn!("a batch of {windows} windows failed, its halves are tried: {error}");
                let half = batch.split_off(batch.len() / 2);
                self.run(batch);
                self.run(half);
                // Both halves went through: it was too much at once.
                self.most.fetch_min((windows / 2).max(1), Ordering::Relaxed);
            }
            Err(error) => {
                if let Some(job) = batch.pop() {
                    if job.network.is_lost() {
                        self.counters.lose();
                    }
                    let _ = job.reply.send(Err(error));
                }
            }
        }
    }

    /// The answer to each job of a batch.
    fn answers(&self, batch: &[Submission]) -> Result<Vec<Tensor>> {
        let _span = tracing::info_span!("network", windows = batch.len()).entered();
        let arranging = failed("cannot arrange a batch");
        let windows: Vec<&Tensor> = batch.iter().map(|job| &job.windows).collect();
        let joined = match windows[..] {
            [only] => only.clone(),
            _ => Tensor::cat(&windows, 0).map_err(&arranging)?,
        };
        let network = &batch[0].network;
        let answer = catch_panic(|| network.answer(&joined))
            .unwrap_or_else(|words| Err(Error::new(format!("the network panicked: {words}"))))?;
        let answer = answer.to_device(&Device::Cpu).map_err(&arranging)?;
        let count: usize = batch.iter().map(Submission::count).sum();
        if answer.dims().first() != Some(&count) {
            return Err(Error::new(format!("the network gave {:?} for {count} windows", answer.dims())));
        }
        let mut from = 0;
        let part = |job: &Submission| {
            from += job.count();
            answer.narrow(0, from - job.count(), job.count())?.contiguous()
        };
        batch.iter().map(part).collect::<candle_core::Result<_>>().map_err(arranging)
    }
}

impl Submission {
    fn count(&self) -> usize {
        self.windows.dims().first().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    /// Gives the mean of each window, and fails above a size, as a device without memory does.
    struct Means {
        most: usize,
        seen: Mutex<Vec<usize>>,
    }

    impl WindowModel for Means {
        fn answer(&self, windows: &Tensor) -> Result<Tensor> {
            let count = windows.dims()[0];
            self.seen.lock().unwrap().push(count);
            if count > self.most {
                return Err(Error::new("out of memory"));
            }
            let mean = windows.mean_keepdim((1, 2, 3, 4)).and_then(|mean| mean.broadcast_as(windows.shape()));
            let mean = mean.and_then(|mean| mean.contiguous()).map_err(failed("no mean"))?;
            let first: f32 = mean.flatten_all().unwrap().get(0).unwrap().to_scalar().unwrap();
            if first.is_nan() { Err(Error::new("not a number")) } else { Ok(mean) }
        }
    }

    fn window(value: f32) -> Tensor {
        Tensor::full(value, (1, 1, 2, 2, 2), &Device::Cpu).unwrap()
    }

    fn value(answer: &Prediction) -> f32 {
        answer.logits.to_dtype(DType::F32).unwrap().flatten_all().unwrap().get(0).unwrap().to_scalar().unwrap()
    }

    /// Holds the device's thread until dropped.
    struct Gate(Mutex<Option<Receiver<()>>>);

    impl WindowModel for Gate {
        fn answer(&self, windows: &Tensor) -> Result<Tensor> {
            if let Some(gate) = self.0.lock().unwrap().take() {
                let _ = gate.recv();
            }
            Ok(windows.clone())
        }
    }

    /// Asks for all values while the device is held, so that they wait together.
    fn asked(
        service: &Service,
        network: &Arc<dyn WindowModel>,
        values: &[f32],
        joining: Batching,
    ) -> Vec<Result<Prediction>> {
        let (open, gate) = bounded::<()>(0);
        let held: Arc<dyn WindowModel> = Arc::new(Gate(Mutex::new(Some(gate))));
        let holding = service.ask(&held, window(0.0), Batching::Never).unwrap();
        let waiting: Vec<_> = values.iter().map(|&it| service.ask(network, window(it), joining).unwrap()).collect();
        drop(open);
        holding.wait().unwrap();
        waiting.into_iter().map(PendingPrediction::wait).collect()
    }

    #[test]
    fn windows_share_batches_and_keep_their_answers() {
        let means = Arc::new(Means { most: 8, seen: Mutex::default() });
        let network: Arc<dyn WindowModel> = means.clone();
        let service = Service::new(DeviceKind::Cpu, 3);
        let values: Vec<f32> = (0..7).map(|it| it as f32).collect();
        for (answer, expected) in asked(&service, &network, &values, Batching::Freely).iter().zip(&values) {
            assert_eq!(value(answer.as_ref().unwrap()), *expected);
        }
        assert_eq!(*means.seen.lock().unwrap(), [3, 3, 1]);
        assert!(asked(&service, &network, &values, Batching::Never).iter().all(Result::is_ok));
        assert_eq!(means.seen.lock().unwrap()[3..], [1; 7]);
        assert_eq!(service.usage().windows, 16);
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_and_stays_so() {
        let means = Arc::new(Means { most: 2, seen: Mutex::default() });
        let network: Arc<dyn WindowModel> = means.clone();
        let service = Service::new(DeviceKind::Cpu, 4);
        let answers = asked(&service, &network, &[1.0; 8], Batching::Freely);
        assert!(answers.iter().all(|answer| value(answer.as_ref().unwrap()) == 1.0));
        assert_eq!(*means.seen.lock().unwrap(), [4, 2, 2, 2, 2]);
    }

    #[test]
    fn one_window_without_numbers_spoils_no_other() {
        let means = Arc::new(Means { most: 1, seen: Mutex::default() });
        let network: Arc<dyn WindowModel> = means;
        let service = Service::new(DeviceKind::Cpu, 4);
        let answers = asked(&service, &network, &[1.0, f32::NAN, 3.0], Batching::Freely);
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn a_device_that_vanishes_is_told_from_a_window_that_fails() {
        struct Fails(bool);
        impl WindowModel for Fails {
            fn answer(&self, _: &Tensor) -> Result<Tensor> {
                Err(Error::new("no answer"))
            }
            fn is_lost(&self) -> bool {
                self.0
            }
        }
        let service = Service::new(DeviceKind::Cpu, 1);
        for lost in [false, true] {
            let network: Arc<dyn WindowModel> = Arc::new(Fails(lost));
            assert!(service.ask(&network, window(1.0), Batching::Freely).unwrap().wait().is_err());
            assert_eq!(service.is_lost(), lost);
        }
    }

    #[test]
    fn a_panic_is_an_answer_and_the_thread_lives_on() {
        struct Panics;
        impl WindowModel for Panics {
            fn answer(&self, _: &Tensor) -> Result<Tensor> {
                panic!("seven")
            }
        }
        let service = Service::new(DeviceKind::Cpu, 1);
        let panics: Arc<dyn WindowModel> = Arc::new(Panics);
        assert!(service.ask(&panics, window(1.0), Batching::Freely).unwrap().wait().is_err());
        let means: Arc<dyn WindowModel> = Arc::new(Means { most: 1, seen: Mutex::default() });
        assert!(service.ask(&means, window(1.0), Batching::Freely).unwrap().wait().is_ok());
    }
}
