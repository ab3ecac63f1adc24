//! A thread that owns a device, and the queue of windows for that device.
//!
//! All inference submits its windows here and waits for the predictions: the device is never used by two threads at once, the queue is
//! bounded, and waiting windows of one shape for one network are combined into a batch. The prediction for a window does not depend on
//! the other windows of its batch; windows for networks with batch norm are submitted with [`Batching::Never`].
//!
//! A batch that fails is halved and retried, down to single windows: a device that has no memory for four windows may have enough for one,
//! and one of four windows may contain NaN.

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

/// The maximum number of submissions that wait for the device; a later submission blocks until the queue has room.
const QUEUE: usize = 64;

/// A network that predicts windows.
pub trait WindowModel: Send + Sync {
    /// Predicts a batch of windows.
    ///
    /// # Shapes
    /// `[n, channel, x, y, z]` to `[n, class, x, y, z]`.
    ///
    /// # Errors
    /// If the network fails.
    fn predict(&self, windows: &Tensor) -> Result<Tensor>;

    /// Returns whether the network's device is lost, so that every later window would fail, too.
    fn is_lost(&self) -> bool {
        false
    }
}

impl WindowModel for Predictor {
    fn predict(&self, windows: &Tensor) -> Result<Tensor> {
        self.forward(windows)
    }

    fn is_lost(&self) -> bool {
        self.device_is_lost()
    }
}

/// Whether windows may share a batch with windows of other submissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// Windows may share a batch: the network computes each window independently.
    Allowed,
    /// Windows may not share a batch: the network mixes the windows of a batch.
    Never,
}

struct Submission {
    network: Arc<dyn WindowModel>,
    windows: Tensor,
    batching: Batching,
    reply: Sender<Result<Prediction>>,
}

impl Submission {
    fn can_share_batch(&self, other: &Self) -> bool {
        self.batching == Batching::Allowed
            && other.batching == Batching::Allowed
            && Arc::ptr_eq(&self.network, &other.network)
            && self.windows.dims() == other.windows.dims()
    }
}

/// The prediction for the windows of one submission.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The logits, `[n, class, x, y, z]`, in the host's memory.
    pub logits: Tensor,
    /// Seconds of the device: the submission's fraction of the batch's seconds.
    pub device_seconds: f64,
}

/// A prediction that the device has yet to compute.
pub struct PendingPrediction(Receiver<Result<Prediction>>);

impl PendingPrediction {
    /// Waits for the prediction.
    ///
    /// # Errors
    /// The error of the network, or an error if the thread of the device has ended.
    pub fn wait(self) -> Result<Prediction> {
        self.0
            .recv()
            .unwrap_or_else(|_| Err(Error::new("the thread of the device ended before it returned a prediction")))
    }
}

