//! The way back, from what a network says to the scan's own grid.

use super::Inference;
use crate::error::{Fault, FaultKind, Stage};
use crate::nn::windows::{Importance, SlidingWindows, WindowGrouping, WindowPlan};
use crate::simd::Class;
use crate::volume::{Array3, Grid, OutsideValue, Preprocess, PreprocessedScan, Resampling, Volume, likeliest};

/// The way back to the scan's own grid.
///
/// Probabilities are resampled, linearly, and the likeliest class is chosen there: labels that were chosen before and
/// then taken from the nearest voxel have steps as large as the network's voxels. What was cropped away, where nothing
/// is denser than the window's lower end, is background: class 0.
#[derive(Debug)]
pub struct ScanResampler {
    resampling: Resampling,
}

impl ScanResampler {
    /// From what was prepared of a scan to the scan.
    ///
    /// # Errors
    /// Where the grids cannot be resampled.
    pub fn new(scan: &Grid, prepared: &PreprocessedScan) -> Result<Self, Fault> {
        Ok(Self { resampling: Resampling::between(&prepared.grid.cut(prepared.scanned), scan)? })
    }

    /// The scan's grid.
    pub fn grid(&self) -> Grid {
        self.resampling.grid()
    }

    /// Probabilities of one class after the other, on the scan's grid.
    pub fn classes<'p>(&'p self, probabilities: &'p [Array3<f32>]) -> impl Iterator<Item = Array3<f32>> + 'p {
        probabilities.iter().enumerate().map(|(class, values)| {
            let outside = OutsideValue::Value(if class == 0 { 1.0 } else { 0.0 });
            self.resampling.linear(values, outside)
        })
    }

    /// The likeliest class of each of the scan's voxels.
    pub fn labels(&self, probabilities: &[Array3<f32>]) -> Array3<u16> {
        likeliest(self.classes(probabilities)).unwrap_or_else(|| Array3::filled(self.grid().shape, 0))
    }

    /// Logits as probabilities: their softmax in each voxel.
    pub fn softmax(mut logits: Vec<Array3<f32>>) -> Vec<Array3<f32>> {
        let Some(shape) = logits.first().map(Array3::shape) else { return logits };
        let mut highest = Array3::filled(shape, f32::NEG_INFINITY);
        for class in &logits {
            let voxels = highest.as_mut_slice().iter_mut().zip(class.as_slice());
            voxels.for_each(|(highest, logit)| *highest = highest.max(*logit));
        }
        let (mut sums, kernels) = (Array3::filled(shape, 0.0f32), Class::current());
        for class in &mut logits {
            let voxels = class.as_mut_slice().iter_mut().zip(highest.as_slice()).zip(sums.as_mut_slice());
            for ((logit, highest), sum) in voxels {
                *logit = kernels.exp(*logit - highest);
                *sum += *logit;
            }
        }
        for class in &mut logits {
            class.as_mut_slice().iter_mut().zip(sums.as_slice()).for_each(|(power, sum)| *power /= sum);
        }
        logits
    }
}

impl Inference {
    /// The likeliest class of each voxel of a scan, from all windows of it.
    ///
    /// # Errors
    /// A fault of stage `mask`: see [`Inference::look`].
    pub fn classes_of(&self, scan: &Volume) -> Result<Array3<u16>, Fault> {
        let config = self.config();
        let unfit = |message: String| Fault::mask(FaultKind::Geometry, message);
        let preprocess = Preprocess::new(config.spacing_mm, config.window(), config.roi_voxels)
            .map_err(|wrong| unfit(wrong.into_iter().map(|it| it.message).collect::<Vec<_>>().join("; ")))?;
        let prepared = preprocess.apply(scan, None).map_err(|fault| fault.at(Stage::Mask))?;
        let plan = WindowPlan::new(prepared.image.shape(), config.roi_voxels, [config.overlap; 3])
            .map_err(|error| unfit(error.to_string()))?;
        let windows = SlidingWindows { plan, importance: Importance::Constant, grouping: WindowGrouping::Alone };
        let logits = self.look_at_all(Stage::Mask, &prepared, &windows, || ())?;
        let on_scan = ScanResampler::new(&scan.grid, &prepared).map_err(|fault| fault.at(Stage::Mask))?;
        Ok(on_scan.labels(&ScanResampler::softmax(logits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one_however_large_the_logits() {
        let class = |values: [f32; 2]| Array3::from_vec([2, 1, 1], values.to_vec());
        let probabilities = ScanResampler::softmax(vec![class([1000.0, 0.0]), class([1000.0, -1e30])]);
        assert_eq!(probabilities[0].as_slice(), [0.5, 1.0]);
        assert_eq!(probabilities[1].as_slice(), [0.5, 0.0]);
    }
}
