//! The batches of a segmentor: crops of real and synthetic tumors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::source::{SyntheticSource, voxels, with_tumor};
use super::{SegmentationConfig, TumorMaker};
use crate::error::{Error, Fault, Result};
use crate::mask::Organ;
use crate::random::{Key, RandomStream};
use crate::train::data::{
    AugmentConfig, Batch, Case, Cases, Crop, CropCentre, CropConfig, CutMixConfig, MAX_DRAWS, Sampler, TumorSampler,
    TumorSampling, cut_mix, random_case,
};

/// The number of requested fresh tumors after which the share that passed is reported for the first time.
const FIRST_REPORT: u64 = 100;

/// The hint if few fresh tumors pass.
const FEW_PASS_HINT: &str = "loosen the conditions of the quality test, or raise its `attempts`";

/// Makes the batches of [`SegmentationLearner`](super::SegmentationLearner).
pub struct SegmentationSampler {
    key: Key,
    batch: usize,
    crops: CropConfig,
    augment: AugmentConfig,
    cut_mix: CutMixConfig,
    organs: Arc<[Organ]>,
    real: Arc<Cases>,
    /// The sources of synthetic tumors, with the sampler of the tumors that exist before the training run.
    synthetic: Vec<(SyntheticSource, TumorSampler)>,
    draw: TumorSampling,
    share: f64,
    /// The numbers of crops for which a fresh tumor was requested and for which one passed.
    fresh: [AtomicU64; 2],
}

impl SegmentationSampler {
    /// Creates a sampler of crops of `real` scans and, with the configured share, of `synthetic` tumors; `seed` determines all crops.
    pub fn new(
        config: &SegmentationConfig,
        seed: u64,
        organs: Arc<[Organ]>,
        real: Arc<Cases>,
        synthetic: Vec<SyntheticSource>,
    ) -> Self {
        let share = config.synthetic.as_ref().map_or(0.0, |synthetic| synthetic.share);
        let draw = config.synthetic.as_ref().map_or(TumorSampling::default(), |synthetic| synthetic.draw);
        let with_sampler = |source: SyntheticSource| {
            let tumor_sampler = source.sampler(draw);
            (source, tumor_sampler)
        };
        Self {
            key: Key::root(seed).with("train", "segmentation"),
            batch: config.batch,
            crops: config.crops,
            augment: config.augment,
            cut_mix: config.cut_mix,
            organs,
            real,
            share: if synthetic.is_empty() { 0.0 } else { share },
            synthetic: synthetic.into_iter().map(with_sampler).collect(),
            draw,
            fresh: Default::default(),
        }
    }

    fn sample(&self, key: Key) -> Result<Crop> {
        let mut random = key.stream("source");
        let source = random.chance(self.share).then(|| &self.synthetic[random.index(self.synthetic.len())]);
        let crop = match source {
            None => self.crop(&*random_case(&self.real, || even(&self.real, &mut random))?, key),
            Some((SyntheticSource::Pool(cases), tumor_sampler)) => {
                // A crop with a synthetic tumor is centred on the tumor, if the scan has one.
                let case = random_case(cases, || tumor_sampler.sample(&mut random))?;
                let has_tumor = self.organs.iter().any(|organ| case.index.count(organ.tumor_label) > 0);
                let centre = if has_tumor { CropCentre::Tumor } else { CropCentre::Label };
                let mut crop = Crop::of(&case, centre.crop(&case, &self.organs, &mut key.stream("crop")));
                crop.origin.is_synthetic = true;
                crop
            }
            Some((SyntheticSource::Candidates { cases, tumors }, tumor_sampler)) => {
                let Some(drawn) = tumor_sampler.sample(&mut random) else {
                    return Err(Error::new("expected at least one synthetic tumor, got none"));
                };
                let (index, candidate) = &tumors[drawn];
                let case = cases.get(*index).map_err(|fault| {
                    let id = &cases.entries()[*index].id;
                    Error::new(format!("cannot read the scan {id} of a tumor: {fault}")).with_source(fault)
                })?;
                with_tumor(&case, candidate, &mut key.stream("tumor"))
            }
            Some((SyntheticSource::Fresh { cases, tumors }, _)) => self.fresh(cases, tumors, &mut random, key)?,
        };
        Ok(self.augment.apply(crop, &mut key.stream("augment")))
    }

