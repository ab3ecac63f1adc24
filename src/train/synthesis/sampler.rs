//! Crops with a place for a tumor.

use std::sync::Arc;

use super::SynthesisConfig;
use crate::error::{Error, Result};
use crate::mask::Organ;
use crate::random::{Key, RandomStream};
use crate::synth::{Attempt, AttemptKey, Rules, RulesConfig, Synthesize, TEXTURE_MEAN};
use crate::train::data::{AugmentConfig, Case, Cases, CropCentre, CropOrigin, MOST_DRAWS, Sampler, append, draw_case};
use crate::train::{ORGAN, REAL, SYNTHETIC};
use crate::volume::{Array3, HuWindow, Region};

/// The crops of one step, each with the place of a tumor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SynthesisBatch {
    /// Images without the tumor, `[batch, x, y, z]`, z fastest.
    pub images: Vec<f32>,
    /// 0 background, 1 the organ, 2 a real tumor of any organ, 3 the synthetic tumor; likewise.
    pub labels: Vec<u8>,
    /// Softened shape times texture, zero outside of the healthy organ; likewise.
    pub stencils: Vec<f32>,
    /// The generator's channel of each sample: the place of its organ.
    pub channels: Vec<usize>,
    /// The segmentor's class of each sample's tumor.
    pub tumor_labels: Vec<u8>,
    /// Voxels of a crop along [x, y, z].
    pub shape: [usize; 3],
    /// Where each comes from.
    pub origins: Vec<CropOrigin>,
}

