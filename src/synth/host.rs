//! The tissue in which a tumor is placed: displaced HU and labels.

use super::mass_effect::MassEffect;
use super::tissue_noise::{TissueNoise, high_pass};
use crate::mask::MaskedScan;
use crate::simd::{Simd, SimdKernel, dispatch_short_rows};
use crate::volume::{Array3, Region};

/// A box of a scan after the displacement by a tumor.
pub(super) struct Host {
    pub region: Region,
    /// HU of the scan.
    pub before: Array3<f32>,
    /// HU after the displacement.
    pub hu: Array3<f32>,
    /// Labels after the displacement.
    pub labels: Array3<u8>,
    /// 1 where tissue was displaced.
    pub support: Array3<u8>,
}

impl Host {
    /// Displaces the tissue of a box that contains the region of the mass effect; without one, the host is the scan itself.
    pub fn new(scan: &MaskedScan, region: Region, effect: Option<&MassEffect>, noise: &TissueNoise) -> Self {
        let before = scan.scan.volume.voxels.hu_of(region);
        let mut host = Self {
            region,
            hu: before.clone(),
            labels: scan.mask.labels.cut(region),
            support: Array3::filled(region.shape, 0),
            before,
        };
        let Some(effect) = effect else { return host };
        let inner = [0, 1, 2].map(|k| effect.region.start[k] - region.start[k]);
        host.labels.paste(inner, &effect.displaced_labels(&scan.mask.labels));
        // The interpolation reads one voxel before and two after a position.
        let wide = effect.region.grown([2; 3], scan.mask.labels.shape());
        let hu = scan.scan.volume.voxels.hu_of(wide);
        let remainder = high_pass(&hu);
        let pairs = hu.as_slice().iter().zip(remainder.as_slice()).map(|(hu, noise)| [*hu, *noise]).collect();
        let source = Array3::from_vec(wide.shape, pairs);
        let displaced = dispatch_short_rows(Displacing { effect, noise, source: &source, wide });
        let (hu, support) = displaced;
        // Only displaced voxels are copied; `NaN` marks the others.
        let target = [0, 1, 2].map(|k| inner[k]..inner[k] + effect.region.shape[k]);
        for z in target[2].clone() {
            for y in target[1].clone() {
                let (from_y, from_z) = (y - inner[1], z - inner[2]);
                let moved = support.row(from_y, from_z);
                let values = host.hu.row_mut(y, z)[target[0].clone()].iter_mut();
                for ((value, new), &moved) in values.zip(hu.row(from_y, from_z)).zip(moved) {
                    if moved != 0 {
                        *value = *new;
                    }
                }
            }
        }
        host.support.paste(inner, &support);
        host
    }
}

/// The interpolation of HU at the positions before the displacement.
struct Displacing<'a> {
    effect: &'a MassEffect,
    noise: &'a TissueNoise,
    /// HU and noise of the box `wide` of the scan.
    source: &'a Array3<[f32; 2]>,
    wide: Region,
}

impl SimdKernel for Displacing<'_> {
    type Output = (Array3<f32>, Array3<u8>);

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        let Self { effect, noise, source, wide } = self;
        let region = effect.region;
        let mut hu = Array3::filled(region.shape, 0.0f32);
        let mut support = Array3::filled(region.shape, 0u8);
        for z in 0..region.shape[2] {
            for y in 0..region.shape[1] {
                let row = hu.row_mut(y, z).iter_mut().zip(support.row_mut(y, z)).enumerate();
                for (x, (value, moved)) in row {
                    let voxel = [region.start[0] + x, region.start[1] + y, region.start[2] + z];
                    if let Some(position) = effect.position_before(voxel) {
                        let local = [0, 1, 2].map(|k| position[k] - wide.start[k] as f32);
                        *value = interpolated(source, local, noise);
                        *moved = 1;
                    }
                }
            }
        }
        (hu, support)
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

