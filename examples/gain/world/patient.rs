//! Patients: a phantom's liver, or a scan's, with cysts and tumors.

use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::ingest::Source;
use freetumor::ingest::phantom::{Body, PhantomConfig, PhantomSource};
use freetumor::random::{Key, RandomStream};
use freetumor::volume::{Array3, Region, Volume, Voxels};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cyst::Cyst;
use super::labels::{LIVER, TUMOR};
use super::place::Places;
use super::tissue::Tissue;
use super::tumor::{Diameters, Tumor, TumorTraits};

/// Tumors of a patient, on average.
const TUMORS: f64 = 3.0;
/// Cysts of a patient, on average.
const CYSTS: f64 = 1.0;
/// The share of unlabeled patients who have tumors that nobody marked.
const UNMARKED: f64 = 0.2;
/// Fewer voxels are no lesion.
const FEWEST_VOXELS: usize = 4;
/// What phantoms call their liver: TotalSegmentator's id.
const PHANTOM_LIVER: u16 = 5;
/// Voxels of a phantom from which the view is cut: the liver with everything that may be around it.
const WHOLE: [usize; 3] = [152, 104, 104];

/// What a patient is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Trained on, with tumors marked.
    Labeled,
    /// Trained on, with organs marked but not tumors, which a fifth of them has.
    Unlabeled,
    /// Tuned on.
    Validation,
    /// Looked at once.
    Test,
    /// Without tumors, for false positives.
    Healthy,
}

impl Role {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 5] = [Self::Labeled, Self::Unlabeled, Self::Validation, Self::Test, Self::Healthy];

    /// The name in keys and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labeled => "labeled",
            Self::Unlabeled => "unlabeled",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::Healthy => "healthy",
        }
    }

    fn tumors(self, draws: &mut RandomStream) -> usize {
        match self {
            Self::Labeled | Self::Validation | Self::Test => poisson(draws, TUMORS),
            Self::Unlabeled if draws.chance(UNMARKED) => poisson(draws, TUMORS).max(1),
            Self::Unlabeled | Self::Healthy => 0,
        }
    }
}

/// A world of patients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct World {
    /// What decides all of them.
    pub seed: u64,
    /// Voxels of a scan along [x, y, z]; around the liver's middle.
    pub shape: [usize; 3],
    /// Millimetres between voxels.
    pub spacing_mm: f64,
    /// Grain of the scans, relative to that of everyday scans.
    pub noise: f64,
    /// Sizes of tumors.
    pub diameters: Diameters,
}

/// A patient's scan and what is known of it.
#[derive(Clone, Debug)]
pub struct Patient {
    /// `ROLE_NUMBER`.
    pub name: String,
    /// HU, as i16.
    pub volume: Volume,
    /// What the experiment is told: liver 1, tumors 2; of unlabeled patients the liver alone.
    pub labels: Array3<u8>,
    /// What is there: liver 1, tumors 2.
    pub truth: Array3<u8>,
    /// The tumors in it.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compare the tumors with the labels"))]
    pub tumors: Vec<Tumor>,
}

impl World {
    /// The world of the experiment: 64 × 64 × 48 voxels of 2 mm.
    #[cfg(test)]
    pub fn new(seed: u64) -> Self {
        Self { seed, shape: [64, 64, 48], spacing_mm: 2.0, noise: 0.5, diameters: Diameters::default() }
    }

    /// A patient, the same whenever asked for.
    ///
    /// # Shapes
    /// All arrays have the world's shape. Axes run towards the patient's left, back and head.
    ///
    /// # Errors
    /// A fault of stage `read` where the world's shape or spacing is no phantom's.
    pub fn patient(&self, role: Role, number: usize) -> Result<Patient, Fault> {
        let key = Key::root(self.seed).with("world", role.name());
        let (volume, organ) = self.phantom(key, number)?;
        settled((role, number), key.number("patient", number as u64), volume, &organ, &self.diameters)
    }

