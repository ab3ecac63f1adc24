//! Losses as numbers and gradients of logits, and the shares and overlaps that are reported beside them.
//!
//! Every loss gives its value and its gradient over the logits in one go, summed in double precision in a fixed order:
//! so results do not depend on threads, nothing of the loss is kept for a backward pass, and a device need only hand
//! over its logits. [`pull`] puts the gradient into candle's graph.
//!
//! ```
//! use freetumor::train::losses::{ClassSet, Logits, missed};
//!
//! // One sample of two voxels and two classes; voxel 0 holds a synthetic tumor (3), which a segmentor calls class 1.
//! let logits = Logits::new(&[0.0, 0.0, 3.0, -3.0], 1, 2);
//! let loss = missed(&logits, &[3, 0], 3, &[ClassSet::of([1])]);
//! assert!((loss.value - (1.0 - 0.9526)).abs() < 1e-4);
//! assert!(loss.gradient[2] < 0.0 && loss.gradient[3] == 0.0);
//! ```

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::nn::failed;

/// What keeps a mean over no voxels finite, as published.
const FEW: f64 = 1e-6;
/// What keeps a Dice of nothing finite: MONAI's `smooth_nr` and `smooth_dr`.
const SMOOTH: f64 = 1e-5;

/// A loss and how it changes with each logit.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The loss.
    pub value: f64,
    /// Its gradient, in the order of the logits.
    pub gradient: Vec<f32>,
}

impl Loss {
    /// `scale` times this loss plus `other`.
    ///
    /// # Panics
    /// Where the two are of different logits.
    #[must_use]
    pub fn scaled_and(mut self, scale: f64, other: &Self) -> Self {
        assert_eq!(self.gradient.len(), other.gradient.len(), "losses of the same logits are added");
        let factor = scale as f32;
        self.gradient.iter_mut().zip(&other.gradient).for_each(|(own, more)| *own = *own * factor + more);
        Self { value: self.value * scale + other.value, gradient: self.gradient }
    }

    /// `scale` times this loss.
    #[must_use]
    pub fn scaled(mut self, scale: f64) -> Self {
        let factor = scale as f32;
        self.gradient.iter_mut().for_each(|own| *own *= factor);
        Self { value: self.value * scale, gradient: self.gradient }
    }
}

/// Logits of a batch.
///
/// # Shapes
/// `[batch, class, voxel…]`, the last fastest.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    batch: usize,
    classes: usize,
    voxels: usize,
}

impl<'a> Logits<'a> {
    /// Logits of `batch` samples and `classes` classes.
    ///
    /// # Panics
    /// Where the values do not divide into these.
    pub fn new(values: &'a [f32], batch: usize, classes: usize) -> Self {
        assert!(batch * classes > 0 && values.len().is_multiple_of(batch * classes), "logits fill their batch");
        Self { values, batch, classes, voxels: values.len() / (batch * classes) }
    }

    /// Voxels of a sample.
    pub fn voxels(&self) -> usize {
        self.voxels
    }

    fn sample(&self, index: usize) -> &'a [f32] {
        let length = self.classes * self.voxels;
        &self.values[index * length..(index + 1) * length]
    }

    /// Softmax over the classes of one sample, into `into`.
    fn probabilities(&self, index: usize, into: &mut [f32]) {
        let n = self.voxels;
        into.copy_from_slice(self.sample(index));
        let mut most = into[..n].to_vec();
        for class in into[n..].chunks_exact(n) {
            most.iter_mut().zip(class).for_each(|(most, value)| *most = most.max(*value));
        }
        let mut sums = vec![0f32; n];
        for class in into.chunks_exact_mut(n) {
            for ((value, most), sum) in class.iter_mut().zip(&most).zip(&mut sums) {
                *value = (*value - most).exp();
                *sum += *value;
            }
        }
        for class in into.chunks_exact_mut(n) {
            class.iter_mut().zip(&sums).for_each(|(value, sum)| *value /= sum);
        }
    }

    /// The likeliest class of each voxel of one sample; of equal ones the first.
    pub fn likeliest(&self, index: usize) -> Vec<u8> {
        let n = self.voxels;
        let sample = self.sample(index);
        let (mut best, mut ids) = (sample[..n].to_vec(), vec![0u8; n]);
        for (class, values) in sample.chunks_exact(n).enumerate().skip(1) {
            for ((best, id), value) in best.iter_mut().zip(&mut ids).zip(values) {
                if value > best {
                    (*best, *id) = (*value, class as u8);
                }
            }
        }
        ids
    }
}

