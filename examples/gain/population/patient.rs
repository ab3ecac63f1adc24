//! Patients: the liver of a phantom or a scan, with cysts and tumors.

use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::ingest::Source;
use freetumor::ingest::phantom::{Body, PhantomConfig, PhantomSource};
use freetumor::random::{Key, RandomStream};
use freetumor::volume::{Array3, Region, Volume, Voxels};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cyst::Cyst;
use super::labels::{LIVER, TUMOR};
use super::positions::LesionPositions;
use super::tissue::Tissue;
use super::tumor::{Diameters, Tumor, TumorTraits};

/// The mean number of tumors of a patient.
const MEAN_TUMORS: f64 = 3.0;
/// The mean number of cysts of a patient.
const MEAN_CYSTS: f64 = 1.0;
/// The share of unlabeled patients with unlabeled tumors.
const WITH_UNLABELED_TUMORS: f64 = 0.2;
/// The minimum number of voxels of a lesion.
const MIN_VOXELS: usize = 4;
/// The id of the liver in the labels of phantoms, as in TotalSegmentator.
const PHANTOM_LIVER: u16 = 5;
/// The voxels of a whole phantom, from which the region around the liver is cut.
const WHOLE: [usize; 3] = [152, 104, 104];

/// The role of a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// For training, with labeled tumors.
    Labeled,
    /// For training, with labeled organs and unlabeled tumors, which a fifth of the patients have.
    Unlabeled,
    /// For tuning.
    Validation,
    /// For one evaluation of each network.
    Test,
    /// Without tumors, to measure false positives.
    Healthy,
}

impl Role {
    /// All roles.
    #[cfg(test)]
    pub const ALL: [Self; 5] = [Self::Labeled, Self::Unlabeled, Self::Validation, Self::Test, Self::Healthy];

    /// Returns the name in keys and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labeled => "labeled",
            Self::Unlabeled => "unlabeled",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::Healthy => "healthy",
        }
    }

    fn tumors(self, random: &mut RandomStream) -> usize {
        match self {
            Self::Labeled | Self::Validation | Self::Test => poisson(random, MEAN_TUMORS),
            Self::Unlabeled if random.chance(WITH_UNLABELED_TUMORS) => poisson(random, MEAN_TUMORS).max(1),
            Self::Unlabeled | Self::Healthy => 0,
        }
    }
}

/// A population of phantom patients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Population {
    /// The seed of all patients.
    pub seed: u64,
    /// Voxels of a scan along [x, y, z], around the centre of the liver.
    pub shape: [usize; 3],
    /// Millimetres between voxels.
    pub spacing_mm: f64,
    /// Noise of the scans, relative to that of usual scans.
    pub noise: f64,
    /// Sizes of tumors.
    pub diameters: Diameters,
}

/// The scan of a patient with its labels and its truth.
#[derive(Clone, Debug)]
pub struct Patient {
    /// `ROLE_NUMBER`.
    pub name: String,
    /// HU, as i16.
    pub volume: Volume,
    /// The labels for the experiment: liver 1, tumors 2; only the liver for unlabeled patients.
    pub labels: Array3<u8>,
    /// The truth: liver 1, tumors 2.
    pub truth: Array3<u8>,
    /// The tumors of the patient.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compare the tumors with the labels"))]
    pub tumors: Vec<Tumor>,
}

impl Population {
    /// Creates the population of the experiment: 64 × 64 × 48 voxels of 2 mm.
    #[cfg(test)]
    pub fn new(seed: u64) -> Self {
        Self { seed, shape: [64, 64, 48], spacing_mm: 2.0, noise: 0.5, diameters: Diameters::default() }
    }

