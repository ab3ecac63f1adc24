//! Quantum noise after the reconstruction of a scanner.
//!
//! White noise is filtered with a short separable kernel: within the slice a soft-tissue kernel with small negative lobes, along z
//! the overlap of neighbouring slices.

use crate::random::RandomStream;

/// Taps of the in-slice kernel from the centre outwards.
const IN_SLICE: [f32; 3] = [0.62, 0.30, -0.07];
/// Taps along z from the centre outwards.
const ALONG_Z: [f32; 2] = [0.8, 0.3];

/// A generator of consecutive slices of noise with standard deviation 1.
pub(super) struct Noise {
    shape: [usize; 2],
    random: RandomStream,
    /// The previous, the current and the next slice, filtered within the slice.
    slices: [Vec<f32>; 3],
    scratch: Vec<f32>,
}

impl Noise {
    /// Creates noise for slices of `shape` voxels [x, y].
    pub(super) fn new(shape: [usize; 2], random: RandomStream) -> Self {
        let empty = || vec![0.0; shape[0] * shape[1]];
        let mut noise = Self { shape, random, slices: [empty(), empty(), empty()], scratch: empty() };
        for _ in 0..2 {
            noise.advance();
        }
        noise
    }

    /// Writes the next slice.
    pub(super) fn next_slice(&mut self, out: &mut [f32]) {
        self.advance();
        let [before, here, after] = &self.slices;
        for (i, value) in out.iter_mut().enumerate() {
            *value = ALONG_Z[0] * here[i] + ALONG_Z[1] * (before[i] + after[i]);
        }
    }

    fn advance(&mut self) {
        self.slices.rotate_left(1);
        let [nx, ny] = self.shape;
        let gain = gain();
        let white = &mut self.scratch;
        for pair in white.chunks_mut(2) {
            let bits = self.random.bits();
            // The sum of four uniform 8-bit numbers is nearly normal, and the kernel improves the approximation.
            for (value, half) in pair.iter_mut().zip([bits as u32, (bits >> 32) as u32]) {
                let sum: u32 = half.to_le_bytes().into_iter().map(u32::from).sum();
                *value = (sum as f32 - 510.0) * gain;
            }
        }
        let slice = &mut self.slices[2];
        for (from, to) in white.chunks_exact(nx).zip(slice.chunks_exact_mut(nx)) {
            for (x, value) in to.iter_mut().enumerate() {
                let at = |offset: usize| from[x.saturating_sub(offset)] + from[(x + offset).min(nx - 1)];
                *value = IN_SLICE[0] * from[x] + IN_SLICE[1] * at(1) + IN_SLICE[2] * at(2);
            }
        }
        white.copy_from_slice(slice);
        for y in 0..ny {
            let row = |y: usize| &white[y * nx..(y + 1) * nx];
            let (near, far) = ([1, 2].map(|o| row(y.saturating_sub(o))), [1, 2].map(|o| row((y + o).min(ny - 1))));
            let here = row(y);
            for (x, value) in slice[y * nx..(y + 1) * nx].iter_mut().enumerate() {
                *value = IN_SLICE[0] * here[x]
                    + IN_SLICE[1] * (near[0][x] + far[0][x])
                    + IN_SLICE[2] * (near[1][x] + far[1][x]);
            }
        }
    }
}

/// Returns the gain for which the filtered noise has standard deviation 1.
fn gain() -> f32 {
    let power = |taps: &[f32]| taps[0] * taps[0] + 2.0 * taps[1..].iter().map(|t| t * t).sum::<f32>();
    let uniform = (256.0f32 * 256.0 - 1.0) / 12.0;
    1.0 / (4.0 * uniform * power(&IN_SLICE) * power(&IN_SLICE) * power(&ALONG_Z)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn noise_has_unit_deviation_and_autocorrelation_of_kernel() {
        let mut noise = Noise::new([96, 80], Key::root(5).stream("noise"));
        let mut slice = vec![0.0; 96 * 80];
        let (mut sum, mut square, mut near, mut far, mut count) = (0.0f64, 0.0, 0.0, 0.0, 0.0);
        for _ in 0..20 {
            noise.next_slice(&mut slice);
            for row in slice.chunks(96) {
                for x in 4..92 {
                    let v = f64::from(row[x]);
                    sum += v;
                    square += v * v;
                    near += v * f64::from(row[x + 1]);
                    far += v * f64::from(row[x + 3]);
                    count += 1.0;
                }
            }
        }
        let (mean, variance) = (sum / count, square / count);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        // Autocorrelation of [-0.07, 0.30, 0.62, 0.30, -0.07] at lags 1 and 3.
        assert!((near / square - 0.577).abs() < 0.03, "{}", near / square);
        assert!((far / square + 0.074).abs() < 0.03, "{}", far / square);
    }
}