/// Some of the classes of a network, of which there are at most 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassSet(u64);

impl ClassSet {
    /// These classes.
    ///
    /// # Panics
    /// Where one is above 63.
    pub fn of(classes: impl IntoIterator<Item = u8>) -> Self {
        Self(classes.into_iter().fold(0, |set, class| {
            assert!(class < 64, "a set holds classes 0 to 63, got {class}");
            set | 1 << class
        }))
    }

    /// Whether a class is one of them.
    pub fn has(self, class: usize) -> bool {
        class < 64 && self.0 >> class & 1 == 1
    }
}

/// How far the voxels of label `of` are from being taken for one of `classes`: `1 − p`, where p is the probability of
/// any of a sample's classes, averaged over those voxels of the whole batch.
///
/// With a discriminator's logits, label "synthetic" and class "real" this is the generator's adversarial loss; with a
/// segmentor's and the organ's tumor class its other one. A batch without such voxels has loss 1 and no gradient.
///
/// # Shapes
/// `labels` `[batch, voxel…]` beside the logits; `classes` one set a sample.
///
/// # Source
/// FreeTumor's losses (the paper takes any tumor class: `ClassSet::of([2, 4, 6])`).
///
/// # Panics
/// Where labels or sets do not fit the logits.
pub fn missed(logits: &Logits<'_>, labels: &[u8], of: u8, classes: &[ClassSet]) -> Loss {
    let n = logits.voxels;
    assert_eq!(labels.len(), logits.batch * n, "one label a voxel");
    assert_eq!(classes.len(), logits.batch, "one set of classes a sample");
    let count = labels.iter().filter(|label| **label == of).count() as f64;
    let weight = 1.0 / (count + FEW);
    let mut gradient = vec![0f32; logits.values.len()];
    let samples = gradient.par_chunks_exact_mut(logits.classes * n).zip(labels.par_chunks_exact(n)).enumerate();
    let sums: Vec<f64> = samples
        .map(|(index, (gradient, labels))| {
            if !labels.contains(&of) {
                return 0.0;
            }
            logits.probabilities(index, gradient);
            let set = classes[index];
            let mut wanted = vec![0f32; n];
            for (_, class) in gradient.chunks_exact(n).enumerate().filter(|(class, _)| set.has(*class)) {
                wanted.iter_mut().zip(class).for_each(|(wanted, p)| *wanted += p);
            }
            for (class, values) in gradient.chunks_exact_mut(n).enumerate() {
                let own = f32::from(u8::from(set.has(class)));
                for ((value, wanted), label) in values.iter_mut().zip(&wanted).zip(labels) {
                    let slope = if *label == of { *value * (own - wanted) } else { 0.0 };
                    *value = -(weight as f32) * slope;
                }
            }
            wanted.iter().zip(labels).filter(|(_, label)| **label == of).map(|(p, _)| f64::from(*p)).sum()
        })
        .collect();
    Loss { value: 1.0 - sums.iter().sum::<f64>() * weight, gradient }
}

/// The discriminator's loss: half of how far real tumors are from being taken for real ones (class 1), half of how far
/// synthetic ones are from being taken for synthetic (class 2).
///
/// # Shapes
/// Logits of three classes; `labels` `[batch, voxel…]` with 2 for a real and 3 for a synthetic tumor.
///
/// # Panics
/// Where the labels do not fit the logits.
pub fn discriminator(logits: &Logits<'_>, labels: &[u8]) -> Loss {
    let sets = |class| vec![ClassSet::of([class]); logits.batch];
    let real = missed(logits, labels, super::REAL, &sets(1));
    missed(logits, labels, super::SYNTHETIC, &sets(2)).scaled_and(1.0, &real).scaled(0.5)
}

