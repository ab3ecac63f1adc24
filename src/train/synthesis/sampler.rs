//! The batches for the generator and the discriminator: crops with a tumor site.

use std::sync::Arc;

use super::SynthesisConfig;
use crate::error::{Error, Result};
use crate::mask::Organ;
use crate::random::{Key, RandomStream};
use crate::synth::{Attempt, AttemptKey, Rules, RulesConfig, Synthesize, TEXTURE_MEAN};
use crate::train::data::{AugmentConfig, Case, Cases, CropCentre, CropOrigin, MAX_DRAWS, Sampler, append, random_case};
use crate::train::{ORGAN, REAL, SYNTHETIC};
use crate::volume::{Array3, HuWindow, Region};

/// The crops of one step, each with the shape and the site of a tumor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SynthesisBatch {
    /// The images without the tumor, `[batch, x, y, z]`, z fastest.
    pub images: Vec<f32>,
    /// The labels in the same layout: 0 background, 1 the organ, 2 a real tumor of any organ, 3 the synthetic tumor.
    pub labels: Vec<u8>,
    /// The softened shapes times the textures in the same layout, zero outside of the healthy organ.
    pub stencils: Vec<f32>,
    /// The channel of the generator for each sample: the index of its organ.
    pub channels: Vec<usize>,
    /// The class of the segmentor for the tumor of each sample.
    pub tumor_labels: Vec<u8>,
    /// Voxels of a crop along [x, y, z].
    pub shape: [usize; 3],
    /// The origins of the crops.
    pub origins: Vec<CropOrigin>,
}

