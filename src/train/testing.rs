//! Small scans for the tests of this module.

use std::sync::Arc;

use super::data::{Case, CaseEntry, Cases, VoxelIndex};
use super::segmentation::SegmentationConfig;
use super::synthesis::SynthesisConfig;
use crate::ingest::Source;
use crate::ingest::phantom::{Body, PhantomConfig, PhantomSource};
use crate::mask::{LabelsConfig, LabelsMask, Mask, MaskedScan, Organ};
use crate::volume::{HuWindow, Preprocess, Voxels};

/// Returns a phantom abdomen with its liver, by number.
pub(crate) fn phantom(number: u32) -> MaskedScan {
    let config = PhantomConfig {
        count: number + 1,
        body: Body::Abdomen,
        shape: [40, 36, 32],
        spacing_mm: [8.0, 8.0, 8.0],
        seed: 11,
        ..PhantomConfig::default()
    };
    let source = PhantomSource::new(config, "phantoms").unwrap();
    let entry = source.list().unwrap().pop().unwrap();
    let scan = Arc::new(source.read(&entry).unwrap());
    let mask: LabelsConfig = toml::from_str("organs = [\"liver\"]").unwrap();
    let mask = LabelsMask::new(mask).unwrap().mask(&scan).unwrap();
    MaskedScan { scan, mask }
}

/// Returns a preprocessing to 8 mm and patches of 16³ voxels.
pub(crate) fn small() -> Preprocess {
    Preprocess::new([8.0; 3], HuWindow::ABDOMEN, [16; 3]).unwrap()
}

/// Returns a preprocessed phantom.
pub(crate) fn case(number: u32) -> Case {
    Case::prepare(&phantom(number), &small()).unwrap()
}

/// Returns the organs of the phantoms.
pub(crate) fn organs() -> Vec<Organ> {
    vec![Organ { name: "liver".into(), label: 1, tumor_label: 2 }]
}

/// Returns the settings of a tiny segmentor with `steps` steps.
pub(crate) fn segmentation(steps: u64) -> SegmentationConfig {
    let text = format!(
        "steps = {steps}\nlabeled = ['organs']\nnetwork.width = 2\noptimiser.rate = 0.003\n\
         preprocess = {{ spacing_mm = [8, 8, 8], patch_voxels = [16, 16, 16] }}\n\
         every = {{ checkpoint = 3, validation = 4, picture = 4 }}\nsynthetic = {{ share = 0.5 }}\n"
    );
    toml::from_str(&text).unwrap()
}

/// Returns phantoms with one real tumor each, a dark ball in the liver.
pub(crate) fn synthesis_cases() -> Arc<Cases> {
    let with_tumor = |number| {
        let mut masked = phantom(number);
        let middle = VoxelIndex::of(&masked.mask.labels);
        let middle = middle.voxel(&masked.mask.labels, 1, middle.count(1) / 2).unwrap();
        let mut scan = (*masked.scan).clone();
        let Voxels::I16(hu) = &mut scan.volume.voxels else { panic!("phantoms have whole HU") };
        let shape = hu.shape();
        let near = |voxel: [usize; 3]| (0..3).map(|k| voxel[k].abs_diff(middle[k]).pow(2)).sum::<usize>() <= 2;
        for index in 0..hu.as_slice().len() {
            let voxel = [index % shape[0], index / shape[0] % shape[1], index / shape[0] / shape[1]];
            if near(voxel) && masked.mask.labels[voxel] == 1 {
                masked.mask.labels[voxel] = 2;
                hu[voxel] -= 50;
            }
        }
        masked.scan = Arc::new(scan);
        CaseEntry::of(masked)
    };
    Arc::new(Cases::new((0..3).map(with_tumor).collect(), small(), u64::MAX))
}

/// Returns the settings of a tiny generator and discriminator.
pub(crate) fn synthesis(steps: u64) -> SynthesisConfig {
    let text = format!(
        "steps = {steps}\nbatch = 2\nlabeled = ['organs']\nunlabeled = ['organs']\n\
         generator.width = 2\ndiscriminator.width = 2\nsegmentor.weights = 's.safetensors'\n\
         optimiser.rate = 0.003\n\
         preprocess = {{ spacing_mm = [8, 8, 8], patch_voxels = [16, 16, 16] }}\nvalidation_crops = 2\n\
         every = {{ checkpoint = 2, validation = 2, picture = 2 }}\n"
    );
    toml::from_str(&text).unwrap()
}
