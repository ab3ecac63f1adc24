//! Losses with their gradients over the logits, and the found fractions and Dice that are reported with the losses.
//!
//! Every loss function returns the value and the gradient over the logits, summed in double precision in a fixed order.
//! Therefore results do not depend on threads, the loss stores no tensors for a backward pass, and only the logits are copied
//! from the device. [`attach_gradient`] puts the gradient into candle's graph.
//!
//! ```
//! use freetumor::train::losses::{ClassSet, Logits, linear_loss};
//!
//! // One sample of two voxels and two classes; voxel 0 is in a synthetic tumor (3), which is class 1 of the segmentor.
//! let logits = Logits::new(&[0.0, 0.0, 3.0, -3.0], 1, 2);
//! let loss = linear_loss(&logits, &[3, 0], 3, &[ClassSet::of([1])]);
//! assert!((loss.value - (1.0 - 0.9526)).abs() < 1e-4);
//! assert!(loss.gradient[2] < 0.0 && loss.gradient[3] == 0.0);
//! ```

mod overlap;
mod regions;

use candle_core::{DType, Device, Tensor};

pub use overlap::{dice_by_class, dice_ce};
pub use regions::{ClassSet, discriminator_loss, found_fraction, linear_loss, log_loss};

use crate::error::Result;
use crate::nn::failed;
use crate::simd::Class;

/// A loss and its gradient over the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The loss.
    pub value: f64,
    /// The gradient, in the order of the logits.
    pub gradient: Vec<f32>,
}

impl Loss {
    /// Returns `scale` times this loss plus `other`.
    ///
    /// # Panics
    /// Panics if the losses have different numbers of logits.
    #[must_use]
    pub fn scaled_and(mut self, scale: f64, other: &Self) -> Self {
        assert_eq!(self.gradient.len(), other.gradient.len(), "losses of the same logits are added");
        let factor = scale as f32;
        self.gradient.iter_mut().zip(&other.gradient).for_each(|(own, other)| *own = *own * factor + other);
        Self { value: self.value * scale + other.value, gradient: self.gradient }
    }

    /// Returns `scale` times this loss.
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
    /// Creates logits of `batch` samples and `classes` classes.
    ///
    /// # Panics
    /// Panics if the number of values is not a multiple of `batch * classes`.
    pub fn new(values: &'a [f32], batch: usize, classes: usize) -> Self {
        assert!(
            batch * classes > 0 && values.len().is_multiple_of(batch * classes),
            "the number of logits is a multiple of batch and classes"
        );
        Self { values, batch, classes, voxels: values.len() / (batch * classes) }
    }

    /// Returns the number of voxels of a sample.
    pub fn voxels(&self) -> usize {
        self.voxels
    }