    /// Makes a patient; equal arguments result in equal patients.
    ///
    /// # Shapes
    /// All arrays have [`Population::shape`] voxels. Axes point to the left, the back and the head of the patient.
    ///
    /// # Errors
    /// Returns a fault of stage `read` if phantoms do not support the shape or the spacing.
    pub fn patient(&self, role: Role, number: usize) -> Result<Patient, Fault> {
        let key = Key::root(self.seed).with("world", role.name());
        let (volume, organ) = self.phantom(key, number)?;
        build_patient((role, number), key.number("patient", number as u64), volume, &organ, &self.diameters)
    }

    /// Returns the scan of a phantom around its liver, and the mask of the liver.
    fn phantom(&self, key: Key, number: usize) -> Result<(Volume, Array3<bool>), Fault> {
        let whole = [0, 1, 2].map(|axis| {
            let millimetres = 2.0 * WHOLE[axis] as f64;
            (millimetres / self.spacing_mm).ceil().max(self.shape[axis] as f64) as u32
        });
        let config = PhantomConfig {
            count: u32::try_from(number).unwrap_or(u32::MAX - 1) + 1,
            body: Body::Abdomen,
            shape: whole,
            spacing_mm: [self.spacing_mm; 3],
            seed: key.stream("phantoms").bits(),
            noise: self.noise,
            ..PhantomConfig::default()
        };
        let source = PhantomSource::new(config, "world").map_err(|errors| {
            let message = errors.first().map_or(String::new(), |error| format!("{}: {}", error.field, error.message));
            Fault::read(FaultKind::Geometry, message)
        })?;
        let entries = source.list().map_err(|error| Fault::read(FaultKind::Io, error.to_string()))?;
        let entry = entries.last().ok_or_else(|| Fault::read(FaultKind::Missing, "expected a phantom, got none"))?;
        let scan = source.read(entry)?;
        let labels = scan.companions.labels("labels.nii.gz")?;
        let region = self.liver_region(&labels.ids);
        Ok((scan.volume.cut(region), labels.ids.cut(region).map(|id| *id == PHANTOM_LIVER)))
    }

    /// Returns the region of [`Population::shape`] voxels around the centre of the liver.
    fn liver_region(&self, ids: &Array3<u16>) -> Region {
        let shape = ids.shape();
        let (mut sums, mut count) = ([0.0; 3], 0.0f64);
        for (at, _) in ids.as_slice().iter().enumerate().filter(|(_, id)| **id == PHANTOM_LIVER) {
            let voxel = [at % shape[0], at / shape[0] % shape[1], at / (shape[0] * shape[1])];
            sums.iter_mut().zip(voxel).for_each(|(sum, index)| *sum += index as f64);
            count += 1.0;
        }
        let start = [0, 1, 2].map(|axis| {
            let middle = if count > 0.0 { sums[axis] / count } else { 0.5 * shape[axis] as f64 };
            let first = (middle - 0.5 * self.shape[axis] as f64).round().max(0.0) as usize;
            first.min(shape[axis] - self.shape[axis])
        });
        Region { start, shape: self.shape }
    }
}

/// A source of patients: a population of phantoms, or of real scans.
pub trait PatientSource: Sync {
    /// Makes a patient; equal arguments result in equal patients.
    ///
    /// # Errors
    /// Returns a fault if the source has no such patient.
    fn patient(&self, role: Role, number: usize) -> Result<Patient, Fault>;

    /// Returns all settings that determine the patients.
    fn describe(&self) -> Value;
}

impl PatientSource for Population {
    fn patient(&self, role: Role, number: usize) -> Result<Patient, Fault> {
        Self::patient(self, role, number)
    }

    fn describe(&self) -> Value {
        json!(self)
    }
}

/// Makes a patient with the number of tumors and the labels of a role.
pub(super) fn build_patient(
    (role, number): (Role, usize),
    key: Key,
    volume: Volume,
    organ: &Array3<bool>,
    diameters: &Diameters,
) -> Result<Patient, Fault> {
    let count = role.tumors(&mut key.stream("number of tumors"));
    let mut patient = populate(&format!("{}_{number:03}", role.name()), key, volume, organ, (count, diameters))?;
    if role == Role::Unlabeled {
        patient.labels = organ.map(|inside| if *inside { LIVER } else { 0 });
    }
    Ok(patient)
}

