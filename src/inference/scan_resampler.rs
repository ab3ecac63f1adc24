//! Resampling of a network's output to the scan's grid.

use super::Inference;
use crate::error::{Fault, FaultKind, Stage};
use crate::nn::windows::{Importance, SlidingWindows, WindowGrouping, WindowPlan};
use crate::simd::Class;
use crate::volume::{Array3, Grid, OutsideValue, Preprocess, PreprocessedScan, Resampling, Volume, likeliest};

/// Resamples a network's output from the network's grid to the scan's grid.
///
/// Probabilities are resampled linearly, and the likeliest class is chosen on the scan's grid: labels chosen on the network's
/// grid and resampled from the nearest voxel would have steps as large as the network's voxels. Voxels that preprocessing
/// cropped away, none of which is above the window's lower bound in HU, are background: class 0.
#[derive(Debug)]
pub struct ScanResampler {
    resampling: Resampling,
}

impl ScanResampler {
    /// Creates a resampler from the grid of a preprocessed scan to the grid of the scan.
    ///
    /// # Errors
    /// If the grids cannot be resampled.
    pub fn new(scan: &Grid, preprocessed: &PreprocessedScan) -> Result<Self, Fault> {
        Ok(Self { resampling: Resampling::between(&preprocessed.grid.cut(preprocessed.scanned), scan)? })
    }

    /// Returns the scan's grid.
    pub fn grid(&self) -> Grid {
        self.resampling.grid()
    }

    /// Resamples the probabilities of each class to the scan's grid, one class after the other.
    pub fn classes<'p>(&'p self, probabilities: &'p [Array3<f32>]) -> impl Iterator<Item = Array3<f32>> + 'p {
        probabilities.iter().enumerate().map(|(class, values)| {
            let outside = OutsideValue::Value(if class == 0 { 1.0 } else { 0.0 });
            self.resampling.linear(values, outside)
        })
    }

    /// Returns the likeliest class of each voxel of the scan.
    pub fn labels(&self, probabilities: &[Array3<f32>]) -> Array3<u16> {
        likeliest(self.classes(probabilities)).unwrap_or_else(|| Array3::filled(self.grid().shape, 0))
    }

    /// Converts logits to probabilities: the softmax in each voxel.
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
    /// Segments a scan: returns the likeliest class of each voxel, from all windows of the scan.
    ///
    /// # Errors
    /// A fault of stage `mask`: see [`Inference::predict`].
    pub fn segment(&self, scan: &Volume) -> Result<Array3<u16>, Fault> {
        let config = self.config();
        let geometry_fault = |message: String| Fault::mask(FaultKind::Geometry, message);
        let preprocess = Preprocess::new(config.spacing_mm, config.window(), config.roi_voxels).map_err(|errors| {
            geometry_fault(errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "))
        })?;
        let preprocessed = preprocess.apply(scan, None).map_err(|fault| fault.at(Stage::Mask))?;
        let plan = WindowPlan::new(preprocessed.image.shape(), config.roi_voxels, [config.overlap; 3])
            .map_err(|error| geometry_fault(error.to_string()))?;
        let windows = SlidingWindows { plan, importance: Importance::Constant, grouping: WindowGrouping::Alone };
        let logits = self.predict_scan(Stage::Mask, &preprocessed, &windows, || ())?;
        let resampler = ScanResampler::new(&scan.grid, &preprocessed).map_err(|fault| fault.at(Stage::Mask))?;
        Ok(resampler.labels(&ScanResampler::softmax(logits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_large_logits_sums_to_one() {
        let class = |values: [f32; 2]| Array3::from_vec([2, 1, 1], values.to_vec());
        let probabilities = ScanResampler::softmax(vec![class([1000.0, 0.0]), class([1000.0, -1e30])]);
        assert_eq!(probabilities[0].as_slice(), [0.5, 1.0]);
        assert_eq!(probabilities[1].as_slice(), [0.5, 0.0]);
    }
}
