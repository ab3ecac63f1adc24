//! Summary of an organ of a scan: position, brightness and noise.

use crate::mask::{MaskedScan, Organ};
use crate::volume::{Region, Voxels};

/// A summary of the healthy part of one organ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrganSummary {
    /// Bounding box of the voxels.
    pub region: Region,
    /// Number of voxels.
    pub voxels: usize,
    /// Median HU of the voxels.
    pub median_hu: f64,
    /// Robust standard deviation of the HU: 1.4826 times the median absolute deviation.
    pub spread_hu: f64,
    /// Robust standard deviation of the noise, from the differences of neighbours along x, on which anatomy has little effect.
    pub noise_hu: f64,
}

/// HU are clamped to ±4096.
const LIMIT_HU: i32 = 4096;

impl OrganSummary {
    /// Computes the summary from all healthy voxels of `organ`; `None` if there are none.
    pub fn of(masked: &MaskedScan, organ: &Organ) -> Option<Self> {
        let region = masked.mask.labels.extent(|&label| label == organ.label)?;
        let mut values = Histogram::new();
        let mut steps = Histogram::new();
        match &masked.scan.volume.voxels {
            Voxels::I16(array) => {
                count(masked, organ.label, region, |index| i32::from(array.as_slice()[index]), &mut values, &mut steps);
            }
            Voxels::F32(array) => {
                count(
                    masked,
                    organ.label,
                    region,
                    |index| array.as_slice()[index].round() as i32,
                    &mut values,
                    &mut steps,
                );
            }
        }
        let median = values.median()?;
        Some(Self {
            region,
            voxels: values.total,
            median_hu: median,
            spread_hu: 1.4826 * values.absolute_deviation(median),
            noise_hu: 1.4826 * std::f64::consts::FRAC_1_SQRT_2 * steps.absolute_deviation(0.0),
        })
    }
}

fn count(
    masked: &MaskedScan,
    label: u8,
    region: Region,
    hu: impl Fn(usize) -> i32,
    values: &mut Histogram,
    steps: &mut Histogram,
) {
    let labels = &masked.mask.labels;
    let end = region.end();
    for z in region.start[2]..end[2] {
        for y in region.start[1]..end[1] {
            let row = &labels.row(y, z)[region.start[0]..end[0]];
            let offset = labels.index_of([region.start[0], y, z]);
            let mut previous = None;
            for (x, _) in row.iter().enumerate().filter(|(_, l)| **l == label) {
                let value = hu(offset + x);
                values.add(value);
                if let Some((previous_x, before)) = previous
                    && previous_x + 1 == x
                {
                    steps.add(value.saturating_sub(before));
                }
                previous = Some((x, value));
            }
        }
    }
}

/// A histogram of integer HU.
struct Histogram {
    counts: Vec<u32>,
    total: usize,
}

impl Histogram {
    fn new() -> Self {
        Self { counts: vec![0; 2 * LIMIT_HU as usize + 1], total: 0 }
    }

    fn add(&mut self, hu: i32) {
        self.counts[(hu.clamp(-LIMIT_HU, LIMIT_HU) + LIMIT_HU) as usize] += 1;
        self.total += 1;
    }

    fn median(&self) -> Option<f64> {
        let mut below = 0usize;
        for (index, &count) in self.counts.iter().enumerate() {
            below += count as usize;
            if 2 * below >= self.total && self.total > 0 {
                return Some(f64::from(index as i32 - LIMIT_HU));
            }
        }
        None
    }

    /// Returns the median distance from `centre`.
    fn absolute_deviation(&self, centre: f64) -> f64 {
        let mut distances = Self::new();
        for (index, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let distance = (f64::from(index as i32 - LIMIT_HU) - centre).abs() as i32;
            distances.counts[(distance.min(LIMIT_HU) + LIMIT_HU) as usize] += count;
            distances.total += count as usize;
        }
        distances.median().unwrap_or(0.0)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Small scans for the tests of this module.

    use std::sync::Arc;

    use crate::error::{Fault, FaultKind};
    use crate::id::{PatientKey, ScanDigest, ScanId};
    use crate::ingest::{Companions, Scan, ScanEntry};
    use crate::mask::{MaskedScan, Organ, OrganMask};
    use crate::volume::{Affine, Array3, Grid, Labels, Volume, Voxels};

    struct NoCompanions;

    impl Companions for NoCompanions {
        fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
            Err(Fault::mask(FaultKind::Missing, format!("expected {pattern}, got no files")))
        }
    }