/// A device and the thread that owns the device.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::device::DeviceKind;
/// use freetumor::nn::service::{WindowModel, Batching, Service};
///
/// struct Doubling;
/// impl WindowModel for Doubling {
///     fn predict(&self, windows: &Tensor) -> freetumor::error::Result<Tensor> {
///         Ok((windows * 2.0).unwrap())
///     }
/// }
///
/// let service = Service::new(DeviceKind::Cpu, 4);
/// let network: Arc<dyn WindowModel> = Arc::new(Doubling);
/// let windows = Tensor::ones((1, 1, 2, 2, 2), DType::F32, &Device::Cpu).unwrap();
/// let logits = service.submit(&network, windows, Batching::Allowed)?.wait()?.logits;
/// assert_eq!(logits.sum_all().unwrap().to_scalar::<f32>().unwrap(), 16.0);
/// assert_eq!(service.usage().windows, 1);
/// # Ok::<(), freetumor::error::Error>(())
/// ```
pub struct Service {
    kind: DeviceKind,
    device: OnceLock<Device>,
    batch: usize,
    queue: OnceLock<Sender<Submission>>,
    starting: Mutex<()>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("kind", &self.kind).field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Service {
    /// Creates a service that computes up to `batch` windows in one batch. Its thread starts with the first submission.
    #[must_use]
    pub fn new(kind: DeviceKind, batch: usize) -> Arc<Self> {
        Arc::new(Self {
            kind,
            device: OnceLock::new(),
            batch: batch.max(1),
            queue: OnceLock::new(),
            starting: Mutex::new(()),
            counters: Arc::default(),
        })
    }

    /// Returns the kind of device on which networks run.
    pub fn device_kind(&self) -> DeviceKind {
        self.kind
    }

    /// Returns the maximum number of windows of one batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Returns the device, for the weights of networks.
    ///
    /// # Errors
    /// The errors of [`DeviceKind::device`].
    pub fn device(&self) -> Result<Device> {
        let _guard = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = self.device.get() {
            return Ok(device.clone());
        }
        let device = self.kind.device()?;
        Ok(self.device.get_or_init(|| device).clone())
    }

    /// Submits windows to a network; waits only if the queue is full.
    ///
    /// # Shapes
    /// `[n, channel, x, y, z]`, as the network expects, in the host's memory.
    ///
    /// # Errors
    /// If there is no device, or its thread cannot start.
    pub fn submit(
        &self,
        network: &Arc<dyn WindowModel>,
        windows: Tensor,
        batching: Batching,
    ) -> Result<PendingPrediction> {
        let (reply, prediction) = bounded(1);
        let submission = Submission { network: Arc::clone(network), windows, batching, reply };
        self.queue()?.send(submission).map_err(|_| Error::new("the thread of the device ended"))?;
        Ok(PendingPrediction(prediction))
    }

    /// Returns whether the device is lost, so that every later submission would fail.
    pub fn is_lost(&self) -> bool {
        self.counters.is_lost()
    }

    /// Returns the work of the device so far.
    pub fn usage(&self) -> Usage {
        self.counters.usage()
    }

    fn queue(&self) -> Result<&Sender<Submission>> {
        let _guard = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = self.queue.get() {
            return Ok(queue);
        }
        let (sender, receiver) = bounded(QUEUE);
        let worker =
            Worker { queue: receiver, max_windows: AtomicUsize::new(self.batch), counters: Arc::clone(&self.counters) };
        let spawned = std::thread::Builder::new().name("device".into()).spawn(move || worker.serve());
        spawned.map_err(|cause| Error::new(format!("cannot start a thread: {cause}")).with_source(cause))?;
        Ok(self.queue.get_or_init(|| sender))
    }
}

/// The device's thread. The thread ends when the last sender is dropped.
struct Worker {
    queue: Receiver<Submission>,
    /// The maximum number of windows of one batch; reduced if a batch failed, because it may not have fitted into memory.
    max_windows: AtomicUsize,
    counters: Arc<Counters>,
}

impl Worker {
    fn serve(&self) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Ok(submission) = self.queue.recv() else { return };
                waiting.push_back(submission);
            }
            // While the device computes, other threads may have queued more submissions: take all of them before choosing a batch.
            waiting.extend(self.queue.try_iter());
            let Some(first) = waiting.pop_front() else { continue };
            let max_windows = self.max_windows.load(Ordering::Relaxed);
            let (mut batch, mut rest) = (vec![first], VecDeque::new());
            for submission in waiting.drain(..) {
                let windows: usize = batch.iter().map(Submission::count).sum();
                if batch[0].can_share_batch(&submission) && windows + submission.count() <= max_windows {
                    batch.push(submission);
                } else {
                    rest.push_back(submission);
                }
            }
            waiting = rest;
            self.run(batch);
        }
    }

    fn run(&self, mut batch: Vec<Submission>) {
        let (predictions, seconds) = self.counters.batch(|| self.predict(&batch));
        let windows: usize = batch.iter().map(Submission::count).sum();
        match predictions {
            Ok(predictions) => {
                self.counters.add_windows(windows);
                for (submission, logits) in batch.into_iter().zip(predictions) {
                    let device_seconds = seconds * submission.count() as f64 / windows.max(1) as f64;
                    // The receiver may have been dropped.
                    let _ = submission.reply.send(Ok(Prediction { logits, device_seconds }));
                }
            }
            Err(error) if batch.len() > 1 => {
                tracing::warn!("a batch of {windows} windows failed, retrying its halves: {error}");
                let half = batch.split_off(batch.len() / 2);
                self.run(batch);
                self.run(half);
                // Later batches are no larger than the halves.
                self.max_windows.fetch_min((windows / 2).max(1), Ordering::Relaxed);
            }
            Err(error) => {
                if let Some(submission) = batch.pop() {
                    if submission.network.is_lost() {
                        self.counters.set_lost();
                    }
                    let _ = submission.reply.send(Err(error));
                }
            }
        }
    }

    /// Computes a batch; returns the logits of each submission.
    fn predict(&self, batch: &[Submission]) -> Result<Vec<Tensor>> {
        let _span = tracing::info_span!("network", windows = batch.len()).entered();
        let windows: Vec<&Tensor> = batch.iter().map(|submission| &submission.windows).collect();
        let input = match windows[..] {
            [only] => only.clone(),
            _ => Tensor::cat(&windows, 0).map_err(failed("cannot concatenate the windows of a batch"))?,
        };
        let network = &batch[0].network;
        let logits = catch_panic(|| network.predict(&input))
            .unwrap_or_else(|message| Err(Error::new(format!("the network panicked: {message}"))))?;
        let logits = logits.to_device(&Device::Cpu).map_err(failed("cannot copy the logits from the device"))?;
        let count: usize = batch.iter().map(Submission::count).sum();
        if logits.dims().first() != Some(&count) {
            return Err(Error::new(format!(
                "expected logits of {count} windows, the network returned {:?}",
                logits.dims()
            )));
        }
        let mut from = 0;
        let part = |submission: &Submission| {
            from += submission.count();
            logits.narrow(0, from - submission.count(), submission.count())?.contiguous()
        };
        let parts = batch.iter().map(part).collect::<candle_core::Result<_>>();
        parts.map_err(failed("cannot split the logits of a batch"))
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

    /// Returns the mean of each window, and fails above a batch size, like a device that is out of memory.
    struct MeanModel {
        max_windows: usize,
        batches: Mutex<Vec<usize>>,
    }

    impl WindowModel for MeanModel {
        fn predict(&self, windows: &Tensor) -> Result<Tensor> {
            let count = windows.dims()[0];
            self.batches.lock().unwrap().push(count);
            if count > self.max_windows {
                return Err(Error::new("out of memory"));
            }
            let mean = windows.mean_keepdim((1, 2, 3, 4)).and_then(|mean| mean.broadcast_as(windows.shape()));
            let mean = mean.and_then(|mean| mean.contiguous()).map_err(failed("cannot average the windows"))?;
            let first: f32 = mean.flatten_all().unwrap().get(0).unwrap().to_scalar().unwrap();
            if first.is_nan() { Err(Error::new("not a number")) } else { Ok(mean) }
        }
    }

    fn window(value: f32) -> Tensor {
        Tensor::full(value, (1, 1, 2, 2, 2), &Device::Cpu).unwrap()
    }

    fn value(prediction: &Prediction) -> f32 {
        prediction.logits.to_dtype(DType::F32).unwrap().flatten_all().unwrap().get(0).unwrap().to_scalar().unwrap()
    }

    /// Blocks the device's thread until the sender is dropped.
    struct BlockingModel(Mutex<Option<Receiver<()>>>);

    impl WindowModel for BlockingModel {
        fn predict(&self, windows: &Tensor) -> Result<Tensor> {
            if let Some(receiver) = self.0.lock().unwrap().take() {
                let _ = receiver.recv();
            }
            Ok(windows.clone())
        }
    }

    /// Submits all values while the device is blocked, so that they wait together.
    fn predict_together(
        service: &Service,
        network: &Arc<dyn WindowModel>,
        values: &[f32],
        batching: Batching,
    ) -> Vec<Result<Prediction>> {
        let (sender, receiver) = bounded::<()>(0);
        let blocking_model: Arc<dyn WindowModel> = Arc::new(BlockingModel(Mutex::new(Some(receiver))));
        let blocked = service.submit(&blocking_model, window(0.0), Batching::Never).unwrap();
        let submit = |&value: &f32| service.submit(network, window(value), batching).unwrap();
        let pending: Vec<_> = values.iter().map(submit).collect();
        drop(sender);
        blocked.wait().unwrap();
        pending.into_iter().map(PendingPrediction::wait).collect()
    }

    #[test]
    fn batched_windows_have_the_predictions_of_single_windows() {
        let means = Arc::new(MeanModel { max_windows: 8, batches: Mutex::default() });
        let network: Arc<dyn WindowModel> = means.clone();
        let service = Service::new(DeviceKind::Cpu, 3);
        let values: Vec<f32> = (0..7u8).map(f32::from).collect();
        let predictions = predict_together(&service, &network, &values, Batching::Allowed);
        for (prediction, expected) in predictions.iter().zip(&values) {
            assert_eq!(value(prediction.as_ref().unwrap()), *expected);
        }
        assert_eq!(*means.batches.lock().unwrap(), [3, 3, 1]);
        assert!(predict_together(&service, &network, &values, Batching::Never).iter().all(Result::is_ok));
        assert_eq!(means.batches.lock().unwrap()[3..], [1; 7]);
        assert_eq!(service.usage().windows, 16);
    }

    #[test]
    fn failed_batch_is_halved_and_later_batches_are_no_larger() {
        let means = Arc::new(MeanModel { max_windows: 2, batches: Mutex::default() });
        let network: Arc<dyn WindowModel> = means.clone();
        let service = Service::new(DeviceKind::Cpu, 4);
        let predictions = predict_together(&service, &network, &[1.0; 8], Batching::Allowed);
        assert!(predictions.iter().all(|prediction| value(prediction.as_ref().unwrap()) == 1.0));
        assert_eq!(*means.batches.lock().unwrap(), [4, 2, 2, 2, 2]);
    }

    #[test]
    fn nan_window_fails_alone_in_its_batch() {
        let means = Arc::new(MeanModel { max_windows: 1, batches: Mutex::default() });
        let network: Arc<dyn WindowModel> = means;
        let service = Service::new(DeviceKind::Cpu, 4);
        let predictions = predict_together(&service, &network, &[1.0, f32::NAN, 3.0], Batching::Allowed);
        assert_eq!(predictions.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn service_distinguishes_lost_device_from_failed_window() {
        struct FailingModel(bool);
        impl WindowModel for FailingModel {
            fn predict(&self, _: &Tensor) -> Result<Tensor> {
                Err(Error::new("no prediction"))
            }
            fn is_lost(&self) -> bool {
                self.0
            }
        }
        let service = Service::new(DeviceKind::Cpu, 1);
        for lost in [false, true] {
            let network: Arc<dyn WindowModel> = Arc::new(FailingModel(lost));
            assert!(service.submit(&network, window(1.0), Batching::Allowed).unwrap().wait().is_err());
            assert_eq!(service.is_lost(), lost);
        }
    }

    #[test]
    fn service_continues_after_network_panics() {
        struct PanickingModel;
        impl WindowModel for PanickingModel {
            fn predict(&self, _: &Tensor) -> Result<Tensor> {
                panic!("seven")
            }
        }
        let service = Service::new(DeviceKind::Cpu, 1);
        let panicking: Arc<dyn WindowModel> = Arc::new(PanickingModel);
        assert!(service.submit(&panicking, window(1.0), Batching::Allowed).unwrap().wait().is_err());
        let means: Arc<dyn WindowModel> = Arc::new(MeanModel { max_windows: 1, batches: Mutex::default() });
        assert!(service.submit(&means, window(1.0), Batching::Allowed).unwrap().wait().is_ok());
    }
}
