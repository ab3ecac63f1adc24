//! A population of patients from real scans, with the same model of tumors.

use std::collections::BTreeMap;
use std::sync::Arc;

use freetumor::error::{Fault, FaultKind};
use freetumor::ingest::content_digest;
use freetumor::random::Key;
use freetumor::volume::{Affine, Array3, Boundary, Gaussian, Labels, Orientation, Scratch, Volume, Voxels};
use serde_json::{Value, json};

use super::patient::{Patient, PatientSource, Role, build_patient};
use super::tumor::Diameters;

/// The margin of a scan around its liver.
const MARGIN_MM: f64 = 16.0;
/// The range of the size of a patient relative to the scan, along each axis.
const SIZES: [f64; 2] = [0.9, 1.1];
/// The minimum number of voxels of a liver.
const MIN_VOXELS: usize = 1000;

/// A scan into which the tumors of patients are put.
#[derive(Clone, Debug)]
pub struct BaseScan {
    volume: Volume,
    liver: Labels,
    digest: String,
}

impl BaseScan {
    /// Creates a base scan from a scan, its labels, which may be on another grid, and the id of the liver.
    ///
    /// # Errors
    /// Returns a fault of stage `mask` if the liver has too few voxels, or a fault of kind `geometry` if the axes of the scan are
    /// degenerate.
    pub fn new(volume: &Volume, labels: &Labels, liver: u16) -> Result<Self, Fault> {
        let digest = content_digest(volume);
        let lps = Orientation::from_code("LPS").unwrap_or_else(|| volume.grid.orientation());
        let volume = volume.reoriented(lps);
        let labels = labels.onto(&volume.grid)?;
        let ids = labels.ids.map(|id| u16::from(*id == liver));
        let voxels = ids.as_slice().iter().filter(|id| **id > 0).count();
        let Some(extent) = ids.bounds_of(|id| *id > 0).filter(|_| voxels >= MIN_VOXELS) else {
            let message = format!("expected a liver of at least {MIN_VOXELS} voxels with label {liver}, got {voxels}");
            return Err(Fault::mask(FaultKind::Mismatch, message));
        };
        let margin = volume.grid.spacing_mm().map(|mm| (MARGIN_MM / mm).ceil() as usize);
        let region = extent.grown(margin, volume.grid.shape);
        let liver = Labels { grid: volume.grid, ids }.cut(region);
        Ok(Self { volume: volume.cut(region), liver, digest: digest.to_string() })
    }

    /// Smooths the scan to simulate a softer kernel, with less noise and less contrast of small structures.
    ///
    /// `sigma_mm` is the standard deviation of the Gaussian; 0 changes nothing.
    #[must_use]
    pub fn softened(mut self, sigma_mm: f64) -> Self {
        if sigma_mm > 0.0 {
            let sigma_voxels = self.volume.grid.spacing_mm().map(|mm| sigma_mm / mm);
            let mut hu = self.volume.voxels.hu_of(self.volume.grid.region());
            Gaussian::new(sigma_voxels, Boundary::Reflect).smooth(&mut hu, &mut Scratch::default());
            self.volume.voxels = Voxels::F32(hu);
            self.digest = format!("{}, {sigma_mm} mm", self.digest);
        }
        self
    }

    /// Returns the scan and the liver of a patient of another size, so that no two patients have the same voxels.
    fn resize(&self, key: Key, spacing_mm: f64) -> Result<(Volume, Array3<bool>), Fault> {
        let mut random = key.stream("size");
        let size = [(); 3].map(|()| random.uniform(SIZES[0], SIZES[1]));
        // Resampling to a finer spacing and labelling it with the spacing of the population enlarges the patient.
        let sampled_mm = size.map(|size| spacing_mm / size);
        let mut volume = self.volume.with_spacing(sampled_mm)?;
        let liver = self.liver.with_spacing(sampled_mm)?;
        volume.grid.affine = volume.grid.affine.after(&Affine::from_spacing(size));
        Ok((volume, liver.ids.map(|id| *id > 0)))
    }
}

/// A population of patients from real scans.
///
/// Patients of one role share the scans of that role in turn; each patient has an individual size, cysts and tumors. Scans of different
/// people for different roles separate training from testing.
#[derive(Clone, Debug)]
pub struct ScanPopulation {
    /// The seed of all patients.
    pub seed: u64,
    /// Millimetres between voxels.
    pub spacing_mm: f64,
    /// Sizes of tumors.
    pub diameters: Diameters,
    /// The scans of each role.
    pub base_scans: BTreeMap<Role, Vec<Arc<BaseScan>>>,
}

impl PatientSource for ScanPopulation {
    fn patient(&self, role: Role, number: usize) -> Result<Patient, Fault> {
        let base_scans = self.base_scans.get(&role).filter(|base_scans| !base_scans.is_empty());
        let base_scans = base_scans.ok_or_else(|| {
            Fault::read(FaultKind::Missing, format!("expected a scan for patients of role {}, got none", role.name()))
        })?;
        let key = Key::root(self.seed).with("scan world", role.name()).number("patient", number as u64);
        let (volume, organ) = base_scans[number % base_scans.len()].resize(key, self.spacing_mm)?;
        build_patient((role, number), key, volume, &organ, &self.diameters)
    }

