//! Crops of real and of synthetic tumors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{SegmentationConfig, Tumors};
use crate::error::{Error, Fault, Result};
use crate::mask::Organ;
use crate::random::{Key, RandomStream};
use crate::synth::Candidate;
use crate::train::data::{
    AugmentConfig, Batch, Case, Cases, CropCentre, CropConfig, CutMixConfig, MOST_DRAWS, Patch, Sampler, cut_mix,
    draw_case,
};
use crate::volume::{Array3, HuWindow, Region};

/// Fresh tumors that are asked for before it is said, for the first time, how many there were.
const TOLD_AFTER: u64 = 100;

/// What to do where they are few.
const LOOSEN: &str = "loosen the conditions of the quality test, or raise its `attempts`";

/// Where synthetic tumors come from.
#[derive(Clone)]
pub enum Synthetic {
    /// Scans that hold one already.
    Pool(Arc<Cases>),
    /// Tumors that were made in cases already, each with the place of its case among them: a scored pool, whole, thinned or
    /// filtered, at the cost of the tumors' boxes alone.
    Made {
        /// The scans.
        cases: Arc<Cases>,
        /// The tumors, on the grids of the cases.
        tumors: Arc<[(usize, Candidate)]>,
    },
    /// Scans into which one is put, a fresh one each time.
    Fresh {
        /// The scans.
        cases: Arc<Cases>,
        /// The stages.
        tumors: Tumors,
    },
}

/// Makes the batches of [`SegmentationLearner`](super::SegmentationLearner).
pub struct SegmentationSampler {
    key: Key,
    batch: usize,
    crops: CropConfig,
    augment: AugmentConfig,
    cut_mix: CutMixConfig,
    organs: Arc<[Organ]>,
    real: Arc<Cases>,
    synthetic: Vec<Synthetic>,
    share: f64,
    /// Fresh tumors that were asked for, and that passed.
    fresh: [AtomicU64; 2],
}

impl SegmentationSampler {
    /// Crops of `real` scans and, with the settings' share, of `synthetic` tumors; `seed` decides them all.
    pub fn new(
        config: &SegmentationConfig,
        seed: u64,
        organs: Arc<[Organ]>,
        real: Arc<Cases>,
        synthetic: Vec<Synthetic>,
    ) -> Self {
        let share = config.synthetic.as_ref().map_or(0.0, |synthetic| synthetic.share);
        Self {
            key: Key::root(seed).with("train", "segmentation"),
            batch: config.batch,
            crops: config.crops,
            augment: config.augment,
            cut_mix: config.cut_mix,
            organs,
            real,
            share: if synthetic.is_empty() { 0.0 } else { share },
            synthetic,
            fresh: Default::default(),
        }
    }

    fn sample(&self, key: Key) -> Result<Patch> {
        let mut draws = key.draws("source");
        let source = draws.chance(self.share).then(|| &self.synthetic[draws.index(self.synthetic.len())]);
        let patch = match source {
            None => self.crop(&*draw_case(&self.real, &mut draws)?, key),
            Some(Synthetic::Pool(cases)) => {
                // What stands for a tumor shows one, where the scan has one.
                let case = draw_case(cases, &mut draws)?;
                let has_tumor = self.organs.iter().any(|organ| case.index.count(organ.tumor_label) > 0);
                let around = if has_tumor { CropCentre::Tumor } else { CropCentre::Label };
                let mut patch = Patch::of(&case, around.crop(&case, &self.organs, &mut key.draws("crop")));
                patch.origin.is_synthetic = true;
                patch
            }
            Some(Synthetic::Made { cases, tumors }) => {
                let (index, candidate) = &tumors[draws.index(tumors.len())];
                let case = cases.get(*index).map_err(|fault| {
                    let id = &cases.entries()[*index].id;
                    Error::new(format!("the scan {id} of a tumor cannot be read: {fault}")).with_source(fault)
                })?;
                with_tumor(&case, candidate, &mut key.draws("tumor"))
            }
            Some(Synthetic::Fresh { cases, tumors }) => self.fresh(cases, tumors, &mut draws, key)?,
        };
        Ok(self.augment.apply(patch, &mut key.draws("augment")))
    }