    fn crop(&self, case: &Case, key: Key) -> Crop {
        let mut random = key.stream("crop");
        let centre = self.crops.sample_centre(case, &self.organs, &mut random);
        Crop::of(case, centre.crop(case, &self.organs, &mut random))
    }

    /// Returns a crop with a fresh tumor, or an unchanged crop if no tumor passes. After a fault, another scan is sampled.
    fn fresh(&self, cases: &Cases, tumors: &TumorMaker, random: &mut RandomStream, key: Key) -> Result<Crop> {
        let (mut retry_key, mut number) = (key, 0);
        loop {
            let case = random_case(cases, || even(cases, random))?;
            let fault = match self.fresh_in(&case, tumors, retry_key) {
                Ok(Some(crop)) => return self.count_fresh(true, tumors).map(|()| crop),
                Ok(None) => return self.count_fresh(false, tumors).map(|()| self.crop(&case, retry_key)),
                Err(fault) => fault,
            };
            tracing::warn!(scan = %case.id(), %fault, "cannot make a tumor in a scan; sampling another scan");
            number += 1;
            if number == MAX_DRAWS {
                let last = case.id();
                let message = format!("cannot make tumors in {MAX_DRAWS} sampled scans; the last, {last}: {fault}");
                return Err(Error::new(message).with_source(fault));
            }
            retry_key = key.number("again", number as u64);
        }
    }

    fn fresh_in(&self, case: &Case, tumors: &TumorMaker, key: Key) -> Result<Option<Crop>, Fault> {
        let mut random = key.stream("tumor");
        let organs: Vec<&Organ> = tumors.organs.iter().filter(|organ| case.index.count(organ.label) > 0).collect();
        if organs.is_empty() {
            return Ok(None);
        }
        let count = match self.draw {
            TumorSampling::Voxel => tumors.per_scan,
            TumorSampling::Candidate => 1,
        };
        let mut made = Vec::new();
        for number in 0..count {
            let organ = organs[random.index(organs.len())];
            // One tumor is that of the key of the crop.
            let key = if count == 1 { key } else { key.number("tumor", number.into()) };
            made.extend(tumors.make(case, organ, key)?);
        }
        let tumor_sampler = TumorSampler::new(self.draw, made.iter().map(|candidate| ((), voxels(candidate))));
        Ok(tumor_sampler.sample(&mut random).map(|drawn| with_tumor(case, &made[drawn], &mut random)))
    }

    /// Counts fresh tumors, and reports if fewer than nine in ten passed.
    fn count_fresh(&self, has_passed: bool, tumors: &TumorMaker) -> Result<()> {
        let [requested, passed] = &self.fresh;
        let passed = passed.fetch_add(u64::from(has_passed), Ordering::Relaxed) + u64::from(has_passed);
        let requested = requested.fetch_add(1, Ordering::Relaxed) + 1;
        let mut report_at = FIRST_REPORT;
        while report_at < requested {
            report_at *= 10;
        }
        if requested < report_at || passed * 10 > requested * 9 {
            return Ok(());
        }
        if passed == 0 {
            let attempts = tumors.max_attempts();
            let message = format!(
                "no synthetic tumor passed the quality test for any of {requested} crops, within {attempts} attempts each"
            );
            return Err(Error::new(message).with_hint(FEW_PASS_HINT));
        }
        tracing::warn!("{}", self.acceptance_message(requested, passed));
        Ok(())
    }

    /// Returns a warning if fewer than nine in ten fresh tumors passed, otherwise `None`.
    pub fn low_acceptance_warning(&self) -> Option<String> {
        let [requested, passed] = self.fresh.each_ref().map(|count| count.load(Ordering::Relaxed));
        (passed * 10 < requested * 9).then(|| self.acceptance_message(requested, passed))
    }

    fn acceptance_message(&self, requested: u64, passed: u64) -> String {
        format!(
            "for {passed} of {requested} crops a synthetic tumor passed the quality test: expected a share of {:.2} synthetic crops, got {:.2}; \
             {FEW_PASS_HINT}",
            self.share,
            self.share * passed as f64 / requested as f64,
        )
    }
}

impl Sampler for SegmentationSampler {
    type Batch = Batch;

