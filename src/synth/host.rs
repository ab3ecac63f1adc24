//! The tissue in which a tumor is placed: displaced HU and labels.

use super::displaced_row::{LANES, SourcePositions};
use super::interpolation::{Interpolation, Taps};
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
        // The interpolation reads one voxel before and two after a position.
        let wide = effect.region.grown([2; 3], scan.mask.labels.shape());
        let hu = scan.scan.volume.voxels.hu_of(wide);
        let remainder = high_pass(&hu);
        let pairs = hu.as_slice().iter().zip(remainder.as_slice()).map(|(hu, noise)| [*hu, *noise]).collect();
        let source = Array3::from_vec(wide.shape, pairs);
        let interpolation = Interpolation::new(&source, wide.start, noise);
        dispatch_short_rows(DisplacementKernel { effect, interpolation, labels: &scan.mask.labels, host: &mut host });
        host
    }
}

/// The kernel that displaces the HU and labels of a host.
struct DisplacementKernel<'a> {
    effect: &'a MassEffect,
    interpolation: Interpolation<'a>,
    /// Labels of the scan.
    labels: &'a Array3<u8>,
    host: &'a mut Host,
}

impl SimdKernel for DisplacementKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { effect, interpolation, labels, host } = self;
        let (region, bounds, from) = (effect.region, labels.shape(), host.region.start);
        let (mut sources, mut taps, mut nearest) = (SourcePositions::default(), Taps::default(), [[0; LANES]; 3]);
        for z in region.start[2]..region.end()[2] {
            for y in region.start[1]..region.end()[1] {
                let row = effect.row(y, z);
                let hu_row = host.hu.row_mut(y - from[1], z - from[2]);
                let label_row = host.labels.row_mut(y - from[1], z - from[2]);
                let support_row = host.support.row_mut(y - from[1], z - from[2]);
                for first in row.columns.clone().step_by(LANES) {
                    row.compute_sources(first, &mut sources);
                    interpolation.prepare(&sources.positions, &mut taps);
                    // The voxel nearest to the position that the tissue comes from, whose label it has.
                    for axis in 0..3 {
                        let last = bounds[axis] as i32 - 1;
                        for (nearest, position) in nearest[axis].iter_mut().zip(&sources.positions[axis]) {
                            *nearest = ((position + 0.5) as i32).min(last);
                        }
                    }
                    for lane in 0..LANES.min(row.columns.end - first) {
                        if sources.factors[lane] == 1.0 {
                            continue;
                        }
                        let column = first + lane - from[0];
                        let [x, y, z] = &nearest;
                        label_row[column] = labels.row(y[lane] as usize, z[lane] as usize)[x[lane] as usize];
                        hu_row[column] = interpolation.hu::<S>(&taps, lane);
                        support_row[column] = 1;
                    }
                }
            }
        }
    }
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