/// Puts cysts and `tumors` tumors with the given diameters into the organ of a scan. A tumor without a free position, or with fewer than
/// four voxels inside the organ, is omitted.
///
/// # Shapes
/// `organ` has the shape of the volume.
///
/// # Units
/// Fractions of HU are rounded.
///
/// # Errors
/// Returns a fault of stage `mask` if the organ has another shape, or no voxel.
pub fn populate(
    name: &str,
    key: Key,
    volume: Volume,
    organ: &Array3<bool>,
    (tumors, diameters): (usize, &Diameters),
) -> Result<Patient, Fault> {
    let mismatch = |message: String| Fault::new(Stage::Mask, FaultKind::Mismatch, message);
    if organ.shape() != volume.grid.shape {
        return Err(mismatch(format!("expected an organ of {:?} voxels, got {:?}", volume.grid.shape, organ.shape())));
    }
    if !organ.as_slice().contains(&true) {
        return Err(mismatch("expected an organ to put tumors into, got none".to_owned()));
    }
    let grid = volume.grid;
    let hu = match volume.voxels {
        Voxels::I16(hu) => hu,
        Voxels::F32(hu) => hu.map(|hu| hu.round() as i16),
    };
    let labels = organ.map(|inside| if *inside { LIVER } else { 0 });
    let mut positions = LesionPositions::of(&grid, organ);
    let mut tissue = Tissue::new(&grid, organ, hu, labels);
    // The largest tumors first, while there are free positions.
    let mut random = key.stream("tumors");
    let mut traits: Vec<TumorTraits> = (0..tumors).map(|_| TumorTraits::sample(&mut random, diameters)).collect();
    traits.sort_by(|a, b| b.diameter_mm.total_cmp(&a.diameter_mm));
    let mut grown = Vec::new();
    for (index, traits) in traits.into_iter().enumerate() {
        let key = key.number("tumor", index as u64);
        let mut tumor = Tumor::grow(traits, [0.0; 3], key);
        let Some(center_mm) = positions.sample(&mut key.stream("place"), tumor.reach_mm()) else { continue };
        tumor.center_mm = center_mm;
        grown.push(tumor);
    }
    let mut cysts = key.stream("cysts");
    for _ in 0..poisson(&mut cysts, MEAN_CYSTS) {
        let mut cyst = Cyst::sample(&mut cysts);
        if let Some(center_mm) = positions.sample(&mut cysts, cyst.reach_mm()) {
            cyst.center_mm = center_mm;
            tissue.add_cyst(&cyst);
        }
    }
    grown.retain(|tumor| tissue.count_voxels(tumor) >= MIN_VOXELS);
    for tumor in &grown {
        tissue.add_tumor(tumor);
    }
    let (hu, truth) = (tissue.hu, tissue.labels);
    debug_assert!(truth.as_slice().contains(&TUMOR) != grown.is_empty());
    let volume = Volume { grid, voxels: Voxels::I16(hu) };
    Ok(Patient { name: name.to_owned(), volume, labels: truth.clone(), truth, tumors: grown })
}

/// Samples a Poisson distribution (Knuth's product of uniform numbers).
fn poisson(random: &mut RandomStream, mean: f64) -> usize {
    let limit = libm::exp(-mean);
    let (mut count, mut product) = (0, random.uniform(0.0, 1.0));
    while product > limit {
        count += 1;
        product *= random.uniform(0.0, 1.0);
    }
    count
}

#[cfg(test)]
mod tests {
    use freetumor::evaluate::turing::{LesionSample, describe, separability};
    use freetumor::volume::{Affine, Grid, Labels};

    use super::*;

