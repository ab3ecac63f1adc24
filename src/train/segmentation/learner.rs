//! The training steps and the validation of a segmentor.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::SegmentationConfig;
use crate::error::{Error, Result};
use crate::mask::{IGNORE_LABEL, Organ};
use crate::nn::failed;
use crate::nn::network::Network;
use crate::nn::weights::NetworkPart;
use crate::nn::windows::{Importance, SlidingWindows, WindowGrouping, WindowPlan};
use crate::random::Key;
use crate::train::data::{Batch, Case, Cases, append, array_of, volumes_on};
use crate::train::losses::{Logits, attach_gradient, dice_by_class, dice_ce, to_host};
use crate::train::run::{Learner, Numbers, check_finite};
use crate::train::schedule::Schedule;
use crate::train::trained_network::TrainedNetwork;
use crate::volume::{Array3, Labels, Picture, busiest_voxel, stacked, three_planes};

/// Trains a segmentor.
pub struct SegmentationLearner {
    segmentor: TrainedNetwork,
    schedule: Schedule,
    organs: Arc<[Organ]>,
    validation: Option<Arc<Cases>>,
    patch: [usize; 3],
    overlap: f64,
    has_synthetic: bool,
}

/// Returns the number of output channels of a segmentor: the largest merged label plus 1, as channel n predicts label n; unused labels have
/// a channel too.
pub fn class_count(organs: &[Organ]) -> usize {
    organs.iter().map(|organ| usize::from(organ.label.max(organ.tumor_label)) + 1).max().unwrap_or(1)
}

/// Predicts the most likely label of every voxel of a case, from windows that overlap by a share in [0, 1).
///
/// # Shapes
/// `patch` is the size of a window along [x, y, z]; `infer` maps a window `[1, 1, x, y, z]` in [0, 1] to logits `[1, class, x, y, z]`.
///
/// # Errors
/// Returns an error if the network fails.
pub fn segment(
    case: &Case,
    (patch, overlap): ([usize; 3], f64),
    device: &Device,
    infer: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Array3<u8>> {
    let image = case.image(case.masked.mask.labels.region());
    let shape = image.shape();
    let mut values = Vec::new();
    append(&mut values, &image);
    let volume = volumes_on(values, 1, shape, device)?;
    let plan = WindowPlan::new(shape, patch, [overlap; 3])?;
    let windows = SlidingWindows { plan, importance: Importance::Constant, grouping: WindowGrouping::Alone };
    let logits = windows.predict_volume(&volume, infer)?;
    let classes = logits.dims()[1];
    let values = to_host(&logits)?;
    Ok(array_of(&Logits::new(&values, 1, classes).argmax(0), shape))
}

impl SegmentationLearner {
    /// Creates a learner for a segmentor of `organs`; without validation scans, [`Learner::validate`] returns no scores.
    ///
    /// # Errors
    /// Returns an error if the network cannot be built, or its initial weights cannot be read.
    pub fn new(
        config: &SegmentationConfig,
        seed: u64,
        organs: Arc<[Organ]>,
        validation: Option<Arc<Cases>>,
        device: &Device,
    ) -> Result<Self> {
        let network = config.network.build(class_count(&organs));
        let key = Key::root(seed).with("train", "weights");
        let mut segmentor = TrainedNetwork::new("segmentor", network, config.optimiser.adam(), key, device)?;
        if let Some(path) = &config.network.weights {
            segmentor = segmentor.with_weights(path, NetworkPart::Whole)?;
        }
        Ok(Self {
            segmentor,
            schedule: Schedule::new(config.optimiser.schedule, config.optimiser.rate, config.steps),
            organs,
            validation: validation.filter(|cases| !cases.is_empty()),
            patch: config.preprocess.patch_voxels,
            overlap: config.overlap,
            has_synthetic: config.synthetic.is_some(),
        })
    }

    /// Returns the segmentor.
    pub fn segmentor(&self) -> &TrainedNetwork {
        &self.segmentor
    }

    fn segment(&self, network: &Network, case: &Case) -> Result<Array3<u8>> {
        let infer = |window: &Tensor| network.forward(window).map_err(failed("the segmentor failed"));
        segment(case, (self.patch, self.overlap), self.segmentor.device(), infer)
    }

    /// Returns the labels for which a Dice is computed, each with its name.
    fn named_labels(&self) -> impl Iterator<Item = (u8, String)> + '_ {
        let both =
            |organ: &Organ| [(organ.label, organ.name.clone()), (organ.tumor_label, format!("{}_tumor", organ.name))];
        self.organs.iter().flat_map(both)
    }
}

impl Learner for SegmentationLearner {
    type Batch = Batch;