    /// A phantom's scan around its liver, and where that is.
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
            seed: key.draws("phantoms").bits(),
            noise: self.noise,
            ..PhantomConfig::default()
        };
        let source = PhantomSource::new(config, "world").map_err(|complaints| {
            let said = complaints.first().map_or(String::new(), |c| format!("{}: {}", c.field, c.message));
            Fault::read(FaultKind::Geometry, said)
        })?;
        let listed = source.list().map_err(|error| Fault::read(FaultKind::Io, error.to_string()))?;
        let entry = listed.last().ok_or_else(|| Fault::read(FaultKind::Missing, "expected a phantom, got none"))?;
        let scan = source.read(entry)?;
        let labels = scan.companions.labels("labels.nii.gz")?;
        let view = self.view(&labels.ids);
        Ok((scan.volume.cut(view), labels.ids.cut(view).map(|id| *id == PHANTOM_LIVER)))
    }

    /// The box of the world's shape around the liver's middle.
    fn view(&self, ids: &Array3<u16>) -> Region {
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

/// Whoever has patients: a world of phantoms, or one of scans.
pub trait Patients: Sync {
    /// A patient, the same whenever asked for.
    ///
    /// # Errors
    /// A fault where there is none.
    fn patient(&self, role: Role, number: usize) -> Result<Patient, Fault>;

    /// What decides all of them.
    fn described(&self) -> Value;
}

impl Patients for World {
    fn patient(&self, role: Role, number: usize) -> Result<Patient, Fault> {
        Self::patient(self, role, number)
    }

    fn described(&self) -> Value {
        json!(self)
    }
}

/// The patient of a role, as many tumors in its organ as the role has, and of these known what the role knows.
pub(super) fn settled(
    (role, number): (Role, usize),
    key: Key,
    volume: Volume,
    organ: &Array3<bool>,
    diameters: &Diameters,
) -> Result<Patient, Fault> {
    let count = role.tumors(&mut key.draws("number of tumors"));
    let mut patient = populate(&format!("{}_{number:03}", role.name()), key, volume, organ, (count, diameters))?;
    if role == Role::Unlabeled {
        patient.labels = organ.map(|inside| if *inside { LIVER } else { 0 });
    }
    Ok(patient)
}

/// Puts cysts and so many tumors of such sizes into a scan's organ, by the same model as the world's: for real scans with
/// their liver's labels. A tumor for which there is no place left, or of which the organ's border leaves less than four voxels,
/// is left out.
///
/// # Shapes
/// `organ` has the volume's shape.
///
/// # Units
/// Fractions of HU are rounded.
///
/// # Errors
/// A fault of stage `mask` where the organ has another shape, or no voxel.
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
    let mut places = Places::of(&grid, organ);
    let mut tissue = Tissue::new(&grid, organ, hu, labels);
    // The largest first, while there is room.
    let mut draws = key.draws("tumors");
    let mut traits: Vec<TumorTraits> = (0..tumors).map(|_| TumorTraits::draw(&mut draws, diameters)).collect();
    traits.sort_by(|a, b| b.diameter_mm.total_cmp(&a.diameter_mm));
    let mut grown = Vec::new();
    for (place, traits) in traits.into_iter().enumerate() {
        let key = key.number("tumor", place as u64);
        let mut tumor = Tumor::grow(traits, [0.0; 3], key);
        let Some(center_mm) = places.take(&mut key.draws("place"), tumor.reach_mm()) else { continue };
        tumor.center_mm = center_mm;
        grown.push(tumor);
    }
    let mut cysts = key.draws("cysts");
    for _ in 0..poisson(&mut cysts, CYSTS) {
        let mut cyst = Cyst::draw(&mut cysts);
        if let Some(center_mm) = places.take(&mut cysts, cyst.reach_mm()) {
            cyst.center_mm = center_mm;
            tissue.put_cyst(&cyst);
        }
    }
    grown.retain(|tumor| tissue.holds(tumor) >= FEWEST_VOXELS);
    for tumor in &grown {
        tissue.put_tumor(tumor);
    }
    let (hu, truth) = (tissue.hu, tissue.labels);
    debug_assert!(truth.as_slice().contains(&TUMOR) != grown.is_empty());
    let volume = Volume { grid, voxels: Voxels::I16(hu) };
    Ok(Patient { name: name.to_owned(), volume, labels: truth.clone(), truth, tumors: grown })
}

/// A Poisson number (Knuth's product of uniform numbers).
fn poisson(draws: &mut RandomStream, mean: f64) -> usize {
    let limit = libm::exp(-mean);
    let (mut count, mut product) = (0, draws.uniform(0.0, 1.0));
    while product > limit {
        count += 1;
        product *= draws.uniform(0.0, 1.0);
    }
    count
}

#[cfg(test)]
mod tests {
    use freetumor::evaluate::turing::{LesionSample, describe, separability};
    use freetumor::volume::{Affine, Grid, Labels};

    use super::*;

    #[test]
    fn numbers_of_tumors_are_poisson() {
        let mut draws = Key::root(3).draws("poisson");
        let counts: Vec<usize> = (0..20_000).map(|_| poisson(&mut draws, 3.0)).collect();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        let none = counts.iter().filter(|count| **count == 0).count() as f64 / counts.len() as f64;
        assert!((mean - 3.0).abs() < 0.05 && (none - (-3.0f64).exp()).abs() < 0.006, "{mean} {none}");
    }

    #[test]
    fn roles_decide_who_has_tumors() {
        let with = |role: Role, patients: u64| {
            let has = |n: &u64| role.tumors(&mut Key::root(*n).draws("number of tumors")) > 0;
            (0..patients).filter(has).count() as f64 / patients as f64
        };
        assert_eq!(with(Role::Healthy, 300), 0.0);
        assert!((with(Role::Unlabeled, 3000) - UNMARKED).abs() < 0.03);
        assert!((with(Role::Test, 3000) - 0.95).abs() < 0.02);
    }

    #[test]
    fn patient_has_liver_and_labels_of_its_tumors() {
        let patient = World::new(1).patient(Role::Test, 3).unwrap();
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
    fn an_organ_that_does_not_fit_is_a_fault() {
        let volume = World::new(1).phantom(Key::root(1), 0).unwrap().0;
        let fault = |organ: Array3<bool>| {
            populate("x", Key::root(1), volume.clone(), &organ, (1, &Diameters::default())).unwrap_err()
        };
        assert!(fault(Array3::filled([2, 2, 2], true)).message.contains("[64, 64, 48]"));
        assert!(fault(Array3::filled([64, 64, 48], false)).message.contains("got none"));
    }

    /// The measure of the experiment on itself: a classifier finds no difference where there is none.
    #[test]
    fn tumors_of_two_worlds_are_not_separable() {
        let mut samples = Vec::new();
        for (world, is_real) in [(World::new(1), true), (World::new(2), false)] {
            for number in 0..20 {
                let patient = world.patient(Role::Validation, number).unwrap();
                let labels = Labels { grid: patient.volume.grid, ids: patient.truth.map(|id| u16::from(*id)) };
                let lesions = describe(&patient.volume, &labels, Some(LIVER.into()), TUMOR.into());
                let name = format!("{} {number}", world.seed);
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