    pub(crate) fn liver() -> Organ {
        Organ { name: "liver".into(), label: 1, tumor_label: 2 }
    }

    /// Returns a scan of integer HU with the given labels of a liver.
    pub(crate) fn masked(
        spacing_mm: [f64; 3],
        labels: Array3<u8>,
        mut hu: impl FnMut([usize; 3]) -> f64,
    ) -> MaskedScan {
        let grid = Grid { shape: labels.shape(), affine: Affine::from_spacing(spacing_mm) };
        let voxels = Voxels::I16(Array3::from_fn(labels.shape(), |voxel| hu(voxel) as i16));
        let entry = ScanEntry {
            scan_id: ScanId::from_bytes([0; 8]),
            source: "source".into(),
            key: "key".into(),
            dataset: "dataset".into(),
            patient_key: PatientKey::from_bytes([0; 8]),
            bytes: 0,
            modified_s: 0,
            version: Default::default(),
        };
        let companions = Arc::new(NoCompanions);
        let scan = Scan {
            acquisition: Default::default(),
            entry,
            digest: ScanDigest::from_bytes([0; 32]),
            volume: Volume { grid, voxels },
            companions,
        };
        MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs: Arc::new([liver()]), coverage: 1.0 } }
    }

    /// Returns a ball of liver with a tumor inside, a separate island and air around.
    pub(crate) fn ball_with_tumor(spacing_mm: [f64; 3], shape: [usize; 3]) -> MaskedScan {
        let distance = |voxel: [usize; 3], centre: [f64; 3]| {
            (0..3).map(|k| (voxel[k] as f64 * spacing_mm[k] - centre[k]).powi(2)).sum::<f64>().sqrt()
        };
        let label = |voxel: [usize; 3]| match () {
            () if distance(voxel, [20.0, 24.0, 22.0]) < 4.0 => 2,
            () if distance(voxel, [25.0, 25.0, 25.0]) < 18.0 || distance(voxel, [47.0, 47.0, 25.0]) < 4.0 => 1,
            () => 0,
        };
        masked(spacing_mm, Array3::from_fn(shape, label), |_| 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{liver, masked};
    use super::*;
    use crate::random::Key;
    use crate::volume::Array3;

    #[test]
    fn summary_returns_median_spread_and_noise_of_organ() {
        let labels = Array3::from_fn([40, 30, 20], |[x, y, z]| u8::from(x >= 5 && y >= 3 && z < 15));
        let mut random = Key::root(2).stream("hu");
        // A step of 60 HU along z: spread, but no noise.
        let scan = masked([1.0; 3], labels, |[x, y, z]| match x >= 5 && y >= 3 && z < 15 {
            true => random.normal(if z < 7 { 80.0 } else { 140.0 }, 10.0).round(),
            false => -1000.0,
        });
        let summary = OrganSummary::of(&scan, &liver()).unwrap();
        assert_eq!(summary.region, Region { start: [5, 3, 0], shape: [35, 27, 15] });
        assert_eq!(summary.voxels, 35 * 27 * 15);
        assert!((80.0..140.0).contains(&summary.median_hu));
        assert!(summary.spread_hu > 30.0, "{}", summary.spread_hu);
        assert!((summary.noise_hu - 10.0).abs() < 1.0, "{}", summary.noise_hu);
    }

    #[test]
    fn summary_of_absent_organ_is_none() {
        let scan = masked([1.0; 3], Array3::filled([4, 4, 4], 2), |_| 0.0);
        assert_eq!(OrganSummary::of(&scan, &liver()), None);
    }
}