    fn describe(&self) -> Value {
        let digests = |base_scans: &Vec<Arc<BaseScan>>| {
            base_scans.iter().map(|base_scan| base_scan.digest.clone()).collect::<Vec<_>>()
        };
        let scans: BTreeMap<&str, Vec<String>> =
            self.base_scans.iter().map(|(role, base_scans)| (role.name(), digests(base_scans))).collect();
        json!({ "seed": self.seed, "spacing_mm": self.spacing_mm, "diameters": self.diameters, "scans": scans })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LIVER, TUMOR};
    use super::*;
    use freetumor::volume::Grid;

    /// Returns a block of liver in a larger block, whose axes point to the right, the front and the feet.
    fn base_scan(step: i16) -> BaseScan {
        let grid = Grid { shape: [60, 50, 40], affine: Affine::from_spacing([3.0, 3.0, 4.0]) };
        let hu = Array3::from_fn(grid.shape, |[x, y, z]| 60 + ((x * 7 + y * 5 + z * 3) % 11) as i16 * step);
        let ids = Array3::from_fn(grid.shape, |[x, y, z]| {
            if (10..50).contains(&x) && (8..42).contains(&y) && (6..34).contains(&z) { 5 } else { 0 }
        });
        BaseScan::new(&Volume { grid, voxels: Voxels::I16(hu) }, &Labels { grid, ids }, 5).unwrap()
    }

    fn population() -> ScanPopulation {
        let base_scans = [
            (Role::Labeled, vec![Arc::new(base_scan(1)), Arc::new(base_scan(2))]),
            (Role::Healthy, vec![Arc::new(base_scan(1))]),
        ];
        ScanPopulation { seed: 4, spacing_mm: 4.0, diameters: Diameters::default(), base_scans: base_scans.into() }
    }

    #[test]
    fn patients_of_one_scan_differ() {
        let population = population();
        let patient = |number| population.patient(Role::Labeled, number).unwrap();
        let (first, third) = (patient(0), patient(2));
        assert_eq!(first.volume, patient(0).volume);
        assert_ne!(content_digest(&first.volume), content_digest(&third.volume));
        for patient in [&first, &third] {
            let spacing = patient.volume.grid.spacing_mm();
            assert!(spacing.iter().all(|mm| (mm - 4.0).abs() < 1e-9), "{spacing:?}");
            assert_eq!(patient.volume.grid.orientation().code(), "LPS");
            let livers = patient.truth.as_slice().iter().filter(|label| **label > 0).count() as f64;
            let ml = livers * 0.064;
            // 120 × 102 × 112 mm, up to 10% smaller or larger along each axis.
            assert!((0.7 * 1371.0..1.35 * 1371.0).contains(&ml), "{ml} ml");
            assert_eq!(patient.truth.as_slice().contains(&TUMOR), !patient.tumors.is_empty());
            assert_eq!(patient.labels, patient.truth);
        }
        let healthy = population.patient(Role::Healthy, 7).unwrap();
        assert!(healthy.tumors.is_empty() && healthy.truth.as_slice().contains(&LIVER));
    }

    #[test]
    fn softened_scan_has_less_noise() {
        let deviation = |base_scan: &BaseScan| {
            let hu = base_scan.volume.voxels.hu_of(base_scan.volume.grid.region());
            let mean = hu.as_slice().iter().sum::<f32>() / hu.as_slice().len() as f32;
            let squares = hu.as_slice().iter().map(|hu| (hu - mean).powi(2)).sum::<f32>();
            (mean, (squares / hu.as_slice().len() as f32).sqrt())
        };
        let hard = base_scan(5);
        let soft = hard.clone().softened(4.0);
        let ((mean, noise), (soft_mean, soft_noise)) = (deviation(&hard), deviation(&soft));
        let message = format!("{mean} ± {noise}, then {soft_mean} ± {soft_noise}");
        assert!((mean - soft_mean).abs() < 0.5 && soft_noise < 0.3 * noise, "{message}");
        assert!(soft.volume.grid == hard.volume.grid && soft.liver == hard.liver && soft.digest != hard.digest);
        assert_eq!(hard.clone().softened(0.0).volume, hard.volume);
    }

    #[test]
    fn faults_name_missing_scans_and_livers() {
        let fault = population().patient(Role::Test, 0).unwrap_err();
        assert!(fault.message.contains("patients of role test"), "{fault}");
        let grid = Grid { shape: [8, 8, 8], affine: Affine::from_spacing([1.0; 3]) };
        let volume = Volume { grid, voxels: Voxels::I16(Array3::filled(grid.shape, 0)) };
        let labels = Labels { grid, ids: Array3::filled(grid.shape, 3u16) };
        let fault = BaseScan::new(&volume, &labels, 5).unwrap_err();
        assert!(fault.message.ends_with("with label 5, got 0"), "{fault}");
    }
}
