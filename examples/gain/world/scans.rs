//! A world whose patients are real scans: the same tumors, in tissue that nobody made.

use std::collections::BTreeMap;
use std::sync::Arc;

use freetumor::error::{Fault, FaultKind};
use freetumor::ingest::content_digest;
use freetumor::random::Key;
use freetumor::volume::{Affine, Array3, Boundary, Gaussian, Labels, Orientation, Scratch, Volume, Voxels};
use serde_json::{Value, json};

use super::patient::{Patient, Patients, Role, settled};
use super::tumor::Diameters;

/// What of a scan is seen around its liver.
const MARGIN_MM: f64 = 16.0;
/// How much smaller or larger than the scan's a patient's body may be, along each axis.
const SIZES: [f64; 2] = [0.9, 1.1];
/// A liver of fewer voxels is none.
const FEWEST_VOXELS: usize = 1000;

/// A scan into which patients' tumors are put.
#[derive(Clone, Debug)]
pub struct Ground {
    volume: Volume,
    liver: Labels,
    digest: String,
}

impl Ground {
    /// A scan with the id of the liver in its labels, which may lie on another grid.
    ///
    /// # Errors
    /// A fault of stage `mask` where the labels show next to no liver in the scan, one of class `geometry` where its axes are
    /// degenerate.
    pub fn new(volume: &Volume, labels: &Labels, liver: u16) -> Result<Self, Fault> {
        let digest = content_digest(volume);
        let lps = Orientation::from_code("LPS").unwrap_or_else(|| volume.grid.orientation());
        let volume = volume.reoriented(lps);
        let own = labels.onto(&volume.grid)?;
        let ids = own.ids.map(|id| u16::from(*id == liver));
        let voxels = ids.as_slice().iter().filter(|id| **id > 0).count();
        let Some(extent) = ids.bounds_of(|id| *id > 0).filter(|_| voxels >= FEWEST_VOXELS) else {
            let message =
                format!("expected a liver of at least {FEWEST_VOXELS} voxels with label {liver}, got {voxels}");
            return Err(Fault::mask(FaultKind::Mismatch, message));
        };
        let margin = volume.grid.spacing_mm().map(|mm| (MARGIN_MM / mm).ceil() as usize);
        let region = extent.grown(margin, volume.grid.shape);
        let liver = Labels { grid: volume.grid, ids }.cut(region);
        Ok(Self { volume: volume.cut(region), liver, digest: digest.to_string() })
    }

    /// The scan as a softer kernel would have reconstructed it: less noise, and what is small a little fainter.
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

    /// The scan as that of a patient of another size, so that no two patients have the same voxels; and the liver in it.
    fn seen(&self, key: Key, spacing_mm: f64) -> Result<(Volume, Array3<bool>), Fault> {
        let mut draws = key.draws("size");
        let size = [(); 3].map(|()| draws.uniform(SIZES[0], SIZES[1]));
        // Taken finer, and said to be as coarse as the world is: that makes it larger.
        let taken_mm = size.map(|size| spacing_mm / size);
        let mut volume = self.volume.with_spacing(taken_mm)?;
        let liver = self.liver.with_spacing(taken_mm)?;
        volume.grid.affine = volume.grid.affine.after(&Affine::from_spacing(size));
        Ok((volume, liver.ids.map(|id| *id > 0)))
    }
}

/// A world of real scans.
///
/// Patients of one role share the scans of that role, one after the other; each is of a size of its own and has cysts and tumors of
/// its own. As many roles as there are scans from different people keep what is learned apart from what is tested on.
#[derive(Clone, Debug)]
pub struct ScanWorld {
    /// What decides all patients.
    pub seed: u64,
    /// Millimetres between voxels.
    pub spacing_mm: f64,
    /// Sizes of tumors.
    pub diameters: Diameters,
    /// The scans of each role.
    pub grounds: BTreeMap<Role, Vec<Arc<Ground>>>,
}

impl Patients for ScanWorld {
    fn patient(&self, role: Role, number: usize) -> Result<Patient, Fault> {
        let grounds = self.grounds.get(&role).filter(|grounds| !grounds.is_empty());
        let grounds = grounds.ok_or_else(|| {
            Fault::read(FaultKind::Missing, format!("expected a scan for patients of role {}, got none", role.name()))
        })?;
        let key = Key::root(self.seed).with("scan world", role.name()).number("patient", number as u64);
        let (volume, organ) = grounds[number % grounds.len()].seen(key, self.spacing_mm)?;
        settled((role, number), key, volume, &organ, &self.diameters)
    }

