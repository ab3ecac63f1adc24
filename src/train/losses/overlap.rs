//! The Dice and cross-entropy losses over all voxels and classes.

use rayon::prelude::*;

use super::{Logits, Loss};
use crate::error::{Error, Result};
use crate::mask::IGNORE_LABEL;
use crate::simd::Class;

/// Keeps the Dice of an absent class finite: `smooth_nr` and `smooth_dr` of MONAI.
const SMOOTH: f64 = 1e-5;

/// Returns the soft Dice loss over all classes except the background, averaged over samples and classes, plus the cross-entropy over
/// all classes.
///
/// # Shapes
/// `target` `[batch, voxel…]`, the class of each voxel; voxels of [`IGNORE_LABEL`] have no loss and no gradient, and the
/// cross-entropy is averaged over the others.
///
/// # Errors
/// Returns an error if a target is not a class of the network, or the network has only one class.
///
/// # Source
/// MONAI 1.6, `DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)`; the ignored label as in nnU-Net,
/// `DC_and_CE_loss(ignore_label)`.
///
/// # Panics
/// Panics if the target and the logits have different numbers of voxels.
pub fn dice_ce(logits: &Logits<'_>, target: &[u8]) -> Result<Loss> {
    let (n, classes) = (logits.voxels, logits.classes);
    assert_eq!(target.len(), logits.batch * n, "expected one class per voxel");
    if classes < 2 {
        return Err(Error::new(format!("expected a segmentor with two or more classes, got {classes}")));
    }
    let is_known = |label: u8| label == IGNORE_LABEL || usize::from(label) < classes;
    if let Some(label) = target.iter().find(|label| !is_known(**label)) {
        return Err(Error::new(format!("expected labels 0 to {}, got {label}", classes - 1))
            .with_hint("use a network with a class for each organ and each tumor"));
    }
    let mut gradient = vec![0f32; logits.values.len()];
    let known = target.iter().filter(|label| **label != IGNORE_LABEL).count();
    let shares = [1.0 / (logits.batch * (classes - 1)) as f64, 1.0 / known.max(1) as f64];
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

/// Returns the sum over voxels with a known target of `−log p(target)`.
fn cross_entropy(logits: &[f32], target: &[u8], n: usize) -> f64 {
    let mut max = logits[..n].to_vec();
    for class in logits[n..].chunks_exact(n) {
        max.iter_mut().zip(class).for_each(|(max, value)| *max = max.max(*value));
    }
    let (mut sums, kernels) = (vec![0f32; n], Class::current());
    for class in logits.chunks_exact(n) {
        let values = class.iter().zip(&max);
        sums.iter_mut().zip(values).for_each(|(sum, (value, max))| *sum += kernels.exp(value - max));
    }
    let known = target.iter().enumerate().filter(|(_, class)| **class != IGNORE_LABEL);
    known
        .map(|(voxel, class)| f64::from(kernels.ln(sums[voxel]) + max[voxel] - logits[usize::from(*class) * n + voxel]))
        .sum()
}

/// Returns the sum of `1 − Dice` over the classes of one sample, and for each class its derivative over a probability: for voxels
/// whose target is that class, and for other voxels.
fn dice_of_sample(probabilities: &[f32], target: &[u8], n: usize) -> (f64, Vec<[f64; 2]>) {
    let mut loss = 0.0;
    let mut slopes = vec![[0.0; 2]];
    for (class, p) in probabilities.chunks_exact(n).enumerate().skip(1) {
        let (mut both, mut sum, mut voxels) = (0f64, 0f64, 0f64);
        for (p, target) in p.iter().zip(target).filter(|(_, target)| **target != IGNORE_LABEL) {
            sum += f64::from(*p);
            if usize::from(*target) == class {
                both += f64::from(*p);
                voxels += 1.0;
            }
        }
        let (numerator, denominator) = (2.0 * both + SMOOTH, voxels + sum + SMOOTH);
        loss += 1.0 - numerator / denominator;
        let outside = numerator / (denominator * denominator);
        slopes.push([outside - 2.0 / denominator, outside]);
    }
    (loss, slopes)
}

/// Replaces probabilities by the gradient of Dice plus cross-entropy.
fn sample_gradient(values: &mut [f32], target: &[u8], n: usize, slopes: &[[f64; 2]], shares: [f64; 2]) {
    let slope = |class: usize, target: u8| slopes[class][usize::from(usize::from(target) != class)] * shares[0];
    let mut weighted = vec![0f32; n];
    for (class, p) in values.chunks_exact(n).enumerate().skip(1) {
        for ((weighted, p), target) in weighted.iter_mut().zip(p).zip(target) {
            *weighted += slope(class, *target) as f32 * p;
        }
    }
    let entropy = shares[1] as f32;
    for (class, p) in values.chunks_exact_mut(n).enumerate() {
        for ((p, weighted), target) in p.iter_mut().zip(&weighted).zip(target) {
            if *target == IGNORE_LABEL {
                *p = 0.0;
                continue;
            }
            let is_target = f32::from(u8::from(usize::from(*target) == class));
            let dice = if class == 0 { 0.0 } else { slope(class, *target) as f32 };
            *p = *p * (dice - weighted) + entropy * (*p - is_target);
        }
    }
}

/// Returns the Dice of each class, starting with class 0; `None` for a class that is in neither map. Voxels of [`IGNORE_LABEL`] in the
/// ground truth do not count.
///
/// ```
/// use freetumor::train::losses::dice_by_class;
/// let dice = dice_by_class(&[0, 1, 1, 0], &[0, 1, 0, 0], 3);
/// assert_eq!(dice, [Some(0.8), Some(2.0 / 3.0), None]);
/// ```
///
/// # Panics
/// Panics if the maps have different lengths or contain a class that is not below `classes`.
pub fn dice_by_class(truth: &[u8], predicted: &[u8], classes: usize) -> Vec<Option<f64>> {
    assert_eq!(truth.len(), predicted.len(), "ground truth and prediction have the same voxels");
    let mut counts = vec![[0u64; 2]; classes];
    for (truth, predicted) in truth.iter().zip(predicted).filter(|(truth, _)| **truth != IGNORE_LABEL) {
        counts[usize::from(*truth)][1] += 1;
        counts[usize::from(*predicted)][1] += 1;
        counts[usize::from(*truth)][0] += 2 * u64::from(truth == predicted);
    }
    counts.iter().map(|[both, all]| (*all > 0).then(|| *both as f64 / *all as f64)).collect()
}
