//! Interpolation of HU between voxels by cubic splines, which keeps the strength of the noise.

use super::displaced_row::LANES;
use super::tissue_noise::TissueNoise;
use crate::simd::Simd;
use crate::volume::Array3;

/// The number of values in four neighbours of HU and noise.
const FOUR_PAIRS: usize = 8;

/// HU that are interpolated.
pub(super) struct Interpolation<'a> {
    /// HU and noise of a box of the scan.
    source: &'a Array3<[f32; 2]>,
    values: &'a [f32],
    /// The first voxel of the box.
    start: [f32; 3],
    /// The index of the first value of each of the 4 × 4 rows around a position, relative to that of the first row.
    rows: [usize; 16],
    noise: TissueNoise,
}

/// The neighbours of [`LANES`] positions and their weights.
pub(super) struct Taps {
    /// The position rounded down, along each axis.
    floors: [[i32; LANES]; 3],
    /// The weights of the four neighbours along each axis.
    weights: [[[f32; LANES]; 4]; 3],
    /// The factors by which noise is multiplied.
    gains: [f32; LANES],
}

impl Default for Taps {
    fn default() -> Self {
        Self { floors: [[0; LANES]; 3], weights: [[[0.0; LANES]; 4]; 3], gains: [1.0; LANES] }
    }
}

impl<'a> Interpolation<'a> {
    /// Prepares the interpolation of pairs of HU and noise in a box of the scan whose first voxel is `start`.
    pub fn new(source: &'a Array3<[f32; 2]>, start: [usize; 3], noise: &TissueNoise) -> Self {
        let [nx, ny, _] = source.shape();
        let mut rows = [0; 16];
        for (index, row) in rows.iter_mut().enumerate() {
            *row = 2 * nx * (index % 4 + ny * (index / 4));
        }
        let values = source.as_slice().as_flattened();
        Self { source, values, start: start.map(|index| index as f32), rows, noise: *noise }
    }

    /// Computes the weights at positions of the scan, along [x, y, z].
    #[inline(always)]
    pub fn prepare(&self, positions: &[[f32; LANES]; 3], taps: &mut Taps) {
        let starts = self.start;
        for axis in 0..3 {
            let start = starts[axis];
            for (lane, position) in positions[axis].iter().enumerate() {
                let position = position - start;
                let floor = position.max(0.0) as i32;
                let [a, b, c, d] = catmull_rom((position - floor as f32).clamp(0.0, 1.0));
                taps.floors[axis][lane] = floor;
                taps.weights[axis][0][lane] = a;
                taps.weights[axis][1][lane] = b;
                taps.weights[axis][2][lane] = c;
                taps.weights[axis][3][lane] = d;
            }
        }
        let noise = self.noise;
        for lane in 0..LANES {
            taps.gains[lane] = noise.gain(taps.weights_at(lane));
        }
    }

    /// Interpolates HU at one position, with noise raised by what the interpolation loses of it. Vectors must have eight numbers.
    #[inline(always)]
    pub fn hu<S: Simd>(&self, taps: &Taps, lane: usize) -> f32 {
        let [nx, ny, nz] = self.source.shape();
        let [x, y, z] = [taps.floors[0][lane], taps.floors[1][lane], taps.floors[2][lane]];
        let [x, y, z] = [x as usize, y as usize, z as usize];
        let [along_x, along_y, along_z] = taps.weights_at(lane);
        let mut values = [0.0f32; 2 * FOUR_PAIRS];
        if x >= 1 && x + 2 < nx && y >= 1 && y + 2 < ny && z >= 1 && z + 2 < nz {
            let (mut sums, around) = (S::zero(), &self.values[2 * (x - 1 + nx * (y - 1 + ny * (z - 1)))..]);
            for (index, row) in self.rows.iter().enumerate() {
                let weight = along_y[index % 4] * along_z[index / 4];
                sums = S::add(sums, S::mul(S::splat(weight), S::load(&around[*row..])));
            }
            S::store(sums, &mut values);
        } else {
            // At the end of the scan, the outermost voxel is repeated.
            let clamped = |floor: usize, tap: usize, length: usize| (floor + tap).saturating_sub(1).min(length - 1);
            for index in 0..self.rows.len() {
                let row = self.source.row(clamped(y, index % 4, ny), clamped(z, index / 4, nz));
                let weight = along_y[index % 4] * along_z[index / 4];
                for (tap, sums) in values[..FOUR_PAIRS].chunks_exact_mut(2).enumerate() {
                    let [hu, noise] = row[clamped(x, tap, nx)];
                    sums[0] += weight * hu;
                    sums[1] += weight * noise;
                }
            }
        }
        let (mut hu, mut remainder) = (0.0, 0.0);
        for (sum, weight) in values.chunks_exact(2).zip(along_x) {
            hu += weight * sum[0];
            remainder += weight * sum[1];
        }
        hu + (taps.gains[lane] - 1.0) * remainder
    }
}