    fn sample(&self, index: usize) -> &'a [f32] {
        let length = self.classes * self.voxels;
        &self.values[index * length..(index + 1) * length]
    }

    /// Writes the softmax over the classes of one sample to `into`.
    fn probabilities(&self, index: usize, into: &mut [f32]) {
        let n = self.voxels;
        into.copy_from_slice(self.sample(index));
        let mut max = into[..n].to_vec();
        for class in into[n..].chunks_exact(n) {
            max.iter_mut().zip(class).for_each(|(max, value)| *max = max.max(*value));
        }
        let (mut sums, kernels) = (vec![0f32; n], Class::current());
        for class in into.chunks_exact_mut(n) {
            for ((value, max), sum) in class.iter_mut().zip(&max).zip(&mut sums) {
                *value = kernels.exp(*value - max);
                *sum += *value;
            }
        }
        for class in into.chunks_exact_mut(n) {
            class.iter_mut().zip(&sums).for_each(|(value, sum)| *value /= sum);
        }
    }

    /// Returns the most likely class of each voxel of one sample; the first of equally likely ones.
    pub fn argmax(&self, index: usize) -> Vec<u8> {
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

/// Copies logits from their device, in the order of `[batch, class, x, y, z]`.
///
/// # Errors
/// Returns an error if the copy fails.
pub fn to_host(logits: &Tensor) -> Result<Vec<f32>> {
    let values = logits.detach().to_device(&Device::Cpu).and_then(|logits| logits.flatten_all()?.to_vec1());
    values.map_err(failed("cannot copy the logits from the device"))
}

/// Returns a scalar tensor whose gradient over `logits` is `gradient`, as the start of a backward pass.
///
/// # Errors
/// Returns an error if the gradient and the logits have different sizes.
pub fn attach_gradient(logits: &Tensor, gradient: Vec<f32>) -> Result<Tensor> {
    let scalar = || {
        let gradient = Tensor::from_vec(gradient, logits.shape(), &Device::Cpu)?;
        (logits * gradient.to_device(logits.device())?.to_dtype(DType::F32)?)?.sum_all()
    };
    scalar().map_err(failed("cannot attach a gradient to logits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::IGNORE_LABEL;
    use crate::random::Key;

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Key::root(seed).stream("logits");
        (0..count).map(|_| random.uniform(-2.0, 2.0) as f32).collect()
    }

    /// Compares gradients with finite differences of the loss.
    fn check(values: &[f32], loss: impl Fn(&[f32]) -> Loss) {
        let gradient = loss(values).gradient;
        for at in (0..values.len()).step_by(7) {
            let shifted = |by: f32| {
                let mut values = values.to_vec();
                values[at] += by;
                loss(&values).value
            };
            let slope = (shifted(0.01) - shifted(-0.01)) / 0.02;
            assert!((slope - f64::from(gradient[at])).abs() < 2e-4, "{at}: {slope} {}", gradient[at]);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let values = random(2 * 4 * 30, 1);
        let labels: Vec<u8> = random(60, 2).iter().map(|value| (value + 2.0) as u8).collect();
        let sets = [ClassSet::of([2]), ClassSet::of([1, 3])];
        check(&values, |values| linear_loss(&Logits::new(values, 2, 4), &labels, 3, &sets));
        check(&values, |values| log_loss(&Logits::new(values, 2, 4), &labels, 3, &sets));
        check(&values, |values| dice_ce(&Logits::new(values, 2, 4), &labels).unwrap());
        let values = random(2 * 3 * 30, 3);
        check(&values, |values| discriminator_loss(&Logits::new(values, 2, 3), &labels));
    }

    #[test]
    fn ignored_voxels_have_no_part_in_dice_and_cross_entropy() {
        const IGNORED: [usize; 4] = [2, 3, 11, 29];
        let values = random(4 * 30, 5);
        let mut labels: Vec<u8> = random(30, 6).iter().map(|value| (value + 2.0) as u8).collect();
        let is_kept = |voxel: &usize| !IGNORED.contains(voxel);
        let kept_values: Vec<f32> = (0..4)
            .flat_map(|class| (0..30).filter(is_kept).map(move |voxel| 30 * class + voxel))
            .map(|at| values[at])
            .collect();
        let kept_labels: Vec<u8> = (0..30).filter(is_kept).map(|voxel| labels[voxel]).collect();
        let expected = dice_ce(&Logits::new(&kept_values, 1, 4), &kept_labels).unwrap();
        IGNORED.iter().for_each(|voxel| labels[*voxel] = IGNORE_LABEL);
        let loss = dice_ce(&Logits::new(&values, 1, 4), &labels).unwrap();
        assert!((loss.value - expected.value).abs() < 1e-9, "{} {}", loss.value, expected.value);
        let mut expected_gradient = expected.gradient.iter();
        for (at, gradient) in loss.gradient.iter().enumerate() {
            let expected = if is_kept(&(at % 30)) { *expected_gradient.next().unwrap() } else { 0.0 };
            assert!((gradient - expected).abs() < 1e-7, "{at}: {gradient} {expected}");
        }
        check(&values, |values| dice_ce(&Logits::new(values, 1, 4), &labels).unwrap());
        let all = dice_ce(&Logits::new(&values, 1, 4), &[IGNORE_LABEL; 30]).unwrap();
        assert_eq!(all.gradient, vec![0.0; 120]);
        assert_eq!(dice_by_class(&[1, IGNORE_LABEL, 0], &[1, 1, 0], 2), [Some(1.0), Some(1.0)]);
    }

    #[test]
    fn losses_without_voxels_have_zero_gradients() {
        let values = random(3 * 8, 4);
        let loss = linear_loss(&Logits::new(&values, 1, 3), &[0; 8], 3, &[ClassSet::of([1])]);
        assert_eq!((loss.value, loss.gradient), (1.0, vec![0.0; 24]));
        let loss = log_loss(&Logits::new(&values, 1, 3), &[0; 8], 3, &[ClassSet::of([1])]);
        assert_eq!((loss.value.abs(), loss.gradient), (0.0, vec![0.0; 24]));
        assert_eq!(found_fraction(&Logits::new(&values, 1, 3), &[0; 8], 3, &[ClassSet::of([1])]), [None]);
    }

    #[test]
    fn log_loss_is_finite_for_probability_zero() {
        let loss = log_loss(&Logits::new(&[0.0, 500.0], 1, 2), &[3], 3, &[ClassSet::of([0])]);
        assert!(
            loss.value > 80.0 && loss.value.is_finite() && loss.gradient.iter().all(|gradient| gradient.is_finite()),
            "{loss:?}"
        );
    }

    #[test]
    fn dice_ce_names_label_without_class() {
        let error = dice_ce(&Logits::new(&[0.0; 6], 1, 3), &[0, 3]).unwrap_err();
        assert_eq!(error.to_string(), "expected labels 0 to 2, got 3");
    }
}