/// Soft Dice over all classes but the background, averaged over samples and classes, plus cross-entropy over all.
///
/// # Shapes
/// `target` `[batch, voxel…]`, the class of each voxel.
///
/// # Errors
/// Where a target is no class of the network, or the network has one class only.
///
/// # Source
/// MONAI 1.6, `DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)`.
///
/// # Panics
/// Where the target does not fit the logits.
pub fn dice_ce(logits: &Logits<'_>, target: &[u8]) -> Result<Loss> {
    let (n, classes) = (logits.voxels, logits.classes);
    assert_eq!(target.len(), logits.batch * n, "one class a voxel");
    if classes < 2 {
        return Err(Error::new(format!("expected a network of two or more classes to segment with, got {classes}")));
    }
    if let Some(label) = target.iter().find(|label| usize::from(**label) >= classes) {
        return Err(Error::new(format!("expected labels 0 to {}, got {label}", classes - 1))
            .with_hint("the network needs a class for each organ and each tumor"));
    }
    let mut gradient = vec![0f32; logits.values.len()];
    let shares = [1.0 / (logits.batch * (classes - 1)) as f64, 1.0 / (logits.batch * n) as f64];
    let samples = gradient.par_chunks_exact_mut(classes * n).zip(target.par_chunks_exact(n)).enumerate();
    let losses: Vec<f64> = samples
        .map(|(index, (gradient, target))| {
            logits.probabilities(index, gradient);
            let entropy = cross_entropy(logits.sample(index), target, n);
            let (dice, slopes) = dice_of_sample(gradient, target, n);
            sample_gradient(gradient, target, n, &slopes, shares);
            dice * shares[0] + entropy * shares[1]
        })
        .collect();
    Ok(Loss { value: losses.iter().sum(), gradient })
}

/// The sum over voxels of `−log p(target)`.
fn cross_entropy(logits: &[f32], target: &[u8], n: usize) -> f64 {
    let mut most = logits[..n].to_vec();
    for class in logits[n..].chunks_exact(n) {
        most.iter_mut().zip(class).for_each(|(most, value)| *most = most.max(*value));
    }
    let mut sums = vec![0f32; n];
    for class in logits.chunks_exact(n) {
        sums.iter_mut().zip(class.iter().zip(&most)).for_each(|(sum, (value, most))| *sum += (value - most).exp());
    }
    let own = target.iter().enumerate().map(|(voxel, class)| logits[usize::from(*class) * n + voxel]);
    own.zip(most.iter().zip(&sums)).map(|(own, (most, sum))| f64::from(sum.ln() + most - own)).sum()
}

/// The sum of `1 − Dice` over the classes of one sample, and for each class how it changes with a probability: where
/// the target is that class, and where it is not.
fn dice_of_sample(probabilities: &[f32], target: &[u8], n: usize) -> (f64, Vec<[f64; 2]>) {
    let mut loss = 0.0;
    let mut slopes = vec![[0.0; 2]];
    for (class, p) in probabilities.chunks_exact(n).enumerate().skip(1) {
        let (mut both, mut sum, mut voxels) = (0f64, 0f64, 0f64);
        for (p, target) in p.iter().zip(target) {
            sum += f64::from(*p);
            if usize::from(*target) == class {
                both += f64::from(*p);
                voxels += 1.0;
            }
        }
        let (above, below) = (2.0 * both + SMOOTH, voxels + sum + SMOOTH);
        loss += 1.0 - above / below;
        let apart = above / (below * below);
        slopes.push([apart - 2.0 / below, apart]);
    }
    (loss, slopes)
}

/// From probabilities to the gradient of Dice plus cross-entropy, in place.
fn sample_gradient(values: &mut [f32], target: &[u8], n: usize, slopes: &[[f64; 2]], shares: [f64; 2]) {
    let slope = |class: usize, target: u8| slopes[class][usize::from(usize::from(target) != class)] * shares[0];
    let mut along = vec![0f32; n];
    for (class, p) in values.chunks_exact(n).enumerate().skip(1) {
        for ((along, p), target) in along.iter_mut().zip(p).zip(target) {
            *along += slope(class, *target) as f32 * p;
        }
    }
    let entropy = shares[1] as f32;
    for (class, p) in values.chunks_exact_mut(n).enumerate() {
        for ((p, along), target) in p.iter_mut().zip(&along).zip(target) {
            let is_target = f32::from(u8::from(usize::from(*target) == class));
            let dice = if class == 0 { 0.0 } else { slope(class, *target) as f32 };
            *p = *p * (dice - along) + entropy * (*p - is_target);
        }
    }
}

/// For each sample the share of its voxels of label `of` whose likeliest class is one of `classes`; `None` where it has
/// no such voxel.
///
/// # Shapes
/// As for [`missed`].
///
/// # Panics
/// Where labels or sets do not fit the logits.
pub fn found_fraction(logits: &Logits<'_>, labels: &[u8], of: u8, classes: &[ClassSet]) -> Vec<Option<f64>> {
    assert_eq!(labels.len(), logits.batch * logits.voxels, "one label a voxel");
    assert_eq!(classes.len(), logits.batch, "one set of classes a sample");
    let samples = labels.par_chunks_exact(logits.voxels).enumerate();
    samples
        .map(|(index, labels)| {
            let likeliest = logits.likeliest(index);
            let all = labels.iter().filter(|label| **label == of).count();
            let is_found = |(label, class): &(&u8, &u8)| **label == of && classes[index].has(usize::from(**class));
            let found = labels.iter().zip(&likeliest).filter(is_found).count();
            (all > 0).then(|| found as f64 / all as f64)
        })
        .collect()
}

