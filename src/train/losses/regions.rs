//! Losses and shares of the voxels of one label: whether a network takes them for what they should be taken for.

use rayon::prelude::*;

use super::{Logits, Loss};
use crate::simd::Class;
use crate::train::{REAL, SYNTHETIC};

/// What keeps a mean over no voxels finite, as published.
const FEW: f64 = 1e-6;
/// The least probability whose logarithm is taken: a softmax in single precision gives 0 below it.
const LEAST: f32 = f32::MIN_POSITIVE;

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
    let loss = averaged(logits, labels, of, classes, f64::from, |_| 1.0);
    Loss { value: 1.0 - loss.value, gradient: loss.gradient }
}

/// `−log p` in place of [`missed`]'s `1 − p`: its gradient stays where p is next to nothing, so that a generator still
/// learns from a discriminator that has seen through it. A batch without such voxels has loss 0 and no gradient.
///
/// # Shapes
/// As for [`missed`].
///
/// # Source
/// The non-saturating loss of generative adversarial networks (Goodfellow et al., 2014), for each voxel.
///
/// # Panics
/// As for [`missed`].
///
/// ```
/// use freetumor::train::losses::{ClassSet, Logits, missed, unlikely};
///
/// let (logits, real) = ([0.0, 20.0], [ClassSet::of([0])]);
/// let logits = Logits::new(&logits, 1, 2);
/// let (linear, log) = (missed(&logits, &[3], 3, &real), unlikely(&logits, &[3], 3, &real));
/// assert!(linear.gradient[0] > -1e-6, "nothing to learn from");
/// assert!((log.value - 20.0).abs() < 1e-4 && (log.gradient[0] + 1.0).abs() < 1e-4);
/// ```
pub fn unlikely(logits: &Logits<'_>, labels: &[u8], of: u8, classes: &[ClassSet]) -> Loss {
    let log = |p: f32| Class::current().ln_f64(f64::from(p.max(LEAST)));
    let loss = averaged(logits, labels, of, classes, log, |p| p.max(LEAST).recip());
    Loss { value: -loss.value, gradient: loss.gradient }
}

/// The mean of `reward(p)` over the voxels of label `of`, whose derivative over p is `slope(p)`, and the gradient of its
/// negative over the logits.
fn averaged(
    logits: &Logits<'_>,
    labels: &[u8],
    of: u8,
    classes: &[ClassSet],
    reward: impl Fn(f32) -> f64 + Sync,
    slope: impl Fn(f32) -> f32 + Sync,
) -> Loss {
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
                    let change = if *label == of { *value * (own - wanted) * slope(*wanted) } else { 0.0 };
                    *value = -(weight as f32) * change;
                }
            }
            wanted.iter().zip(labels).filter(|(_, label)| **label == of).map(|(p, _)| reward(*p)).sum()
        })
        .collect();
    Loss { value: sums.iter().sum::<f64>() * weight, gradient }
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
    let real = missed(logits, labels, REAL, &sets(1));
    missed(logits, labels, SYNTHETIC, &sets(2)).scaled_and(1.0, &real).scaled(0.5)
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