impl Taps {
    /// Returns the weights at one position.
    #[inline(always)]
    fn weights_at(&self, lane: usize) -> [[f32; 4]; 3] {
        let [x, y, z] = &self.weights;
        [
            [x[0][lane], x[1][lane], x[2][lane], x[3][lane]],
            [y[0][lane], y[1][lane], y[2][lane], y[3][lane]],
            [z[0][lane], z[1][lane], z[2][lane], z[3][lane]],
        ]
    }
}

/// Returns the weights of the four neighbours of a position between the middle two, by cubic splines through the values.
///
/// # Source
/// Catmull and Rom, A class of local interpolating splines, 1974.
#[inline(always)]
fn catmull_rom(t: f32) -> [f32; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [0.5 * (2.0 * t2 - t3 - t), 0.5 * (3.0 * t3 - 5.0 * t2 + 2.0), 0.5 * (4.0 * t2 - 3.0 * t3 + t), 0.5 * (t3 - t2)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::simd::{SimdKernel, dispatch_short_rows};
    use crate::synth::organ::testing::{liver, masked};

    struct Interpolated<'a>(&'a Interpolation<'a>, &'a Taps);

    impl SimdKernel for Interpolated<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<f32> {
            (0..LANES).map(|lane| self.0.hu::<S>(self.1, lane)).collect()
        }
    }

    /// Sums the weighted voxels, the outermost of which are repeated outside.
    fn plain(hu: &Array3<[f32; 2]>, position: [f32; 3]) -> f64 {
        let mut sum = 0.0;
        for tap in 0..64 {
            let taps = [tap % 4, tap / 4 % 4, tap / 16];
            let mut weight = 1.0;
            let voxel = [0, 1, 2].map(|k| {
                let floor = position[k].floor();
                weight *= f64::from(catmull_rom(position[k] - floor)[taps[k]]);
                (floor as i64 + taps[k] as i64 - 1).clamp(0, hu.shape()[k] as i64 - 1) as usize
            });
            sum += weight * f64::from(hu[voxel][0]);
        }
        sum
    }

    #[test]
    fn interpolation_equals_plain_sum_everywhere() {
        let scan = masked([1.0; 3], Array3::filled([20; 3], 1), |_| 50.0);
        let noise = TissueNoise::measure(&scan, &liver(), &[[10; 3]]);
        let mut random = Key::root(2).stream("hu");
        let source = Array3::from_fn([9, 8, 7], |_| [100.0 * random.unit_f32(), 0.0]);
        let start = [5, 0, 3];
        let interpolation = Interpolation::new(&source, start, &noise);
        let mut taps = Taps::default();
        for _ in 0..50 {
            let mut positions = [[0.0f32; LANES]; 3];
            for (k, lanes) in positions.iter_mut().enumerate() {
                lanes.fill_with(|| {
                    let position = random.uniform(0.0, source.shape()[k] as f64 - 1.0) as f32;
                    // Voxels themselves, too.
                    start[k] as f32 + if random.chance(0.2) { position.round() } else { position }
                });
            }
            interpolation.prepare(&positions, &mut taps);
            let interpolated = dispatch_short_rows(Interpolated(&interpolation, &taps));
            for lane in 0..LANES {
                let position = [0, 1, 2].map(|k| positions[k][lane] - start[k] as f32);
                let (hu, expected) = (interpolated[lane], plain(&source, position));
                assert!((f64::from(hu) - expected).abs() < 1e-3, "{position:?}: {hu} {expected}");
            }
        }
    }
}
