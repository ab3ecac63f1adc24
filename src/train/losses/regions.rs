//! Losses and fractions over the voxels of one label, by whether a network predicts certain classes for them.

use rayon::prelude::*;

use super::{Logits, Loss};
use crate::simd::Class;
use crate::train::{REAL, SYNTHETIC};

/// Keeps a mean over no voxels finite, as published.
const EPSILON: f64 = 1e-6;
/// The minimum probability for a logarithm; below it a softmax in single precision is 0.
const MIN_PROBABILITY: f32 = f32::MIN_POSITIVE;

/// A set of classes of a network, from 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassSet(u64);

impl ClassSet {
    /// Creates a set of classes.
    ///
    /// # Panics
    /// Panics if a class is above 63.
    pub fn of(classes: impl IntoIterator<Item = u8>) -> Self {
        Self(classes.into_iter().fold(0, |set, class| {
            assert!(class < 64, "expected classes 0 to 63, got {class}");
            set | 1 << class
        }))
    }

    /// Returns whether the set contains a class.
    pub fn contains(self, class: usize) -> bool {
        class < 64 && self.0 >> class & 1 == 1
    }
}

/// Returns the loss `1 − p`, averaged over the voxels of label `of` of the whole batch, where p is the sum of the probabilities of
/// `classes` of the sample.
///
/// With logits of the discriminator, label "synthetic" and class "real" this is the adversarial loss of the generator; with logits of
/// the segmentor and the tumor class of the organ it is the segmentor loss. A batch without such voxels has loss 1 and zero gradient.
///
/// # Shapes
/// `labels` `[batch, voxel…]`; `classes` one set per sample.
///
/// # Source
/// The losses of FreeTumor (the paper uses all tumor classes: `ClassSet::of([2, 4, 6])`).
///
/// # Panics
/// Panics if the numbers of labels or sets do not match the logits.
pub fn linear_loss(logits: &Logits<'_>, labels: &[u8], of: u8, classes: &[ClassSet]) -> Loss {
    let loss = averaged(logits, labels, of, classes, f64::from, |_| 1.0);
    Loss { value: 1.0 - loss.value, gradient: loss.gradient }
}

/// Returns the loss `−log p` instead of the `1 − p` of [`linear_loss`]. Its gradient does not vanish for small p, so that a
/// generator still learns from a discriminator that recognizes all synthetic tumors. A batch without such voxels has loss 0 and zero
/// gradient.
///
/// # Shapes
/// See [`linear_loss`].
///
/// # Source
/// The non-saturating loss of generative adversarial networks (Goodfellow et al., 2014), for each voxel.
///
/// # Panics
/// See [`linear_loss`].
///
/// ```
/// use freetumor::train::losses::{ClassSet, Logits, linear_loss, log_loss};
///
/// let (logits, real) = ([0.0, 20.0], [ClassSet::of([0])]);
/// let logits = Logits::new(&logits, 1, 2);
/// let (linear, log) = (linear_loss(&logits, &[3], 3, &real), log_loss(&logits, &[3], 3, &real));
/// assert!(linear.gradient[0] > -1e-6, "the linear gradient vanishes");
/// assert!((log.value - 20.0).abs() < 1e-4 && (log.gradient[0] + 1.0).abs() < 1e-4);
/// ```
pub fn log_loss(logits: &Logits<'_>, labels: &[u8], of: u8, classes: &[ClassSet]) -> Loss {
    let log = |p: f32| Class::current().ln_f64(f64::from(p.max(MIN_PROBABILITY)));
    let loss = averaged(logits, labels, of, classes, log, |p| p.max(MIN_PROBABILITY).recip());
    Loss { value: -loss.value, gradient: loss.gradient }
}

/// Returns the mean of `reward(p)`, whose derivative is `slope(p)`, over the voxels of label `of`, and the gradient of the negative
/// mean over the logits.
fn averaged(
    logits: &Logits<'_>,
    labels: &[u8],
    of: u8,
    classes: &[ClassSet],
    reward: impl Fn(f32) -> f64 + Sync,
    slope: impl Fn(f32) -> f32 + Sync,
) -> Loss {
    let n = logits.voxels;
    assert_eq!(labels.len(), logits.batch * n, "expected one label per voxel");
    assert_eq!(classes.len(), logits.batch, "expected one set of classes per sample");
    let count = labels.iter().filter(|label| **label == of).count() as f64;
    let weight = 1.0 / (count + EPSILON);
    let mut gradient = vec![0f32; logits.values.len()];
    let samples = gradient.par_chunks_exact_mut(logits.classes * n).zip(labels.par_chunks_exact(n)).enumerate();
    let sums: Vec<f64> = samples
        .map(|(index, (gradient, labels))| {
            if !labels.contains(&of) {
                return 0.0;
            }
            logits.probabilities(index, gradient);
            let set = classes[index];
            let mut probability = vec![0f32; n];
            for (_, class) in gradient.chunks_exact(n).enumerate().filter(|(class, _)| set.contains(*class)) {
                probability.iter_mut().zip(class).for_each(|(probability, p)| *probability += p);
            }
            for (class, values) in gradient.chunks_exact_mut(n).enumerate() {
                let own = f32::from(u8::from(set.contains(class)));
                for ((value, probability), label) in values.iter_mut().zip(&probability).zip(labels) {
                    let change = if *label == of { *value * (own - probability) * slope(*probability) } else { 0.0 };
                    *value = -(weight as f32) * change;
                }
            }
            probability.iter().zip(labels).filter(|(_, label)| **label == of).map(|(p, _)| reward(*p)).sum()
        })
        .collect();
    Loss { value: sums.iter().sum::<f64>() * weight, gradient }
}

/// Returns the loss of the discriminator: the mean of the [`linear_loss`] of real tumors with class 1 (real) and that of synthetic
/// tumors with class 2 (synthetic).
///
/// # Shapes
/// Logits of three classes; `labels` `[batch, voxel…]` with 2 for a real and 3 for a synthetic tumor.
///
/// # Panics
/// Panics if the number of labels does not match the logits.
pub fn discriminator_loss(logits: &Logits<'_>, labels: &[u8]) -> Loss {
    let sets = |class| vec![ClassSet::of([class]); logits.batch];
    let real = linear_loss(logits, labels, REAL, &sets(1));
    linear_loss(logits, labels, SYNTHETIC, &sets(2)).scaled_and(1.0, &real).scaled(0.5)
}

/// Returns for each sample the fraction of the voxels of label `of` whose most likely class is one of `classes`; `None` for a
/// sample without such voxels.
///
/// # Shapes
/// See [`linear_loss`].
///
/// # Panics
/// Panics if the numbers of labels or sets do not match the logits.
pub fn found_fraction(logits: &Logits<'_>, labels: &[u8], of: u8, classes: &[ClassSet]) -> Vec<Option<f64>> {
    assert_eq!(labels.len(), logits.batch * logits.voxels, "expected one label per voxel");
    assert_eq!(classes.len(), logits.batch, "expected one set of classes per sample");
    let samples = labels.par_chunks_exact(logits.voxels).enumerate();
    samples
        .map(|(index, labels)| {
            let predicted = logits.argmax(index);
            let all = labels.iter().filter(|label| **label == of).count();
            let is_found = |(label, class): &(&u8, &u8)| **label == of && classes[index].contains(usize::from(**class));
            let found = labels.iter().zip(&predicted).filter(is_found).count();
            (all > 0).then(|| found as f64 / all as f64)
        })
        .collect()
}