    fn described(&self) -> Value {
        let digests =
            |grounds: &Vec<Arc<Ground>>| grounds.iter().map(|ground| ground.digest.clone()).collect::<Vec<_>>();
        let scans: BTreeMap<&str, Vec<String>> =
            self.grounds.iter().map(|(role, grounds)| (role.name(), digests(grounds))).collect();
        json!({ "seed": self.seed, "spacing_mm": self.spacing_mm, "diameters": self.diameters, "scans": scans })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LIVER, TUMOR};
    use super::*;
    use freetumor::volume::Grid;

    /// A block of liver in a larger block, whose axes point to the right, the front and the feet.
    fn ground(step: i16) -> Ground {
        let grid = Grid { shape: [60, 50, 40], affine: Affine::from_spacing([3.0, 3.0, 4.0]) };
        let hu = Array3::from_fn(grid.shape, |[x, y, z]| 60 + ((x * 7 + y * 5 + z * 3) % 11) as i16 * step);
        let ids = Array3::from_fn(grid.shape, |[x, y, z]| {
            if (10..50).contains(&x) && (8..42).contains(&y) && (6..34).contains(&z) { 5 } else { 0 }
        });
        Ground::new(&Volume { grid, voxels: Voxels::I16(hu) }, &Labels { grid, ids }, 5).unwrap()
    }

    fn world() -> ScanWorld {
        let grounds = [
            (Role::Labeled, vec![Arc::new(ground(1)), Arc::new(ground(2))]),
            (Role::Healthy, vec![Arc::new(ground(1))]),
        ];
        ScanWorld { seed: 4, spacing_mm: 4.0, diameters: Diameters::default(), grounds: grounds.into() }
    }

    #[test]
    fn patients_of_one_scan_are_not_alike() {
        let world = world();
        let patient = |number| world.patient(Role::Labeled, number).unwrap();
        let (one, third) = (patient(0), patient(2));
        assert_eq!(one.volume, patient(0).volume);
        assert_ne!(content_digest(&one.volume), content_digest(&third.volume));
        for patient in [&one, &third] {
            let spacing = patient.volume.grid.spacing_mm();
            assert!(spacing.iter().all(|mm| (mm - 4.0).abs() < 1e-9), "{spacing:?}");
            assert_eq!(patient.volume.grid.orientation().code(), "LPS");
            let livers = patient.truth.as_slice().iter().filter(|label| **label > 0).count() as f64;
            let ml = livers * 0.064;
            // 120 × 102 × 112 mm, up to a tenth smaller or larger along each axis.
            assert!((0.7 * 1371.0..1.35 * 1371.0).contains(&ml), "{ml} ml");
            assert_eq!(patient.truth.as_slice().contains(&TUMOR), !patient.tumors.is_empty());
            assert_eq!(patient.labels, patient.truth);
        }
        let healthy = world.patient(Role::Healthy, 7).unwrap();
        assert!(healthy.tumors.is_empty() && healthy.truth.as_slice().contains(&LIVER));
    }

    #[test]
    fn a_softer_kernel_leaves_less_noise() {
        let deviation = |ground: &Ground| {
            let hu = ground.volume.voxels.hu_of(ground.volume.grid.region());
            let mean = hu.as_slice().iter().sum::<f32>() / hu.as_slice().len() as f32;
            let squares = hu.as_slice().iter().map(|hu| (hu - mean).powi(2)).sum::<f32>();
            (mean, (squares / hu.as_slice().len() as f32).sqrt())
        };
        let hard = ground(5);
        let soft = hard.clone().softened(4.0);
        let ((mean, noise), (same, less)) = (deviation(&hard), deviation(&soft));
        assert!((mean - same).abs() < 0.5 && less < 0.3 * noise, "{mean} ± {noise}, then {same} ± {less}");
        assert!(soft.volume.grid == hard.volume.grid && soft.liver == hard.liver && soft.digest != hard.digest);
        assert_eq!(hard.clone().softened(0.0).volume, hard.volume);
    }

    #[test]
    fn what_is_missing_is_said() {
        let fault = world().patient(Role::Test, 0).unwrap_err();
        assert!(fault.message.contains("patients of role test"), "{fault}");
        let grid = Grid { shape: [8, 8, 8], affine: Affine::from_spacing([1.0; 3]) };
        let volume = Volume { grid, voxels: Voxels::I16(Array3::filled(grid.shape, 0)) };
        let labels = Labels { grid, ids: Array3::filled(grid.shape, 3u16) };
        let fault = Ground::new(&volume, &labels, 5).unwrap_err();
        assert!(fault.message.ends_with("with label 5, got 0"), "{fault}");
    }
}