/// Dice of each class from 0 on; `None` for a class that neither has.
///
/// ```
/// use freetumor::train::losses::dice_by_class;
/// let dice = dice_by_class(&[0, 1, 1, 0], &[0, 1, 0, 0], 3);
/// assert_eq!(dice, [Some(0.8), Some(2.0 / 3.0), None]);
/// ```
///
/// # Panics
/// Where the two have different lengths or a class is not below `classes`.
pub fn dice_by_class(truth: &[u8], predicted: &[u8], classes: usize) -> Vec<Option<f64>> {
    assert_eq!(truth.len(), predicted.len(), "truth and prediction of the same voxels");
    let mut counts = vec![[0u64; 2]; classes];
    for (truth, predicted) in truth.iter().zip(predicted) {
        counts[usize::from(*truth)][1] += 1;
        counts[usize::from(*predicted)][1] += 1;
        counts[usize::from(*truth)][0] += 2 * u64::from(truth == predicted);
    }
    counts.iter().map(|[both, all]| (*all > 0).then(|| *both as f64 / *all as f64)).collect()
}

/// The values of logits, wherever they are, in the order of `[batch, class, x, y, z]`.
///
/// # Errors
/// Where the device does not hand them over.
pub fn host(logits: &Tensor) -> Result<Vec<f32>> {
    let values = logits.detach().to_device(&Device::Cpu).and_then(|logits| logits.flatten_all()?.to_vec1());
    values.map_err(failed("cannot read logits"))
}

/// A scalar whose gradient over `logits` is `gradient`: what a backward pass is started from.
///
/// # Errors
/// Where the gradient does not fit the logits.
pub fn pull(logits: &Tensor, gradient: Vec<f32>) -> Result<Tensor> {
    let scalar = || {
        let gradient = Tensor::from_vec(gradient, logits.shape(), &Device::Cpu)?;
        (logits * gradient.to_device(logits.device())?.to_dtype(DType::F32)?)?.sum_all()
    };
    scalar().map_err(failed("cannot pull at logits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut draws = Key::root(seed).draws("logits");
        (0..count).map(|_| draws.uniform(-2.0, 2.0) as f32).collect()
    }

    /// Every gradient against a difference of two losses.
    fn check(values: &[f32], loss: impl Fn(&[f32]) -> Loss) {
        let gradient = loss(values).gradient;
        for at in (0..values.len()).step_by(7) {
            let moved = |by: f32| {
                let mut values = values.to_vec();
                values[at] += by;
                loss(&values).value
            };
            let slope = (moved(0.01) - moved(-0.01)) / 0.02;
            assert!((slope - f64::from(gradient[at])).abs() < 2e-4, "{at}: {slope} {}", gradient[at]);
        }
    }

    #[test]
    fn gradients_are_slopes() {
        let values = random(2 * 4 * 30, 1);
        let labels: Vec<u8> = random(60, 2).iter().map(|value| (value + 2.0) as u8).collect();
        let sets = [ClassSet::of([2]), ClassSet::of([1, 3])];
        check(&values, |values| missed(&Logits::new(values, 2, 4), &labels, 3, &sets));
        check(&values, |values| dice_ce(&Logits::new(values, 2, 4), &labels).unwrap());
        let values = random(2 * 3 * 30, 3);
        check(&values, |values| discriminator(&Logits::new(values, 2, 3), &labels));
    }

    #[test]
    fn no_voxels_pull_at_nothing() {
        let values = random(3 * 8, 4);
        let loss = missed(&Logits::new(&values, 1, 3), &[0; 8], 3, &[ClassSet::of([1])]);
        assert_eq!((loss.value, loss.gradient), (1.0, vec![0.0; 24]));
        assert_eq!(found_fraction(&Logits::new(&values, 1, 3), &[0; 8], 3, &[ClassSet::of([1])]), [None]);
    }

    #[test]
    fn a_label_without_a_class_is_named() {
        let error = dice_ce(&Logits::new(&[0.0; 6], 1, 3), &[0, 3]).unwrap_err();
        assert_eq!(error.to_string(), "expected labels 0 to 2, got 3");
    }
}