impl SynthesisBatch {
    /// Returns the number of crops.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Returns whether the batch has no crops.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Lists the origins of the crops, for messages.
    pub fn describe(&self) -> String {
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
    /// The same shapes without contrast.
    without_contrast: Rules,
    window: HuWindow,
}

impl SynthesisSampler {
    /// Creates a sampler of crops of labeled and unlabeled scans; `seed` and `purpose` determine all crops.
    ///
    /// # Errors
    /// Returns an error if the settings of shapes are invalid for the organs.
    pub fn new(
        config: &SynthesisConfig,
        (seed, purpose): (u64, &str),
        organs: Arc<[Organ]>,
        labeled: Arc<Cases>,
        unlabeled: Option<Arc<Cases>>,
    ) -> Result<Self> {
        let window = labeled.preprocess().window();
        // The networks are trained on undisplaced tissue; the stencil is the change by a difference of one, less what the rules change
        // without a difference.
        let with_contrast = |change_hu: f64| {
            let contrast_hu = organs.iter().map(|organ| (organ.name.clone(), [change_hu; 2])).collect();
            let shapes = RulesConfig { contrast_hu, mass_effect: false, ..config.shapes.clone() };
            Rules::new(shapes, &organs, window).map_err(|errors| {
                let messages = errors.iter().map(|error| format!("shapes.{}: {}", error.field, error.message));
                Error::new(messages.collect::<Vec<_>>().join("; "))
            })
        };
        let shapes = with_contrast(-f64::from(TEXTURE_MEAN * window.width_hu()))?;
        let without_contrast = with_contrast(0.0)?;
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
            without_contrast,
            window,
        })
    }

    /// Adds one sample to a batch. The first samples are labeled, and centred on a real tumor if their scan has one; sample 0 always has
    /// a real tumor.
    fn add(&self, batch: &mut SynthesisBatch, index: usize, key: Key) -> Result<()> {
        let is_labeled = index < self.labeled_per_batch;
        let cases = if is_labeled { &self.labeled } else { self.unlabeled.as_ref().unwrap_or(&self.labeled) };
        for round in 0..MAX_DRAWS as u64 {
            let key = key.number("round", round);
            let mut random = key.stream("crop");
            let case = random_case(cases, || (!cases.is_empty()).then(|| random.index(cases.len())))?;
            let tumors = || self.organs.iter().any(|organ| case.index.count(organ.tumor_label) > 0);
            let centre = if is_labeled && tumors() { CropCentre::Tumor } else { CropCentre::Label };
            if index == 0 && centre != CropCentre::Tumor {
                continue;
            }
            let region = centre.crop(&case, &self.organs, &mut random);
            if self.add_tumor(batch, &case, region, &mut random, key)? {
                return Ok(());
            }
        }
        let list = if is_labeled { "labeled" } else { "unlabeled" };
        Err(Error::new(format!("none of {MAX_DRAWS} crops of {list} scans has a site for a tumor"))
            .with_hint("use larger crops (`preprocess.patch_voxels`) or smaller tumors (`shapes.diameter_mm`)"))
    }

    /// Samples a tumor in a crop and adds the crop to the batch; returns whether the crop has a site for a tumor.
    fn add_tumor(
        &self,
        batch: &mut SynthesisBatch,
        case: &Case,
        region: Region,
        random: &mut RandomStream,
        key: Key,
    ) -> Result<bool> {
        let part = case.cut(region);
        let has_organ =
            |organ: &Organ| self.shapes.includes(organ) && part.mask.labels.as_slice().contains(&organ.label);
        let channels: Vec<usize> = (0..self.organs.len()).filter(|index| has_organ(&self.organs[*index])).collect();
        if channels.is_empty() {
            return Ok(false);
        }
        let channel = channels[random.index(channels.len())];
        let organ = &self.organs[channel];
        let attempt = |rules: &Rules| {
            let attempt = rules.site_plan(&part, organ).and_then(|plan| plan.attempt(AttemptKey::new(key, 0)));
            attempt.map_err(|fault| {
                Error::new(format!("cannot place a tumor in scan {}: {fault}", case.id())).with_source(fault)
            })
        };
        let (Attempt::Candidate(candidate), Attempt::Candidate(without)) =
            (attempt(&self.shapes)?, attempt(&self.without_contrast)?)
        else {
            return Ok(false);
        };
        let width = self.window.width_hu();
        let mut stencils = Array3::filled(region.shape, 0f32);
        stencils.paste(candidate.region.start, &candidate.after.map(|hu| -hu / width));
        // Both candidates have the same tumor, but may have different boxes.
        let undone = Array3::from_fn(candidate.region.shape, |voxel| {
            let voxel = [0, 1, 2].map(|k| candidate.region.start[k] + voxel[k]);
            let start = without.region.start;
            let hu = match without.region.contains(voxel) {
                true => without.after[[0, 1, 2].map(|k| voxel[k] - start[k])],
                false => candidate.before[[0, 1, 2].map(|k| voxel[k] - candidate.region.start[k])],
            };
            // A generator changes its organ only.
            if part.mask.labels[voxel] == organ.label { stencils[voxel] + hu / width } else { 0.0 }
        });
        stencils.paste(candidate.region.start, &undone);
        let mut tumor = Array3::filled(region.shape, 0u8);
        tumor.paste(candidate.region.start, &candidate.tumor);
        let label = |(&label, &tumor): (&u8, &u8)| match label {
            label if label == organ.label && tumor > 0 => SYNTHETIC,
            label if label == organ.label => ORGAN,
            label if self.organs.iter().any(|organ| organ.tumor_label == label) => REAL,
            _ => 0,
        };
        let labels = part.mask.labels.as_slice().iter().zip(tumor.as_slice()).map(label).collect();
        let mut image = case.image(region);
        let mut random = key.stream("augment");
        let symmetry = self.augment.symmetry(region.shape, &mut random);
        self.augment.brighten(&mut image, &mut random);
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
    fn batch_has_real_tumor_and_stencils_inside_organ() {
        let cases = synthesis_cases();
        let sampler =
            SynthesisSampler::new(&synthesis(5), (3, "synthesis"), organs().into(), cases.clone(), Some(cases))
                .unwrap();
        for step in 0..5 {
            let batch = sampler.batch(step).unwrap();
            assert_eq!((batch.len(), batch.images.len()), (2, 2 * 16 * 16 * 16));
            assert!(batch.labels[..4096].contains(&REAL), "the first sample has a real tumor");
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