    fn crop(&self, case: &Case, key: Key) -> Patch {
        let mut draws = key.draws("crop");
        let around = self.crops.draw(case, &self.organs, &mut draws);
        Patch::of(case, around.crop(case, &self.organs, &mut draws))
    }

    /// A crop with a fresh tumor, or as it is where none passes. What cannot be made in one scan is made in another.
    fn fresh(&self, cases: &Cases, tumors: &Tumors, draws: &mut RandomStream, key: Key) -> Result<Patch> {
        let (mut again, mut number) = (key, 0);
        loop {
            let case = draw_case(cases, draws)?;
            let fault = match self.fresh_in(&case, tumors, again) {
                Ok(Some(patch)) => return self.told(true, tumors).map(|()| patch),
                Ok(None) => return self.told(false, tumors).map(|()| self.crop(&case, again)),
                Err(fault) => fault,
            };
            tracing::warn!(scan = %case.id(), %fault, "a tumor cannot be made in a scan, another one is drawn");
            number += 1;
            if number == MOST_DRAWS {
                let last = case.id();
                let message = format!("tumors cannot be made in {MOST_DRAWS} scans drawn; the last, {last}: {fault}");
                return Err(Error::new(message).with_source(fault));
            }
            again = key.number("again", number as u64);
        }
    }

    fn fresh_in(&self, case: &Case, tumors: &Tumors, key: Key) -> Result<Option<Patch>, Fault> {
        let mut draws = key.draws("tumor");
        let shown: Vec<&Organ> = tumors.organs.iter().filter(|organ| case.index.count(organ.label) > 0).collect();
        if shown.is_empty() {
            return Ok(None);
        }
        let organ = shown[draws.index(shown.len())];
        let made = tumors.make(case, organ, key)?;
        Ok(made.map(|candidate| with_tumor(case, &candidate, &mut draws)))
    }

    /// Counts fresh tumors, so that nobody trains on fewer than were asked for without knowing.
    fn told(&self, has_passed: bool, tumors: &Tumors) -> Result<()> {
        let [asked, passed] = &self.fresh;
        let passed = passed.fetch_add(u64::from(has_passed), Ordering::Relaxed) + u64::from(has_passed);
        let asked = asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told_at = TOLD_AFTER;
        while told_at < asked {
            told_at *= 10;
        }
        if asked < told_at || passed * 10 > asked * 9 {
            return Ok(());
        }
        if passed == 0 {
            let attempts = tumors.attempts_each();
            let message =
                format!("none of {asked} synthetic tumors passed the quality test within {attempts} attempts");
            return Err(Error::new(message).with_hint(LOOSEN));
        }
        tracing::warn!("{}", self.passed_in_words(asked, passed));
        Ok(())
    }

    /// What is to be said of the fresh tumors at the end: how many passed, where that were fewer than nine in ten.
    pub fn too_few_fresh(&self) -> Option<String> {
        let [asked, passed] = self.fresh.each_ref().map(|count| count.load(Ordering::Relaxed));
        (passed * 10 < asked * 9).then(|| self.passed_in_words(asked, passed))
    }

    fn passed_in_words(&self, asked: u64, passed: u64) -> String {
        format!(
            "{passed} of {asked} synthetic tumors passed the quality test: for the others a crop stands as it is, so that \
             {:.2} of the crops are synthetic in place of {:.2}; {LOOSEN}",
            self.share * passed as f64 / asked as f64,
            self.share
        )
    }
}

impl Sampler for SegmentationSampler {
    type Batch = Batch;

    fn batch(&self, step: u64) -> Result<Batch> {
        let key = self.key.number("step", step);
        let patches = (0..self.batch).map(|index| self.sample(key.number("sample", index as u64)));
        let patches = patches.collect::<Result<Vec<_>>>()?;
        Ok(Batch::of(cut_mix(patches, &self.cut_mix, &mut key.draws("cutmix"))))
    }
}

/// The crop around a tumor that was made in a case.
fn with_tumor(case: &Case, candidate: &Candidate, draws: &mut RandomStream) -> Patch {
    let voxels: Vec<usize> =
        candidate.tumor.as_slice().iter().enumerate().filter(|(_, inside)| **inside > 0).map(|(at, _)| at).collect();
    let Region { start, shape: [nx, ny, _] } = candidate.region;
    let at = voxels[draws.index(voxels.len())];
    let middle = [start[0] + at % nx, start[1] + at / nx % ny, start[2] + at / nx / ny];
    let region = crate::train::data::around(middle, case.patch, case.shape());
    let mut patch = Patch::of(case, region);
    paint(&mut patch, region, candidate, case.window);
    patch.origin.is_synthetic = true;
    patch
}

