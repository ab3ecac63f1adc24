//! The noise of an organ in a scan: its strength, how fine it is, and how much of it an interpolation loses.

use super::noise::SmoothNoise;
use crate::mask::{MaskedScan, Organ};
use crate::random::RandomStream;
use crate::volume::{Array3, Boundary, Gaussian, Region, RowSpans, Scratch};

/// The standard deviation of the smoothing whose remainder is noise, in voxels.
pub(super) const HIGH_PASS_SIGMA: f64 = 1.0;
/// The half width of the blocks in which noise is measured.
const BLOCK_MM: f64 = 14.0;
/// Remainders above this many standard deviations are structure.
const OUTLIER: f32 = 4.0;
/// The share of the variance of white noise that remains halfway between two voxels: 2 · (9² + 1²) / 16².
const HALFWAY_OF_WHITE: f32 = 0.640_625;
/// The maximum factor by which noise is raised after an interpolation.
const MAX_GAIN: f32 = 2.5;

/// The noise of one organ of one scan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TissueNoise {
    /// Standard deviation of the high-pass filtered HU.
    pub deviation_hu: f32,
    /// The correlation of neighbours along each axis.
    correlation: [f32; 3],
    /// The share of the variance that remains after an interpolation halfway between two voxels along each axis.
    halfway: [f32; 3],
}

impl TissueNoise {
    /// Measures the noise around the given voxels of the organ, which should be deep inside.
    pub fn measure(scan: &MaskedScan, organ: &Organ, voxels: &[[usize; 3]]) -> Self {
        let spacing_mm = scan.scan.volume.grid.spacing_mm();
        let bounds = scan.mask.labels.shape();
        let mut sums = Sums::default();
        for &voxel in voxels {
            let reach = spacing_mm.map(|mm| (BLOCK_MM / mm).ceil() as usize);
            let region = Region { start: voxel, shape: [1; 3] }.grown(reach, bounds);
            let hu = scan.scan.volume.voxels.hu_of(region);
            let labels = scan.mask.labels.cut(region);
            sums.add(&high_pass(&hu), &labels, organ.label);
        }
        sums.noise()
    }

    /// Returns the factor by which noise that was interpolated with these weights along each axis is multiplied to keep its standard
    /// deviation. The variance that white noise loses is scaled to what the scan's noise loses halfway between voxels.
    #[inline(always)]
    pub fn gain(&self, weights: [[f32; 4]; 3]) -> f32 {
        let (halfway, mut kept) = (self.halfway, 1.0f32);
        for axis in 0..3 {
            let [a, b, c, d] = weights[axis];
            let lost_of_white = 1.0 - (a * a + b * b + c * c + d * d);
            kept *= 1.0 - lost_of_white / (1.0 - HALFWAY_OF_WHITE) * (1.0 - halfway[axis]);
        }
        (1.0 / kept.sqrt()).min(MAX_GAIN)
    }

    /// Returns noise of another standard deviation.
    pub fn with_deviation(self, deviation_hu: f64) -> Self {
        Self { deviation_hu: deviation_hu as f32, ..self }
    }

    /// Samples noise of this strength and correlation for the rows of a box that have a span; the others are zero.
    pub fn sample(&self, random: &mut RandomStream, within: &RowSpans) -> Array3<f32> {
        // Noise on a lattice of one voxel has a correlation of 0.49, on one of half a voxel 0.02.
        let step = self.correlation.map(|correlation| 0.5 + f64::from(correlation.clamp(0.0, 0.9)));
        let mut noise = SmoothNoise::of_box(random, within, step).into_array(within);
        let deviation = self.deviation_hu;
        noise.as_mut_slice().iter_mut().for_each(|value| *value *= deviation);
        noise
    }
}

/// Returns HU minus smoothed HU.
pub(super) fn high_pass(hu: &Array3<f32>) -> Array3<f32> {
    let mut remainder = hu.clone();
    let filter = Gaussian::truncated([HIGH_PASS_SIGMA; 3], 3.0, Boundary::Reflect);
    filter.smooth(&mut remainder, &mut Scratch::default());
    for (value, hu) in remainder.as_mut_slice().iter_mut().zip(hu.as_slice()) {
        *value = hu - *value;
    }
    remainder
}