    #[test]
    fn poisson_has_expected_mean_and_share_of_zeros() {
        let mut random = Key::root(3).stream("poisson");
        let counts: Vec<usize> = (0..20_000).map(|_| poisson(&mut random, 3.0)).collect();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        let none = counts.iter().filter(|count| **count == 0).count() as f64 / counts.len() as f64;
        assert!((mean - 3.0).abs() < 0.05 && (none - (-3.0f64).exp()).abs() < 0.006, "{mean} {none}");
    }

    #[test]
    fn role_determines_share_of_patients_with_tumors() {
        let share_with_tumors = |role: Role, patients: u64| {
            let has = |n: &u64| role.tumors(&mut Key::root(*n).stream("number of tumors")) > 0;
            (0..patients).filter(has).count() as f64 / patients as f64
        };
        assert_eq!(share_with_tumors(Role::Healthy, 300), 0.0);
        assert!((share_with_tumors(Role::Unlabeled, 3000) - WITH_UNLABELED_TUMORS).abs() < 0.03);
        assert!((share_with_tumors(Role::Test, 3000) - 0.95).abs() < 0.02);
    }

    #[test]
    fn patient_has_liver_and_labels_of_its_tumors() {
        let patient = Population::new(1).patient(Role::Test, 3).unwrap();
        let voxels = |id| patient.truth.as_slice().iter().filter(|label| **label == id).count();
        assert!(voxels(LIVER) > 20_000 && patient.labels == patient.truth);
        assert_eq!(voxels(TUMOR) > 0, !patient.tumors.is_empty());
    }

    #[test]
    fn tumors_and_changed_voxels_are_inside_the_organ() {
        let grid = Grid { shape: [50, 50, 20], affine: Affine::from_spacing([1.0, 1.0, 2.5]) };
        let volume = Volume { grid, voxels: Voxels::I16(Array3::filled(grid.shape, 100)) };
        let organ = Array3::from_fn(grid.shape, |[x, _, _]| x >= 10);
        let patient = populate("scan", Key::root(5), volume, &organ, (2, &Diameters::default())).unwrap();
        assert!(!patient.tumors.is_empty());
        for (index, label) in patient.truth.as_slice().iter().enumerate() {
            assert!(*label != TUMOR || organ.as_slice()[index]);
            assert!(organ.as_slice()[index] || patient.volume.voxels.hu(index) == 100.0);
        }
    }

    #[test]
    fn populate_fails_on_invalid_organ() {
        let volume = Population::new(1).phantom(Key::root(1), 0).unwrap().0;
        let fault = |organ: Array3<bool>| {
            populate("x", Key::root(1), volume.clone(), &organ, (1, &Diameters::default())).unwrap_err()
        };
        assert!(fault(Array3::filled([2, 2, 2], true)).message.contains("[64, 64, 48]"));
        assert!(fault(Array3::filled([64, 64, 48], false)).message.contains("got none"));
    }

    /// The Turing test finds no difference between two populations of the same model.
    #[test]
    fn tumors_of_populations_with_different_seeds_are_not_separable() {
        let mut samples = Vec::new();
        for (population, is_real) in [(Population::new(1), true), (Population::new(2), false)] {
            for number in 0..20 {
                let patient = population.patient(Role::Validation, number).unwrap();
                let labels = Labels { grid: patient.volume.grid, ids: patient.truth.map(|id| u16::from(*id)) };
                let lesions = describe(&patient.volume, &labels, Some(LIVER.into()), TUMOR.into());
                let name = format!("{} {number}", population.seed);
                samples.extend(lesions.into_iter().map(|values| LesionSample {
                    patient: name.clone(),
                    is_real,
                    values,
                }));
            }
        }
        let result = separability(&samples, 300, Key::root(0)).unwrap();
        let interval = result.all.interval;
        assert!(interval.low < 0.55 && interval.high > 0.45, "{result:?}");
        assert!(result.real > 20);
    }
}