/// Interpolates HU, with noise raised by what the interpolation loses of it.
#[inline(always)]
fn interpolated(source: &Array3<[f32; 2]>, position: [f32; 3], noise: &TissueNoise) -> f32 {
    let [nx, ny, nz] = source.shape();
    let floor = [0, 1, 2].map(|k| position[k].max(0.0) as usize);
    let fraction = [0, 1, 2].map(|k| (position[k] - floor[k] as f32).clamp(0.0, 1.0));
    let weights = fraction.map(catmull_rom);
    let [wx, wy, wz] = weights;
    let mut sums = [[0.0f32; 2]; 4];
    let inside = floor[0] >= 1 && floor[0] + 2 < nx;
    for (k, weight_z) in wz.iter().enumerate() {
        let z = (floor[2] + k).saturating_sub(1).min(nz - 1);
        for (j, weight_y) in wy.iter().enumerate() {
            let y = (floor[1] + j).saturating_sub(1).min(ny - 1);
            let row = source.row(y, z);
            let weight = weight_y * weight_z;
            if inside {
                let taps = &row[floor[0] - 1..floor[0] + 3];
                for (sum, tap) in sums.iter_mut().zip(taps) {
                    sum[0] += weight * tap[0];
                    sum[1] += weight * tap[1];
                }
            } else {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let tap = row[(floor[0] + i).saturating_sub(1).min(nx - 1)];
                    sum[0] += weight * tap[0];
                    sum[1] += weight * tap[1];
                }
            }
        }
    }
    let (mut hu, mut remainder) = (0.0, 0.0);
    for (sum, weight) in sums.iter().zip(wx) {
        hu += weight * sum[0];
        remainder += weight * sum[1];
    }
    hu + (noise.gain(&weights) - 1.0) * remainder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::synth::mass_effect::Body;
    use crate::synth::organ::testing::{liver, masked};

    const IDENTITY: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

    fn deviation(values: impl Iterator<Item = f32>) -> f64 {
        let values: Vec<f64> = values.map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    /// Returns a scan of one organ with noise that is smoothed by `sigma` voxels.
    fn noisy(spacing_mm: [f64; 3], shape: [usize; 3], sigma: [f64; 3]) -> MaskedScan {
        let mut random = Key::root(3).stream("hu");
        let mut noise = Array3::from_fn(shape, |_| random.normal(0.0, 1.0) as f32);
        Gaussian::new(sigma, Boundary::Reflect).smooth(&mut noise, &mut Scratch::default());
        let scale = 14.0 / deviation(noise.as_slice().iter().copied());
        masked(spacing_mm, Array3::filled(shape, 1), |voxel| (100.0 + scale * f64::from(noise[voxel])).round())
    }

    use crate::volume::{Boundary, Gaussian, Scratch};

    #[test]
    fn displaced_tissue_keeps_its_noise() {
        for (spacing_mm, shape, sigma) in [
            ([0.8, 0.8, 1.0], [110, 110, 90], [0.0; 3]),
            ([0.8, 0.8, 1.0], [110, 110, 90], [0.8, 0.8, 0.6]),
            ([0.8, 0.8, 5.0], [110, 110, 20], [0.9, 0.9, 0.0]),
            ([3.0, 3.0, 3.0], [30, 30, 30], [0.4; 3]),
        ] {
            let scan = noisy(spacing_mm, shape, sigma);
            let middle = shape.map(|n| n / 2);
            let noise = TissueNoise::measure(&scan, &liver(), &[middle]);
            let body = Body {
                centre: middle.map(|index| index as f64 + 0.3),
                radii_mm: [15.0, 13.0, 12.0],
                rotation: IDENTITY,
                spacing_mm,
            };
            let effect = MassEffect::new(&scan, &liver(), body, 0.4, 1.0).unwrap();
            let host = Host::new(&scan, effect.region, Some(&effect), &noise);
            let (before, after) = (high_pass(&host.before), high_pass(&host.hu));
            // The displaced tissue outside the tumor.
            let outside = |index: usize| {
                let [nx, ny, _] = host.region.shape;
                let at = [index % nx, index / nx % ny, index / nx / ny];
                let offset = effect.offset_mm([0, 1, 2].map(|k| at[k] + host.region.start[k]));
                let level = (0..3).map(|k| (f64::from(offset[k]) / body.radii_mm[k]).powi(2)).sum::<f64>().sqrt();
                (1.05..1.7).contains(&level)
            };
            let selected: Vec<usize> = (0..host.region.voxels()).filter(|&index| outside(index)).collect();
            let was = deviation(selected.iter().map(|&index| before.as_slice()[index]));
            let is = deviation(selected.iter().map(|&index| after.as_slice()[index]));
            assert!((is / was - 1.0).abs() < 0.05, "{spacing_mm:?} {sigma:?}: {was} before, {is} after");
            assert!(selected.iter().any(|&index| host.before.as_slice()[index] != host.hu.as_slice()[index]));
        }
    }

    #[test]
    fn smooth_gradient_is_displaced_exactly() {
        let scan = masked([1.0; 3], Array3::filled([64, 64, 64], 1), |[x, y, z]| (2 * x + y) as f64 - z as f64);
        let body = Body { centre: [32.0; 3], radii_mm: [10.0; 3], rotation: IDENTITY, spacing_mm: [1.0; 3] };
        let effect = MassEffect::new(&scan, &liver(), body, 0.4, 1.0).unwrap();
        let noise = TissueNoise::measure(&scan, &liver(), &[[32; 3]]);
        let host = Host::new(&scan, effect.region, Some(&effect), &noise);
        for index in (0..host.region.voxels()).step_by(7) {
            let [nx, ny, _] = host.region.shape;
            let at = [index % nx, index / nx % ny, index / nx / ny];
            let voxel = [0, 1, 2].map(|k| at[k] + host.region.start[k]);
            let expected = match effect.position_before(voxel) {
                Some([x, y, z]) => 2.0 * x + y - z,
                None => (2 * voxel[0] + voxel[1]) as f32 - voxel[2] as f32,
            };
            assert!((host.hu.as_slice()[index] - expected).abs() < 0.05, "{voxel:?}");
        }
    }
}