    fn learn(&mut self, step: u64, batch: Batch) -> Result<Numbers> {
        let rate = self.schedule.rate(step);
        let images = batch.images_on(self.segmentor.device())?;
        let logits = self.segmentor.network().forward(&images).map_err(failed("the segmentor failed"))?;
        let values = to_host(&logits)?;
        let loss = dice_ce(&Logits::new(&values, batch.len(), logits.dims()[1]), &batch.labels)
            .map_err(|error| Error::new(format!("{error}, in {}", batch.describe())))?;
        let mut numbers = vec![("loss".to_owned(), loss.value), ("rate".to_owned(), rate)];
        if self.has_synthetic {
            let synthetic = batch.origins.iter().filter(|origin| origin.is_synthetic).count();
            numbers.push(("synthetic share".to_owned(), synthetic as f64 / batch.len() as f64));
        }
        check_finite(&numbers, &batch.describe())?;
        self.segmentor.step(&attach_gradient(&logits, loss.gradient)?, rate)?;
        Ok(numbers)
    }

    fn validate(&mut self) -> Result<Numbers> {
        let Some(cases) = &self.validation else { return Ok(Vec::new()) };
        let network = self.segmentor.frozen()?;
        let classes = class_count(&self.organs);
        let mut dice_by_label = vec![Mean::default(); classes];
        let mut false_ml = vec![Mean::default(); classes];
        for index in 0..cases.len() {
            let Ok(case) = cases.get(index) else { continue };
            let truth = case.masked.mask.labels.as_slice();
            let predicted = self.segment(&network, &case)?;
            let dice = dice_by_class(truth, predicted.as_slice(), classes);
            let ml = case.masked.scan.volume.grid.voxel_volume_mm3() / 1000.0;
            for class in 1..classes {
                if case.index.count(class as u8) > 0 {
                    dice_by_label[class].add(dice[class].unwrap_or(0.0));
                } else {
                    let is_false = |(id, label): &(&u8, &u8)| usize::from(**id) == class && **label != IGNORE_LABEL;
                    let voxels = predicted.as_slice().iter().zip(truth).filter(is_false).count();
                    false_ml[class].add(voxels as f64 * ml);
                }
            }
        }
        let mut numbers: Numbers = self
            .named_labels()
            .map(|(label, name)| (format!("dice {name}"), dice_by_label[usize::from(label)].value()))
            .collect();
        let tumors = self.organs.iter().map(|organ| dice_by_label[usize::from(organ.tumor_label)].value());
        let defined: Vec<f64> = tumors.filter(|dice| dice.is_finite()).collect();
        let mean = defined.iter().sum::<f64>() / defined.len() as f64;
        numbers.push((self.score_name().to_owned(), mean));
        for organ in self.organs.iter() {
            let name = format!("ml of false {} tumors", organ.name);
            numbers.push((name, false_ml[usize::from(organ.tumor_label)].value()));
        }
        Ok(numbers)
    }

    fn score_name(&self) -> &'static str {
        "dice of tumors"
    }

    fn picture(&mut self) -> Result<Option<Picture>> {
        let Some(cases) = &self.validation else { return Ok(None) };
        let readable = (0..cases.len()).filter_map(|index| cases.get(index).ok());
        let tumors: Vec<u8> = self.organs.iter().map(|organ| organ.tumor_label).collect();
        let has_tumor = |case: &Arc<Case>| tumors.iter().any(|label| case.index.count(*label) > 0);
        let mut readable = readable.peekable();
        let first = readable.peek().cloned();
        let Some(case) = readable.find(has_tumor).or(first) else { return Ok(None) };
        let predicted = self.segment(&self.segmentor.frozen()?, &case)?;
        let volume = &case.masked.scan.volume;
        let labels = |ids: &Array3<u8>| Labels { grid: volume.grid, ids: ids.map(|id| u16::from(*id)) };
        let truth = labels(&case.masked.mask.labels);
        let tumor = truth.ids.map(|id| u16::from(tumors.contains(&(*id as u8))));
        let middle = volume.grid.shape.map(|voxels| voxels / 2);
        let voxel = busiest_voxel(&tumor).or_else(|| busiest_voxel(&truth.ids)).unwrap_or(middle);
        let rows = [None, Some(&truth), Some(&labels(&predicted))];
        Ok(Some(stacked(&rows.map(|labels| three_planes(volume, labels, voxel, case.window)), 6)))
    }

    fn networks(&self) -> Vec<&TrainedNetwork> {
        vec![&self.segmentor]
    }

    fn networks_mut(&mut self) -> Vec<&mut TrainedNetwork> {
        vec![&mut self.segmentor]
    }
}

/// A running mean; NaN without values.
#[derive(Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(self) -> f64 {
        self.sum / f64::from(self.count)
    }
}