/// Puts the part of a candidate that lies in a crop into it.
fn paint(patch: &mut Patch, region: Region, candidate: &Candidate, window: HuWindow) {
    let (from, to) = (candidate.region.start, candidate.region.end());
    let low = [0, 1, 2].map(|axis| from[axis].max(region.start[axis]));
    let high = [0, 1, 2].map(|axis| to[axis].min(region.end()[axis]));
    if (0..3).any(|axis| low[axis] >= high[axis]) {
        return;
    }
    let shape = [0, 1, 2].map(|axis| high[axis] - low[axis]);
    let inner = Region { start: [0, 1, 2].map(|axis| low[axis] - from[axis]), shape };
    let at = [0, 1, 2].map(|axis| low[axis] - region.start[axis]);
    let image: Array3<f32> = candidate.after.cut(inner).map(|hu| window.apply(*hu));
    patch.image.paste(at, &image);
    patch.labels.paste(at, &candidate.labels.cut(inner));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::AttemptLoop;
    use crate::filter::{QualityTest, QualityTestConfig};
    use crate::mask::MaskedScan;
    use crate::score::{Intensity, IntensityConfig};
    use crate::synth::{Attempt, AttemptKey, Attempts, Rules, RulesConfig, Synthesize};
    use crate::train::data::CaseEntry;
    use crate::train::testing::{organs, phantom, segmentation, small};

    fn sampler(memory_bytes: u64, accept: &[&str]) -> SegmentationSampler {
        let entries = (0..3).map(|number| CaseEntry::of(phantom(number))).collect();
        let cases = Arc::new(Cases::new(entries, small(), memory_bytes));
        let rules = Rules::new(RulesConfig::default(), &organs(), small().window()).unwrap();
        let accept = accept.iter().map(ToString::to_string).collect();
        let test = QualityTest::new(QualityTestConfig { accept, ..Default::default() }).unwrap();
        let tumors = Tumors { attempts: AttemptLoop::new(Arc::new(rules), Vec::new(), test), organs: organs() };
        let fresh = Synthetic::Fresh { cases: Arc::clone(&cases), tumors };
        SegmentationSampler::new(&segmentation(10), 5, organs().into(), cases, vec![fresh])
    }

    #[test]
    fn a_batch_is_a_function_of_its_step() {
        let (few, all) = (sampler(1, &[]), sampler(u64::MAX, &[]));
        for step in [3, 0, 7] {
            assert_eq!(few.batch(step).unwrap(), all.batch(step).unwrap());
        }
        assert_ne!(all.batch(0).unwrap(), all.batch(1).unwrap());
    }

    #[test]
    fn synthetic_tumors_come_with_their_labels() {
        let sampler = sampler(u64::MAX, &[]);
        let batches: Vec<Batch> = (0..30).map(|step| sampler.batch(step).unwrap()).collect();
        let with_tumor = batches.iter().filter(|batch| batch.labels.contains(&2)).count();
        let synthetic: usize = batches.iter().flat_map(|batch| &batch.origins).filter(|it| it.is_synthetic).count();
        assert!(with_tumor > 10 && synthetic > 10, "{with_tumor} {synthetic}");
        assert!(batches.iter().all(|batch| batch.images.iter().all(|value| (-0.5..1.5).contains(value))));
    }

    #[test]
    fn tumors_that_were_made_come_from_their_cases() {
        let fresh = sampler(u64::MAX, &[]);
        let Synthetic::Fresh { cases, tumors } = &fresh.synthetic[0] else { panic!("fresh tumors") };
        let made = |index: usize| {
            let case = cases.get(index).unwrap();
            let made = (0..20).find_map(|key| tumors.make(&case, &organs()[0], Key::root(key)).unwrap());
            (index, *made.expect("a place for a tumor"))
        };
        let made: Arc<[_]> = [made(0), made(2)].into();
        let pool = Synthetic::Made { cases: Arc::clone(cases), tumors: made };
        let mut config = segmentation(10);
        config.synthetic.as_mut().unwrap().share = 1.0;
        config.cut_mix.probability = 0.0;
        let sampler = SegmentationSampler::new(&config, 5, organs().into(), Arc::clone(cases), vec![pool]);
        for step in 0..10 {
            let batch = sampler.batch(step).unwrap();
            let voxels = batch.labels.len() / batch.len();
            assert!(batch.labels.chunks(voxels).all(|labels| labels.contains(&2)));
            assert!(batch.origins.iter().all(|origin| origin.scan_id != cases.entries()[1].id));
        }
    }

    #[test]
    fn what_does_not_pass_leaves_the_crop_as_it_was() {
        let sampler = sampler(u64::MAX, &["found_fraction > 0.7"]);
        let asked = |sampler: &SegmentationSampler| sampler.fresh.each_ref().map(|count| count.load(Ordering::Relaxed));
        for step in 0..10 {
            let batch = sampler.batch(step).unwrap();
            assert!(!batch.labels.contains(&2) && batch.origins.iter().all(|origin| !origin.is_synthetic));
        }
        // Where nothing ever passes, training stops and says so.
        let stopped = (10..1000).find_map(|step| sampler.batch(step).err()).unwrap();
        assert_eq!(asked(&sampler), [TOLD_AFTER, 0]);
        let expected = "none of 100 synthetic tumors passed the quality test within 10 attempts";
        assert_eq!(stopped.to_string(), expected);
    }

    /// A synthesis with a fault at every other tumor.
    struct Faulty(Arc<dyn Synthesize>);

    impl Synthesize for Faulty {
        fn site_plan<'a>(&'a self, scan: &'a MaskedScan, organ: &'a Organ) -> Result<Box<dyn Attempts + 'a>, Fault> {
            Ok(Box::new(FaultyAttempts(self.0.site_plan(scan, organ)?)))
        }
    }

    struct FaultyAttempts<'a>(Box<dyn Attempts + 'a>);

    impl Attempts for FaultyAttempts<'_> {
        fn attempt(&self, key: AttemptKey) -> Result<Attempt, Fault> {
            if key.attempt().draws("fault").chance(0.5) {
                return Err(Fault::read(crate::error::FaultKind::Mismatch, "expected a tumor, got smoke"));
            }
            self.0.attempt(key)
        }
    }

    #[test]
    fn a_fault_costs_its_try_and_not_the_training() {
        let mut faulty = sampler(u64::MAX, &[]);
        let Synthetic::Fresh { tumors, .. } = &mut faulty.synthetic[0] else { panic!("fresh tumors") };
        tumors.attempts.synthesize = Arc::new(Faulty(Arc::clone(&tumors.attempts.synthesize)));
        let count = |sampler: &SegmentationSampler| {
            let batches: Vec<Batch> = (0..30).map(|step| sampler.batch(step).unwrap()).collect();
            assert_eq!(batches, (0..30).map(|step| sampler.batch(step).unwrap()).collect::<Vec<_>>());
            batches.iter().flat_map(|batch| &batch.origins).filter(|it| it.is_synthetic).count()
        };
        let (all, few) = (count(&sampler(u64::MAX, &[])), count(&faulty));
        assert!(all > 10 && few * 10 > all * 8, "{few} of {all}");
    }

    #[test]
    fn a_tumor_has_as_many_tries_as_its_test_gives() {
        let sampler = sampler(u64::MAX, &["delta_hu < -25"]);
        let Synthetic::Fresh { cases, tumors } = &sampler.synthetic[0] else { panic!("fresh tumors") };
        let case = cases.get(0).unwrap();
        let passed = |attempts| {
            let accept = vec!["delta_hu < -25".to_owned()];
            let test = QualityTest::new(QualityTestConfig { attempts, accept }).unwrap();
            let intensity = Intensity::new(IntensityConfig::default(), &organs()).unwrap();
            let synthesize = Arc::clone(&tumors.attempts.synthesize);
            let attempts = AttemptLoop::new(synthesize, vec![Arc::new(intensity)], test);
            let tumors = Tumors { attempts, organs: organs() };
            (0..40).filter(|key| tumors.make(&case, &organs()[0], Key::root(*key)).unwrap().is_some()).count()
        };
        let (once, often) = (passed(1), passed(8));
        assert!(once > 0 && once < often, "{once} of 40 once, {often} with eight tries");
    }
}