    fn batch(&self, step: u64) -> Result<Batch> {
        let key = self.key.number("step", step);
        let crops = (0..self.batch).map(|index| self.sample(key.number("sample", index as u64)));
        let crops = crops.collect::<Result<Vec<_>>>()?;
        Ok(Batch::of(cut_mix(crops, &self.cut_mix, &mut key.stream("cutmix"))))
    }
}

/// Samples a case, each with equal probability.
fn even(cases: &Cases, random: &mut RandomStream) -> Option<usize> {
    (!cases.is_empty()).then(|| random.index(cases.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::AttemptLoop;
    use crate::filter::{QualityTest, QualityTestConfig};
    use crate::mask::MaskedScan;
    use crate::score::{Intensity, IntensityConfig};
    use crate::synth::{Attempt, AttemptKey, Attempts, Candidate, Rules, RulesConfig, Synthesize};
    use crate::train::data::CaseEntry;
    use crate::train::testing::{organs, phantom, segmentation, small};
    use crate::volume::{Array3, Region};

    fn sampler(memory_bytes: u64, accept: &[&str]) -> SegmentationSampler {
        let entries = (0..3).map(|number| CaseEntry::of(phantom(number))).collect();
        let cases = Arc::new(Cases::new(entries, small(), memory_bytes));
        let rules = Rules::new(RulesConfig::default(), &organs(), small().window()).unwrap();
        let accept = accept.iter().map(ToString::to_string).collect();
        let test = QualityTest::new(QualityTestConfig { accept, ..Default::default() }).unwrap();
        let attempts = AttemptLoop::new(Arc::new(rules), Vec::new(), test);
        let tumors = TumorMaker { attempts, organs: organs(), per_scan: 1 };
        let fresh = SyntheticSource::Fresh { cases: Arc::clone(&cases), tumors };
        SegmentationSampler::new(&segmentation(10), 5, organs().into(), cases, vec![fresh])
    }

    #[test]
    fn batch_depends_on_step_only() {
        let (small_cache, large_cache) = (sampler(1, &[]), sampler(u64::MAX, &[]));
        for step in [3, 0, 7] {
            assert_eq!(small_cache.batch(step).unwrap(), large_cache.batch(step).unwrap());
        }
        assert_ne!(large_cache.batch(0).unwrap(), large_cache.batch(1).unwrap());
    }

    #[test]
    fn synthetic_crops_have_tumor_labels() {
        let sampler = sampler(u64::MAX, &[]);
        let batches: Vec<Batch> = (0..30).map(|step| sampler.batch(step).unwrap()).collect();
        let with_tumor = batches.iter().filter(|batch| batch.labels.contains(&2)).count();
        let synthetic: usize =
            batches.iter().flat_map(|batch| &batch.origins).filter(|origin| origin.is_synthetic).count();
        assert!(with_tumor > 10 && synthetic > 10, "{with_tumor} {synthetic}");
        assert!(batches.iter().all(|batch| batch.images.iter().all(|value| (-0.5..1.5).contains(value))));
    }

    #[test]
    fn candidates_are_pasted_into_their_cases() {
        let fresh = sampler(u64::MAX, &[]);
        let SyntheticSource::Fresh { cases, tumors } = &fresh.synthetic[0].0 else { panic!("fresh tumors") };
        let candidate = |index: usize| {
            let case = cases.get(index).unwrap();
            let candidate = (0..20).find_map(|key| tumors.make(&case, &organs()[0], Key::root(key)).unwrap());
            (index, *candidate.expect("a site for a tumor"))
        };
        let candidates: Arc<[_]> = [candidate(0), candidate(2)].into();
        let pool = SyntheticSource::Candidates { cases: Arc::clone(cases), tumors: candidates };
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

    /// The volumes in voxels of the lesions of three scans.
    const LESIONS: [&[usize]; 3] = [&[3, 30, 12], &[6], &[24, 9]];

    /// Returns the position of a lesion, whose voxels are in one slice.
    fn lesion(index: usize, voxels: usize) -> impl Iterator<Item = [usize; 3]> {
        (0..voxels).map(move |k| [20 + k % 6, 20 + k / 6, 16 + 18 * index])
    }

    /// Returns a scan of 8 mm voxels, all liver except for the given voxels of tumor.
    fn scan_with(number: u8, tumor: impl Iterator<Item = [usize; 3]>) -> MaskedScan {
        let mut labels = Array3::filled([44, 44, 68], 1u8);
        tumor.for_each(|voxel| labels[voxel] = 2);
        let mut masked = crate::synth::organ::testing::masked([8.0; 3], labels, |_| 60.0);
        let mut scan = (*masked.scan).clone();
        scan.entry.scan_id = crate::id::ScanId::from_bytes([number; 8]);
        masked.scan = Arc::new(scan);
        masked
    }

    #[test]
    fn synthetic_lesions_are_sampled_like_real_ones() {
        let all = |scan: usize| LESIONS[scan].iter().enumerate().flat_map(|(index, voxels)| lesion(index, *voxels));
        let case = |scan: usize| CaseEntry::of(scan_with(scan as u8, all(scan)));
        let healthy = |scan: usize| CaseEntry::of(scan_with(scan as u8, std::iter::empty()));
        let cases = |entries: Vec<CaseEntry>| Arc::new(Cases::new(entries, small(), u64::MAX));
        let real = cases((0..3).map(case).collect());
        // The same lesions as candidates of healthy scans …
        let mut candidates = Vec::new();
        for (scan, volumes) in LESIONS.iter().enumerate() {
            for (index, voxels) in volumes.iter().enumerate() {
                let region = Region { start: [18, 18, 16 + 18 * index], shape: [10, 8, 1] };
                let mut tumor = Array3::filled(region.shape, 0u8);
                lesion(index, *voxels).for_each(|[x, y, _]| tumor[[x - 18, y - 18, 0]] = 1);
                let hu = Array3::filled(region.shape, 60.0f32);
                let labels = tumor.map(|inside| 1 + inside);
                let geometry = crate::synth::Geometry::default();
                let (support, before, after) = (tumor.clone(), hu.clone(), hu);
                let site_box = region;
                candidates
                    .push((scan, Candidate { region, site_box, support, before, after, labels, tumor, geometry }));
            }
        }
        let pool =
            SyntheticSource::Candidates { cases: cases((0..3).map(healthy).collect()), tumors: candidates.into() };
        // … and as samples of a run folder, each with one of them.
        let mut samples = Vec::new();
        for (scan, volumes) in LESIONS.iter().enumerate() {
            for (index, voxels) in volumes.iter().enumerate() {
                let sample = CaseEntry::of(scan_with(10 + samples.len() as u8, lesion(index, *voxels)));
                samples
                    .push(sample.with_source(crate::id::ScanId::from_bytes([scan as u8; 8]), 512.0 * *voxels as f64));
            }
        }
        let counts = |share: f64, draw: TumorSampling, synthetic: Vec<SyntheticSource>| {
            let mut config = segmentation(10);
            let settings = config.synthetic.as_mut().unwrap();
            (settings.share, settings.draw) = (share, draw);
            (config.crops, config.cut_mix.probability, config.batch) =
                (CropConfig { label: 0.0, tumor: 1.0, background: 0.0 }, 0.0, 100);
            let sampler = SegmentationSampler::new(&config, 5, organs().into(), Arc::clone(&real), synthetic);
            let mut counts = std::collections::BTreeMap::<usize, f64>::new();
            for step in 0..60 {
                for labels in sampler.batch(step).unwrap().labels.chunks(16 * 16 * 16) {
                    // Crops are smaller than the distance of lesions: each contains one lesion, as a whole.
                    *counts.entry(labels.iter().filter(|label| **label == 2).count()).or_default() += 1.0 / 6000.0;
                }
            }
            counts
        };
        let expected = counts(0.0, TumorSampling::Voxel, vec![pool.clone()]);
        assert_eq!(expected.keys().copied().collect::<Vec<_>>(), [3, 6, 9, 12, 24, 30]);
        let pools = [pool.clone(), SyntheticSource::Pool(cases(samples))];
        for synthetic in pools {
            let shown = counts(1.0, TumorSampling::Voxel, vec![synthetic.clone()]);
            for (voxels, share) in &expected {
                assert!((shown[voxels] - share).abs() < 0.02, "{voxels} voxels: {} instead of {share}", shown[voxels]);
            }
            let even = counts(1.0, TumorSampling::Candidate, vec![synthetic]);
            assert!(even.values().all(|share| (share - 1.0 / 6.0).abs() < 0.02), "{even:?}");
        }
        // A third of the crops for the scan of one lesion, and a fifteenth of a third for the smallest of three.
        assert!((expected[&6] - 1.0 / 3.0).abs() < 0.02 && (expected[&3] - 1.0 / 45.0).abs() < 0.01, "{expected:?}");
    }

    #[test]
    fn crops_stay_real_and_training_stops_if_every_tumor_is_rejected() {
        let sampler = sampler(u64::MAX, &["found_fraction > 0.7"]);
        let counts =
            |sampler: &SegmentationSampler| sampler.fresh.each_ref().map(|count| count.load(Ordering::Relaxed));
        for step in 0..10 {
            let batch = sampler.batch(step).unwrap();
            assert!(!batch.labels.contains(&2) && batch.origins.iter().all(|origin| !origin.is_synthetic));
        }
        // If no tumor passes, the training run stops with an error.
        let stopped = (10..1000).find_map(|step| sampler.batch(step).err()).unwrap();
        assert_eq!(counts(&sampler), [FIRST_REPORT, 0]);
        let expected = "no synthetic tumor passed the quality test for any of 100 crops, within 10 attempts each";
        assert_eq!(stopped.to_string(), expected);
    }

    /// A synthesis that fails with probability 0.5.
    struct FaultySynthesis(Arc<dyn Synthesize>);

    impl Synthesize for FaultySynthesis {
        fn site_plan<'a>(&'a self, scan: &'a MaskedScan, organ: &'a Organ) -> Result<Box<dyn Attempts + 'a>, Fault> {
            Ok(Box::new(FaultyAttempts(self.0.site_plan(scan, organ)?)))
        }
    }

    struct FaultyAttempts<'a>(Box<dyn Attempts + 'a>);

    impl Attempts for FaultyAttempts<'_> {
        fn attempt(&self, key: AttemptKey) -> Result<Attempt, Fault> {
            if key.attempt().stream("fault").chance(0.5) {
                return Err(Fault::read(crate::error::FaultKind::Mismatch, "expected a tumor, got a fault"));
            }
            self.0.attempt(key)
        }
    }

    #[test]
    fn fault_of_attempt_does_not_stop_training() {
        let mut faulty = sampler(u64::MAX, &[]);
        let SyntheticSource::Fresh { tumors, .. } = &mut faulty.synthetic[0].0 else { panic!("fresh tumors") };
        tumors.attempts.synthesize = Arc::new(FaultySynthesis(Arc::clone(&tumors.attempts.synthesize)));
        let count = |sampler: &SegmentationSampler| {
            let batches: Vec<Batch> = (0..30).map(|step| sampler.batch(step).unwrap()).collect();
            assert_eq!(batches, (0..30).map(|step| sampler.batch(step).unwrap()).collect::<Vec<_>>());
            batches.iter().flat_map(|batch| &batch.origins).filter(|origin| origin.is_synthetic).count()
        };
        let (all, few) = (count(&sampler(u64::MAX, &[])), count(&faulty));
        assert!(all > 10 && few * 10 > all * 8, "{few} of {all}");
    }

    #[test]
    fn attempts_of_quality_test_bound_attempts_per_tumor() {
        let sampler = sampler(u64::MAX, &["delta_hu < -25"]);
        let SyntheticSource::Fresh { cases, tumors } = &sampler.synthetic[0].0 else { panic!("fresh tumors") };
        let case = cases.get(0).unwrap();
        let passed = |attempts| {
            let accept = vec!["delta_hu < -25".to_owned()];
            let test =
                QualityTest::new(QualityTestConfig { attempts: Some(attempts), accept, ..Default::default() }).unwrap();
            let intensity = Intensity::new(IntensityConfig::default(), &organs()).unwrap();
            let synthesize = Arc::clone(&tumors.attempts.synthesize);
            let attempts = AttemptLoop::new(synthesize, vec![Arc::new(intensity)], test);
            let tumors = TumorMaker { attempts, organs: organs(), per_scan: 1 };
            (0..40).filter(|key| tumors.make(&case, &organs()[0], Key::root(*key)).unwrap().is_some()).count()
        };
        let (once, often) = (passed(1), passed(8));
        assert!(once > 0 && once < often, "{once} of 40 with one attempt, {often} with eight");
    }
}