/// Sums over pairs and quadruples of neighbours.
#[derive(Default)]
struct Sums {
    count: f64,
    squares: f64,
    /// For each axis: number of quadruples, sum of the products of the middle two, of the squares of the middle two, and of the squares of
    /// the value interpolated between them.
    lines: [[f64; 4]; 3],
}

impl Sums {
    fn add(&mut self, noise: &Array3<f32>, labels: &Array3<u8>, label: u8) {
        let inside = |index: usize| labels.as_slice()[index] == label;
        let values = noise.as_slice();
        let (mut count, mut squares) = (0usize, 0.0f64);
        for index in (0..values.len()).filter(|&index| inside(index)) {
            count += 1;
            squares += f64::from(values[index]) * f64::from(values[index]);
        }
        if count == 0 {
            return;
        }
        let limit = OUTLIER * libm::sqrt(squares / count as f64) as f32;
        let shape = noise.shape();
        let steps = [1, shape[0], shape[0] * shape[1]];
        for index in (0..values.len()).filter(|&index| inside(index) && values[index].abs() <= limit) {
            self.count += 1.0;
            self.squares += f64::from(values[index]) * f64::from(values[index]);
            for (axis, step) in steps.into_iter().enumerate() {
                let position = index / step % shape[axis];
                if position == 0 || position + 2 >= shape[axis] {
                    continue;
                }
                let line = [index - step, index, index + step, index + 2 * step];
                if !line.iter().all(|&index| inside(index) && values[index].abs() <= limit) {
                    continue;
                }
                let [a, b, c, d] = line.map(|index| f64::from(values[index]));
                let halfway = (9.0 * (b + c) - a - d) / 16.0;
                let sums = &mut self.lines[axis];
                sums[0] += 1.0;
                sums[1] += b * c;
                sums[2] += (b * b + c * c) / 2.0;
                sums[3] += halfway * halfway;
            }
        }
    }

    fn noise(self) -> TissueNoise {
        let share = |axis: usize, sum: usize, absent: f64| match self.lines[axis] {
            sums if sums[2] > 0.0 => (sums[sum] / sums[2]).clamp(0.0, 1.0) as f32,
            _ => absent as f32,
        };
        TissueNoise {
            deviation_hu: libm::sqrt(self.squares / self.count.max(1.0)) as f32,
            correlation: [0, 1, 2].map(|axis| share(axis, 1, 0.0)),
            halfway: [0, 1, 2].map(|axis| share(axis, 3, f64::from(HALFWAY_OF_WHITE)).max(0.1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::synth::organ::testing::{liver, masked};

    #[test]
    fn white_noise_keeps_the_variance_of_the_interpolation_kernel() {
        let mut random = Key::root(1).stream("hu");
        let scan = masked([1.0; 3], Array3::filled([40, 40, 40], 1), |_| random.normal(100.0, 12.0));
        let noise = TissueNoise::measure(&scan, &liver(), &[[20; 3]]);
        // A Gaussian of one voxel removes little of white noise.
        assert!((noise.deviation_hu - 12.0).abs() < 1.0, "{noise:?}");
        // Catmull-Rom halfway: 2 · (9² + 1) / 16².
        for k in 0..3 {
            assert!((noise.halfway[k] - 0.64).abs() < 0.06, "{noise:?}");
        }
        assert!((noise.gain([[0.0, 1.0, 0.0, 0.0]; 3]) - 1.0).abs() < 1e-6);
        let sampled = noise.sample(&mut random, &RowSpans::whole([30; 3]));
        let squares: f32 = sampled.as_slice().iter().map(|x| x * x).sum();
        assert!(((squares / 27_000.0).sqrt() / noise.deviation_hu - 1.0).abs() < 0.1);
    }
}