impl SynthesisBatch {
    /// How many crops.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Every crop's origin, for messages.
    pub fn described(&self) -> String {
        self.origins.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// Makes the batches of [`SynthesisLearner`](super::SynthesisLearner).
pub struct SynthesisSampler {
    key: Key,
    batch: usize,
    labeled_per_batch: usize,
    augment: AugmentConfig,
    organs: Arc<[Organ]>,
    labeled: Arc<Cases>,
    unlabeled: Option<Arc<Cases>>,
    shapes: Rules,
    window: HuWindow,
}

impl SynthesisSampler {
    /// Crops of labeled and unlabeled scans; `seed` and `purpose` decide them all.
    ///
    /// # Errors
    /// Where the settings of shapes do not fit the organs.
    pub fn new(
        config: &SynthesisConfig,
        (seed, purpose): (u64, &str),
        organs: Arc<[Organ]>,
        labeled: Arc<Cases>,
        unlabeled: Option<Arc<Cases>>,
    ) -> Result<Self> {
        let window = labeled.preprocess().window();
        // A difference of one everywhere: what the rules then change is the stencil.
        let change_hu = -f64::from(TEXTURE_MEAN * window.width_hu());
        let contrast_hu = organs.iter().map(|organ| (organ.name.clone(), [change_hu; 2])).collect();
        let shapes = RulesConfig { contrast_hu, ..config.shapes.clone() };
        let shapes = Rules::new(shapes, &organs, window).map_err(|complaints| {
            let said = complaints.iter().map(|it| format!("shapes.{}: {}", it.field, it.message)).collect::<Vec<_>>();
            Error::new(said.join("; "))
        })?;
        let unlabeled = unlabeled.filter(|cases| !cases.is_empty());
        let labeled_per_batch = match unlabeled {
            None => config.batch,
            Some(_) => ((config.labeled_share * config.batch as f64).round() as usize).clamp(1, config.batch),
        };
        Ok(Self {
            key: Key::root(seed).with("train", purpose),
            batch: config.batch,
            labeled_per_batch,
            augment: config.augment,
            organs,
            labeled,
            unlabeled,
            shapes,
            window,
        })
    }

    /// Adds one sample to a batch. The first ones are labeled, and lie around a real tumor where their scan has one; the
    /// very first one's has.
    fn add(&self, batch: &mut SynthesisBatch, index: usize, key: Key) -> Result<()> {
        let is_labeled = index < self.labeled_per_batch;
        let cases = if is_labeled { &self.labeled } else { self.unlabeled.as_ref().unwrap_or(&self.labeled) };
        for round in 0..MOST_DRAWS as u64 {
            let key = key.number("round", round);
            let mut draws = key.draws("crop");
            let case = draw_case(cases, &mut draws)?;
            let tumors = || self.organs.iter().any(|organ| case.index.count(organ.tumor_label) > 0);
            let around = if is_labeled && tumors() { CropCentre::Tumor } else { CropCentre::Label };
            if index == 0 && around != CropCentre::Tumor {
                continue;
            }
            let region = around.crop(&case, &self.organs, &mut draws);
            if self.place(batch, &case, region, &mut draws, key)? {
                return Ok(());
            }
        }
        let what = if is_labeled { "labeled" } else { "unlabeled" };
        Err(Error::new(format!("none of {MOST_DRAWS} crops of {what} scans has a place for a tumor")).with_hint(
            "crops show too little of the organs for the sizes asked for: take larger crops (`preprocess.patch_voxels`), or \
             smaller tumors (`shapes.diameter_mm`)",
        ))
    }

    /// Finds a place in a crop, and adds it to the batch where there is one.
    fn place(
        &self,
        batch: &mut SynthesisBatch,
        case: &Case,
        region: Region,
        draws: &mut RandomStream,
        key: Key,
    ) -> Result<bool> {
        let part = case.cut(region);
        let shown = |organ: &Organ| self.shapes.includes(organ) && part.mask.labels.as_slice().contains(&organ.label);
        let shown: Vec<usize> = (0..self.organs.len()).filter(|index| shown(&self.organs[*index])).collect();
        if shown.is_empty() {
            return Ok(false);
        }
        let channel = shown[draws.index(shown.len())];
        let organ = &self.organs[channel];
        let made = self.shapes.site_plan(&part, organ).and_then(|plan| plan.attempt(AttemptKey::new(key, 0)));
        let made = made.map_err(|fault| {
            Error::new(format!("cannot place a tumor in scan {}: {fault}", case.id())).with_source(fault)
        })?;
        let Attempt::Candidate(candidate) = made else { return Ok(false) };
        let width = self.window.width_hu();
        let pairs = candidate.before.as_slice().iter().zip(candidate.after.as_slice());
        let stencil = Array3::from_vec(candidate.region.shape, pairs.map(|(b, a)| (b - a) / width).collect());
        let mut stencils = Array3::filled(region.shape, 0f32);
        stencils.paste(candidate.region.start, &stencil);
        let mut tumor = Array3::filled(region.shape, 0u8);
        tumor.paste(candidate.region.start, &candidate.tumor);
        let label = |(&label, &tumor): (&u8, &u8)| match label {
            _ if tumor > 0 => SYNTHETIC,
            label if label == organ.label => ORGAN,
            label if self.organs.iter().any(|organ| organ.tumor_label == label) => REAL,
            _ => 0,
        };
        let labels = part.mask.labels.as_slice().iter().zip(tumor.as_slice()).map(label).collect();
        let mut image = case.image(region);
        let mut draws = key.draws("augment");
        let symmetry = self.augment.symmetry(region.shape, &mut draws);
        self.augment.brighten(&mut image, &mut draws);
        append(&mut batch.images, &symmetry.of(image));
        append(&mut batch.labels, &symmetry.of(Array3::from_vec(region.shape, labels)));
        append(&mut batch.stencils, &symmetry.of(stencils));
        batch.channels.push(channel);
        batch.tumor_labels.push(organ.tumor_label);
        batch.shape = region.shape;
        batch.origins.push(CropOrigin { scan_id: case.id(), start: region.start, is_synthetic: true });
        Ok(true)
    }
}

impl Sampler for SynthesisSampler {
    type Batch = SynthesisBatch;

    fn batch(&self, step: u64) -> Result<SynthesisBatch> {
        let key = self.key.number("step", step);
        let mut batch = SynthesisBatch::default();
        for index in 0..self.batch {
            self.add(&mut batch, index, key.number("sample", index as u64))?;
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::testing::{organs, synthesis, synthesis_cases};

    #[test]
    fn every_batch_has_a_real_tumor_and_a_stencil_in_the_organ() {
        let cases = synthesis_cases();
        let sampler =
            SynthesisSampler::new(&synthesis(5), (3, "synthesis"), organs().into(), cases.clone(), Some(cases))
                .unwrap();
        for step in 0..5 {
            let batch = sampler.batch(step).unwrap();
            assert_eq!((batch.len(), batch.images.len()), (2, 2 * 16 * 16 * 16));
            assert!(batch.labels[..4096].contains(&REAL), "the first sample shows a real tumor");
            for sample in 0..2 {
                let range = sample * 4096..(sample + 1) * 4096;
                let pairs = || batch.labels[range.clone()].iter().zip(&batch.stencils[range.clone()]);
                assert!(pairs().all(|(label, stencil)| *stencil == 0.0 || [ORGAN, SYNTHETIC].contains(label)));
                assert!(pairs().any(|(label, stencil)| *label == SYNTHETIC && *stencil > 0.05));
                assert!(pairs().all(|(_, stencil)| (0.0..=1.01).contains(stencil)));
            }
            assert_eq!(batch, sampler.batch(step).unwrap());
        }
    }
}
